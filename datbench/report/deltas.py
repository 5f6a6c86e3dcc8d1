"""A report's figures beside a baseline's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from .. import units
from ..counting.records import CountRow
from ..gate.records import CountBaseline, MemoryBaseline
from ..machine import same_place
from ..memory.records import MemoryRow
from ..records import ENVIRONMENT
from ..render.table import Column, Table
from ..setting import Setting
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
    sides = Counter(
        "new" if d.before is None else "not in this report" for d in other if d not in both
    )
    parts += [f"{number} {side}" for side, number in sides.items()]
    return f"{', '.join(parts)}."


def delta_table(deltas: Sequence[Delta], title: str) -> Table:
    """One row a figure."""
    columns = (
        Column("model", "model"),
        Column("resolution", "input"),
        Column("what", "what"),
        Column("detail", "of"),
        Column("before", "baseline", _amount),
        Column("now", "now", _amount),
        Column("change", "change"),
        Column("unit", "unit"),
    )
    rows = tuple(
        (d.model, d.resolution, d.what, d.detail, d.before, d.now, change(d), d.unit)
        for d in deltas
    )
    return Table(columns, rows, title)


def _amount(value: float) -> str:
    """Whole numbers in full; of others no less than three figures."""
    if value == int(value):
        return units.integer(value)
    size = abs(value)
    return f"{value:,.1f}" if size >= 99.95 else f"{value:.2f}" if size >= 1 else f"{value:.3g}"


def change(delta: Delta) -> str:
    """The difference in figures and in percent, or which side has none."""
    if delta.before is None:
        return "new"
    if delta.now is None:
        return "not in this report"
    if delta.before == delta.now:
        return "same"
    by = delta.now - delta.before
    sign = "+" if by > 0 else "-"
    if delta.relative is None:
        percent = ""
    elif round(abs(100 * delta.relative), 2) < 0.01:
        percent = " (below 0.01 %)"
    else:
        percent = f" ({100 * delta.relative:+.2f} %)"
    return f"{sign}{_amount(abs(by))}{percent}"


def between(before: Sequence[Source], now: Sequence[Source]) -> list[Delta]:
    """Every figure of either: what changed first, then what is on one side only, then the rest.

    Times are compared where both are of one place (`same_place`).
    """
    places: list[Mapping[str, Any]] = []
    old, new = _figures(before, places), _figures(now, places)
    found = []
    for key in dict.fromkeys([*old, *new]):
        was, is_ = old.get(key), new.get(key)
        figure = was or is_
        assert figure is not None
        values = [None if each is None else each.value for each in (was, is_)]
        model, resolution, what, detail, _, run = key
        detail = ", ".join(filter(None, (detail, f"run {run}" if run > 1 else "")))
        found.append(
            Delta(model, resolution, what, detail, figure.unit, values[0], values[1], figure.exact)
        )
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
                key = (*where, place, run)
                while key in found and not (figure.exact and found[key] == figure):
                    run += 1
                    key = (*where, place, run)
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
    """The figures of a row that a former row can be compared with."""
    if isinstance(row, CountRow) and row.convention == "fvcore":
        yield from _counts(row, row.forward)
    elif isinstance(row, CountBaseline):
        yield from _counts(row, row.totals.get("fvcore", {}).get("forward"))
    elif isinstance(row, MemoryRow | MemoryBaseline):
        peak = row.peak if isinstance(row, MemoryBaseline) else row.peak.amount
        recipe = row.recipe
        words = (
            row.mode,
            _setting(row.setting),
            recipe.optimizer or "",
            f"{recipe.autocast} autocast" if recipe.autocast else "",
            f"{recipe.checkpointing} checkpointing" if recipe.checkpointing else "",
        )
        yield "peak", ", ".join(filter(None, words)), _Figure(peak, "byte")
    elif isinstance(row, ThroughputRow):
        yield from _speeds(row)


def _counts(
    row: CountRow | CountBaseline, forward: int | None
) -> Iterator[tuple[str, str, _Figure]]:
    if forward is not None:
        yield "forward", _setting(row.setting), _Figure(forward, "MAC")
    yield "params", "features" if row.setting.features else "", _Figure(row.params, "element")


def _speeds(row: ThroughputRow) -> Iterator[tuple[str, str, _Figure]]:
    """The row's own, and what each published protocol gives."""
    how, setting = row.how, row.setting
    threads = how.threads
    if setting.device == "cpu":
        threads = threads or next((p.threads for p in row.processes if p.threads), None)
    flags = (
        setting.device,
        f"{threads} threads" if threads else "",
        f"{row.gpus} at once" if row.gpus > 1 else "",
        "compiled" if how.compile else "",
        "channels last" if how.channels_last else "",
        "cache flushed" if how.flush else "",
    )
    timed = [(setting, "", row.images_per_second)]
    timed += [
        (replace(setting, batch=p.batch), f"as {p.protocol}", p.images_per_second)
        for p in row.protocols
    ]
    for run, protocol, speed in timed:
        if speed is not None:
            of = ", ".join(filter(None, (how.mode, _setting(run), *flags, protocol)))
            yield "speed", of, _Figure(speed, "image/s", exact=False)


def _setting(setting: Setting) -> str:
    """All of it besides the input and the device, which no exact figure depends on."""
    words = f"batch {setting.batch}, {setting.dtype}, {setting.attention} attention"
    return f"{words}, features" if setting.features else words
