"""Reading a checkpoint file without trusting it.

A `.pth` file is a pickle: it is read with ``weights_only=True``, which builds tensors and plain
containers and refuses everything else before it runs. `.safetensors` files hold tensors alone.
"""

from __future__ import annotations

import pickle
import re
import warnings
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
        exists = "is a directory" if file.is_dir() else "is no file"
        what = exists if file.exists() else "does not exist"
        raise CheckpointError(f"checkpoint {path} {what}.")
    read = _read_safetensors if file.suffix == ".safetensors" else _read_pickle
    return _named_tensors(path, read(file))


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
        raise CheckpointError(f"{file} cannot be read as safetensors: {error}.") from error


def _read_pickle(file: Path) -> object:
    try:
        with warnings.catch_warnings():
            # torch remarks on protocols and layouts; what matters is whether the file can be read.
            warnings.simplefilter("ignore")
            return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        forbidden = re.search(r"GLOBAL ([\w.]+)", str(error))
        if forbidden is None:
            raise _unreadable(file, error) from error
        raise CheckpointError(
            f"{file} is refused: unpickling it would import {forbidden[1]}, which may run code. "
            "Save its weights alone (torch.save of a state_dict, or safetensors)."
        ) from error
    except Exception as error:  # a damaged pickle raises whatever its bytes happen to lead to
        raise _unreadable(file, error) from error


def _unreadable(file: Path, error: Exception) -> CheckpointError:
    # Errors of the system and of torch's zip reader speak of the file; an unpickler's do not.
    known = isinstance(error, (OSError, RuntimeError))
    reason = (str(error).splitlines() or [""])[0] if known else type(error).__name__
    if isinstance(error, pickle.UnpicklingError):
        reason = "torch does not unpickle it safely"
    return CheckpointError(
        f"{file} cannot be read: it is damaged, cut short or no checkpoint ({reason})."
    )


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
            _check_plain(path, named)
            return named
    raise CheckpointError(
        f"{path} holds no weights: expected tensors by name, bare or under "
        f"{', '.join(_CONTAINERS[:2])}."
    )


def _check_plain(path: str | Path, named: Mapping[str, Tensor]) -> None:
    """Refuse tensors that have no plain values to copy."""
    for name, value in named.items():
        if value.layout is not torch.strided or value.is_meta or value.is_quantized:
            kind = "quantized" if value.is_quantized else f"{value.layout}, on {value.device}"
            raise CheckpointError(
                f"{path}: {name} is no plain tensor ({kind}); save dense weights on the CPU."
            )
