"""`datbench throughput`."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from ..errors import MeasurementError, UnknownNameError, UsageError
from ..setting import ATTENTIONS, MAX_BATCH, TIME_MODES, How, Setting
from .options import (
    AttentionName,
    ChannelsLast,
    Configs,
    Dtype,
    Format,
    Mode,
    Models,
    Out,
    Resolutions,
    Threads,
    With,
    default_device,
    one_of,
    option,
    resolutions,
    specs,
)

if TYPE_CHECKING:
    from ..timing.rows import TimedRows

LONGEST = 86_400.0
"""Seconds that one process may be given."""

PYTEST_BENCHMARK = "pytest-benchmark"

FORMATS = (*(each.value for each in Format), PYTEST_BENCHMARK)

KNOWN_PROTOCOLS = "swin, dat, timm, timm-train, tome, pycls, mmdet or deformable-detr"


def throughput(
    model: Models = None,
    config: Configs = None,
    with_: With = None,
    res: Resolutions = None,
    batch: Annotated[
        str | None,
        option(
            "Images in a batch, one row each.", default="1, or the protocol's", metavar="N,N,..."
        ),
    ] = None,
    mode: Mode = "infer",
    device: Annotated[
        str | None, option("cpu or cuda.", default="cuda where a GPU is, else cpu")
    ] = None,
    dtype: Dtype = "float32",
    attention: AttentionName = "eager",
    compiled: Annotated[
        bool, option("Through torch.compile; compiling is in no sample.", "--compile")
    ] = False,
    channels_last: ChannelsLast = False,
    threads: Threads = None,
    processes: Annotated[
        int,
        option(
            "Fresh processes for each row; from two the interval is of processes, from six "
            "it is one of 95 %.",
            min=1,
            max=1000,
        ),
    ] = 1,
    budget: Annotated[
        float, option("Seconds of timing in each process, its warm-up included.")
    ] = 5.0,
    width: Annotated[
        float,
        option("Stop when the median's 95 % interval is narrower than this many percent of it."),
    ] = 2.0,
    flush: Annotated[
        bool, option("Evict the GPU's level-2 cache before every sample.", "--flush-l2")
    ] = False,
    protocol: Annotated[
        list[str] | None,
        option(f"Also time as it is published: {KNOWN_PROTOCOLS}; may be repeated.", default=False),
    ] = None,
    gpus: Annotated[
        int,
        option(
            "Run on so many at once, through torchrun; the slowest counts. On a CPU, processes.",
            min=1,
            max=1024,
        ),
    ] = 1,
    timeout: Annotated[
        float | None,
        option("Seconds that one process may take in all.", default="300; 1800 with --compile"),
    ] = None,
    format: Annotated[
        str | None,
        option(
            "How to write the result; a table unless told, or what the suffix of --out says. "
            "pytest-benchmark is what `pytest-benchmark compare` reads.",
            "--format",
            default=False,
            names=FORMATS,
            metavar=f"[{'|'.join(FORMATS)}]",
        ),
    ] = None,
    out: Out = None,
) -> None:
    """Time models: images a second and latency, with intervals.

    Each row is timed in a fresh process until the interval of its median is narrow, or the budget
    ends. Ctrl-C, or SIGTERM, keeps what was finished. A batch that runs out of memory is halved
    until it fits.
    """
    from .output import choose_format

    as_benchmarks = format == PYTEST_BENCHMARK
    if format is not None and format not in FORMATS:
        raise UnknownNameError.among("format", format, FORMATS)
    told = Format.JSON if as_benchmarks else Format(format) if format else None
    wanted = choose_format(told, out)
    seconds = timeout if timeout is not None else 1800.0 if compiled else 300.0
    if not all(0 < value < math.inf for value in (budget, width, seconds)):
        raise UsageError("--budget, --width and --timeout are finite numbers above 0.")
    if not budget < seconds <= LONGEST:
        raise UsageError(
            f"--budget {budget:g} is a part of --timeout {seconds:g}, of a day at most: write a "
            "longer --timeout or a shorter --budget."
        )
    named = one_of("mode", mode, TIME_MODES)
    how = How(named, threads, compiled, channels_last, flush, budget, width / 100)
    fused = one_of("attention", attention, ATTENTIONS)
    batches = _batches(batch)
    chosen, sizes = specs(model, config, with_), resolutions(res)
    if protocol:
        if gpus > 1:
            raise UsageError("--protocol times one device; leave out --gpus.")
        from ..timing.protocols import fitting_batches

        batches = fitting_batches(protocol, batches, named)
    where = device or default_device()
    jobs = [
        (spec, Setting(size, images, dtype, where, fused))
        for spec in chosen
        for size in sizes or [spec.resolution]
        for images in batches or [1]
    ]
    from ..render.terminal import status
    from ..timing.process import check
    from ..timing.ranks import check_ranks
    from ..timing.rows import measure_rows

    # Whatever can be refused is refused before anything is timed.
    check(jobs[0][1], how)
    if gpus > 1:
        check_ranks(jobs[0][1], how, gpus)
    with status() as step:
        results = measure_rows(
            jobs,
            how,
            processes=processes,
            protocols=tuple(protocol or ()),
            gpus=gpus,
            timeout=seconds,
            step=step,
        )
    _write(results, wanted, out, as_benchmarks)


def _batches(text: str | None) -> list[int]:
    """Batches that were asked for, each once; none where the option was not given."""
    if text is None:
        return []
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not parts:
        raise UsageError("--batch: the list is empty; write batches such as 1,8,64.")
    for part in parts:
        if not (part.isdecimal() and part.isascii() and 1 <= int(part) <= MAX_BATCH):
            raise UsageError(
                f"--batch {text!r} is not understood; write numbers from 1 to {MAX_BATCH}, such as "
                "1,8,64."
            )
    return list(dict.fromkeys(map(int, parts)))


def _write(results: TimedRows, wanted: Format, out: Path | None, as_benchmarks: bool) -> None:
    """The rows, whatever became of them.

    Raises:
        KeyboardInterrupt: Ctrl-C ended it; what was finished has been written.
        MeasurementError: a run did not end well, other than by running out of memory, or no row
            has a figure.
    """
    from ..machine import environment
    from ..records import document
    from ..timing.pytest_benchmark import document as benchmark_document
    from ..timing.view import tables
    from .output import emit

    rows = results.rows
    if rows:
        where = environment()
        if as_benchmarks:
            benchmarks = benchmark_document(rows, where)
            if benchmarks["benchmarks"]:  # a row without a sample is no benchmark
                emit([], benchmarks, Format.JSON, out)
        else:
            emit(
                tables(rows, wanted is Format.CSV), document("throughput", rows, where), wanted, out
            )
    if results.interrupted:
        raise KeyboardInterrupt
    bad = [row for row in rows if row.outcome not in ("measured", "out of memory")]
    if not bad and all(row.seconds is None for row in rows):
        bad = list(rows)
    if bad:
        raise MeasurementError(f"{bad[0].model}: {bad[0].outcome}: {bad[0].reason}.")
