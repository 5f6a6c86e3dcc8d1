"""How long a call takes in this process: warm-up found, raw samples, a reason for stopping.

The interval of the median speaks of this process alone: another process may settle at another
level, which only repeating in fresh processes shows.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from functools import lru_cache
from statistics import median, quantiles
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from .records import Stopped, Timing

if TYPE_CHECKING:
    import torch

# Confidence intervals: of a median without a distribution, of a power law's exponent.


class Interval(NamedTuple):
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
    while low < (middle := (low + high) / 2) < high:  # until no number lies between them
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


Clock: TypeAlias = Callable[[], float]

Stopwatch: TypeAlias = Callable[[Callable[[], object], int], float]
"""Seconds that a number of calls take."""

FEWEST = 12
"""Samples before the first look at them; six would do for an interval, not for a warm-up."""

MOST = 20_000
"""Samples that are kept at most."""

WINDOW = 5
"""Samples whose median is the level at a place."""

SAME = 0.02
"""Levels that differ by less, relatively, are one."""

OVERHEAD = 0.01
"""The part of a sample that the clock itself may take."""


def time_calls(
    run: Callable[[], object],
    device: str | torch.device = "cpu",
    *,
    budget: float = 1.0,
    width: float = 0.05,
    least: float = 0.05,
    clock: Clock = time.perf_counter,
    prepare: Callable[[], object] | None = None,
    between: Callable[[], object] | None = None,
    keep: bool = False,
    own: Stopwatch | None = None,
) -> Timing:
    """Time `run` until its median is known well enough, or the budget ends.

    A call that is short beside the clock's own cost is repeated within a sample. A sample that has
    begun is finished, so that one slow call may pass the budget.

    Args:
        budget: seconds in all, warm-up included.
        width: of the median's 95 % confidence interval, relative to the median, that will do.
        least: seconds before an interval is trusted at all: clocks take a while to rise.
        clock: of the budget, and of the samples too where the device is not a GPU.
        prepare: done before every sample and no part of it; a sample is one call then.
        between: done after every sample, the warm-up's too, and no part of any.
        keep: on Ctrl-C, return the samples that are finished, if there is one.
        own: what times the samples in place of the device's stopwatch.
    """
    watch = _watch(own or stopwatch(device, clock), prepare, between)
    start = clock()
    samples: list[float] = []
    early: list[float] = []
    calls = 1
    stopped: Stopped = "budget"
    try:
        calls = _calibrate(
            run, watch, early, lambda: clock() - start < budget, once=prepare is not None
        )
        stopped = _sample(run, watch, calls, samples, lambda: clock() - start, budget, width, least)
    except KeyboardInterrupt:
        if not keep or not (early or samples):
            raise
        stopped = "interrupted"
    if not samples:
        samples.append(early.pop())
    return _timing(samples, early, calls, stopped)


def _sample(
    run: Callable[[], object],
    watch: Stopwatch,
    calls: int,
    samples: list[float],
    passed: Clock,
    budget: float,
    width: float,
    least: float,
) -> Stopped:
    """Add samples until there is a reason to stop."""
    look = FEWEST
    while passed() < budget:
        samples.append(watch(run, calls) / calls)
        if len(samples) >= MOST:
            return "samples"
        if len(samples) < look or passed() < least:
            continue
        look = len(samples) * 3 // 2  # many looks would favour lucky intervals
        settled = samples[warm_up(samples) :]
        if len(settled) >= FEWEST and median_interval(settled).relative_width <= width:
            return "interval"
    return "budget"


def _timing(samples: list[float], early: list[float], calls: int, stopped: Stopped) -> Timing:
    begin = warm_up(samples)
    kept = tuple(samples[begin:])
    return Timing(
        kept,
        (*early, *samples[:begin]),
        calls,
        stopped,
        *median_interval(kept),
        settled=begin == 0 or begin < len(samples) // 2,
        drift=drift(kept),
    )


def _watch(
    bare: Stopwatch,
    prepare: Callable[[], object] | None,
    between: Callable[[], object] | None,
) -> Stopwatch:
    """A stopwatch with what is done around its samples."""
    if prepare is None and between is None:
        return bare

    def watch(run: Callable[[], object], calls: int) -> float:
        if prepare is not None:
            prepare()
        seconds = bare(run, calls)
        if between is not None and run is not _nothing:
            between()
        return seconds

    return watch


def stopwatch(device: str | torch.device, clock: Clock = time.perf_counter) -> Stopwatch:
    """What times calls on a device: CUDA events on a GPU, else the clock."""
    import torch

    place = torch.device(device)
    event: Any = torch.cuda.Event

    def by_events(run: Callable[[], object], calls: int) -> float:
        with torch.cuda.device(place):
            start, end = (event(enable_timing=True) for _ in range(2))
            start.record()
            for _ in range(calls):
                run()
            end.record()
            end.synchronize()
            return float(start.elapsed_time(end)) / 1e3

    def by_clock(run: Callable[[], object], calls: int) -> float:
        start = clock()
        for _ in range(calls):
            run()
        return clock() - start

    return by_events if place.type == "cuda" else by_clock


def _calibrate(
    run: Callable[[], object],
    watch: Stopwatch,
    early: list[float],
    goes_on: Callable[[], bool],
    once: bool,
) -> int:
    """Add the first samples, one at least; how many calls make a sample long enough."""
    overhead = min(watch(_nothing, 1) for _ in range(5))
    enough = overhead / OVERHEAD
    calls = 1
    early.append(watch(run, 1))  # the first call of all: caches, lazy initialisation
    while goes_on():
        seconds = watch(run, calls)
        early.append(seconds / calls)
        if once or seconds >= enough:
            break
        wanted = math.ceil(enough / early[-1]) if early[-1] > 0 else 10 * calls
        calls = min(max(wanted, 2 * calls), 10 * calls)
    return calls


def _nothing() -> None:
    """What an empty sample times."""


def warm_up(samples: Sequence[float]) -> int:
    """How many of the first samples come before the level has settled.

    The second half is taken for settled. The warm-up ends at the first sample that lies within
    its range and begins a window whose median lies within its bulk. It is never more than half:
    a level that changes later is not warm-up but part of what the machine does, and widens the
    interval until the samples outgrow it.
    """
    half = len(samples) // 2
    settled = samples[half:]
    if len(settled) < WINDOW:
        return 0
    tenths = quantiles(settled, n=10, method="inclusive")
    low, high = tenths[0] * (1 - SAME), tenths[-1] * (1 + SAME)
    least, most = min(settled) * (1 - SAME), max(settled) * (1 + SAME)
    for start in range(half):
        level = median(samples[start : start + WINDOW])
        if least <= samples[start] <= most and low <= level <= high:
            return start
    return half


def drift(samples: Sequence[float]) -> float | None:
    """How far the level moved from the first half to the second, relatively, if it did.

    It did where the halves' intervals of the median have nothing in common and their medians
    differ by more than `SAME`. The interval of the whole then speaks of no one level.
    """
    half = len(samples) // 2
    if half < FEWEST // 2:
        return None
    first, second = median_interval(samples[:half]), median_interval(samples[-half:])
    moved = second.value / first.value - 1 if first.value else 0.0
    apart = first.high < second.low or second.high < first.low
    return moved if apart and abs(moved) > SAME else None
