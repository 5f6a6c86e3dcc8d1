"""The checks, by subject. Each runs on a CPU in seconds and on a GPU at full size.

A GPU's are written for torch 2.6 and newer and need nothing but torch and datbench's own
dependencies; Swin-T needs timm, and is left out without it.
"""

from __future__ import annotations

import gc
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import cycle, product
from typing import Any

import torch
from torch import nn

from ..compare.records import ComparisonRow, RunPlan
from ..compare.run import compare_sides, one_at_a_time
from ..compare.view import sentence
from ..counting.count import count_model
from ..errors import LibraryError, one_line
from ..machine import GpuPlace
from ..memory.allocator import replay
from ..memory.device import DeviceJob, process_memory, verify
from ..memory.device import work as held_by
from ..memory.records import CONTEXT, GpuRow, Replay
from ..memory.simulation import Trace, simulate_model
from ..models.resolve import resolve
from ..paper.tables import paper_table
from ..process import Question, asking, write_answer
from ..profile.profile import profile_model
from ..run import ready, synchronize, threads_set
from ..setting import (
    ATTENTIONS,
    MEMORY_MODES,
    PLAIN,
    Attention,
    Autocast,
    How,
    MemoryMode,
    Recipe,
    Resolution,
    Setting,
)
from ..timing.process import time_pair
from ..timing.records import ComparedSide, ProcessTiming, Telemetry
from ..timing.sample import time_calls
from ..timing.telemetry import watching
from ..timing.worker import TimingJob, timed
from .records import NO_GPU, CheckRow, CheckUnit, Subject

MODELS = ("dat_t", "datpp_t", "swin_t")

SMALL = Setting(Resolution(64, 64), device="cpu")
"""What a CPU runs in a second."""

FULL = Setting(Resolution(224, 224), batch=64)
"""What a GPU runs; 64 is the batch at which Table 8 prints memory."""

LESS = 8
"""The batch on a GPU that does not hold 64."""

MEMORY_ATTENTIONS: tuple[Attention, ...] = ("eager", "sdpa")
"""Attention whose memory is measured: at this size chunked attention runs what sdpa runs."""

Rows = Iterator[CheckRow]


def on_gpu(device: str) -> bool:
    """Whether the device is a GPU."""
    return torch.device(device).type == "cuda"


def run_checks(device: str, step: Callable[[str], None] = lambda text: None) -> list[CheckRow]:
    """All checks on a device; on a CPU those of a GPU too, as checks that were not run.

    A check that raises has failed, and the next one runs; one that lacks a library was not run.
    """
    found: list[CheckRow] = []
    for subject, checks in CHECKS.items():
        step(subject)
        try:
            # Two threads that wait for each other would take most of a loaded machine's time.
            with threads_set(None if on_gpu(device) else 1):
                found += checks(device)
        except LibraryError as error:
            found.append(_without_figures(subject, device, "not run", str(error)))
        except Exception as error:
            found.append(_without_figures(subject, device, "failed", one_line(error)))
        if not on_gpu(device):
            why = "--device cpu" if torch.cuda.is_available() else NO_GPU
            found.append(_without_figures(subject, "cuda", "not run", why))
    return found


def _without_figures(subject: Subject, device: str, verdict: Any, reason: str) -> CheckRow:
    return CheckRow(subject, "all", device, verdict, reason=reason.rstrip("."))


def _there(names: Sequence[str]) -> list[str]:
    """The models that can be built here."""
    found = []
    for name in names:
        try:
            resolve(name)
        except LibraryError:
            continue
        found.append(name)
    return found


# Counts and memory.


