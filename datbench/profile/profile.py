"""`profile_model`: plain time, machine peaks, counts and the profiler, all in this process."""

from __future__ import annotations

import gzip
import json
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from .. import units
from ..counting.conventions import CONVENTIONS
from ..counting.count import build_for_count, count, count_built, stage_of, warn_of_sampling
from ..counting.recorder import ModuleTracker, OperatorCall, Recorder
from ..errors import MeasurementError, UsageError
from ..machine import check_device, warn_if_loaded
from ..models.declared import observing
from ..models.resolve import Spec, is_ours, resolve
from ..run import (
    Runner,
    as_built,
    available_bytes,
    quiet_kineto,
    ready,
    reported,
    synchronize,
    threads_set,
    unchanged,
)
from ..setting import How, Setting, TimeMode
from ..timing.ceilings import COPIED, ceilings
from ..timing.records import Ceilings
from ..timing.sample import time_calls
from .attribute import (
    AUTOGRAD,
    GRADIENTS,
    OPTIMIZER,
    Attributed,
    DeclaredRanges,
    Key,
    Span,
    attribute,
    canonical,
    for_people,
    is_composite,
    key_of,
    module_ranges,
    phase_range,
    profiled,
)
from .records import (
    BOUNDS,
    WORKS,
    CallGroup,
    ProfileAnswer,
    ProfileRow,
    ProfileTotal,
    Work,
    part_of,
    summed,
)

# Groups of equal calls: time beside work, and beside the machine peaks.


FVCORE = CONVENTIONS["fvcore"]

_MOVERS = ("copy", "clone", "empty", "fill", "zero", "as_strided")
"""In the names of operators that compute nothing, where the counter did not see them."""


def groups_of(
    runs: Sequence[Attributed],
    calls: Sequence[OperatorCall],
    stage_of: Callable[[str], str],
    limits: Ceilings,
) -> tuple[CallGroup, ...]:
    """Every key's time and work, the most time first; the shares add up to 1."""
    by_call = runs[0].complete
    counted: dict[Key, list[OperatorCall]] = {}
    for call in calls:
        key = key_of(call, by_shapes=by_call and call.phase == "forward")
        counted.setdefault(key, []).append(call)
    keys = dict.fromkeys([*counted, *(key for run in runs for key in run.seconds)])
    seconds = {key: median(run.seconds.get(key, 0.0) for run in runs) for key in keys}
    total = ProfileTotal(sum(seconds.values()), _macs(calls), _bytes(calls))
    found = []
    for key in keys:
        known = counted.get(key, [])
        number = len(known) or round(sum(run.calls[key] for run in runs) / len(runs))
        phase, module, operator, shapes = key
        macs, moved = _macs(known), _bytes(known)
        ideal = max(macs / limits.macs, moved / limits.bytes)
        part = part_of(operator, number, seconds[key], macs, moved, ideal, total, limits)
        work = _work(module, operator, known)
        found.append(CallGroup(operator, module, stage_of(module), phase, work, shapes, part))
    return tuple(sorted(found, key=lambda group: -group.part.seconds))


def _macs(calls: Iterable[OperatorCall]) -> int:
    return sum(FVCORE.weigh(call.cost, call.module_type) for call in calls)


def _bytes(calls: Iterable[OperatorCall]) -> int:
    return sum(call.bytes_read + call.bytes_written for call in calls)


def _work(module: str, operator: str, calls: Sequence[OperatorCall]) -> Work:
    if _macs(calls):
        return "counted"
    if any(call.cost or call.status == "unknown" for call in calls):
        return "uncounted"
    if _bytes(calls) or (module == GRADIENTS and operator != AUTOGRAD):
        return "moves"
    if calls or not operator.startswith("aten::") or is_composite(operator):
        return "dispatch"
    return "moves" if any(word in operator for word in _MOVERS) else "uncounted"


