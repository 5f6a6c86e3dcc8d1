"""The checks of a machine: what passes, and what a wrong engine does to them."""

from contextlib import nullcontext
from dataclasses import replace
from functools import cache
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from datbench.compare.records import ComparisonRow, Decision
from datbench.memory.allocator import replay
from datbench.memory.records import GpuPeaks, GpuRow, HeldLine
from datbench.models.resolve import resolve
from datbench.process import Ending, Reply
from datbench.selftest import checks
from datbench.selftest.records import CheckRow
from datbench.setting import Resolution
from datbench.timing.records import ProcessTiming, Telemetry, Timing

GPU = "cuda:0"


@pytest.mark.parametrize(
    ("expected", "measured", "allowed", "difference", "verdict"),
    [
        (100, 105, 0.05, 0.05, "passed"),
        (100, 94, 0.05, -0.06, "failed"),
        (100, 101, 0.0, 0.01, "failed"),
        (0, 0, 0.0, 0.0, "passed"),
        (0, 1, 0.5, 1.0, "failed"),
    ],
)
def test_two_figures_are_judged(
    expected: float, measured: float, allowed: float, difference: float, verdict: str
) -> None:
    row = CheckRow.of("times", "cpu", "a call", "s", expected, measured, allowed)
    assert row.difference == pytest.approx(difference)
    assert row.verdict == verdict
    refused = CheckRow.of("times", "cpu", "a call", "s", 1, 1, 0, "no")
    assert (refused.verdict, refused.reason) == ("failed", "no")


# A GPU's checks, with what a GPU would answer.


MIB = 1 << 20

SIMULATED = cache(checks._simulated)
"""Each run once for all tests."""


def held(job: Any, outcome: str = "measured", more: float = 1.0) -> GpuRow:
    """A GPU that holds what is simulated, times `more`, and 8 MiB of workspaces."""
    simulated = replay(SIMULATED(job))
    peaks = GpuPeaks(
        allocated=round(simulated.allocated_peak * more) + 8 * MIB,
        requested=None,
        reserved=simulated.reserved_peak + 8 * MIB,
        process=None,
        retries=0,
    )
    return replace(
        job.row(outcome, None if outcome == "measured" else "CUDA out of memory"),
        peaks=peaks if outcome == "measured" else None,
        lines=(HeldLine("workspaces", 8 * MIB),),
    )


@pytest.fixture
def two_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    every = checks.memory_runs(GPU)
    assert len(every) == 5 + 3 * 4 * 2 * 2 - 1  # DAT-T's forward is in both
    chosen = [run for run in every if run.model == "dat_t" and run.mode == "inference"]
    small = Resolution(32, 32)
    two = [replace(one, setting=replace(one.setting, resolution=small)) for one in chosen[:2]]
    monkeypatch.setattr(checks, "memory_runs", lambda device: two)
    monkeypatch.setattr(checks, "_simulated", SIMULATED)


def asks(monkeypatch: pytest.MonkeyPatch, ending: Ending | None = None) -> None:
    """The other process's work is done here; it may end early."""

    def asking(questions: Any, answer: Any) -> Any:
        def replies(timeout: float) -> list[Any]:
            answer = checks.hold(questions[0].job)
            return [Reply(answer[:1] if ending else answer, ending)]

        return nullcontext(SimpleNamespace(replies=replies))

    monkeypatch.setattr(checks, "asking", asking)


