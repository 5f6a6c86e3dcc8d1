"""A profile as tables: what answers the question first, then the parts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from .. import units
from ..counting.view import short
from ..render.figure import Figure, Icicle, Series, largest_of
from ..render.table import Column, Table, Value, fixed
from ..render.vega import Chart
from ..setting import describe
from ..timing.records import CERTAIN, Ceilings, Scatter
from ..timing.view import peaks
from ..units import percent
from .records import ABOVE, Bound, CallGroup, ProfilePart, ProfileRow, Work, summed

# The roofline of a profile, as a plot: what parts achieve, under the two machine peaks.
#
# Williams, Waterman and Patterson, "Roofline: an insightful visual performance model for multicore
# architectures" (2009). MACs stand for operations.


POINTS = 9
"""Parts that are drawn at most: the ones that take most time."""

_STEPS = 60
"""Points along the roofline."""


def roofline(
    row: ProfileRow, parts: Sequence[ProfilePart], what: str, place: str | None = None
) -> Figure | None:
    """Parts by MACs a byte and MAC/s; None where none has both.

    Args:
        what: the parts are, in the plural.
        place: where it was measured, for the note; None where a reader sees that elsewhere.
    """
    drawn = [p for p in parts if p.macs and p.bytes and p.seconds][:POINTS]
    if not drawn:
        return None
    limits = row.ceilings
    ridge = limits.macs / limits.bytes
    across = [p.macs / p.bytes for p in drawn]
    low, high = (math.log(x) for x in (min(*across, ridge) / 2, max(*across, ridge) * 2))
    steps = {math.exp(low + (high - low) * n / (_STEPS - 1)) for n in range(_STEPS)}
    along = tuple(sorted({*steps, ridge}))
    roof = Series(
        f"machine peak: {units.size(limits.bytes)}/s and {units.amount(limits.macs, 'MAC/s', 1)}",
        along,
        tuple(min(limits.macs, x * limits.bytes) / 1e9 for x in along),
        marked=False,
    )
    heaviest = max(part.share for part in drawn)
    points = [
        Series(
            f"{short(part.name)} ({100 * part.share:.1f} %)",
            (part.macs / part.bytes,),
            (part.macs / part.seconds / 1e9,),
            size=part.share / heaviest,
        )
        for part in drawn
    ]
    left = 1 - sum(part.share for part in drawn)
    note = f"In brackets and by area: the share of the {what}' time."
    if left > 0.0005:
        note += f" {100 * left:.1f} % of it is not drawn: most of that has no MACs."
    notes = [note, f"{describe(row)}{'' if place is None else f'; measured on {place}'}."]
    if not row.ceilings_bind:
        notes.append(
            f"The machine peak is not a bound here: the work takes {units.seconds(row.busy)}; at "
            f"machine peak it would take {units.seconds(row.ideal)}."
        )
    return Figure(
        f"{row.model} at {row.setting.resolution}: {what} under the roofline",
        "MACs for each byte",
        "GMAC/s",
        (*points, roof),
        log_x=True,
        log_y=True,
        notes=tuple(notes),
    )


def icicle(row: ProfileRow, timed: bool = True) -> Icicle | None:
    """The modules' parts of the time, or of the MACs; None where there is none."""
    what = "time goes" if timed else "MACs are"
    return Icicle.of(
        f"{row.model} at {row.setting.resolution}: where the {what}",
        {part.name: part.seconds if timed else float(part.macs) for part in row.modules},
        units.seconds if timed else lambda value: units.amount(value, "MAC"),
    )


def charts(rows: Sequence[ProfileRow], where: str) -> list[Chart]:
    """A roofline of the operators, and time by module, of each profile that has them.

    Args:
        where: they were measured.
    """
    found = []
    for row in rows:
        named = f"{row.model} at {row.setting.resolution}"
        figure = roofline(row, parts(row, "operator"), "operators")
        if figure is not None:
            found.append(
                Chart.of(
                    figure,
                    "roofline",
                    f"{figure.title}: what each operator reaches of what the machine can.",
                    where,
                    caption=sentence(row),
                    by="time under the profiler, MACs by fvcore, bytes of tensors; "
                    f"{describe(row)}",
                )
            )
        modules = icicle(row)
        if modules is not None:
            drawn = {f"{row.model}, {row.setting.resolution}": modules}
            found.append(
                Chart.of(
                    drawn,
                    "icicle-time",
                    f"Modules of {named} as nested rectangles. {largest_of(drawn)}",
                    where,
                    title=f"Where the time goes: {named}",
                    caption=f"Time in operators under the profiler. {describe(row)}. A "
                    "rectangle is as wide as its share of that time.",
                    by=f"time in operators, under the profiler; {describe(row)}",
                )
            )
    return found


