"""What `time_calls` has for whole models, on a clock made up here; and percentiles."""

import random
from collections.abc import Iterator

import numpy as np
import pytest

from datbench.timing.records import PERCENTS, Timing, latency
from datbench.timing.sample import drift, time_calls


class Machine:
    """A clock that each call moves on by the next duration."""

    def __init__(self, durations: Iterator[float], interrupted_at: int | None = None) -> None:
        self.now = 0.0
        self.calls = 0
        self.log: list[str] = []
        self._durations = durations
        self._interrupted_at = interrupted_at

    def clock(self) -> float:
        return self.now

    def run(self) -> None:
        self.calls += 1
        if self.calls == self._interrupted_at:
            raise KeyboardInterrupt
        self.now += next(self._durations)
        self.log.append("run")

    def other(self) -> None:
        """Takes a hundred times as long as a call."""
        self.now += 100.0
        self.log.append("other")


def steady(noise: float = 0.01) -> Iterator[float]:
    rng = random.Random(0)
    while True:
        yield rng.lognormvariate(0, noise)


def timing(*samples: float, calls: int = 1) -> Timing:
    return Timing(samples, (), calls, "budget", 1.0, 1.0, 1.0, 0.95)


def test_what_is_done_before_a_sample_is_in_none() -> None:
    machine = Machine(steady())
    found = time_calls(machine.run, budget=1e4, clock=machine.clock, prepare=machine.other)
    assert max(found.samples) < 1.1
    assert found.calls == 1
    order = machine.log[machine.log.index("run") - 1 :]
    assert order == ["other", "run"] * machine.calls


def test_a_sample_with_preparation_is_one_call_however_short() -> None:
    """A clock so coarse that calls would else be repeated."""
    ticks = iter(range(10**6))
    found = time_calls(
        lambda: None, budget=1e4, clock=lambda: float(next(ticks)), prepare=lambda: None
    )
    assert found.calls == 1


def test_what_is_done_between_samples_is_told_of_each_once() -> None:
    machine = Machine(steady())
    found = time_calls(machine.run, budget=1e4, clock=machine.clock, between=machine.other)
    assert machine.log == ["run", "other"] * machine.calls
    assert len(found.warmup) + len(found.samples) == machine.calls
    assert max(found.samples) < 1.1


def test_ctrl_c_keeps_the_finished_samples_where_that_is_wanted() -> None:
    machine = Machine(steady(), interrupted_at=9)
    found = time_calls(machine.run, budget=1e4, clock=machine.clock, keep=True)
    assert found.stopped == "interrupted"
    assert len(found.warmup) + len(found.samples) == 8
    machine = Machine(steady(), interrupted_at=9)
    with pytest.raises(KeyboardInterrupt):
        time_calls(machine.run, budget=1e4, clock=machine.clock)


def test_ctrl_c_before_any_sample_is_ctrl_c() -> None:
    machine = Machine(steady(), interrupted_at=1)
    with pytest.raises(KeyboardInterrupt):
        time_calls(machine.run, budget=1e4, clock=machine.clock, keep=True)


def test_a_level_that_never_settles_is_marked() -> None:
    falling = Machine(1000 * 0.97**i for i in range(200))
    found = time_calls(falling.run, budget=20_000.0, clock=falling.clock)
    assert not found.settled
    quiet = Machine(steady())
    found = time_calls(quiet.run, budget=1e4, clock=quiet.clock)
    assert found.settled
    assert found.drift is None


def test_drift_is_a_level_that_moved_beyond_its_noise() -> None:
    source = steady()
    level = [next(source) for _ in range(60)]
    assert drift(level) is None
    moved = drift([*level[:30], *(1.2 * sample for sample in level[30:])])
    assert moved == pytest.approx(0.2, abs=0.02)
    noise = steady(noise=0.5)
    assert drift([next(noise) for _ in range(60)]) is None
    assert drift([1.0] * 5 + [2.0] * 5) is None  # too few to say


def test_percentiles_are_numpys_of_all_samples() -> None:
    rng = random.Random(1)
    first, second = ([rng.lognormvariate(0, 0.3) for _ in range(n)] for n in (70, 80))
    found = latency([timing(*first), timing(*second)])
    assert [one.percent for one in found] == list(PERCENTS)
    expected = np.percentile([*first, *second], PERCENTS)
    assert [one.seconds for one in found] == pytest.approx(list(expected))


@pytest.mark.parametrize(
    ("samples", "there"), [(1, {50}), (10, {50, 90}), (99, {50, 90, 95}), (100, {50, 90, 95, 99})]
)
def test_a_percentile_takes_a_sample_beyond_it(samples: int, there: set[int]) -> None:
    found = latency([timing(*map(float, range(samples)))])
    assert {one.percent for one in found if one.seconds is not None} == there
    assert all((one.reason is None) == (one.percent in there) for one in found)


def test_means_of_calls_have_no_tail() -> None:
    found = latency([timing(*map(float, range(200)), calls=8)])
    assert found[0].seconds == 99.5
    assert {one.seconds for one in found[1:]} == {None}
    assert {one.reason for one in found[1:]} == {"a sample is the mean of 8 calls"}
