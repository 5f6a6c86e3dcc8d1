"""Measured attention modules as tables, and what they answer in sentences."""

from __future__ import annotations

from collections.abc import Sequence

from .. import units
from ..measurements import Measurements, Point
from .measured_words import answers, factor, percent
from .table import Column, Table, Value

CERTAIN = 0.95
"""Coverage below which an interval is not shown: too few samples to have one."""


def tables(measurements: Measurements) -> list[Table]:
    """The points, then what follows from them; the answers in words stand last."""
    found = [_points(measurements)]
    if measurements.exponents:
        found.append(_exponents(measurements))
    if measurements.ratios:
        found.append(_ratios(measurements))
    profiled = [point for point in measurements.points if point.shares]
    if profiled:
        found += [_parts(profiled), _groups(profiled)]
    last = found[-1]
    notes = (*last.notes, *answers(measurements))
    found[-1] = Table(last.columns, last.rows, last.title, notes)
    return found


def name(point: Point) -> str:
    """``DMHA 32x32 r 4``; r where the grid of keys has one."""
    coarser = f" r {point.stride}" if point.kind in ("DMHA", "SRA") else ""
    return f"{point.kind} {point.height}x{point.width}{coarser}"


def _power(value: float) -> str:
    return f"{value:.2f}"


def _macs(value: float) -> str:
    return units.amount(value, "MAC", 2)


def _points(of: Measurements) -> Table:
    columns = (
        Column("point", "module"),
        Column("kind", "kind", hidden=True),
        Column("height", "H", hidden=True),
        Column("width", "W", hidden=True),
        Column("stride", "r", hidden=True),
        Column("keys", "Ns", units.integer),
        Column("formula", "formula", _macs),
        Column("macs", "counted", _macs),
        Column("bytes", "bytes", units.size),
        Column("median", "median", units.seconds),
        Column("low", "95 % from", units.seconds),
        Column("high", "to", units.seconds),
        Column("coverage", "coverage", hidden=True),
        Column("samples", "samples", units.integer),
        Column("warmup", "warm-up", hidden=True),
        Column("calls", "calls a sample", hidden=True),
        Column("stopped", "ended by", hidden=True),
        Column("mac_rate", "MAC/s", hidden=True),
        Column("mac_fraction", "of product", percent),
        Column("byte_rate", "bytes/s", hidden=True),
        Column("byte_fraction", "of copy", percent),
        Column("peak_bytes", "peak", units.size, hidden=not _has_peaks(of)),
        Column("reason", "reason", hidden=True),
    )
    return Table(columns, tuple(map(_point, of.points)), _title(of), tuple(_notes(of)))


def _has_peaks(of: Measurements) -> bool:
    return any(point.peak_bytes is not None for point in of.points)


def _point(point: Point) -> tuple[Value, ...]:
    timing = point.timing
    sure = timing is not None and timing.coverage >= CERTAIN
    return (
        name(point),
        point.kind,
        point.height,
        point.width,
        point.stride,
        point.keys,
        point.formula,
        point.macs,
        point.bytes,
        timing.median if timing else None,
        timing.low if timing and sure else None,
        timing.high if timing and sure else None,
        timing.coverage if timing else None,
        len(timing.samples) if timing else None,
        len(timing.warmup) if timing else None,
        timing.calls if timing else None,
        timing.stopped if timing else None,
        point.mac_rate,
        point.mac_fraction,
        point.byte_rate,
        point.byte_fraction,
        point.peak_bytes,
        point.reason,
    )


def _title(of: Measurements) -> str:
    threads = of.ceilings.threads if of.ceilings else None
    on = of.device if threads is None or of.device != "cpu" else f"cpu, threads: {threads}"
    return (
        f"Attention alone: C {of.dim}, {of.heads} heads, {of.groups} groups, k {of.kernel}, "
        f"batch {of.batch}, {of.dtype}, {of.attention} attention, {on}"
    )


