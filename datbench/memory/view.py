"""Ledgers of memory as tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from .. import units
from ..render.table import Column, Table, Value
from ..render.vega import Chart, Datum, bottom, chosen, field, folded, names_of, spec, words
from ..setting import WITH_BACKWARD
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
    Replay,
    Timeline,
)

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


def row_names(rows: Sequence[MemoryRow]) -> list[str]:
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


# What the caching allocator would reserve, and the largest batch, as tables.


def replays_table(names: Sequence[str], replays: Sequence[Sequence[Replay]]) -> Table:
    """PyTorch's caching allocator, with its usual segments and with expandable ones.

    Args:
        names: of the runs; hidden where there is one.
        replays: of each run.
    """
    columns = (
        Column("run", "run", hidden=len(names) == 1),
        Column("expandable", "segments"),
        Column("requested_peak", "tensors", units.size),
        Column("allocated_peak", "allocated", units.size),
        Column("reserved_peak", "reserved", units.size),
        Column("slack", "slack", units.size),
        Column("segments", "number", units.integer),
        Column("context", "context and libraries", units.size),
    )
    rows = tuple(
        (
            name,
            "expandable" if r.expandable else "default",
            r.requested_peak,
            r.allocated_peak,
            r.reserved_peak,
            r.slack,
            r.segments,
            None,
        )
        for name, found in zip(names, replays, strict=True)
        for r in found
    )
    notes = (
        "Predicted by replaying the run through a model of PyTorch's caching allocator. Allocator "
        "slack: reserved and not allocated when most is reserved.",
        f"Context and libraries: {NO_CONTEXT}.",
    )
    return Table(columns, rows, "What the allocator would reserve", notes)


def largest_table(found: Sequence[LargestBatch]) -> Table:
    """The largest batch of each model."""
    columns = (
        Column("model", "model"),
        Column("resolution", "input"),
        Column("mode", "mode"),
        Column("gpu", "GPU"),
        Column("capacity", "memory", units.size),
        Column("batch", "largest batch", units.integer),
        Column("reserved", "reserved", units.size),
        Column("reserved_next", "one more, no limit", units.size),
        Column("reason", "why"),
    )
    rows = tuple(
        (
            f.model,
            str(f.setting.resolution),
            f.mode,
            f.gpu,
            f.capacity,
            f.batch,
            f.reserved,
            f.reserved_next,
            f.reason or _end(f),
        )
        for f in found
    )
    notes = tuple(dict.fromkeys(f.assumption for f in found))
    return Table(columns, rows, "Largest batch, by simulation", notes)


def _end(found: LargestBatch) -> str | None:
    """Where one image more runs out of memory."""
    end = found.out_of_memory
    if end is None:
        return None
    operator = end.operator.removeprefix("aten::") or "the model itself"
    where = f"{operator} in {end.module}" if end.module else operator
    return f"with one more, {where} finds no {units.size(end.requested)}"


# The simulated ledger, and memory over a run.


_MIB = 1 << 20

SIMULATED = "simulated on tensors without values, which is the same on every machine"


def ledgers(rows: Sequence[MemoryRow]) -> Chart | None:
    """What is alive at the peak, by category."""
    if not rows:
        return None
    names = row_names(rows)
    values = [
        {
            "model": name,
            "category": "kept for backward" if line.category == "kept" else line.category,
            "order": CATEGORIES.index(line.category),
            "mib": line.at_peak / _MIB,
            "size": units.size(line.at_peak),
            "total": units.size(row.peak.amount),
            "setting": setting_words(row),
        }
        for name, row in zip(names, rows, strict=True)
        for line in row.lines
        if line.at_peak
    ]
    categories = [
        "kept for backward" if category == "kept" else category
        for category in CATEGORIES
        if any(line.category == category and line.at_peak for row in rows for line in row.lines)
    ]
    body = spec(
        values,
        folded(names),
        mark="bar",
        encoding={
            "y": names_of("model", names),
            "x": field("mib", "alive at the peak (MiB)", stack="zero"),
            "color": words("category", scale={"domain": categories}, legend=bottom(4)),
            "order": field("order"),
            "tooltip": [
                words("model"),
                words("category"),
                words("size", "at the peak"),
                words("total", "peak"),
                words("setting"),
            ],
        },
    )
    columns = (
        Column("model", "model"),
        Column("category", "category"),
        Column("mib", "at the peak (MiB)", lambda value: f"{value:,.2f}"),
        Column("total", "peak"),
    )
    shown = tuple(tuple(d[column.name] for column in columns) for d in values)
    return Chart(
        "memory-ledger",
        "Memory at the peak",
        body,
        f"What is alive at the peak of {', '.join(names)}: "
        + "; ".join(f"{n} {units.size(r.peak.amount)}" for n, r in zip(names, rows, strict=True)),
        f"Simulated: {_settings(rows)}. Without what an allocator adds, and without the CUDA "
        "context.",
        SIMULATED,
        Table(columns, shown),
        by="simulated ledger",
    )


def _settings(rows: Sequence[MemoryRow]) -> str:
    """What all rows share; of the modes all."""
    said = setting_words(rows[0], *differing(rows))
    modes = list(dict.fromkeys(row.mode for row in rows))
    return said if len(modes) == 1 else f"modes {' and '.join(modes)}; all {said}"


def timelines(rows: Sequence[Timeline]) -> Chart | None:
    """Live bytes over a run, by category."""
    values: list[Datum] = []
    names: list[str] = list(CATEGORIES)
    for row in rows:
        unit = row.figure.y_label.partition("(")[2].rstrip(")")
        scale = {"GiB": 1024.0, "MiB": 1.0, "KiB": 1 / 1024, "B": 1 / _MIB}.get(unit, 1.0)
        for series in row.figure.series:
            if series.name == "total":
                continue
            category = "kept for backward" if series.name == "kept" else series.name
            values += [
                {
                    "model": row.model,
                    "category": category,
                    "order": names.index(series.name),
                    "x": x,
                    "mib": y * scale,
                }
                for x, y in zip(series.x, series.y, strict=True)
            ]
    if not values:
        return None
    models = list(dict.fromkeys(d["model"] for d in values))
    categories = list(
        dict.fromkeys(d["category"] for d in sorted(values, key=lambda d: d["order"]))
    )
    body = spec(
        values,
        320,
        mark={"type": "area", "interpolate": "step-after"},
        encoding={
            "x": field("x", "births and deaths of storages"),
            "y": field("mib", "alive (MiB)", stack="zero"),
            "color": words("category", scale={"domain": categories}, legend=bottom(4, 2)),
            "order": field("order"),
            "tooltip": [words("category"), field("mib", "MiB", format=",.1f")],
        },
        **chosen("model", models),
    )
    columns = (
        Column("model", "model"),
        Column("peak", "peak, and where"),
    )
    shown = tuple((row.model, " ".join(row.figure.notes)) for row in rows)
    return Chart(
        "memory-timeline",
        "Memory over the run",
        body,
        "Bytes alive over one run, by category. " + " ".join(f"{m}: {n}" for m, n in shown),
        f"Simulated: {rows[0].setting}. Across: each birth or death of a tensor's storage since "
        "the run began, in order; the forward fills what the backward then empties.",
        SIMULATED,
        Table(columns, shown),
        tuple(models),
        f"simulated ledger, {rows[0].setting}",
    )


# Measured memory as tables, with what a figure is worth in words.


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

_MEASURED_SETTING = ("batch", "dtype", "device", "attention", "features")


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
        return Table(ended, ((row.outcome, row.reason),), title, _measured_notes([row]))
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
    notes = ([f"{missing}."] if missing else []) + list(_measured_notes([row]))
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
    return Table(columns, tuple(map(_flat, rows)), title, (*failures, *_measured_notes(rows)))


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
    return Table(
        columns, rows, f"{found.model}: {_confirmed_largest(found)} ({where})", _search_notes(found)
    )


def _confirmed_largest(found: Confirmed) -> str:
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
    return (*notes, *(_measured_notes([first]) if first is not None else ()))


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
        **{name: getattr(setting, name) for name in _MEASURED_SETTING},
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


def _measured_notes(rows: Sequence[GpuRow]) -> tuple[str, ...]:
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
