"""Interleaved processes: their order, their pairs, and what becomes of those that fail."""

import random
import re
from collections.abc import Iterator
from itertools import count, islice

import pytest

from benchmarks.compare_noise import machine
from datbench.compare.records import RunPlan, SideName, order
from datbench.compare.run import (
    Pairs,
    compare,
    differences,
    doubts,
    false_alarms,
    one_at_a_time,
    processes,
    sides,
)
from datbench.timing.records import WAITED, ProcessTiming, Telemetry, TimeOutcome, Timing

IMAGES: dict[SideName, int] = {"A": 1, "B": 1}


def normal(spread: float, seed: int = 0) -> Iterator[float]:
    rng = random.Random(seed)
    return (rng.gauss(0, spread) for _ in count())


def test_rounds_are_abba_or_baab_and_a_seed_gives_them_again() -> None:
    found = "".join(islice(sides(3), 400))
    rounds = [found[i : i + 4] for i in range(0, 400, 4)]
    assert set(rounds) == {"ABBA", "BAAB"}
    assert 30 < rounds.count("ABBA") < 70
    assert found == "".join(islice(sides(3), 400))


def test_linear_drift_cancels() -> None:
    drift = (0.05 * i for i in count())
    found = compare(machine(drift, 1.0), IMAGES, RunPlan(10, 10))
    assert found.decision.ratio == pytest.approx(1)
    assert found.decision.verdict != "slower"
    assert len(differences(found.runs)) == 10


def test_speed_is_images_a_second() -> None:
    """The same seconds for a batch of twice the size: twice as fast."""
    found = compare(machine(normal(0.001), 1.0), {"A": 4, "B": 8}, RunPlan())
    assert found.decision.verdict == "faster"
    assert found.decision.ratio == pytest.approx(2, rel=0.01)


def test_it_stops_as_soon_as_it_knows_and_not_before() -> None:
    quiet = compare(machine(normal(0.001), 1.0), IMAGES, RunPlan(10, 40))
    assert (quiet.decision.verdict, len(quiet.runs)) == ("same", 20)
    noisy = compare(machine(normal(0.3), 1.0), IMAGES, RunPlan(10, 40))
    assert (noisy.decision.verdict, len(noisy.runs)) == ("ambiguous", 80)
    assert RunPlan(10, 30).looks() == (10, 20, 30)
    assert RunPlan(10, 40).look_level() == pytest.approx(1 - 0.02 / 3)


def ending(pairs: Pairs, at: int, outcome: TimeOutcome | None) -> Pairs:
    """The same, except that one process ends otherwise; None is Ctrl-C in between."""
    numbers = count(1)

    def other(first: SideName, pair: int) -> Iterator[ProcessTiming]:
        for timing in pairs(first, pair):
            if next(numbers) != at:
                yield timing
                continue
            if outcome is None:
                raise KeyboardInterrupt
            yield ProcessTiming(outcome, "why", timing.timing if outcome == "interrupted" else None)
            return

    return other


@pytest.mark.parametrize("outcome", ["out of memory", "crashed", "timed out", "failed", "measured"])
def test_a_process_that_fails_is_no_regression(outcome: TimeOutcome) -> None:
    found = compare(ending(machine(normal(0.001), 2.0), 15, outcome), IMAGES, RunPlan())
    assert found.decision.verdict == "failed"
    assert found.decision.reason.startswith("process 15, of ")
    assert "why" in found.decision.reason
    assert len(found.runs) == 15


def test_the_reason_is_the_side_that_was_waited_for() -> None:
    def pairs(first: SideName, number: int) -> tuple[ProcessTiming, ProcessTiming]:
        return ProcessTiming("failed", WAITED), ProcessTiming("timed out", "did not finish in 9 s")

    found = compare(pairs, IMAGES, RunPlan(seed=0))
    other = "AB".replace(found.runs[0].side, "")
    said = f"process 2, of {other}, timed out: did not finish in 9 s"
    assert (found.decision.verdict, found.decision.reason) == ("failed", said)


