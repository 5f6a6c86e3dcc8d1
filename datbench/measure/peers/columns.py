"""What our own count saw in each module, as columns of amounts by operator and kind of work.

Inside a declared operator (see `datbench.models.declared`) other counters see what really runs:
here both are recorded, the declared cost and, marked, what ran inside.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook
from torch.utils._pytree import tree_leaves

from ...models.declared import Declaration, observing
from ...types import MULTIPLY_ADDS
from ..count import below_autograd, quiet, unchanged
from ..modules import ModuleTracker
from ..recorder import OperatorCall, Recorder

SIZES = ("parameters", "parameters x items", "parameters x positions", "rows")
"""Kinds of columns that are no operator's work: some counters go by sizes alone. A module's own
parameters; as often as its output is long in the first dimension; as often as its output has
positions, were its second dimension the channels; and the rows of its output, along the last.
"""

_PRODUCTS = frozenset(map(str, MULTIPLY_ADDS))


@dataclass(frozen=True, order=True)
class Column:
    """Something that a counter may give a weight to.

    Args:
        operator: its name; empty for those of `SIZES`.
        kind: a kind of work, or one of `SIZES`.
        inside: the declared operator inside which it ran; empty elsewhere.
        turn: for one of several calls in a module, which, from 1; 0 for all of them.
    """

    operator: str
    kind: str
    inside: str = ""
    turn: int = 0

    @property
    def counts(self) -> bool:
        """Whether our multiply-adds hold it: a product, and not inside a declared operator."""
        return self.kind in _PRODUCTS and not self.inside


@dataclass(frozen=True)
class Observed:
    """A module and what ran in it, its children left out."""

    path: str
    type: str
    amounts: Mapping[Column, int]
    calls: Mapping[Column, int]

    @property
    def multiply_adds(self) -> int:
        """Ours: what a difference is taken from."""
        return sum(amount for column, amount in self.amounts.items() if column.counts)


class _Open(Recorder):
    """Records declared operators, and what runs inside them too."""

    def __init__(self, tracker: ModuleTracker) -> None:
        super().__init__(tracker)
        self.inside: list[tuple[OperatorCall, str]] = []
        self._names: list[str] = []

    def enter(self, declaration: Declaration) -> None:
        """Take the declared cost, once for the outermost."""
        if not self._names:
            self._record_declared(declaration, *self.tracker.current, times=1)
        self._names.append(declaration.operator)

    def exit(self) -> None:
        """The declared operator has ended."""
        self._names.pop()

    def _call(self, *args: Any, **kwargs: Any) -> OperatorCall:
        call = super()._call(*args, **kwargs)
        if not self._names:
            return call
        self.inside.append((call, self._names[0]))
        return replace(call, status="free", cost={})


def observe(model: nn.Module, x: Tensor) -> tuple[Observed, ...]:
    """Run the model once, and say for every module what ran in it."""
    with ModuleTracker(model) as tracker, unchanged(model), _Outputs() as outputs:
        recorder = _Open(tracker)
        with observing(recorder), torch.no_grad(), below_autograd(), recorder, quiet():
            model(x)
    amounts: dict[str, dict[Column, int]] = {}
    turns: dict[str, dict[Column, int]] = {}
    for call, inside in [(call, "") for call in recorder.calls] + recorder.inside:
        for kind, amount in call.cost.items():
            column = Column(call.operator, str(kind), inside)
            here, apart = amounts.setdefault(call.module, {}), turns.setdefault(call.module, {})
            turn = 1 + sum(replace(known, turn=0) == column for known in apart)
            apart[replace(column, turn=turn)] = amount
            here[column] = here.get(column, 0) + amount
    return tuple(
        Observed(
            path,
            type(module).__qualname__,
            amounts.pop(path, {}) | _sizes(module, outputs.shapes.get(id(module), [])),
            turns.pop(path, {}),
        )
        for path, module in _named(model)
    )


def _named(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Modules by the paths of `ModuleTracker`, which leaves `_orig_mod` out."""
    for path, module in model.named_modules():
        yield ".".join(part for part in path.split(".") if part != "_orig_mod"), module


class _Outputs:
    """The shapes of what modules return, a list for each by identity."""

    def __init__(self) -> None:
        self.shapes: dict[int, list[torch.Size]] = {}

    def __enter__(self) -> _Outputs:
        self._handle = register_module_forward_hook(self._see)
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._handle.remove()

    def _see(self, module: nn.Module, inputs: Any, output: Any) -> None:
        first = next((leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor)), None)
        if first is not None:
            self.shapes.setdefault(id(module), []).append(first.shape)


def _sizes(module: nn.Module, outputs: list[torch.Size]) -> dict[Column, int]:
    """The columns of `SIZES`; a module that did not run has none."""
    own = sum(p.numel() for p in module.parameters(recurse=False))
    values = (
        own * len(outputs),
        own * sum(shape[0] for shape in outputs if shape),
        own * sum(shape.numel() // shape[1] for shape in outputs if len(shape) > 1 and shape[1]),
        sum(shape.numel() // shape[-1] for shape in outputs if shape and shape[-1]),
    )
    return {Column("", kind): value for kind, value in zip(SIZES, values, strict=True) if value}