def test_a_batch_that_does_not_fit_is_made_smaller(
    two_runs: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def on_small(job: Any) -> GpuRow:
        return held(job, "measured" if job.setting.batch == checks.LESS else "out of memory")

    monkeypatch.setattr(checks, "held_by", on_small)
    asks(monkeypatch)
    rows = list(checks.memory(GPU))
    assert [row.check.partition(":")[0] for row in rows] == ["allocated", "reserved"] * 2
    assert all("batch 8, float32" in row.check and row.verdict == "passed" for row in rows)
    assert {row.check.rpartition(", ")[2] for row in rows} == {"eager", "sdpa"}


@pytest.mark.parametrize(
    ("more", "outcome", "ending", "verdicts"),
    [
        (1.04, "measured", None, ["passed", "passed"] * 2),
        (1.06, "measured", None, ["failed", "passed"] * 2),
        (1.0, "out of memory", None, ["failed", "failed"]),
        (1.0, "measured", Ending(-9, ""), ["passed", "passed", "failed"]),
    ],
)
def test_memory_that_is_not_the_simulated_fails(
    more: float,
    outcome: str,
    ending: Ending | None,
    verdicts: list[str],
    two_runs: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(checks, "held_by", lambda job: held(job, outcome, more))
    asks(monkeypatch, ending)
    rows = list(checks.memory(GPU))
    assert [row.verdict for row in rows] == verdicts
    if ending:
        assert rows[-1].reason == "1 of 2 runs were finished: killed by signal 9 (SIGKILL)"
    elif outcome != "measured":
        assert "out of memory: CUDA out of memory" in (rows[0].reason or "")


def test_the_allocator_gets_every_request(monkeypatch: pytest.MonkeyPatch) -> None:
    """On meta, where a tensor's storage is alive as long as on a GPU."""
    monkeypatch.setattr(checks, "FULL", checks.SMALL)
    alive = peak = 0
    empty = torch.empty

    class Counted:
        def __init__(self, size: int) -> None:
            nonlocal alive, peak
            self.size = size
            alive += size
            peak = max(peak, alive)

        def __del__(self) -> None:
            nonlocal alive
            alive -= self.size

    def make(*size: Any, **more: Any) -> Any:
        return Counted(*size) if more.get("device") == GPU else empty(*size, **more)

    monkeypatch.setattr(torch, "empty", make)
    names = ("allocated_bytes.all.peak", "reserved_bytes.all.peak", "segment.all.peak")
    stats = dict(zip(names, (1, 2, 3), strict=True))
    fake = SimpleNamespace(memory_stats=lambda device: stats)
    answer = checks.replay_there(checks.AllocatorJob(GPU, False), fake)
    assert peak == answer.model.requested_peak
    assert [row.measured for row in checks.beside_model(GPU, "x", answer)] == [1, 2, 3]
    model = answer.model
    figures = (model.allocated_peak, model.reserved_peak, model.segments)
    right = dict(zip(names, figures, strict=True))
    for more, verdict in ((0, "passed"), (512, "failed")):
        right["reserved_bytes.all.peak"] += more
        rows = checks.beside_model(GPU, "x", replace(answer, stats=right))
        assert [row.verdict for row in rows] == ["passed", verdict, "passed"]


@pytest.mark.parametrize(
    ("told", "hidden", "beyond", "verdicts"),
    [
        (Telemetry(clock=1.9e9, power=600.0), None, 600 * MIB, ["passed"] * 3),
        (Telemetry(clock=1.9e6, power=600.0), None, 0, ["failed", "passed", "passed"]),
        (Telemetry(clock=1.9e9, power=0.6), "hidden", None, ["passed", "failed", "not run"]),
        (Telemetry(reason="no driver"), "no driver", None, ["failed", "failed", "not run"]),
    ],
)
def test_answers_of_the_driver(
    told: Telemetry, hidden: str | None, beyond: int | None, verdicts: list[str]
) -> None:
    rows = list(checks.what_the_driver_says(GPU, told, 1.98e9, 690.0, hidden, beyond))
    assert [row.verdict for row in rows] == verdicts


# Times and comparisons, and what is wrong with them.


@pytest.mark.parametrize(
    ("verdict", "ratio", "expected", "found"),
    [
        ("same", 1.0, 1.0, "passed"),
        ("ambiguous", 1.03, 1.0, "passed"),
        ("slower", 0.9, 1.0, "failed"),
        ("slower", 0.66, 2 / 3, "passed"),
        ("slower", 0.4, 2 / 3, "failed"),
        ("ambiguous", 0.66, 2 / 3, "failed"),
        ("failed", None, 2 / 3, "failed"),
    ],
)
def test_a_verdict_must_be_the_right_one(
    verdict: Any, ratio: float | None, expected: float, found: str
) -> None:
    decision = Decision(verdict, 0.02, 0.95, ratio, ratio, ratio, 0.96, 6, reason="a process died")
    row = ComparisonRow("a", "b", decision, None, None, (), True)
    assert checks.judged(row, "words", GPU, expected).verdict == found
    with pytest.raises(KeyboardInterrupt):
        checks.judged(replace(row, interrupted=True), "words", GPU, expected)


@pytest.mark.parametrize(("layers", "verdicts"), [(24, ["passed"] * 2), (8, ["passed", "failed"])])
def test_a_slower_model_must_be_found(
    layers: int, verdicts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock of a machine without noise: a layer takes a millisecond."""

    def timed(job: Any, model: str) -> ProcessTiming:
        seconds = {checks.LAYERS: 8e-3, checks.MORE: layers * 1e-3}[
            resolve(model).options["layers"]
        ]
        timing = Timing((seconds,), (), 1, "budget", seconds, seconds, seconds, 0.95)
        return ProcessTiming("measured", timing=timing)

    monkeypatch.setattr(checks, "timed", timed)
    assert [row.verdict for row in checks.comparison("cpu")] == verdicts


def test_a_sampler_that_is_wrong_by_a_factor_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    right = checks.time_calls

    def slower(*given: Any, **more: Any) -> Any:
        found = right(*given, **more)
        return replace(found, median=10 * found.median)

    monkeypatch.setattr(checks, "time_calls", slower)
    monkeypatch.setattr(checks, "ROUNDS", 3)
    (row,) = checks.times("cpu")
    assert row.verdict == "failed"


@pytest.mark.parametrize("turns", [None, 0])
def test_processes_that_take_no_turns_fail(
    turns: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = (ProcessTiming("failed", "the other side hung", turns=turns),) * 2
    monkeypatch.setattr(checks, "time_pair", lambda *given: pair)
    (row,) = checks.interleaving("cpu")
    assert (row.verdict, row.reason) == ("failed", "failed: the other side hung")