def answer(groups: Sequence[CallGroup], launch: float | None, waiting: float) -> ProfileAnswer:
    """Shares of the time, by what FLOPs count and by the machine peak that limits an operator.

    Args:
        launch: seconds of an operator on a single element; None on a GPU.
        waiting: on a GPU, the share of the plain time in which no kernel runs.
    """
    parts = [group.part for group in groups]
    total = sum(part.seconds for part in parts)
    launching = waiting
    if launch is not None:
        spent = sum(min(part.calls * launch, part.seconds) for part in parts)
        launching = spent / total if total else 0.0
    return ProfileAnswer(
        **{work: sum(g.part.share for g in groups if g.work == work) for work in WORKS},
        **{bound: sum(part.share for part in parts if part.bound == bound) for bound in BOUNDS},
        launching=launching,
    )


# A model made ready for a profile or a trace; what cannot be profiled is refused first.


_MODEST = 0.005
"""A part of the free memory: operators are looked at only if the images are larger than it."""


def _check(setting: Setting, threads: int | None, budget: float) -> None:
    """Refuse what cannot be measured.

    Raises:
        UsageError: a device that is not here or without values, no thread, or no time.
    """
    check_device(setting.device)
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
            there = replace(setting, device="meta", backward=False)
            calls = count_built(spec.name, build_for_count(spec, there), there).calls
            largest = max(call.bytes_read + call.bytes_written for call in calls)
    if largest > free:
        raise MeasurementError(
            f"{spec.name} at {size}, batch {setting.batch} on {setting.device}: out of memory: "
            f"one operator takes {units.size(largest)}, {units.size(free)} are free; profile a "
            "smaller batch."
        )


@contextmanager
def running(spec: Spec, setting: Setting, mode: TimeMode, channels_last: bool) -> Iterator[Runner]:
    """A model built and ready to run; what goes wrong meanwhile becomes one line."""
    with reported(spec.name, setting, not is_ours(spec)):
        runner = ready(spec, setting, How(mode, channels_last=channels_last))
        with unchanged(runner.model):
            yield runner


def step_calls(runner: Runner) -> tuple[OperatorCall, ...]:
    """What the optimizer's step calls: bytes that move, and no cost of the model's."""
    if runner.optimizer is None:
        return ()
    for parameter in runner.model.parameters():
        if parameter.requires_grad:
            parameter.grad = torch.zeros_like(parameter)
    recorder = Recorder(ModuleTracker(runner.model))
    with recorder:
        runner.optimizer.step()
    runner.optimizer.zero_grad(set_to_none=True)
    return tuple(
        call._replace(module=OPTIMIZER, module_type="", phase="backward", cost={}, status="free")
        for call in recorder.calls
    )


LEAST_RUNS, MOST_RUNS = 3, 20
"""Under the profiler; one alone where a call takes longer than the whole budget."""

_CEILINGS, _PLAIN = 0.25, 0.4
"""Their parts of the budget; the profiler has the rest."""

_SMALL = (512, 1024)
"""Sides of the matrix products where the budget is below `_LITTLE` seconds. The copy is of a
quarter of the bytes then."""

_LITTLE = 2.0


