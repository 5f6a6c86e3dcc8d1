"""Memory as tables and charts: simulated ledgers, the allocator, measured runs, largest batches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from operator import itemgetter
from typing import Any, Literal

from .. import units
from ..errors import UsageError
from ..render.figure import Bars, Figure, FigurePart, Series, against_side
from ..render.table import Column, Table, fact_columns, fixed
from ..render.vega import Chart
from ..setting import FACTS, WITH_BACKWARD, describe, facts, labels, runs, varying
from .records import (
    CATEGORIES,
    HELD,
    NO_CONTEXT,
    Category,
    Confirmed,
    CpuPeak,
    GpuRow,
    Held,
    LargestBatch,
    MemoryPart,
    MemoryRow,
    Timeline,
)

By = Literal["stage", "module", "operator"]

BAR = 0.02
"""Share of a measured peak that a simulated one may differ by without a remark."""

LARGEST = 5
"""Parts that are shown where no breakdown was asked for."""

LABELS: dict[Category | Held, str] = {
    "parameters": "parameters",
    "buffers": "buffers",
    "inputs": "inputs",
    "kept": "saved for backward",
    "outputs": "outputs",
    "gradients": "gradients",
    "optimizer": "optimizer state",
    "temporary": "temporary",
    "workspaces": "workspaces",
    "run": "allocated by the run",
    "slack": "allocator slack",
    "context": "context and libraries",
}
"""Parts of memory in words, simulated and measured."""

_MEASURED = (
    "model resolution batch dtype device attention features mode optimizer autocast checkpointing"
).split()

_SIMULATED = [name for name in _MEASURED if name != "device"]

# What a simulated ledger and a measured one have in common.


def _ledger(
    lines: Sequence[tuple[Any, ...]],
    whole: int | None,
    title: str,
    notes: Iterable[str],
) -> Table:
    """Where one run's memory went: each line's name, bytes, and bytes at the peak if these differ.

    The last of them is shown as a share of the whole.
    """

    def share(line: Sequence[Any]) -> float | None:
        return line[-1] / whole if whole and line[-1] is not None else None

    amounts = (("bytes", "bytes"), ("at_peak", "at the peak"))[: len(lines[0]) - 1]
    columns = (
        Column("part", "memory", value=itemgetter(0)),
        *(Column(*names, units.size, itemgetter(n)) for n, names in enumerate(amounts, 1)),
        Column("share", "share", units.percent, share),
    )
    return Table.of(columns, lines, title, notes)


def _runs_table(
    rows: Sequence[MemoryRow] | Sequence[GpuRow],
    names: Sequence[str],
    between: Iterable[Column],
    parts: Sequence[Category] | Sequence[Held],
    after: Iterable[Column],
    title: str,
    notes: Iterable[str],
) -> Table:
    """One row a run, with a column for each part of its memory.

    Args:
        names: of the facts; those in which rows differ are seen, the others stand in the title.
        between, after: columns before the parts, and after them.
    """

    def amount_of(part: Any) -> Callable[[Any], int | None]:
        def amount(row: MemoryRow | GpuRow) -> int | None:
            line = row.line(part)
            return None if line is None else line.amount

        return amount

    columns = [*fact_columns(rows, names), *between]
    for part in parts:
        amount = amount_of(part)
        # `optimizer` is the name of a fact.
        name = "optimizer_state" if part == "optimizer" else part
        hidden = all(amount(row) is None for row in rows)
        when: Any = "wide" if part in ("parameters", "kept") else "widest"
        columns.append(Column(name, LABELS[part], units.size, amount, hidden, when=when))
    title = f"{title}; {describe(rows[0], *varying(rows))}"
    return Table.of([*columns, *after], rows, title, notes)


def _short(operator: str) -> str:
    return operator.removeprefix("aten::")


# The simulated ledger.

_NOT_THERE = (
    "Simulated on tensors without values. What the allocator would reserve for them stands below."
)


def tables(rows: Sequence[MemoryRow], by: Sequence[By] = (), one: bool = False) -> list[Table]:
    """One model's ledger with its breakdowns, or one table of several; then the allocator's.

    Args:
        by: breakdowns of one model. Default: its largest parts.
        one: the table comes first that a CSV file holds.
    """
    row = rows[0]
    if one and by:
        found = [_parts_table(row, by[0])]
    elif one or len(rows) > 1:
        found = [many_models(rows)]
    else:
        found = [_one_model(row), *(_parts_table(row, part) for part in by or (None,))]
    if all(each.allocator for each in rows):
        found.insert(1, _replays_table(rows))
    return found


def _one_model(row: MemoryRow) -> Table:
    """The ledger, with the CPU's peak where it was measured."""
    peak, kept = row.peak, row.line("kept").amount
    lines = [(LABELS[line.category], line.amount, line.at_peak) for line in row.lines]
    lines.append(("total, at the end and at the peak", row.at_end, peak.amount))
    if peak.operator:
        phase = "optimizer's step" if peak.phase == "step" else peak.phase
        where = f"{_short(peak.operator)} in {peak.module or '(model)'}"
        notes = [f"The peak is in the {phase}: {where}."]
    else:
        notes = ["Nothing was made."]
    if row.line("temporary").amount:
        notes.append("Temporaries: the most at any one time, which need not be the peak.")
    absent = [f"{LABELS[line.category]}: {line.reason}" for line in row.lines if line.reason]
    if absent:
        notes.append(f"{'; '.join(absent)}.")
    if row.measured is not None:
        lines.append(("measured on the CPU", row.measured.at_end, row.measured.peak))
        notes.append(_verdict(row.measured))
    total = f"peak {units.size(peak.amount)}"
    if kept is not None:
        total += f", {units.size(kept)} saved for backward"
    title = f"{row.model}: {total} ({describe(row)})"
    return _ledger(lines, peak.amount, title, (*notes, _NOT_THERE))


