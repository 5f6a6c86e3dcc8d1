"""How long models take, as plain values: one process's samples, and a row of several processes.

All times are in seconds, all rates are per second, all amounts of work are for one call.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from ..setting import Count, How, Positive, Setting
from ..units import Brief

Stopped = Literal["interval", "budget", "samples", "timeout", "interrupted"]
"""Why sampling ended: the interval was narrow enough, the seconds or the samples were used up, the
process had no time left for all of the seconds, or somebody pressed Ctrl-C."""

CERTAIN = 0.95
"""Coverage that an interval is expected to have; one of less is not shown: too few samples, or
processes, to have one."""


@dataclass(frozen=True, repr=False)
class Timing(Brief):
    """How long one call takes, in seconds."""

    # raw, in order, after the warm-up; each is the mean of `calls` calls
    samples: tuple[float, ...]
    # raw samples before the level settled, the very first call among them
    warmup: tuple[float, ...]
    calls: Count
    stopped: Stopped
    median: float
    low: float  # low, high: order statistics of the samples that enclose the median
    high: float
    coverage: float  # how likely they do, for independent samples of one process
    # whether the warm-up was seen to end; it is never more than half of the samples
    settled: bool = True
    # of the level from the first half of the samples to the second, relative, where the two differ
    # beyond their intervals; None where they do not
    drift: float | None = None


@dataclass(frozen=True)
class Scatter:
    """How the samples of a machine peak scatter, as rates per second. The fastest is the peak."""

    median: float  # of the samples
    low: float  # low, high: an interval that holds it, `coverage` says how likely
    high: float
    coverage: float
    samples: Count


@dataclass(frozen=True)
class Ceilings:
    """What the machine does at best, measured in the same run: the fastest sample of each."""

    device: str
    dtype: str
    threads: Positive  # that torch runs an operator with on a CPU
    macs: float  # multiply-adds a second of one square matrix product, the best side tried
    side: int
    bytes: float  # bytes a second, read and written, of one copy of `copied` bytes
    copied: Count
    # product, copy: how the samples of the two scatter; None in older files
    product: Scatter | None = None
    copy: Scatter | None = None


TimeOutcome = Literal["measured", "interrupted", "out of memory", "crashed", "timed out", "failed"]
"""How a run ended. Interrupted: by Ctrl-C, and the finished samples are kept."""

WAITED = "the other side did not take its turns"
"""Why a process failed that was to take turns with another, which was not there or hung."""

UNFINISHED = "the process did not finish it"
"""Why an early answer of a process has no more."""


@dataclass(frozen=True)
class Telemetry:
    """What a GPU's driver said while it was timed; None where it does not say."""

    # clock, clock_low: of the streaming multiprocessors, in Hz: median and least
    clock: float | None = None
    clock_low: float | None = None
    power: float | None = None  # mean, in watts
    energy: float | None = None  # joules of all timed calls, `calls` of them
    calls: Count | None = None
    # reasons seen, in NVML's words; a sample taken meanwhile is not to be trusted
    throttled: tuple[str, ...] = ()
    throttled_samples: tuple[int, ...] = ()  # indices into the timing's samples
    temperature: float | None = None  # the highest, in degrees Celsius
    reason: str | None = None  # why there is nothing here
    note: str | None = None  # what is missing or less exact than it looks, and why


@dataclass(frozen=True)
class ProtocolTiming:
    """What a published protocol gives: a fixed warm-up, a fixed number of calls, their mean."""

    protocol: str
    warmup: Count
    calls: Count
    batch: int  # that the protocol prescribes, or the row's where it prescribes none
    seconds: float  # a call's, as the protocol computes it
    images_per_second: float
    # of its images a second from the row's in the same process, relative; None without the row's
    difference: float | None = None
    reason: str | None = None
    # low, high: an interval that holds the true difference, `coverage` says how likely; None for
    # one process
    low: float | None = None
    high: float | None = None
    coverage: float | None = None
    processes: Count = 1  # that followed it; all figures are medians of theirs


@dataclass(frozen=True, repr=False)
class ProcessTiming(Brief):
    """One fresh process."""

    outcome: TimeOutcome
    reason: str | None = None
    timing: Timing | None = None
    threads: Positive | None = None  # that torch ran an operator with
    ceilings: Ceilings | None = None  # measured in the same process, where asked for
    telemetry: Telemetry | None = None
    protocols: tuple[ProtocolTiming, ...] = ()
    # `datbench.machine.environment()` there
    environment: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 0.0  # of the process's whole life
    # seconds of the first call of all under `torch.compile`, in no sample
    compiling: float | None = None
    # each rank's median, where several GPUs (or processes on a CPU) took part; a sample of `timing`
    # is the slowest rank's
    ranks: tuple[float, ...] = ()
    # protocols, or `ceilings` (machine peaks), that were asked for and gave nothing, and why
    refused: Mapping[str, str] = field(default_factory=dict)
    # in which the samples were taken, where another process ran at once and took turns
    turns: int | None = None
    processors: tuple[int, ...] = ()  # that the process was bound to; none where it ran on any
    restless: bool = False  # whether its threads went on working in the other one's turns

    @property
    def whole(self) -> bool:
        """Whether its sampling ended by itself; what was interrupted later does not matter."""
        return self.timing is not None and (
            self.outcome == "measured"
            or (self.outcome == "interrupted" and self.timing.stopped != "interrupted")
        )