def profile_model(
    model: str | Spec,
    setting: Setting,
    mode: TimeMode = "inference",
    *,
    threads: int | None = None,
    channels_last: bool = False,
    budget: float = 5.0,
    step: Callable[[str], None] = lambda text: None,
) -> ProfileRow:
    """Build a model and profile it on the setting's device.

    Args:
        threads: of an operator on a CPU; default: torch's own number.
        budget: seconds for machine peaks, plain timing and profiler; a slow call may pass it.
        step: told what is at work.

    Raises:
        UsageError: a setting that cannot be profiled.
        MeasurementError: it does not run with this setting, for lack of memory perhaps.
    """
    _check(setting, threads, budget)
    warn_if_loaded()
    spec = resolve(model) if isinstance(model, str) else model
    check_memory(spec, setting)
    device, dtype = torch.device(setting.device), getattr(torch, setting.dtype)
    with threads_set(threads):
        step("machine peak: matrix product and copy")
        little = budget < _LITTLE and device.type == "cpu"
        sides, copied = (_SMALL, COPIED // 4) if little else (None, COPIED)
        limits = ceilings(device, dtype, _CEILINGS * budget, sides, copied)
        with running(spec, setting, mode, channels_last) as runner:
            step("the plain call, without the profiler")
            timing = time_calls(runner, device, budget=_PLAIN * budget)
            step("counting")
            args, named = runner.inputs
            calls = count(runner.model, *args, backward=mode == "step", kwargs=named).calls
            warn_of_sampling(spec, as_built(runner.model, setting), calls)
            calls += step_calls(runner)
            rest = (1 - _CEILINGS - _PLAIN) * budget
            least = LEAST_RUNS if timing.median < budget else 1
            number = min(max(round(rest / (2 * timing.median)), least), MOST_RUNS)
            step(f"{number} runs under the profiler")
            seen = observe(runner, calls, device, number)
            launch = None if device.type == "cuda" else _launch(device, dtype)
            threads = torch.get_num_threads()

    def stage(module: str) -> str:
        others = (OPTIMIZER, GRADIENTS, AUTOGRAD)
        return module if module in others else stage_of(runner.model, module)

    groups = groups_of(seen.runs, calls, stage, limits)
    busy = sum(group.part.seconds for group in groups)
    between = max(0.0, timing.median - busy)
    whole = median(seen.seconds)
    names = dict.fromkeys(name for run in seen.runs for name in run.unseen)
    return ProfileRow(
        model=spec.name,
        setting=setting,
        mode=mode,
        threads=threads,
        channels_last=channels_last,
        timing=timing,
        ceilings=limits,
        runs=number,
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
        unseen={n: round(sum(run.unseen[n] for run in seen.runs) / number) for n in names},
        answer=answer(groups, launch, between / timing.median),
        stages=summed(groups, lambda group: group.stage, limits),
        modules=summed(groups, lambda group: group.module or "(model)", limits),
        operators=summed(groups, lambda group: group.operator, limits),
        groups=groups,
    )


@dataclass(frozen=True)
class ObservedRuns:
    """What the profiler saw, attributed run by run."""

    runs: tuple[Attributed, ...]
    seconds: tuple[float, ...]  # of each run, profiler and all
    expected: int
    matched: int
    reason: str | None  # why the forward went by modules


def observe(
    runner: Runner, calls: Sequence[OperatorCall], device: torch.device, number: int
) -> ObservedRuns:
    """Runs under the profiler beside the counter's calls: call by call, else by modules' ranges."""
    forward = [call for call in calls if call.phase == "forward"]
    backward = [call for call in calls if call.phase == "backward"]
    names = {canonical(call.operator) for call in calls if call.module == OPTIMIZER}

    def once(runs: int, *, ranges: bool) -> tuple[list[Attributed], list[float]]:
        with ExitStack() as stack:
            stack.enter_context(observing(DeclaredRanges()))
            if ranges:
                stack.enter_context(module_ranges(runner.model))
            found, seconds = profiled(lambda: runner.run(phase_range), device, runs)
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
    return ObservedRuns(tuple(runs), tuple(seconds), expected, matched, reason)


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


# One run as a trace in Chrome's format, which Perfetto opens, with a range for every module.


def trace(
    model: str | Spec,
    setting: Setting,
    mode: TimeMode = "inference",
    *,
    threads: int | None = None,
    channels_last: bool = False,
    compressed: bool = False,
) -> bytes:
    """The second run of a model, operator by operator; the first is left out.

    Args:
        compressed: by gzip.

    Raises:
        MeasurementError: it does not run, or the profiler writes no trace.
    """
    activities = [ProfilerActivity.CPU]
    if torch.device(setting.device).type == "cuda":
        activities.append(ProfilerActivity.CUDA)
    spec = resolve(model) if isinstance(model, str) else model
    with threads_set(threads), running(spec, setting, mode, channels_last) as runner:
        runner()
        with (
            quiet_kineto(),
            observing(DeclaredRanges()),
            module_ranges(runner.model, for_people),
            profile(activities=activities) as profiler,
        ):
            runner.run(phase_range)
            synchronize(torch.device(setting.device))
    text = json.dumps(_exported(profiler)).encode()
    return gzip.compress(text, mtime=0) if compressed else text


def _exported(profiler: Any) -> dict[str, Any]:
    """What the profiler writes, read back: a file that does not parse is worth nothing."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(path))
        try:
            found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise MeasurementError(f"the profiler wrote no trace: {error}.") from error
    for name in ("traceName", "host_name"):  # a file that is gone, and whose machine it was
        found.pop(name, None)
    return found
