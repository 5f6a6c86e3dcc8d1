"""From the times of two sides to a verdict.

===================================================  =========
the interval of B's speed over A's                   verdict
===================================================  =========
misses the confidence: too few processes             ambiguous
lies within the threshold, with 1 or not             same
excludes 1, with the estimate beyond the threshold   faster, slower
all else                                             ambiguous
===================================================  =========

Everything is done on logarithms of seconds an image, where a ratio is a difference and both
directions are alike.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from statistics import median, stdev
from typing import TypeAlias

import numpy as np

from ..errors import UsageError
from ..timing.sample import Interval, student_t
from .records import MOST, Decision, RunPlan, Verdict

# Intervals of a shift from ranks alone: of pairs, and of two separate sets of samples.
#
# Hodges and Lehmann's estimates with the intervals that belong to Wilcoxon's tests (Hollander,
# Wolfe and Chicken, Nonparametric Statistical Methods, Sections 3.3 and 4.3). One sample out of
# line moves them by a rank, however far out it lies. The distributions are exact.


def paired(differences: Sequence[float], level: float) -> Interval:
    """The middle of differences that lie as often so far above it as so far below: signed ranks.

    Too few differences cannot reach the level; the coverage says what they do reach.
    """
    means = sorted(
        (one + other) / 2
        for i, one in enumerate(differences)
        for other in differences[i:]  # each with itself too
    )
    return _between(means, *_signed_ranks(len(differences), level))


def shift(before: Sequence[float], after: Sequence[float], level: float) -> Interval:
    """By how much `after` lies above `before`, for sets that are not paired: the rank sum."""
    differences = sorted(late - early for early in before for late in after)
    return _between(differences, *_rank_sums(len(before), len(after), level))


def fewest_pairs(level: float) -> int:
    """Pairs with which `paired` can reach the confidence `level`."""
    return next(n for n in range(1, 100) if _signed_ranks(n, level)[1] >= level)


def check_plan(plan: RunPlan) -> None:
    """Refuse a plan that cannot give a verdict.

    Raises:
        UsageError: its processes make no whole rounds, or are too few for its confidence.
    """
    if plan.processes % 2:
        raise UsageError("two processes of each side make a round; write even numbers of them.")
    few = fewest_pairs(plan.look_level())
    if plan.processes < few:
        raise UsageError(
            f"--processes {plan.processes} cannot settle anything at --confidence "
            f"{100 * plan.level:g}; write {few + few % 2} or more."
        )


def fewest_samples(level: float) -> int:
    """Samples of each set with which `shift` can reach the confidence `level`."""
    return next(n for n in range(1, 100) if _rank_sums(n, n, level)[1] >= level)


def _between(ordered: Sequence[float], rank: int, coverage: float) -> Interval:
    if not ordered:
        raise ValueError("no samples")
    return Interval(median(ordered), ordered[rank], ordered[len(ordered) - 1 - rank], coverage)


@lru_cache(maxsize=1024)
def _signed_ranks(n: int, level: float) -> tuple[int, float]:
    """How many of the sorted means lie outside on either side, and what the rest covers."""
    chances = np.zeros(n * (n + 1) // 2 + 1)  # of each sum of the ranks that have a plus
    chances[0] = 1.0
    for rank in range(1, n + 1):
        more = chances.copy()
        more[rank:] += chances[:-rank]
        chances = more / 2
    total = np.cumsum(chances)
    return _innermost(lambda below: float(total[below]), level, len(total))


EXACT = 30
"""Samples of a set up to which rank sums are counted; above, they are as good as normal."""


@lru_cache(maxsize=1024)
def _rank_sums(n: int, m: int, level: float) -> tuple[int, float]:
    """The same for all differences of two sets."""
    if max(n, m) > EXACT:
        spread = math.sqrt(n * m * (n + m + 1) / 12)
        return _innermost(
            lambda below: math.erfc((n * m / 2 - below - 0.5) / spread / math.sqrt(2)) / 2,
            level,
            n * m,
        )
    # ways[j][u]: j of the samples so far are of the second set and u pairs are in order.
    ways = [[1]] + [[0] for _ in range(m)]
    for taken in range(1, n + m + 1):
        for j in range(min(taken, m), 0, -1):
            # The next sample is of the second set: it lies above all of the first so far.
            if taken - j <= n:
                ways[j] = _sum(ways[j] if taken - j > 0 else [0], [0] * (taken - j) + ways[j - 1])
        if taken > n:
            ways[0] = [0]
    counts = ways[m] + [0] * (n * m + 1 - len(ways[m]))
    total = np.cumsum(np.array(counts, dtype=float)) / float(sum(counts))
    return _innermost(lambda below: float(total[below]), level, n * m)


def _sum(one: list[int], other: list[int]) -> list[int]:
    length = max(len(one), len(other))
    padded = [part + [0] * (length - len(part)) for part in (one, other)]
    return [a + b for a, b in zip(*padded, strict=True)]


def _innermost(below: Callable[[int], float], level: float, most: int) -> tuple[int, float]:
    """The highest rank that has the confidence between its two tails, and the exact confidence."""
    rank = 0
    while rank + 1 < most // 2 and 1 - 2 * below(rank + 1) >= level:
        rank += 1
    return rank, max(0.0, 1 - 2 * below(rank))


Spread: TypeAlias = Callable[[], float]
"""The standard deviation of a difference of two processes; of two or more of each side."""


def decide_pairs(differences: Sequence[float], floor: float, level: float) -> Decision:
    """Decide from log(seconds of B) - log(seconds of A) of processes next to each other in time."""
    n = len(differences)
    interval = paired(differences, level) if n else None
    return _decision(interval, n, lambda: stdev(differences), fewest_pairs(level), floor, level)


def decide_samples(a: Sequence[float], b: Sequence[float], floor: float, level: float) -> Decision:
    """Decide from log(seconds) of processes that were not interleaved: those of two files."""
    n = min(len(a), len(b))
    interval = shift(a, b, level) if n else None

    def spread() -> float:
        return math.hypot(stdev(a), stdev(b))

    return _decision(interval, n, spread, fewest_samples(level), floor, level)


def _decision(
    interval: Interval | None, n: int, spread: Spread, few: int, floor: float, level: float
) -> Decision:
    """The decision on `n` pairs, or samples of each side; `few` can give a verdict."""
    if interval is None:
        said = "no process of each side has ended"
        return Decision("ambiguous", floor, level, needed=few, reason=said)
    verdict = judge(interval, floor, level)
    needed = reason = None
    if verdict == "ambiguous":
        if interval.coverage < level:
            words = f"an interval at {100 * level:.3g} % takes"
            reason = f"{n} of the {few} processes of each side that {words}"
        needed = _needed(interval, n, spread, few, floor, level)
    # A longer time is a lower speed: the bounds change places.
    return Decision(
        verdict,
        floor,
        level,
        math.exp(-interval.value),
        math.exp(-interval.high),
        math.exp(-interval.low),
        interval.coverage,
        n,
        needed,
        reason,
    )


def judge(interval: Interval, floor: float, level: float) -> Verdict:
    """The verdict on an interval of log(seconds of B / seconds of A); see the module's table."""
    limit = math.log1p(floor)
    if interval.coverage < level:
        return "ambiguous"
    if -limit <= interval.low and interval.high <= limit:
        return "same"
    if interval.low > 0 and interval.value > limit:
        return "slower"
    if interval.high < 0 and interval.value < -limit:
        return "faster"
    return "ambiguous"


def _needed(
    interval: Interval, n: int, spread: Spread, few: int, floor: float, level: float
) -> int | None:
    """Processes of each side at which the interval would be narrow enough, were all else so.

    The half-width goes as Student's t over the square root of the number. An estimate beyond the
    floor is settled when the interval leaves 1; one within it when the interval does not leave it.
    """
    limit, distance = math.log1p(floor), abs(interval.value)
    target = distance if distance > limit else limit - distance
    if interval.coverage >= level:
        seen = (interval.high - interval.low) / 2 * math.sqrt(n) / _student(level, n)
    elif n > 1:
        seen = spread()
    else:
        return few + few % 2
    for more in range(max(few, n + 1), MOST + 1):
        if more % 2 == 0 and seen * _student(level, more) / math.sqrt(more) < target:
            return more
    return None


@lru_cache(maxsize=1024)
def _student(level: float, n: int) -> float:
    return student_t(level, n - 1)
