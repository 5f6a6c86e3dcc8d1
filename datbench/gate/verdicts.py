"""A row of the baseline beside the same row now: what changed, and where."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ..compare.decide import decide_samples
from ..compare.records import FLOOR, LEVEL, side_by_side
from ..counting.conventions import CONVENTIONS
from ..machine import HARDWARE, SOFTWARE, short
from .records import (
    DECISIVE,
    PHASES,
    RENAMED,
    Baseline,
    Change,
    CountBaseline,
    Direction,
    GateRow,
    MemoryBaseline,
    Phase,
    TimeBaseline,
    Verdict,
    detail_of,
    fold,
    unfold,
)

Figures = Mapping[str, Mapping[str, int | str | None]]
"""By place, what is there: a quantity of work or bytes, or a shape."""

BACKWARD = " backward"
"""How the quantities of the backward end."""


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
    phases = [phase for phase in PHASES if _has(before, phase) and _has(now, phase)]
    totals, absent = _totals(before, now)
    places = [
        *_moved(_works(before, phases), _works(now, phases)),
        *_moved(_shapes(before), _shapes(now)),
    ]
    unknown = list(_changes("calls without a rule", before.unknown, now.unknown))
    row = _row(before, totals, [*places, *unknown], "; ".join(absent))
    more = [name for name, calls in now.unknown.items() if calls > before.unknown.get(name, 0)]
    if more:
        reason = f"no rule for {', '.join(more)}: their work is in no total"
        return replace(row, verdict="failed", direction="", reason=reason)
    if absent and row.verdict == "same":
        return replace(row, verdict="missing")
    backward = all(change.quantity.endswith(BACKWARD) for change in (*totals, *places))
    if elsewhere and row.verdict == "changed" and not unknown and backward:
        return _not_compared(row, elsewhere)
    return row


def _not_compared(row: GateRow, elsewhere: str) -> GateRow:
    reason = f"{elsewhere}, and what autograd does is torch's: not compared"
    return replace(row, verdict="missing", direction="", reason=reason)


def _has(row: CountBaseline, phase: Phase) -> bool:
    return any(phase in total for total in row.totals.values())


def _totals(before: CountBaseline, now: CountBaseline) -> tuple[list[Change], list[str]]:
    """Sizes and totals that changed; and what one side alone has, in words."""
    totals = _sizes(before, now, "params", "frozen", "buffers")
    absent: dict[str, list[str]] = {}
    for phase in PHASES:
        was_there, is_there = _has(before, phase), _has(now, phase)
        if was_there != is_there:
            absent.setdefault(_side(was_there), []).append(f"the {phase}")
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


def _works(row: CountBaseline, phases: Sequence[Phase]) -> Figures:
    """The work of each place in these phases."""
    found = {
        place: {
            kind if phase == "forward" else f"{kind} {phase}": amount
            for phase in phases
            for kind, amount in work.get(phase, {}).items()
        }
        for place, work in unfold(row.operators).items()
    }
    return {place: work for place, work in found.items() if work}


def _shapes(row: CountBaseline) -> Figures:
    return {name: {"shape": shape} for name, shape in unfold(row.tensors).items()}


def _memory(before: MemoryBaseline, now: MemoryBaseline) -> GateRow:
    totals = _sizes(before, now, "peak", "after_forward", "at_end")
    for line, old, new in side_by_side(before.lines, now.lines):
        for name, word in (("amount", ""), ("at_peak", " at the peak")):
            was, is_ = (old or {}).get(name), (new or {}).get(name)
            if was != is_:
                totals.append(Change("", f"{line}{word}", was, is_))
    return _row(before, totals, _moved(_parts(before), _parts(now)), "")


def _parts(row: MemoryBaseline) -> Figures:
    words = {"tensors": "tensors kept", "kept": "bytes kept", "at_peak": "bytes at the peak"}
    return {
        place: {word: part.get(name) for name, word in words.items()}
        for place, part in unfold(row.parts).items()
    }


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
    what, model, setting = before.what, before.model, before.setting
    return GateRow(what, model, setting, verdict, detail_of(before), direction, changes, reason)


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


def _sizes(before: Baseline, now: Baseline, *names: str) -> list[Change]:
    """Figures of the whole model that changed."""
    pairs = ((name, getattr(before, name), getattr(now, name)) for name in names)
    return [Change("", name, was, is_) for name, was, is_ in pairs if was != is_]


def _changes(quantity: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[Change]:
    """One quantity of every place where it changed."""
    for place, was, is_ in side_by_side(before, now):
        if was != is_:
            yield Change(place, quantity, was, is_)


def _moved(before: Figures, now: Figures) -> list[Change]:
    """What differs by place, equal ones of many blocks as one.

    Where each place that went has an equal that came, they were renamed. Equals are paired in the
    order in which they stand.
    """
    gone = {place: value for place, value in before.items() if place not in now}
    came = {place: value for place, value in now.items() if place not in before}
    renamed = _pairs(gone, came)
    found: dict[str, tuple[Change, ...]] = {}
    for place, old, new in side_by_side(before, now):
        if renamed is not None and place in came:
            continue
        if renamed is not None and place in gone:
            found[place] = (Change("", RENAMED, *_apart(place, renamed[place])),)
        elif old != new:
            figures = side_by_side(old or {}, new or {})
            found[place] = tuple(
                Change("", *figure) for figure in figures if figure[1] != figure[2]
            )
    return [
        replace(change, place=place) for place, changes in fold(found).items() for change in changes
    ]


def _pairs(gone: Figures, came: Figures) -> dict[str, str] | None:
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


def judged_times(before: TimeBaseline, now: TimeBaseline) -> GateRow:
    """The verdict on two rows of one key: only of one machine, by ranks of processes."""
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
    old, new = ([math.log(seconds) for seconds in row.seconds] for row in (before, now))
    decision = decide_samples(old, new, FLOOR, LEVEL)
    reasons = [decision.reason] if decision.reason else []
    if decision.needed is not None:
        reasons.append(f"{decision.needed} processes of each side would settle it")
    return replace(
        plain,
        verdict=decision.verdict,
        reason="; ".join([*reasons, *_software(before, now, SOFTWARE)]),
        ratio=decision.ratio,
        low=decision.low,
        high=decision.high,
    )


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
    names = HARDWARE if on_gpu else [*(name for name in HARDWARE if name != "gpus"), "threads"]
    one, other = before.environment, now.environment
    if "processor" not in one or "processor" not in other:
        return ["a side does not say what it was measured on"]
    return [
        f"{name} {short(one.get(name))} there, {short(other.get(name))} here"
        for name in names
        if one.get(name) != other.get(name)
    ]
