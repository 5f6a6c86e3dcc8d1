"""Attention modules timed over growing maps and growing numbers of keys, beside the formula."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from .. import units
from ..counting.count import count
from ..counting.recorder import OperatorCall
from ..errors import MeasurementError, UsageError, first_line
from ..machine import check_device, warn_if_loaded
from ..models.config import Deformable, DeformableDetr, SpatialReduction, Stage, Window
from ..models.config import Mixer as MixerConfig
from ..models.declared import observing
from ..models.mixers import make_mixer
from ..models.mixers.attention import Mixer
from ..models.resolve import Spec
from ..models.spec import ModelSpec
from ..profile.attribute import DECLARED, MODULE, DeclaredRanges, Span, module_ranges, profiled
from ..run import available_bytes, memory_error
from ..setting import Attention, Kind, Resolution, Setting
from ..timing.ceilings import ceilings
from ..timing.records import Ceilings
from ..timing.sample import exponent, median_interval, time_calls
from .formulas import Formula, formula_of
from .identity import attribute, weight_of
from .records import (
    CostRatio,
    Exponent,
    LeftOut,
    MeasuredModule,
    Measurements,
    ShareGroup,
    TimeShare,
)

# What measured points say: exponents, r = 1 against global attention, what is left out.


_BOTH = 0.975
"""Two intervals of this level hold both medians, and so their ratio, at 95 % or more."""


def exponents(points: Sequence[MeasuredModule], ratio: int, side: int) -> tuple[Exponent, ...]:
    """Every line that three points or more make.

    Args:
        ratio: r of SRA where the map grows; everything else grows at r = 1.
        side: of the map on which Ns grows.
    """
    timed = [point for point in points if point.timing is not None]
    found = []
    for kind in dict.fromkeys(point.kind for point in timed):
        stride = ratio if kind == "SRA" else 1
        here = [p for p in timed if p.kind == kind and p.stride == stride]
        if len(here) >= 3:
            grid = kind in ("DMHA", "MSA", "SRA")
            held = f"r = {stride}" if grid else f"{here[0].keys} keys a query"
            found.append(_line(kind, "HW", held, here))
    for kind in ("DMHA", "SRA"):
        here = [p for p in timed if p.kind == kind and p.height == side]
        if len({point.keys for point in here}) >= 3:
            found.append(_line(kind, "Ns", f"HW = {side}x{side}", here))
    return tuple(found)


def _line(
    kind: str, over: Literal["HW", "Ns"], held: str, points: Sequence[MeasuredModule]
) -> Exponent:
    sizes = [p.height * p.width if over == "HW" else p.keys for p in points]
    time = exponent(sizes, [p.timing.median for p in points if p.timing])
    formula, macs, moved = (
        exponent(sizes, [getattr(point, cost) for point in points]).value
        for cost in ("formula", "macs", "bytes")
    )
    return Exponent(
        kind, over, held, len(points), time.value, time.low, time.high, formula, macs, moved
    )


def _pairs(
    points: Sequence[MeasuredModule],
) -> Iterator[tuple[MeasuredModule, MeasuredModule | None]]:
    """DMHA at r = 1 and MSA on the same map, small maps first."""
    timed = [p for p in points if p.timing is not None and p.stride == 1]
    everywhere = {p.height: p for p in timed if p.kind == "MSA"}
    for point in sorted((p for p in timed if p.kind == "DMHA"), key=lambda p: p.height):
        yield point, everywhere.get(point.height)


def ratios(points: Sequence[MeasuredModule]) -> tuple[CostRatio, ...]:
    """Deformable over global attention, on every map where both were timed."""
    found = []
    for ours, theirs in _pairs(points):
        if theirs is None:
            continue
        over, under = (median_interval(p.timing.samples, _BOTH) for p in (ours, theirs) if p.timing)
        enough = min(over.coverage, under.coverage) >= _BOTH
        peaks = ours.peak_bytes, theirs.peak_bytes
        ratio = CostRatio(
            ours.height,
            over.value / under.value,
            over.low / under.high if enough else None,
            over.high / under.low if enough else None,
            ours.formula / theirs.formula,
            ours.macs / theirs.macs,
            ours.bytes / theirs.bytes,
            peaks[0] / peaks[1] if peaks[0] and peaks[1] else None,
        )
        found.append(ratio)
    return tuple(found)


def left_out(points: Sequence[MeasuredModule]) -> tuple[LeftOut, ...]:
    """Time that the formula leaves out against MACs that it leaves out, on every map."""
    return tuple(
        LeftOut(
            ours.height,
            _share(ours, "left out"),
            _share(ours, "rest"),
            sum(share.mac_share for share in ours.shares if share.group == "left out"),
            ours.mac_fraction,
            _share(theirs, "rest") if theirs is not None and theirs.shares else None,
            theirs.mac_fraction if theirs is not None else None,
        )
        for ours, theirs in _pairs(points)
        if ours.shares and ours.mac_fraction is not None
    )


def _share(point: MeasuredModule, group: ShareGroup) -> float:
    return sum(share.share for share in point.shares if share.group == group)


# What is measured: the modules, the maps and strides, and what all of them share.


WINDOW = 7
"""Swin's."""

