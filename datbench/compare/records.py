"""Two sides compared, as plain values: what was run, in which order, and what it says.

Speed is images a second; a ratio of speeds is B's over A's, so that below 1 B is slower.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any, Literal, TypeVar

from ..errors import (
    AmbiguousError,
    CheckFailed,
    DatbenchError,
    MeasurementError,
    MissingError,
    UsageError,
)
from ..setting import Count
from ..timing.records import ComparedSide, ProcessTiming
from ..units import Brief

Verdict = Literal["same", "faster", "slower", "ambiguous", "missing", "failed"]
"""B relative to A. Missing: one side lacks the row. Failed: a process gave no figure."""

VERDICTS: tuple[Verdict, ...] = ("same", "faster", "slower", "ambiguous", "missing", "failed")

ERRORS: dict[str, type[DatbenchError]] = {
    "slower": CheckFailed,  # a regression is one whatever the other rows are
    "failed": MeasurementError,
    "missing": MissingError,
    "ambiguous": AmbiguousError,
}
"""The error of each verdict, in the order in which they decide."""

SideName = Literal["A", "B"]

Unit = Literal["images/s", "calls/s"]
"""What speed is counted in: calls where a benchmark file of others does not speak of images."""

FLOOR = 0.02
"""The threshold: speeds whose ratio lies within 1 / (1 + floor) and 1 + floor are the same."""

LEVEL = 0.98
"""The interval's confidence: at most one false regression and improvement each in a hundred."""

PROCESSES = 10
"""The processes of each side to begin with: five rounds."""

EXTENDED = 20
"""Default for the processes of each side to which an ambiguous comparison is extended.

With one outlier, ten processes of each side stay ambiguous; twenty do not.
"""

MOST = 200
"""Processes of each side, above which no estimate is given."""


def accepted(threshold: float, confidence: float) -> tuple[float, float]:
    """Both, in percent, as fractions.

    Raises:
        UsageError: one of them is out of range.
    """
    if not 0 < threshold <= 50:
        raise UsageError(f"--threshold {threshold:g}: write a percentage above 0 and up to 50.")
    if not 80 <= confidence <= 99.9:
        raise UsageError(f"--confidence {confidence:g}: write a percentage from 80 to 99.9.")
    return threshold / 100, confidence / 100


@dataclass(frozen=True)
class RunPlan:
    """How a comparison is run and decided."""

    processes: Count = PROCESSES  # of each side, an even number: two in a round
    most: int = EXTENDED  # of each side, to which it is extended by doubling while it is ambiguous
    floor: float = FLOOR
    level: float = LEVEL
    seed: int = 0  # of the coins that make a round ABBA or BAAB
    by_turns: bool = True  # whether the two processes of a pair run at once and take turns

    def looks(self) -> tuple[int, ...]:
        """Processes of each side at which the evidence is looked at."""
        found = [self.processes]
        while found[-1] < self.most:
            found.append(min(2 * found[-1], self.most))
        return tuple(found)

    def look_level(self) -> float:
        """The confidence of one look; all looks together keep the plan's (Bonferroni)."""
        return 1 - (1 - self.level) / len(self.looks())


@dataclass(frozen=True)
class Decision:
    """What the processes say."""

    verdict: Verdict
    floor: float
    level: float  # that the interval of this look was asked for
    ratio: float | None = None  # of B's speed over A's; None where nothing was measured
    low: float | None = None  # low, high: an interval that holds it with `coverage`, or more
    high: float | None = None
    coverage: float = 0.0  # below `level` where the processes are too few for any verdict
    processes: Count = 0  # of each side that were tested; the fewer of the two
    # processes of each side that would settle it, from the spread seen; None where it is settled,
    # or where it is more than `MOST`
    needed: int | None = None
    reason: str | None = None  # why there is no verdict
    # the verdict of the processes, where A differed from itself too often for it
    withdrawn: Verdict | None = None


@dataclass(frozen=True, repr=False)
class TimedRun(Brief):
    """One process of a comparison."""

    number: int  # from 0, in the order of time
    round: int  # from 0; four processes
    side: SideName
    timing: ProcessTiming
    # images a second, from the process's median; None where it counts for nothing
    rate: float | None


@dataclass(frozen=True, repr=False)
class FalseAlarms(Brief):
    """A against itself: what the set-up says where there is nothing to find."""

    asked: Count  # comparisons that were wanted
    decisions: tuple[Decision, ...]
    runs: tuple[TimedRun, ...]
    processes: Count  # that were run; each comparison begins one round after the one before it
    independent: Count  # comparisons that share no process
    width: float | None  # median half-width of the intervals, relative
    # the smallest difference that eight of ten of these comparisons would have found
    visible: float | None
    interrupted: bool = False
    failed: str | None = None  # which process gave no figure and why, where one ended it
    # how many comparisons have each verdict
    verdicts: dict[Verdict, Count] = field(default_factory=dict)
    a: ComparedSide | None = None  # what was compared with itself, where nothing else was compared
    plan: RunPlan | None = None  # of that comparison

    def count(self, verdict: Verdict) -> int:
        """Comparisons with this verdict."""
        return sum(decision.verdict == verdict for decision in self.decisions)

    @property
    def false(self) -> int:
        """Comparisons that found a difference."""
        return self.count("faster") + self.count("slower")

    @property
    def too_many(self) -> bool:
        """Whether more than one in twenty comparisons found what is not there."""
        return self.false > 0.05 * len(self.decisions)

    @property
    def spread(self) -> float | None:
        """How far the processes' speeds scatter: the middle half's, as a normal's deviation."""
        rates = sorted(run.rate for run in self.runs if run.rate is not None)
        n = len(rates)
        return (rates[(3 * n) // 4] - rates[n // 4]) / 1.349 / median(rates) if n >= 4 else None


@dataclass(frozen=True, repr=False)
class ComparisonRow(Brief):
    """A and B, and what was found."""

    a: ComparedSide | str  # a, b: words for a row of a file; sides that were run
    b: ComparedSide | str
    decision: Decision
    rate_a: float | None  # rate_a, rate_b: of `unit`, median over the processes
    rate_b: float | None
    runs: tuple[TimedRun, ...]  # in the order of time; of files, first A's and then B's
    interleaved: bool  # whether processes of the two sides alternated, so that drift cancels
    interrupted: bool = False
    doubts: tuple[str, ...] = ()
    plan: RunPlan | None = None
    setting: dict[str, Any] = field(default_factory=dict)  # of a row of files
    order: str | None = None  # the sides in the order of time, where they were interleaved
    false_alarms: FalseAlarms | None = None  # A against itself, where it was asked for
    unit: Unit = "images/s"


def order(runs: Sequence[TimedRun]) -> str:
    """The sides in the order of time, a word for a round: ``ABBA BAAB``."""
    rounds: dict[int, str] = {}
    for run in runs:
        rounds[run.round] = rounds.get(run.round, "") + run.side
    return " ".join(rounds.values())


K = TypeVar("K")
V = TypeVar("V")


def side_by_side(
    one: Mapping[K, V], other: Mapping[K, V]
) -> Iterator[tuple[K, V | None, V | None]]:
    """Entries of two sets under one name; the first's in order, then what only the second has."""
    for name in dict.fromkeys((*one, *other)):
        yield name, one.get(name), other.get(name)