def _verdict(measured: CpuPeak) -> str:
    said = (
        f"The simulated peak differs by {_difference(measured.difference)} from the CPU's, "
        f"which is in {_short(measured.operator)}."
    )
    if abs(measured.difference) <= BAR:
        return said
    return (
        f"{said} That is more than the {100 * BAR:.0f} % that DAT and Swin stay within: oneDNN "
        "lays convolutions out anew, or the model's runs differ."
    )


def _difference(share: float) -> str:
    return f"{round(100 * share, 2) + 0.0:+.2f} %"  # no negative zero


def _parts_table(row: MemoryRow, by: By | None) -> Table:
    """What operators made by one place; the largest by stage and operator where none is named."""

    def name_of(place: By) -> Callable[[MemoryPart], str]:
        if place == "operator":
            return lambda part: _short(part.operator or "")
        return lambda part: getattr(part, place) or "(model)"

    nothing_kept = row.line("kept").amount is None
    if by is None:
        places: tuple[By, ...] = ("stage", "operator")
        title = f"The largest that are {'alive at the peak' if nothing_kept else LABELS['kept']}"
    else:
        places, title = (by,), f"By the {by} that made it"
    parts = row.parts_by(*places)[: LARGEST if by is None else None]
    columns = (
        *fixed(fact_columns([row], _SIMULATED), row),
        *(Column(place, place, value=name_of(place), label=True) for place in places),
        Column("tensors", "tensors", units.integer, hidden=nothing_kept, when="wide"),
        Column("kept", "saved for backward", units.size, hidden=nothing_kept),
        Column("at_peak", "at the peak", units.size),
    )
    return Table.of(columns, parts, title)


def many_models(rows: Sequence[MemoryRow]) -> Table:
    """One row a model and setting."""
    numbers = runs([str(facts(row)) for row in rows])
    each = iter(numbers)  # the same row may stand there twice
    number = Column("run", "run", units.integer, lambda _: next(each), label=True)
    verified = any(row.measured is not None for row in rows)
    backward = any(row.mode in WITH_BACKWARD for row in rows)
    after = (
        Column("after_forward", "after forward", units.size, when="wide"),
        Column("at_end", "at the end", units.size, hidden=not backward, when="wide"),
        Column("peak", "peak", units.size, "peak.amount"),
        Column("measured_peak", "measured", units.size, "measured.peak", not verified),
        Column("difference", "difference", _difference, "measured.difference", not verified),
        Column(
            "peak_operator", "peak in", value=lambda row: _short(row.peak.operator), when="widest"
        ),
        Column("peak_module", "of", value=lambda row: row.peak.module or "(model)", when="widest"),
        Column("peak_phase", "phase", value="peak.phase", hidden=True),
    )
    notes = ["Temporaries: the most at any one time."]
    if verified:
        notes.append("Measured: the CPU's peak, from torch's profiler.")
    between, notes = [number] if any(numbers) else [], [*notes, _NOT_THERE]
    return _runs_table(rows, _SIMULATED, between, CATEGORIES, after, "Memory in bytes", notes)