By = Literal["stage", "module", "operator"]

_WORK: dict[Work, str] = {
    "counted": "FLOPs count it",
    "uncounted": "computes, not counted",
    "moves": "copies alone",
    "dispatch": "views, wrappers, autograd",
}

_BOUND: dict[Bound, str] = {
    "compute": "near the matrix product's rate",
    "memory": "near the copy's rate",
    "above": "faster than a machine peak",
    "neither": "near neither",
}


_COLUMNS = (
    "Time, MACs and bytes: shares of the whole. Gap: the share of the time over that of the MACs. "
    "Product and copy: shares of the machine peaks. Bound: the peak of which half is reached."
)


def tables(
    row: ProfileRow, by: Sequence[By], depth: int | None = None, top: int | None = None
) -> list[Table]:
    """The answer, then one table for each breakdown; the first says what its columns are."""
    found = [parts_table(row, one, depth, top) for one in by]
    found[:1] = [replace(table, notes=(*table.notes, _COLUMNS)) for table in found[:1]]
    return [answer(row), *found]


def parts(row: ProfileRow, by: By, depth: int | None = None) -> tuple[ProfilePart, ...]:
    """The parts of one breakdown, the most time first; modules cut to `depth` names."""
    if by == "stage":
        return row.stages
    if by == "operator":
        return row.operators
    if depth is None:
        return row.modules

    def cut(group: CallGroup) -> str:
        return ".".join(group.module.split(".")[:depth]) or "(model)"

    return summed(row.groups, cut, row.ceilings)


def sentence(row: ProfileRow) -> str:
    """Why it is slower than its FLOPs say, in one breath."""
    found = row.answer
    place = "kernels" if row.launch is None else "operators"
    takes = f"{row.model} takes {units.seconds(row.timing.median)}"
    if row.ceilings_bind:
        slower = row.timing.median / row.ideal if row.ideal else 0.0
        takes += f", {slower:.1f} times what its work takes at machine peak."
    else:
        takes += (
            f"; its {place} take {units.seconds(row.busy)}, less than at machine peak "
            f"({units.seconds(row.ideal)}). The machine peak is not a bound here: small maps "
            "stay in caches, or the machine was busy while the peak was measured."
        )
    above = f"{percent(found.above)} faster than a machine peak, " if found.above else ""
    warning = ""
    if row.matching != "calls":
        warning = " Warning: the operators that ran are not those that were counted."
    return (
        f"{takes} Of the time in {place}, {percent(found.counted)} goes "
        f"into what FLOPs count, {percent(found.uncounted)} into what computes and they leave "
        f"out, {percent(found.moves)} into copies, {percent(found.dispatch)} into views and "
        f"dispatch; {percent(found.memory)} is memory-bound, {percent(found.compute)} "
        f"compute-bound, {above}{percent(found.neither)} neither. {_outside(row)}{warning}"
    )


def _outside(row: ProfileRow) -> str:
    """What passes outside of operators, or why that is uncertain."""
    uncertain = ""
    if row.overhead < 0:
        uncertain = "the call was faster under the profiler than without"
    elif not row.between_certain:
        uncertain = f"too few samples of the plain call ({len(row.timing.samples)}) for an interval"
    share = percent(row.between / row.timing.median)
    if row.launch is None:
        if uncertain:
            return f"How long no kernel runs is uncertain: {uncertain}."
        return f"In {share} of the call no kernel runs: the GPU waits for Python."
    outside = f"{share} of the call passes between operators, in Python"
    if uncertain:
        outside = f"what passes between operators is uncertain: {uncertain}"
    launching = percent(row.answer.launching)
    return f"Launching makes up {launching} of the operators' time, and {outside}."


