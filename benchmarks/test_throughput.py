"""What `datbench throughput` costs itself, and whether other timers say the same."""

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from statistics import fmean, median
from typing import Any

import pytest
import torch

from datbench.run import ready
from datbench.setting import How, Resolution, Setting
from datbench.timing.protocols import PROTOCOLS, run_protocol
from datbench.timing.sample import median_interval, time_calls
from datbench.timing.telemetry import watching
from datbench.timing.turns import Turns, pin

SAMPLE = 0.01

PATIENCE = 60.0
"""Seconds that one side waits for its turn."""

WIDEST = 0.1
"""Of an interval of a ratio: a wider one holds 1 because it holds everything."""


def spin() -> None:
    """Ten milliseconds on this clock, and no scheduler."""
    end = time.perf_counter() + SAMPLE
    while time.perf_counter() < end:
        pass


def test_overhead(benchmark: Any) -> None:
    """Samples of 10 ms as the command takes them: what they exceed that by, and what lies between.

    As there, each sample is stamped and the driver's watch is on; on a CPU it has no one to ask.
    """
    starts: list[float] = []
    ends: list[float] = []

    def call() -> None:
        starts.append(time.perf_counter())
        spin()
        ends.append(time.perf_counter())

    with watching(torch.device("cpu")) as watch:
        timing = time_calls(call, budget=4.0, width=1e-9, between=watch.stamp)
    benchmark.pedantic(spin, rounds=3)
    taken = [*timing.warmup, *timing.samples]
    assert timing.calls == 1
    assert len(taken) == len(starts)
    inside = [end - start for start, end in zip(starts, ends, strict=True)]
    between = [after - before for after, before in zip(starts[1:], ends, strict=False)]
    ratios = {
        "excess": median(s / own - 1 for s, own in zip(taken, inside, strict=True)),
        "between": median(between) / SAMPLE,
        "between_in_all": sum(between) / sum(inside),
    }
    benchmark.extra_info.update(ratios, samples=len(taken))
    print(ratios)
    assert ratios["excess"] <= 0.01
    assert ratios["between"] <= 0.01
    assert ratios["between_in_all"] <= 0.01


def test_torch_timer(benchmark: Any) -> None:
    """torch.utils.benchmark.Timer's median of the same calls: DAT-T, one image of 64 pixels."""
    from torch.utils.benchmark import Timer

    call = ready("dat_t", Setting(Resolution(64, 64), 1, device="cpu"), How()).call

    def ours(side: Side) -> float:
        return time_calls(
            call, budget=1.0, width=1e-9, clock=side.clock, between=side.sampled
        ).median

    def theirs(side: Side) -> float:
        names = {"call": side.hooked(call)}
        timer = Timer("call()", timer=side.clock, globals=names, num_threads=1)
        return float(timer.blocked_autorange(min_run_time=1.0).median)

    benchmark.pedantic(call, rounds=3)
    check(benchmark, ratios(ours, theirs, 12))


def test_timm_loop(benchmark: Any) -> None:
    """A loop like timm's (10 calls to warm up, the mean of 40) on its Swin-T, one image at 224.

    It is our re-implementation of what timm's benchmark.py does, `--protocol timm`: that script is
    in timm's repository, not in its package. So this shows that two ways of timing agree, not that
    the loop is timm's, for which `docs/protocols.md` names the lines' commit. The mean of our
    samples stands beside that mean: of skewed samples a median is another figure, which is printed.
    """
    pytest.importorskip("timm", reason="needs datbench[timm]", exc_type=ImportError)
    setting = Setting(Resolution(224, 224), 1, device="cpu")
    call = ready("timm:swin_tiny_patch4_window7_224", setting, How()).call
    loop = replace(PROTOCOLS["timm"], batch=None)
    torch.set_num_threads(1)
    as_long = loop.duration(time_calls(call, budget=3.0).median)
    medians: list[float] = []
    means: list[float] = []

    def ours(side: Side) -> float:
        timing = time_calls(
            call, budget=as_long, width=1e-9, clock=side.clock, between=side.sampled
        )
        medians.append(timing.median)
        return fmean(timing.samples)

    def theirs(side: Side) -> float:
        run = side.hooked(call)
        means.append(run_protocol(run, "cpu", loop, 1, clock=side.clock).seconds)
        return means[-1]

    benchmark.pedantic(call, rounds=3)
    found = ratios(ours, theirs, 8)
    print({"our medians over their means": median(medians) / median(means)})
    check(benchmark, found)


class Side:
    """Of two timers that take turns. What lies between two calls of one is no time of its clock."""

    def __init__(self, turns: Turns) -> None:
        self.turns = turns
        self.between = 0.0

    def clock(self) -> float:
        return time.perf_counter() - self.between

    def sampled(self) -> None:
        begin = time.perf_counter()
        self.turns.sampled()
        self.between += time.perf_counter() - begin

    def hooked(self, call: Callable[[], object]) -> Callable[[], object]:
        """The call for a timer that has no hooks."""

        def run() -> None:
            call()
            self.sampled()

        return run


def ratios(
    ours: Callable[[Side], float], theirs: Callable[[Side], float], rounds: int
) -> list[float]:
    """Our figure over theirs, of each round; round 0 warms up.

    Two threads on one processor take turns of a few calls, so that both time the same seconds.
    """
    processors = os.sched_getaffinity(0)
    try:
        pin([min(processors)])
        found = [a_round(ours, theirs, bool(number % 2)) for number in range(rounds + 1)]
    finally:
        pin(sorted(processors))
    return found[1:]


def a_round(ours: Callable[[Side], float], theirs: Callable[[Side], float], begin: bool) -> float:
    to_us, from_them = os.pipe()
    to_them, from_us = os.pipe()
    sides = (
        (ours, Turns(to_us, from_us, begin, lambda: None, lambda: PATIENCE)),
        (theirs, Turns(to_them, from_them, not begin, lambda: None, lambda: PATIENCE)),
    )

    def side(timer: Callable[[Side], float], turns: Turns) -> float:
        torch.set_num_threads(1)
        try:
            turns.meet()
            return timer(Side(turns))
        finally:
            turns.end()

    with ThreadPoolExecutor(2) as pool:
        mine, other = (future.result() for future in [pool.submit(side, *each) for each in sides])
    return mine / other


def check(benchmark: Any, ratios: list[float]) -> None:
    """The two agree: the interval of the median ratio holds 1, and is narrow enough to tell."""
    found = median_interval(ratios)
    told = {"ratio": found.value, "low": found.low, "high": found.high, "coverage": found.coverage}
    benchmark.extra_info.update(told)
    print(told)
    if found.high - found.low > WIDEST:
        pytest.skip(
            f"too noisy to tell: the ratio lies between {found.low:.3f} and {found.high:.3f}"
        )
    assert found.low <= 1 <= found.high