# What the caching allocator would reserve, and the largest batch.


def _replays_table(rows: Sequence[MemoryRow]) -> Table:
    """PyTorch's caching allocator, with its usual segments and with expandable ones."""
    columns = (
        Column("run", "run", hidden=len(rows) == 1, label=True),
        Column("expandable", "segments", label=True),
        Column("requested_peak", "tensors", units.size),
        Column("allocated_peak", "allocated", units.size),
        Column("reserved_peak", "reserved", units.size),
        Column("slack", "slack", units.size),
        Column("segments", "number", units.integer, when="wide"),
        Column("context", "context and libraries", units.size, when="wide"),
    )
    lines = [
        {
            "run": f"{row.model}, {row.setting.resolution}, batch {row.setting.batch}",
            **vars(replay),
            "expandable": "expandable" if replay.expandable else "default",
        }
        for row in rows
        for replay in row.allocator
    ]
    notes = (
        "Predicted by replaying the run through a model of PyTorch's caching allocator. Allocator "
        "slack: reserved and not allocated when most is reserved.",
        f"Context and libraries: {NO_CONTEXT}.",
    )
    return Table.of(columns, lines, "What the allocator would reserve", notes)


def largest_tables(rows: Sequence[LargestBatch | Confirmed]) -> list[Table]:
    """The largest batch of each model by simulation, then how each was confirmed on a GPU."""
    simulated = [row for row in rows if isinstance(row, LargestBatch)]
    confirmed = [_confirmed_table(row) for row in rows if isinstance(row, Confirmed)]
    return [*([_largest_table(simulated)] if simulated else []), *confirmed]


def _largest_table(found: Sequence[LargestBatch]) -> Table:
    columns = (
        *fact_columns(found, ("model", "resolution", "mode"), FACTS),
        Column("gpu", "GPU", when="wide"),
        Column("capacity", "memory", units.size),
        Column("batch", "largest batch", units.integer),
        Column("reserved", "reserved", units.size, when="wide"),
        Column("reserved_next", "one more, no limit", units.size, when="widest"),
        Column("reason", "why", value=lambda row: row.reason or _end(row)),
    )
    notes = dict.fromkeys(row.assumption for row in found)
    return Table.of(columns, found, "Largest batch, by simulation", notes)


def _end(found: LargestBatch) -> str | None:
    """Where one image more runs out of memory."""
    end = found.out_of_memory
    if end is None:
        return None
    operator = _short(end.operator) or "the model itself"
    where = f"{operator} in {end.module}" if end.module else operator
    return f"with one more, {where} finds no {units.size(end.requested)}"


def _confirmed_table(found: Confirmed) -> Table:
    """Every run that led to the largest batch."""
    notes = [f"The search began at {found.start}; each batch ran in a process of its own."]
    if found.limit is not None:
        notes.append(f"Tensors were given {units.size(found.limit)} of the GPU.")
    if found.largest is None:
        answer = "no batch ran"
    elif found.stopped is None:
        answer = f"the largest batch that runs is {found.largest}"
    else:
        answer = f"batch {found.largest} ran; the search ended early"
    if found.stopped is not None:
        batch = found.stopped.setting.batch
        notes.append(
            f"Batch {batch} {found.stopped.outcome}: {found.stopped.reason}. The GPU did not run "
            "out of memory, so this says nothing about the largest batch."
        )
    first = found.row or found.stopped
    columns = (
        Column("batch", "batch", units.integer),
        Column("outcome", "outcome"),
        Column("reason", "reason"),
    )
    title = f"{found.model}: {answer} ({describe(found, 'batch')})"
    return Table.of(
        columns, found.tried, title, (*notes, *(_measured_notes([first]) if first else ()))
    )


# Measured memory, with what a figure is worth in words.


def measured_tables(rows: Sequence[GpuRow], one: bool = False) -> list[Table]:
    """One run's ledger, or one table of several; then the simulated peaks where there are any.

    Args:
        one: the table comes first that a CSV file holds.
    """
    found = [_one_run(rows[0]) if len(rows) == 1 and not one else many_runs(rows)]
    if any(row.simulated_peak is not None for row in rows):
        found.append(_beside_table(rows))
    return found


