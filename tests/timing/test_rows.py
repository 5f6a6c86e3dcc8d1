"""Rows from processes made up here: rounds, the batch that fits, what is in doubt."""

from dataclasses import replace

import pytest

from datbench.errors import DatbenchWarning
from datbench.models.resolve import resolve
from datbench.setting import How, Resolution, Setting
from datbench.timing.process import time_in_process
from datbench.timing.records import (
    Ceilings,
    ProcessTiming,
    ProtocolTiming,
    Scatter,
    Telemetry,
    ThroughputRow,
    Timing,
)
from datbench.timing.rows import TimedRows, measure_rows
from datbench.timing.sample import median_interval
from datbench.timing.view import many

ODD = "tests.timing.odd_models"
ONE, TWO, THREE = (f"{ODD}:{name}" for name in ("plain", "fills", "exits"))  # nothing runs here

SETTING = Setting(Resolution(32, 32), 8, device="cpu")
CEILINGS = Ceilings("cpu", "float32", 1, 2e9, 512, 4e9, 100)


def timing(level: float = 1.0, samples: int = 20, width: float = 0.01) -> Timing:
    kept = tuple(level * (1 + width * i / samples) for i in range(samples))
    found = median_interval(kept)
    return Timing(kept, (2.0,), 1, "interval", found.value, found.low, found.high, found.coverage)


def measured(level: float = 1.0, **more: object) -> ProcessTiming:
    return replace(ProcessTiming("measured", timing=timing(level), threads=1), **more)


class Processes:
    """Answers in turn; remembers what was asked."""

    def __init__(self, *answers: ProcessTiming) -> None:
        self.asked: list[tuple[str, int, bool, tuple[str, ...]]] = []
        self._answers = list(answers)

    def __call__(
        self, name: str, setting: Setting, how: How, *, ceilings: bool, protocols: tuple[str, ...]
    ) -> ProcessTiming:
        self.asked.append((name, setting.batch, ceilings, protocols))
        found = self._answers.pop(0)
        if ceilings and found.timing is not None and found.ceilings is None:
            return replace(found, ceilings=CEILINGS)
        return found


def rows(processes: Processes, *names: str, count: int = 1, **more: object) -> TimedRows:
    jobs = [(resolve(name), SETTING) for name in names or (ONE,)]
    return measure_rows(jobs, How(), processes=count, timer=processes, **more)  # type: ignore[arg-type]


OOM = ProcessTiming("out of memory", "asked for too much")


def test_one_process_is_its_samples_beside_the_roofline() -> None:
    (row,) = rows(Processes(measured())).rows
    only = row.processes[0].timing
    assert (row.seconds, row.low, row.high) == (only.median, only.low, only.high)
    assert (row.interval_of, row.spread) == ("samples", None)
    assert row.images_per_second == pytest.approx(8 / only.median)
    assert row.images_low == pytest.approx(8 / only.high)
    assert (row.samples, row.warmup, row.stopped) == (20, 1, ("interval",))
    assert any("other processes" in doubt for doubt in row.doubts)
    assert row.mac_rate == row.macs / row.seconds
    assert row.mac_fraction == row.macs / row.seconds / 2e9
    assert row.byte_fraction == row.bytes / row.seconds / 4e9


def test_training_counts_the_backward_too() -> None:
    job = [(resolve(ONE), SETTING)]
    infer, train = (
        measure_rows(job, How(mode=mode), timer=Processes(measured())).rows[0]
        for mode in ("inference", "step")
    )
    assert train.macs is not None
    assert train.macs == 2 * infer.macs  # the images have no gradient


def test_several_processes_take_turns_and_their_medians_are_the_samples() -> None:
    levels = (1.0, 1.1, 1.2, 1.3, 1.4, 1.5)
    answers = [measured(level) for level in levels for _ in range(2)]
    processes = Processes(*answers)
    first, second = rows(processes, ONE, TWO, count=6, protocols=("dat",)).rows
    assert [asked[0] for asked in processes.asked] == [ONE, TWO] * 6
    assert [asked[2] for asked in processes.asked] == [True] + 11 * [False]  # ceilings once
    assert all(asked[3] == ("dat",) for asked in processes.asked)  # each beside its own samples
    assert first.interval_of == "processes"
    assert first.coverage == pytest.approx(1 - 2 / 2**6)
    assert first.low == pytest.approx(timing(1.0).median)
    assert first.high == pytest.approx(timing(1.5).median)
    assert first.spread == pytest.approx(0.5 / 1.25)
    assert not any("6 processes" in doubt for doubt in first.doubts)
    assert second.samples == 120


