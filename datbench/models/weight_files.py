"""The dictionaries of tensors in a file. Nothing that the file names is imported or called.

A `.pth` file is somebody's pickle. It is read with ``weights_only=True``, which builds tensors and
plain containers and refuses everything else before it runs. Trainers put other objects beside the
weights: timm its argparse.Namespace, the DAT repositories their yacs configuration. Such a file is
read again with a stand-in for each of them. `.safetensors` holds only tensors.
"""

from __future__ import annotations

import pickle
import re
import warnings
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from ..errors import CheckpointError, first_line

Weights = Mapping[str, Any]
"""Tensors, and stand-ins for what may have been tensors, by key."""

_OPTIMIZERS = r"(?<![^._])optim(?:izers?)?(?![^._])"
"""Keys of moments, which may have the names of weights."""


def read_dictionaries(path: str | Path) -> list[tuple[tuple[str, ...], Weights]]:
    """The dictionaries of tensors in a file, behind the keys that lead there; on the CPU.

    Raises:
        CheckpointError: there is no such file, or it is damaged.
    """
    file = Path(path)
    if not file.is_file():
        exists = "is a directory" if file.is_dir() else "is not a file"
        what = exists if file.exists() else "does not exist"
        raise CheckpointError(f"checkpoint {path} {what}.")
    if file.suffix == ".safetensors":
        return list(_dictionaries(_read_safetensors(file)))
    try:
        return list(_dictionaries(_read_pickle(file)))
    except Exception as error:  # a damaged pickle raises whatever its bytes happen to lead to
        # Errors of the system and of torch's zip reader speak of the file; an unpickler's do not.
        known = isinstance(error, (OSError, RuntimeError))
        reason = first_line(error).partition(". ")[0] if known else type(error).__name__
        if "TorchScript" in reason:
            reason = "it is a TorchScript program; save the model's state_dict() instead"
        raise CheckpointError(
            f"{file} cannot be read: it is damaged, cut short or no checkpoint ({reason})."
        ) from error


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
    with warnings.catch_warnings():
        # torch remarks on protocols and layouts; what matters is whether the file can be read.
        warnings.simplefilter("ignore")
        try:
            return torch.load(file, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError:  # TorchScript, which torch would run, is a RuntimeError
            load = lambda stream, **options: _Unpickler(stream, **options).load()  # noqa: E731
            inert: Any = SimpleNamespace(__name__="inert", Unpickler=_Unpickler, load=load)
            return torch.load(file, "cpu", inert, weights_only=False, encoding="latin1")


class _Unpickler(pickle._Unpickler):  # the one in C grows its memo to any index that a file names
    """Whatever a file names is looked up in `find_class`: pickle's own way to restrict it."""

    def find_class(self, module: str, name: str) -> Any:
        """What makes dense tensors and dictionaries; for all others a stand-in.

        Functions are made anew: what a file sets on them is gone with the file. The types cannot
        be changed. torch answers itself for the types of storages.
        """
        match f"{module}.{name}":
            case "torch._utils._rebuild_tensor_v2":
                return lambda *given: _dense(*given[:4])
            case "torch._utils._rebuild_parameter" | "torch._utils._rebuild_parameter_with_state":
                return lambda tensor, *_: tensor
            case "collections.OrderedDict":
                return OrderedDict
            case "torch.Size":
                return tuple
            case "__builtin__.set" | "builtins.set":
                return set
            case path:
                return type("_", (StandIn,), {"path": path})

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, partial(_storage, value) if name == "persistent_load" else value)


def _storage(load: Any, saved: tuple[Any, ...]) -> Any:
    """A storage. Before 1.6 a file might have a module there, for which torch writes a patch."""
    if saved[0] != "storage":
        raise pickle.UnpicklingError("an outside object that is not a storage")
    return load(saved)


def _dense(storage: Any, offset: int, size: tuple[int, ...], stride: tuple[int, ...]) -> Tensor:
    values = torch.empty(0, dtype=storage.dtype).set_(storage.untyped())  # (N,)
    return values.as_strided(size, stride, offset)  # an error where it leaves the storage


class StandIn(dict[Any, Any]):
    """In the place of an object of a foreign class: what the file puts into it, and no behaviour.

    Attributes and items of a dictionary have their names, arguments and items of a list numbers.
    """

    path = ""  # of the class or function, such as argparse.Namespace

    def __new__(cls, *given: object, **_: object) -> StandIn:
        # A class in a class is what getattr returned, which is a stand-in too.
        made = super().__new__(cls if isinstance(cls, type) else type(cls))
        made.extend(given)
        return made

    def __call__(self, *given: object) -> StandIn:
        return type(self)(*given)

    def __init__(self, *_: object, **__: object) -> None:
        """Nothing more."""

    def __setstate__(self, state: object) -> None:
        for part in state if isinstance(state, tuple) else (state,):  # with __slots__ two
            self.update(part if isinstance(part, dict) else {})

    def append(self, item: object) -> None:
        self[len(self)] = item

    def extend(self, items: Iterable[object]) -> None:
        for item in items:
            self.append(item)

    add = append

    def __hash__(self) -> int:  # type: ignore[override]
        return id(self)  # it may be a key


def _dictionaries(
    content: object, keys: tuple[str, ...] = (), above: tuple[int, ...] = ()
) -> Iterator[tuple[tuple[str, ...], Weights]]:
    if id(content) in above:  # configurations may know what holds them
        return
    above = (*above, id(content))
    if isinstance(content, StandIn) and "_modules" in content:
        content = dict(_module(content))
    if isinstance(content, Mapping):
        values = {str(k): v for k, v in content.items() if isinstance(v, Tensor | StandIn)}
        if values:
            yield keys, values
    elif isinstance(content, list | tuple):
        content = dict(enumerate(content))
    else:
        return
    for key, value in content.items():
        if not re.search(_OPTIMIZERS, str(key)):
            yield from _dictionaries(value, (*keys, str(key)), above)


def _module(found: Any, prefix: str = "") -> Iterator[tuple[str, object]]:
    """The state_dict() of a module that was saved as an object."""
    for name, value in {**found["_parameters"], **found["_buffers"]}.items():
        if name not in found.get("_non_persistent_buffers_set", ()):
            yield f"{prefix}{name}", value
    for name, child in found["_modules"].items():
        yield from _module(child, f"{prefix}{name}.") if child else ()
