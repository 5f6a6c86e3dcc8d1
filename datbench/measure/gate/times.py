"""Times of a baseline: only on the machine that they were measured on, by ranks of processes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from ...baselines import TimeBaseline, detail_of
from ...gates import GateRow, Verdict
from ...models.resolve import resolve
from ...timings import How, ProcessTiming, ThroughputRow
from ...versus import FLOOR, LEVEL
from ..compare.decide import decide_samples
from ..compare.files import HARDWARE, KEPT, SAMPLING, SOFTWARE


def timed(row: ThroughputRow, environment: Mapping[str, Any]) -> TimeBaseline:
    """What a baseline keeps of a measured row.

    Args:
        environment: of the file, where the processes do not say theirs.
    """
    ended = [process for process in row.processes if process.outcome == "measured"]
    seconds = tuple(process.timing.median for process in ended if process.timing is not None)
    bad = next((p for p in row.processes if p.outcome not in KEPT), None)
    reason = None
    if bad is not None:
        reason = f"{bad.outcome}: {bad.reason}" if bad.reason else bad.outcome
    elif mixed := [name for name in DECISIVE if len(_distinct(ended, name)) > 1]:
        reason = f"its processes ran with several versions of {' and '.join(mixed)}"
    elif len(seconds) < len(ended):
        reason = "a process was measured, and its file holds no time of it"
    elif not seconds:
        reason = f"{row.outcome}: {row.reason or 'no process has ended'}"
    how = {name: value for name, value in asdict(row.how).items() if name not in SAMPLING}
    found = next((process.environment for process in ended if process.environment), environment)
    kept = {name: found[name] for name in (*HARDWARE, *SOFTWARE) if name in found}
    threads = sorted({process.threads for process in ended if process.threads is not None})
    return TimeBaseline(
        row.model,
        row.setting,
        how | {"gpus": row.gpus},
        seconds,
        kept | {"threads": threads},
        reason,
    )


def measured_again(row: TimeBaseline) -> TimeBaseline:
    """Measure the row in as many fresh processes as the baseline has.

    Raises:
        DatbenchError: there is no such model, or it cannot be measured here.
        KeyboardInterrupt: somebody ended it.
    """
    from ..environment import environment
    from ..throughput.rows import measure_rows

    known = {name: value for name, value in row.how.items() if name != "gpus"}
    found = measure_rows(
        [(resolve(row.model), row.setting)],
        How(**known),
        processes=len(row.seconds),
        gpus=row.how.get("gpus", 1),
    )
    if found.interrupted:
        raise KeyboardInterrupt
    return timed(found.rows[0], environment())


def judged_times(before: TimeBaseline, now: TimeBaseline) -> GateRow:
    """The verdict on two rows of one key."""
    plain = GateRow("time", before.model, before.setting, "failed", detail_of(before))
    if now.reason is not None or before.reason is not None:
        return replace(plain, reason=str(now.reason or before.reason))
    apart = _machines(before, now)
    if apart:
        said = "; ".join(apart)
        reason = f"the baseline has no time of this machine: {said}. It was not compared."
        return replace(plain, verdict="missing", reason=reason)
    other = _software(before, now, DECISIVE)
    if other:
        return replace(plain, verdict="missing", reason=f"{'; '.join(other)}: not compared")
    # Of one setting, so that seconds a call compare as seconds an image do.
    decision = decide_samples(_logs(before), _logs(now), FLOOR, LEVEL)
    verdict: Verdict = "failed" if decision.verdict == "failed" else decision.verdict
    doubts = _software(before, now, SOFTWARE)
    if decision.needed is not None:
        doubts.insert(0, f"{decision.needed} processes of each side would settle it")
    return replace(
        plain,
        verdict=verdict,
        reason="; ".join([*([decision.reason] if decision.reason else []), *doubts]),
        ratio=decision.ratio,
        low=decision.low,
        high=decision.high,
    )


def _logs(row: TimeBaseline) -> list[float]:
    return [math.log(seconds) for seconds in row.seconds]


DECISIVE = ("torch", "cuda")
"""Software whose times are those of another program; the rest may differ, and is said."""


def _distinct(processes: Sequence[ProcessTiming], name: str) -> set[str]:
    return {str(each.environment[name]) for each in processes if name in each.environment}


def _software(before: TimeBaseline, now: TimeBaseline, names: Sequence[str]) -> list[str]:
    one, other = before.environment, now.environment
    return [
        f"{name} was {one[name]}, is {other[name]}"
        for name in names
        if name in one and name in other and one[name] != other[name]
    ]


def _machines(before: TimeBaseline, now: TimeBaseline) -> list[str]:
    """What says that these are two machines, in words."""
    on_gpu = before.setting.device.startswith("cuda")
    # A CPU's time does not depend on the GPUs beside it, nor a GPU's on the threads.
    names = [name for name in HARDWARE if on_gpu or name != "gpus"]
    names += [] if on_gpu else ["threads"]
    one, other = before.environment, now.environment
    if "processor" not in one or "processor" not in other:
        return ["a side does not say what it was measured on"]
    return [
        f"{name} {_short(one.get(name))} there, {_short(other.get(name))} here"
        for name in names
        if one.get(name) != other.get(name)
    ]


def _short(value: Any) -> str:
    if isinstance(value, list):
        names = [str(v.get("name") if isinstance(v, dict) else v) for v in value]
        return ", ".join(names) or "none"
    return str(value)
