"""What `datbench compare` does with its sides, and how it ends."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import typer

from ..errors import (
    AmbiguousError,
    CheckFailed,
    DatbenchError,
    MeasurementError,
    MissingError,
    UsageError,
)
from ..versus import FalseAlarms, Plan, Side, SideName, Verdict, VersusRow
from .options import Format

if TYPE_CHECKING:
    from ..measure.compare.run import Compared, Pairs
    from ..timings import ProcessTiming

START = 4.0
"""Seconds that a process takes besides its timing, before one has been seen: `import torch`."""

ENDS: tuple[tuple[Verdict, type[DatbenchError]], ...] = (
    ("slower", CheckFailed),  # a regression is one whatever the other rows are
    ("failed", MeasurementError),
    ("missing", MissingError),
    ("ambiguous", AmbiguousError),
)
"""The error of a verdict; of several rows the first that applies."""


def files(
    a: Path, b: Path, floor: float, level: float, across: bool, wanted: Format, out: Path | None
) -> None:
    """Compare two result files, row by row."""
    from ..measure.compare.benchmarks import read
    from ..measure.compare.machines import differences_of_machines
    from ..measure.compare.matched import compare_files

    one, other = read(a), read(b)
    machines = differences_of_machines(one, other)
    if machines and not across:
        raise UsageError(
            f"{a} and {b} are from different machines ({'; '.join(machines)}); give "
            "--across-machines to compare them anyway."
        )
    rows = compare_files(one, other, floor, level)
    if not rows:
        raise MissingError(f"neither {a} nor {b} holds a row.")
    _write(rows, None, wanted, out)
    _end(rows)


def sides(
    a: Side, b: Side | None, plan: Plan, timeout: float, aa: int, wanted: Format, out: Path | None
) -> None:
    """Run the sides by turns; first A against itself, where that is asked for.

    Raises:
        KeyboardInterrupt: somebody ended it; what was finished has been written.
    """
    from ..measure.compare.doubts import doubts
    from ..measure.compare.false_alarms import false_alarms, processes, trusted
    from ..measure.compare.run import compare, median_rate
    from ..measure.throughput.process import check
    from ..report.versus import price
    from .progress import status
    from .signals import terminated_as_interrupt

    for side in (a, b or a):
        check(side.setting, side.how)
    images: dict[SideName, int] = {"A": a.setting.batch, "B": (b or a).setting.batch}
    first = processes(plan, aa) if aa else 0
    each = a.how.budget + (START / 2 if plan.by_turns else START)  # two start at once
    typer.echo(f"datbench: {price(plan if b else None, each, first)}", err=True)
    alarms: FalseAlarms | None = None
    compared: Compared | None = None
    with status() as show, terminated_as_interrupt():
        if aa:
            itself = _pairs(a, a, plan, timeout)
            alarms = false_alarms(itself, images["A"], plan, aa, _step(show, "A against itself"))
        if alarms is None or not (b is None or alarms.interrupted or alarms.failed):
            both = _pairs(a, b or a, plan, timeout)
            compared = compare(both, images, plan, _step(show, "A and B"))
    if compared is None:
        assert alarms is not None
        return _alone(a, plan, alarms, wanted, out)
    assert b is not None
    row = VersusRow(
        a,
        b,
        trusted(compared.decision, alarms),
        median_rate(compared.runs, "A"),
        median_rate(compared.runs, "B"),
        compared.runs,
        interleaved=True,
        interrupted=compared.interrupted,
        doubts=doubts(compared.runs),
        plan=plan,
    )
    _write([row], alarms, wanted, out)
    if row.interrupted:
        raise KeyboardInterrupt
    return _end([row])


def _pairs(a: Side, b: Side, plan: Plan, timeout: float) -> Pairs:
    """Times the two sides in fresh processes, as the plan wants it."""
    from ..measure.compare.run import one_at_a_time
    from ..measure.throughput import pairs, process

    named: dict[SideName, Side] = {"A": a, "B": b}

    def sample(name: SideName) -> ProcessTiming:
        side = named[name]
        return process.time_in_process(
            side.model,
            side.setting,
            side.how,
            timeout=timeout,
            python=side.python,
            source=None if side.source is None else Path(side.source),
        )

    def by_turns(first: SideName, number: int) -> tuple[ProcessTiming, ProcessTiming]:
        one, other = (a, b) if first == "A" else (b, a)
        return pairs.time_pair(one, other, timeout, number)

    return by_turns if plan.by_turns else one_at_a_time(sample)


def _step(show: Callable[[str], None], what: str) -> Callable[[int, int, float], None]:
    from .. import units

    def step(pair: int, of: int, left: float) -> None:
        remaining = f", about {units.seconds(left)} left" if left else ""
        show(f"{what}: pair {pair} of {of}{remaining}")

    return step


def _alone(a: Side, plan: Plan, alarms: FalseAlarms, wanted: Format, out: Path | None) -> None:
    """A against itself and nothing else: all that was run is written, whatever ended it.

    Raises:
        KeyboardInterrupt: somebody ended it.
        MeasurementError: a process gave no figure.
        CheckFailed: it differed too often.
    """
    from ..measure.environment import environment
    from ..report.versus import alarms_table
    from ..results import document
    from ..versus import as_document_row, as_document_side
    from .output import emit

    if alarms.runs:
        row = {"a": as_document_side(a), "plan": asdict(plan), **as_document_row(alarms)}
        content = document("compare-aa", [row], environment())
        emit([alarms_table(alarms)], content, wanted, out)
    if alarms.interrupted:
        raise KeyboardInterrupt
    if alarms.failed:
        raise MeasurementError(f"A against itself: {alarms.failed}.")
    if alarms.too_many:
        raise CheckFailed(
            f"{a.model} differed from itself in {alarms.false} of {len(alarms.decisions)} "
            "comparisons, more than 5 %."
        )


def _write(
    rows: Sequence[VersusRow], alarms: FalseAlarms | None, wanted: Format, out: Path | None
) -> None:
    from ..measure.environment import environment, summary
    from ..report.versus import versus_tables
    from ..results import document
    from ..versus import as_document_row
    from .output import emit

    # Files have the environments that they were measured in.
    here = environment() if any(row.interleaved for row in rows) else summary()
    written = [as_document_row(row) for row in rows]
    for row in written:
        row["false_alarms"] = None if alarms is None else as_document_row(alarms)
    emit(versus_tables(rows, alarms), document("compare", written, here), wanted, out)


def _end(rows: Sequence[VersusRow]) -> None:
    """Leave with the exit code of the verdicts."""
    for verdict, error in ENDS:
        found = [row for row in rows if row.decision.verdict == verdict]
        if found:
            _raise(error, verdict, found, len(rows))


def _raise(
    error: type[DatbenchError], verdict: Verdict, found: Sequence[VersusRow], of: int
) -> NoReturn:
    from ..report.versus import brief

    said = brief(found[0].decision, found[0].interleaved)
    if of == 1:
        raise error(said)
    raise error(f"{verdict} in {len(found)} of {of} rows; the first is {_name(found[0])}: {said}")


def _name(row: VersusRow) -> str:
    return row.a if isinstance(row.a, str) else row.a.model
