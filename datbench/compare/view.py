"""Comparisons as tables: both sides, the ratio with its interval, the verdict, a sentence."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from .. import units
from ..render.table import Column, Table, Value
from ..timing.records import Side
from .records import MOST, Decision, FalseAlarms, Plan, VersusRow, order


def versus_tables(rows: Sequence[VersusRow], alarms: FalseAlarms | None = None) -> list[Table]:
    """The comparisons; then what A against itself gave."""
    return [_versus(rows), *([alarms_table(alarms)] if alarms is not None else ())]


def _versus(rows: Sequence[VersusRow]) -> Table:
    names = [_names(row) for row in rows]
    alike = all(a == b for a, b, _ in names)
    columns = (
        Column("a", "model" if alike else "A"),
        Column("b", "B", hidden=alike),
        Column("rate_a", "A, images/s", _rate),
        Column("rate_b", "B, images/s", _rate),
        Column("ratio", "B/A", _ratio),
        Column("low", "from", _ratio),
        Column("high", "to", _ratio),
        Column("coverage", "coverage", hidden=True),
        Column("processes", "processes", units.integer),
        Column("verdict", "verdict"),
        Column("needed", "needed", units.integer, hidden=True),
        Column("reason", "reason", hidden=True),
    )
    values = tuple(
        (a, b, row.rate_a, row.rate_b, *_decision(row.decision))
        for (a, b, _), row in zip(names, rows, strict=True)
    )
    common = {said for _, _, said in names}
    title = "B against A" + (f": {common.pop()}" if len(common) == 1 and common != {""} else "")
    return Table(columns, values, title, tuple(_notes(rows, [a for a, _, _ in names])))


def _decision(found: Decision) -> tuple[Value, ...]:
    low, high = (found.low, found.high) if found.coverage else (None, None)
    return (
        found.ratio,
        low,
        high,
        found.coverage or None,
        found.processes,
        found.verdict,
        found.needed,
        found.reason,
    )


def _names(row: VersusRow) -> tuple[str, str, str]:
    """A name for either side, the model and what differs; and what they have in common."""
    if not isinstance(row.a, Side) or not isinstance(row.b, Side):
        return str(row.a), str(row.b), ""
    a, b = row.a.words(), row.b.words()
    own = [name for name in a if name == "model" or a[name] != b[name]]
    said = [
        ", ".join(side[name] or _without(name) for name in own if side[name] or name != "model")
        for side in (a, b)
    ]
    common = ", ".join(words for name, words in a.items() if name not in own and words)
    return said[0], said[1], common


def _without(name: str) -> str:
    """How a side is called that has no word where the other has one."""
    return {
        "threads": "torch's own threads",
        "compile": "not compiled",
        "channels_last": "channels first",
        "python": "this python",
        "source": "as installed",
    }.get(name, name)


def _notes(rows: Sequence[VersusRow], names: Sequence[str]) -> list[str]:
    several = len(rows) > 1
    notes: dict[str, None] = {}
    for row, name in zip(rows, names, strict=True):
        said = sentence(row.decision, row.interleaved)
        notes[f"{name}: {said}" if several else said] = None
    if any(row.interrupted for row in rows):
        notes["Interrupted: the verdict is from the pairs that had ended."] = None
    for row in rows:
        if row.interleaved:
            seed = "" if row.plan is None else f"; --seed {row.plan.seed}"
            turns = ", each pair at once, by turns" if row.plan and row.plan.by_turns else ""
            notes[f"Processes in order: {order(row.runs)}{turns}{seed}."] = None
        for doubt in row.doubts:
            notes[f"Note: {doubt}."] = None
    return list(notes)


def sentence(found: Decision, interleaved: bool = True) -> str:
    """The verdict in words.

    Args:
        interleaved: whether sides were run; else they are two files.
    """
    if found.ratio is None or found.low is None or found.high is None:
        return f"{found.verdict}: {found.reason or 'nothing was measured'}."
    floor = _percent(found.floor)
    interval = f"the speed of B over that of A is {found.ratio:.4f}"
    if found.coverage:
        interval += (
            f", and lies between {found.low:.4f} and {found.high:.4f} at "
            f"{100 * found.coverage:.1f} %"
        )
    match found.verdict:
        case "same":
            return f"same: {interval}, within the floor of {floor}."
        case "faster" | "slower":
            by = _percent(abs(found.ratio - 1))
            return f"{found.verdict}: B is {by} {found.verdict}; {interval}. The floor is {floor}."
        case _:
            why = f"{found.reason}; " if found.reason else ""
            said = f"{found.verdict}: {why}{interval}."
            return said if found.withdrawn else f"{said} {_settling(found, interleaved)}"


def brief(found: Decision, interleaved: bool = True) -> str:
    """The verdict and what to do about it, for whoever has the sentence before them."""
    if found.ratio is None:
        return sentence(found, interleaved)
    if found.verdict in ("faster", "slower"):
        by = _percent(abs(found.ratio - 1))
        return f"{found.verdict}: B is {by} {found.verdict}."
    if found.verdict == "same":
        return "same."
    if found.withdrawn:
        return f"{found.verdict}: {found.reason}."
    spread = "the interval neither stays within the floor nor leaves it"
    return f"{found.verdict}: {found.reason or spread}. {_settling(found, interleaved)}"


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
    columns = (
        Column("comparisons", "comparisons", units.integer),
        Column("independent", "of them independent", units.integer),
        Column("processes", "processes", units.integer),
        Column("faster", "faster", units.integer),
        Column("slower", "slower", units.integer),
        Column("same", "same", units.integer),
        Column("ambiguous", "ambiguous", units.integer),
        Column("spread", "spread of processes", _percent),
        Column("width", "half-width", _percent),
        Column("visible", "visible", _percent),
    )
    row: tuple[Value, ...] = (
        len(found.decisions),
        found.independent,
        found.processes,
        *(found.count(verdict) for verdict in ("faster", "slower", "same", "ambiguous")),
        spread(found),
        found.width,
        found.visible,
    )
    return Table(columns, (row,), "A against itself", tuple(_alarm_notes(found)))


def _alarm_notes(found: FalseAlarms) -> list[str]:
    notes = []
    if found.visible is not None:
        notes.append(
            f"False verdicts: {found.false} of {len(found.decisions)}. A difference of "
            f"{_percent(found.visible)} would have been found by eight of ten of them."
        )
    if found.too_many:
        notes.append("More than 5 % are false: no verdict of this set-up is to be trusted.")
    if found.interrupted:
        notes.append(f"Interrupted: {found.asked} comparisons were asked for.")
    if found.failed:
        notes.append(f"Failed: {found.failed}; {found.asked} comparisons were asked for.")
    return notes


def spread(found: FalseAlarms) -> float | None:
    """How far the processes' speeds scatter: the middle half's width, as a normal's deviation."""
    rates = sorted(run.rate for run in found.runs if run.rate is not None)
    if len(rates) < 4:
        return None
    n = len(rates)
    return (rates[(3 * n) // 4] - rates[n // 4]) / 1.349 / median(rates)


def price(plan: Plan | None, each: float, alarms: int) -> str:
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


def _percent(value: float) -> str:
    return f"{100 * value:.3g} %"


def _rate(value: float) -> str:
    return f"{value:.4g}" if value < 1000 else f"{value:,.0f}"


def _ratio(value: float) -> str:
    return f"{value:.4f}"
