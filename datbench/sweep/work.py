"""What the process of a unit does: measure, and add the record to the sweep."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..counting.conventions import CONVENTIONS
from ..counting.count import count, count_row
from ..errors import LibraryError, UsageError, in_a_line, listening
from ..machine import GpuPlace, check_present, environment, summary
from ..memory.allocator import replay
from ..memory.device import DeviceJob, check_recipe, process_memory
from ..memory.device import work as run_on_device
from ..memory.largest import confirm_largest, largest_batch
from ..memory.records import GpuRow, capacity
from ..memory.simulation import traced_row
from ..models.resolve import resolve
from ..process import short
from ..records import document
from ..run import failure
from ..setting import Recipe
from ..timing.ceilings import ceilings
from ..timing.process import check
from ..timing.records import ProcessTiming, ThroughputRow
from ..timing.rows import row_of
from ..timing.worker import TimingJob, peak_seconds, timed
from .records import Outcome, Unit
from .store import PlannedUnit, Sweep

VARIABLES = ("OMP_", "MKL_", "KMP_", "CUDA_", "PYTORCH_", "TORCH", "NVIDIA_")
"""Beginnings of the variables that may change a figure."""

Say = Callable[[Any], None]


@dataclass(frozen=True)
class UnitsJob:
    """Units for one process: one that is measured, or several that are computed."""

    folder: str
    numbers: tuple[int, ...]
    tries: tuple[int, ...]  # of each unit, this one included
    code: dict[str, str]
    shard: str = ""
    timeout: float | None = None  # seconds; the unit's own where None
    around: dict[str, Any] = field(default_factory=dict)  # the environment, where it is known
    last: bool = False  # whether a unit that others disturbed is accepted


@cache
def opened(folder: str) -> Sweep:
    """The sweep, read once: a process that is forked from an agent has it."""
    return Sweep.open(Path(folder))


def import_all(models: Iterable[str | None]) -> None:
    """Import what units need, in the process that they are forked from.

    A count on meta makes torch import what it imports late. It runs no kernel, and starts neither
    threads nor a context on a GPU, after which forks would not be sound.
    """
    layers = nn.Conv2d(3, 4, 1, device="meta"), nn.BatchNorm2d(4, device="meta"), nn.Flatten()
    image = torch.empty(1, 3, 2, 2, device="meta")
    count(nn.Sequential(*layers), image)
    if any(model is not None and model.startswith("timm:") for model in models):
        with suppress(ImportError):  # each unit says it
            import_module("timm")


def attend(job: UnitsJob, say: Say) -> None:
    """Do the units one after the other, and say how each ended."""
    sweep, around = opened(job.folder), job.around
    for number, tried in zip(job.numbers, job.tries, strict=True):
        planned = sweep.units[number]
        say({"begun": planned.key})
        began = time.time()
        try:
            sweep.begin(planned, tried)
            rows, outcome, reason, warnings = done(planned.unit, job.timeout or planned.timeout)
            others = disturbed(planned.unit)
            if others and not job.last:
                say({"disturbed": planned.key, "others": others})
                continue
            if not around:
                around = environment() if not planned.unit.static else summary()
                say({"environment": around})
            more = {"others": others} | ({"warnings": warnings} if warnings else {})
            content = record(planned, job, outcome, reason, rows, around, began, more)
            sweep.put(planned, outcome, content)
            sweep.end(planned)
        except OSError as error:
            say({"refused": f"{error.filename or job.folder}: {error.strerror or error}"})
            return
        say({"done": planned.key, "outcome": outcome, "seconds": time.time() - began})


def record(
    planned: PlannedUnit,
    job: UnitsJob,
    outcome: Outcome,
    reason: str | None,
    rows: Sequence[Any],
    around: Mapping[str, Any],
    began: float,
    more: Mapping[str, Any],
) -> dict[str, Any]:
    """The document of a unit: a result file of its kind, with a block about the unit."""
    block = {
        "key": planned.key,
        "specification": planned.specified,
        "number": planned.number,
        "outcome": outcome,
        "reason": reason,
        "tries": max(job.tries, default=1),
        "began": datetime.fromtimestamp(began, timezone.utc).isoformat(timespec="seconds"),
        "seconds": round(time.time() - began, 3),
        "shard": job.shard,
        "host": socket.gethostname(),
        "process": os.getpid(),
        "code": job.code,
        "variables": {k: v for k, v in sorted(os.environ.items()) if k.startswith(VARIABLES)},
        **{name: value for name, value in more.items() if value is not None},
    }
    if planned.specified["setting"]["device"].startswith("cuda"):
        block |= _gpu(planned.specified["setting"]["device"])
    return {**document(planned.kind, rows, dict(around)), "unit": block}


def _gpu(device: str) -> dict[str, Any]:
    """Which GPU, and what drives it."""
    if not torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        return {}  # nothing was measured here
    properties = torch.cuda.get_device_properties(device)
    place = GpuPlace.of(properties)
    driver = process_memory(place, os.getpid()).driver
    cudnn = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
    return {"gpu": properties.name, "uuid": place.uuid, "driver": driver, "cudnn": cudnn}


def disturbed(unit: Unit) -> int | None:
    """Other processes on the unit's GPU now; None where nobody can tell, or on a CPU."""
    started = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    if not started or not unit.setting.device.startswith("cuda"):
        return None
    place = GpuPlace.of(torch.cuda.get_device_properties(unit.setting.device))
    seen = process_memory(place, os.getpid())
    # A container that numbers processes itself hides us among the others.
    return seen.others if seen.amount is not None else None


