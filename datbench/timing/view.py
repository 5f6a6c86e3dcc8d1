"""How fast models are, as tables: one row's figures, a line for each of several, the protocols'."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from .. import units
from ..render.table import Column, Table, fact_columns
from ..render.vega import ROW, Chart, Datum, above, field, layer, rows_of, spec, words
from ..setting import describe, label, labels, varying
from ..units import percent, rate, signed_percent
from .records import CERTAIN, PERCENTS, Ceilings, ProtocolTiming, Scatter, ThroughputRow, counted


def tables(rows: Sequence[ThroughputRow], one: bool = False) -> list[Table]:
    """One row's figures, or one table of several; then what published protocols give.

    Args:
        one: a line a row, and nothing else, as a CSV file holds.
    """
    found = [many(rows) if one or len(rows) > 1 else figures_table(rows[0])]
    if not one and any(row.protocols for row in rows):
        found.append(_protocols(rows))
    return found


def figures_table(row: ThroughputRow) -> Table:
    """All figures of one row, below each other."""
    columns = (Column("what", "figure"), Column("value", row.model), Column("more", ""))
    said: str = row.outcome
    if row.images_per_second is not None:
        marked = f", {row.outcome}" if row.outcome != "measured" else ""
        said = f"{rate(row.images_per_second)} images/s{marked}"
    title = f"{row.model}: {said} ({describe(row)})"
    return Table(columns, tuple(_lines(row)), title, tuple(notes([row])))


def _lines(row: ThroughputRow) -> Iterator[tuple[str, str, str]]:
    if row.images_per_second is None or row.seconds is None:
        yield row.outcome, row.reason or "", ""
        return
    images = _interval(row, "images_low", "images_high", rate)
    yield "images/s", rate(row.images_per_second), f"{images}, 95 %" if images else ""
    yield "median", units.seconds(row.seconds), _interval(row, "low", "high", units.seconds)
    for each in row.latency:
        if each.percent != 50:
            value = "-" if each.seconds is None else units.seconds(each.seconds)
            yield f"p{each.percent}", value, each.reason or ""
    if row.spread is not None:
        several = len(counted(row.processes))
        told = f"largest less smallest median of {several}"
        yield "between processes", percent(row.spread), told
    by = ("Ctrl-C" if why == "interrupted" else f"the {why}" for why in row.stopped)
    ended = ", ".join(dict.fromkeys(f"ended by {why}" for why in by))
    yield "samples", units.integer(row.samples), f"after {row.warmup} of warm-up; {ended}"
    if row.macs is not None and row.mac_rate is not None:
        whole = f"{units.amount(row.macs, 'MAC', 2)} a call"
        part = _part(row.mac_fraction, "matrix product")
        yield "MAC/s", units.amount(row.mac_rate, "MAC/s", 1), whole + part
    if row.bytes is not None and row.byte_rate is not None:
        whole, part = f"{units.size(row.bytes)} a call", _part(row.byte_fraction, "copy")
        yield "bytes/s", f"{units.size(row.byte_rate)}/s", whole + part
    energy = "-" if row.energy is None else _joules(row.energy)
    yield "energy an image", energy, row.energy_reason or ""
    seen = next((process.telemetry for process in row.processes if process.telemetry), None)
    if seen is not None and seen.clock is not None:
        low = "" if seen.clock_low is None else f"at least {seen.clock_low / 1e6:.0f} MHz"
        yield "clock", f"{seen.clock / 1e6:.0f} MHz", low
    if seen is not None and seen.power is not None:
        warm = "" if seen.temperature is None else f"{seen.temperature:.0f} degrees Celsius"
        yield "power", f"{seen.power:.0f} W", warm


def _if_sure(name: str) -> Callable[[ThroughputRow | ProtocolTiming], float | None]:
    """Reads a bound of an interval; None where it is less sure than 95 %."""

    def read(found: ThroughputRow | ProtocolTiming) -> float | None:
        sure = found.coverage is not None and found.coverage >= CERTAIN
        return getattr(found, name) if sure else None

    return read


def _interval(row: ThroughputRow, low: str, high: str, say: Callable[[float], str]) -> str:
    bounds = [bound for name in (low, high) if (bound := _if_sure(name)(row)) is not None]
    return " to ".join(map(say, bounds)) if len(bounds) == 2 else ""


def _part(fraction: float | None, ceiling: str) -> str:
    return "" if fraction is None else f"; {percent(fraction)} of a {ceiling}'s"


def _joules(value: float) -> str:
    return f"{value:.2f} J" if value >= 1 else f"{1e3 * value:.1f} mJ"


def many(rows: Sequence[ThroughputRow]) -> Table:
    """One line a row."""

    def optional(name: str, title: str, text: Callable[[float], str]) -> Column:
        hidden = all(getattr(row, name) is None for row in rows)
        return Column(name, title, text, hidden=hidden, when="wide")

    def ended(row: ThroughputRow) -> str:
        return ", ".join(dict.fromkeys(row.stopped)) if row.outcome == "measured" else row.outcome

    measured = all(row.outcome == "measured" for row in rows)
    told = "model resolution batch dtype device attention mode compile channels_last flush gpus"
    further = "outcome low high coverage interval_of spread warmup asked requested_batch"
    columns = (
        *fact_columns(rows, told.split()),
        Column("images_per_second", "images/s", rate),
        Column("images_low", "95 % from", rate, _if_sure("images_low")),
        Column("images_high", "to", rate, _if_sure("images_high")),
        Column("seconds", "median", units.seconds, when="wide"),
        *(_latency(rows, number) for number in PERCENTS[1:]),
        Column("samples", "samples", units.integer, when="widest"),
        Column("mac_rate", "MAC/s", lambda value: units.amount(value, digits=1), when="wide"),
        optional("mac_fraction", "of matmul", percent),
        optional("byte_fraction", "of copy", percent),
        optional("energy", "J/image", _joules),
        Column("ended", "ended", value=ended, when="widest" if measured else "always"),
        *(Column(name, name, hidden=True) for name in further.split()),
        *fact_columns(rows, ["threads"]),
        *(Column(name, name, hidden=True) for name in ("macs", "bytes", "byte_rate", "reason")),
    )
    title = f"Images a second; {describe(rows[0], *varying(rows))}"
    return Table.of(columns, rows, title, notes(rows))


def by_machine(places: Sequence[tuple[str, Sequence[ThroughputRow]]]) -> Table:
    """Images a second of every model and setting, a column for each machine.

    Args:
        places: rows, by where they were measured.
    """
    rows = [row for _, found in places for row in found]
    names = [name for name in varying(rows) if name not in ("device", "threads")]
    lines: dict[str, dict[str, float | None]] = {}
    for where, found in places:
        for row in found:
            lines.setdefault(label(row, names), {}).setdefault(where, row.images_per_second)
    shared = set.intersection(*(set(where.split(", ")) for where, _ in places))

    def machine(where: str) -> Column:
        said = ", ".join(part for part in where.split(", ") if part not in shared) or where
        return Column(where, said, rate, lambda line: line[1].get(where))

    columns = [Column("model", "model", value=lambda line: line[0])]
    columns += [machine(where) for where, _ in places]
    title = f"Images/s by machine: {describe(rows[0], *names, 'device', 'threads')}"
    return Table.of(columns, lines.items(), title)


def _latency(rows: Sequence[ThroughputRow], number: int) -> Column:
    """A percentile; p90, and one that no row has, are for machines."""

    def read(row: ThroughputRow) -> float | None:
        return next((each.seconds for each in row.latency if each.percent == number), None)

    hidden = number == 90 or all(read(row) is None for row in rows)
    return Column(f"p{number}", f"p{number}", units.seconds, read, hidden, when="wide")


def _protocols(rows: Sequence[ThroughputRow]) -> Table:
    """What each protocol gives beside the row's own figure, from the same processes."""
    found = [{"row": row, "timing": timing} for row in rows for timing in row.protocols]
    several = any(timing.processes > 1 for row in rows for timing in row.protocols)

    def bound(name: str) -> Callable[[dict[str, Any]], float | None]:
        return lambda pair: _if_sure(name)(pair["timing"])

    columns = (
        Column("model", "model", None, "row.model", label=True),
        Column("batch", "batch", units.integer, "timing.batch", label=True),
        Column("protocol", "protocol", None, "timing.protocol", label=True),
        Column("warmup", "warm-up", units.integer, "timing.warmup", when="widest"),
        Column("calls", "calls", units.integer, "timing.calls", when="widest"),
        Column("images_per_second", "images/s", rate, "timing.images_per_second"),
        Column("rigorous", "as above", rate, "row.images_per_second"),
        Column("difference", "by the protocol", signed_percent, "timing.difference"),
        Column("difference_low", "95 % from", signed_percent, bound("low"), not several),
        Column("difference_high", "to", signed_percent, bound("high"), not several),
        Column(
            *("processes", "processes", units.integer, "timing.processes", not several),
            when="widest",
        ),
    )
    note = (
        "Fixed warm-up, fixed calls, their mean: the same model in the same process, after it was "
        "timed as above."
    )
    if several:
        note += " Each figure is the median of the processes', the difference that of their own."
    return Table.of(columns, found, "Published protocols", (note,))