def answer(row: ProfileRow) -> Table:
    """The time, by what FLOPs count of an operator and by the machine peak that limits it."""

    def line(name: str, groups: Sequence[CallGroup]) -> dict[str, Value]:
        most = summed(groups, lambda group: short(group.operator), row.ceilings)[:4]
        return {  # a class without operators, or whose operators have no work, has a dash
            "part": name,
            "seconds": sum(group.part.seconds for group in groups) or None,
            "share": sum(group.part.share for group in groups),
            "ideal": sum(group.part.ideal for group in groups) or None,
            "operators": ", ".join(part.name for part in most) or "-",
        }

    columns = (
        Column("part", "the operators' time"),
        Column("seconds", "time", units.seconds),
        Column("share", "share", percent),
        Column("ideal", "at machine peak", units.seconds),
        Column("operators", "most of it"),
    )
    every = {"seconds": row.busy, "ideal": row.ideal, "operators": ""}
    lines = [
        *(line(text, [g for g in row.groups if g.work == work]) for work, text in _WORK.items()),
        *(line(text, [g for g in row.groups if g.part.bound == b]) for b, text in _BOUND.items()),
        {**line("all", row.groups), **every},
    ]
    return Table.of(columns, lines, sentence(row), [f"{describe(row)}.", *_notes(row)])


def _notes(row: ProfileRow) -> list[str]:
    timing, limits = row.timing, row.ceilings
    sure = f", 95 %: {units.seconds(timing.low)} to {units.seconds(timing.high)}"
    if timing.coverage < CERTAIN:
        sure = ", too few for an interval"
    found = [
        f"Plain call: median {units.seconds(timing.median)}, samples: {len(timing.samples)}{sure}. "
        f"Under the profiler: {units.seconds(row.profiled)} "
        f"({units.signed_percent(row.overhead)}), runs: {row.runs}.",
        f"Machine peak: {peaks(limits)}: the fastest sample of each{_scatter(limits)}. A peak "
        f"does not limit what is {100 * (ABOVE - 1):.0f} % faster (a cache, or a low peak).",
    ]
    if row.overhead < 0:
        found.append(
            "It was faster under the profiler than without: the machine is busy elsewhere, and "
            "what passes between operators is uncertain."
        )
    if row.matching == "calls":
        found.append(
            f"Matched: {row.matched} of {row.expected} operator calls of the forward, in order."
        )
    else:
        found.append(f"Matched by module and operator alone: {row.reason}.")
    if row.unseen:
        named = ", ".join(f"{short(name)} ({calls})" for name, calls in row.unseen.items())
        found.append(f"Ran and were not counted, calls a run: {named}.")
    return found


def _scatter(limits: Ceilings) -> str:
    """The medians of the machine peaks' samples, where a file has them."""

    def usual(fastest: float, scatter: Scatter) -> str:
        if scatter.samples == 1:
            return "the only sample"
        return f"{100 * scatter.median / fastest:.0f} % of it ({scatter.samples} samples)"

    if limits.product is None or limits.copy is None:
        return ""
    product, copied = usual(limits.macs, limits.product), usual(limits.bytes, limits.copy)
    return f"; the median is {product} and {copied}"


def parts_table(row: ProfileRow, by: By, depth: int | None = None, top: int | None = None) -> Table:
    """One breakdown, the most time first.

    Args:
        top: rows that it has at most; default: all.
    """
    every = parts(row, by, depth)
    columns = (
        *fixed([Column("model", "model")], row),
        Column(by, by, value=lambda part: short(part.name)),
        Column("calls", "calls", units.integer, hidden=by == "module", when="widest"),
        Column("seconds", "time", units.seconds),
        Column("share", "time", percent),
        Column("mac_share", "MACs", percent),
        Column("byte_share", "bytes", percent, when="wide"),
        Column("gap", "gap", units.ratio),
        Column("mac_fraction", "product", percent, when="wide"),
        Column("byte_fraction", "copy", percent, when="wide"),
        Column("bound", "bound"),
        Column("intensity", "MAC/B", units.ratio, when="widest"),
        Column("macs", "MACs", hidden=True),
        Column("bytes", "bytes", hidden=True),
        Column("ideal", "at machine peak", hidden=True),
    )
    notes = []
    if top is not None and len(every) > top:
        left = percent(sum(part.share for part in every[top:]))
        notes.append(f"{len(every) - top} more {by}s: {left} of the time.")
    excess = max(every, key=lambda part: part.excess, default=None)
    if excess is not None and excess.excess > 0:
        notes.append(
            f"Most time beyond its MACs: {short(excess.name)}, {percent(excess.share)} of the "
            f"time and {percent(excess.mac_share)} of the MACs."
        )
    return Table.of(columns, every[:top], notes=notes)
