"""Groups of calls, stages, modules and operators: time beside work, and beside the ceilings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

from ...measurements import Ceilings
from ...profiles import BOUNDS, WORKS, Answer, Bound, CallGroup, Total, Work, part_of
from ..conventions import CONVENTIONS
from ..recorder import OperatorCall
from .attribute import AUTOGRAD, GRADIENTS, Attributed, Key, is_composite, key_of

FVCORE = CONVENTIONS["fvcore"]


_MOVERS = ("copy", "clone", "empty", "fill", "zero", "as_strided")
"""In the names of operators that compute nothing, where the counter did not see them."""


@dataclass
class _Sum:
    """What the counter says of a key, a run."""

    calls: int = 0
    macs: int = 0
    bytes: int = 0
    costs: bool = False

    def add(self, call: OperatorCall) -> None:
        self.calls += 1
        self.macs += FVCORE.weigh(call.cost, call.module_type)
        self.bytes += call.bytes_read + call.bytes_written
        self.costs = self.costs or bool(call.cost) or call.status == "unknown"


def groups_of(
    runs: Sequence[Attributed],
    calls: Sequence[OperatorCall],
    stage_of: Callable[[str], str],
    limits: Ceilings,
) -> tuple[CallGroup, ...]:
    """Every key's time and work, the most time first; the shares add up to 1."""
    by_call = runs[0].complete
    sums: dict[Key, _Sum] = {}
    for call in calls:
        key = key_of(call, by_shapes=by_call and call.phase == "forward")
        sums.setdefault(key, _Sum()).add(call)
    keys = dict.fromkeys([*sums, *(key for run in runs for key in run.seconds)])
    seconds = {key: median(run.seconds.get(key, 0.0) for run in runs) for key in keys}
    total = Total(
        sum(seconds.values()),
        sum(s.macs for s in sums.values()),
        sum(s.bytes for s in sums.values()),
    )
    found = []
    for key in keys:
        known = sums.get(key, _Sum())
        number = known.calls or round(sum(run.calls[key] for run in runs) / len(runs))
        phase, module, operator, shapes = key
        ideal = max(known.macs / limits.macs, known.bytes / limits.bytes)
        part = part_of(
            operator, number, seconds[key], known.macs, known.bytes, ideal, total, limits
        )
        group = CallGroup(
            operator, module, stage_of(module), phase, _work(key, known), shapes, part
        )
        found.append(group)
    return tuple(sorted(found, key=lambda group: -group.part.seconds))


def _work(key: Key, known: _Sum) -> Work:
    _, module, operator, _ = key
    if known.macs:
        return "counted"
    if known.costs:
        return "uncounted"
    if known.bytes or (module == GRADIENTS and operator != AUTOGRAD):
        return "moves"
    if known.calls or not operator.startswith("aten::") or is_composite(operator):
        return "dispatch"
    return "moves" if any(word in operator for word in _MOVERS) else "uncounted"


def answer(groups: Sequence[CallGroup], launch: float | None, waiting: float) -> Answer:
    """Shares of the time by what FLOPs say, and by ceiling.

    Args:
        launch: seconds of an operator on a single element; None on a GPU.
        waiting: on a GPU, the share of the plain time in which no kernel runs.
    """
    works: dict[Work, float] = dict.fromkeys(WORKS, 0.0)
    bounds: dict[Bound, float] = dict.fromkeys(BOUNDS, 0.0)
    launching = 0.0
    total = sum(group.part.seconds for group in groups)
    for group in groups:
        part = group.part
        works[group.work] += part.share
        bounds[part.bound] += part.share
        if launch is not None and total:
            launching += min(part.calls * launch, part.seconds) / total
    if launch is None:
        launching = waiting
    return Answer(
        works["counted"],
        works["uncounted"],
        works["moves"],
        works["dispatch"],
        bounds["compute"],
        bounds["memory"],
        bounds["neither"],
        launching,
        bounds["above"],
    )
