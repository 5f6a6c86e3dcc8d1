"""Rows of figures: processes in turn, the batch that fits, the machine peaks of the same run."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from statistics import fmean, median
from typing import Protocol

from ..counting.conventions import CONVENTIONS
from ..counting.count import count_anywhere, warn_of_sampling
from ..errors import DatbenchError
from ..machine import warn_if_loaded
from ..models.resolve import Spec
from ..run import as_built
from ..setting import How, Setting
from .process import TIMEOUT, time_in_process
from .records import (
    CERTAIN,
    Ceilings,
    ProcessTiming,
    ProtocolTiming,
    ThroughputRow,
    Timing,
    counted,
    latency,
)
from .sample import Interval, median_interval
from .worker import peak_seconds

# What a row's processes say together, and the warnings about it.


SCATTERS = 0.25
"""How far a machine peak's fastest sample may lie above its median without a warning."""

_WHY = {
    "matrix product": " (another size or kernel is faster, or the machine was slower then)",
    "copy": " (its tensors stay in a cache, or the machine was slower then)",
}


def summed(row: ThroughputRow, halved: str | None = None) -> ThroughputRow:
    """A row with its processes, and all that follows from them.

    Args:
        halved: why a batch became smaller.
    """
    timed = counted(row.processes)
    timings = [process.timing for process in timed if process.timing is not None]
    if not timings:
        return replace(row, doubts=tuple(_of_the_row(row, halved)))
    found = _interval(timings)
    images = row.setting.batch * row.gpus
    row = replace(
        row,
        seconds=found.value,
        low=found.low,
        high=found.high,
        coverage=found.coverage,
        interval_of="samples" if len(timings) == 1 else "processes",
        spread=_spread(timings),
        images_per_second=images / found.value,
        images_low=images / found.high,
        images_high=images / found.low,
        latency=latency(timings),
        samples=sum(len(timing.samples) for timing in timings),
        warmup=sum(len(timing.warmup) for timing in timings),
        stopped=tuple(timing.stopped for timing in timings),
        protocols=tuple(_protocols(timed)),
    )
    row = _with_energy(_rated(row), timed)
    return replace(row, doubts=(*_of_the_row(row, halved), *_of_the_samples(row, timed)))


def _interval(timings: list[Timing]) -> Interval:
    """The interval of one process's samples, or of the medians of several processes."""
    if len(timings) == 1:
        only = timings[0]
        return Interval(only.median, only.low, only.high, only.coverage)
    return median_interval([timing.median for timing in timings])


def _spread(timings: list[Timing]) -> float | None:
    medians = [timing.median for timing in timings]
    return (max(medians) - min(medians)) / median(medians) if len(medians) > 1 else None


def _protocols(timed: list[ProcessTiming]) -> Iterator[ProtocolTiming]:
    """Each protocol once: what the processes that followed it say together."""
    found: dict[str, list[ProtocolTiming]] = {}
    for process in timed:
        for one in process.protocols:
            found.setdefault(one.protocol, []).append(one)
    for ones in found.values():
        differences = [one.difference for one in ones if one.difference is not None]
        if len(ones) == 1 or len(differences) < len(ones):
            yield ones[0]
            continue
        interval = median_interval(differences)
        seconds = median(one.seconds for one in ones)
        yield replace(
            ones[0],
            seconds=seconds,
            images_per_second=ones[0].batch / seconds,
            difference=interval.value,
            low=interval.low,
            high=interval.high,
            coverage=interval.coverage,
            processes=len(ones),
        )


def _rated(row: ThroughputRow) -> ThroughputRow:
    """Add the rates that each device achieves, and the parts of its machine peaks."""
    if row.macs is None or row.bytes is None or not row.seconds:
        return row
    macs, moved = row.macs / row.seconds, row.bytes / row.seconds
    limits = row.ceilings
    return replace(
        row,
        mac_rate=macs,
        byte_rate=moved,
        mac_fraction=macs / limits.macs if limits else None,
        byte_fraction=moved / limits.bytes if limits else None,
    )


