"""Attention modules timed over growing maps and growing numbers of keys, beside the formula."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ... import units
from ...errors import MeasurementError, UsageError
from ...measurements import Ceilings, Measurements, Point, Timing
from ...models.mixers import make_mixer
from ...models.mixers.attention import Mixer
from ...types import Attention
from ..count import count
from ..recorder import OperatorCall
from ..timing import time_calls
from . import answers
from .ceilings import ceilings
from .formulas import Formula, formula_of
from .identity import FVCORE
from .jobs import DETR_POINTS, RATIO, WINDOW, How, Job, how_of, jobs_of
from .memory import available_bytes
from .shares import shares

SIDES = (7, 14, 21, 28, 35)
"""Multiples of a window of 7, so that no map is padded."""

_CEILINGS = 0.1
"""Of the budget."""

_PROFILED = 0.2
"""Of a point's seconds, the part for the profiler."""

_RUNS = 20
"""Under the profiler, at most."""

MEMORY = "out of memory"


@dataclass(frozen=True)
class _Counted:
    """A point that is counted and waits to be timed."""

    job: Job
    formula: Formula
    calls: Sequence[OperatorCall]
    point: Point


def measure(
    *,
    dim: int = 384,
    heads: int = 12,
    groups: int = 3,
    kernel: int = 5,
    sides: Sequence[int] = SIDES,
    strides: Sequence[int] = (8, 4, 2, 1),
    side_for_strides: int = SIDES[-1],
    batch: int = 1,
    dtype: str = "float32",
    device: str = "cpu",
    attention: Attention = "eager",
    budget: float = 45.0,
    step: Callable[[str], None] = lambda text: None,
) -> Measurements:
    """Measure DMHA and its peers; the sizes are the third stage's of DAT-T unless told.

    Where memory ends, the point says so. Ctrl-C ends the measuring and keeps the finished points.

    Args:
        sides: of square maps, at r = 1 (keys grow with the map; SRA reduces by `RATIO`).
        strides: r, on a map of side `side_for_strides`, for DMHA and SRA.
        budget: seconds, shared by the ceilings and all points; a slow call may pass it.
        step: told what is being measured.

    Raises:
        UsageError: sizes that do not fit each other, or too few of them for a line.
        MeasurementError: not one point could be measured.
    """
    jobs = list(jobs_of(dim, heads, groups, kernel, sides, strides, side_for_strides))
    how = how_of(dim, heads, batch, dtype, device, attention)
    if not budget > 0:
        raise UsageError(f"budget {budget:g}: write a number of seconds above 0.")
    start = time.perf_counter()
    points: list[Point] = []
    limits: Ceilings | None = None
    interrupted = False
    try:
        step("ceilings: matrix product and copy")
        limits = _ceilings(how, _CEILINGS * budget)
        waiting = [_counted(job, how) for job in jobs]
        weights = _weights([counted.point for counted in waiting])
        for number, counted in enumerate(waiting):
            step(f"{counted.job} ({number + 1} of {len(waiting)})")
            left = max(budget - (time.perf_counter() - start), 0.0)
            if counted.point.macs / limits.macs > max(left, 1.0):
                reason = "at the machine's best rate one call takes longer than the budget has left"
                points.append(replace(counted.point, reason=reason))
                continue
            seconds = left * weights[number] / sum(weights[number:])
            points.append(_rated(_measured(counted, how, seconds), limits))
    except KeyboardInterrupt:
        interrupted = True
    if points and not interrupted and all(point.timing is None for point in points):
        raise MeasurementError(f"no attention module could be measured: {points[0].reason}.")
    return Measurements(
        *(dim, heads, groups, kernel, WINDOW, RATIO, DETR_POINTS),
        *(batch, dtype, device, attention, budget, time.perf_counter() - start, limits),
        points=tuple(points),
        exponents=answers.exponents(points, RATIO, side_for_strides),
        ratios=answers.ratios(points),
        left_out=answers.left_out(points),
        interrupted=interrupted,
    )


