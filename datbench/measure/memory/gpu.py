"""One configuration on a real device, in a process of its own, and what it held there."""

from __future__ import annotations

import time
from dataclasses import asdict, replace
from typing import Any

import torch

from ...errors import UsageError
from ...gpu_memory import GpuEnvironment, GpuPeaks, GpuRow, HeldLine, Outcome
from ...ledger import MemoryMode, Recipe
from ...models.resolve import Spec, resolve
from ...types import Setting
from ...units import printable
from ..device import check_device
from ..processes import Ending, ask
from .measured import NO_AUTOCAST

TIMEOUT = 300.0
"""Seconds that one run may take, the start of its process and `import torch` included."""

LONGEST = 300
"""Characters of a reason that are kept."""

_WORKER = "datbench.measure.memory.gpu_worker"


def measure_gpu(
    name: str | Spec,
    setting: Setting,
    mode: MemoryMode,
    recipe: Recipe | None = None,
    timeout: float = TIMEOUT,
    limit: int | None = None,
) -> GpuRow:
    """Run a model on the setting's device, ``cuda`` or ``cpu``, and tell what it held.

    One iteration warms up, so that libraries have their workspaces and the optimizer its state;
    the next is measured. What goes wrong in the process is a row with its outcome, not an error.

    Args:
        limit: bytes that tensors may take of a GPU; None for all of it.

    Raises:
        UnknownNameError: no such model.
        UsageError: the device is not here, or the recipe does not suit it, the mode or the dtype.
    """
    spec = resolve(name) if isinstance(name, str) else name
    recipe = (recipe or Recipe()).of(mode)
    _check(setting, recipe)
    check_present(setting.device)
    job = {
        "model": spec.name,
        "setting": asdict(setting),
        "mode": mode,
        "recipe": asdict(recipe),
        "limit": limit,
    }
    began = time.perf_counter()
    answer = ask(_WORKER, job, timeout)
    seconds = time.perf_counter() - began
    row = GpuRow(
        model=spec.name,
        setting=setting,
        mode=mode,
        recipe=recipe,
        outcome="failed",
        reason=None,
        peaks=None,
        lines=(),
        environment=None,
        others=None,
        seconds=seconds,
    )
    if isinstance(answer, Ending):
        outcome, reason = _ended(answer, setting, timeout)
        return replace(row, outcome=outcome, reason=_short(reason))
    return _filled(row, answer)


def _ended(ending: Ending, setting: Setting, timeout: float) -> tuple[Outcome, str]:
    """What a process without an answer is called."""
    if ending.code is None:
        return "timed out", f"did not finish in {timeout:g} s"
    reason = str(ending)
    if ending.code == -9:  # the kernel's way when the machine's own memory is used up
        reason += ", probably for lack of the machine's own memory"
        if setting.device == "cpu":
            return "crashed", f"{reason}; try a smaller batch"
    return "crashed", reason


def _short(reason: str) -> str:
    """One line that cannot steer a terminal: it may be another library's."""
    return printable(" ".join(reason.split()).rstrip("."))[:LONGEST]


def _filled(row: GpuRow, answer: dict[str, Any]) -> GpuRow:
    environment = answer.get("environment")
    found = replace(
        row,
        outcome=answer["outcome"],
        environment=GpuEnvironment(**environment) if environment else None,
        others=answer.get("others"),
    )
    if answer["outcome"] != "measured":
        return replace(found, reason=_short(answer["reason"]))
    return replace(
        found,
        peaks=GpuPeaks(**answer["peaks"]),
        lines=tuple(HeldLine(**line) for line in answer["lines"]),
    )


def _check(setting: Setting, recipe: Recipe) -> None:
    if recipe.autocast is None:
        return
    if setting.dtype != "float32":
        raise UsageError(f"autocast casts float32; a model in {setting.dtype} takes no autocast.")
    if setting.device == "cpu":
        raise UsageError(NO_AUTOCAST)


def check_present(name: str) -> None:
    """Whether the device is here and has memory of its own to look at.

    A GPU is asked for its presence alone: `check_device` would open a context in this process,
    which takes memory from the very device that is measured.
    """
    if torch.cuda.is_available() and name.split(":")[0] == "cuda":
        index = name.partition(":")[2]
        if not index or (index.isdecimal() and int(index) < torch.cuda.device_count()):
            return
    device = check_device(name)
    if device.type not in ("cuda", "cpu"):
        raise UsageError(f"memory is measured on cuda or on cpu, not on {name}.")
