"""Costs in tests: what a model may count and hold, with failures that name what changed.

The pytest plugin (`datbench.pytest_plugin`) gives these as fixtures; they work without it too.
torch is loaded on the first call.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from . import units
from .errors import UsageError
from .memory.records import Category, LedgerLine
from .setting import MEMORY_MODES, PLAIN, MemoryMode, mode_of
from .units import Brief

if TYPE_CHECKING:
    from torch import nn

    from .counting.conventions import Convention
    from .counting.count import Count

__all__ = ["SHOWN", "WHOLE", "Flops", "Memory", "assert_macs", "flops", "memory"]

WHOLE = "(model)"
"""The whole model among expected modules; an empty name means the same."""

SHOWN = 8
"""Lines of each kind in a failure's message."""


@dataclass(frozen=True, repr=False)
class Flops(Brief):
    """A count under one convention. `int(...)` of it is its total."""

    count: Count  # every operator call, unweighted
    convention: Convention
    # Further paths of modules that the model has under several; all that they run has the first.
    shared: Mapping[str, str] = field(default_factory=dict)

    @property
    def unit(self) -> str:
        """``MAC`` or ``FLOP``."""
        return self.convention.unit

    @property
    def total(self) -> int:
        """The amount of everything that ran, in the convention's unit."""
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
        if found:
            return sum(found)
        if module in self.shared:
            first = self.shared[module]
            raise KeyError(f"{module}: this is {first}, and what it runs stands there")
        raise KeyError(f"{module}: nothing ran in a module of this name")

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
        calls = [call for call in self.count.calls if call.status == "unknown"]
        inside = (c.operator for c in calls if any(_inside(c.module, each) for each in wanted))
        return dict(Counter(inside))


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
    from .counting.conventions import convention as find
    from .counting.count import count

    rules = find(convention)
    found = count(model, *inputs, backward=backward, kwargs=kwargs)
    first: dict[int, str] = {}
    shared = {}
    for path, module in model.named_modules(remove_duplicate=False):
        if first.setdefault(id(module), path) != path:
            shared[path] = first[id(module)]
    return Flops(found, rules, shared)


@dataclass(frozen=True, repr=False)
class Memory(Brief):
    """What a run holds at once, simulated. All amounts are bytes."""

    peak: int  # the most that is alive at one time
    phase: str  # where that is
    module: str
    operator: str
    kept: int | None  # for the backward; None in inference
    lines: tuple[LedgerLine, ...]  # of the ledger, one for each category

    def __getitem__(self, category: Category) -> int | None:
        """The whole of one category, such as ``parameters``; None where this run has none of it.

        Raises:
            KeyError: the ledger has no such category.
        """
        amounts = {line.category: line.amount for line in self.lines}
        if category not in amounts:
            raise KeyError(f"{category}: the ledger has {', '.join(amounts)}")
        return amounts[category]


def memory(
    model: nn.Module,
    *inputs: Any,
    mode: MemoryMode = "forward",
    kwargs: Mapping[str, Any] | None = None,
) -> Memory:
    """Simulate one run of a copy of the model on meta: nothing is computed or allocated.

    A model that cannot be copied or needs real values is run itself, where it is, with a warning.

    Args:
        mode: inference, forward (with what autograd keeps), backward (with the backward too) or
            step (with AdamW's).
        kwargs: what its forward takes by name.

    Raises:
        UsageError: there is no such mode.
        MeasurementError: a mode with gradients, and nothing has one.
    """
    from torch import Tensor
    from torch.utils._pytree import tree_map_only

    from .memory.simulation import Trace, ledger, simulate
    from .models.module import without_values
    from .run import sized, with_values

    mode = mode_of(mode, MEMORY_MODES, "forward")
    given = dict(kwargs or {})
    model = sized(model, inputs, given)

    def followed(model: nn.Module, inputs: tuple[Any, ...], named: Mapping[str, Any]) -> Trace:
        return simulate(model, *inputs, mode=mode, recipe=PLAIN, kwargs=named)

    def on_meta() -> Trace:
        there = tree_map_only(Tensor, lambda tensor: tensor.to("meta"), (inputs, given))
        return followed(without_values(model), *there)

    trace = with_values(type(model).__name__, on_meta, lambda: followed(model, inputs, given))
    lines = ledger(trace, mode)
    kept = next(line.amount for line in lines if line.category == "kept")
    peak = trace.peak
    return Memory(peak.amount, peak.phase, peak.module, peak.operator, kept, lines)