def _ceilings(how: How, seconds: float) -> Ceilings:
    try:
        return ceilings(how.device, how.dtype, seconds)
    except (RuntimeError, MemoryError) as error:
        raise MeasurementError(
            f"the machine's ceilings on {how.device}: {_first(error)}."
        ) from error


def _counted(job: Job, how: How) -> _Counted:
    """The module's formula and its operators, from a run on meta."""
    bare = _built(job, replace(how, device=torch.device("meta")))
    formula = formula_of(bare, job.side, job.side)
    assert formula is not None
    x = torch.empty(how.shape(job.side), dtype=how.dtype, device="meta")
    calls = count(bare, x).calls
    point = Point(
        job.kind,
        job.side,
        job.side,
        formula.sizes.keys,
        job.stride,
        how.batch * sum(expected.formula for expected in formula.expected),
        sum(FVCORE.weigh(call.cost, call.module_type) for call in calls),
        sum(call.bytes_read + call.bytes_written for call in calls),
    )
    return _Counted(job, formula, calls, point)


def _weights(points: Sequence[Point]) -> list[float]:
    """How the seconds are shared: by the bytes that a call moves, a fifth of them evenly."""
    whole = sum(point.bytes for point in points)
    return [point.bytes + whole / (4 * len(points)) for point in points]


def _measured(counted: _Counted, how: How, seconds: float) -> Point:
    """Time, then profile; a reason where it does not run."""
    point = counted.point
    wanted = max(call.bytes_read + call.bytes_written for call in counted.calls)
    free = available_bytes(how.device)
    if free is not None and wanted > free:
        reason = f"one operator moves {units.size(wanted)}, {units.size(free)} are free"
        return replace(point, reason=f"{MEMORY}: {reason}")
    try:
        return _run(counted, how, seconds)
    except (RuntimeError, MemoryError) as error:
        reason = f"{MEMORY}: {_first(error)}" if _is_memory(error) else _first(error)
    if how.device.type == "cuda":
        torch.cuda.empty_cache()
    return replace(point, reason=reason)


def _first(error: Exception) -> str:
    """The first line of what torch says, without its full stop."""
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")


def _is_memory(error: Exception) -> bool:
    # A CPU's allocator raises a plain RuntimeError.
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or (
        "allocate" in str(error) and "memory" in str(error)
    )


def _built(job: Job, how: How) -> Mixer:
    """The module on its own, with a bias table of this map's size."""
    mixer = make_mixer(job.config, how.dim, how.heads, job.side).eval()
    mixer.attention = how.attention
    return mixer.to(how.device, how.dtype)


def _run(counted: _Counted, how: How, seconds: float) -> Point:
    mixer = _built(counted.job, how)
    x = torch.randn(how.shape(counted.job.side), device=how.device).to(how.dtype)  # (B, H, W, C)
    with torch.inference_mode():
        timing = time_calls(lambda: mixer(x), how.device, budget=(1 - _PROFILED) * seconds)
        point = replace(counted.point, timing=timing, peak_bytes=_peak(mixer, x))
        if timing.median > max(seconds, 1.0):
            return point  # its seconds are spent: another run would only double them
        runs = min(max(round(_PROFILED * seconds / timing.median), 1), _RUNS)
        return replace(point, shares=shares(mixer, counted.formula, counted.calls, x, runs))


def _peak(mixer: Mixer, x: Tensor) -> int | None:
    if not x.is_cuda:
        return None
    torch.cuda.reset_peak_memory_stats(x.device)
    mixer(x)
    return int(torch.cuda.max_memory_allocated(x.device))


def _rated(point: Point, limits: Ceilings) -> Point:
    """With what it achieves a second, and of the ceilings."""
    timing: Timing | None = point.timing
    if timing is None:
        return point
    macs, moved = point.macs / timing.median, point.bytes / timing.median
    return replace(
        point,
        mac_rate=macs,
        byte_rate=moved,
        mac_fraction=macs / limits.macs,
        byte_fraction=moved / limits.bytes,
    )