@pytest.mark.parametrize("outcome", [None, "interrupted"])
def test_ctrl_c_keeps_the_whole_pairs(outcome: TimeOutcome | None) -> None:
    found = compare(ending(machine(normal(0.001), 1.5), 18, outcome), IMAGES, RunPlan())
    assert found.interrupted
    assert found.decision.verdict == "slower"
    assert found.decision.processes == 8  # 17 processes ended: one of them alone
    early = compare(ending(machine(normal(0.001), 1.5), 2, outcome), IMAGES, RunPlan())
    assert early.decision.verdict == "ambiguous"
    assert early.decision.ratio is None


def test_a_against_itself() -> None:
    plan = RunPlan(8, 8)
    found = false_alarms(machine(normal(0.01), 1.0), 1, plan, 10)
    assert found.processes == len(found.runs) == processes(plan, 10) == 16 + 4 * 9
    assert len(found.decisions) == 10
    assert found.independent == 3
    assert found.false == 0
    assert found.width is not None
    assert 0.01 < found.visible < 0.05
    quiet = false_alarms(machine(normal(0.0001), 1.0), 1, plan, 10)
    assert quiet.visible == pytest.approx(0.02, abs=0.001)  # the floor


def test_what_is_visible_is_found() -> None:
    """Comparisons that lie that far apart are found about eight times in ten."""
    alarms = false_alarms(machine(normal(0.03), 1.0), 1, RunPlan(10, 10), 400)
    assert alarms.visible is not None
    noise = normal(0.03, seed=1)
    verdicts = [
        compare(
            machine(noise, 1 + alarms.visible), IMAGES, RunPlan(10, 10, seed=seed)
        ).decision.verdict
        for seed in range(300)
    ]
    assert 0.7 < verdicts.count("slower") / 300 < 0.9


def test_a_against_itself_ends_with_what_it_has() -> None:
    plan = RunPlan(8, 8)
    cut = false_alarms(ending(machine(normal(0.01), 1.0), 26, None), 1, plan, 10)
    assert cut.interrupted
    assert len(cut.decisions) == 3
    none = false_alarms(ending(machine(normal(0.01), 1.0), 3, None), 1, plan, 10)
    assert (none.decisions, none.visible) == ((), None)
    failed = false_alarms(ending(machine(normal(0.01), 1.0), 25, "crashed"), 1, plan, 10)
    assert failed.failed is not None
    assert re.fullmatch(r"process 25, of [AB], crashed: why", failed.failed)
    assert not failed.interrupted
    assert (len(failed.runs), len(failed.decisions)) == (25, 3)


def test_doubts() -> None:
    """What speaks against the processes, and two versions of torch: each is said once."""

    def sample(side: SideName) -> ProcessTiming:
        count = 3 if side == "A" else 30
        settled, drift = side == "A", 0.04 if side == "A" else -0.07
        seconds = (0.01,) * count
        timing = Timing(seconds, (), 1, "budget", 0.01, 0.01, 0.01, 0.95, settled, drift)
        telemetry = Telemetry(throttled=("power cap",) if side == "B" else ())
        environment = {"torch": f"2.{6 + (side == 'B')}", "processor": "x"}
        return ProcessTiming("measured", None, timing, 1, None, telemetry, (), environment)

    found = compare(one_at_a_time(sample), IMAGES, RunPlan())
    assert found.decision.verdict == "same"
    assert doubts(found.runs) == (
        "the GPU was throttled in 10 of 20 processes (power cap)",
        "10 of 20 processes took fewer than 6 samples; give a longer --budget",
        "the warm-up did not end in 10 of 20 processes; give a longer --budget",
        "the time of a call drifted within 20 of 20 processes, by up to -7 %: their medians stand "
        "for different times",
        "torch 2.6 for A, 2.7 for B",
    )
    assert set(order(found.runs).split()) <= {"ABBA", "BAAB"}
