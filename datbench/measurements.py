"""What was measured, as plain values: timings, ceilings, and attention modules over a grid."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Stopped = Literal["interval", "budget", "samples", "timeout", "interrupted"]
"""Why sampling ended: the interval was narrow enough, the seconds or the samples were used up, the
process had no time left for all of the seconds, or somebody pressed Ctrl-C."""

Group = Literal["formula", "left out", "rest"]
"""Whose time it is: a term's of the formula; a term's that the formula leaves out; no term's."""


@dataclass(frozen=True)
class Timing:
    """How long one call takes, in seconds.

    Args:
        samples: raw, in order, after the warm-up; each is the mean of `calls` calls.
        warmup: raw samples before the level settled, the very first call among them.
        low, high: order statistics of the samples that enclose the median.
        coverage: how likely they do, for independent samples of one process.
        settled: whether the warm-up was seen to end; it is never more than half of the samples.
        drift: of the level from the first half of the samples to the second, relative, where the
            two differ beyond their intervals; None where they do not.
    """

    samples: tuple[float, ...]
    warmup: tuple[float, ...]
    calls: int
    stopped: Stopped
    median: float
    low: float
    high: float
    coverage: float
    settled: bool = True
    drift: float | None = None


@dataclass(frozen=True)
class Scatter:
    """What a rate whose fastest sample is a ceiling usually was, a second's.

    Args:
        median: of the samples.
        low, high: an interval that holds it, `coverage` says how likely.
    """

    median: float
    low: float
    high: float
    coverage: float
    samples: int


@dataclass(frozen=True)
class Ceilings:
    """What the machine does at best, measured in the same run: the fastest sample of each.

    Args:
        macs: multiply-adds a second of one square matrix product, the best side tried.
        bytes: bytes a second, read and written, of one copy of `copied` bytes.
        threads: that torch runs an operator with on a CPU.
        product, copy: how the samples of the two scatter; None in older files.
    """

    device: str
    dtype: str
    threads: int
    macs: float
    side: int
    bytes: float
    copied: int
    product: Scatter | None = None
    copy: Scatter | None = None


@dataclass(frozen=True)
class Share:
    """A part of a module's time, from the profiler.

    Args:
        name: a term of the module's, or what belongs to none.
        seconds: in this part's operators, each without those it called; a run, profiler and all.
        share: of all operators' time, 0 to 1.
        macs: counted in this part; a batch's.
        mac_share: of everything counted, 0 to 1.
        operators: that the module itself called here, a run.
    """

    name: str
    group: Group
    seconds: float
    share: float
    macs: int
    mac_share: float
    operators: int


@dataclass(frozen=True)
class Point:
    """One attention module at one size.

    Args:
        kind: ``DMHA``, ``MSA``, ``W-MSA``, ``SRA`` or ``D-DETR``.
        keys: Ns, keys that a query can see.
        stride: r, how much coarser the grid of keys is than the map.
        formula: the published formula's multiply-adds, for the batch.
        macs: everything counted, as fvcore weighs it, for the batch.
        bytes: read and written by all operators, for the batch.
        mac_rate, byte_rate: `macs` and `bytes` over the median time.
        mac_fraction, byte_fraction: of the ceilings; small maps may pass 1 in a cache.
        peak_bytes: allocated on a GPU while one call ran, weights and input among them.
        shares: empty where they were not measured.
        reason: why there is no timing.
    """

    kind: str
    height: int
    width: int
    keys: int
    stride: int
    formula: int
    macs: int
    bytes: int
    timing: Timing | None = None
    mac_rate: float | None = None
    byte_rate: float | None = None
    mac_fraction: float | None = None
    byte_fraction: float | None = None
    peak_bytes: int | None = None
    shares: tuple[Share, ...] = ()
    reason: str | None = None


@dataclass(frozen=True)
class Exponent:
    """A power law through some points: cost ~ size ** exponent, by least squares of logarithms.

    Args:
        over: ``HW`` (at this stride) or ``Ns`` (on a map of this side).
        held: what stays fixed.
        points: that the line goes through.
        time, low, high: the exponent of the time, and its 95 % confidence interval.
        formula, macs, bytes: the exponents of these over the same points.
    """

    kind: str
    over: Literal["HW", "Ns"]
    held: str
    points: int
    time: float
    low: float
    high: float
    formula: float
    macs: float
    bytes: float


@dataclass(frozen=True)
class Ratio:
    """Deformable attention at r = 1 over global attention, on the same map.

    Args:
        time: of the medians.
        low, high: an interval that holds it at 95 % or more; None where samples are too few.
        formula, macs, bytes: the same ratio of these.
        memory: of the peaks on a GPU.
    """

    side: int
    time: float
    low: float | None
    high: float | None
    formula: float
    macs: float
    bytes: float
    memory: float | None


@dataclass(frozen=True)
class LeftOut:
    """What the formula leaves out of deformable attention at r = 1, in time and in MACs.

    Args:
        terms: share of the time in work that is counted and left out (a norm, sampling, the bias).
        rest: share of the time in elementwise operators, softmax and copies.
        macs: share of everything counted that the formula leaves out.
        mac_fraction: achieved of the matrix product's MAC/s.
        global_rest, global_mac_fraction: the same of global attention on this map, if measured.
    """

    side: int
    terms: float
    rest: float
    macs: float
    mac_fraction: float
    global_rest: float | None
    global_mac_fraction: float | None


@dataclass(frozen=True)
class Measurements:
    """Attention modules over growing maps and growing numbers of keys.

    Args:
        window: side of W-MSA's windows.
        ratio: of SRA where the map grows.
        detr_points: keys a query and head of Deformable-DETR attention.
        budget: seconds that were allowed.
        seconds: that were used.
        interrupted: whether somebody ended it; every point here is whole.
    """

    dim: int
    heads: int
    groups: int
    kernel: int
    window: int
    ratio: int
    detr_points: int
    batch: int
    dtype: str
    device: str
    attention: str
    budget: float
    seconds: float
    ceilings: Ceilings | None
    points: tuple[Point, ...]
    exponents: tuple[Exponent, ...]
    ratios: tuple[Ratio, ...]
    left_out: tuple[LeftOut, ...]
    interrupted: bool