SIDES = (7, 14, 21, 28, 35)
"""Sides of the maps: multiples of a window of 7, so that no map is padded."""

RATIO = 2
"""The ratio of spatial reduction where the map grows."""

DETR_POINTS = 49
"""Keys a query in Table 8: as many as DAT-T's queries have at 224."""


Job: TypeAlias = tuple[str, MixerConfig, int, int]
"""One point to be: the kind of a module, the module, the side of a square map, and r."""


@dataclass(frozen=True)
class ModuleSetting:
    """What all points share."""

    dim: int
    heads: int
    batch: int
    dtype: torch.dtype
    device: torch.device
    attention: Attention

    def shape(self, side: int) -> tuple[int, int, int, int]:
        """(B, H, W, C) of a square map."""
        return self.batch, side, side, self.dim

    def build(self, config: MixerConfig, side: int, device: torch.device) -> Mixer:
        """A module on its own, with a bias table of this map's size."""
        mixer = make_mixer(config, self.dim, self.heads, side).eval()
        mixer.attention = self.attention
        return mixer.to(device, self.dtype)


def deformable_sizes(spec: Spec, stage: int) -> dict[str, int]:
    """Width, heads, groups and kernel of a model's deformable attention in a stage, from 1.

    Raises:
        UsageError: this stage has no deformable attention.
    """
    if isinstance(spec, ModelSpec):
        here = spec.config.stages[stage - 1]
        for mixer in here.blocks:
            if isinstance(mixer, Deformable):
                sizes = {"dim": here.dim, "heads": here.heads}
                return {**sizes, "groups": mixer.groups, "kernel": mixer.kernel}
    raise UsageError(
        f"{spec.name} has no deformable attention in stage {stage}; dat_t has it in 3 and 4."
    )