def _one_run(row: GpuRow) -> Table:
    """Where the memory of one run went, or why it is not known."""
    peaks, notes = row.peaks, _measured_notes([row])
    if peaks is None:
        title = f"{row.model}: {row.outcome} ({describe(row)})"
        ended = (Column("outcome", "outcome"), Column("reason", "reason"))
        return Table.of(ended, [row], title, notes)
    held = {name: getattr(peaks, name) for name in ("allocated", "reserved", "process")}
    said = [f"{name} {units.size(amount)}" for name, amount in held.items() if amount is not None]
    title = f"{row.model}: {', '.join(said) or 'measured'} ({describe(row)})"
    totals = {
        "peak of tensors before rounding": peaks.requested,
        "peak allocated": peaks.allocated,
        "peak reserved": peaks.reserved,
        "process": peaks.process,
    }
    lines = [(LABELS[line.part], line.amount) for line in row.lines]
    lines += [(label, amount) for label, amount in totals.items() if amount is not None]
    absent: dict[str, list[str]] = {}
    for line in row.lines:
        if line.reason is not None:
            absent.setdefault(line.reason, []).append(LABELS[line.part])
    missing = "; ".join(f"{', '.join(which)}: {reason}" for reason, which in absent.items())
    return _ledger(lines, peaks.process, title, (*([f"{missing}."] if missing else []), *notes))


def many_runs(rows: Sequence[GpuRow]) -> Table:
    """One line a configuration."""
    after = (
        Column("requested", "before rounding", units.size, "peaks.requested", hidden=True),
        Column("allocated", "allocated", units.size, "peaks.allocated"),
        Column("reserved", "reserved", units.size, "peaks.reserved"),
        Column("process", "process", units.size, "peaks.process"),
        Column("seconds", "took", units.seconds, hidden=True),
        Column("gpu", "on", value="environment.name", hidden=True),
        Column("reason", "reason", hidden=True),
    )
    failures = dict.fromkeys(
        f"{row.model}, batch {row.setting.batch}, {row.mode}: {row.outcome}: {row.reason}."
        for row in rows
        if row.reason is not None
    )
    outcome, notes = [Column("outcome", "outcome")], (*failures, *_measured_notes(rows))
    return _runs_table(rows, _MEASURED, outcome, HELD, after, "Measured memory in bytes", notes)


def _beside_table(rows: Sequence[GpuRow]) -> Table:
    """Simulated peaks of tensors beside measured ones, before the allocator's rounding."""

    def difference(row: GpuRow) -> float | None:
        seen = row.peaks and row.peaks.requested
        return row.simulated_peak / seen - 1 if row.simulated_peak and seen else None

    columns = (
        *fact_columns(rows, ("model", "resolution", "batch", "mode", "device"), FACTS),
        Column("simulated", "simulated", units.size, "simulated_peak"),
        Column("measured", "measured", units.size, "peaks.requested"),
        Column("difference", "difference", lambda value: f"{100 * value:+.2f} %", difference),
        Column("outcome", "outcome"),
    )
    return Table.of(columns, rows, "Peak of tensors: simulated beside measured")


def _measured_notes(rows: Sequence[GpuRow]) -> tuple[str, ...]:
    """What the reader must know to believe the figures, each once."""
    notes = []
    for row in rows:
        if row.others:
            n = row.others
            which = "1 other process was" if n == 1 else f"{n} other processes were"
            notes.append(
                f"Warning: {which} on the GPU already; its memory is not free for this one."
            )
        if row.peaks is not None and row.peaks.retries:
            notes.append(
                f"{row.model}, batch {row.setting.batch}: the allocator gave its cache back "
                f"{row.peaks.retries} times before it got more; memory was short."
            )
        if (found := row.environment) is not None:
            named = {
                "driver": found.driver,
                "torch": found.torch,
                "CUDA": found.cuda,
                "allocator": found.allocator,
            }
            said = [f"{name} {value}" for name, value in named.items() if value is not None]
            size = f" ({units.size(found.memory)})" if found.memory else ""
            where = f"{found.name or 'an unknown device'}{size}"
            notes.append(f"Measured on {where}: {', '.join(said)}.")
    return tuple(dict.fromkeys(notes))


