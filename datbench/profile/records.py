"""Where one model's time goes, as plain values: time beside MACs and bytes, and the roofline.

All times are in seconds and of one run, all amounts of work are one run's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..errors import UsageError
from ..files import check_path, same_file
from ..setting import Count, Setting, TimeMode
from ..timing.records import CERTAIN, Ceilings, Timing
from ..units import Brief

Bound = Literal["compute", "memory", "above", "neither"]
"""The machine peak that limits an operator, which reaches half of that rate or more. Above: it is
faster than a peak, which therefore is not its limit. Neither: it reaches half of neither peak."""

Work = Literal["counted", "uncounted", "moves", "dispatch"]
"""What FLOPs say of an operator: they count it; it computes and they do not; it moves bytes alone;
it is a view, a wrapper around others, or autograd at work."""

NEAR = 0.5
"""A part of a machine peak: a peak limits the operators that reach this part of it or more."""

ABOVE = 1.2
"""A part of a machine peak: a peak does not limit an operator beyond this part of it. The tensors
stay in a cache, or the peak was measured too low."""

BOUNDS: tuple[Bound, ...] = ("compute", "memory", "above", "neither")

WORKS: tuple[Work, ...] = ("counted", "uncounted", "moves", "dispatch")

ProfilePhase = Literal["forward", "backward", "step"]

Matching = Literal["calls", "modules"]
"""How the forward's times met the counts: call by call, or by module and operator alone."""


@dataclass(frozen=True)
class ProfilePart:
    """A part of a run: a stage, a module, an operator or a group of equal calls."""

    name: str
    calls: Count  # of operators, in one run
    seconds: float  # under the profiler, the median over the runs
    share: float  # of all parts' seconds, 0 to 1
    macs: Count  # as fvcore weighs them, which is what papers print
    mac_share: float
    bytes: Count  # of the tensors that its operators take and make
    byte_share: float
    # mac_fraction, byte_fraction: of the machine peaks; None where nothing is counted or moved
    mac_fraction: float | None
    byte_fraction: float | None
    intensity: float | None  # MACs for each byte; None where no byte moves
    ideal: float  # at machine peak: each group of equal calls at the peak that limits it
    bound: Bound
    gap: float | None  # `share` over the share of the MACs; None where there are no MACs

    @property
    def excess(self) -> float:
        """The share of the time that FLOPs did not announce; below 0 where they promised more."""
        return self.share - self.mac_share


@dataclass(frozen=True)
class ProfileTotal:
    """The sums of a whole run, as `ProfilePart` has them."""

    seconds: float
    macs: Count
    bytes: Count


@dataclass(frozen=True)
class CallGroup:
    """Equal calls: one operator in one module, and with one set of shapes where that is known."""

    operator: str
    module: str
    stage: str
    phase: ProfilePhase
    work: Work
    shapes: tuple[tuple[int, ...], ...]
    part: ProfilePart


@dataclass(frozen=True, repr=False)
class ProfileAnswer(Brief):
    """Why the run is slower than its MACs say, in shares of the operators' time."""

    # counted, uncounted, moves, dispatch: by what FLOPs say of an operator; together 1
    counted: float
    uncounted: float
    moves: float
    dispatch: float
    # compute, memory, neither, above: by the machine peak that limits its calls; together 1
    compute: float
    memory: float
    neither: float
    # what as many operators on a single element would take; on a GPU, the part of the plain time in
    # which no kernel runs. Not in addition to the others.
    launching: float
    above: float = 0.0


