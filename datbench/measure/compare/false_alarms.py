"""A against itself: how often this set-up sees what is not there, and how little it can see.

Each comparison begins one round after the one before it and shares the others with it, so that
twenty cost not twenty times as much but three to five. The rate that they give is as right as that
of separate ones, on average; it is less sure, and `independent` says how much.
"""

from __future__ import annotations

import math
from dataclasses import replace
from statistics import median

from ...versus import Decision, FalseAlarms, Plan, Run, SideName
from .run import ROUND, Pairs, Step, decided, extend, quiet, sides

FOUND = 0.8
"""Of the comparisons that should see a difference, for it to be called visible."""


def processes(plan: Plan, comparisons: int) -> int:
    """How many it takes."""
    return 2 * plan.processes + ROUND * (comparisons - 1)


def false_alarms(
    pairs: Pairs, images: int, plan: Plan, comparisons: int, step: Step = quiet
) -> FalseAlarms:
    """Compare A with itself so many times, as the plan's first look would.

    Ctrl-C, or a process that gives no figure, ends it early; what was finished is kept.

    Args:
        pairs: of A with itself: it plays B too.
    """
    runs: list[Run] = []
    both: dict[SideName, int] = {"A": images, "B": images}
    wanted = processes(plan, comparisons)
    interrupted = extend(runs, sides(plan.seed), wanted, pairs, both, step)
    level = plan.look_level()
    whole = decided(runs, plan.floor, level)
    finished = [run for run in runs if run.rate is not None]
    length = 2 * plan.processes
    decisions = tuple(
        decided(finished[start : start + length], plan.floor, level)
        for start in range(0, len(finished) - length + 1, ROUND)
    )
    return FalseAlarms(
        comparisons,
        decisions,
        tuple(runs),
        len(runs),
        len(finished) // length,
        median(map(_width, decisions)) if decisions else None,
        _visible(decisions, plan.floor) if decisions else None,
        interrupted,
        whole.reason if whole.verdict == "failed" else None,
    )


def trusted(decision: Decision, alarms: FalseAlarms | None) -> Decision:
    """The verdict on B, withdrawn where A differed from itself too often on this set-up."""
    if alarms is None or not alarms.too_many or decision.ratio is None:
        return decision
    if decision.verdict == "failed":
        return decision
    reason = (
        f"A differed from itself in {alarms.false} of {len(alarms.decisions)} comparisons, so that "
        f"no verdict is to be trusted; the processes alone would say {decision.verdict}"
    )
    return replace(
        decision, verdict="ambiguous", needed=None, reason=reason, withdrawn=decision.verdict
    )


def _width(decision: Decision) -> float:
    assert decision.low is not None
    assert decision.high is not None
    return math.sqrt(decision.high / decision.low) - 1


def _visible(decisions: tuple[Decision, ...], floor: float) -> float:
    """The relative difference that `FOUND` of the comparisons would have found, either way.

    A difference moves estimate and interval by as much. It is found when the interval leaves 1 and
    the estimate the floor.
    """
    limit = math.log1p(floor)
    takes = []
    for decision in decisions:
        assert decision.low is not None
        assert decision.high is not None
        assert decision.ratio is not None
        low, middle, high = (math.log(x) for x in (decision.low, decision.ratio, decision.high))
        takes += [max(-low, limit - middle), max(high, limit + middle)]
    takes.sort()
    return math.expm1(takes[math.ceil(FOUND * len(takes)) - 1])
