"""`datbench throughput`."""

from __future__ import annotations

import math
from typing import Annotated

from ..errors import MeasurementError, UsageError
from ..machine import device_of
from ..setting import TIME_MODES, How, mode_of, precision_of
from .command import HOW, option
from .options import DeviceName, ModeName, ProcessTiming, Run
from .output import Output

PROTOCOLS = "swin, dat, timm, timm-train, tome, pycls, mmdet or deformable-detr"


def throughput(
    run: Run,
    timing: ProcessTiming,
    output: Output,
    mode: ModeName = None,
    device: DeviceName = None,
    width: Annotated[
        float,
        option(
            HOW,
            "--width PERCENT",
            "Stop when the 95 % interval of the median is narrower than this percentage of it.",
            default=True,
        ),
    ] = 2.0,
    flush: Annotated[
        bool, option(HOW, "--flush-l2", "Evict the GPU's level-2 cache before every sample.")
    ] = False,
    protocol: Annotated[
        list[str] | None,
        option(
            HOW,
            "--protocol NAME",
            f"Time also as published code does, may be repeated: {PROTOCOLS}.",
            names=PROTOCOLS.replace(" or", ",").split(", "),
        ),
    ] = None,
    gpus: Annotated[
        int,
        option(
            HOW,
            "--gpus N",
            "Run on this many GPUs at once through torchrun; the slowest counts. On a CPU: "
            "processes.",
            default=True,
            min=1,
            max=1024,
        ),
    ] = 1,
) -> None:
    """Time models: images per second and latency, with intervals.

    Each row is timed in a fresh process until the interval of its median is narrow, or the budget
    ends. From two processes on, the interval is one between processes; from six it has 95 %
    confidence. Ctrl-C or SIGTERM keeps what was finished. A batch that runs out of memory is
    halved until it fits.

    Examples:
    datbench throughput dat_t datpp_t --batch 1,64
    datbench throughput dat_t --mode step --dtype bfloat16 --compile --processes 6
    datbench throughput dat_t --protocol swin --out dat_t.json
    """
    budget, timeout = timing.limits(5.0, timing.compile)
    if not 0 < width < math.inf:
        raise UsageError(f"--width {width:g}: write a percentage above 0.")
    named = mode_of(mode, TIME_MODES, "inference")
    how = How(
        named,
        timing.threads,
        timing.compile,
        timing.channels_last,
        flush,
        budget,
        width / 100,
        precision_of(run.dtype)[1],
    )
    batches = run.batches()
    if protocol:
        if gpus > 1:
            raise UsageError("--protocol times one device; leave out --gpus.")
        from ..timing.protocols import fitting_batches

        batches = fitting_batches(protocol, batches, named)
    jobs = run.jobs(device_of(device), batches=batches, casts=True)
    from ..machine import environment
    from ..render.terminal import status
    from ..timing.process import check
    from ..timing.ranks import check_ranks
    from ..timing.rows import measure_rows
    from ..timing.view import tables

    # Whatever can be refused is refused before anything is timed.
    check(jobs[0][1], how)
    if gpus > 1:
        check_ranks(jobs[0][1], how, gpus)
    with status() as step:
        results = measure_rows(
            jobs,
            how,
            processes=timing.processes or 1,
            protocols=tuple(protocol or ()),
            gpus=gpus,
            timeout=timeout,
            step=step,
        )
    rows = results.rows
    if rows:
        output.write(tables(rows, output.one), "throughput", rows, environment())
    if results.interrupted:
        raise KeyboardInterrupt
    bad = [row for row in rows if row.outcome not in ("measured", "out of memory")]
    if not bad and all(row.seconds is None for row in rows):
        bad = list(rows)
    if bad:
        raise MeasurementError(f"{bad[0].model}: {bad[0].outcome}: {bad[0].reason}.")