def jobs_of(
    dim: int,
    heads: int,
    groups: int,
    kernel: int,
    sides: Sequence[int],
    strides: Sequence[int],
    side_for_strides: int,
) -> Iterator[Job]:
    """Every point to be, once: small maps first, the modules of one map beside each other.

    Raises:
        UsageError: sizes that do not fit each other, or too few of them.
    """
    numbers = (dim, heads, groups, kernel, side_for_strides, *sides, *strides)
    if min(numbers) < 1:
        raise UsageError("widths, heads, groups, kernels, sides and strides are numbers from 1.")
    for what, values in (("sides", sides), ("strides", strides)):
        if len(set(values)) < 3:
            raise UsageError(f"{what}: a line with its interval takes three different ones.")
    if max(strides) > side_for_strides:
        raise UsageError(
            f"stride {max(strides)} leaves no key on a map of side {side_for_strides}; "
            "use smaller strides or a larger map."
        )
    if min(sides) < RATIO:
        raise UsageError(f"side {min(sides)}: the smallest map that SRA can reduce is {RATIO}.")
    try:
        Stage(dim, heads, (Deformable(groups, kernel),))
    except ValueError as error:
        raise UsageError(f"{error}.") from error
    for side in sorted(set(sides)):
        yield ("DMHA", Deformable(groups, kernel), side, 1)
        yield ("MSA", SpatialReduction(1), side, 1)
        yield ("SRA", SpatialReduction(RATIO), side, RATIO)
        yield ("W-MSA", Window(WINDOW), side, 1)
        yield ("D-DETR", DeformableDetr(DETR_POINTS), side, 1)
    for stride in sorted(set(strides), reverse=True):
        alone = side_for_strides not in sides  # else r = 1, and SRA's ratio, are there already
        if stride != 1 or alone:
            yield ("DMHA", Deformable(groups, kernel, stride), side_for_strides, stride)
        if stride != 1 and (stride != RATIO or alone):
            yield ("SRA", SpatialReduction(stride), side_for_strides, stride)


# Whose time it is: a module's operators under the profiler, attributed as its counts are.
#
# Each operator that the counter saw is a term's if the identity gives it to one, and else
# softmax, elementwise or neither. The profiler sees the same operators, in the same modules and
# with the same shapes. What an operator calls inside is its own, but for the copies that it
# makes.


REST = SOFTMAX, ELEMENTWISE, MOVES = ("softmax", "elementwise", "copies, views and dispatch")

_COPIES = frozenset("aten::copy_ aten::clone aten::_to_copy aten::contiguous".split())

_Shapes = tuple[tuple[int, ...], ...]

_Labels = Mapping[tuple[str, str], Mapping[_Shapes, str]]
"""By module and operator, and by shapes where these tell calls apart."""


def shares(
    mixer: Mixer, formula: Formula, calls: Sequence[OperatorCall], x: Tensor, runs: int
) -> tuple[TimeShare, ...]:
    """Every part of the module's time on `x`, terms first; the shares add up to 1.

    On a CPU it is the operators' own time, Python between them left out; on a GPU the kernels'.
    The profiler costs a microsecond or so an operator: on small maps that is not nothing.

    Args:
        calls: what the counter saw of this module on an input of this shape.
        runs: under the profiler; a part's time is its median over them.
    """
    names = [expected.name for expected in formula.expected if expected.predicted]
    in_formula = {expected.name for expected in formula.expected if expected.formula}
    macs = attribute("", mixer, formula, calls)
    operators = [_label(mixer, formula, call) for call in calls]
    labels: dict[tuple[str, str], dict[_Shapes, str]] = defaultdict(dict)
    for call, label in zip(calls, operators, strict=True):
        if call.cost:
            # Without numbers, which the profiler cannot tell from arguments that are not tensors.
            labels[call.module, call.operator][tuple(filter(None, call.shapes))] = label
    with module_ranges(mixer), observing(DeclaredRanges()):
        observed, _ = profiled(lambda: mixer(x), x.device, runs, shapes=True)
    seconds: dict[str, list[float]] = defaultdict(lambda: [0.0] * runs)
    for number, run in enumerate(observed):
        for span in run.backward:  # whatever is in no forward's range
            if span.name.startswith(MODULE):
                for label, spent in _placed(span, "", labels):
                    seconds[label][number] += spent
    within = {name: median(seconds[name]) for name in dict.fromkeys((*names, *REST, *seconds))}
    whole, counted = sum(within.values()), sum(macs.values())
    return tuple(
        TimeShare(
            name,
            "rest" if name in REST else "formula" if name in in_formula else "left out",
            spent,
            spent / whole if whole else 0.0,
            macs.get(name, 0),
            macs.get(name, 0) / counted if counted else 0.0,
            operators.count(name),
        )
        for name, spent in within.items()
    )