def counts(device: str) -> Rows:
    """Multiply-adds of forward and backward: integers, the same on every device."""
    models = _there((*MODELS, "dat_t_ddetr_16_16"))
    # A CPU has seconds: each model with one of them.
    every = product(models, ATTENTIONS) if on_gpu(device) else zip(models, cycle(ATTENTIONS))
    for model, attention in every:
        setting = replace(SMALL, attention=attention, backward=True)
        expected = count_model(model, replace(setting, device="meta")).total()
        for there in dict.fromkeys(("cpu", device)):
            measured = count_model(model, replace(setting, device=there)).total()
            words = f"{model}, {attention} attention, with the backward"
            yield CheckRow.of("counts", there, words, "MACs", expected, measured)


def memory(device: str) -> Rows:
    """The simulated peak beside the profiler's on a CPU, and beside the allocator's on a GPU."""
    if on_gpu(device):
        yield from memory_of_gpu(device)
        return
    runs: list[tuple[str, MemoryMode]] = [("dat_t", mode) for mode in MEMORY_MODES]
    for model, mode in [*runs, *((model, "backward") for model in _there(MODELS[1:]))]:
        recipe = PLAIN.of(mode)
        setting = replace(SMALL, batch=4)
        expected = _simulated(DeviceJob(model, setting, mode, recipe)).peak.amount
        measured = verify(DeviceJob(model, setting, mode, recipe)).peak
        # README's figure.
        yield CheckRow.of("memory", "cpu", f"{model}, {mode}", "bytes", expected, measured, 0.02)


def _simulated(job: DeviceJob) -> Trace:
    setting = replace(job.setting, device="meta")
    return simulate_model(job.model, setting, job.mode, job.recipe)[1]


def memory_runs(device: str) -> list[DeviceJob]:
    """Table 8's models as it prints them, and three models in every mode, type and attention."""
    setting = replace(FULL, device=device)
    printed = [row.builds[0].model for row in paper_table("8").rows]
    casts: tuple[Autocast | None, ...] = (None, "bfloat16")
    grid = product(_there(MODELS), MEMORY_MODES, casts, MEMORY_ATTENTIONS)
    runs = [DeviceJob(model, setting, "forward", PLAIN) for model in printed]
    runs += [
        DeviceJob(model, replace(setting, attention=how), mode, Recipe(autocast=cast).of(mode))
        for model, mode, cast, how in grid
    ]
    return list(dict.fromkeys(runs))


def hold(runs: tuple[DeviceJob, ...]) -> tuple[GpuRow, ...]:
    """Make every run, at a batch that fits. A process for each would take minutes to start."""
    rows: tuple[GpuRow, ...] = ()
    for run in runs:
        row = held_by(run)
        if row.outcome == "out of memory":
            row = held_by(replace(run, setting=replace(run.setting, batch=LESS)))
        gc.collect()
        rows += (row,)
        write_answer(rows)
    return rows


MEMORY_SECONDS = 150.0
"""The part of a GPU's five minutes that memory may take."""

ALLOCATED, RESERVED = 0.05, 0.1
"""What simulated memory may differ by on a GPU: libraries' workspaces of a moment are not
simulated, and the cache keeps what earlier runs reserved."""


def memory_of_gpu(device: str) -> Rows:
    """All runs in one process there, while they are simulated here."""
    runs = memory_runs(device)
    question = Question("datbench.selftest.checks:hold", tuple(runs))
    with asking([question], tuple[GpuRow, ...]) as asked:
        begin = time.perf_counter()
        traces = {run: _simulated(run) for run in runs}
        left = max(MEMORY_SECONDS - (time.perf_counter() - begin), 1.0)
        (reply,) = asked.replies(left)
    rows = reply.answer or ()
    for run, row in zip(runs, rows, strict=False):
        there = replace(run, setting=row.setting)
        yield from beside_simulation(row, traces[run] if there == run else _simulated(there))
    if len(rows) < len(runs):
        why = f"{len(rows)} of {len(runs)} runs were finished: {reply.ending}"
        yield _without_figures("memory", device, "failed", why)


