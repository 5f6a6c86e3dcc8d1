"""`datbench memory`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from ..errors import MeasurementError, UsageError
from ..setting import (
    ATTENTIONS,
    AUTOCASTS,
    CHECKPOINTINGS,
    MEMORY_MODES,
    OPTIMIZERS,
    WITH_BACKWARD,
    MemoryMode,
    Recipe,
    Setting,
)
from .options import (
    AttentionName,
    Configs,
    Dtype,
    Features,
    Format,
    Models,
    Out,
    OutputFormat,
    Resolutions,
    With,
    breakdowns,
    one_of,
    option,
    resolutions,
    specs,
)

if TYPE_CHECKING:
    from ..memory.view import By
    from ..models.resolve import Spec

Jobs = Sequence[tuple["Spec", "Setting"]]

PARTS: tuple[By, ...] = ("stage", "module", "operator")

SUFFIXES = (".png", ".svg", ".pickle")

_AMOUNT = re.compile(r"\s*([0-9]{1,12}(?:\.[0-9]{1,6})?)\s*([A-Za-z]{1,3})\s*")

_UNITS = {"B": 1, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "MB": 10**6, "GB": 10**9, "G": 2**30}


def memory(  # noqa: C901 (refuses what options do not go together)
    model: Models = None,
    config: Configs = None,
    with_: With = None,
    res: Resolutions = None,
    batch: Annotated[
        list[int] | None, option("Images in a batch; may be repeated.", default="1")
    ] = None,
    mode: Annotated[
        str,
        option(
            "inference (no gradients), train-forward (with what autograd keeps; the papers'), "
            "train (the backward too) or step (a full step: the optimizer's too).",
            names=MEMORY_MODES,
        ),
    ] = "train-forward",
    optimizer: Annotated[
        str | None,
        option("Of a full step: sgd, sgd-momentum or adamw.", names=OPTIMIZERS, default="adamw"),
    ] = None,
    attention: AttentionName = "eager",
    dtype: Dtype = "float32",
    autocast: Annotated[
        str | None,
        option(
            "Cast as CUDA's autocast does, to bfloat16 or float16; the model stays float32.",
            names=AUTOCASTS,
            default=False,
        ),
    ] = None,
    checkpointing: Annotated[
        str | None,
        option(
            "block: run each block again in the backward instead of keeping what it makes.",
            names=CHECKPOINTINGS,
            default=False,
        ),
    ] = None,
    features: Features = False,
    by: Annotated[
        str | None,
        option(
            "Break one model down by stage, module or operator, or several with commas.",
            names=PARTS,
            default=False,
        ),
    ] = None,
    verify: Annotated[
        bool,
        option(
            "Run it on the CPU too, in a process of its own, and put the peak that torch's "
            "profiler sees beside the simulated one.",
            "--verify",
        ),
    ] = False,
    largest: Annotated[
        str | None,
        option(
            "The largest batch that fits, into an amount such as 16GiB or a GPU: "
            "v100-16gb, v100-32gb, rtx3090, rtx4090, a100-40gb, a100-80gb, h100-80gb or h200.",
            metavar="MEMORY",
            default=False,
        ),
    ] = None,
    context: Annotated[
        str | None,
        option(
            "With --largest: what the CUDA context and libraries take of it.",
            metavar="MEMORY",
            default="500MiB",
        ),
    ] = None,
    device: Annotated[
        str | None,
        option(
            "Measure on this device, cuda or cpu, in a fresh process for each run; with "
            "--verify beside the simulation; with --largest confirm the batch on it.",
            default="simulate",
        ),
    ] = None,
    timeline: Annotated[
        bool, option("Draw what is alive over the run in the terminal.", "--timeline")
    ] = False,
    timeline_out: Annotated[
        Path | None,
        option(
            "The same as .png or .svg, or as .pickle for pytorch.org/memory_viz.",
            "--timeline-out",
            metavar="FILE",
            readable=False,
        ),
    ] = None,
    format: OutputFormat = None,
    out: Out = None,
) -> None:
    """Tell where the memory goes, simulated or measured.

    One model at one setting has a ledger; several make one table. JSON holds it all. Without
    --device nothing is run: storages are followed on tensors without values.
    """
    from .output import choose_format

    wanted = choose_format(format, out)
    parts = breakdowns(by, PARTS, wanted)
    chosen = one_of("mode", mode, MEMORY_MODES)
    recipe = Recipe(
        None if optimizer is None else one_of("optimizer", optimizer, OPTIMIZERS),
        None if autocast is None else one_of("autocast", autocast, AUTOCASTS),
        None if checkpointing is None else one_of("checkpointing", checkpointing, CHECKPOINTINGS),
    ).of(chosen)
    named = specs(model, config, with_)
    how = one_of("attention", attention, ATTENTIONS)
    sizes = resolutions(res)
    jobs = [
        (spec, Setting(size, n, dtype, attention=how, features=features))
        for spec in named
        for size in sizes or [spec.resolution]
        for n in batch or [1]
    ]
    if autocast is not None and dtype != "float32":
        raise UsageError(f"--autocast casts a float32 model; leave out --dtype {dtype}.")
    if autocast is not None and verify and device is None:
        raise UsageError(
            "--verify: the CPU's autocast casts other operators than CUDA's, which is simulated; "
            "leave one of --verify and --autocast out."
        )
    if parts and len(jobs) > 1:
        raise UsageError("--by breaks down one model at one setting; name only one.")
    if timeline or timeline_out is not None:
        _check_timeline(timeline, timeline_out, wanted, len(jobs), largest or device)
    if largest is not None and batch:
        raise UsageError("--largest finds the batch; leave out --batch.")
    if timeline and (parts or verify or out is not None):
        raise UsageError(
            "--timeline draws in place of the tables; leave out --by, --verify, --out."
        )
    if context is not None and largest is None:
        raise UsageError("--context is a part of --largest; give that too.")
    if (largest or device) and (parts or (largest and verify)):
        raise UsageError("--by and --verify are of a ledger; leave them out.")
    if largest is not None:
        room = None if context is None else _bytes(context, "--context")
        _find_largest(jobs, chosen, recipe, _capacity(largest), room, device, wanted, out)
    elif device is not None:
        there = [(spec, replace(setting, device=device)) for spec, setting in jobs]
        _measure(there, chosen, recipe, verify, wanted, out)
    else:
        if timeline or timeline_out is not None:
            _draw_timeline(*jobs[0], chosen, recipe, timeline, timeline_out)
        if not timeline:
            _simulate(jobs, chosen, recipe, verify, parts, wanted, out)


def _check_timeline(
    terminal: bool, path: Path | None, wanted: Format, jobs: int, other: str | None
) -> None:
    """Whatever can be refused is refused before anything is simulated."""
    if other is not None:
        raise UsageError("--timeline is of a simulated run; leave out --largest and --device.")
    if jobs > 1:
        raise UsageError("--timeline draws one run; name one model, size and batch.")
    if terminal and wanted is not Format.TABLE:
        raise UsageError("--timeline draws in the terminal; a file is --timeline-out FILE.")
    if path is not None:
        from .output import check_path

        if path.suffix.lower() not in SUFFIXES:
            raise UsageError(
                f"--timeline-out {path}: write {', '.join(SUFFIXES)}; the last opens in "
                "pytorch.org/memory_viz."
            )
        check_path(path, "--timeline-out")


def _bytes(text: str, option: str) -> int:
    """``16GiB``, ``24GB`` or ``500MiB`` in bytes."""
    match = _AMOUNT.fullmatch(text)
    if match is None or match[2].upper() not in _UNITS:
        raise UsageError(f"{option} {text!r} is not understood; write an amount such as 16GiB.")
    return int(float(match[1]) * _UNITS[match[2].upper()])


def _capacity(text: str) -> int | str:
    """An amount in bytes, or the name of a GPU that is known."""
    if text.strip()[:1].isalpha():
        from ..memory.records import gpu_memory

        gpu_memory(text)
        return text
    found = _bytes(text, "--largest")
    if not found:
        raise UsageError("--largest: write an amount above 0, such as 16GiB.")
    return found


# torch is imported below, after everything that the user may have mistyped was checked.


def _simulate(
    jobs: Jobs,
    mode: MemoryMode,
    recipe: Recipe,
    verify: bool,
    parts: list[By],
    wanted: Format,
    out: Path | None,
) -> None:
    """Simulate every job once, replay it through the allocator, and run it if that is wanted."""
    from ..machine import summary
    from ..memory.allocator import replay
    from ..memory.simulation import traced_row
    from ..memory.view import tables
    from ..records import document
    from ..render.terminal import progress
    from .output import emit

    rows = []
    for spec, setting in progress(jobs, lambda job: job[0].name):
        here = replace(setting, backward=mode in WITH_BACKWARD)
        row, trace = traced_row(spec, here, mode, recipe)
        if verify:
            from ..memory.verify import measured_on_cpu

            row = replace(row, measured=measured_on_cpu(row))
        rows.append(replace(row, allocator=(replay(trace), replay(trace, expandable=True))))
    shown = tables(rows, parts, wanted is Format.CSV)
    emit(shown, document("memory", rows, summary()), wanted, out)


def _draw_timeline(
    spec: Spec,
    setting: Setting,
    mode: MemoryMode,
    recipe: Recipe,
    terminal: bool,
    path: Path | None,
) -> None:
    """Draw what is alive over the run, or write it as a plot or for the memory visualiser."""
    from ..files import write_whole
    from ..memory.simulation import simulate_model
    from ..memory.timeline import timeline, visualiser
    from .output import draw

    trace = simulate_model(spec, setting, mode, recipe)[1]
    figure = timeline(trace, f"{spec.name}: memory over the run ({mode}, batch {setting.batch})")
    if path is not None and path.suffix.lower() == ".pickle":
        write_whole(path, visualiser(trace))
        path = None
    draw([figure], terminal, path)


def _find_largest(
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
    from ..machine import check_present, summary
    from ..memory.largest import confirm_largest, largest_batch
    from ..memory.records import CONTEXT, gpu_memory
    from ..memory.view import largest_tables
    from ..records import document
    from ..render.terminal import progress
    from .output import emit

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
    simulated = [
        largest_batch(spec, setting, mode, size, room, recipe=recipe)
        for spec, setting in progress(jobs, lambda job: job[0].name)
    ]
    rows: list[Any] = list(simulated)
    if device is not None:
        rows += [
            confirm_largest(
                spec,
                replace(setting, device=device),
                mode,
                max(found.batch, 1),
                recipe=recipe,
                limit=whole - room,
            )
            for (spec, setting), found in zip(jobs, simulated, strict=True)
        ]
    emit(largest_tables(rows), document("memory-largest", rows, summary()), wanted, out)


def _measure(
    jobs: Jobs, mode: MemoryMode, recipe: Recipe, verify: bool, wanted: Format, out: Path | None
) -> None:
    """Run every job on its device, each in a fresh process; with `verify`, beside the simulation.

    Raises:
        MeasurementError: a run did not end well, other than by running out of memory.
    """
    from ..machine import environment
    from ..memory.device import measure_gpu
    from ..memory.simulation import simulate_model
    from ..memory.view import measured_tables
    from ..records import document
    from ..render.terminal import progress
    from .output import emit

    rows = [
        measure_gpu(spec, setting, mode, recipe)
        for spec, setting in progress(jobs, lambda job: f"{job[0].name}, batch {job[1].batch}")
    ]
    if verify:
        peaks = [
            simulate_model(spec, replace(setting, device="meta"), mode, recipe)[1].peak.amount
            for spec, setting in jobs
        ]
        rows = [replace(row, simulated_peak=p) for row, p in zip(rows, peaks, strict=True)]
    tables = measured_tables(rows, wanted is Format.CSV)
    if verify and wanted is Format.CSV:
        tables.reverse()  # the comparison is what was asked for
    emit(tables, document("memory-measured", rows, environment()), wanted, out)
    bad = [row for row in rows if row.outcome not in ("measured", "out of memory")]
    if bad:
        raise MeasurementError(f"{bad[0].model}: {bad[0].outcome}: {bad[0].reason}")