def _label(mixer: Mixer, formula: Formula, call: OperatorCall) -> str:
    """The term to which the identity gives a call; else what kind of work it is."""
    for term in attribute("", mixer, formula, [call]):
        return term
    if Kind.SOFTMAX in call.cost:
        return SOFTMAX
    return ELEMENTWISE if call.cost else MOVES


def _placed(
    span: Span, module: str, labels: _Labels, around: str | None = None
) -> Iterator[tuple[str, float]]:
    """The label and own seconds of an operator and of all inside.

    Args:
        around: the label of the operator that the module called, if this is inside of it.
    """
    if span.name.startswith(MODULE):
        module, around = span.name.removeprefix(MODULE), None
    else:
        if around is None and (found := labels.get((module, span.name.removeprefix(DECLARED)))):
            first = next(iter(found.values()))
            alike = len(set(found.values())) == 1
            around = first if alike else found.get(span.shapes, MOVES)
        yield MOVES if span.name in _COPIES else around or MOVES, span.own
    for child in span.children:
        yield from _placed(child, module, labels, around)


# The measuring itself.


_CEILINGS = 0.1
"""The machine peaks' part of the budget."""

_PROFILED = 0.2
"""The profiler's part of a point's seconds."""

_RUNS = 20
"""The most runs under the profiler."""


@dataclass(frozen=True)
class _Counted:
    """A point that is counted and waits to be timed."""

    config: MixerConfig
    formula: Formula
    calls: Sequence[OperatorCall]
    point: MeasuredModule


def measure(  # noqa: PLR0913 (a module and a grid, each by its sizes)
    *,
    dim: int = 384,
    heads: int = 12,
    groups: int = 3,
    kernel: int = 5,
    sides: Sequence[int] = SIDES,
    strides: Sequence[int] = (8, 4, 2, 1),
    side_for_strides: int | None = None,
    batch: int = 1,
    dtype: str = "float32",
    device: str = "cpu",
    attention: Attention = "eager",
    budget: float = 45.0,
    step: Callable[[str], None] = lambda text: None,
) -> Measurements:
    """Measure DMHA and other attention modules; by default with the sizes of DAT-T's stage 3.

    Where memory ends, the point says so. Ctrl-C ends the measuring and keeps the finished points.

    Args:
        sides: of square maps, at r = 1 (keys grow with the map; SRA reduces by `RATIO`).
        strides: r, on a map of side `side_for_strides` (default: the largest), for DMHA and SRA.
        budget: seconds, shared by the machine peaks and all points; a slow call may pass it.
        step: told what is being measured.

    Raises:
        UsageError: sizes that do not fit each other, or too few of them for a line; or it cannot
            be timed so, or not here.
        MeasurementError: not one point could be measured.
    """
    if side_for_strides is None:
        side_for_strides = max(sides, default=0)
    jobs = list(jobs_of(dim, heads, groups, kernel, sides, strides, side_for_strides))
    Setting(Resolution(224, 224), batch, dtype, device, attention)  # refuses what is not known
    where = check_device(device)
    if where.type == "meta":
        raise UsageError("nothing runs on meta, so nothing can be timed; use cpu or cuda.")
    how = ModuleSetting(dim, heads, batch, getattr(torch, dtype), where, attention)
    if not budget > 0:
        raise UsageError(f"budget {budget:g}: write a number of seconds above 0.")
    warn_if_loaded()
    start = time.perf_counter()
    points: list[MeasuredModule] = []
    limits: Ceilings | None = None
    interrupted = False
    try:
        step("machine peak: matrix product and copy")
        limits = _ceilings(how, _CEILINGS * budget)
        waiting = [_counted(job, how) for job in jobs]
        # Seconds are shared by the bytes that a call moves, a fifth of them evenly.
        evenly = sum(counted.point.bytes for counted in waiting) / (4 * len(waiting))
        weights = [counted.point.bytes + evenly for counted in waiting]
        for number, counted in enumerate(waiting):
            step(f"{counted.point.name} ({number + 1} of {len(waiting)})")
            left = max(budget - (time.perf_counter() - start), 0.0)
            if counted.point.macs / limits.macs > max(left, 1.0):
                reason = "at the machine's best rate one call takes longer than the budget has left"
                points.append(replace(counted.point, reason=reason))
                continue
            seconds = left * weights[number] / sum(weights[number:])
            points.append(_measured(counted, how, limits, seconds))
    except KeyboardInterrupt:
        interrupted = True
    if points and not interrupted and all(point.timing is None for point in points):
        raise MeasurementError(f"no attention module could be measured: {points[0].reason}.")
    return Measurements(
        *(dim, heads, groups, kernel, WINDOW, RATIO, DETR_POINTS),
        *(batch, dtype, device, attention, budget, time.perf_counter() - start, limits),
        points=tuple(points),
        exponents=exponents(points, RATIO, side_for_strides),
        ratios=ratios(points),
        left_out=left_out(points),
        interrupted=interrupted,
    )


