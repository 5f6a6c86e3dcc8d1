"""A row of the baseline beside the same row now: what changed, and where."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any, TypeVar

from ..compare.decide import decide_samples
from ..compare.files import KEPT, SAMPLING
from ..compare.records import FLOOR, LEVEL
from ..counting.conventions import CONVENTIONS
from ..machine import HARDWARE, SOFTWARE
from ..models.resolve import resolve
from ..setting import How
from ..timing.records import ProcessTiming, ThroughputRow
from .records import (
    PHASES,
    RENAMED,
    Baseline,
    Change,
    CountBaseline,
    Direction,
    GateRow,
    MemoryBaseline,
    TimeBaseline,
    Verdict,
    Work,
    detail_of,
    fold,
    unfold,
)

V = TypeVar("V")

Moves = dict[str, tuple[Change, ...]]
"""Changes by place."""


def judged(before: Baseline, now: Baseline, elsewhere: str = "") -> GateRow:
    """The verdict on two exact rows of one key.

    Args:
        elsewhere: how the torch of `before` differs from that of `now`, in words; what autograd
            does is then not compared, because torch decides it.
    """
    if isinstance(before, CountBaseline) and isinstance(now, CountBaseline):
        return _counts(before, now, elsewhere)
    if isinstance(before, MemoryBaseline) and isinstance(now, MemoryBaseline):
        row = _memory(before, now)
        return _not_compared(row, elsewhere) if elsewhere and row.verdict == "changed" else row
    raise TypeError(f"{before.what} and {now.what} are not compared")


def _counts(before: CountBaseline, now: CountBaseline, elsewhere: str) -> GateRow:
    phases = [phase for phase in PHASES if all(_has(row, phase) for row in (before, now))]
    totals, absent = _totals(before, now)
    places = _places(before, now, phases)
    unknown = [
        Change(name, "calls without a rule", before.unknown.get(name), now.unknown.get(name))
        for name in dict.fromkeys((*before.unknown, *now.unknown))
        if before.unknown.get(name) != now.unknown.get(name)
    ]
    row = _row(before, totals, [*places, *unknown], "; ".join(absent))
    more = [name for name, calls in now.unknown.items() if calls > before.unknown.get(name, 0)]
    if more:
        reason = f"no rule for {', '.join(more)}: their work is in no total"
        return replace(row, verdict="failed", direction="", reason=reason)
    if absent and row.verdict == "same":
        return replace(row, verdict="missing")
    if elsewhere and row.verdict == "changed" and not unknown:
        sizes_and_forward = [c for c in (*totals, *places) if not c.quantity.endswith(BACKWARD)]
        return row if sizes_and_forward else _not_compared(row, elsewhere)
    return row


BACKWARD = " backward"
"""How the quantities of the backward end."""


def _not_compared(row: GateRow, elsewhere: str) -> GateRow:
    reason = f"{elsewhere}, and what autograd does is torch's: not compared"
    return replace(row, verdict="missing", direction="", reason=reason)


def _has(row: CountBaseline, phase: str) -> bool:
    return any(phase in total for total in row.totals.values())


def _totals(before: CountBaseline, now: CountBaseline) -> tuple[list[Change], list[str]]:
    """Sizes and totals that changed; and what one side alone has, in words."""
    totals = _numbers(before, now, "params", "frozen", "buffers")
    absent: dict[str, list[str]] = {}
    for phase in PHASES:
        sides = [(row, _has(row, phase)) for row in (before, now)]
        if sides[0][1] != sides[1][1]:
            absent.setdefault(_side(sides[0][1]), []).append(f"the {phase}")
            continue
        for name in dict.fromkeys((*CONVENTIONS, *before.totals, *now.totals)):
            old, new = (row.totals.get(name, {}).get(phase) for row in (before, now))
            if (old is None) != (new is None):
                absent.setdefault(_side(new is None), []).append(f"{name} {phase}")
            elif old != new:
                unit = f" {CONVENTIONS[name].unit}s" if name in CONVENTIONS else ""
                totals.append(Change("", f"{name}{unit} {phase}", old, new))
    return totals, [f"{', '.join(names)}: in {side} alone" for side, names in absent.items()]


def _side(of_before: bool) -> str:
    return "the baseline" if of_before else "what is compared with it"


def _places(before: CountBaseline, now: CountBaseline, phases: list[str]) -> list[Change]:
    tensors = _renamed_or(_shapes, unfold(before.tensors), unfold(now.tensors))
    works = [_of_phases(unfold(row.operators), phases) for row in (before, now)]
    return [*_folded(_renamed_or(_work, *works)), *_folded(tensors)]


def _memory(before: MemoryBaseline, now: MemoryBaseline) -> GateRow:
    totals = _numbers(before, now, "peak", "after_forward", "at_end")
    for line in dict.fromkeys((*before.lines, *now.lines)):
        old, new = before.lines.get(line, {}), now.lines.get(line, {})
        for name, word in (("amount", ""), ("at_peak", " at the peak")):
            if old.get(name) != new.get(name):
                totals.append(Change("", f"{line}{word}", old.get(name), new.get(name)))
    parts = _renamed_or(_part, unfold(before.parts), unfold(now.parts))
    return _row(before, totals, _folded(parts), "")


def _row(before: Baseline, totals: list[Change], places: list[Change], reason: str) -> GateRow:
    changes = (*totals, *places)
    verdict: Verdict = "changed" if changes else "same"
    direction = _direction(totals) if changes else ""
    if changes and not totals and all(change.quantity == RENAMED for change in changes):
        verdict, direction = "missing", ""
        said = (
            "renamed inside the model: every count is as it was, under another module's or "
            "operator's name"
        )
        reason = f"{said}; {reason}" if reason else said
    return GateRow(
        before.what,
        before.model,
        before.setting,
        verdict,
        detail_of(before),
        direction,
        changes,
        reason,
    )


def _direction(totals: list[Change]) -> Direction:
    signs = {
        (change.after or 0) > (change.before or 0)
        for change in totals
        if not isinstance(change.before, str) and not isinstance(change.after, str)
    }
    if not signs:
        return "moved"
    if len(signs) == 2:
        return "fewer and more"
    return "more" if signs == {True} else "fewer"


def _numbers(before: Any, now: Any, *names: str) -> list[Change]:
    found = []
    for name in names:
        old, new = getattr(before, name), getattr(now, name)
        if old != new:
            found.append(Change("", name, old, new))
    return found


def _renamed_or(describe: Any, before: Mapping[str, V], now: Mapping[str, V]) -> Moves:
    """What differs by place; where each place that went has an equal that came, they were renamed.

    Equals are paired in the order in which they stand.
    """
    gone = {place: value for place, value in before.items() if place not in now}
    came = {place: value for place, value in now.items() if place not in before}
    renamed = _pairs(gone, came)
    found: Moves = {}
    for place in dict.fromkeys((*before, *now)):
        if renamed is not None and (place in gone or place in came):
            if place in gone:
                found[place] = (Change("", RENAMED, *_apart(place, renamed[place])),)
            continue
        old, new = before.get(place), now.get(place)
        if old != new:
            found[place] = tuple(describe(old, new))
    return found


def _pairs(gone: Mapping[str, V], came: Mapping[str, V]) -> dict[str, str] | None:
    """The new name of each that went; None if one has no equal."""
    if len(gone) != len(came):
        return None
    left = dict(came)
    found = {}
    for place, value in gone.items():
        match = next((name for name, other in left.items() if other == value), None)
        if match is None:
            return None
        found[place] = match
        del left[match]
    return found


def _apart(old: str, new: str) -> tuple[str, str]:
    """What differs: ``a.mixer.proj`` and ``a.attn.proj`` -> ``mixer`` and ``attn``."""
    (old_module, _, old_operator), (new_module, _, new_operator) = (
        name.partition(" ") for name in (old, new)
    )
    if old_operator != new_operator:  # of the same module, as another torch may do
        same = old_module == new_module
        return (old_operator, new_operator) if same else (old, new)
    a, b = old_module.split("."), new_module.split(".")
    while len(a) > 1 and len(b) > 1 and a[0] == b[0]:
        del a[0], b[0]
    while len(a) > 1 and len(b) > 1 and a[-1] == b[-1]:
        del a[-1], b[-1]
    return ".".join(a), ".".join(b)


def _folded(moves: Moves) -> list[Change]:
    """Changes with their places, equal ones of many blocks as one."""
    return [
        Change(place, change.quantity, change.before, change.after)
        for place, changes in fold(moves).items()
        for change in changes
    ]


def _shapes(old: str | None, new: str | None) -> Iterator[Change]:
    yield Change("", "shape", old, new)


def _work(old: Work | None, new: Work | None) -> Iterator[Change]:
    for phase in dict.fromkeys((*(old or {}), *(new or {}))):
        was, now = (old or {}).get(phase, {}), (new or {}).get(phase, {})
        for kind in dict.fromkeys((*was, *now)):
            if was.get(kind) != now.get(kind):
                word = kind if phase == "forward" else f"{kind} {phase}"
                yield Change("", word, was.get(kind), now.get(kind))


def _part(old: dict[str, int] | None, new: dict[str, int] | None) -> Iterator[Change]:
    words = {"tensors": "tensors kept", "kept": "bytes kept", "at_peak": "bytes at the peak"}
    for name, word in words.items():
        was, now = (old or {}).get(name), (new or {}).get(name)
        if was != now:
            yield Change("", word, was, now)


def _of_phases(works: Mapping[str, Work], phases: list[str]) -> dict[str, Work]:
    """Without the phases that only one side has."""
    found = {
        place: {phase: work[phase] for phase in phases if phase in work}
        for place, work in works.items()
    }
    return {place: work for place, work in found.items() if work}


# Times of a baseline: only on the machine that they were measured on, by ranks of processes.


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
    from ..machine import environment
    from ..timing.rows import measure_rows

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