def _with_energy(row: ThroughputRow, timed: list[ProcessTiming]) -> ThroughputRow:
    told = [
        (telemetry.energy, telemetry.calls)
        for telemetry in (process.telemetry for process in timed)
        if telemetry is not None and telemetry.energy is not None and telemetry.calls
    ]
    if told:
        images = sum(calls for _, calls in told) * row.setting.batch * row.gpus
        return replace(row, energy=sum(joules for joules, _ in told) / images)
    reasons = [process.telemetry.reason for process in timed if process.telemetry is not None]
    reason = next((reason for reason in reasons if reason), None)
    return replace(row, energy_reason=reason or "no driver told of energy on this device")


def _of_the_row(row: ThroughputRow, halved: str | None) -> Iterator[str]:
    """What happened to the processes."""
    if row.setting.batch != row.requested_batch:
        yield (
            f"batch {row.requested_batch} ran out of memory ({halved}); it was halved until it "
            f"fitted, which is {row.setting.batch}"
        )
    if row.unknown:
        yield f"operators without a rule are not in the MACs: {', '.join(row.unknown)}"
    if row.outcome == "interrupted" and row.samples:
        yield from _cut_short(row)
    if row.outcome != "measured":
        return
    for process in row.processes:
        if not process.whole:
            yield f"a process {process.outcome}: {process.reason}"
    done = len(row.processes)
    if done < row.asked:
        yield f"{done} of {row.asked} processes ran"


def _cut_short(row: ThroughputRow) -> Iterator[str]:
    """What became of the process that Ctrl-C ended, the last one."""
    *others, last = row.processes
    if not any(process.whole for process in others) or last.whole:
        yield "interrupted by Ctrl-C: the samples that were finished"
        return
    more = ""
    if last.timing is not None:
        more = f"; the last one's {len(last.timing.samples)} samples are in the JSON alone"
    yield f"interrupted by Ctrl-C: the {_many(len(counted(others)))} that were finished{more}"


def _many(processes: int) -> str:
    return "process" if processes == 1 else f"{processes} processes"


def _of_the_samples(row: ThroughputRow, timed: list[ProcessTiming]) -> Iterator[str]:
    """What the samples do not show."""
    assert row.seconds is not None
    assert row.low is not None
    assert row.high is not None
    assert row.coverage is not None
    timings = [process.timing for process in timed if process.timing is not None]
    width = (row.high - row.low) / row.seconds if row.seconds else 0.0
    if len(timings) == 1:
        yield "one process says nothing about other processes; use --processes"
        if row.coverage < CERTAIN:
            yield f"too few samples for an interval ({row.samples}); raise --budget"
        elif width > row.how.width:
            yield f"the interval is wider than {100 * row.how.width:g} %; raise --budget"
    if "timeout" in row.stopped:
        yield "--timeout left less than --budget for the samples; raise it"
    elif row.coverage < CERTAIN:
        yield "an interval at 95 % takes 6 processes"
    unsettled = sum(not timing.settled for timing in timings)
    if unsettled:
        yield f"the warm-up did not end ({_of(unsettled, timings)}); raise --budget"
    drifted = [timing.drift for timing in timings if timing.drift is not None]
    if drifted:
        most = max(drifted, key=abs)
        yield (
            f"the time of a call drifted by {100 * most:+.0f} % ({_of(len(drifted), timings)}): "
            "the interval does not cover that"
        )
    throttled = [process.telemetry for process in timed if process.telemetry]
    reasons = dict.fromkeys(reason for seen in throttled for reason in seen.throttled)
    if reasons:
        samples = sum(len(seen.throttled_samples) for seen in throttled)
        yield f"the GPU was throttled ({', '.join(reasons)}) in {samples} samples"
    yield from dict.fromkeys(
        f"nothing of {name}: {why}" for process in timed for name, why in process.refused.items()
    )
    yield from _of_the_ceilings(row)