# Charts: what is alive at the peak and over the run, and the peak against the size of the input.


SIMULATED = "simulated on tensors without values, which is the same on every machine"

_SIMULATED_NOTE = "Simulated on tensors without values."

_KNOWN = tuple(LABELS[each] for each in CATEGORIES)


def against_size(rows: Sequence[MemoryRow]) -> Figure:
    """The simulated peak against the side of the input, a line for each model.

    Raises:
        UsageError: the rows differ in more than model and size.
    """
    ways = {(row.mode, row.setting.batch, row.setting.dtype) for row in rows}
    if len(ways) != 1:
        raise UsageError("the rows differ in mode, batch or dtype; draw one of each.")
    ((mode, batch, dtype),) = ways
    return against_side(
        [(row.model, row.setting.resolution, row.peak.amount / 2**30) for row in rows],
        f"Simulated peak of memory ({mode}, batch {batch}, {dtype})",
        "GiB",
        _SIMULATED_NOTE,
    )


def bars(rows: Sequence[MemoryRow], names: Sequence[str] = ()) -> Bars:
    """What is alive at the peak, by category, a bar for each row."""
    names = names or [
        f"{row.model}, {row.setting.resolution}, batch {row.setting.batch}, {row.mode}"
        for row in rows
    ]
    parts = (
        FigurePart(LABELS[each], tuple(float(row.line(each).at_peak or 0) for row in rows))
        for each in CATEGORIES
    )
    return Bars(
        "Memory alive at the peak",
        tuple(names),
        tuple(part for part in parts if any(part.amounts)),
        "byte",
        (_SIMULATED_NOTE,),
        equal=False,
        known=_KNOWN,
    )


def charts(rows: Sequence[MemoryRow], runs: Sequence[Timeline] = ()) -> list[Chart]:
    """What is alive at the peak of rows, and over runs.

    Args:
        runs: the memory of models over a run.
    """
    drawn = [_ledgers(rows)] if rows else []
    return [*drawn, _timelines(runs)] if runs else drawn


def _ledgers(rows: Sequence[MemoryRow]) -> Chart:
    names = labels(rows)
    said = describe(rows[0], *varying(rows))
    modes = list(dict.fromkeys(row.mode for row in rows))
    shared = said if len(modes) == 1 else f"modes {' and '.join(modes)}; all {said}"
    peaks = [f"{n} {units.size(row.peak.amount)}" for n, row in zip(names, rows, strict=True)]
    return Chart.of(
        replace(bars(rows, names), notes=(), about=tuple(map(describe, rows))),
        "memory-ledger",
        f"What is alive at the peak of {', '.join(names)}: {'; '.join(peaks)}",
        SIMULATED,
        title="Memory at the peak",
        caption=f"Simulated: {shared}. Without what an allocator adds, and without the CUDA "
        "context.",
        by="simulated ledger",
    )


def _timelines(runs: Sequence[Timeline]) -> Chart:
    """Live bytes over a run, by category, in MiB."""
    columns = (Column("model", "model"), Column("peak", "peak, and where"))
    notes = {run.model: " ".join(run.figure.notes) for run in runs}
    return Chart.of(
        {run.model: _in_mib(run.figure) for run in runs},
        "memory-timeline",
        "Bytes alive over one run, by category. " + " ".join(f"{m}: {n}" for m, n in notes.items()),
        SIMULATED,
        title="Memory over the run",
        caption=f"Simulated: {runs[0].setting}. Across: each birth or death of a tensor's "
        "storage since the run began, in order; the forward fills what the backward then empties.",
        by=f"simulated ledger, {runs[0].setting}",
        table=Table(columns, tuple(notes.items())),
    )


def _in_mib(figure: Figure) -> Figure:
    unit = figure.y_label.partition("(")[2].rstrip(")")
    scale = {"GiB": 1024.0, "MiB": 1.0, "KiB": 1 / 1024, "B": 1 / (1 << 20)}.get(unit, 1.0)
    names: Mapping[str, str] = {str(name): label for name, label in LABELS.items()}
    series = [
        Series(names.get(each.name, each.name), each.x, tuple(y * scale for y in each.y))
        for each in figure.series
    ]
    across = "births and deaths of storages"
    return Figure("", across, "alive (MiB)", tuple(series), stacked=True, known=_KNOWN)
