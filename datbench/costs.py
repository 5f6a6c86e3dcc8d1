"""What one run of a model counts and what it holds, by module, operator and category.

For users these are names of `datbench.testing`. torch is loaded on the first call.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .errors import UnknownNameError
from .ledger import MEMORY_MODES, PLAIN, Category, LedgerLine, MemoryMode

if TYPE_CHECKING:
    from torch import nn

    from .measure.conventions import Convention
    from .measure.views import Count

WHOLE = "(model)"
"""The whole model among expected modules; an empty name means the same."""


@dataclass(frozen=True)
class Flops:
    """A count under one convention. `int(...)` of it is its total.

    Args:
        count: every operator call, unweighted.
        shared: paths of modules that stand in the model before, and the first path of each, which
            all that they run has.
    """

    count: Count
    convention: Convention
    shared: Mapping[str, str] = field(default_factory=dict)

    @property
    def unit(self) -> str:
        """``MAC`` or ``FLOP``."""
        return self.convention.unit

    @property
    def total(self) -> int:
        """Of everything that ran, in the convention's unit."""
        return self.count.total(self.convention)

    def __int__(self) -> int:
        return self.total

    def of(self, module: str) -> int:
        """What runs inside a module, by its path, in the same unit.

        Raises:
            KeyError: nothing ran under that path; of a shared module only the first has amounts.
        """
        if module in ("", WHOLE):
            return self.total
        found = [
            self.convention.weigh(call.cost, call.module_type)
            for call in self.count.calls
            if _inside(call.module, module)
        ]
        if not found:
            raise KeyError(self._absent(module))
        return sum(found)

    def _absent(self, module: str) -> str:
        if module in self.shared:
            return f"{module}: this is {self.shared[module]}, and what it runs stands there"
        return f"{module}: nothing ran in a module of this name"

    def by_module(self, depth: int | None = None) -> dict[str, int]:
        """Amounts by module path, cut to `depth` names; they add up to the total."""
        return {each.key: each.amount for each in self.count.by_module(self.convention, depth)}

    def by_operator(self) -> dict[str, int]:
        """Amounts by operator, the largest first; they add up to the total."""
        return {each.key: each.amount for each in self.count.by_operator(self.convention)}

    def unknown(self, modules: str | Iterable[str] = ("",)) -> dict[str, int]:
        """Calls of operators without a rule, whose cost is missing: of the whole, or of modules.

        Args:
            modules: paths, or one path.
        """
        wanted = (modules,) if isinstance(modules, str) else tuple(modules)
        calls: dict[str, int] = {}
        for call in self.count.calls:
            if call.status == "unknown" and any(_inside(call.module, each) for each in wanted):
                calls[call.operator] = calls.get(call.operator, 0) + 1
        return calls


def _inside(path: str, module: str) -> bool:
    return module in ("", WHOLE, path) or path.startswith(f"{module}.")


def flops(
    model: nn.Module,
    *inputs: Any,
    convention: str = "fvcore",
    backward: bool = False,
    kwargs: Mapping[str, Any] | None = None,
) -> Flops:
    """Count one run of a model on these inputs, which may be on meta together with it.

    Args:
        kwargs: what its forward takes by name.

    Raises:
        UnknownNameError: there is no such convention.
        MeasurementError: a backward was asked for and nothing has a gradient.
    """
    from .measure.conventions import convention as find
    from .measure.count import count

    rules = find(convention)
    with _named_arguments(model, kwargs or {}):
        found = count(model, *inputs, backward=backward)
    return Flops(found, rules, _shared(model))


@contextmanager
def _named_arguments(model: nn.Module, kwargs: Mapping[str, Any]) -> Iterator[None]:
    """The model takes these arguments whenever it is called."""
    if not kwargs:
        yield
        return
    handle = model.register_forward_pre_hook(
        lambda module, args, given: (args, {**given, **kwargs}), with_kwargs=True
    )
    try:
        yield
    finally:
        handle.remove()


def _shared(model: nn.Module) -> dict[str, str]:
    """Paths of a module after its first, each with the first."""
    first: dict[int, str] = {}
    found = {}
    for path, module in model.named_modules(remove_duplicate=False):
        name = first.setdefault(id(module), path)
        if name != path:
            found[path] = name
    return found


@dataclass(frozen=True)
class Memory:
    """What a run holds at once, simulated. All amounts are bytes.

    Args:
        peak: the most that is alive at one time.
        phase, module, operator: where that is.
        kept: for the backward; None in inference.
        lines: of the ledger, one for each category.
    """

    peak: int
    phase: str
    module: str
    operator: str
    kept: int | None
    lines: tuple[LedgerLine, ...]

    def __getitem__(self, category: Category) -> int | None:
        """The whole of one category, such as ``parameters``; None where this run has none of it.

        Raises:
            KeyError: the ledger has no such category.
        """
        amounts = {line.category: line.amount for line in self.lines}
        if category not in amounts:
            raise KeyError(f"{category}: the ledger has {', '.join(amounts)}")
        return amounts[category]


def memory(model: nn.Module, *inputs: Any, mode: MemoryMode = "train-forward") -> Memory:
    """Simulate one run of a copy of the model on meta: nothing is computed or allocated.

    Args:
        mode: inference, train-forward (with what autograd keeps), train (with the backward) or step
            (with AdamW's).

    Raises:
        UsageError: there is no such mode.
        MeasurementError: a mode with gradients, and nothing has one.
    """
    from torch import Tensor
    from torch.utils._pytree import tree_map_only

    from .measure.memory.rows import ledger
    from .measure.memory.simulate import simulate

    if mode not in MEMORY_MODES:
        raise UnknownNameError.among("mode", mode, MEMORY_MODES)
    given = tree_map_only(Tensor, lambda tensor: tensor.to("meta"), inputs)
    trace = simulate(_on_meta(model), *given, mode=mode, recipe=PLAIN)
    lines = ledger(trace, mode)
    kept = next(line.amount for line in lines if line.category == "kept")
    peak = trace.peak
    return Memory(peak.amount, peak.phase, peak.module, peak.operator, kept, lines)


def _on_meta(model: nn.Module) -> nn.Module:
    """A copy without values; tensors that are shared stay shared, and `model` stays as it is."""
    import torch
    from torch import Tensor, nn

    known: dict[int, Any] = {}
    for parameter in model.parameters():
        empty = torch.empty_like(parameter, device="meta")
        known[id(parameter)] = nn.Parameter(empty, requires_grad=parameter.requires_grad)
    # A tensor that is neither parameter nor buffer, as torch's older weight_norm leaves one, too.
    plain = (value for module in model.modules() for value in vars(module).values())
    for tensor in (*model.buffers(), *(value for value in plain if isinstance(value, Tensor))):
        known[id(tensor)] = torch.empty_like(tensor, device="meta")
    return copy.deepcopy(model, known)
