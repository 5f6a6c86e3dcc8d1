"""Pairs of processes, one of either side, and what they say.

The processes of a pair run at once and take turns, or one after the other. A coin decides for each
round of two pairs whether it is ABBA or BAAB: which side of a pair begins. Within a round a linear
drift cancels; the coin breaks what recurs with the period of the rounds. No round is thrown away
as a warm-up: for a test on ranks its first pair is one of many.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from statistics import median
from typing import TypeAlias

from ..machine import alone_on, software, warn_if_loaded
from ..timing.records import WAITED, ComparedSide, ProcessTiming
from .decide import decide_pairs
from .records import (
    VERDICTS,
    ComparisonRow,
    Decision,
    FalseAlarms,
    RunPlan,
    SideName,
    TimedRun,
    order,
)

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
class ComparedRuns:
    """Processes in the order of time, and what they say."""

    runs: tuple[TimedRun, ...]
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


def compare(
    pairs: Pairs, images: dict[SideName, int], plan: RunPlan, step: Step = quiet
) -> ComparedRuns:
    """Run rounds until they say something, or the plan ends. Ctrl-C keeps the whole pairs.

    Args:
        images: of each side's batch.
    """
    order = sides(plan.seed)
    runs: list[TimedRun] = []
    level = plan.look_level()
    for processes in plan.looks():
        interrupted = extend(runs, order, 2 * processes, pairs, images, step)
        decision = decided(runs, plan.floor, level)
        if interrupted or decision.verdict != "ambiguous":
            return ComparedRuns(tuple(runs), decision, interrupted)
    return ComparedRuns(tuple(runs), decision, False)


def extend(
    runs: list[TimedRun],
    order: Iterator[SideName],
    processes: int,
    pairs: Pairs,
    images: dict[SideName, int],
    step: Step,
) -> bool:
    """Run this many processes, or to the first that fails; True where somebody interrupted it."""
    begin, before = time.perf_counter(), len(runs)
    try:
        while len(runs) < processes:
            done = len(runs) - before
            taken = (time.perf_counter() - begin) / done if done else 0.0
            pair = len(runs) // 2
            step(pair + 1, processes // 2, taken * (processes - len(runs)))
            first, _ = islice(order, 2)
            ended = zip((first, OTHER[first]), pairs(first, pair), strict=False)
            for side, timing in ended:
                place = len(runs) // ROUND
                runs.append(TimedRun(len(runs), place, side, timing, rate(timing, images[side])))
            pair_runs = runs[2 * pair :]
            if any(run.timing.outcome == "interrupted" for run in pair_runs):
                return True
            if any(run.rate is None for run in pair_runs):
                return False
    except KeyboardInterrupt:
        return True
    return False


def rate(timing: ProcessTiming, images: int) -> float | None:
    """Images a second of a process that ended well."""
    found = timing.timing
    if timing.outcome != "measured" or found is None:
        return None
    return images / found.median if 0 < found.median < math.inf else None


def median_rate(runs: Sequence[TimedRun], side: SideName) -> float | None:
    """The median rate of the processes that count; None where there is none."""
    rates = [run.rate for run in runs if run.side == side and run.rate is not None]
    return median(rates) if rates else None


def decided(runs: Sequence[TimedRun], floor: float, level: float) -> Decision:
    """The verdict of these runs; it is "failed" where a process failed."""
    wrong = [run for run in runs if run.rate is None and run.timing.outcome != "interrupted"]
    if wrong:
        # One that waited for the other in vain is not the reason.
        failed = min(wrong, key=lambda run: run.timing.reason == WAITED)
        timing = failed.timing
        what = "no time" if timing.outcome == "measured" else timing.outcome
        why = f"{what}: {timing.reason}" if timing.reason else what
        reason = f"process {failed.number + 1}, of {failed.side}, {why}"
        return Decision("failed", floor, level, reason=reason)
    return decide_pairs(differences(runs), floor, level)


def differences(runs: Sequence[TimedRun]) -> list[float]:
    """log(seconds of B / seconds of A) of each whole pair of neighbours."""
    return [
        math.log(first.rate / second.rate if first.side == "A" else second.rate / first.rate)
        for first, second in zip(runs[::2], runs[1::2], strict=False)
        if first.rate is not None and second.rate is not None
    ]


FEW = 6
"""Samples below which a process's median is not known at 95 %, whatever the interval."""


def doubts(runs: Sequence[TimedRun]) -> tuple[str, ...]:
    """Warnings about a comparison whose processes all ended well; each once."""
    return (*_of_the_processes(runs), *_of_the_sides(runs))


def _of_the_processes(runs: Sequence[TimedRun]) -> Iterator[str]:
    """What a process's median does not show."""
    of = len(runs)
    throttled = [t.throttled for run in runs if (t := run.timing.telemetry) and t.throttled]
    if throttled:
        reasons = sorted({reason for reasons in throttled for reason in reasons})
        yield f"the GPU was throttled in {len(throttled)} of {of} processes ({', '.join(reasons)})"
    timings = [run.timing.timing for run in runs if run.timing.timing is not None]
    few = sum(len(timing.samples) < FEW for timing in timings)
    if few:
        yield f"{few} of {of} processes took fewer than {FEW} samples; give a longer --budget"
    unsettled = sum(not timing.settled for timing in timings)
    if unsettled:
        yield f"the warm-up did not end in {unsettled} of {of} processes; give a longer --budget"
    # Where two took turns, the other one saw the same.
    alone = [run.timing.timing for run in runs if run.timing.turns is None]
    drifted = [timing.drift for timing in alone if timing and timing.drift is not None]
    if drifted:
        most = max(drifted, key=abs)
        yield (
            f"the time of a call drifted within {len(drifted)} of {of} processes, by up to "
            f"{100 * most:+.0f} %: their medians stand for different times"
        )