def test_few_processes_have_no_interval_and_say_so() -> None:
    (row,) = rows(Processes(measured(), measured()), count=2).rows
    assert row.coverage == 0.5
    assert "an interval at 95 % takes 6 processes" in row.doubts


def test_only_running_out_of_memory_makes_a_batch_smaller() -> None:
    processes = Processes(OOM, OOM, measured(), measured())
    (row,) = rows(processes, count=2).rows
    assert [asked[1] for asked in processes.asked] == [8, 4, 2, 2]
    assert (row.requested_batch, row.setting.batch, row.outcome) == (8, 2, "measured")
    assert any("batch 8" in doubt and "asked for too much" in doubt for doubt in row.doubts)
    (row,) = rows(Processes(OOM, OOM, OOM, OOM)).rows  # one image does not fit either
    assert (row.outcome, row.setting.batch, row.seconds) == ("out of memory", 1, None)
    for outcome in ("crashed", "timed out", "failed"):
        processes = Processes(ProcessTiming(outcome, "why"))  # type: ignore[arg-type]
        (row,) = rows(processes).rows
        assert (len(processes.asked), row.outcome, row.reason) == (1, outcome, "why")


def test_a_smaller_batch_is_counted_anew() -> None:
    whole, half = (
        rows(Processes(*answers)).rows[0] for answers in ((measured(),), (OOM, measured()))
    )
    assert half.macs == whole.macs / 2
    cut = ProcessTiming("interrupted", "by Ctrl-C", timing())
    (row,) = rows(Processes(OOM, cut)).rows
    assert (row.macs, row.counted) == (None, "this batch was not counted")


def test_a_model_that_cannot_be_counted_is_timed_all_the_same() -> None:
    (row,) = rows(Processes(measured()), f"{ODD}:raises").rows
    assert row.macs is not None  # nothing odd happens on meta
    job = (resolve(f"{ODD}:no_gradient"), SETTING)
    (train,) = measure_rows([job], How(mode="step"), timer=Processes(measured())).rows
    assert train.macs is None
    assert train.counted is not None
    assert train.seconds is not None


def test_a_row_whose_first_process_failed_is_not_tried_again() -> None:
    processes = Processes(ProcessTiming("crashed", "why"), measured(), measured())
    first, second = rows(processes, ONE, TWO, count=2).rows
    assert [asked[0] for asked in processes.asked] == [ONE, TWO, TWO]
    assert (first.outcome, second.outcome) == ("crashed", "measured")


def test_ctrl_c_keeps_what_is_finished_and_marks_it() -> None:
    cut = ProcessTiming("interrupted", "by Ctrl-C", timing(2.0, 5))
    results = rows(Processes(measured(), cut), ONE, TWO, THREE)
    assert results.interrupted
    first, second = results.rows
    assert (first.outcome, second.outcome) == ("measured", "interrupted")
    assert second.samples == 5
    assert any("Ctrl-C" in doubt for doubt in second.doubts)


@pytest.mark.parametrize("turns", [1, 3])
def test_what_is_left_is_right_within_half(monkeypatch: pytest.MonkeyPatch, turns: int) -> None:
    """Of models that differ, the first of which measures the machine peaks too."""
    now, told = 100.0, []
    monkeypatch.setattr("datbench.timing.rows.time.perf_counter", lambda: now)
    takes = {ONE: 6.0, TWO: 9.0, THREE: 7.0}

    def timer(name: str, *_: object, ceilings: bool, **__: object) -> ProcessTiming:
        nonlocal now
        now += takes[name] + 2 * ceilings
        return measured(ceilings=CEILINGS) if ceilings else measured()

    jobs = [(resolve(name), SETTING) for name in takes]
    measure_rows(
        jobs, How(), processes=turns, timer=timer, step=lambda text, left: told.append((now, left))
    )
    assert [left for _, left in told[:1]] == [0.0]  # none has ended
    assert len(told) == 3 * turns
    for at, left in told[1:]:
        assert 1 / 1.5 < left / (now - at) < 1.5


