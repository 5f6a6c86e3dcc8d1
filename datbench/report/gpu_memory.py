"""Measured memory as tables, with what a figure is worth in words."""

from __future__ import annotations

from collections.abc import Sequence

from .. import units
from ..gpu_memory import HELD, Confirmed, GpuRow, Held
from .table import Column, Table, Value

_LABELS: dict[Held, str] = {
    "parameters": "parameters",
    "buffers": "buffers",
    "inputs": "inputs",
    "optimizer": "optimizer state",
    "workspaces": "workspaces",
    "run": "allocated by the run",
    "slack": "allocator slack",
    "context": "context and libraries",
}

_MACHINES: dict[Held, str] = {"optimizer": "optimizer_state"}
"""Names for machines, where the part's own is the name of something else."""

_SETTING = ("batch", "dtype", "device", "attention", "features")


def tables(rows: Sequence[GpuRow]) -> list[Table]:
    """One row's ledger, or one table of several."""
    return [one(rows[0])] if len(rows) == 1 else [many(rows)]


def one(row: GpuRow) -> Table:
    """Where the memory of one run went."""
    columns = (
        Column("part", "memory"),
        Column("bytes", "bytes", units.size),
        Column("share", "share", lambda value: units.share(value, 1)),
    )
    title = f"{row.model}: {_outcome(row)} ({_words(row)})"
    if row.peaks is None:
        ended = (Column("outcome", "outcome"), Column("reason", "reason"))
        return Table(ended, ((row.outcome, row.reason),), title, _notes([row]))
    whole = row.peaks.process
    rows: list[tuple[Value, ...]] = [
        (
            _LABELS[line.part],
            line.amount,
            line.amount / whole if line.amount is not None and whole else None,
        )
        for line in row.lines
    ]
    totals = (
        ("peak of tensors before rounding", row.peaks.requested),
        ("peak allocated", row.peaks.allocated),
        ("peak reserved", row.peaks.reserved),
        ("process", whole),
    )
    rows += [
        (label, amount, amount / whole if whole else None)
        for label, amount in totals
        if amount is not None
    ]
    absent: dict[str, list[str]] = {}
    for line in row.lines:
        if line.reason is not None:
            absent.setdefault(line.reason, []).append(_LABELS[line.part])
    missing = "; ".join(f"{', '.join(which)}: {reason}" for reason, which in absent.items())
    notes = ([f"{missing}."] if missing else []) + list(_notes([row]))
    return Table(columns, tuple(rows), title, tuple(notes))


def many(rows: Sequence[GpuRow]) -> Table:
    """One line a configuration."""
    several = [
        name
        for name in _values(rows[0])
        if name == "model" or len({_values(row)[name] for row in rows}) > 1
    ]
    columns = (
        *(
            Column(
                name, name, units.integer if name == "batch" else None, hidden=name not in several
            )
            for name in _values(rows[0])
        ),
        Column("outcome", "outcome"),
        *(
            Column(_MACHINES.get(part, part), label, units.size, hidden=not _has(rows, part))
            for part, label in _LABELS.items()
        ),
        Column("requested", "before rounding", units.size, hidden=True),
        Column("allocated", "allocated", units.size),
        Column("reserved", "reserved", units.size),
        Column("process", "process", units.size),
        Column("seconds", "took", units.seconds, hidden=True),
        Column("gpu", "on", hidden=True),
        Column("reason", "reason", hidden=True),
    )
    title = f"Measured memory in bytes; {_words(rows[0], *several)}"
    failures = dict.fromkeys(
        f"{row.model}, batch {row.setting.batch}, {row.mode}: {row.outcome}: {row.reason}."
        for row in rows
        if row.reason is not None
    )
    return Table(columns, tuple(map(_flat, rows)), title, (*failures, *_notes(rows)))


def beside_table(rows: Sequence[GpuRow], simulated: Sequence[int | None]) -> Table:
    """Simulated peaks of tensors beside measured ones, before the allocator's rounding."""
    columns = (
        Column("model", "model"),
        Column("resolution", "input"),
        Column("batch", "batch", units.integer),
        Column("mode", "mode"),
        Column("device", "device"),
        Column("simulated", "simulated", units.size),
        Column("measured", "measured", units.size),
        Column("difference", "difference", lambda value: f"{100 * value:+.2f} %"),
        Column("outcome", "outcome"),
    )
    values = []
    for row, peak in zip(rows, simulated, strict=True):
        seen = None if row.peaks is None else row.peaks.requested
        values.append(
            (
                row.model,
                str(row.setting.resolution),
                row.setting.batch,
                row.mode,
                row.setting.device,
                peak,
                seen,
                peak / seen - 1 if peak and seen else None,
                row.outcome,
            )
        )
    return Table(columns, tuple(values), "Peak of tensors: simulated beside measured")