def _of_the_sides(runs: Sequence[TimedRun]) -> Iterator[str]:
    """Warnings: one side disturbed the other, or they differ in something not asked for."""
    a, b = ([run.timing for run in runs if run.side == side] for side in "AB")
    for side, timings in (("A", a), ("B", b)):
        if any(timing.restless for timing in timings):
            yield (
                f"threads of {side} go on working in the other side's turns and may slow it down; "
                "use --one-at-a-time"
            )
    environments = ([each.environment for each in side if each.environment] for side in (a, b))
    yield from software(*environments)
    one, other = ({each.threads for each in side} - {None} for side in (a, b))
    if one and other and one != other:
        said = [", ".join(map(str, threads)) for threads in (one, other)]
        yield f"threads {said[0]} for A, {said[1]} for B"


# A against itself: how often this set-up sees what is not there, and how little it can see.
#
# Each comparison begins one round after the one before it and shares the others with it, so that
# twenty cost not twenty times as much but three to five. The rate that they give is as right as
# that of separate ones, on average; it is less sure, and `independent` says how much.


FOUND = 0.8
"""The share of comparisons that must see a difference for it to be called visible."""


def processes(plan: RunPlan, comparisons: int) -> int:
    """How many processes it takes."""
    return 2 * plan.processes + ROUND * (comparisons - 1)


def false_alarms(
    pairs: Pairs, images: int, plan: RunPlan, comparisons: int, step: Step = quiet
) -> FalseAlarms:
    """Compare A with itself this many times, as the plan's first look would.

    Ctrl-C, or a process that gives no figure, ends it early; what was finished is kept.

    Args:
        pairs: of A with itself: it plays B too.
    """
    runs: list[TimedRun] = []
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
        {verdict: sum(each.verdict == verdict for each in decisions) for verdict in VERDICTS},
    )


def trusted(decision: Decision, alarms: FalseAlarms | None) -> Decision:
    """The verdict on B, withdrawn where A differed from itself too often on this set-up."""
    told = decision.ratio is not None and decision.verdict != "failed"
    if alarms is None or not alarms.too_many or not told:
        return decision
    reason = (
        f"A differed from itself in {alarms.false} of {len(alarms.decisions)} comparisons, so that "
        f"no verdict is to be trusted; the processes alone would say {decision.verdict}"
    )
    return replace(
        decision, verdict="ambiguous", needed=None, reason=reason, withdrawn=decision.verdict
    )


def _bounds(decision: Decision) -> tuple[float, float, float]:
    """Least, estimate and most of a comparison all of whose processes ended well."""
    found = (decision.low, decision.ratio, decision.high)
    assert None not in found
    return found  # type: ignore[return-value]


def _width(decision: Decision) -> float:
    low, _, high = _bounds(decision)
    return math.sqrt(high / low) - 1


def _visible(decisions: tuple[Decision, ...], floor: float) -> float:
    """The relative difference that `FOUND` of the comparisons would have found, either way.

    A difference moves estimate and interval by as much. It is found when the interval excludes 1
    and the estimate lies beyond the threshold.
    """
    limit = math.log1p(floor)
    takes = []
    for low, middle, high in (map(math.log, _bounds(decision)) for decision in decisions):
        takes += [max(-low, limit - middle), max(high, limit + middle)]
    takes.sort()
    return math.expm1(takes[math.ceil(FOUND * len(takes)) - 1])


def compare_sides(
    a: ComparedSide,
    b: ComparedSide | None,
    plan: RunPlan,
    timeout: float,
    itself: int = 0,
    step_of: Callable[[str], Step] = lambda what: quiet,
    pairs: Pairs | None = None,
) -> tuple[ComparisonRow | None, FalseAlarms | None]:
    """Run two sides interleaved; before that, run A against itself where it is asked for.

    Args:
        b: None for A against itself alone.
        itself: comparisons of A with itself.
        step_of: watches what is named.
        pairs: times A and B. Default: fresh processes, as the plan wants them.
    """
    warn_if_loaded()
    alarms = None
    with alone_on(a.setting.device, (b or a).setting.device):
        if itself:
            watch, with_itself = step_of("A against itself"), _pairs(a, a, plan, timeout)
            alarms = false_alarms(with_itself, a.setting.batch, plan, itself, watch)
        if b is None or (alarms is not None and (alarms.interrupted or alarms.failed)):
            return None, alarms
        images: dict[SideName, int] = {"A": a.setting.batch, "B": b.setting.batch}
        found = compare(pairs or _pairs(a, b, plan, timeout), images, plan, step_of("A and B"))
    row = ComparisonRow(
        a,
        b,
        trusted(found.decision, alarms),
        median_rate(found.runs, "A"),
        median_rate(found.runs, "B"),
        found.runs,
        interleaved=True,
        interrupted=found.interrupted,
        doubts=doubts(found.runs),
        plan=plan,
        order=order(found.runs),
        false_alarms=alarms,
    )
    return row, alarms


def _pairs(a: ComparedSide, b: ComparedSide, plan: RunPlan, timeout: float) -> Pairs:
    """Times the two sides in fresh processes, as the plan wants it."""
    from ..timing import process

    def sample(name: SideName) -> ProcessTiming:
        side = a if name == "A" else b
        source = None if side.source is None else Path(side.source)
        return process.time_in_process(
            side.model, side.setting, side.how, timeout=timeout, python=side.python, source=source
        )

    def by_turns(first: SideName, number: int) -> tuple[ProcessTiming, ProcessTiming]:
        one, other = (a, b) if first == "A" else (b, a)
        return process.time_pair(one, other, timeout, number)

    return by_turns if plan.by_turns else one_at_a_time(sample)
