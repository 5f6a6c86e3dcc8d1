"""Samples on clocks made up here: what is found can be known in advance; and percentiles."""

import math
import random
import statistics
from collections.abc import Callable, Iterable, Iterator

import numpy as np
import pytest
import torch

from datbench.timing import ceilings
from datbench.timing.records import PERCENTS, Timing, latency
from datbench.timing.sample import (
    FEWEST,
    drift,
    exponent,
    median_interval,
    student_t,
    time_calls,
    warm_up,
)


class Machine:
    """A clock that each call of `run` moves on by the next duration; reading it costs `tick`."""

    def __init__(
        self, durations: Iterable[float], interrupted_at: int | None = None, tick: float = 0.0
    ) -> None:
        self.now = 0.0
        self.tick = tick
        self.calls = 0
        self.log: list[str] = []
        self._durations = iter(durations)
        self._interrupted_at = interrupted_at

    def clock(self) -> float:
        self.now += self.tick
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


def steady(level: float = 1.0, noise: float = 0.01, seed: int = 0) -> Iterator[float]:
    rng = random.Random(seed)
    while True:
        yield level * rng.lognormvariate(0, noise)


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
    for at, keep in ((9, False), (1, True)):  # before the first there is nothing to keep
        machine = Machine(steady(), interrupted_at=at)
        with pytest.raises(KeyboardInterrupt):
            time_calls(machine.run, budget=1e4, clock=machine.clock, keep=keep)


def test_a_level_that_never_settles_is_marked() -> None:
    falling = Machine(1000 * 0.97**i for i in range(200))
    found = time_calls(falling.run, budget=20_000.0, clock=falling.clock)
    assert not found.settled


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
    means = latency([timing(*map(float, range(samples + 100)), calls=8)])  # they have no tail
    assert means[0].seconds == (samples + 99) / 2
    assert {one.seconds for one in means[1:]} == {None}
    assert {one.reason for one in means[1:]} == {"a sample is the mean of 8 calls"}


def test_the_fastest_sample_is_the_ceiling_and_the_median_stands_beside_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    slow = Timing((4.0, 4.0, 4.0), (), 1, "budget", 4.0, 3.0, 5.0, 0.75)
    wide = Timing((8.0, 2.0, 10.0), (), 1, "budget", 8.0, 2.0, 10.0, 0.75)
    answers = iter([slow, slow, wide, slow, wide])  # two ways at two sides, then the copy
    monkeypatch.setattr(ceilings, "time_calls", lambda *_, **__: next(answers))
    cpu = torch.device("cpu")
    found = ceilings.ceilings(cpu, torch.float32, 1.0, sides=(20, 40), copied=1000)
    assert (found.side, found.macs, found.bytes) == (40, 40**3 / 2, 1000.0)
    assert (found.product.median, found.product.low, found.product.high) == (8e3, 6.4e3, 32e3)
    assert (found.copy.median, found.copy.samples, found.copy.coverage) == (250.0, 3, 0.75)


def warming(slow: int, level: float, seed: int = 0) -> Iterator[float]:
    source = steady(seed=seed)
    for _ in range(slow):
        yield level * next(source)
    yield from source


# Warm-up.


@pytest.mark.parametrize("slow", [1, 3, 8, 12, 25])
@pytest.mark.parametrize("level", [1.2, 3.0, 0.7])
def test_warm_up_ends_where_the_level_changes(slow: int, level: float) -> None:
    source = warming(slow, level)
    samples = [next(source) for _ in range(60)]
    assert slow <= warm_up(samples) <= slow + 3


@pytest.mark.parametrize(
    ("count", "level", "least", "most"),
    [
        (80, lambda i: 1 + 2 * math.exp(-i / 5), 12, 30),  # a ramp is cut until it is flat
        (60, lambda i: 2 if i > 40 else 1, 0, 2),  # a late change of level is no warm-up
    ],
)
def test_levels_that_move(count: int, level: Callable[[int], float], least: int, most: int) -> None:
    source = steady()
    assert least <= warm_up([next(source) * level(i) for i in range(count)]) <= most


@pytest.mark.parametrize("seed", range(20))
def test_a_level_that_never_changes_loses_next_to_nothing(seed: int) -> None:
    source = steady(noise=0.1, seed=seed)
    assert warm_up([next(source) for _ in range(60)]) <= 3


