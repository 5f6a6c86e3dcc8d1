"""Reading a checkpoint file without trusting it.

A `.pth` file is a pickle: it is read with ``weights_only=True``, which builds tensors and plain
containers and refuses everything else before it runs. `.safetensors` files hold tensors alone.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from ..errors import CheckpointError

_CONTAINERS = ("model", "state_dict", "model_state_dict", "model_ema")


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """The named tensors of a file, on the CPU.

    Raises:
        CheckpointError: there is no such file, or it is damaged, would run code, or has no
            weights in it.
    """
    file = Path(path)
    if not file.is_file():
        what = "is a directory" if file.is_dir() else "does not exist"
        raise CheckpointError(f"checkpoint {path} {what}.")
    if file.suffix == ".safetensors":
        return _read_safetensors(file)
    return _named_tensors(path, _read_pickle(file))


def _read_safetensors(file: Path) -> dict[str, Tensor]:
    try:
        from safetensors.torch import load_file
    except ImportError as error:
        raise CheckpointError(
            f"reading {file} needs safetensors: pip install safetensors."
        ) from error
    try:
        return dict(load_file(file))
    except Exception as error:  # safetensors raises its own type, which has no stable home
        raise CheckpointError(f"{file} is no readable safetensors file: {error}.") from error


def _read_pickle(file: Path) -> object:
    try:
        return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = str(error).splitlines()[0]
        if "GLOBAL" in str(error) or "Unsupported" in str(error):
            raise CheckpointError(
                f"{file} is refused: unpickling it would import or run something that is not a "
                "tensor. Save its weights alone (torch.save of a state_dict, or safetensors)."
            ) from error
        raise CheckpointError(f"{file} is no readable checkpoint: {reason}") from error
    except (EOFError, OSError, RuntimeError, ValueError, KeyError, AttributeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise CheckpointError(f"{file} is no readable checkpoint: {reason}") from error


def _named_tensors(path: str | Path, content: object) -> dict[str, Tensor]:
    """The weights inside a file's content: bare, or under one of the usual keys."""
    if isinstance(content, Mapping):
        for key in _CONTAINERS:
            inner = content.get(key)
            if isinstance(inner, Mapping):
                content = inner
                break
        named = {str(key): value for key, value in content.items() if isinstance(value, Tensor)}
        if named:
            return named
    raise CheckpointError(
        f"{path} holds no weights: expected tensors by name, bare or under "
        f"{', '.join(_CONTAINERS[:2])}."
    )
