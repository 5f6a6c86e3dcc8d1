"""The same run on the CPU, in a process of its own, under torch's profiler.

The profiler reports every allocation and release of the CPU allocator; replayed in order, on top
of what was there before, they give the peak. What oneDNN and others allocate past the allocator is
not seen.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from torch import nn
from torch.profiler import ProfilerActivity, profile

from ..errors import MeasurementError, UsageError
from ..process import SHORT_OF_MEMORY, ask
from ..run import (
    as_written,
    build_model,
    iterate,
    make_image,
    optimizer_state,
    stepped,
    tensors_in,
    unchanged,
)
from ..setting import PLAIN, MemoryMode, Recipe, Setting
from .records import CpuPeak, MemoryRow
from .simulation import checkpointed

NO_AUTOCAST = (
    "autocast is simulated as CUDA's, which runs other operators in low precision than the CPU's; "
    "it cannot be verified there."
)


def measured_on_cpu(row: MemoryRow) -> CpuPeak:
    """Run what a simulated row stands for.

    Raises:
        UsageError: the CPU has no equal of this run.
        MeasurementError: the run failed, or was killed for the memory that it took.
    """
    if row.recipe.autocast is not None:
        raise UsageError(NO_AUTOCAST)
    setting = replace(row.setting, device="cpu")
    reply = ask(_WORKER, VerifyJob(row.model, setting, row.mode, row.recipe), Profiled)
    found, ending = reply.answer, reply.ending
    if found is None:
        assert ending is not None
        if ending.signalled:
            raise MeasurementError(
                f"{row.model}: the run on the CPU was {ending}, probably {SHORT_OF_MEMORY}; verify "
                "a smaller batch."
            )
        if "allocate memory" in ending.last or "not enough memory" in ending.last:
            raise MeasurementError(
                f"{row.model}: out of memory on the CPU; verify a smaller batch."
            )
        raise MeasurementError(f"{row.model}: the run on the CPU failed: {ending.last or ending}")
    difference = row.peak.amount / found.peak - 1
    return CpuPeak(found.peak, found.at_end, found.operator, difference)


_WORKER = "datbench.memory.verify:work"


@dataclass(frozen=True)
class VerifyJob:
    """A run on the CPU for a process of its own."""

    model: str
    setting: Setting
    mode: MemoryMode
    recipe: Recipe


@dataclass(frozen=True)
class Profiled:
    """What the profiler saw of a run, in bytes."""

    peak: int
    at_end: int  # what is alive then
    operator: str  # at the peak


def work(job: VerifyJob) -> Profiled:
    """Do one run."""
    model = build_model(job.model, job.setting, training=job.mode != "inference")
    return profiled(model, make_image(job.setting, model), mode=job.mode, recipe=job.recipe)


def profiled(model: nn.Module, *inputs: Any, mode: MemoryMode, recipe: Recipe = PLAIN) -> Profiled:
    """Run a model on the CPU under the profiler.

    Raises:
        UsageError: the recipe does not suit the mode or the model, or has autocast.
        MeasurementError: a training mode, and nothing that the model returns has a gradient.
    """
    recipe = recipe.of(mode)
    if recipe.autocast is not None:
        raise UsageError(NO_AUTOCAST)
    with unchanged(model, *inputs), as_written(), checkpointed(model, recipe.checkpointing):
        optimizer = None
        if recipe.optimizer is not None:
            iterate(model, inputs, "backward")
            optimizer = stepped(recipe.optimizer, model)
        there = [*model.parameters(), *model.buffers(), *tensors_in(inputs)]
        there += [] if optimizer is None else optimizer_state(optimizer)
        before = {t.untyped_storage()._cdata: t.untyped_storage().nbytes() for t in there}
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
            # Held until the profiler has stopped, so that they are alive at the end.
            held = iterate(model, inputs, mode)
            if optimizer is not None:
                optimizer.step()
        del held
    return _replayed(profiler.profiler.kineto_results.events(), sum(before.values()))


def _replayed(events: Any, before: int) -> Profiled:
    changes = sorted(
        ((e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]"),
        key=lambda change: change[0],
    )
    live = peak = before
    at = 0
    for time, change in changes:
        live += change
        if live > peak:
            peak, at = live, time
    running = sorted(
        (e.start_ns(), e.name())
        for e in events
        if e.name().startswith("aten::") and e.start_ns() <= at <= e.start_ns() + e.duration_ns()
    )
    return Profiled(peak, live, running[0][1] if running else "")