def _ceilings(how: ModuleSetting, seconds: float) -> Ceilings:
    try:
        return ceilings(how.device, how.dtype, seconds)
    except (RuntimeError, MemoryError) as error:
        raise MeasurementError(
            f"the machine peaks on {how.device}: {first_line(error)}."
        ) from error


def _counted(job: Job, how: ModuleSetting) -> _Counted:
    """The module's formula and its operators, from a run on meta."""
    kind, config, side, stride = job
    bare = how.build(config, side, torch.device("meta"))
    formula = formula_of(bare, side, side)
    assert formula is not None
    calls = count(bare, torch.empty(how.shape(side), dtype=how.dtype, device="meta")).calls
    published = how.batch * sum(expected.formula for expected in formula.expected)
    macs = sum(weight_of(call) for call in calls)
    moved = sum(call.bytes_read + call.bytes_written for call in calls)
    keys = formula.sizes.keys
    point = MeasuredModule(kind, side, side, keys, stride, published, macs, moved)
    return _Counted(config, formula, calls, point)


def _measured(
    counted: _Counted, how: ModuleSetting, limits: Ceilings, seconds: float
) -> MeasuredModule:
    """The point with its time and parts; with a reason where the module does not run."""
    wanted = max(call.bytes_read + call.bytes_written for call in counted.calls)
    free = available_bytes(how.device)
    if free is not None and wanted > free:
        reason = (
            f"out of memory: one operator moves {units.size(wanted)}, {units.size(free)} are free"
        )
        return replace(counted.point, reason=reason)
    try:
        return _timed(counted, how, limits, seconds)
    except (RuntimeError, MemoryError) as error:
        reason = "out of memory: " if memory_error(error) is not None else ""
        reason += first_line(error)
    if how.device.type == "cuda":
        torch.cuda.empty_cache()
    return replace(counted.point, reason=reason)


def _timed(
    counted: _Counted, how: ModuleSetting, limits: Ceilings, seconds: float
) -> MeasuredModule:
    side = counted.point.height
    mixer = how.build(counted.config, side, how.device)
    x = torch.randn(how.shape(side), device=how.device).to(how.dtype)  # (B, H, W, C)
    peak: int | None = None
    with torch.inference_mode():
        timing = time_calls(lambda: mixer(x), how.device, budget=(1 - _PROFILED) * seconds)
        if x.is_cuda:
            torch.cuda.reset_peak_memory_stats(x.device)
            mixer(x)
            peak = int(torch.cuda.max_memory_allocated(x.device))
        macs, moved = counted.point.macs / timing.median, counted.point.bytes / timing.median
        point = replace(
            counted.point,
            timing=timing,
            peak_bytes=peak,
            mac_rate=macs,
            byte_rate=moved,
            mac_fraction=macs / limits.macs,
            byte_fraction=moved / limits.bytes,
        )
        if timing.median > max(seconds, 1.0):
            return point  # its seconds are spent: another run would only double them
        runs = min(max(round(_PROFILED * seconds / timing.median), 1), _RUNS)
        return replace(point, shares=shares(mixer, counted.formula, counted.calls, x, runs))
