"""How fast models are, as tables: one row's figures, a line for each of several, the protocols'."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from .. import units
from ..memory.view import runs
from ..render.table import Column, Table, Value
from ..render.vega import Chart, Datum, field, folded, names_of, spec, words
from ..units import percent
from .records import PERCENTS, Ceilings, Scatter, ThroughputRow, counted

# What throughput's figures belong to, and what they are worth, in words.


def rate(value: float) -> str:
    """A number a second: four figures, as many as an interval of 0.1 % shows."""
    if value >= 1000:
        return units.integer(value)
    return f"{value:.{3 if value < 9.9995 else 2 if value < 99.995 else 1}f}"


def threads_of(row: ThroughputRow) -> int | None:
    """That an operator ran with."""
    return next((process.threads for process in row.processes if process.threads), None)


def setting_words(row: ThroughputRow, *left_out: str) -> str:
    """What the figures belong to, in words."""
    setting, how = row.setting, row.how
    threads = threads_of(row)
    counted = "1 thread" if threads == 1 else f"{threads} threads"
    told = setting.device.startswith("cpu") and threads and "threads" not in left_out
    on = f"cpu, {counted}" if told else setting.device
    parts = {
        "mode": "inference" if how.mode == "infer" else "training",
        "resolution": str(setting.resolution),
        "batch": f"batch {setting.batch}",
        "dtype": setting.dtype,
        "attention": f"{setting.attention} attention",
        "compile": "compiled" if how.compile else "",
        "channels_last": "channels last" if how.channels_last else "",
        "flush": "level-2 cache flushed" if how.flush else "",
        "gpus": f"on each of {row.gpus} ranks" if row.gpus > 1 else "",
        "device": on,
    }
    return ", ".join(words for name, words in parts.items() if words and name not in left_out)


def notes(rows: Sequence[ThroughputRow]) -> Iterator[str]:
    """What the reader must know to believe the figures, each once."""
    alone = len(rows) == 1
    if not alone:
        for row in rows:
            if row.reason is not None and row.seconds is None:
                yield f"{_name(row)}: {row.outcome}: {row.reason}."
    yield from _doubts(rows)
    yield from dict.fromkeys(
        f"{_name(row)}: no MACs: {row.counted}."
        for row in rows
        if row.counted and row.seconds is not None
    )
    for limits in dict.fromkeys(row.ceilings for row in rows if row.ceilings is not None):
        yield _ceilings(limits)
    yield from dict.fromkeys(_machine(row) for row in rows if _environment(row))


def _ceilings(limits: Ceilings) -> str:
    """The fastest samples, and what they usually were."""

    def beside(scatter: Scatter | None, figure: Callable[[float], str]) -> str:
        return "" if scatter is None else f" (median {figure(scatter.median)})"

    product = beside(limits.product, lambda rate: units.amount(rate, "MAC/s", 1))
    copy = beside(limits.copy, lambda rate: f"{units.size(rate)}/s")
    return (
        f"Ceilings in {limits.dtype}, the fastest sample of each: "
        f"{units.amount(limits.macs, 'MAC/s', 1)}{product} in a matrix product of side "
        f"{limits.side}, {units.size(limits.bytes)}/s{copy} in a copy that moves "
        f"{units.size(limits.copied)}."
    )


def _name(row: ThroughputRow) -> str:
    return f"{row.model}, batch {row.setting.batch}"


def _doubts(rows: Sequence[ThroughputRow]) -> Iterator[str]:
    """Each doubt once, with the rows that have it; none named where all have."""
    whose: dict[str, list[str]] = {}
    for row in rows:
        for doubt in row.doubts:
            whose.setdefault(doubt, []).append(_name(row))
    for doubt, names in whose.items():
        if len(names) == len(rows):
            yield f"Doubt: {doubt}."
        else:
            yield f"Doubt ({'; '.join(names)}): {doubt}."


def _environment(row: ThroughputRow) -> dict[str, Any]:
    return next((dict(p.environment) for p in row.processes if p.environment), {})


def _machine(row: ThroughputRow) -> str:
    found = _environment(row)
    on = found.get("processor") or "an unknown processor"
    if row.setting.device.startswith("cuda"):
        gpus = found.get("gpus") or [{}]
        index = int(row.setting.device.partition(":")[2] or 0)
        on = gpus[min(index, len(gpus) - 1)].get("name") or "an unknown GPU"
    cores = f", {found['usable_cpus']} cores" if found.get("usable_cpus") else ""
    return f"Measured on {on}{cores}: torch {found.get('torch')}, datbench {found.get('datbench')}."


CERTAIN = 0.95
"""Coverage below which an interval is not shown: too few samples, or processes, to have one."""

_SETTING = ("batch", "dtype", "device", "attention")

_HOW = ("mode", "compile", "channels_last", "flush")


def tables(rows: Sequence[ThroughputRow]) -> list[Table]:
    """One row's figures, or one table of several; then what published protocols give."""
    found = [one(rows[0])] if len(rows) == 1 else [many(rows)]
    if any(row.protocols for row in rows):
        found.append(_protocols(rows))
    return found


