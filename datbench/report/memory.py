"""Ledgers of memory as tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from .. import units
from ..ledger import WITH_BACKWARD, Category, CpuPeak, MemoryPart, MemoryRow
from .table import Column, Table, Value

By = Literal["stage", "module", "operator"]

BAR = 0.02
"""Share of a measured peak that a simulated one may differ by without a remark."""

LARGEST = 5
"""Parts that are shown where no breakdown was asked for."""

LABELS: dict[Category, str] = {
    "parameters": "parameters",
    "buffers": "buffers",
    "inputs": "inputs",
    "kept": "kept for backward",
    "outputs": "outputs",
    "gradients": "gradients",
    "optimizer": "optimizer state",
    "temporary": "temporary",
}

_SETTING = ("batch", "dtype", "attention", "features")

_RECIPE = ("optimizer", "autocast", "checkpointing")

_NAMED = ("model", "resolution", *_SETTING, "mode", *_RECIPE)
"""What a row's figures belong to."""

_TITLES = {"features": "feature maps"}

_NOT_THERE = (
    "Simulated on tensors without values. What the allocator would reserve for them stands below."
)


def _setting_columns(*shown: str) -> list[Column]:
    """The model and its setting: for machines in every row, for people where the title lacks it."""
    text = {"batch": units.integer, "features": lambda value: "yes" if value else "no"}
    return [
        Column(name, _TITLES.get(name, name), text.get(name), hidden=name not in shown)
        for name in _NAMED
    ]


def _setting_values(row: MemoryRow) -> tuple[Value, ...]:
    setting = row.setting
    values = (getattr(setting, name) for name in _SETTING)
    recipe = (getattr(row.recipe, name) for name in _RECIPE)
    return (row.model, str(setting.resolution), *values, row.mode, *recipe)


def setting_words(row: MemoryRow, *left_out: str) -> str:
    """What the figures belong to, in words."""
    parts = _parts_of_setting(row)
    return ", ".join(words for name, words in parts.items() if words and name not in left_out)


def _parts_of_setting(row: MemoryRow) -> dict[str, str]:
    setting, recipe = row.setting, row.recipe
    return {
        "mode": "full step" if row.mode == "step" else row.mode,
        "optimizer": recipe.optimizer or "",
        "resolution": str(setting.resolution),
        "batch": f"batch {setting.batch}",
        "dtype": setting.dtype,
        "autocast": f"autocast to {recipe.autocast}" if recipe.autocast else "",
        "attention": f"{setting.attention} attention",
        "checkpointing": f"{recipe.checkpointing} checkpointing" if recipe.checkpointing else "",
        "features": "four feature maps, no head" if setting.features else "",
    }


def differing(rows: Sequence[MemoryRow]) -> list[str]:
    """The model, and of everything else that rows are named by what they do not share."""
    values = [dict(zip(_NAMED, _setting_values(row), strict=True)) for row in rows]
    return [n for n in _NAMED if n == "model" or len({each[n] for each in values}) > 1]


def names(rows: Sequence[MemoryRow]) -> list[str]:
    """A name for each row: the model, what the others do not share, at last a running number."""
    several = differing(rows)
    without = {"autocast": "no autocast", "checkpointing": "no checkpointing", "features": "head"}
    found = []
    for row in rows:
        words = _parts_of_setting(row)
        parts = [words[name] or without.get(name, "") for name in words if name in several]
        found.append(", ".join([row.model, *filter(None, parts)]))
    return [
        f"{name}, run {number}" if number else name
        for name, number in zip(found, runs(found), strict=True)
    ]


def runs(named: Sequence[str]) -> list[int | None]:
    """A running number for each of what is named alike; None where a name stands alone."""
    return [
        named[: place + 1].count(name) if named.count(name) > 1 else None
        for place, name in enumerate(named)
    ]


def one_model(row: MemoryRow, by: Sequence[By]) -> list[Table]:
    """A model's ledger, then what its largest parts are, or the breakdowns asked for."""
    kept = row.line("kept").amount
    total = f"peak {units.size(row.peak.amount)}"
    if kept is not None:
        total += f", {units.size(kept)} kept for backward"
    first = _ledger(row, f"{row.model}: {total} ({setting_words(row)})")
    return [first, *([breakdown(row, part) for part in by] or [_largest(row)])]


def _ledger(row: MemoryRow, title: str) -> Table:
    columns = (
        Column("category", "memory"),
        Column("bytes", "bytes", units.size),
        Column("at_peak", "at the peak", units.size),
        Column("share", "share", lambda value: units.share(value, 1)),
    )
    peak = row.peak.amount
    rows: list[tuple[Value, ...]] = [
        (
            LABELS[line.category],
            line.amount,
            line.at_peak,
            None if line.at_peak is None else line.at_peak / peak,
        )
        for line in row.lines
    ]
    rows.append(("total, at the end and at the peak", row.at_end, peak, 1.0))
    if row.measured is not None:
        found = row.measured
        rows.append(("measured on the CPU", found.at_end, found.peak, found.peak / peak))
    return Table(columns, tuple(rows), title, _notes(row))