def test_warm_up_is_never_more_than_half() -> None:
    falling = [1000.0 - i for i in range(0, 1000, 20)]
    assert warm_up(falling) <= len(falling) / 2
    assert warm_up([]) == warm_up([1.0]) == 0


# Stopping.


def test_a_quiet_machine_stops_on_the_interval_and_keeps_every_sample() -> None:
    machine = Machine(steady())
    timing = time_calls(machine.run, budget=1000.0, clock=machine.clock)
    assert (timing.stopped, timing.settled, timing.drift) == ("interval", True, None)
    assert len(timing.samples) == FEWEST
    assert timing.calls == 1
    assert len(timing.samples) + len(timing.warmup) == machine.calls
    assert timing.low <= timing.median <= timing.high <= 1.05 * timing.low
    assert timing.median == statistics.median(timing.samples)
    assert {timing.low, timing.high} <= set(timing.samples)


def test_a_noisy_machine_stops_on_the_budget() -> None:
    machine = Machine(steady(noise=1.0))
    timing = time_calls(machine.run, budget=100.0, clock=machine.clock)
    assert timing.stopped == "budget"
    assert machine.now >= 100.0
    assert machine.now - timing.samples[-1] * timing.calls < 100.0  # one sample past it at most
    assert timing.high - timing.low > 0.05 * timing.median


def test_a_wider_target_stops_earlier() -> None:
    machines = [Machine(steady(noise=0.2)) for _ in range(2)]
    wide, narrow = (
        time_calls(machine.run, budget=5000.0, width=width, clock=machine.clock)
        for machine, width in zip(machines, (0.2, 0.05), strict=True)
    )
    assert (wide.stopped, narrow.stopped) == ("interval", "interval")
    assert len(wide.samples) < len(narrow.samples)


def test_the_slow_beginning_is_in_the_warm_up_and_not_in_the_median() -> None:
    machine = Machine(warming(10, 4.0))
    timing = time_calls(machine.run, budget=1000.0, clock=machine.clock)
    assert timing.stopped == "interval"
    assert [s for s in timing.warmup if s > 2] == list(timing.warmup[:10])
    assert max(timing.samples) < 1.1


def test_a_call_beyond_the_budget_is_one_sample_and_says_that_it_proves_nothing() -> None:
    machine = Machine(steady(level=50.0))
    timing = time_calls(machine.run, budget=1.0, clock=machine.clock)
    assert machine.calls == 1
    assert (timing.stopped, len(timing.samples), timing.warmup) == ("budget", 1, ())
    assert timing.low == timing.median == timing.high
    assert timing.coverage == 0.0


@pytest.mark.parametrize(
    ("noise", "limits", "stopped", "least"),
    [
        (0.01, {"budget": 1000.0, "least": 200.0}, "interval", 200),  # seconds of one call each
        (1.0, {"budget": math.inf, "width": 0.001}, "samples", 20_000),
    ],
)
def test_what_is_sampled_at_least(
    noise: float, limits: dict[str, float], stopped: str, least: int
) -> None:
    machine = Machine(steady(noise=noise))
    timing = time_calls(machine.run, clock=machine.clock, **limits)
    assert timing.stopped == stopped
    assert len(timing.samples) + len(timing.warmup) >= least


def test_short_calls_are_repeated_until_the_clock_is_below_one_percent() -> None:
    """A clock that costs as much as a call."""
    machine = Machine(steady(level=1.0), tick=1.0)
    timing = time_calls(machine.run, budget=1e6, clock=machine.clock)
    assert timing.calls >= 100
    assert timing.median == pytest.approx(1.0, rel=0.02)


def test_a_callable_is_timed_with_the_real_clock_and_may_raise() -> None:
    x = torch.ones(8)
    timing = time_calls(lambda: x.add_(1), budget=0.05)
    assert timing.samples
    assert min(timing.samples) > 0
    with pytest.raises(ValueError, match="invalid literal"):
        time_calls(lambda: int("no"))


# The interval of the median.


