"""What a row's processes say together, and the warnings about it. Free of torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from statistics import median

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
    found, medians = _interval(timings), [timing.median for timing in timings]
    images = row.setting.batch * row.gpus
    row = replace(
        row,
        seconds=found.value,
        low=found.low,
        high=found.high,
        coverage=found.coverage,
        interval_of="samples" if len(timings) == 1 else "processes",
        spread=(max(medians) - min(medians)) / median(medians) if len(medians) > 1 else None,
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
    return replace(row, doubts=(*_of_the_row(row, halved), *_of_the_samples(row, timed, found)))


def _interval(timings: list[Timing]) -> Interval:
    """The interval of one process's samples, or of the medians of several processes."""
    if len(timings) == 1:
        only = timings[0]
        return Interval(only.median, only.low, only.high, only.coverage)
    return median_interval([timing.median for timing in timings])


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
        difference, low, high, coverage = median_interval(differences)
        seconds = median(one.seconds for one in ones)
        yield replace(
            ones[0],
            seconds=seconds,
            images_per_second=ones[0].batch / seconds,
            difference=difference,
            low=low,
            high=high,
            coverage=coverage,
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
    done = len(counted(others))
    many = "process" if done == 1 else f"{done} processes"
    yield f"interrupted by Ctrl-C: the {many} that were finished{more}"


def _of_the_samples(
    row: ThroughputRow, timed: list[ProcessTiming], found: Interval
) -> Iterator[str]:
    """What the samples do not show."""
    timings = [process.timing for process in timed if process.timing is not None]
    if len(timings) == 1:
        yield "one process says nothing about other processes; use --processes"
        if found.coverage < CERTAIN:
            yield f"too few samples for an interval ({row.samples}); raise --budget"
        elif found.value and found.relative_width > row.how.width:
            yield f"the interval is wider than {100 * row.how.width:g} %; raise --budget"
    if "timeout" in row.stopped:
        yield "--timeout left less than --budget for the samples; raise it"
    elif found.coverage < CERTAIN:
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


def together(rows: Sequence[ThroughputRow], peaks: Sequence[Ceilings]) -> ThroughputRow:
    """One row of several of one setting, each with processes of its own.

    Args:
        peaks: of the same machine; those of the row's device, dtype and threads count.
    """
    good = [row for row in rows if row.outcome == "measured"]
    processes = tuple(process for row in rows for process in row.processes)
    first = (good or list(rows))[0]
    threads = {process.threads for process in processes}
    limits = [
        each
        for each in peaks
        if (each.device, each.dtype) == (first.setting.device, first.setting.dtype)
        and each.threads in threads
    ]
    limit = max(limits, key=lambda each: each.macs) if limits else first.ceilings
    return summed(replace(first, processes=processes, asked=len(rows), ceilings=limit))
