"""Comparisons as tables: both sides, the ratio with its interval, the verdict, a sentence."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

from .. import units
from ..errors import CheckFailed, MeasurementError, UsageError
from ..render.figure import MOST as SERIES
from ..render.figure import Figure, Series
from ..render.table import Column, Table
from ..render.vega import Chart
from ..setting import describe, label, numbered, varying
from ..timing.records import ComparedSide
from ..units import short_percent
from .records import ERRORS, MOST, ComparisonRow, Decision, FalseAlarms, RunPlan, order

_ratio = "{:.4f}".format


def tables(rows: Sequence[ComparisonRow], alarms: FalseAlarms | None = None) -> list[Table]:
    """The comparisons; then what A against itself gave."""

    def covered(row: ComparisonRow) -> float | None:
        return row.decision.coverage or None

    alike = all(side_name(row, "a") == side_name(row, "b") for row in rows)
    columns = (
        Column("a", "model" if alike else "A", value=lambda row: side_name(row, "a"), label=True),
        Column("b", "B", value=lambda row: side_name(row, "b"), hidden=alike, label=True),
        *_speeds(rows),
        Column("ratio", "B/A", _ratio, "decision.ratio"),
        # One process of each side has no interval.
        Column("low", "from", _ratio, lambda row: row.decision.low if covered(row) else None),
        Column("high", "to", _ratio, lambda row: row.decision.high if covered(row) else None),
        Column("coverage", "coverage", value=covered, hidden=True),
        Column("processes", "processes", units.integer, "decision.processes", when="widest"),
        Column("verdict", "verdict", value="decision.verdict"),
        Column("needed", "needed", units.integer, "decision.needed", hidden=True),
        Column("reason", "reason", value="decision.reason", hidden=True),
    )
    common = {
        describe(row.a, *varying([row.a, row.b]))
        for row in rows
        if isinstance(row.a, ComparedSide) and isinstance(row.b, ComparedSide)
    }
    title = f"B against A: {common.pop()}" if len(common) == 1 else "B against A"
    table = Table.of(columns, rows, title, _notes(rows))
    return [table, *([alarms_table(alarms)] if alarms is not None else ())]


def intervals(rows: Sequence[ComparisonRow]) -> Figure | None:
    """The speed of B over that of A with its interval; None where nothing was measured.

    Raises:
        UsageError: there are more than a plot tells apart.
    """
    drawn = [row for row in rows if row.decision.low and row.decision.ratio and row.decision.high]
    if len(drawn) > SERIES:
        raise UsageError(f"a plot tells {SERIES} comparisons apart; draw a file of fewer.")
    if not drawn:
        return None
    names = [
        a if a == b else f"{b} over {a}"
        for a, b in ((side_name(row, "a"), side_name(row, "b")) for row in drawn)
    ]
    series = [
        Series(name, (place,) * 3, (found.low or 0, found.ratio or 0, found.high or 0))
        for place, (name, found) in enumerate(
            zip(numbered(names), (row.decision for row in drawn), strict=True), start=1
        )
    ]
    floor, ends = drawn[0].decision.floor, (0.5, len(drawn) + 0.5)
    for limit in (1 - floor, 1 + floor):
        name = f"threshold, {100 * (limit - 1):+.3g} %"
        series.append(Series(name, ends, (limit, limit), marked=False))
    note = "Least, estimate and most of the speed of B over that of A. Above 1 B is faster."
    return Figure("Speed of B over A", "comparison", "B/A", tuple(series), notes=(note,))


def charts(rows: Sequence[ComparisonRow], where: str) -> list[Chart]:
    """The same for a report, where there are few enough."""
    plot = intervals(rows) if len(rows) <= SERIES else None
    said = "; ".join(sentence(row.decision, row.interleaved) for row in rows)
    return [Chart.of(plot, "compare", said, f"measured on {where}")] if plot else []


def _speeds(rows: Sequence[ComparisonRow]) -> Iterator[Column]:
    """Each side's images a second; of benchmarks that count calls, the time of a call."""

    def images(side: str, row: ComparisonRow) -> float | None:
        return getattr(row, f"rate_{side}") if row.unit == "images/s" else None

    def call(side: str, row: ComparisonRow) -> float | None:
        rate = getattr(row, f"rate_{side}") if row.unit == "calls/s" else None
        return rate and 1 / rate

    used = {row.unit for row in rows}
    for side in "ab" if "images/s" in used or not used else "":
        said = f"{side.upper()}, images/s"
        yield Column(f"rate_{side}", said, units.rate, partial(images, side), when="wide")
    for side in "ab" if "calls/s" in used else "":
        said = f"{side.upper()}, a call"
        yield Column(f"call_{side}", said, units.seconds, partial(call, side), when="wide")


def side_name(row: ComparisonRow, side: str) -> str:
    """The name of side ``a`` or ``b``: its model, and the settings in which the sides differ."""
    own: ComparedSide | str = getattr(row, side)
    return own if isinstance(own, str) else label(own, varying([row.a, row.b]))


def _notes(rows: Sequence[ComparisonRow]) -> list[str]:
    notes: list[str] = []
    for row in rows:
        said = sentence(row.decision, row.interleaved)
        notes.append(f"{side_name(row, 'a')}: {said}" if len(rows) > 1 else said)
    if any(row.interrupted for row in rows):
        notes.append("Interrupted: the verdict is from the pairs that had ended.")
    for row in rows:
        if row.interleaved:
            seed = "" if row.plan is None else f"; --seed {row.plan.seed}"
            turns = ", each pair interleaved" if row.plan and row.plan.by_turns else ""
            notes.append(f"Processes in order: {order(row.runs)}{turns}{seed}.")
        notes += [f"Warning: {doubt}." for doubt in row.doubts]
    return list(dict.fromkeys(notes))