def test_the_interval_is_the_binomials() -> None:
    """Ten samples: ranks 2 and 9 leave out 2 (1 + 10) of 1024 equally likely patterns."""
    found = median_interval([float(i) for i in range(1, 11)])
    assert (found.value, found.low, found.high) == (5.5, 2.0, 9.0)
    assert found.coverage == pytest.approx(1 - 22 / 1024)
    assert median_interval([3.0, 1.0, 2.0]).coverage == pytest.approx(1 - 2 / 8)
    assert median_interval([float(i) for i in range(6)]).coverage == pytest.approx(1 - 2 / 64)
    with pytest.raises(ValueError, match="no samples"):
        median_interval([])


@pytest.mark.parametrize("n", [6, 7, 12, 50, 501, 20_000])
def test_the_next_narrower_interval_would_not_reach_the_level(n: int) -> None:
    found = median_interval([float(i) for i in range(n)])
    assert found.coverage >= 0.95
    inner = 1 - 2 * sum(
        math.exp(math.lgamma(n + 1) - math.lgamma(i + 1) - math.lgamma(n - i + 1) - n * math.log(2))
        for i in range(int(found.low) + 2)
    )
    assert inner < 0.95


Draw = Callable[[random.Random], float]
NORMAL: tuple[Draw, float] = (lambda rng: rng.gauss(10, 1), 10.0)
SKEWED: tuple[Draw, float] = (lambda rng: 1 + rng.expovariate(1), 1 + math.log(2))


@pytest.mark.parametrize(("draw", "median"), [NORMAL, SKEWED])
@pytest.mark.parametrize("n", [8, 25, 80])
def test_the_interval_covers_the_median(draw: Draw, median: float, n: int) -> None:
    rng = random.Random(1)
    intervals = [median_interval([draw(rng) for _ in range(n)]) for _ in range(1500)]
    assert sum(i.low <= median <= i.high for i in intervals) / len(intervals) >= 0.945


@pytest.mark.parametrize("noise", [0.01, 0.05, 0.1])
def test_the_interval_covers_with_warm_up_and_stopping_too(noise: float) -> None:
    covered = 0
    for seed in range(500):
        machine = Machine(steady(noise=noise, seed=seed))
        timing = time_calls(machine.run, budget=1000.0, least=0.0, clock=machine.clock)
        covered += timing.low <= 1.0 <= timing.high
    assert covered / 500 >= 0.93


# Exponents.


@pytest.mark.parametrize(
    ("level", "freedom", "t"),
    [
        # NIST/SEMATECH e-Handbook of Statistical Methods, 1.3.6.7.2.
        (0.95, 1, 12.706),
        (0.95, 2, 4.303),
        (0.95, 3, 3.182),
        (0.95, 4, 2.776),
        (0.95, 7, 2.365),
        (0.95, 30, 2.042),
        (0.95, 100, 1.984),
        (0.90, 5, 2.015),
        (0.99, 5, 4.032),
        (0.99, 10, 3.169),
    ],
)
def test_student_t_is_the_tables(level: float, freedom: int, t: float) -> None:
    assert student_t(level, freedom) == pytest.approx(t, abs=5e-4)


@pytest.mark.parametrize("power", [0.5, 1.0, 2.0, -0.7])
def test_a_planted_power_is_found_exactly(power: float) -> None:
    sizes = [64.0, 144.0, 256.0, 1024.0]
    found = exponent(sizes, [3e-6 * size**power for size in sizes])
    assert found.value == pytest.approx(power)
    assert found.low == pytest.approx(power)
    assert found.high == pytest.approx(power)


def test_the_interval_of_a_power_covers_it() -> None:
    rng = random.Random(2)
    sizes = [64.0, 144.0, 256.0, 576.0, 1024.0]
    covered = 0
    for _ in range(1500):
        found = exponent(sizes, [size**1.4 * rng.lognormvariate(0, 0.1) for size in sizes])
        covered += found.low <= 1.4 <= found.high
    assert 0.935 <= covered / 1500 <= 0.965


def test_two_points_make_no_interval() -> None:
    with pytest.raises(ValueError, match="three points"):
        exponent([1.0, 2.0], [1.0, 2.0])
    with pytest.raises(ValueError, match="three points"):
        exponent([2.0, 2.0, 2.0], [1.0, 2.0, 3.0])
