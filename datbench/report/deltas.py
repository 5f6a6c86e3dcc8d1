"""A report's figures beside a baseline's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from .. import units
from ..compare.records import side_by_side
from ..counting.records import CountRow
from ..gate.records import CountBaseline, MemoryBaseline
from ..machine import same_place
from ..memory.records import MemoryRow
from ..records import ENVIRONMENT
from ..render.table import Column, Table
from ..setting import describe
from ..timing.records import ThroughputRow
from .records import Delta, Source


def changed(deltas: Sequence[Delta]) -> list[Delta]:
    """Those that are not equal; what is on one side only among them."""
    return [delta for delta in deltas if delta.before != delta.now]


def sentence(deltas: Sequence[Delta], baseline: str) -> str:
    """How many figures are what they were."""
    other = changed(deltas)
    both = [d for d in other if d.before is not None and d.now is not None]
    exact = sum(d.exact for d in both)
    parts = [f"{len(deltas) - len(other)} figures are those of {baseline}"]
    if exact:
        parts.append(f"{exact} exact {'ones' if exact > 1 else 'one'} changed")
    if len(both) > exact:
        parts.append(f"{len(both) - exact} measured, which `datbench gate` judges")
    sides = Counter(map(change, (d for d in other if d not in both)))
    return f"{', '.join([*parts, *(f'{number} {side}' for side, number in sides.items())])}."


def change(delta: Delta) -> str:
    """The difference in figures and in percent, or which side has none."""
    if delta.before is None:
        return "new"
    if delta.now is None:
        return "not in this report"
    return "same" if delta.before == delta.now else units.change(delta.before, delta.now)


def delta_table(deltas: Sequence[Delta], title: str) -> Table:
    """One row a figure."""
    columns = (
        Column("model", "model", label=True),
        Column("resolution", "input", label=True),
        Column("what", "what", label=True),
        Column("detail", "of", label=True),
        Column("before", "baseline", units.figure),
        Column("now", "now", units.figure),
        Column("change", "change", value=change),
        Column("unit", "unit"),
    )
    return Table.of(columns, deltas, title)


def between(before: Sequence[Source], now: Sequence[Source]) -> list[Delta]:
    """Every figure of either: what changed first, then what is on one side only, then the rest.

    Times are compared where both are of one place (`same_place`).
    """
    places: list[Mapping[str, Any]] = []
    found = []
    for key, was, is_ in side_by_side(_figures(before, places), _figures(now, places)):
        model, resolution, what, detail, _, run = key
        detail = ", ".join(filter(None, (detail, f"run {run}" if run > 1 else "")))
        figure = was or is_
        assert figure is not None
        old, new = (None if each is None else each.value for each in (was, is_))
        found.append(Delta(model, resolution, what, detail, figure.unit, old, new, figure.exact))
    return sorted(found, key=_rank)


def _rank(delta: Delta) -> int:
    if delta.before == delta.now:
        return 3
    return 0 if delta.before is not None and delta.now is not None else 1 + (delta.now is None)


@dataclass(frozen=True)
class _Figure:
    value: float
    unit: str
    exact: bool = True


Key = tuple[str, str, str, str, int, int]
"""Model, input, what, of what, for times the place's number, and which run of several."""


def _figures(sources: Sequence[Source], places: list[Mapping[str, Any]]) -> dict[Key, _Figure]:
    """What one side says. An exact figure that is said twice is one, two runs' times are two."""
    found: dict[Key, _Figure] = {}
    for source in sources:
        if source.part.role:
            continue  # the curves are of the same models
        for plain, row in zip(source.part.rows, source.values, strict=True):
            here = plain.get(ENVIRONMENT) or source.part.environment
            for what, detail, figure in _of_row(row):
                place = -1 if figure.exact else _place(here, places)
                run, where = 1, (row.model, str(row.setting.resolution), what, detail)
                while (key := (*where, place, run)) in found:
                    if figure.exact and found[key] == figure:
                        break
                    run += 1
                found[key] = figure
    return found


def _place(here: Mapping[str, Any], places: list[Mapping[str, Any]]) -> int:
    """The number of the place; a new one is remembered."""
    for number, known in enumerate(places):
        if same_place(known, here):
            return number
    places.append(here)
    return len(places) - 1


def _of_row(row: Any) -> Iterator[tuple[str, str, _Figure]]:
    """The figures of a row that a former row can be compared with: what, of what, how much.

    No exact figure depends on the device.
    """
    if isinstance(row, CountRow | CountBaseline):
        if isinstance(row, CountBaseline):
            forward = row.totals.get("fvcore", {}).get("forward")
        elif row.convention == "fvcore":
            forward = row.forward
        else:
            return
        if forward is not None:
            detail = describe(row, "resolution", "device", "backward")
            yield "forward", detail, _Figure(forward, "MAC")
        yield "params", "features" if row.setting.features else "", _Figure(row.params, "element")
    elif isinstance(row, MemoryRow | MemoryBaseline):
        peak = row.peak if isinstance(row, MemoryBaseline) else row.peak.amount
        yield "peak", describe(row, "resolution", "device"), _Figure(peak, "byte")
    elif isinstance(row, ThroughputRow):
        yield from _speeds(row)


def _speeds(row: ThroughputRow) -> Iterator[tuple[str, str, _Figure]]:
    """The row's own, and what each published protocol gives."""
    timed = [(row, "", row.images_per_second)]
    for each in row.protocols:
        there = replace(row, setting=replace(row.setting, batch=each.batch))
        timed.append((there, f"as {each.protocol}", each.images_per_second))
    for run, protocol, speed in timed:
        if speed is not None:
            detail = ", ".join(filter(None, (describe(run, "resolution"), protocol)))
            yield "speed", detail, _Figure(speed, "image/s", exact=False)