def _notes(of: Measurements) -> list[str]:
    notes = [f"{name(point)}: {point.reason}." for point in of.points if point.reason]
    if of.interrupted:
        notes.append("Interrupted: the points above are whole, the others were not measured.")
    if of.ceilings:
        product, copied = of.ceilings.macs, of.ceilings.bytes
        notes.append(
            f"Ceilings: {units.amount(product, 'MAC/s', 1)} in a matrix product of side "
            f"{of.ceilings.side}, {units.size(copied)}/s in a copy that moves "
            f"{units.size(of.ceilings.copied)}; above 100 % it was no ceiling (a small "
            "map in a cache, a kernel that the product did not have)."
        )
    timed = [point.timing for point in of.points if point.timing]
    short = sum(timing.stopped != "interval" for timing in timed)
    if short:
        notes.append(
            f"{short} of {len(timed)} points ended before their interval was within 5 % of the "
            "median: a larger budget or a quieter machine narrows them."
        )
    return notes


def _exponents(of: Measurements) -> Table:
    columns = (
        Column("line", "cost over size"),
        Column("kind", "kind", hidden=True),
        Column("over", "size", hidden=True),
        Column("held", "held"),
        Column("points", "points", units.integer),
        Column("time", "time ^", _power),
        Column("low", "95 % from", _power),
        Column("high", "to", _power),
        Column("formula", "formula ^", _power),
        Column("macs", "counted ^", _power),
        Column("bytes", "bytes ^", _power),
    )
    rows = tuple(
        (
            f"{line.kind} over {line.over}",
            line.kind,
            line.over,
            line.held,
            line.points,
            line.time,
            line.low,
            line.high,
            line.formula,
            line.macs,
            line.bytes,
        )
        for line in of.exponents
    )
    note = (
        "Least squares of logarithms over the same points; where a cost is a sum of powers, the "
        "exponent lies between them."
    )
    return Table(columns, rows, "Exponents: time, formula, counted MACs, bytes", (note,))


def _ratios(of: Measurements) -> Table:
    columns = (
        Column("map", "map"),
        Column("time", "time", factor),
        Column("low", "95 % from", factor),
        Column("high", "to", factor),
        Column("formula", "formula", factor),
        Column("macs", "counted", factor),
        Column("bytes", "bytes", factor),
        Column("memory", "memory", factor, hidden=not _has_peaks(of)),
    )
    rows = tuple(
        (f"{r.side}x{r.side}", r.time, r.low, r.high, r.formula, r.macs, r.bytes, r.memory)
        for r in of.ratios
    )
    return Table(columns, rows, "DMHA at r = 1 over global attention, how many times")


def _shown(profiled: Sequence[Point]) -> Point:
    """The point whose parts are shown one by one: DMHA at the largest map, all keys."""
    deformable = [point for point in profiled if point.kind == "DMHA"] or profiled
    return max(deformable, key=lambda point: (point.height, point.keys))


def _parts(profiled: Sequence[Point]) -> Table:
    point = _shown(profiled)
    columns = (
        Column("part", "part"),
        Column("group", "in the formula"),
        Column("share", "time", percent),
        Column("mac_share", "MACs", percent),
        Column("operators", "operators", units.integer),
    )
    said = {"formula": "yes", "left out": "left out", "rest": "no MACs"}
    rows = tuple(
        (share.name, said[share.group], share.share, share.mac_share, share.operators)
        for share in point.shares
    )
    note = "Operators' own time under the profiler, which costs small maps more than large ones."
    return Table(columns, rows, f"{name(point)}: where its time goes", (note,))


def _groups(profiled: Sequence[Point]) -> Table:
    """Every module on the largest map, and DMHA and SRA at every stride."""
    columns = (
        Column("point", "module"),
        Column("formula", "in the formula", percent),
        Column("left_out", "left out", percent),
        Column("rest", "no MACs", percent),
        Column("macs_left_out", "MACs left out", percent),
    )
    sides = {max(point.height for point in profiled)}
    sides |= {p.height for p in profiled if p.kind == "DMHA" and p.stride > 1}
    rows = tuple(
        (
            name(point),
            *(
                sum(share.share for share in point.shares if share.group == group)
                for group in ("formula", "left out", "rest")
            ),
            sum(share.mac_share for share in point.shares if share.group == "left out"),
        )
        for point in profiled
        if point.height in sides
    )
    note = "No MACs: softmax, elementwise operators, copies, views and dispatch."
    return Table(columns, rows, "Shares of the time, by what the formula says of the work", (note,))