def _of_the_ceilings(row: ThroughputRow) -> Iterator[str]:
    """Why a fraction of a machine peak may be worth less than it looks."""
    limits = row.ceilings
    if limits is None:
        return
    for name, best, scatter, fraction in (
        ("matrix product", limits.macs, limits.product, row.mac_fraction),
        ("copy", limits.bytes, limits.copy, row.byte_fraction),
    ):
        if fraction is not None and fraction > 1:
            yield f"the {name} is slower than the model and not a machine peak{_WHY[name]}"
        if scatter is not None and scatter.median * (1 + SCATTERS) < best:
            yield (
                f"the machine peaks scatter: the {name}'s fastest sample is "
                f"{100 * (best / scatter.median - 1):.0f} % above its median"
            )


def _of(some: int, timings: list[Timing]) -> str:
    return f"{some} of {len(timings)} processes" if len(timings) > 1 else "one process"


Key = tuple[str, str, int | None]
"""The machine peaks' device, dtype and threads."""


class Timer(Protocol):
    """`time_in_process`, or a test's."""

    def __call__(
        self, name: str, setting: Setting, how: How, *, ceilings: bool, protocols: tuple[str, ...]
    ) -> ProcessTiming:
        """Time a model in a fresh process."""
        ...


@dataclass(frozen=True)
class _Work:
    """What one call of a batch is counted to do, or why that is not known."""

    batch: int
    macs: int | None = None
    bytes: int | None = None
    unknown: tuple[str, ...] = ()
    reason: str | None = None


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
    work: _Work | None = None

    @property
    def key(self) -> Key:
        return self.setting.device, self.setting.dtype, self.how.threads

    def __str__(self) -> str:
        return f"{self.spec.name}, batch {self.setting.batch}"


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
    waiting = [_Job(spec, setting, setting, how) for spec, setting in jobs]
    limits: dict[Key, Ceilings] = {}
    interrupted = False
    try:
        for turn in range(processes):
            for number, job in enumerate(waiting):
                step(_words(job, number, len(waiting), turn, processes), _left(waiting, processes))
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
        name: str, setting: Setting, how: How, *, ceilings: bool, protocols: tuple[str, ...]
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
    parts = [str(job)]
    if jobs > 1:
        parts.append(f"row {number + 1} of {jobs}")
    if turns > 1:
        parts.append(f"process {turn + 1} of {turns}")
    return ", ".join(parts)


def _time(job: _Job, timer: Timer, limits: dict[Key, Ceilings], protocols: tuple[str, ...]) -> bool:
    """One more process of a job, with the batch that fits; whether to go on after it."""
    if job.processes and job.processes[0].timing is None:
        job.took.append(0.0)  # it would end as the first one did
        return True
    if job.work is None:
        job.work = _count(job)
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
    if job.work.batch != job.setting.batch and found.timing is not None:
        job.work = _count(job)
    return True


def _row(job: _Job, limits: Ceilings | None, asked: int, gpus: int) -> ThroughputRow:
    """The job's figures, with what its operators are counted to do."""
    *_, last = job.processes
    good = (process for process in job.processes if process.outcome == "measured")
    ended = last if last.outcome == "interrupted" else next(good, last)
    work = job.work
    if work is None or work.batch != job.setting.batch:
        work = _Work(job.setting.batch, reason="this batch was not counted")
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
        macs=work.macs,
        bytes=work.bytes,
        counted=work.reason,
        unknown=work.unknown,
        ceilings=limits,
    )
    return summed(row, job.halved)


def _count(job: _Job) -> _Work:
    """The multiply-adds and bytes of one call: before it is timed, so that Ctrl-C need not wait."""
    batch = job.setting.batch
    there = replace(job.setting, device="meta", backward=job.how.mode == "step")
    try:
        module, count = count_anywhere(job.spec, there)
    except DatbenchError as error:
        return _Work(batch, reason=str(error).rstrip("."))
    own = as_built(module, job.setting)
    job.setting = replace(job.setting, dtype=own.dtype, inputs=own.inputs)
    if not job.processes:
        warn_of_sampling(job.spec, job.setting, count.calls)
    fvcore = CONVENTIONS["fvcore"]
    return _Work(
        batch,
        count.total(fvcore),
        sum(call.bytes_read + call.bytes_written for call in count.calls),
        tuple(group.key for group in count.with_status("unknown", fvcore)),
    )
