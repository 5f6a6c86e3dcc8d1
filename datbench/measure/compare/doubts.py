"""What speaks against a comparison whose processes all ended well."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ...timings import ProcessTiming
from ...versus import Run
from .machines import software

FEW = 6
"""Samples below which a process's median is not known at 95 %, whatever the interval."""


def doubts(runs: Sequence[Run]) -> tuple[str, ...]:
    """In words, each once."""
    found = []
    throttled = [run for run in runs if run.timing.telemetry and run.timing.telemetry.throttled]
    if throttled:
        reasons = sorted(
            {r for run in throttled if (t := run.timing.telemetry) for r in t.throttled}
        )
        found.append(
            f"the GPU was throttled in {len(throttled)} of {len(runs)} processes "
            f"({', '.join(reasons)})"
        )
    found += _of_the_samples(
        [run.timing for run in runs if run.timing.timing is not None], len(runs)
    )
    for side in "AB":
        if any(run.side == side and run.timing.restless for run in runs):
            found.append(
                f"threads of {side} go on working in the other side's turns and may slow it down; "
                "--one-at-a-time keeps the sides apart"
            )
    a, b = (
        [run.timing.environment for run in runs if run.side == side and run.timing.environment]
        for side in "AB"
    )
    found += software(a, b)
    threads = {
        side: {run.timing.threads for run in runs if run.side == side} - {None} for side in "AB"
    }
    if threads["A"] and threads["B"] and threads["A"] != threads["B"]:
        said = [", ".join(str(n) for n in threads[side]) for side in "AB"]
        found.append(f"threads {said[0]} for A, {said[1]} for B")
    return tuple(found)


def _of_the_samples(processes: Sequence[ProcessTiming], of: int) -> Iterator[str]:
    """What a process's median does not show."""
    timings = [process.timing for process in processes if process.timing is not None]
    few = sum(len(timing.samples) < FEW for timing in timings)
    if few:
        yield f"{few} of {of} processes took fewer than {FEW} samples; give a longer --budget"
    unsettled = sum(not timing.settled for timing in timings)
    if unsettled:
        yield f"the warm-up did not end in {unsettled} of {of} processes; give a longer --budget"
    # Where two took turns, the other one saw the same.
    alone = [process.timing for process in processes if process.timing and process.turns is None]
    drifted = [timing.drift for timing in alone if timing.drift is not None]
    if drifted:
        most = max(drifted, key=abs)
        yield (
            f"the level moved within {len(drifted)} of {of} processes, by up to {100 * most:+.0f} "
            "%: their medians speak of no one level"
        )