def notes(rows: Sequence[ThroughputRow]) -> Iterator[str]:
    """What the reader must know to believe the figures, each once."""
    for row in rows if len(rows) > 1 else ():
        if row.reason is not None and row.seconds is None:
            yield f"{_name(row)}: {row.outcome}: {row.reason}."
    whose: dict[str, list[str]] = {}
    for row in rows:
        for doubt in row.doubts:
            whose.setdefault(doubt, []).append(_name(row))
    for doubt, names in whose.items():  # none named where all have it
        by = "" if len(names) == len(rows) else f" ({'; '.join(names)})"
        yield f"Warning{by}: {doubt}."
    yield from dict.fromkeys(
        f"{_name(row)}: no MACs: {row.counted}."
        for row in rows
        if row.counted and row.seconds is not None
    )
    for limits in dict.fromkeys(row.ceilings for row in rows if row.ceilings is not None):
        said = peaks(limits, medians=True)
        yield f"Machine peak in {limits.dtype}, the fastest sample of each: {said}."
    yield from dict.fromkeys(filter(None, map(_machine, rows)))


def peaks(limits: Ceilings, medians: bool = False) -> str:
    """What the machine does at best, in words.

    Args:
        medians: say those of the samples too, where a file has them.
    """

    def said(fastest: float, scatter: Scatter | None, say: Callable[[float], str]) -> str:
        usual = f" (median {say(scatter.median)})" if medians and scatter is not None else ""
        return f"{say(fastest)}{usual}"

    product = said(limits.macs, limits.product, lambda rate: units.amount(rate, "MAC/s", 1))
    copy = said(limits.bytes, limits.copy, lambda rate: f"{units.size(rate)}/s")
    return (
        f"{product} in a matrix product of side {limits.side}, {copy} in a copy that moves "
        f"{units.size(limits.copied)}"
    )


