"""From the times of two sides to a verdict.

===================================================  =========
the interval of B's speed over A's                   verdict
===================================================  =========
does not reach the level: too few processes          ambiguous
lies within the floor, 1 or not                      same
lies beside 1, and the estimate beyond the floor     faster, slower
all else                                             ambiguous
===================================================  =========

Everything is done on logarithms of seconds an image, where a ratio is a difference and both
directions are alike.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from statistics import stdev

from ...versus import MOST, Decision, Verdict
from ..intervals import Interval, student_t
from .ranks import fewest_pairs, fewest_samples, paired, shift


def decide_pairs(differences: Sequence[float], floor: float, level: float) -> Decision:
    """Of log(seconds of B) - log(seconds of A), process by process of neighbours in time."""
    few = fewest_pairs(level)
    if not differences:
        return _nothing(floor, level, few)
    interval = paired(differences, level)
    spread = stdev(differences) if len(differences) > 1 else None
    return _decision(interval, len(differences), spread, few, floor, level)


def decide_samples(a: Sequence[float], b: Sequence[float], floor: float, level: float) -> Decision:
    """Of log(seconds) of processes that were not run by turns: two files."""
    few = fewest_samples(level)
    if not a or not b:
        return _nothing(floor, level, few)
    fewer = min(len(a), len(b))
    spread = math.hypot(stdev(a), stdev(b)) if fewer > 1 else None
    return _decision(shift(a, b, level), fewer, spread, few, floor, level)


def _nothing(floor: float, level: float, few: int) -> Decision:
    return Decision(
        "ambiguous", floor, level, needed=few, reason="no process of each side has ended"
    )


def _decision(
    interval: Interval, n: int, spread: float | None, few: int, floor: float, level: float
) -> Decision:
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
    interval: Interval, n: int, spread: float | None, few: int, floor: float, level: float
) -> int | None:
    """Processes of each side at which the interval would be narrow enough, were all else so.

    The half-width goes as Student's t over the square root of the number. An estimate beyond the
    floor is settled when the interval leaves 1; one within it when the interval does not leave it.
    """
    limit, distance = math.log1p(floor), abs(interval.value)
    target = distance if distance > limit else limit - distance
    if interval.coverage >= level:
        spread = (interval.high - interval.low) / 2 * math.sqrt(n) / _student(level, n)
    if spread is None:
        return few + few % 2
    for more in range(max(few, n + 1), MOST + 1):
        if more % 2 == 0 and spread * _student(level, more) / math.sqrt(more) < target:
            return more
    return None


@lru_cache(maxsize=1024)
def _student(level: float, n: int) -> float:
    return student_t(level, n - 1)
