"""From the life of every storage to a ledger."""

from __future__ import annotations

from collections.abc import Callable

from ...ledger import (
    CATEGORIES,
    PLAIN,
    WITH_BACKWARD,
    Category,
    LedgerLine,
    MemoryMode,
    MemoryPart,
    MemoryRow,
    Recipe,
)
from ...models.resolve import Spec
from ...types import Setting
from ..stages import stage_of
from .simulate import simulate_model
from .trace import Trace

_FIXED: frozenset[Category] = frozenset({"parameters", "buffers", "inputs"})
"""There before the run; no operator makes them."""


def memory_row(spec: Spec, setting: Setting, mode: MemoryMode, recipe: Recipe = PLAIN) -> MemoryRow:
    """Build, simulate and summarise one model.

    Raises:
        UsageError: the recipe does not suit the mode, the dtype or the model.
        MeasurementError: it does not run with this setting.
    """
    return traced_row(spec, setting, mode, recipe)[0]


def traced_row(
    spec: Spec, setting: Setting, mode: MemoryMode, recipe: Recipe = PLAIN
) -> tuple[MemoryRow, Trace]:
    """`memory_row`, with the run that it sums up."""
    recipe = recipe.of(mode)
    module, trace = simulate_model(spec, setting, mode, recipe)
    row = MemoryRow(
        model=spec.name,
        setting=setting,
        mode=mode,
        lines=ledger(trace, mode, recipe),
        after_forward=sum(trace.live(trace.forward_end).values()),
        at_end=sum(trace.live(trace.end).values()),
        peak=trace.peak,
        parts=_parts(trace, mode, lambda path: stage_of(module, path)),
        recipe=recipe,
    )
    return row, trace


def ledger(trace: Trace, mode: MemoryMode, recipe: Recipe = PLAIN) -> tuple[LedgerLine, ...]:
    """One line for each category."""
    at_peak = trace.live(trace.peak_time)
    lines = []
    for category in CATEGORIES:
        reason = _absent(category, mode, recipe.of(mode))
        if reason is not None:
            lines.append(LedgerLine(category, None, None, reason))
            continue
        amount = _most_temporary(trace) if category == "temporary" else trace.whole(category)
        lines.append(LedgerLine(category, amount, at_peak[category]))
    return tuple(lines)


def _absent(category: Category, mode: MemoryMode, recipe: Recipe) -> str | None:
    """Why a mode has no such thing."""
    if category == "kept" and mode == "inference":
        return "gradients are not recorded in inference"
    if category == "gradients" and mode not in WITH_BACKWARD:
        return "no backward was run"
    if category == "optimizer" and mode != "step":
        return "no optimizer's step was made"
    if category == "optimizer" and recipe.optimizer == "sgd":
        return "SGD without momentum keeps none"
    return None


def _most_temporary(trace: Trace) -> int:
    if not any(block.category == "temporary" for block in trace.blocks):
        return 0
    return trace.live(trace.most("temporary").time)["temporary"]


def _parts(trace: Trace, mode: MemoryMode, stage: Callable[[str], str]) -> tuple[MemoryPart, ...]:
    """By the module and the operator that made a storage, in the order of the first one."""
    sums: dict[tuple[str, str], list[int]] = {}
    for block in trace.blocks:
        if block.category in _FIXED:
            continue
        found = sums.setdefault((block.module, block.operator), [0, 0, 0])
        if block.category == "kept":
            found[0] += 1
            found[1] += block.size
        if block.alive_at(trace.peak_time):
            found[2] += block.size
    keeps = mode != "inference"
    return tuple(
        MemoryPart(stage(module), module, operator, tensors, kept if keeps else None, at_peak)
        for (module, operator), (tensors, kept, at_peak) in sums.items()
        if kept or at_peak
    )
