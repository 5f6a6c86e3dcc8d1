"""Timing on clocks made up here: what it finds can be known in advance."""

import math
import random
import statistics
from collections.abc import Callable, Iterable, Iterator

import pytest
import torch

from datbench.timing.sample import FEWEST, exponent, median_interval, student_t, time_calls, warm_up


class Machine:
    """A clock that each call of `run` moves on by the next duration; reading it costs `tick`."""

    def __init__(self, durations: Iterable[float], tick: float = 0.0) -> None:
        self.now = 0.0
        self.tick = tick
        self.calls = 0
        self._durations: Iterator[float] = iter(durations)

    def clock(self) -> float:
        self.now += self.tick
        return self.now

    def run(self) -> None:
        self.calls += 1
        self.now += next(self._durations)


def steady(level: float = 1.0, noise: float = 0.01, seed: int = 0) -> Iterator[float]:
    rng = random.Random(seed)
    while True:
        yield level * rng.lognormvariate(0, noise)


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


def test_a_ramp_is_cut_until_it_is_flat() -> None:
    source = steady()
    samples = [next(source) * (1 + 2 * math.exp(-i / 5)) for i in range(80)]
    assert 12 <= warm_up(samples) <= 30


@pytest.mark.parametrize("seed", range(20))
def test_a_level_that_never_changes_loses_next_to_nothing(seed: int) -> None:
    source = steady(noise=0.1, seed=seed)
    assert warm_up([next(source) for _ in range(60)]) <= 3


def test_warm_up_is_never_more_than_half() -> None:
    falling = [1000.0 - i for i in range(0, 1000, 20)]
    assert warm_up(falling) <= len(falling) / 2
    assert warm_up([]) == warm_up([1.0]) == 0


def test_a_late_change_of_level_is_no_warm_up() -> None:
    source = steady()
    samples = [next(source) * (2 if i > 40 else 1) for i in range(60)]
    assert warm_up(samples) <= 2


# Stopping.


def test_a_quiet_machine_stops_on_the_interval_and_keeps_every_sample() -> None:
    machine = Machine(steady())
    timing = time_calls(machine.run, budget=1000.0, clock=machine.clock)
    assert timing.stopped == "interval"
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


def test_no_interval_is_trusted_before_the_least_seconds() -> None:
    machine = Machine(steady())
    timing = time_calls(machine.run, budget=1000.0, least=200.0, clock=machine.clock)
    assert timing.stopped == "interval"
    assert len(timing.samples) + len(timing.warmup) >= 200


def test_a_call_beyond_the_budget_is_one_sample_and_says_that_it_proves_nothing() -> None:
    machine = Machine(steady(level=50.0))
    timing = time_calls(machine.run, budget=1.0, clock=machine.clock)
    assert machine.calls == 1
    assert (timing.stopped, len(timing.samples), timing.warmup) == ("budget", 1, ())
    assert timing.low == timing.median == timing.high
    assert timing.coverage == 0.0


def test_samples_end_where_the_time_would_not() -> None:
    machine = Machine(steady(noise=1.0))
    timing = time_calls(machine.run, budget=math.inf, width=0.001, clock=machine.clock)
    assert timing.stopped == "samples"
    assert len(timing.samples) + len(timing.warmup) >= 20_000


def test_short_calls_are_repeated_until_the_clock_is_below_one_percent() -> None:
    """A clock that costs as much as a call."""
    machine = Machine(steady(level=1.0), tick=1.0)
    timing = time_calls(machine.run, budget=1e6, clock=machine.clock)
    assert timing.calls >= 100
    assert timing.median == pytest.approx(1.0, rel=0.02)


def test_a_callable_is_timed_with_the_real_clock() -> None:
    x = torch.ones(8)
    timing = time_calls(lambda: x.add_(1), budget=0.05)
    assert timing.samples
    assert min(timing.samples) > 0


def test_what_the_callable_raises_is_not_swallowed() -> None:
    def broken() -> None:
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        time_calls(broken)


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


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_events_agree_with_the_clock_on_a_gpu() -> None:
    a = torch.randn(4096, 4096, device="cuda")

    def run() -> None:
        a @ a

    def waited() -> None:
        run()
        torch.cuda.synchronize()

    events = time_calls(run, "cuda", budget=2.0)
    clock = time_calls(waited, "cpu", budget=2.0)
    assert events.median == pytest.approx(clock.median, rel=0.1)
