"""Two result files, compared row by row.

The processes of a file were not run by turns with the other's, so that nothing cancels what the
machine did in between; the test is the rank sum of two separate sets.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from statistics import median

from ...timings import ProcessTiming
from ...versus import Decision, Run, SideName, VersusRow
from .decide import decide_samples
from .files import KEPT, Ended, Found, ResultFile
from .machines import apart, software

UNTURNED = (
    "the processes of two files were not run by turns: a machine that was slower meanwhile looks "
    "like a slower model"
)


def compare_files(a: ResultFile, b: ResultFile, floor: float, level: float) -> list[VersusRow]:
    """A row for each key of either file, in A's order and then B's."""
    return [
        _row(a.rows.get(key), b.rows.get(key), floor, level)
        for key in dict.fromkeys((*a.rows, *b.rows))
    ]


def _row(a: Found | None, b: Found | None, floor: float, level: float) -> VersusRow:
    either = a or b
    assert either is not None
    runs = (*_runs("A", a, 0), *_runs("B", b, 0 if a is None else len(a.processes)))
    rates = {side: [run.rate for run in runs if run.side == side and run.rate] for side in "AB"}
    return VersusRow(
        either.words(),
        either.words(),
        _decided(a, b, rates, floor, level),
        median(rates["A"]) if rates["A"] else None,
        median(rates["B"]) if rates["B"] else None,
        runs,
        interleaved=False,
        doubts=(*_of_the_machines(a, b), UNTURNED),
        setting={"model": either.model, "setting": either.setting, "how": either.how},
    )


def _of_the_machines(a: Found | None, b: Found | None) -> list[str]:
    if a is None or b is None:
        return []
    machines = apart(a, b)
    said = [f"the files are from different machines: {'; '.join(machines)}"] if machines else []
    return [*said, *software(a.environments, b.environments)]


def _decided(
    a: Found | None, b: Found | None, rates: Mapping[str, list[float]], floor: float, level: float
) -> Decision:
    if a is None or b is None:
        return Decision(
            "missing", floor, level, reason=f"{'A' if a is None else 'B'} has no such row"
        )
    for side, found in (("A", a), ("B", b)):
        ends = [(p.outcome, p.reason) for p in found.processes if p.outcome not in KEPT]
        if not found.processes and found.outcome not in KEPT:
            ends = [(found.outcome, found.reason)]
        if ends:
            outcome, reason = ends[0]
            why = f"{outcome}: {reason}" if reason else outcome
            return Decision("failed", floor, level, reason=f"{side} {why}")
    return decide_samples(_logs(rates["A"]), _logs(rates["B"]), floor, level)


def _logs(rates: Iterable[float]) -> list[float]:
    """Logarithms of seconds an image."""
    return [-math.log(rate) for rate in rates]


def _runs(side: SideName, found: Found | None, first: int) -> tuple[Run, ...]:
    if found is None:
        return ()
    return tuple(
        _run(side, process, first + number, found.images)
        for number, process in enumerate(found.processes)
    )


def _run(side: SideName, process: Ended, number: int, images: int) -> Run:
    rate = None if process.seconds is None else images / process.seconds
    return Run(number, 0, side, ProcessTiming(process.outcome, process.reason), rate)
