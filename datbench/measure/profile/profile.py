"""`profile_model`: the plain time, the ceilings, the counts and the profiler, in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from ... import units
from ...errors import MeasurementError, UsageError
from ...measurements import Ceilings, Timing
from ...models.declared import observing
from ...models.resolve import Spec, resolve
from ...models.spec import ModelSpec
from ...profiles import CallGroup, ProfileRow, summed
from ...timings import TimeMode
from ...types import Setting
from ..complexity.ceilings import COPIED, ceilings
from ..complexity.memory import available_bytes
from ..count import build_for_count, count, count_model
from ..recorder import OperatorCall
from ..stages import stage_of
from ..timing import time_calls
from .attribute import AUTOGRAD, GRADIENTS, OPTIMIZER, Attributed, attribute, canonical
from .parts import answer, groups_of
from .runner import DeclaredRanges, Runner, kept, module_ranges, reported
from .spans import Span, profiled

LEAST_RUNS, MOST_RUNS = 3, 20
"""Under the profiler; one alone where a call takes longer than the whole budget."""


_MODEST = 0.005
"""Of the free memory: for images smaller than that no operator is looked at."""

_CEILINGS, _PLAIN = 0.25, 0.4
"""Of the budget; the profiler has the rest."""

_SMALL = (512, 1024)
"""Sides of the matrix products where the budget is below `_LITTLE` seconds. The copy is of a
quarter of the bytes then."""

_LITTLE = 2.0


def profile_model(
    model: str | Spec,
    setting: Setting,
    mode: TimeMode = "infer",
    *,
    threads: int | None = None,
    channels_last: bool = False,
    budget: float = 5.0,
    step: Callable[[str], None] = lambda text: None,
) -> ProfileRow:
    """Build a model and profile it on the setting's device.

    Args:
        threads: of an operator on a CPU; torch's own number unless told.
        budget: seconds for ceilings, plain timing and profiler together; a slow call may pass it.
        step: told what is at work.

    Raises:
        UsageError: a setting that cannot be profiled.
        MeasurementError: it does not run with this setting, for lack of memory perhaps.
    """
    check(setting, threads, budget)
    spec = resolve(model) if isinstance(model, str) else model
    check_memory(spec, setting)
    with threads_set(threads):
        step("ceilings: matrix product and copy")
        device, dtype = torch.device(setting.device), getattr(torch, setting.dtype)
        little = budget < _LITTLE and device.type == "cpu"
        sides, copied = (_SMALL, COPIED // 4) if little else (None, COPIED)
        limits = ceilings(device, dtype, _CEILINGS * budget, sides, copied)
        with running(spec, setting, mode, channels_last) as (_, runner):
            return _profiled(spec.name, runner, setting, limits, budget, step, channels_last)


def check(setting: Setting, threads: int | None, budget: float) -> None:
    """Refuse what cannot be measured.

    Raises:
        UsageError: a device without values, no thread, or no time.
    """
    if setting.device == "meta":
        raise UsageError("a profile is of a run: take --device cpu or cuda; meta runs nothing.")
    if threads is not None and threads < 1:
        raise UsageError(f"threads {threads}: write a number from 1.")
    if not 0 < budget < float("inf"):
        raise UsageError(f"budget {budget:g}: write a number of seconds above 0.")


def check_memory(spec: Spec, setting: Setting) -> None:
    """Refuse a batch for which the system would end the process instead of refusing memory.

    Raises:
        MeasurementError: the images, or the tensors of one operator, are larger than what is free.
    """
    free = available_bytes(torch.device(setting.device))
    if free is None:
        return
    size = setting.resolution
    images = 3 * size.height * size.width * setting.batch
    images *= getattr(torch, setting.dtype).itemsize
    if images < _MODEST * free:
        return
    largest = 2 * images
    if images <= free:
        with suppress(MeasurementError):  # some models of others do not run on meta
            calls = count_model(spec, replace(setting, device="meta", backward=False)).calls
            largest = max(call.bytes_read + call.bytes_written for call in calls)
    if largest > free:
        raise MeasurementError(
            f"{spec.name} at {size}, batch {setting.batch} on {setting.device}: out of memory: "
            f"one operator takes {units.size(largest)}, {units.size(free)} are free; profile a "
            "smaller batch."
        )


@contextmanager
def running(
    model: str | Spec, setting: Setting, mode: TimeMode, channels_last: bool
) -> Iterator[tuple[Spec, Runner]]:
    """A model built and ready to run; what goes wrong meanwhile becomes one line."""
    spec = resolve(model) if isinstance(model, str) else model
    built = build_for_count(spec, replace(setting, backward=False)).train(mode == "train")
    with reported(spec.name, setting, not isinstance(spec, ModelSpec)):
        image = _image(setting)
        if channels_last:
            built, image = _channels_last(built), image.to(memory_format=torch.channels_last)
        with kept(built):
            yield spec, Runner(built, (image,), mode)


def _channels_last(model: nn.Module) -> nn.Module:
    to: Any = model.to  # torch does not type this form
    last: nn.Module = to(memory_format=torch.channels_last)
    return last


def _image(setting: Setting) -> Tensor:
    """A batch of random images, the same every time, (B, 3, H, W)."""
    size = setting.resolution
    shape = (setting.batch, 3, size.height, size.width)
    dtype: torch.dtype = getattr(torch, setting.dtype)
    random = torch.Generator().manual_seed(0)
    return torch.randn(shape, generator=random).to(setting.device, dtype)


@contextmanager
def threads_set(wanted: int | None) -> Iterator[None]:
    """So many threads an operator meanwhile; torch's own number if None."""
    before = torch.get_num_threads()
    torch.set_num_threads(wanted or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@dataclass(frozen=True)
class Observed:
    """What the profiler saw, attributed run by run.

    Args:
        seconds: of each run, profiler and all.
        reason: why the forward went by modules.
    """

    runs: tuple[Attributed, ...]
    seconds: tuple[float, ...]
    expected: int
    matched: int
    reason: str | None


def _profiled(
    name: str,
    runner: Runner,
    setting: Setting,
    limits: Ceilings,
    budget: float,
    step: Callable[[str], None],
    channels_last: bool,
) -> ProfileRow:
    device = torch.device(setting.device)
    step("the plain call, without the profiler")
    timing = time_calls(runner, device, budget=_PLAIN * budget)
    step("counting")
    train = runner.mode == "train"
    calls = count(runner.model, *runner.inputs, backward=train).calls
    calls += tuple(_as_step(call) for call in runner.step_calls())
    rest = (1 - _CEILINGS - _PLAIN) * budget
    least = LEAST_RUNS if timing.median < budget else 1
    number = min(max(round(rest / (2 * timing.median)), least), MOST_RUNS)
    step(f"{number} runs under the profiler")
    seen = observe(runner, calls, device, number)
    launch = None if device.type == "cuda" else _launch(device, getattr(torch, setting.dtype))
    groups = groups_of(seen.runs, calls, _stages(runner.model), limits)
    return _row(name, runner, setting, limits, timing, seen, groups, launch, channels_last)


def _as_step(call: OperatorCall) -> OperatorCall:
    """An optimizer's operator: bytes that move, and no cost of the model's."""
    return replace(call, module=OPTIMIZER, module_type="", phase="backward", cost={}, status="free")


def observe(
    runner: Runner, calls: Sequence[OperatorCall], device: torch.device, number: int
) -> Observed:
    """Runs under the profiler beside the counter's calls: call by call, else by modules' ranges."""
    forward = [call for call in calls if call.phase == "forward"]
    backward = [call for call in calls if call.phase == "backward"]
    names = {canonical(call.operator) for call in calls if call.module == OPTIMIZER}

    def once(runs: int, *, ranges: bool) -> tuple[list[Attributed], list[float]]:
        with ExitStack() as stack:
            stack.enter_context(observing(DeclaredRanges()))
            if ranges:
                stack.enter_context(module_ranges(runner.model))
            found, seconds = profiled(runner.ranged, device, runs)
        return [attribute(run, forward, backward, names) for run in found], seconds

    once(1, ranges=False)  # the profiler's own first time
    runs, seconds = once(number, ranges=False)
    matched, expected = min(run.matched for run in runs), runs[0].expected
    reason = None
    if not all(run.complete for run in runs):
        runs, seconds = once(number, ranges=True)
        reason = (
            f"the run's operators are not the counter's from call {matched + 1} of {expected} on: "
            "the model does something else under the counter"
        )
        for run in runs:
            run.complete = False
    return Observed(tuple(runs), tuple(seconds), expected, matched, reason)


def _launch(device: torch.device, dtype: torch.dtype) -> float:
    """Seconds under the profiler of an operator on a single element."""
    one = torch.ones(1, dtype=dtype, device=device)

    def run() -> None:
        with torch.inference_mode():
            for _ in range(200):
                one.add(one)

    profiled(run, device, 1)
    runs, _ = profiled(run, device, 1)
    spans: Sequence[Span] = runs[0].backward  # outside of any forward
    return median(span.whole for span in spans if span.name == "aten::add")


def _stages(model: nn.Module) -> Callable[[str], str]:
    def stage(module: str) -> str:
        return module if module in (OPTIMIZER, GRADIENTS, AUTOGRAD) else stage_of(model, module)

    return stage


def _row(
    name: str,
    runner: Runner,
    setting: Setting,
    limits: Ceilings,
    timing: Timing,
    seen: Observed,
    groups: tuple[CallGroup, ...],
    launch: float | None,
    channels_last: bool,
) -> ProfileRow:
    busy = sum(group.part.seconds for group in groups)
    whole = median(seen.seconds)
    between = max(0.0, timing.median - busy)
    unseen = {
        operator: round(sum(run.unseen[operator] for run in seen.runs) / len(seen.runs))
        for operator in dict.fromkeys(o for run in seen.runs for o in run.unseen)
    }
    return ProfileRow(
        model=name,
        setting=setting,
        mode=runner.mode,
        threads=torch.get_num_threads(),
        channels_last=channels_last,
        timing=timing,
        ceilings=limits,
        runs=len(seen.runs),
        profiled=whole,
        overhead=whole / timing.median - 1,
        busy=busy,
        between=between,
        launch=launch,
        ideal=sum(group.part.ideal for group in groups),
        macs=sum(group.part.macs for group in groups),
        bytes=sum(group.part.bytes for group in groups),
        matching="calls" if seen.reason is None else "modules",
        matched=seen.matched,
        expected=seen.expected,
        reason=seen.reason,
        unseen=unseen,
        answer=answer(groups, launch, between / timing.median),
        stages=summed(groups, lambda group: group.stage, limits),
        modules=summed(groups, lambda group: group.module or "(model)", limits),
        operators=summed(groups, lambda group: group.operator, limits),
        groups=groups,
    )