def largest(found: Confirmed) -> Table:
    """The largest batch, and every run that led to it."""
    columns = (
        Column("batch", "batch", units.integer),
        Column("outcome", "outcome"),
        Column("reason", "reason"),
    )
    rows = tuple((tried.batch, tried.outcome, tried.reason) for tried in found.tried)
    where = _words(found, "batch")
    return Table(columns, rows, f"{found.model}: {_largest(found)} ({where})", _search_notes(found))


def _largest(found: Confirmed) -> str:
    if found.largest is None:
        return "no batch ran"
    if found.stopped is not None:
        return f"batch {found.largest} ran; the search ended early"
    return f"the largest batch that runs is {found.largest}"


def _search_notes(found: Confirmed) -> tuple[str, ...]:
    notes = [f"The search began at {found.start}; each batch ran in a process of its own."]
    if found.limit is not None:
        notes.append(f"Tensors were given {units.size(found.limit)} of the GPU.")
    if found.stopped is not None:
        batch = found.stopped.setting.batch
        notes.append(
            f"Batch {batch} {found.stopped.outcome}: {found.stopped.reason}. That is no lack of "
            "memory on the GPU, so it says nothing about the largest batch."
        )
    first = found.row or found.stopped
    return (*notes, *(_notes([first]) if first is not None else ()))


def _has(rows: Sequence[GpuRow], part: Held) -> bool:
    return any(line.amount is not None for row in rows for line in row.lines if line.part == part)


def _flat(row: GpuRow) -> tuple[Value, ...]:
    lines = {line.part: line.amount for line in row.lines}
    peaks = row.peaks
    return (
        *_values(row).values(),
        row.outcome,
        *(lines.get(part) for part in HELD),
        peaks.requested if peaks else None,
        peaks.allocated if peaks else None,
        peaks.reserved if peaks else None,
        peaks.process if peaks else None,
        row.seconds,
        row.environment.name if row.environment else None,
        row.reason,
    )


def _values(row: GpuRow | Confirmed) -> dict[str, Value]:
    """What the figures belong to."""
    setting = row.setting
    return {
        "model": row.model,
        "resolution": str(setting.resolution),
        **{name: getattr(setting, name) for name in _SETTING},
        "mode": row.mode,
        "optimizer": row.recipe.optimizer,
        "autocast": row.recipe.autocast,
        "checkpointing": row.recipe.checkpointing,
    }


def _words(row: GpuRow | Confirmed, *left_out: str) -> str:
    setting = row.setting
    parts = {
        "mode": row.mode,
        "optimizer": row.recipe.optimizer or "",
        "resolution": str(setting.resolution),
        "batch": f"batch {setting.batch}",
        "dtype": setting.dtype,
        "autocast": f"autocast to {row.recipe.autocast}" if row.recipe.autocast else "",
        "checkpointing": "checkpointed blocks" if row.recipe.checkpointing else "",
        "attention": f"{setting.attention} attention",
        "features": "four feature maps, no head" if setting.features else "",
        "device": setting.device,
    }
    return ", ".join(words for name, words in parts.items() if words and name not in left_out)


def _outcome(row: GpuRow) -> str:
    peaks = row.peaks
    if peaks is None:
        return row.outcome
    said = [
        f"{name} {units.size(amount)}"
        for name, amount in (
            ("allocated", peaks.allocated),
            ("reserved", peaks.reserved),
            ("process", peaks.process),
        )
        if amount is not None
    ]
    return ", ".join(said) or "measured"


def _notes(rows: Sequence[GpuRow]) -> tuple[str, ...]:
    """What the reader must know to believe the figures, each once."""
    notes: dict[str, None] = {}
    for row in rows:
        if row.others:
            notes[_busy(row.others)] = None
        if row.peaks is not None and row.peaks.retries:
            notes[
                f"{row.model}, batch {row.setting.batch}: the allocator gave its cache back "
                f"{row.peaks.retries} times before it got more; memory was short."
            ] = None
        if row.environment is not None:
            found = row.environment
            named = (
                ("driver", found.driver),
                ("torch", found.torch),
                ("CUDA", found.cuda),
                ("allocator", found.allocator),
            )
            said = [f"{name} {value}" for name, value in named if value is not None]
            size = f" ({units.size(found.memory)})" if found.memory else ""
            where = f"{found.name or 'an unknown device'}{size}"
            notes[f"Measured on {where}: {', '.join(said)}."] = None
    return tuple(notes)


def _busy(others: int) -> str:
    which = "1 other process was" if others == 1 else f"{others} other processes were"
    return f"Warning: {which} on the GPU already; its memory is not free for this one."
