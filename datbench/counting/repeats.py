"""Equal parts of a model, such as the blocks of a stage, run once in a count.

Two modules are equal if their classes, plain attributes, tensors' shapes and parts are. Given
inputs of one layout they make the same operator calls, so the later ones get the calls of the first
under their own paths. This holds of code that reads nothing but its module and its inputs: of the
packages in `KNOWN`, and of a model that nobody has changed since it was built.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, is_dataclass
from functools import partial
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from .recorder import OperatorCall, Recorder

KNOWN = ("datbench.models.", "torch.nn.modules.", "timm.")
"""Packages whose modules read nothing but themselves and their inputs."""

EqualPart: TypeAlias = tuple[str, nn.Module]
"""A module's path, and the module."""

_PLAIN = {bool, int, float, str, type(None), torch.dtype, torch.device}

_INTERNAL = vars(nn.Module()).keys() - {"training"}
"""What torch keeps in every module."""

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


class _Other(Exception):
    """There is something that cannot be compared."""


def _frozen(value: Any) -> Any:
    """A plain value that can be compared; a tensor's layout."""
    if type(value) in _PLAIN:
        return value
    if isinstance(value, Tensor):
        if not value.is_meta or value.layout is not torch.strided:
            raise _Other
        return value.shape, value.stride(), value.dtype, value.requires_grad
    if isinstance(value, (list, tuple)):
        return tuple(map(_frozen, value))
    ours = is_dataclass(value) and type(value).__module__.startswith("datbench.models.")
    if ours or isinstance(value, tuple(_PLAIN)):  # a configuration of a model of datbench's
        return value
    raise _Other


def equal_parts(model: nn.Module) -> list[list[EqualPart]]:
    """Modules with parts of their own that are equal, two or more."""
    numbers: dict[Any, int] = {}  # the same of modules that are equal
    members: dict[int, list[EqualPart]] = {}
    seen: set[nn.Module] = set()

    def number(path: str, module: nn.Module) -> int | None:
        """The module's; None where it cannot be compared, or has another path too."""
        kind, own = type(module), vars(module)
        if module in seen:
            return None
        seen.add(module)
        parts = [
            -1 if part is None else number(f"{path}.{name}" if path else name, part)
            for name, part in own["_modules"].items()
        ]
        if not kind.__module__.startswith(KNOWN) or any(own[hooks] for hooks in _HOOKS):
            return None
        held = [item for item in own.items() if item[0] not in _INTERNAL]
        held += [*own["_parameters"].items(), *own["_buffers"].items()]
        try:
            frozen = tuple([(name, _frozen(value)) for name, value in held])
        except _Other:
            return None
        if None in parts:
            return None
        found = numbers.setdefault((kind, frozen, *own["_modules"], *parts), len(numbers))
        if parts and not isinstance(module, nn.ModuleList):  # which has no forward
            members.setdefault(found, []).append((path, module))
        return found

    number("", model)
    return [places for places in members.values() if len(places) > 1]


@dataclass(frozen=True)
class _FirstCall:
    """What the first of equal modules did."""

    path: str
    calls: tuple[OperatorCall, ...]
    output: Tensor  # on meta: it stands for the output of every other one
    layout: Any  # that it had


@contextmanager
def counted_once(parts: list[list[EqualPart]], recorder: Recorder) -> Iterator[None]:
    """Run one of equal parts for all of them, while `recorder` records the model's forward."""
    for alike in parts:
        known: dict[Any, _FirstCall | None] = {}
        for path, part in alike:
            part.forward = partial(_forward, recorder, known, path, part.forward)
    try:
        yield
    finally:
        for _, part in (place for alike in parts for place in alike):
            del part.forward


def _forward(
    recorder: Recorder,
    known: dict[Any, _FirstCall | None],
    path: str,
    forward: Callable[..., Any],
    *args: Any,
    **named: Any,
) -> Any:
    """A part's forward, or what it would record and return."""
    try:
        given = (_frozen(tree_leaves((args, named))), tuple(named), torch.is_grad_enabled())
    except _Other:
        return forward(*args, **named)
    first = known.get(given)
    if first is not None and _frozen(first.output) == first.layout:
        begun = len(first.path)
        recorder.calls += [call._replace(module=path + call.module[begun:]) for call in first.calls]
        return first.output
    before = len(recorder.calls)
    output = forward(*args, **named)
    if given not in known:
        known[given] = _first_call(path, recorder.calls[before:], output, (args, named))
    return output


def _first_call(
    path: str, calls: list[OperatorCall], output: Any, given: tuple[Any, Mapping[str, Any]]
) -> _FirstCall | None:
    """What others may take from it; None if its output is a part of something that is there."""
    inside = all(f"{call.module}.".startswith(f"{path}.") for call in calls)
    if not inside or not isinstance(output, Tensor) or output.storage_offset():
        return None
    own = output.untyped_storage()
    shared = any(
        isinstance(leaf, Tensor) and leaf.untyped_storage()._cdata == own._cdata
        for leaf in tree_leaves(given)
    )
    if shared or own.nbytes() != output.numel() * output.element_size():
        return None
    return _FirstCall(path, tuple(calls), output, _frozen(output))