def beside_simulation(row: GpuRow, trace: Trace) -> Rows:
    """Allocated and reserved, each less the libraries' workspaces, which are there before."""
    setting = row.setting
    words = f"{row.model}, {row.mode}, batch {setting.batch}, {row.recipe.autocast or 'float32'}"
    words += f", {setting.attention}"
    if row.peaks is None or row.peaks.allocated is None or row.peaks.reserved is None:
        said = f"{words}: {row.outcome}: {row.reason}"
        yield _without_figures("memory", setting.device, "failed", said)
        return
    line, simulated = row.line("workspaces"), replay(trace)
    before = (line.amount if line else None) or 0
    for what, expected, measured, allowed in (
        ("allocated", simulated.allocated_peak, row.peaks.allocated - before, ALLOCATED),
        ("reserved", simulated.reserved_peak, row.peaks.reserved - before, RESERVED),
    ):
        figures = (expected, measured, allowed)
        yield CheckRow.of("memory", setting.device, f"{what}: {words}", "bytes", *figures)


# The modelled allocator beside CUDA's, for the same requests.


@dataclass(frozen=True)
class AllocatorJob:
    """What a process without any allocation is to replay."""

    device: str
    expandable: bool


@dataclass(frozen=True)
class AllocatorAnswer:
    """The model's figures, and `torch.cuda.memory_stats`."""

    model: Replay
    stats: Mapping[str, int]


def replay_there(job: AllocatorJob, cuda: Any = torch.cuda) -> AllocatorAnswer:
    """Allocate and free on a device what a step of DAT-T does, in its order."""
    trace = _simulated(DeviceJob("dat_t", replace(FULL, batch=LESS), "step", PLAIN.of("step")))
    alive: dict[int, Any] = {}
    for event in trace.events:
        if event.change > 0:
            # No other name may keep it alive.
            alive[event.block.born] = torch.empty(
                event.change, dtype=torch.uint8, device=job.device
            )
        elif event.change < 0:
            del alive[event.block.born]
    names = ("allocated_bytes.all.peak", "reserved_bytes.all.peak", "segment.all.peak")
    stats = cuda.memory_stats(job.device)
    return AllocatorAnswer(replay(trace, job.expandable), {name: stats[name] for name in names})


def allocator(device: str) -> Rows:
    """The same integers, with segments that grow and that do not."""
    for expandable in (False, True) if on_gpu(device) else ():
        told = f"expandable_segments:{expandable}"
        # Torch before 2.9 knows the second alone.
        env = {"PYTORCH_ALLOC_CONF": told, "PYTORCH_CUDA_ALLOC_CONF": told}
        job = AllocatorJob(device, expandable)
        question = Question("datbench.selftest.checks:replay_there", job)
        with asking([question], AllocatorAnswer, env) as asked:
            (reply,) = asked.replies(60.0)
        if reply.answer is None:
            yield _without_figures("allocator", device, "failed", f"{told}: {reply.ending}")
            continue
        yield from beside_model(device, told, reply.answer)


def beside_model(device: str, told: str, answer: AllocatorAnswer) -> Rows:
    """The figures of one replay; how segments that grow are counted is the driver's matter."""
    model, stats = answer.model, answer.stats
    figures: list[tuple[str, Any, int, int]] = [
        ("allocated", "bytes", model.allocated_peak, stats["allocated_bytes.all.peak"]),
        ("reserved", "bytes", model.reserved_peak, stats["reserved_bytes.all.peak"]),
    ]
    if not model.expandable:
        figures.append(("segments", "segments", model.segments, stats["segment.all.peak"]))
    for what, unit, expected, measured in figures:
        yield CheckRow.of("allocator", device, f"{what}, {told}", unit, expected, measured)


# Times.


def chain(layers: int = 8, width: int = 32) -> nn.Module:
    """A network whose time grows with its layers: (B, 3, H, W) -> (B, width)."""
    convs = [nn.Conv2d(3 if i == 0 else width, width, 3, padding=1) for i in range(layers)]
    return nn.Sequential(*convs, nn.AdaptiveAvgPool2d(1), nn.Flatten())


