"""`profile_model`: the plain time, the ceilings, the counts and the profiler, in this process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from statistics import median

import torch
from torch import nn

from ...measurements import Ceilings, Timing
from ...models.declared import observing
from ...models.resolve import Spec, resolve
from ...profiles import CallGroup, ProfileRow, summed
from ...timings import TimeMode
from ...types import Setting
from ..complexity.ceilings import COPIED, ceilings
from ..count import count
from ..recorder import OperatorCall
from ..stages import stage_of
from ..timing import time_calls
from .attribute import AUTOGRAD, GRADIENTS, OPTIMIZER, Attributed, attribute, canonical
from .parts import answer, groups_of
from .prepare import check, check_memory, running, threads_set
from .runner import DeclaredRanges, Runner, module_ranges
from .spans import Span, profiled

LEAST_RUNS, MOST_RUNS = 3, 20
"""Under the profiler; one alone where a call takes longer than the whole budget."""

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