def counted(processes: Sequence[ProcessTiming]) -> list[ProcessTiming]:
    """The processes whose samples make a row's figures.

    One that Ctrl-C cut short stopped at no level of its own choice: it counts only where there is
    no whole one. One that failed does not count, whatever it had.
    """
    whole = [process for process in processes if process.whole]
    return whole or [p for p in processes if p.outcome == "interrupted" and p.timing is not None]


@dataclass(frozen=True)
class Percentile:
    """A call's time that `percent` % of the samples do not pass; None with a reason."""

    percent: int
    seconds: float | None
    reason: str | None = None


@dataclass(frozen=True, repr=False)
class ThroughputRow(Brief):
    """How fast one model is at one setting, from one process or several."""

    model: str
    setting: Setting  # with the batch that was timed, for each GPU
    how: How
    # measured where one process was and none was interrupted; else how the last ended
    outcome: TimeOutcome
    reason: str | None
    requested_batch: int  # larger than the setting's where that ran out of memory
    asked: Count  # processes that were wanted
    gpus: Positive  # that took part at once
    processes: tuple[ProcessTiming, ...]
    seconds: float | None = None  # the median of a call; with several processes, of their medians
    # low, high: an interval that holds the true one, `coverage` says how likely
    low: float | None = None
    high: float | None = None
    coverage: float | None = None
    # what repeats in it: one process's samples, or processes
    interval_of: Literal["samples", "processes"] | None = None
    # between the largest and the smallest process median, over `seconds`
    spread: float | None = None
    images_per_second: float | None = None
    images_low: float | None = None
    images_high: float | None = None
    latency: tuple[Percentile, ...] = ()  # percentiles of all processes' samples
    samples: Count = 0  # samples, warmup: of all processes that count; see `counted`
    warmup: Count = 0
    stopped: tuple[Stopped, ...] = ()  # why sampling ended, of each process that was measured
    # macs, bytes: of one call on each GPU: multiply-adds as fvcore weighs them, bytes that all
    # operators read and write; the backward's too in training, but not the optimizer's
    macs: Count | None = None
    bytes: Count | None = None
    counted: str | None = None  # why there are none
    unknown: tuple[str, ...] = ()  # operators without a rule, in neither of the two
    ceilings: Ceilings | None = None
    mac_rate: float | None = None
    byte_rate: float | None = None
    mac_fraction: float | None = None  # mac_fraction, byte_fraction: of the machine peaks
    byte_fraction: float | None = None
    energy: float | None = None  # joules an image; `energy_reason` where there is none
    energy_reason: str | None = None
    # each once, the medians of the processes that followed it
    protocols: tuple[ProtocolTiming, ...] = ()
    doubts: tuple[str, ...] = ()  # warnings: what the figures do not show, in sentences

    @property
    def threads(self) -> int | None:
        """That an operator ran with."""
        ran = (process.threads for process in self.processes if process.threads)
        return next(ran, self.how.threads)


PERCENTS = (50, 90, 95, 99)


def latency(timings: Sequence[Timing]) -> tuple[Percentile, ...]:
    """The percentiles of all samples together, each only where a sample lies beyond it.

    Between two samples the line that joins them counts.
    """
    ordered = sorted(sample for timing in timings for sample in timing.samples)
    calls = max((timing.calls for timing in timings), default=1)
    return tuple(_percentile(ordered, percent, calls) for percent in PERCENTS)


def _percentile(ordered: Sequence[float], percent: int, calls: int) -> Percentile:
    needed = 1 if percent == 50 else math.ceil(100 / (100 - percent))
    if len(ordered) < needed:
        return Percentile(percent, None, f"takes {needed} samples, there are {len(ordered)}")
    if calls > 1 and percent != 50:
        return Percentile(percent, None, f"a sample is the mean of {calls} calls")
    place = (len(ordered) - 1) * percent / 100
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return Percentile(percent, ordered[below] + (place - below) * (ordered[above] - ordered[below]))


@dataclass(frozen=True)
class ComparedSide:
    """One of the two that are compared."""

    model: str
    setting: Setting
    how: How
    python: str | None = None  # an interpreter with another installed version of the project
    source: str | None = None  # a checkout of the project