LAYERS, MORE = 8, 24
"""Layers of the two sides of a comparison."""

ROUNDS = 10


def _side(device: str, layers: int, budget: float) -> ComparedSide:
    """Many images on a GPU, so that its kernels and not their launches take the time."""
    width, batch, size = (128, 32, 64) if on_gpu(device) else (32, 2, 32)
    name = f"datbench.selftest.checks:chain,layers={layers},width={width}"
    how = How(budget=budget, threads=None if on_gpu(device) else 1)
    return ComparedSide(name, Setting(Resolution(size, size), batch, device=device), how)


def times(device: str) -> Rows:
    """The sampler, with CUDA's events on a GPU, beside a loop with a clock around it."""
    side, where = _side(device, LAYERS, 0.1), torch.device(device)
    run = ready(side.model, side.setting, side.how)
    sampled, looped = [], []
    for _ in range(ROUNDS):  # one beside the other: the machine's speed moves
        sampled.append(time_calls(run, where, budget=side.how.budget).median)
        calls = math.ceil(side.how.budget / sampled[-1])
        synchronize(where)
        begin = time.perf_counter()
        for _ in range(calls):
            run()
        synchronize(where)
        looped.append((time.perf_counter() - begin) / calls)
    # Wrong units or calls would be off by factors; another program may have the CPU meanwhile.
    allowed = 0.1 if on_gpu(device) else 0.5
    figures = (min(looped), min(sampled), allowed)
    yield CheckRow.of("times", device, "a call, beside a plain loop", "s", *figures)


def comparison(device: str) -> Rows:
    """A model beside itself, and beside one of three times as many layers."""
    if on_gpu(device):
        # The fewest pairs for a verdict at 95 %: each starts two processes.
        plan, budget = RunPlan(processes=6, most=6, level=0.95, by_turns=os.name == "posix"), 0.5
    else:
        # In this process: starting twenty would take minutes. All ten agree by chance in 0.2 %.
        plan, budget = RunPlan(processes=10, most=10, level=0.99, floor=0.05), 0.1
    for layers, words in ((LAYERS, "a model and itself"), (MORE, "a model and a slower one")):
        sides = {"A": _side(device, LAYERS, budget), "B": _side(device, layers, budget)}
        pairs = None if on_gpu(device) else one_at_a_time(partial(_timed_here, sides))
        row, _ = compare_sides(sides["A"], sides["B"], plan, 60.0, pairs=pairs)
        assert row is not None
        yield judged(row, words, device, LAYERS / layers)


def _timed_here(sides: Mapping[str, ComparedSide], name: str) -> ProcessTiming:
    side = sides[name]
    return timed(TimingJob(side.model, side.setting, side.how), side.model)


def judged(row: ComparisonRow, words: str, device: str, expected: float) -> CheckRow:
    """The verdict must be the right one: slower, or else no difference found."""
    if row.interrupted:
        raise KeyboardInterrupt
    found = row.decision
    if found.ratio is None:
        return _without_figures("comparison", device, "failed", f"{words}: {sentence(found)}")
    right = ("slower",) if expected < 1 else ("same", "ambiguous")
    refused = None if found.verdict in right else sentence(found).rstrip(".")
    # The first layer and the launches are the same in both.
    figures = (expected, found.ratio, 0.25, refused)
    return CheckRow.of("comparison", device, words, "ratio", *figures)