def one(row: ThroughputRow) -> Table:
    """All figures of one row, below each other."""
    columns = (Column("what", "figure"), Column("value", row.model), Column("more", ""))
    title = f"{row.model}: {_outcome(row)} ({setting_words(row)})"
    lines = _lines(row) if row.seconds is not None else [(row.outcome, row.reason or "", "")]
    return Table(columns, tuple(lines), title, tuple(notes([row])))


def _outcome(row: ThroughputRow) -> str:
    if row.images_per_second is None:
        return row.outcome
    marked = f", {row.outcome}" if row.outcome != "measured" else ""
    return f"{rate(row.images_per_second)} images/s{marked}"


def _lines(row: ThroughputRow) -> Iterator[tuple[str, str, str]]:
    assert row.images_per_second is not None
    assert row.seconds is not None
    sure = row.coverage is not None and row.coverage >= CERTAIN
    yield "images/s", rate(row.images_per_second), _between(row.images_low, row.images_high, sure)
    yield "median", units.seconds(row.seconds), _between_seconds(row, sure)
    for one in row.latency:
        if one.percent != 50:
            value = "-" if one.seconds is None else units.seconds(one.seconds)
            yield f"p{one.percent}", value, one.reason or ""
    if row.spread is not None:
        timed = len(counted(row.processes))
        told = f"largest less smallest median of {timed}"
        yield "between processes", percent(row.spread), told
    by = ("Ctrl-C" if why == "interrupted" else f"the {why}" for why in row.stopped)
    ended = ", ".join(dict.fromkeys(f"ended by {why}" for why in by))
    yield "samples", units.integer(row.samples), f"after {row.warmup} of warm-up; {ended}"
    if row.macs is not None and row.mac_rate is not None:
        whole = f"{units.amount(row.macs, 'MAC', 2)} a call"
        yield "MAC/s", units.amount(row.mac_rate, "MAC/s", 1), _of(whole, row.mac_fraction)
    if row.bytes is not None and row.byte_rate is not None:
        whole = f"{units.size(row.bytes)} a call"
        yield "bytes/s", f"{units.size(row.byte_rate)}/s", _of(whole, row.byte_fraction, "copy")
    energy = "-" if row.energy is None else _joules(row.energy)
    yield "energy an image", energy, row.energy_reason or ""
    yield from _driver(row)


def _driver(row: ThroughputRow) -> Iterator[tuple[str, str, str]]:
    """What the GPU's driver said."""
    seen = next((process.telemetry for process in row.processes if process.telemetry), None)
    if seen is None:
        return
    if seen.clock is not None:
        low = "" if seen.clock_low is None else f"at least {seen.clock_low / 1e6:.0f} MHz"
        yield "clock", f"{seen.clock / 1e6:.0f} MHz", low
    if seen.power is not None:
        warm = "" if seen.temperature is None else f"{seen.temperature:.0f} degrees Celsius"
        yield "power", f"{seen.power:.0f} W", warm


def _of(whole: str, fraction: float | None, ceiling: str = "matrix product") -> str:
    return whole if fraction is None else f"{whole}; {percent(fraction)} of a {ceiling}'s"


def _between_seconds(row: ThroughputRow, sure: bool) -> str:
    if not sure or row.low is None or row.high is None:
        return ""
    return f"{units.seconds(row.low)} to {units.seconds(row.high)}"


def _between(low: float | None, high: float | None, sure: bool) -> str:
    return f"{rate(low)} to {rate(high)}, 95 %" if sure and low and high else ""


def _signed(value: float) -> str:
    return f"{100 * value:+.1f} %"


def _joules(value: float) -> str:
    return f"{value:.2f} J" if value >= 1 else f"{1e3 * value:.1f} mJ"