def _notes(row: MemoryRow) -> tuple[str, ...]:
    peak = row.peak
    where = (
        f"{_short(peak.operator)} in {peak.module or '(model)'}" if peak.operator else "the input"
    )
    phase = "optimizer's step" if peak.phase == "step" else peak.phase
    notes = [f"The peak is in the {phase}: {where}." if peak.operator else "Nothing was made."]
    temporary = row.line("temporary").amount
    if temporary:
        notes.append("Of temporaries the most at any one time, which need not be the peak.")
    absent = [f"{LABELS[line.category]}: {line.reason}" for line in row.lines if line.reason]
    if absent:
        notes.append(f"{'; '.join(absent)}.")
    if row.measured is not None:
        notes.append(_verdict(row.measured))
    return (*notes, _NOT_THERE)


def _verdict(measured: CpuPeak) -> str:
    said = (
        f"The simulated peak differs by {_percent(measured.difference)} from the CPU's, "
        f"which is in {_short(measured.operator)}."
    )
    if abs(measured.difference) <= BAR:
        return said
    return (
        f"{said} That is more than the {100 * BAR:.0f} % that DAT and Swin stay within: oneDNN "
        "lays convolutions out anew, or the model's runs differ."
    )


def _percent(difference: float) -> str:
    return f"{round(100 * difference, 2) + 0.0:+.2f} %"  # no negative zero


def _largest(row: MemoryRow) -> Table:
    """The largest parts by stage and operator."""
    parts = row.parts_by("stage", "operator")[:LARGEST]
    kept = row.line("kept").amount is not None
    title = f"The largest that are {'kept for backward' if kept else 'alive at the peak'}"
    return _parts(row, parts, ("stage", "operator"), title)


def breakdown(row: MemoryRow, by: By) -> Table:
    """Everything that operators made, by one place."""
    return _parts(row, row.parts_by(by), (by,), f"By the {by} that made it")


def _parts(row: MemoryRow, parts: Sequence[MemoryPart], places: Sequence[By], title: str) -> Table:
    keeps = row.line("kept").amount is not None
    columns = (
        *_setting_columns(),
        *(Column(place, place) for place in places),
        Column("tensors", "tensors", units.integer, hidden=not keeps),
        Column("kept", "kept for backward", units.size, hidden=not keeps),
        Column("at_peak", "at the peak", units.size),
    )
    rows = tuple(
        (
            *_setting_values(row),
            *(_place(part, place) for place in places),
            part.tensors,
            part.kept,
            part.at_peak,
        )
        for part in parts
    )
    return Table(columns, rows, title)


def _place(part: MemoryPart, place: By) -> str:
    name: str | None = getattr(part, place)
    if place == "operator":
        return _short(name or "")
    return name or "(model)"


def many_models(rows: Sequence[MemoryRow]) -> Table:
    """One row a model and setting."""
    several = differing(rows)
    numbers = runs([str(_setting_values(row)) for row in rows])
    alike = any(numbers)
    backward = any(row.mode in WITH_BACKWARD for row in rows)
    verified = any(row.measured is not None for row in rows)
    columns = (
        *_setting_columns(*several),
        *([Column("run", "run", units.integer)] if alike else []),
        *(
            # `optimizer` is the recipe's.
            Column(
                "optimizer_state" if category == "optimizer" else category,
                label,
                units.size,
                hidden=all(row.line(category).amount is None for row in rows),
            )
            for category, label in LABELS.items()
        ),
        Column("after_forward", "after forward", units.size),
        Column("at_end", "at the end", units.size, hidden=not backward),
        Column("peak", "peak", units.size),
        Column("measured_peak", "measured", units.size, hidden=not verified),
        Column("difference", "difference", _percent, hidden=not verified),
        Column("peak_operator", "peak in"),
        Column("peak_module", "of"),
        Column("peak_phase", "phase", hidden=True),
    )
    values = tuple(
        (
            *_setting_values(row),
            *([number] if alike else []),
            *(row.line(category).amount for category in LABELS),
            row.after_forward,
            row.at_end,
            row.peak.amount,
            row.measured.peak if row.measured else None,
            row.measured.difference if row.measured else None,
            _short(row.peak.operator),
            row.peak.module or "(model)",
            row.peak.phase,
        )
        for row, number in zip(rows, numbers, strict=True)
    )
    title = f"Memory in bytes; {setting_words(rows[0], *several)}"
    notes = ["Of temporaries the most at any one time."]
    if verified:
        notes.append("Measured: the CPU's peak, from torch's profiler.")
    return Table(columns, values, title, (*notes, _NOT_THERE))


def _short(operator: str) -> str:
    return operator.removeprefix("aten::")
