"""The same run on the CPU, in a process of its own, under torch's profiler.

The profiler reports every allocation and release of the CPU allocator; replayed in order, on top
of what was there before, they give the peak. What oneDNN and others allocate past the allocator is
not seen.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict
from typing import Any

from torch import nn
from torch.profiler import ProfilerActivity, profile

from ..errors import MeasurementError, UsageError
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
from ..setting import PLAIN, Attention, MemoryMode, Recipe, Resolution, Setting
from .records import CpuPeak, MemoryRow
from .simulate import checkpointed

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
    job = {
        "model": row.model,
        "mode": row.mode,
        "setting": asdict(row.setting),
        "recipe": asdict(row.recipe),
    }
    command = [sys.executable, "-m", __name__, json.dumps(job)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode < 0:
        raise MeasurementError(
            f"{row.model}: the run on the CPU was killed (signal {-done.returncode}), probably for "
            "lack of memory; verify a smaller batch."
        )
    lines = done.stdout.splitlines()
    if done.returncode or not lines:
        errors = [line for line in done.stderr.splitlines() if line.strip()]
        reason = errors[-1].strip() if errors else "it said nothing"
        if "allocate memory" in reason or "not enough memory" in reason:
            raise MeasurementError(
                f"{row.model}: out of memory on the CPU; verify a smaller batch."
            )
        raise MeasurementError(f"{row.model}: the run on the CPU failed: {reason}")
    found: dict[str, Any] = json.loads(lines[-1])
    difference = row.peak.amount / found["peak"] - 1
    return CpuPeak(found["peak"], found["at_end"], found["operator"], difference)


def profiled(
    model: nn.Module, *inputs: Any, mode: MemoryMode, recipe: Recipe = PLAIN
) -> tuple[int, int, str]:
    """Peak, what is alive at the end, and the operator at the peak, of a model on the CPU.

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
            iterate(model, inputs, "train")
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


def _replayed(events: Any, before: int) -> tuple[int, int, str]:
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
    return peak, live, running[0][1] if running else ""


def _work(job: dict[str, Any]) -> dict[str, Any]:
    given = dict(job["setting"])
    size = Resolution(**given.pop("resolution"))
    attention: Attention = given.pop("attention")
    setting = Setting(size, attention=attention, **(given | {"device": "cpu"}))
    mode: MemoryMode = job["mode"]
    model = build_model(job["model"], setting).train(mode != "inference")
    image = make_image(setting)
    peak, at_end, operator = profiled(model, image, mode=mode, recipe=Recipe(**job["recipe"]))
    return {"peak": peak, "at_end": at_end, "operator": operator}


if __name__ == "__main__":
    print(json.dumps(_work(json.loads(sys.argv[1]))))  # noqa: T201
