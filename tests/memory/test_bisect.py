"""The largest batch: only out of memory makes it smaller."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from datbench.errors import UsageError
from datbench.memory.largest import BatchSearch, confirm_largest, search
from datbench.memory.records import Confirmed, GpuRow, Outcome
from datbench.memory.view import largest_tables
from datbench.models.resolve import Spec, resolve
from datbench.render.text import to_markdown
from datbench.setting import MemoryMode, Recipe, Resolution, Setting

MOST = 4096
SETTING = Setting(Resolution(64, 64), device="cuda")

others = st.sampled_from(["crashed", "timed out", "failed"])


def runs_to(limit: int) -> "Runner":
    return Runner(limit)


class Runner:
    """Batches up to a limit fit. Some runs, counted from the first, end otherwise."""

    def __init__(self, limit: int, ends: dict[int, Outcome] | None = None) -> None:
        self.limit = limit
        self.ends = ends or {}
        self.asked: list[int] = []

    def __call__(self, batch: int) -> Outcome:
        self.asked.append(batch)
        fits: Outcome = "measured" if batch <= self.limit else "out of memory"
        return self.ends.get(len(self.asked) - 1, fits)


@given(limit=st.integers(0, MOST), start=st.integers(-3, MOST + 10))
def test_the_largest_that_fits_is_found(limit: int, start: int) -> None:
    run = runs_to(limit)
    found = search(run, start, MOST)
    assert found.largest == (limit or None)
    assert found.refused == (limit + 1 if limit < MOST else None)
    assert found.stopped is None
    assert [batch for batch, _ in found.tried] == run.asked
    assert len(set(run.asked)) == len(run.asked)
    assert all(1 <= batch <= MOST for batch in run.asked)
    assert run.asked[0] == min(max(1, start), MOST)
    assert len(run.asked) <= 26  # twice the bits of MOST, and a few


@given(limit=st.integers(64, MOST), off=st.floats(0.97, 1.03))
def test_a_good_start_needs_few_runs(limit: int, off: float) -> None:
    run = runs_to(limit)
    search(run, max(1, round(limit * off)), 1 << 20)
    assert len(run.asked) <= 12


@given(
    limit=st.integers(0, MOST),
    start=st.integers(1, MOST),
    at=st.integers(0, 30),
    end=others,
)
def test_any_other_end_stops_the_search_and_shrinks_nothing(
    limit: int, start: int, at: int, end: Outcome
) -> None:
    smooth = runs_to(limit)
    search(smooth, start, MOST)
    run = Runner(limit, {at: end})
    found = search(run, start, MOST)
    if at >= len(smooth.asked):
        assert found.stopped is None
        return
    assert run.asked == smooth.asked[: at + 1]  # nothing was tried after it
    assert found.stopped == end
    assert found.tried[-1] == (run.asked[-1], end)
    fitted = [batch for batch in run.asked[:at] if batch <= limit]
    refused = [batch for batch in run.asked[:at] if batch > limit]
    assert found.largest == max(fitted, default=None)
    assert found.refused == min(refused, default=None)


def test_a_search_by_pencil() -> None:
    found = search(runs_to(130), 128, MOST)
    assert found == BatchSearch(
        130,
        131,
        (
            (128, "measured"),
            (130, "measured"),
            (134, "out of memory"),
            (132, "out of memory"),
            (131, "out of memory"),
        ),
        None,
    )
    assert search(runs_to(0), 3).tried == (
        (3, "out of memory"),
        (2, "out of memory"),
        (1, "out of memory"),
    )


class Measure:
    """Stands for `measure_gpu`."""

    def __init__(self, run: Runner) -> None:
        self.run = run
        self.asked: list[tuple[MemoryMode, Recipe, float, int | None]] = []

    def __call__(
        self,
        spec: Spec,
        setting: Setting,
        mode: MemoryMode,
        recipe: Recipe,
        timeout: float,
        limit: int | None,
    ) -> GpuRow:
        self.asked.append((mode, recipe, timeout, limit))
        outcome = self.run(setting.batch)
        reason = None if outcome == "measured" else f"why {setting.batch}"
        return GpuRow(spec.name, setting, mode, recipe, outcome, reason, None, (), None, None, 1.0)


def confirm(run: Runner, start: int = 8, setting: Setting = SETTING) -> Confirmed:
    measure = Measure(run)
    found = confirm_largest(resolve("dat_t"), setting, "step", start, 60, measure=measure, limit=7)
    assert set(measure.asked) == {("step", Recipe("adamw"), 60, 7)}
    assert found.limit == 7
    return found


def test_what_is_confirmed() -> None:
    found = confirm(runs_to(9))
    assert (found.model, found.start, found.largest, found.refused) == ("dat_t", 8, 9, 10)
    assert found.row is not None
    assert found.row.setting == replace(SETTING, batch=9)
    assert found.stopped is None
    assert found.certain
    table = to_markdown(largest_tables([found]))
    assert "the largest batch that runs is 9 (64x64, float32, eager attention, full step" in table
    assert "| 10 | out of memory | why 10" in " ".join(table.split())
    assert to_markdown(largest_tables([confirm(runs_to(0))])).startswith("### dat_t: no batch ran")


def test_a_crash_is_told_and_is_no_limit() -> None:
    found = confirm(Runner(100, {1: "crashed"}))
    assert (found.largest, found.refused) == (8, None)
    assert found.stopped is not None
    assert (found.stopped.outcome, found.stopped.setting.batch) == ("crashed", 9)
    assert not found.certain
    table = to_markdown(largest_tables([found]))
    assert "batch 8 ran; the search ended early" in table
    assert "Batch 9 crashed: why 9. That is no lack of memory" in table


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_largest_batch_on_a_real_gpu() -> None:
    room = 3 << 30
    ballast = torch.empty(torch.cuda.mem_get_info()[0] - room, dtype=torch.uint8, device="cuda")
    setting = Setting(Resolution(224, 224), device="cuda")
    found = confirm_largest(resolve("dat_t"), setting, "train", 16, 120)
    del ballast
    assert found.certain, found.stopped
    assert found.largest is not None
    assert found.refused == found.largest + 1
    assert found.row is not None
    assert found.row.peaks is not None
    assert found.row.peaks.reserved is not None
    assert found.row.peaks.reserved < room


def test_only_a_gpu_has_a_largest_batch() -> None:
    with pytest.raises(UsageError, match="on cuda, not on cpu"):
        confirm_largest(resolve("dat_t"), replace(SETTING, device="cpu"), "train", 8, 60)