def many(rows: Sequence[ThroughputRow]) -> Table:
    """One line a row."""
    named = _named(rows[0])
    several = [
        name for name in named if name == "model" or len({_named(row)[name] for row in rows}) > 1
    ]
    differ = ("threads",) if len({threads_of(row) for row in rows}) > 1 else ()
    columns = (
        *(
            Column(name, _TITLES.get(name, name), _text(name), hidden=name not in several)
            for name in named
        ),
        Column("images_per_second", "images/s", rate),
        Column("images_low", "95 % from", rate),
        Column("images_high", "to", rate),
        Column("seconds", "median", units.seconds),
        *_latencies(rows),
        Column("samples", "samples", units.integer),
        Column("mac_rate", "MAC/s", lambda value: units.amount(value, digits=1)),
        Column("mac_fraction", "of matmul", percent, hidden=not _any(rows, "mac_fraction")),
        Column("byte_fraction", "of copy", percent, hidden=not _any(rows, "byte_fraction")),
        Column("energy", "J/image", _joules, hidden=not _any(rows, "energy")),
        Column("ended", "ended"),
        *(Column(name, name, hidden=name not in differ) for name in _MORE),
    )
    title = f"Images a second; {setting_words(rows[0], *several, *differ)}"
    return Table(columns, tuple(_flat(row) for row in rows), title, tuple(notes(rows)))


_TITLES = {"resolution": "input", "channels_last": "channels last"}

_MORE = (
    "outcome",
    "low",
    "high",
    "coverage",
    "interval_of",
    "spread",
    "warmup",
    "asked",
    "requested_batch",
    "threads",
    "macs",
    "bytes",
    "byte_rate",
    "reason",
)


def _latencies(rows: Sequence[ThroughputRow]) -> Iterator[Column]:
    """Percentiles; p90, and one that no row has, are for machines."""
    for number in PERCENTS[1:]:
        there = any(
            one.percent == number and one.seconds is not None for row in rows for one in row.latency
        )
        yield Column(f"p{number}", f"p{number}", units.seconds, hidden=not there or number == 90)


def _any(rows: Sequence[ThroughputRow], name: str) -> bool:
    return any(getattr(row, name) is not None for row in rows)


def _text(name: str) -> Any:
    return units.integer if name in ("batch", "gpus") else None


def _flat(row: ThroughputRow) -> tuple[Value, ...]:
    sure = row.coverage is not None and row.coverage >= CERTAIN
    latency = {one.percent: one.seconds for one in row.latency}
    stopped = ", ".join(dict.fromkeys(row.stopped))
    return (
        *_named(row).values(),
        row.images_per_second,
        row.images_low if sure else None,
        row.images_high if sure else None,
        row.seconds,
        *(latency.get(number) for number in PERCENTS[1:]),
        row.samples,
        row.mac_rate,
        row.mac_fraction,
        row.byte_fraction,
        row.energy,
        stopped if row.outcome == "measured" else row.outcome,
        *(threads_of(row) if name == "threads" else getattr(row, name) for name in _MORE),
    )


def _named(row: ThroughputRow) -> dict[str, Value]:
    """What the figures belong to."""
    return {
        "model": row.model,
        "resolution": str(row.setting.resolution),
        **{name: getattr(row.setting, name) for name in _SETTING},
        **{
            name: value if isinstance(value, str) else "yes" if value else "no"
            for name, value in ((name, getattr(row.how, name)) for name in _HOW)
        },
        "gpus": row.gpus,
    }


def _protocols(rows: Sequence[ThroughputRow]) -> Table:
    """What each protocol gives beside the row's own figure, from the same processes."""
    several = any(found.processes > 1 for row in rows for found in row.protocols)
    columns = (
        Column("model", "model"),
        Column("batch", "batch", units.integer),
        Column("protocol", "protocol"),
        Column("warmup", "warm-up", units.integer),
        Column("calls", "calls", units.integer),
        Column("images_per_second", "images/s", rate),
        Column("rigorous", "as above", rate),
        Column("difference", "by the protocol", _signed),
        Column("difference_low", "95 % from", _signed, hidden=not several),
        Column("difference_high", "to", _signed, hidden=not several),
        Column("processes", "processes", units.integer, hidden=not several),
    )
    values = [
        (
            row.model,
            found.batch,
            found.protocol,
            found.warmup,
            found.calls,
            found.images_per_second,
            row.images_per_second,
            found.difference,
            *((found.low, found.high) if (found.coverage or 0.0) >= CERTAIN else (None, None)),
            found.processes,
        )
        for row in rows
        for found in row.protocols
    ]
    note = (
        "Fixed warm-up, fixed calls, their mean: the same model in the same process, after it was "
        "timed as above."
    )
    if several:
        note += " Each figure is the median of the processes', the difference that of their own."
    return Table(columns, tuple(values), "Published protocols", (note,))