def peaks_table(rows: Sequence[Ceilings]) -> Table:
    """Machine peaks, the fastest sample of each."""
    columns = (
        Column("device", "device", label=True),
        Column("dtype", "dtype", label=True),
        Column("threads", "threads", units.integer),
        Column("macs", "matrix product", lambda rate: units.amount(rate, "MAC/s", 1)),
        Column("side", "side", units.integer, when="wide"),
        Column("bytes", "copy", lambda rate: f"{units.size(rate)}/s"),
        Column("copied", "of", units.size, when="wide"),
    )
    return Table.of(columns, rows, "Machine peaks")


def _name(row: ThroughputRow) -> str:
    return f"{row.model}, batch {row.setting.batch}"


def _machine(row: ThroughputRow) -> str:
    """What a row was measured on; nothing where no process says it."""
    found = next((process.environment for process in row.processes if process.environment), {})
    if not found:
        return ""
    on = found.get("processor") or "an unknown processor"
    if row.setting.device.startswith("cuda"):
        gpus = found.get("gpus") or [{}]
        index = int(row.setting.device.partition(":")[2] or 0)
        on = gpus[min(index, len(gpus) - 1)].get("name") or "an unknown GPU"
    cores = f", {found['usable_cpus']} cores" if found.get("usable_cpus") else ""
    return f"Measured on {on}{cores}: torch {found.get('torch')}, datbench {found.get('datbench')}."


# What was timed, as a chart.


def charts(rows: Sequence[ThroughputRow], where: str) -> list[Chart]:
    """Images a second with their intervals.

    Args:
        where: they were measured.
    """
    rows = [row for row in rows if row.images_per_second]
    if not rows:
        return []
    names, tenths = labels(rows), "{:,.1f}".format
    values: list[Datum] = [
        {
            "model": name,
            "rate": row.images_per_second,
            "from": "median",
            "low": _if_sure("images_low")(row),
            "high": _if_sure("images_high")(row),
            "interval": _interval(row, "images_low", "images_high", tenths)
            or "too few samples for one",
            "setting": describe(row),
            "doubts": "; ".join(row.doubts) or "none",
        }
        for name, row in zip(names, rows, strict=True)
    ]
    across = field("rate", "images/s", scale={"zero": True})
    rule = {"type": "rule", "strokeWidth": 3, "yOffset": 8}
    point = {"type": "point", "filled": True, "size": 90, "yOffset": 8}
    ends = {"x": {**across, "field": "low"}, "x2": {"field": "high"}}
    tooltip = [words("model"), field("rate", "images/s", format=",.1f")]
    tooltip += [words("interval", "95 % interval"), words("setting"), words("doubts", "warnings")]
    layers = [
        layer(rule, {"filter": "isValid(datum.low)"}, **ends),
        layer(point, x=across, color=words("from", legend=None), tooltip=tooltip),
        above("model"),
    ]
    height, y = ROW * len(rows), rows_of("model", names)
    body = spec(values, height, encoding={"y": y}, layer=layers)
    columns = (
        Column("model", "model"),
        Column("rate", "images/s", tenths),
        Column("low", "95 % from", tenths),
        Column("high", "to", tenths),
        Column("setting", "setting"),
    )
    shared = describe(rows[0], *varying(rows))
    fastest = max(values, key=lambda d: d["rate"])
    bars = "Bars: its 95 % interval."
    if any(d["low"] is None for d in values):
        bars += " Without a bar: too few samples, or processes, for such an interval."
    return [
        Chart(
            "throughput",
            "Throughput",
            body,
            f"Images a second of {len(values)} runs; the fastest is "
            f"{fastest['model']} with {fastest['rate']:,.1f}.",
            f"{shared[:1].upper()}{shared[1:]}. Points: from the median time of a call. {bars}",
            where,
            Table.of(columns, values),
            by="median time of a call",
        )
    ]
