"""Pairs of processes, one of either side, and what they say.

The processes of a pair run at once and take turns, or one after the other. Of each round of two
pairs a coin decides whether it is ABBA or BAAB: which side of a pair begins. Within a round a
linear drift cancels; the coin breaks what recurs with the rounds' own period. No round is thrown
away to warm the machine up: its first pair is one of many to a test on ranks.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from statistics import median
from typing import TypeAlias

from ...timings import WAITED, ProcessTiming
from ...versus import Decision, Plan, Run, SideName
from .decide import decide_pairs

Sampler: TypeAlias = Callable[[SideName], ProcessTiming]
"""Times one side in a fresh process. What goes wrong there is an outcome."""

Pairs: TypeAlias = Callable[[SideName, int], Iterable[ProcessTiming]]
"""Times a pair: the side that is named, then the other one. Told the pair's number from 0."""

Step: TypeAlias = Callable[[int, int, float], None]
"""Told the pair at work, its number from 1, of how many, and the seconds left, about."""

ROUND = 4
"""Processes in a round."""

OTHER: dict[SideName, SideName] = {"A": "B", "B": "A"}


@dataclass(frozen=True)
class Compared:
    """Processes in the order of time, and what they say."""

    runs: tuple[Run, ...]
    decision: Decision
    interrupted: bool


def quiet(pair: int, of: int, left: float) -> None:
    """Nobody watches."""


def one_at_a_time(sample: Sampler) -> Pairs:
    """Pairs whose second process begins when the first has ended, and not if it ended badly."""

    def pairs(first: SideName, number: int) -> Iterator[ProcessTiming]:
        timing = sample(first)
        yield timing
        if timing.outcome == "measured" and timing.timing is not None:
            yield sample(OTHER[first])

    return pairs


def sides(seed: int) -> Iterator[SideName]:
    """The sides in the order of time, without end; round by round ABBA or BAAB."""
    coin = random.Random(seed)
    orders: tuple[tuple[SideName, ...], ...] = (("A", "B", "B", "A"), ("B", "A", "A", "B"))
    while True:
        yield from orders[coin.getrandbits(1)]


def compare(pairs: Pairs, images: dict[SideName, int], plan: Plan, step: Step = quiet) -> Compared:
    """Run rounds until they say something, or the plan ends. Ctrl-C keeps the whole pairs.

    Args:
        images: of each side's batch.
    """
    order = sides(plan.seed)
    runs: list[Run] = []
    level = plan.look_level()
    for processes in plan.looks():
        interrupted = extend(runs, order, 2 * processes, pairs, images, step)
        decision = decided(runs, plan.floor, level)
        if interrupted or decision.verdict != "ambiguous":
            return Compared(tuple(runs), decision, interrupted)
    return Compared(tuple(runs), decision, False)


def extend(
    runs: list[Run],
    order: Iterator[SideName],
    processes: int,
    pairs: Pairs,
    images: dict[SideName, int],
    step: Step,
) -> bool:
    """Run to so many processes, or to the first that fails; whether somebody interrupted it."""
    begin, before = time.perf_counter(), len(runs)
    try:
        while len(runs) < processes:
            done = len(runs) - before
            taken = (time.perf_counter() - begin) / done if done else 0.0
            pair = len(runs) // 2
            step(pair + 1, processes // 2, taken * (processes - len(runs)))
            first, _ = islice(order, 2)
            ended = zip((first, OTHER[first]), pairs(first, pair), strict=False)
            found = [_add(runs, side, timing, images[side]) for side, timing in ended]
            if any(run.timing.outcome == "interrupted" for run in found):
                return True
            if any(run.rate is None for run in found):
                return False
    except KeyboardInterrupt:
        return True
    return False


def _add(runs: list[Run], side: SideName, timing: ProcessTiming, images: int) -> Run:
    number = len(runs)
    runs.append(Run(number, number // ROUND, side, timing, rate(timing, images)))
    return runs[-1]


def rate(timing: ProcessTiming, images: int) -> float | None:
    """Images a second of a process that ended well."""
    found = timing.timing
    if timing.outcome != "measured" or found is None:
        return None
    return images / found.median if 0 < found.median < math.inf else None


def median_rate(runs: Sequence[Run], side: SideName) -> float | None:
    """Of the processes that count; None where there is none."""
    rates = [run.rate for run in runs if run.side == side and run.rate is not None]
    return median(rates) if rates else None


def decided(runs: Sequence[Run], floor: float, level: float) -> Decision:
    """The verdict of so many runs; of a process that failed, none."""
    wrong = [run for run in runs if run.rate is None and run.timing.outcome != "interrupted"]
    # One that waited for the other in vain is not the reason.
    failed = next(
        (run for run in wrong if run.timing.reason != WAITED), wrong[0] if wrong else None
    )
    if failed is not None:
        timing = failed.timing
        what = "no time" if timing.outcome == "measured" else timing.outcome
        why = f"{what}: {timing.reason}" if timing.reason else what
        reason = f"process {failed.number + 1}, of {failed.side}, {why}"
        return Decision("failed", floor, level, reason=reason)
    return decide_pairs(differences(runs), floor, level)


def differences(runs: Sequence[Run]) -> list[float]:
    """log(seconds of B / seconds of A) of each whole pair of neighbours."""
    found = []
    for first, second in zip(runs[::2], runs[1::2], strict=False):
        if first.rate is not None and second.rate is not None:
            a, b = (first, second) if first.side == "A" else (second, first)
            assert a.rate is not None
            assert b.rate is not None
            found.append(math.log(a.rate / b.rate))
    return found
