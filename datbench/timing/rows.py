"""Rows of figures: processes in turn, the batch that fits, the machine peaks of the same run."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from statistics import fmean
from typing import Any, TypeAlias

from ..counting.conventions import CONVENTIONS
from ..counting.count import count_anywhere, warn_of_sampling
from ..errors import DatbenchError
from ..machine import alone_on, warn_if_loaded
from ..models.resolve import Spec
from ..run import as_built
from ..setting import How, Setting
from .process import TIMEOUT, time_in_process
from .records import Ceilings, ProcessTiming, ThroughputRow
from .summary import summed
from .worker import peak_seconds

Key = tuple[str, str, int | None]
"""The machine peaks' device, dtype and threads."""


Timer: TypeAlias = Callable[..., ProcessTiming]
"""`time_in_process`, or what a test has in its place, with the same parameters."""


@dataclass
class _Job:
    """A row to be."""

    spec: Spec
    requested: Setting
    setting: Setting
    how: How
    processes: list[ProcessTiming] = field(default_factory=list)
    took: list[float] = field(default_factory=list)  # seconds of each process but machine peaks
    halved: str | None = None
    # what one call of a batch is counted to do, or why that is not known: fields of its row
    work: dict[int, dict[str, Any]] = field(default_factory=dict)

    @property
    def key(self) -> Key:
        return self.setting.device, self.setting.dtype, self.how.threads


@dataclass(frozen=True)
class TimedRows:
    """Rows that were begun, in the order asked for, and whether Ctrl-C ended them."""

    rows: tuple[ThroughputRow, ...]
    interrupted: bool


def measure_rows(
    jobs: Sequence[tuple[Spec, Setting]],
    how: How,
    *,
    processes: int = 1,
    protocols: tuple[str, ...] = (),
    gpus: int = 1,
    timeout: float = TIMEOUT,
    step: Callable[[str, float], object] = lambda text, left: None,
    timer: Timer | None = None,
) -> TimedRows:
    """Time every job in fresh processes, by rounds: each job once, then each again.

    What slowly changes on the machine meets all rows alike, and lies between a row's processes.
    Only running out of memory makes a batch smaller: it is halved until it fits.

    Args:
        step: told what is at work, and the seconds that are left, about; 0 where none has ended.
        timer: of one process; `time_in_process` or, with several GPUs, `time_on_gpus`.

    Raises:
        UsageError: the device is not here, or no model can be run so.
    """
    warn_if_loaded()
    timer = timer or _timer(gpus, timeout)
    kinds = {setting.device for _, setting in jobs}
    devices = [f"{kind}:{n}" for kind in kinds for n in range(gpus)] if gpus > 1 else [*kinds]
    waiting = [_Job(spec, setting, setting, how) for spec, setting in jobs]
    limits: dict[Key, Ceilings] = {}
    interrupted = False
    try:
        with alone_on(*devices):
            for turn in range(processes):
                for number, job in enumerate(waiting):
                    words = _words(job, number, len(waiting), turn, processes)
                    step(words, _left(waiting, processes))
                    if not _time(job, timer, limits, protocols):
                        raise KeyboardInterrupt
    except KeyboardInterrupt:
        interrupted = True
    begun = [job for job in waiting if job.processes]
    rows = tuple(_row(job, limits.get(job.key), processes, gpus) for job in begun)
    return TimedRows(rows, interrupted)


def _timer(gpus: int, timeout: float) -> Timer:
    if gpus == 1:
        return partial(time_in_process, timeout=timeout)
    from .ranks import time_on_gpus

    def timer(
        name: str, setting: Setting, how: How, *, ceilings: bool, **protocols: Any
    ) -> ProcessTiming:
        return time_on_gpus(name, setting, how, gpus, timeout=timeout, ceilings=ceilings)

    return timer


def _left(jobs: Sequence[_Job], turns: int) -> float:
    """Seconds that all processes which have not begun take, about; 0 where none has ended.

    A job takes as long as it took; one that has not begun as long as the others.
    """
    every = [seconds for job in jobs for seconds in job.took]
    if not every:
        return 0.0
    return sum((turns - len(job.took)) * fmean(job.took or every) for job in jobs)


def _words(job: _Job, number: int, jobs: int, turn: int, turns: int) -> str:
    row = f", row {number + 1} of {jobs}" if jobs > 1 else ""
    process = f", process {turn + 1} of {turns}" if turns > 1 else ""
    return f"{job.spec.name}, batch {job.setting.batch}{row}{process}"


def _time(job: _Job, timer: Timer, limits: dict[Key, Ceilings], protocols: tuple[str, ...]) -> bool:
    """One more process of a job, with the batch that fits; whether to go on after it."""
    if job.processes and job.processes[0].timing is None:
        job.took.append(0.0)  # it would end as the first one did
        return True
    if not job.work:
        _count(job)
    first, begin = job.key not in limits, time.perf_counter()
    while True:
        found = timer(
            job.spec.name,
            job.setting,
            job.how,
            ceilings=job.key not in limits,
            protocols=protocols,
        )
        if found.ceilings is not None:
            limits.setdefault(job.key, found.ceilings)
        batch = job.setting.batch
        if found.outcome != "out of memory" or batch == 1 or job.processes:
            break
        job.halved = found.reason
        job.setting = replace(job.setting, batch=batch // 2)
    job.processes.append(found)
    peaks = peak_seconds(job.how) if first and found.ceilings else 0.0
    job.took.append(max(time.perf_counter() - begin - peaks, 0.0))
    if found.outcome == "interrupted":
        return False
    if job.setting.batch not in job.work and found.timing is not None:
        _count(job)
    return True


def _row(job: _Job, limits: Ceilings | None, asked: int, gpus: int) -> ThroughputRow:
    """The job's figures, with what its operators are counted to do."""
    *_, last = job.processes
    good = (process for process in job.processes if process.outcome == "measured")
    ended = last if last.outcome == "interrupted" else next(good, last)
    work = job.work.get(job.setting.batch, {"counted": "this batch was not counted"})
    row = ThroughputRow(
        model=job.spec.name,
        setting=job.setting,
        how=job.how,
        outcome=ended.outcome,
        reason=ended.reason,
        requested_batch=job.requested.batch,
        asked=asked,
        gpus=gpus,
        processes=tuple(job.processes),
        ceilings=limits,
        **work,
    )
    return summed(row, job.halved)


def row_of(spec: Spec, setting: Setting, how: How, process: ProcessTiming) -> ThroughputRow:
    """The row of a process that was timed elsewhere; a batch out of memory stays as it is."""
    job = _Job(spec, setting, setting, how, [process])
    _count(job)
    return _row(job, None, 1, 1)


def _count(job: _Job) -> None:
    """The multiply-adds and bytes of one call: before it is timed, so that Ctrl-C need not wait."""
    batch = job.setting.batch
    there = replace(job.setting, device="meta", backward=job.how.mode == "step")
    try:
        built, count = count_anywhere(job.spec, there)
    except DatbenchError as error:
        job.work[batch] = {"counted": str(error).rstrip(".")}
        return
    own = as_built(built.module, job.setting)
    job.setting = replace(job.setting, dtype=own.dtype, inputs=own.inputs)
    if not job.processes:
        warn_of_sampling(job.spec, job.setting, count.calls)
    fvcore = CONVENTIONS["fvcore"]
    job.work[batch] = {
        "macs": count.total(fvcore),
        "bytes": sum(call.bytes_read + call.bytes_written for call in count.calls),
        "unknown": tuple(group.key for group in count.with_status("unknown", fvcore)),
    }