def test_a_loaded_machine_is_told_before_anything_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.getloadavg", lambda: (99.0, 0.0, 0.0))
    processes = Processes(measured())
    with pytest.warns(DatbenchWarning, match=r"the machine is loaded: 99\.0 processes wanted"):
        rows(processes)
    monkeypatch.delattr("os.getloadavg")  # as on Windows
    rows(Processes(measured()))


def test_a_process_that_was_cut_short_is_in_no_figure_beside_a_whole_one() -> None:
    short = replace(timing(2.0, 5), stopped="interrupted")
    cut = ProcessTiming("interrupted", "by Ctrl-C", short)
    (row,) = rows(Processes(measured(), cut), count=3).rows
    assert (row.outcome, row.samples, row.seconds) == ("interrupted", 20, timing().median)
    assert row.processes[1].timing == short
    assert "the last one's 5 samples are in the JSON alone" in row.doubts[0]
    (row,) = rows(Processes(cut), count=3).rows
    assert (row.outcome, row.samples) == ("interrupted", 5)
    assert row.doubts[0] == "interrupted by Ctrl-C: the samples that were finished"
    later = ProcessTiming("interrupted", "by Ctrl-C", timing(2.0))  # in its protocols, perhaps
    (row,) = rows(Processes(measured(), later), count=3).rows
    assert row.samples == 40


def test_a_process_that_failed_counts_nowhere_whatever_it_had() -> None:
    failed = ProcessTiming("failed", "why", timing(9.0))
    (row,) = rows(Processes(measured(), failed), count=2).rows
    assert (row.outcome, row.reason) == ("measured", None)
    assert (row.samples, row.seconds) == (20, timing().median)
    assert "a process failed: why" in row.doubts
    (row,) = rows(Processes(failed)).rows
    assert (row.outcome, row.reason, row.seconds) == ("failed", "why", None)


def test_rows_with_fewer_processes_than_asked_for_say_so() -> None:
    cut = ProcessTiming("interrupted", "no sample was finished")
    first, second = rows(Processes(measured(), measured(), cut), ONE, TWO, count=2).rows
    assert (first.outcome, second.outcome) == ("interrupted", "measured")
    assert "1 of 2 processes ran" in second.doubts


def test_a_wide_interval_and_an_unsettled_level_are_doubts() -> None:
    wide = replace(timing(width=0.5), settled=False, drift=0.1, stopped="budget")
    (row,) = rows(Processes(replace(measured(), timing=wide))).rows
    for part in ("wider than 2 %", "warm-up did not end", "drifted by +10 %"):
        assert any(part in doubt for doubt in row.doubts), part
    (row,) = rows(Processes(replace(measured(), timing=timing(samples=3)))).rows
    assert any("too few samples" in doubt for doubt in row.doubts)


@pytest.mark.parametrize("gpus", [1, 4])
def test_energy_is_of_an_image_of_any_gpu_or_has_a_reason(gpus: int) -> None:
    told = Telemetry(energy=32.0, calls=2, throttled=("power cap",), throttled_samples=(1, 2, 3))
    (row,) = rows(Processes(measured(telemetry=told)), gpus=gpus).rows
    assert row.energy == 32.0 / 2 / 8 / gpus
    assert any("power cap" in doubt and "3 samples" in doubt for doubt in row.doubts)
    (row,) = rows(Processes(measured(telemetry=Telemetry(reason="no driver"))), gpus=gpus).rows
    assert (row.energy, row.energy_reason) == (None, "no driver")


def test_several_gpus_have_ceilings_too(monkeypatch: pytest.MonkeyPatch) -> None:
    from datbench.timing import ranks

    def time_on_gpus(*_: object, ceilings: bool, **__: object) -> ProcessTiming:
        return measured(ceilings=CEILINGS if ceilings else None)

    monkeypatch.setattr(ranks, "time_on_gpus", time_on_gpus)
    (row,) = measure_rows([(resolve(ONE), SETTING)], How(), gpus=2).rows
    assert row.ceilings == CEILINGS
    assert row.mac_fraction is not None