Done = tuple[list[Any], Outcome, str | None, list[str]]


def done(unit: Unit, timeout: float) -> Done:
    """Measure a unit: its rows, how it ended, why, and what was warned of."""
    warnings: list[str] = []
    rows: list[Any] = []
    outcome: Outcome
    reason: str | None
    with listening(warnings.append):
        try:
            rows = _MEASURE[unit.kind](unit, timeout)
            outcome, reason = _outcome(rows)
        except UsageError as error:
            outcome, reason = "unsupported", str(error)
        except (Exception, SystemExit) as error:
            said, why = failure(error, unit.setting.device.startswith("cuda"))
            outcome = "oom" if said == "out of memory" else "failed"
            reason = in_a_line(error)[0] if isinstance(error, LibraryError) else why
    if outcome == "failed" and reason and "not implemented for" in reason:
        outcome = "unsupported"  # torch's words for an operator that the dtype does not have
    return rows or ended(unit, outcome, reason), outcome, reason and short(reason), warnings


_OUTCOMES: dict[str, Outcome] = {
    "measured": "ok",
    "out of memory": "oom",
    "timed out": "timeout",
    "crashed": "crashed",
}


def _outcome(rows: Sequence[Any]) -> tuple[Outcome, str | None]:
    """How the last row ended; a row that says nothing of it is well."""
    said = getattr(rows[-1], "outcome", "measured")
    return _OUTCOMES.get(said, "failed"), getattr(rows[-1], "reason", None)


def ended(unit: Unit, outcome: Outcome, reason: str | None) -> list[Any]:
    """The rows of a unit that gave none: of kinds whose rows say how they ended."""
    words: Any = {known: word for word, known in _OUTCOMES.items()}.get(outcome, "failed")
    why = reason and short(reason)
    if outcome == "ok" or unit.model is None:
        return []
    if unit.kind == "throughput" and unit.how is not None:
        process = ProcessTiming(words, why)
        batch = unit.setting.batch
        one = (process,)
        return [ThroughputRow(unit.model, unit.setting, unit.how, words, why, batch, 1, 1, one)]
    if unit.kind == "memory-measured":
        return [_device_job(unit).row(words, why)]
    return []


def _flops(unit: Unit, timeout: float) -> list[Any]:
    return [count_row(resolve(unit.model or ""), unit.setting, CONVENTIONS["fvcore"])]


def _memory(unit: Unit, timeout: float) -> list[Any]:
    assert unit.mode is not None
    spec, recipe = resolve(unit.model or ""), unit.recipe or Recipe()
    row, trace = traced_row(spec, unit.setting, unit.mode, recipe)
    return [replace(row, allocator=(replay(trace), replay(trace, expandable=True)))]


def _largest(unit: Unit, timeout: float) -> list[Any]:
    assert unit.mode is not None
    spec, recipe = resolve(unit.model or ""), unit.recipe or Recipe()
    size, whole, room = capacity(unit.memory or "")
    meta = replace(unit.setting, device="meta")
    found: list[Any] = [largest_batch(spec, meta, unit.mode, size, room, recipe=recipe)]
    if unit.setting.device != "meta":
        check_present(unit.setting.device)
        first = max(found[0].batch, 1)
        found.append(
            confirm_largest(
                spec, unit.setting, unit.mode, first, timeout, recipe, limit=whole - room
            )
        )
    return found


def _peaks(unit: Unit, timeout: float) -> list[Any]:
    assert unit.how is not None
    check(unit.setting, unit.how)
    if unit.how.threads is not None:
        torch.set_num_threads(unit.how.threads)
    device, dtype = torch.device(unit.setting.device), getattr(torch, unit.setting.dtype)
    return [ceilings(device, dtype, peak_seconds(unit.how))]


def _throughput(unit: Unit, timeout: float) -> list[Any]:
    assert unit.how is not None
    assert unit.model is not None
    check(unit.setting, unit.how)
    spec = resolve(unit.model)
    # Timed first: this process has done nothing yet, as a process of `throughput` has not.
    process = timed(
        TimingJob(unit.model, unit.setting, unit.how, time.time() + timeout), unit.model
    )
    return [row_of(spec, unit.setting, unit.how, process)]


def _device_job(unit: Unit) -> DeviceJob:
    assert unit.mode is not None
    assert unit.model is not None
    return DeviceJob(unit.model, unit.setting, unit.mode, (unit.recipe or Recipe()).of(unit.mode))


def _measured(unit: Unit, timeout: float) -> list[Any]:
    job = _device_job(unit)
    check_recipe(job.setting, job.recipe)
    check_present(unit.setting.device)
    began = time.perf_counter()
    row: GpuRow = run_on_device(job)
    return [replace(row, seconds=time.perf_counter() - began)]


_MEASURE: dict[str, Callable[[Unit, float], list[Any]]] = {
    "flops": _flops,
    "memory": _memory,
    "memory-largest": _largest,
    "peaks": _peaks,
    "throughput": _throughput,
    "memory-measured": _measured,
}
