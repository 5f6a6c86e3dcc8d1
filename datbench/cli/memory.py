"""`datbench memory`: simulated, measured, and the largest batch that fits."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any

from ..errors import MeasurementError, UsageError
from ..machine import device_of
from ..memory.records import GPUS, capacity
from ..setting import (
    CHECKPOINTINGS,
    MEMORY_MODES,
    OPTIMIZERS,
    WITH_BACKWARD,
    MemoryMode,
    Recipe,
    mode_of,
    precision_of,
)
from .command import WHAT, group, option
from .options import By, DeviceName, ModeName, Run, Setup, breakdowns, only
from .output import Output

if TYPE_CHECKING:
    from ..memory.view import By as Breakdown

PARTS: tuple[Breakdown, ...] = ("stage", "module", "operator")


@dataclass(frozen=True)
class Iteration:
    """What one iteration does."""

    mode: ModeName = None
    optimizer: Annotated[
        str | None,
        option(
            WHAT,
            "--optimizer NAME",
            "With --mode step: sgd, sgd-momentum or adamw. Default: adamw.",
            names=OPTIMIZERS,
        ),
    ] = None
    checkpointing: Annotated[
        str | None,
        option(
            WHAT,
            "--checkpointing NAME",
            "block: run each block again in the backward instead of saving its tensors.",
            names=CHECKPOINTINGS,
        ),
    ] = None

    def checked(self, run: Setup) -> tuple[MemoryMode, Recipe]:
        """The mode, and the recipe that it runs with.

        Raises:
            UsageError: these options do not go together.
        """
        mode = mode_of(self.mode, MEMORY_MODES, "forward")
        given: Any = (self.optimizer, precision_of(run.dtype)[1], self.checkpointing)
        return mode, Recipe(*given).of(mode)


Verify = Annotated[
    bool,
    option(
        WHAT,
        "--verify",
        "Put the simulated and a measured peak side by side; it is measured on the CPU "
        "where no --device is given.",
    ),
]


MemoryName = Annotated[
    str | None,
    option(
        WHAT,
        "--memory MEMORY",
        f"What it has to fit into: an amount such as 16GiB, or a GPU: {', '.join(GPUS)}. "
        "MEMORY,context=AMOUNT sets what the CUDA context and libraries take; default: 500MiB.",
        names=tuple(GPUS),
    ),
]


def simulate(
    run: Run, iteration: Iteration, output: Output, by: By = None, verify: Verify = False
) -> None:
    """Simulate where the memory goes. Nothing is run: tensors have shapes and no values.

    One model at one setting has a memory breakdown; several make one table. JSON holds it all.

    Examples:
    datbench memory dat_t --batch 1,8,64
    datbench memory dat_t --mode backward --by stage,operator
    datbench memory dat_t --mode step --optimizer sgd-momentum --dtype amp-bfloat16
    """
    parts = breakdowns(by, PARTS, output.one)
    mode, recipe = iteration.checked(run)
    jobs = run.jobs(backward=mode in WITH_BACKWARD, casts=True)
    if parts:
        only(jobs, "model, size and batch", "--by breaks down one model at one setting")
    if recipe.autocast is not None and verify:
        raise UsageError(
            "--verify: the CPU's autocast casts other operators than CUDA's, which is simulated; "
            f"leave one of --verify and --dtype {run.dtype} out."
        )
    # torch is imported here, after everything that the user may have mistyped was checked.
    from ..memory.allocator import replay
    from ..memory.simulation import traced_row
    from ..memory.view import tables
    from ..render.terminal import progress

    rows = []
    for spec, setting in progress(jobs):
        row, trace = traced_row(spec, setting, mode, recipe)
        if verify:
            from ..memory.device import measured_on_cpu

            row = replace(row, measured=measured_on_cpu(row))
        rows.append(replace(row, allocator=(replay(trace), replay(trace, expandable=True))))
    output.write(tables(rows, parts, output.one), "memory", rows)


def measure(
    run: Run,
    iteration: Iteration,
    output: Output,
    device: DeviceName = None,
    verify: Verify = False,
) -> None:
    """Measure the peak on a GPU or CPU, each run in a fresh process.

    Examples:
    datbench memory measure dat_t --device cuda --batch 64 --verify
    """
    mode, recipe = iteration.checked(run)
    jobs = run.jobs(device_of(device), casts=True)
    from ..machine import environment
    from ..memory.device import measure_gpu, with_simulated
    from ..memory.view import measured_tables
    from ..render.terminal import progress

    rows = [
        measure_gpu(spec, setting, mode, recipe)
        for spec, setting in progress(jobs, lambda job: f"{job[0].name}, batch {job[1].batch}")
    ]
    if verify:
        rows = list(map(with_simulated, rows))
    tables = measured_tables(rows, output.one)
    if verify and output.one:
        tables.reverse()  # the comparison is what was asked for
    output.write(tables, "memory-measured", rows, environment())
    bad = [row for row in rows if row.outcome not in ("measured", "out of memory")]
    if bad:
        raise MeasurementError(f"{bad[0].model}: {bad[0].outcome}: {bad[0].reason}")


def largest(
    setup: Setup,
    iteration: Iteration,
    output: Output,
    memory: MemoryName = None,
    device: DeviceName = None,
) -> None:
    """Find the largest batch that fits; with --device cuda confirm it there.

    Examples:
    datbench memory largest dat_t --memory a100-40gb --mode step
    """
    mode, recipe = iteration.checked(setup)
    jobs = setup.jobs(casts=True)
    if memory is None:
        raise UsageError("say what it has to fit into, such as --memory 16GiB.")
    size, whole, room = capacity(memory)
    from ..machine import check_present
    from ..memory.largest import confirm_largest, largest_batch
    from ..memory.view import largest_tables
    from ..render.terminal import progress

    if device is not None:
        if not (device := device_of(device)).startswith("cuda"):
            raise UsageError(f"the largest batch is confirmed on cuda, not on {device}.")
        check_present(device)
    found = [
        largest_batch(spec, setting, mode, size, room, recipe=recipe)
        for spec, setting in progress(jobs)
    ]
    rows: list[Any] = list(found)
    if device is not None:
        for (spec, setting), simulated in zip(jobs, found, strict=True):
            there, batch = replace(setting, device=device), max(simulated.batch, 1)
            confirmed = confirm_largest(spec, there, mode, batch, recipe=recipe, limit=whole - room)
            rows.append(confirmed)
    output.write(largest_tables(rows), "memory-largest", rows)


app = group(
    "memory",
    (simulate, measure, largest),
    usual="simulate",
)
