"""Confidence intervals: of a median without a distribution, of a power law's exponent."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache


@dataclass(frozen=True)
class Interval:
    """An estimate between two bounds, and how likely they enclose what is estimated."""

    value: float
    low: float
    high: float
    coverage: float

    @property
    def relative_width(self) -> float:
        """The width over the estimate; infinite where the estimate is zero."""
        return (self.high - self.low) / self.value if self.value else math.inf


def median_interval(samples: Sequence[float], level: float = 0.95) -> Interval:
    """The median between two order statistics, whatever the distribution.

    Each independent sample lies below the median with probability 1/2, so how many do is binomial.
    Fewer than six samples cannot reach 95 %: their coverage says what they do reach.
    """
    if not samples:
        raise ValueError("no samples")
    ordered = sorted(samples)
    n = len(ordered)
    middle = (ordered[(n - 1) // 2] + ordered[n // 2]) / 2
    rank, coverage = _rank(n, level)
    return Interval(middle, ordered[rank], ordered[n - 1 - rank], coverage)


@lru_cache(maxsize=4096)
def _rank(n: int, level: float) -> tuple[int, float]:
    """The innermost pair of order statistics (from 0, from either end) that reaches the level."""
    tail = 0.0  # that at most `rank` samples lie below the median
    for rank in range(n // 2 + 1):
        more = tail + math.exp(
            math.lgamma(n + 1) - math.lgamma(rank + 1) - math.lgamma(n - rank + 1) - n * math.log(2)
        )
        if 1 - 2 * more < level:
            # One rank further in is too narrow; the outermost pair is what there is at worst.
            return (rank - 1, 1 - 2 * tail) if rank else (0, max(0.0, 1 - 2 * more))
        tail = more
    raise AssertionError("half of the samples lie below the median")


def student_t(level: float, freedom: int) -> float:
    """The t that encloses `level` of Student's distribution between -t and t, by bisection."""
    low, high = 0.0, 1.0
    while _enclosed(high, freedom) < level:
        high *= 2
    for _ in range(200):
        middle = (low + high) / 2
        if _enclosed(middle, freedom) < level:
            low = middle
        else:
            high = middle
    return high


def _enclosed(t: float, freedom: int) -> float:
    """P(-t < T < t), in closed form for whole degrees of freedom.

    Abramowitz and Stegun, Handbook of Mathematical Functions, 26.7.3 and 26.7.4.
    """
    angle = math.atan2(t, math.sqrt(freedom))
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = freedom % 2 == 1
    term = cosine if odd else 1.0
    total = term if freedom > 1 else 0.0
    for i in range(3 if odd else 2, freedom - 1, 2):
        term *= cosine**2 * (i - 1) / i
        total += term
    return 2 / math.pi * (angle + sine * total) if odd else sine * total


def exponent(sizes: Sequence[float], costs: Sequence[float], level: float = 0.95) -> Interval:
    """The power of `sizes` with which `costs` grow: least squares of logarithms, Student's t.

    Raises:
        ValueError: fewer than three points, or all of one size.
    """
    n = len(sizes)
    x, y = [math.log(size) for size in sizes], [math.log(cost) for cost in costs]
    mean_x, mean_y = sum(x) / n, sum(y) / n
    spread = sum((a - mean_x) ** 2 for a in x)
    if n < 3 or len(set(sizes)) < 2:
        raise ValueError("a power law with its interval takes three points of two sizes or more")
    slope = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True)) / spread
    residual = sum((b - mean_y - slope * (a - mean_x)) ** 2 for a, b in zip(x, y, strict=True)) / (
        n - 2
    )
    half = student_t(level, n - 2) * math.sqrt(residual / spread)
    return Interval(slope, slope - half, slope + half, level)
