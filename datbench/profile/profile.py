"""`profile_model`: the plain time, the ceilings, the counts and the profiler, in this process."""

from __future__ import annotations

import gzip
import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from .. import units
from ..counting.conventions import CONVENTIONS
from ..counting.count import count, count_model, stage_of
from ..counting.recorder import ModuleTracker, OperatorCall, Recorder
from ..errors import MeasurementError, UsageError
from ..models.declared import observing
from ..models.resolve import Spec, is_ours, resolve
from ..run import Runner, available_bytes, ready, reported, synchronize, threads_set, unchanged
from ..setting import How, Setting, TimeMode
from ..timing.ceilings import COPIED, ceilings
from ..timing.records import Ceilings, Timing
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
    quiet_kineto,
)
from .records import (
    BOUNDS,
    WORKS,
    Answer,
    Bound,
    CallGroup,
    ProfileRow,
    Total,
    Work,
    part_of,
    summed,
)

# Groups of calls, stages, modules and operators: time beside work, and beside the ceilings.


FVCORE = CONVENTIONS["fvcore"]

_MOVERS = ("copy", "clone", "empty", "fill", "zero", "as_strided")
"""In the names of operators that compute nothing, where the counter did not see them."""


@dataclass
class _Sum:
    """What the counter says of a key, a run."""

    calls: int = 0
    macs: int = 0
    bytes: int = 0
    costs: bool = False

    def add(self, call: OperatorCall) -> None:
        self.calls += 1
        self.macs += FVCORE.weigh(call.cost, call.module_type)
        self.bytes += call.bytes_read + call.bytes_written
        self.costs = self.costs or bool(call.cost) or call.status == "unknown"


def groups_of(
    runs: Sequence[Attributed],
    calls: Sequence[OperatorCall],
    stage_of: Callable[[str], str],
    limits: Ceilings,
) -> tuple[CallGroup, ...]:
    """Every key's time and work, the most time first; the shares add up to 1."""
    by_call = runs[0].complete
    sums: dict[Key, _Sum] = {}
    for call in calls:
        key = key_of(call, by_shapes=by_call and call.phase == "forward")
        sums.setdefault(key, _Sum()).add(call)
    keys = dict.fromkeys([*sums, *(key for run in runs for key in run.seconds)])
    seconds = {key: median(run.seconds.get(key, 0.0) for run in runs) for key in keys}
    total = Total(
        sum(seconds.values()),
        sum(s.macs for s in sums.values()),
        sum(s.bytes for s in sums.values()),
    )
    found = []
    for key in keys:
        known = sums.get(key, _Sum())
        number = known.calls or round(sum(run.calls[key] for run in runs) / len(runs))
        phase, module, operator, shapes = key
        ideal = max(known.macs / limits.macs, known.bytes / limits.bytes)
        part = part_of(
            operator, number, seconds[key], known.macs, known.bytes, ideal, total, limits
        )
        group = CallGroup(
            operator, module, stage_of(module), phase, _work(key, known), shapes, part
        )
        found.append(group)
    return tuple(sorted(found, key=lambda group: -group.part.seconds))


def _work(key: Key, known: _Sum) -> Work:
    _, module, operator, _ = key
    if known.macs:
        return "counted"
    if known.costs:
        return "uncounted"
    if known.bytes or (module == GRADIENTS and operator != AUTOGRAD):
        return "moves"
    if known.calls or not operator.startswith("aten::") or is_composite(operator):
        return "dispatch"
    return "moves" if any(word in operator for word in _MOVERS) else "uncounted"


def answer(groups: Sequence[CallGroup], launch: float | None, waiting: float) -> Answer:
    """Shares of the time by what FLOPs say, and by ceiling.

    Args:
        launch: seconds of an operator on a single element; None on a GPU.
        waiting: on a GPU, the share of the plain time in which no kernel runs.
    """
    works: dict[Work, float] = dict.fromkeys(WORKS, 0.0)
    bounds: dict[Bound, float] = dict.fromkeys(BOUNDS, 0.0)
    launching = 0.0
    total = sum(group.part.seconds for group in groups)
    for group in groups:
        part = group.part
        works[group.work] += part.share
        bounds[part.bound] += part.share
        if launch is not None and total:
            launching += min(part.calls * launch, part.seconds) / total
    if launch is None:
        launching = waiting
    return Answer(
        works["counted"],
        works["uncounted"],
        works["moves"],
        works["dispatch"],
        bounds["compute"],
        bounds["memory"],
        bounds["neither"],
        launching,
        bounds["above"],
    )


# A model made ready for a profile or a trace; what cannot be profiled is refused first.


_MODEST = 0.005
"""Of the free memory: for images smaller than that no operator is looked at."""


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
    with reported(spec.name, setting, not is_ours(spec)):
        runner = ready(spec, setting, How(mode, channels_last=channels_last))
        with unchanged(runner.model):
            yield spec, runner


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
        replace(call, module=OPTIMIZER, module_type="", phase="backward", cost={}, status="free")
        for call in recorder.calls
    )


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
    calls += step_calls(runner)
    rest = (1 - _CEILINGS - _PLAIN) * budget
    least = LEAST_RUNS if timing.median < budget else 1
    number = min(max(round(rest / (2 * timing.median)), least), MOST_RUNS)
    step(f"{number} runs under the profiler")
    seen = observe(runner, calls, device, number)
    launch = None if device.type == "cuda" else _launch(device, getattr(torch, setting.dtype))
    groups = groups_of(seen.runs, calls, _stages(runner.model), limits)
    return _row(name, runner, setting, limits, timing, seen, groups, launch, channels_last)


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


# One run as a trace in Chrome's format, which Perfetto opens, with a range for every module.


SUFFIXES = (".json", ".json.gz")


def trace(
    model: str | Spec,
    setting: Setting,
    mode: TimeMode = "infer",
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
    with threads_set(threads), running(model, setting, mode, channels_last) as (_, runner):
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
