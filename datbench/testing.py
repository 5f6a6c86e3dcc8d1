"""Costs in tests: what a model may count and hold, with failures that name what changed.

The pytest plugin (`datbench.pytest_plugin`) gives these as fixtures; they work without it too.
torch is loaded on the first call.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from . import units
from .costs import WHOLE, Flops, Memory, flops, memory
from .errors import UsageError

if TYPE_CHECKING:
    from torch import nn

__all__ = ["SHOWN", "WHOLE", "Flops", "Memory", "assert_macs", "flops", "memory"]

SHOWN = 8
"""Lines of each kind in a failure's message."""


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
    found = flops(model, *_arguments(inputs), convention=convention, kwargs=kwargs)
    if isinstance(expected, Mapping):
        problems = _changed(found, wanted)
    else:
        total = wanted[WHOLE]
        problems = [] if found.total == total else [_differs("the model", found.total, total)]
    problems += _without_rules(found, wanted, allow_unknown)
    if problems:
        raise AssertionError("\n".join([*problems, *_where(found)]))


def _arguments(inputs: Any) -> tuple[Any, ...]:
    __tracebackhide__ = True
    if isinstance(inputs, (list, Mapping)):
        raise UsageError(
            f"inputs is a {type(inputs).__name__}: give a tensor or a tuple of arguments, such as "
            "(x, y), and those with names as kwargs={...}."
        )
    return inputs if isinstance(inputs, tuple) else (inputs,)


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
            problems.append(_differs(module or WHOLE, now, amount))
    if problems:
        title = f"{len(problems)} of {len(expected)} modules are not as expected ({found.unit}s):"
        problems.insert(0, title)
    return problems


def _differs(what: str, now: int, expected: int) -> str:
    change = f", {100 * (now - expected) / expected:+.3g} %" if expected else ""
    return (
        f"{what}: {units.integer(now)}, expected {units.integer(expected)} "
        f"({now - expected:+,d}{change})"
    )


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