def assert_macs(
    model: nn.Module,
    inputs: Any,
    expected: float | Mapping[str, float],
    *,
    convention: str = "fvcore",
    kwargs: Mapping[str, Any] | None = None,
    allow_unknown: bool | Collection[str] = False,
) -> None:
    """Fail unless the model counts exactly what is expected on these inputs.

    Args:
        inputs: what its forward takes: a tensor, or a tuple of arguments.
        expected: the total; or for each module, by its path, what runs inside it: the failure
            then names the modules that changed. ``"(model)"`` is the whole. Whole numbers, which
            may be written as floats.
        convention: ``fvcore`` counts MACs as papers print them; others may count FLOPs.
        kwargs: what its forward takes by name.
        allow_unknown: operators that may run without a rule, counted as nothing; True for all.

    Raises:
        AssertionError: it counts something else, and the message says where the amounts are; or
            operators ran there whose cost nobody knows.
        UnknownNameError: there is no such convention.
        UsageError: an argument is of another kind, or nothing is expected.
    """
    __tracebackhide__ = True
    wanted = _amounts(expected)
    if isinstance(inputs, (list, Mapping)):
        raise UsageError(
            f"inputs is a {type(inputs).__name__}: give a tensor or a tuple of arguments, such as "
            "(x, y), and those with names as kwargs={...}."
        )
    given = inputs if isinstance(inputs, tuple) else (inputs,)
    found = flops(model, *given, convention=convention, kwargs=kwargs)
    problems = _changed(found, wanted)
    if problems and isinstance(expected, Mapping):
        changed = f"{len(problems)} of {len(wanted)} modules are not as expected"
        problems.insert(0, f"{changed} ({found.unit}s):")
    elif problems:
        problems = [line.replace(WHOLE, "the model", 1) for line in problems]
    problems += _without_rules(found, wanted, allow_unknown)
    if problems:
        raise AssertionError("\n".join([*problems, *_where(found)]))


def _amounts(expected: Any) -> dict[str, int]:
    """What is expected of each module, or of the whole, in whole numbers."""
    __tracebackhide__ = True
    amounts = {}
    given = expected if isinstance(expected, Mapping) else {WHOLE: expected}
    if not given:
        raise UsageError("expected is an empty mapping: give the amounts of modules, or a total.")
    for module, amount in given.items():
        try:
            whole = int(amount)
        except (TypeError, ValueError, OverflowError):
            whole = None
        if isinstance(amount, (str, bytes, bool)) or whole is None or whole != amount:
            place = "" if given is not expected else f" of {module or WHOLE}"
            raise UsageError(f"expected{place} is {amount!r}: give a whole number.")
        amounts[module] = whole
    return amounts


def _without_rules(
    found: Flops, modules: Iterable[str], allowed: bool | Collection[str]
) -> list[str]:
    """A line where operators ran in these modules whose cost is in no figure."""
    if allowed is True:
        return []
    names = (allowed,) if isinstance(allowed, str) else allowed or ()
    calls = {name: n for name, n in found.unknown(modules).items() if name not in names}
    if not calls:
        return []
    said = ", ".join(f"{name} ({n} {'call' if n == 1 else 'calls'})" for name, n in calls.items())
    return [f"without a rule, counted as nothing: {said}; name them in allow_unknown if that is so"]


def _changed(found: Flops, expected: Mapping[str, int]) -> list[str]:
    """A line for each module that is not as expected."""
    problems = []
    for module, amount in expected.items():
        try:
            now = found.of(module)
        except KeyError as error:
            problems.append(error.args[0])
            continue
        if now != amount:
            change = f", {100 * (now - amount) / amount:+.3g} %" if amount else ""
            said = f"{units.integer(now)}, expected {units.integer(amount)}"
            problems.append(f"{module or WHOLE}: {said} ({now - amount:+,d}{change})")
    return problems


def _where(found: Flops) -> list[str]:
    """The largest modules and operators, and what is in no figure."""
    lines = []
    for title, amounts in (("modules", found.by_module()), ("operators", found.by_operator())):
        largest = sorted(amounts.items(), key=lambda item: -item[1])[:SHOWN]
        lines.append(f"counted by {found.convention.name}, the largest {title}:")
        lines += [
            f"  {units.integer(amount):>15} {found.unit}  {units.share(amount, found.total):>7}  "
            f"{name}"
            for name, amount in largest
        ]
    return lines