# What was timed, by the place where it was.


def throughput(rows: Sequence[ThroughputRow], number: int, where: str) -> Chart | None:
    """Images a second with their intervals; all rows of one place."""
    rows = [row for row in rows if row.images_per_second]
    if not rows:
        return None
    names = _names(rows)
    values = [
        {
            "model": name,
            "rate": row.images_per_second,
            "from": "median",
            **_interval(row),
            "setting": setting_words(row),
            "doubts": "; ".join(row.doubts) or "none",
        }
        for name, row in zip(names, rows, strict=True)
    ]
    body = spec(
        values,
        folded(names),
        encoding={"y": names_of("model", names)},
        layer=[
            {
                "transform": [{"filter": "isValid(datum.low)"}],
                "mark": {"type": "rule", "strokeWidth": 3},
                "encoding": {
                    "x": field("low", "images/s", scale={"zero": True}),
                    "x2": {"field": "high"},
                },
            },
            {
                "mark": {"type": "point", "filled": True, "size": 90},
                "encoding": {
                    "x": field("rate", "images/s"),
                    "color": words("from", legend=None),
                    "tooltip": [
                        words("model"),
                        field("rate", "images/s", format=",.1f"),
                        words("interval", "95 % interval"),
                        words("setting"),
                        words("doubts"),
                    ],
                },
            },
        ],
    )
    columns = (
        Column("model", "model"),
        Column("rate", "images/s", lambda value: f"{value:,.1f}"),
        Column("low", "95 % from", lambda value: f"{value:,.1f}"),
        Column("high", "to", lambda value: f"{value:,.1f}"),
        Column("setting", "setting"),
    )
    shown = tuple(tuple(d[column.name] for column in columns) for d in values)
    fastest = max(values, key=lambda d: d["rate"])
    sure = sum(d["low"] is not None for d in values)
    bars = "Bars: its 95 % interval."
    if sure < len(values):
        bars += " Without a bar: too few samples, or processes, for such an interval."
    return Chart(
        f"throughput-{number}",
        "Throughput",
        body,
        f"Images a second of {len(values)} runs; the fastest is "
        f"{fastest['model']} with {fastest['rate']:,.1f}.",
        f"{_shared(rows)}Points: from the median time of a call. {bars}",
        where,
        Table(columns, shown),
        by="median time of a call",
    )


def _interval(row: ThroughputRow) -> Datum:
    """As the table has it: none that is less sure than 95 %."""
    sure = row.coverage is not None and row.coverage >= CERTAIN
    if not sure or row.images_low is None or row.images_high is None:
        return {"low": None, "high": None, "interval": "too few samples for one"}
    low, high = row.images_low, row.images_high
    return {"low": low, "high": high, "interval": f"{low:,.1f} to {high:,.1f}"}


def _shared(rows: Sequence[ThroughputRow]) -> str:
    """What all rows' settings have in common."""
    said = [setting_words(row).split(", ") for row in rows]
    shared = ", ".join(part for part in said[0] if all(part in other for other in said))
    return f"{shared[:1].upper()}{shared[1:]}. " if shared else ""


def _names(rows: Sequence[ThroughputRow]) -> list[str]:
    """The model, its batch, of the rest what the others do not share; at last a number."""
    tells = [tell for tell in _TOLD if len({tell(row) for row in rows}) > 1]
    names = [
        ", ".join([row.model, f"batch {row.setting.batch}", *(tell(row) for tell in tells)])
        for row in rows
    ]
    return [
        f"{name}, run {number}" if number else name
        for name, number in zip(names, runs(names), strict=True)
    ]


_TOLD: tuple[Callable[[ThroughputRow], str], ...] = (
    lambda row: row.how.mode,
    lambda row: str(row.setting.resolution),
    lambda row: row.setting.dtype,
    lambda row: row.setting.device,
    lambda row: f"{row.setting.attention} attention",
    lambda row: "compiled" if row.how.compile else "not compiled",
    lambda row: "channels last" if row.how.channels_last else "channels first",
    lambda row: "cache flushed" if row.how.flush else "cache not flushed",
    lambda row: f"{threads_of(row) or '?'} threads",
    lambda row: f"{row.gpus} ranks",
)
