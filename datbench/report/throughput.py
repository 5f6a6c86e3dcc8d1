"""How fast models are, as tables: one row's figures, a line for each of several, the protocols'."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from .. import units
from ..timings import PERCENTS, ThroughputRow, counted
from .measured_words import percent
from .table import Column, Table, Value
from .throughput_words import notes, rate, setting_words, threads_of

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