def sentence(found: Decision, interleaved: bool = True) -> str:
    """The verdict in words, with the figures behind it.

    Args:
        interleaved: whether sides were run; else they are two files.
    """
    if found.ratio is None or found.low is None or found.high is None:
        return f"{found.verdict}: {found.reason or 'nothing was measured'}."
    floor = short_percent(found.floor)
    interval = f"the speed of B over that of A is {found.ratio:.4f}"
    if found.coverage:
        interval += (
            f", and lies between {found.low:.4f} and {found.high:.4f} at "
            f"{units.percent(found.coverage)}"
        )
    if found.verdict == "same":
        return f"same: {interval}, within the threshold of {floor}."
    if found.verdict in ("faster", "slower"):
        return f"{_by(found)}; {interval}. The threshold is {floor}."
    why = f"{found.reason}; " if found.reason else ""
    said = f"{found.verdict}: {why}{interval}."
    return said if found.withdrawn else f"{said} {_settling(found, interleaved)}"


def brief(found: Decision, interleaved: bool = True) -> str:
    """The verdict and what to do about it, for whoever has the sentence before them."""
    if found.ratio is None:
        return sentence(found, interleaved)
    if found.verdict in ("faster", "slower"):
        return f"{_by(found)}."
    if found.verdict == "same":
        return "same."
    if found.withdrawn:
        return f"{found.verdict}: {found.reason}."
    spread = "the interval lies partly within the threshold and partly beyond"
    return f"{found.verdict}: {found.reason or spread}. {_settling(found, interleaved)}"


def _by(found: Decision) -> str:
    assert found.ratio is not None
    return f"{found.verdict}: B is {short_percent(abs(found.ratio - 1))} {found.verdict}"


def _settling(found: Decision, interleaved: bool) -> str:
    if found.needed is None:
        return (
            f"More than {MOST} processes of each side would settle it; measure in a quieter hour."
        )
    option = f"--processes {found.needed}"
    how = option if interleaved else f"`datbench throughput {option}` for each file"
    return f"At this spread about {found.needed} processes of each side would settle it ({how})."


def alarms_table(found: FalseAlarms) -> Table:
    """How often A differs from itself here, and how little could be seen."""

    def number(verdict: Any) -> Column:
        return Column(verdict, verdict, units.integer, lambda alarms: alarms.count(verdict))

    columns = (
        Column("comparisons", "comparisons", units.integer, lambda alarms: len(alarms.decisions)),
        Column("independent", "of them independent", units.integer, when="wide"),
        Column("processes", "processes", units.integer, when="wide"),
        *map(number, ("faster", "slower", "same", "ambiguous")),
        Column("spread", "spread of processes", short_percent),
        Column("width", "half-width", short_percent),
        Column("visible", "visible", short_percent),
    )
    notes = []
    if found.visible is not None:
        notes.append(
            f"False verdicts: {found.false} of {len(found.decisions)}. A difference of "
            f"{short_percent(found.visible)} would have been found by eight of ten of them."
        )
    if found.too_many:
        notes.append("More than 5 % are false: no verdict of this set-up is to be trusted.")
    if found.interrupted:
        notes.append(f"Interrupted: {found.asked} comparisons were asked for.")
    if found.failed:
        notes.append(f"Failed: {found.failed}; {found.asked} comparisons were asked for.")
    return Table.of(columns, [found], "A against itself", notes)


def price(plan: RunPlan | None, each: float, alarms: int) -> str:
    """What is about to be run, and about how long it takes.

    Args:
        plan: of A and B; None where there is no B.
        each: seconds of a process, about.
        alarms: processes of A against itself.
    """
    parts = [f"A against itself in {alarms} processes"] if alarms else []
    least, most = (2 * plan.processes, 2 * plan.most) if plan else (0, 0)
    if plan:
        extended = f" (up to {most} while ambiguous)" if most > least else ""
        parts.append(f"A and B in {least} processes{extended}")
    span = _minutes(each * (alarms + least))
    if most > least:
        span += f" to {_minutes(each * (alarms + most))}"
    return f"{', then '.join(parts)}: about {span}, at {each:g} s a process."


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


def progress(show: Callable[[str, float], None], what: str) -> Callable[[int, int, float], None]:
    """Shows a comparison at work: told the pair, their number, and the seconds that are left."""

    def step(pair: int, of: int, left: float) -> None:
        show(f"{what}: pair {pair} of {of}", left)

    return step


# What decides the exit code.


def check_alarms(name: str, alarms: FalseAlarms) -> None:
    """Raise the error of a model that was compared with itself, if there is one."""
    if alarms.interrupted:
        raise KeyboardInterrupt
    if alarms.failed:
        raise MeasurementError(f"A against itself: {alarms.failed}.")
    if alarms.too_many:
        raise CheckFailed(
            f"{name} differed from itself in {alarms.false} of {len(alarms.decisions)} "
            "comparisons, more than 5 %."
        )


def check_rows(rows: Sequence[ComparisonRow]) -> None:
    """Raise the error of the verdicts, if there is one."""
    for verdict, error in ERRORS.items():
        found = [row for row in rows if row.decision.verdict == verdict]
        if found:
            said, first = brief(found[0].decision, found[0].interleaved), found[0].a
            name = first if isinstance(first, str) else first.model
            whose = f"{verdict} in {len(found)} of {len(rows)} rows; the first is {name}: "
            raise error(f"{whose}{said}" if len(rows) > 1 else said)