def interleaving(device: str) -> Rows:
    """Two processes at once that take turns: as many each, and as fast as each other."""
    without = partial(_without_figures, "interleaving", device)
    if os.name != "posix":
        yield without("not run", "pipes between processes are POSIX")
        return
    side = _side(device, LAYERS, 1.0)
    one, other = time_pair(side, side, 100.0)
    for each in (one, other):
        if each.outcome == "interrupted":
            raise KeyboardInterrupt
        if each.timing is None or not each.turns:
            yield without("failed", f"{each.outcome}: {each.reason}")
            return
    of = partial(CheckRow.of, "interleaving", device)
    yield of("turns of two processes", "turns", one.turns or 0, other.turns or 0, 0.2)
    first, second = (each.timing.median if each.timing else 0.0 for each in (one, other))
    allowed = 0.1 if on_gpu(device) else 0.5  # two of them keep a CPU's caches from each other
    yield of("a call in either process", "s", first, second, allowed)


# What the driver says, and the profile.


def telemetry(device: str) -> Rows:
    """NVML's answers while the GPU is at work, beside those that torch has from it."""
    if not on_gpu(device):
        return
    side, where = _side(device, LAYERS, 2.0), torch.device(device)
    run = ready(side.model, side.setting, side.how)
    with watching(where) as watch:
        timing = time_calls(run, where, budget=2.0, width=0.0, between=watch.stamp)
        told = watch.telemetry(timing)
        clock, power = torch.cuda.clock_rate(where) * 1e6, torch.cuda.power_draw(where) / 1e3
    place = GpuPlace.of(torch.cuda.get_device_properties(where))
    process = process_memory(place, os.getpid())
    beyond = None if process.amount is None else process.amount - torch.cuda.memory_reserved(where)
    yield from what_the_driver_says(device, told, clock, power, process.reason, beyond)


def what_the_driver_says(
    device: str,
    told: Telemetry,
    clock: float,
    power: float,
    hidden: str | None,
    beyond: int | None,
) -> Rows:
    """Answers beside torch's of a moment later; a container may hide the process's memory.

    Args:
        clock, power: torch's, in Hz and watts.
        hidden: why the process's memory is not known.
        beyond: bytes of the process that torch does not reserve.
    """
    why = told.reason or told.note or "no answer"
    answers: list[tuple[str, CheckUnit, float, float | None, float]] = [
        ("clock", "Hz", clock, told.clock, 0.2),
        ("power", "W", power, told.power, 0.5),  # a mean, and a moment after the work
        # What `datbench memory largest` takes the context for.
        ("memory of the context and libraries", "bytes", CONTEXT, beyond, 1.0),
    ]
    for what, unit, expected, measured, allowed in answers:
        if measured is not None:
            yield CheckRow.of("telemetry", device, what, unit, expected, measured, allowed)
        elif what in ("clock", "power"):
            yield _without_figures("telemetry", device, "failed", f"{what}: {why}")
        else:
            yield _without_figures("telemetry", device, "not run", f"{what}: {hidden}")


def profile(device: str) -> Rows:
    """Every call that was counted is found under the profiler, and all of the time."""
    setting = replace(FULL, batch=FULL.batch if on_gpu(device) else 1, device=device)
    row = profile_model("dat_t", setting, budget=6.0 if on_gpu(device) else 1.5)
    counted = count_model("dat_t", replace(setting, device="meta")).total()
    of = partial(CheckRow.of, "profile", device)
    yield of("multiply-adds of all parts", "MACs", counted, row.macs)
    yield of("calls that have their time", "calls", row.expected, row.matched, refused=row.reason)
    if on_gpu(device):  # at this batch a GPU does not wait for Python
        yield of("kernels, beside a call", "s", row.timing.median, row.busy, 0.15)
    else:
        words = "operators, beside a run under the profiler"
        yield of(words, "s", row.profiled, row.busy, 0.5)


CHECKS: dict[Subject, Callable[[str], Rows]] = {
    "counts": counts,
    "memory": memory,
    "allocator": allocator,
    "times": times,
    "comparison": comparison,
    "interleaving": interleaving,
    "telemetry": telemetry,
    "profile": profile,
}
"""By subject, what checks it on a device."""
