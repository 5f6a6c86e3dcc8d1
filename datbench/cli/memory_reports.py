"""What `datbench memory` has besides the ledger: allocator, timeline, largest batch, a device."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import MeasurementError, UsageError
from .options import Format

if TYPE_CHECKING:
    from ..allocation import LargestBatch, Replay
    from ..gpu_memory import GpuRow
    from ..ledger import MemoryMode, Recipe
    from ..measure.memory.trace import Trace
    from ..models.resolve import Spec
    from ..types import Setting

Jobs = Sequence[tuple["Spec", "Setting"]]

SUFFIXES = (".png", ".svg", ".pickle")

_AMOUNT = re.compile(r"\s*([0-9]{1,12}(?:\.[0-9]{1,6})?)\s*([A-Za-z]{1,3})\s*")

_UNITS = {"B": 1, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "MB": 10**6, "GB": 10**9, "G": 2**30}


def amount(text: str, option: str) -> int:
    """``16GiB``, ``24GB`` or ``500MiB`` in bytes.

    Raises:
        UsageError: it is not written so.
    """
    match = _AMOUNT.fullmatch(text)
    if match is None or match[2].upper() not in _UNITS:
        raise UsageError(f"{option} {text!r} is not understood; write an amount such as 16GiB.")
    return int(float(match[1]) * _UNITS[match[2].upper()])


def capacity(text: str) -> int | str:
    """An amount in bytes, or the name of a GPU that is known.

    Raises:
        UsageError: it is neither.
    """
    if text.strip()[:1].isdigit() or not text.strip()[:1].isalpha():
        found = amount(text, "--largest")
        if not found:
            raise UsageError("--largest: write an amount above 0, such as 16GiB.")
        return found
    from ..allocation import gpu_memory

    gpu_memory(text)
    return text


def check_timeline(path: Path) -> None:
    """Refuse a file that no timeline is written to, before any work."""
    from .output import check_path

    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(
            f"--timeline-out {path}: write {', '.join(SUFFIXES)}; the last opens in "
            "pytorch.org/memory_viz."
        )
    check_path(path, "--timeline-out")


def replays(trace: Trace) -> list[Replay]:
    """The allocator with its usual segments, and with expandable ones."""
    from ..measure.memory.replay import replay

    return [replay(trace), replay(trace, expandable=True)]


def timeline(
    job: tuple[Spec, Setting],
    mode: MemoryMode,
    recipe: Recipe,
    terminal: bool,
    path: Path | None,
) -> None:
    """Draw what is alive over the run, or write it as a plot or for the memory visualiser."""
    from ..measure.memory.timeline import timeline, visualiser
    from ..report.plots import to_bytes, to_terminal
    from .output import console, write_text, write_whole

    spec, setting = job
    trace = _trace(spec, setting, mode, recipe)
    figure = timeline(trace, f"{spec.name}: memory over the run ({mode}, batch {setting.batch})")
    if path is not None and path.suffix.lower() == ".pickle":
        write_whole(path, visualiser(trace))
    elif path is not None:
        write_whole(path, to_bytes([figure], path.suffix))
    if terminal:
        write_text(to_terminal(figure, min(console().width, 110)))


def _trace(spec: Spec, setting: Setting, mode: MemoryMode, recipe: Recipe) -> Trace:
    from ..measure.memory.simulate import simulate_model

    return simulate_model(spec, setting, mode, recipe)[1]


def largest(
    jobs: Jobs,
    mode: MemoryMode,
    recipe: Recipe,
    size: int | str,
    context: int | None,
    device: str | None,
    wanted: Format,
    out: Path | None,
) -> None:
    """The largest batch of each model; with a device, confirmed on it."""
    from .. import units
    from ..allocation import CONTEXT, gpu_memory
    from ..measure.environment import summary
    from ..measure.memory.gpu import check_present
    from ..measure.memory.largest import largest_batch
    from ..report.allocation import largest_table
    from ..results import document
    from .output import emit
    from .progress import progress

    room = CONTEXT if context is None else context
    whole = size if isinstance(size, int) else gpu_memory(size)
    if room >= whole:
        raise UsageError(
            f"the context takes {units.size(room)} and leaves nothing of {units.size(whole)}; give "
            "--context, or more memory."
        )
    if device is not None:
        if not device.startswith("cuda"):
            raise UsageError(f"the largest batch is confirmed on cuda, not on {device}.")
        check_present(device)
    found: list[LargestBatch] = [
        largest_batch(spec, setting, mode, size, room, recipe=recipe)
        for spec, setting in progress(jobs, lambda job: job[0].name)
    ]
    tables = [largest_table(found)]
    rows: list[Any] = list(found)
    if device is not None:
        from ..measure.memory.bisect import confirm_largest
        from ..report.gpu_memory import largest as confirmed_table

        for (spec, setting), simulated in zip(jobs, found, strict=True):
            confirmed = confirm_largest(
                spec,
                replace(setting, device=device),
                mode,
                max(simulated.batch, 1),
                recipe=recipe,
                limit=whole - room,
            )
            rows.append(confirmed)
            if wanted is not Format.CSV:
                tables.append(confirmed_table(confirmed))
    emit(tables, document("memory-largest", rows, summary()), wanted, out)


def measured(
    jobs: Jobs,
    mode: MemoryMode,
    recipe: Recipe,
    verify: bool,
    wanted: Format,
    out: Path | None,
) -> None:
    """Run every job on its device, each in a fresh process; with `verify`, beside the simulation.

    Raises:
        MeasurementError: a run did not end well, other than by running out of memory.
    """
    from ..measure.environment import environment
    from ..measure.memory.gpu import measure_gpu
    from ..report.gpu_memory import beside_table, many, tables
    from ..results import document
    from .output import emit
    from .progress import progress

    rows: list[GpuRow] = [
        measure_gpu(spec, setting, mode, recipe)
        for spec, setting in progress(jobs, lambda job: f"{job[0].name}, batch {job[1].batch}")
    ]
    simulated = [
        _simulated(job, row) if verify else None for job, row in zip(jobs, rows, strict=True)
    ]
    shown = [many(rows)] if wanted is Format.CSV else tables(rows)
    if verify:
        shown.insert(0 if wanted is Format.CSV else len(shown), beside_table(rows, simulated))
    content = document("memory-measured", rows, environment())
    for entry, peak in zip(content["rows"], simulated, strict=True):
        entry["simulated_peak"] = peak
    emit(shown, content, wanted, out)
    bad = [row for row in rows if row.outcome not in ("measured", "out of memory")]
    if bad:
        raise MeasurementError(f"{bad[0].model}: {bad[0].outcome}: {bad[0].reason}")


def _simulated(job: tuple[Spec, Setting], row: GpuRow) -> int:
    """The simulated peak of tensors of the same run, in bytes."""
    spec, setting = job
    return _trace(spec, replace(setting, device="meta"), row.mode, row.recipe).peak.amount