def test_ceilings_that_scatter_or_are_passed_are_doubts() -> None:
    def doubts(limits: Ceilings) -> str:
        (row,) = rows(Processes(replace(measured(), ceilings=limits))).rows
        return "; ".join(row.doubts)

    narrow = Scatter(1.9e9, 1.8e9, 2e9, 0.95, 20)
    assert "peak" not in doubts(replace(CEILINGS, product=narrow))
    wide = Scatter(1e9, 0.9e9, 1.1e9, 0.95, 20)
    said = doubts(replace(CEILINGS, product=wide))
    assert "the machine peaks scatter: the matrix product's fastest sample is 100 % above" in said
    assert "the copy is slower than the model" in doubts(replace(CEILINGS, bytes=1.0))


def test_protocols_of_several_processes_are_their_medians() -> None:
    def answer(level: float, difference: float) -> ProcessTiming:
        rate = 8 / timing(level).median * (1 + difference)
        found = ProtocolTiming("dat", 50, 30, 8, 8 / rate, rate, difference)
        return measured(level, protocols=(found,))

    answers = [answer(level, -level / 10) for level in (1.0, 3.0, 2.0)]
    (row,) = rows(Processes(*answers), count=3, protocols=("dat",)).rows
    (found,) = row.protocols
    assert found.difference == pytest.approx(-0.2)
    assert (found.processes, found.low, found.high) == (3, -0.3, -0.1)
    assert found.coverage == pytest.approx(0.75)
    assert found.seconds == answers[2].protocols[0].seconds


def test_protocols_stand_beside_the_row_and_refused_ones_are_told() -> None:
    given = ProtocolTiming("dat", 50, 30, 8, 1.1, 8 / 1.1, -0.09)
    answer = measured(protocols=(given,), refused={"swin": "swin takes batches of 64"})
    (row,) = rows(Processes(answer)).rows
    assert row.protocols == (given,)
    assert "nothing of swin: swin takes batches of 64" in row.doubts


def columns(*threads: int, batches: tuple[int, int] = (1, 1)) -> tuple[str, dict[str, list[int]]]:
    """The title of a table of rows with these threads, and its columns that people see."""
    found = [
        ThroughputRow(
            "dat_t",
            Setting(Resolution(32, 32), batch, device="cpu"),
            How(threads=count),
            *("measured", None, batch, 1, 1),
            (ProcessTiming("measured", threads=count),),
        )
        for count, batch in zip(threads, batches, strict=True)
    ]
    table = many(found)
    seen = {
        column.name: [values[place] for values in table.rows]
        for place, column in enumerate(table.columns)
        if not column.hidden
    }
    return table.title, seen


def test_threads_are_told_apart_or_stand_in_the_title() -> None:
    title, seen = columns(1, 8)
    assert "thread" not in title
    assert seen["threads"] == [1, 8]
    title, seen = columns(8, 8, batches=(1, 2))
    assert title.endswith("cpu, 8 threads")
    assert "threads" not in seen
    assert seen["batch"] == [1, 2]


# Events, the cache's eviction and the driver's telemetry, where a GPU is.


ON_GPU = Setting(Resolution(224, 224), 8, device="cuda")


@pytest.mark.gpu
def test_an_evicted_cache_is_no_part_of_a_sample() -> None:
    plain, flushed = (
        time_in_process("dat_t", ON_GPU, How(budget=2.0, flush=flush)) for flush in (False, True)
    )
    assert flushed.timing.calls == 1
    assert 0.8 < flushed.timing.median / plain.timing.median < 1.5


@pytest.mark.gpu
def test_a_batch_that_a_gpu_does_not_hold_is_halved() -> None:
    wide = Setting(Resolution(1024, 1024), 4096, device="cuda")
    (row,) = measure_rows([(resolve("dat_b"), wide)], How(budget=1.0)).rows
    assert row.requested_batch == 4096
    assert row.setting.batch < 4096