@dataclass(frozen=True, repr=False)
class ProfileRow(Brief):
    """One model at one setting, profiled in this process."""

    model: str
    setting: Setting
    mode: TimeMode
    threads: Count  # that torch ran an operator with
    channels_last: bool
    timing: Timing  # without the profiler
    ceilings: Ceilings
    runs: Count  # under the profiler
    profiled: float  # of a run under the profiler, the median
    overhead: float  # `profiled` over the plain median, less 1
    busy: float  # in operators (on a GPU: in kernels), profiler and all
    # of the plain median, outside operators; 0 where the profiler made these slower than the whole
    # is without it. Means something only where `between_certain`.
    between: float
    launch: float | None  # of an operator on a single element, profiler and all; None on a GPU
    ideal: float  # at machine peak, all parts one after another
    macs: Count
    bytes: Count
    matching: Matching  # of the forward; `reason` says why it is not by calls
    matched: Count  # calls of the counter's forward that every run had, in order; of `expected`
    expected: Count
    reason: str | None
    unseen: dict[str, int]  # operators that ran and that the counter did not see, by name, a run
    answer: ProfileAnswer
    stages: tuple[ProfilePart, ...]
    modules: tuple[ProfilePart, ...]
    operators: tuple[ProfilePart, ...]
    groups: tuple[CallGroup, ...]  # of equal calls, the most time first

    @property
    def between_certain(self) -> bool:
        """Whether the plain time is known so well that operators' may be taken from it."""
        return self.overhead >= 0 and self.timing.coverage >= CERTAIN

    @property
    def ceilings_bind(self) -> bool:
        """Whether all operators together are slower than at machine peak."""
        return self.ideal <= self.busy


def part_of(
    name: str,
    calls: Count,
    seconds: float,
    macs: Count,
    moved: int,
    ideal: float,
    total: ProfileTotal,
    limits: Ceilings,
) -> ProfilePart:
    """A part from its sums, compared with the whole and with the machine peaks."""
    share = seconds / total.seconds if total.seconds else 0.0
    mac_share = macs / total.macs if total.macs else 0.0
    timed = seconds > 0
    return ProfilePart(
        name,
        calls,
        seconds,
        share,
        macs,
        mac_share,
        moved,
        moved / total.bytes if total.bytes else 0.0,
        macs / seconds / limits.macs if macs and timed else None,
        moved / seconds / limits.bytes if moved and timed else None,
        macs / moved if moved else None,
        ideal,
        _bound(macs, moved, seconds, limits),
        share / mac_share if mac_share else None,
    )


def _bound(macs: int, moved: int, seconds: float, limits: Ceilings) -> Bound:
    compute, memory = macs / limits.macs, moved / limits.bytes
    if max(compute, memory) < NEAR * seconds or not seconds:
        return "neither"
    if max(compute, memory) > ABOVE * seconds:
        return "above"
    return "compute" if compute >= memory else "memory"


def summed(
    groups: Sequence[CallGroup], name: Callable[[CallGroup], str], limits: Ceilings
) -> tuple[ProfilePart, ...]:
    """Groups that share a name, the most time first."""
    named: dict[str, list[ProfilePart]] = {}
    for group in groups:
        named.setdefault(name(group), []).append(group.part)
    total = _total([group.part for group in groups])
    found = []
    for key, parts in named.items():
        own = _total(parts)
        calls, ideal = sum(p.calls for p in parts), sum(p.ideal for p in parts)
        found.append(part_of(key, calls, own.seconds, own.macs, own.bytes, ideal, total, limits))
    return tuple(sorted(found, key=lambda part: -part.seconds))


def _total(parts: Sequence[ProfilePart]) -> ProfileTotal:
    return ProfileTotal(
        sum(p.seconds for p in parts), sum(p.macs for p in parts), sum(p.bytes for p in parts)
    )


TRACES = (".json", ".json.gz")


def check_trace(trace: Path, out: Path | None) -> None:
    """Refuse a trace's file that cannot be written, or that the result would be written over.

    Raises:
        UsageError: it is named as something else, or is the file of the result.
    """
    if not trace.name.lower().endswith(TRACES):
        raise UsageError(f"--trace {trace}: a trace is written as {' or '.join(TRACES)}.")
    check_path(trace, "--trace")
    if out is not None and same_file(trace, out):
        raise UsageError(f"--out {out} and --trace {trace} are one file; name two files.")
