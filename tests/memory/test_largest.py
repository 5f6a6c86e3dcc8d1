"""The largest batch for a device's memory."""

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from datbench.errors import UnknownNameError, UsageError
from datbench.memory.allocator import replay
from datbench.memory.largest import BatchSearch, confirm_largest, largest_batch, linear, search
from datbench.memory.records import CONTEXT, GPUS, Confirmed, GpuRow, LargestBatch, Outcome
from datbench.memory.simulation import StorageBlock, Trace, simulate_model
from datbench.memory.view import largest_tables
from datbench.models.resolve import Spec
from datbench.records import document, dumps
from datbench.render.text import to_markdown
from datbench.setting import MAX_BATCH, MemoryMode, Recipe, Resolution, Setting
from tests.nets import short

MIB, GIB = 2**20, 2**30
SPEC, SMALL = short("dat_t"), Setting(Resolution(64, 96))


def _trace_of(size: Callable[[int], int]) -> Callable[[int], Trace]:
    """One block, as large as told for each batch."""

    def trace(batch: int) -> Trace:
        block = StorageBlock(size(batch), "outputs", "aten::mm", "head", "forward", 1, None)
        return Trace((block,), 1, 1)

    return trace


def _largest(size: Callable[[int], int], room: int) -> LargestBatch:
    return largest_batch(SPEC, SMALL, "inference", room, context=0, trace_of=_trace_of(size))


@pytest.mark.parametrize(
    ("mode", "expandable"), [("inference", False), ("forward", True), ("backward", False)]
)
def test_it_fits_and_one_more_does_not(mode: MemoryMode, expandable: bool) -> None:
    found = largest_batch(SPEC, SMALL, mode, 300 * MIB, 100 * MIB, expandable)
    assert found.batch > 5
    assert found.scaled
    assert found.simulations == 4  # 2, 3, the answer and the next
    assert found.setting.batch == found.batch

    def run(batch: int, room: int | None) -> tuple[int, bool]:
        setting = Setting(SMALL.resolution, batch=batch)
        replayed = replay(simulate_model(SPEC, setting, mode)[1], expandable, room)
        return replayed.reserved_peak, replayed.out_of_memory is None

    assert run(found.batch, 200 * MIB) == (found.reserved, True)
    assert not run(found.batch + 1, 200 * MIB)[1]
    assert run(found.batch + 1, None)[0] == found.reserved_next
    assert found.reserved <= 200 * MIB
    assert found.out_of_memory.operator.startswith("aten::")
    assert found.reason is None


def test_what_training_adds_is_counted() -> None:
    """The state of the optimizer takes room for images; blocks that are run again make room."""

    def largest(mode: MemoryMode, recipe: Recipe) -> int:
        found = largest_batch(SPEC, SMALL, mode, GIB, recipe=recipe)
        assert found.scaled
        return found.batch

    step, plain = largest("step", Recipe("sgd-momentum")), largest("backward", Recipe())
    assert step < plain < largest("backward", Recipe(checkpointing="block"))


@pytest.mark.parametrize(
    ("name", "mode"),
    [("dat_t", "backward"), ("datpp_t", "forward"), ("dat_t_ddetr_16_16", "inference")],
)
def test_scaling_is_simulating(name: str, mode: MemoryMode) -> None:
    def simulated(batch: int) -> Trace:
        return simulate_model(short(name), Setting(SMALL.resolution, batch=batch), mode)[1]

    line = linear(simulated)
    for batch in (2, 4, 64):
        assert line.at(batch) == simulated(batch)


@pytest.mark.parametrize(
    ("size", "room", "batch", "scaled"),
    [
        (lambda batch: 30 * batch, 40, 1, None),
        (lambda batch: batch**2, 1000, math.isqrt(1000), False),  # every candidate is simulated
        (lambda batch: batch * (20 if batch < 10 else 40), 1000, 25, False),  # a line that ends
    ],
)
def test_by_pencil(size: Callable[[int], int], room: int, batch: int, scaled: bool | None) -> None:
    found = _largest(lambda batch: MIB * size(batch), room * MIB)
    assert found.batch == batch
    assert scaled is None or found.scaled == scaled


def test_segments_and_the_end_of_batches_by_pencil() -> None:
    # Segments of 30 MiB an image: three fit into 100 MiB, four need 120.
    found = _largest(lambda batch: 30 * MIB * batch, 100 * MIB)
    assert (found.batch, found.reserved, found.reserved_next) == (3, 90 * MIB, 120 * MIB)
    text = dumps(document("memory", [found], {}))  # it is a row of a document
    assert '"batch": 3' in text
    assert '"reserved_next": 125829120' in text
    found = _largest(lambda batch: 20 * batch, 40 * MIB)
    assert (found.batch, found.reserved_next, found.out_of_memory) == (MAX_BATCH, None, None)
    assert found.reason == f"batches above {MAX_BATCH} are not tried"


def test_nothing_fits() -> None:
    found = largest_batch(SPEC, SMALL, "backward", 510 * MIB)
    assert (found.batch, found.reserved) == (0, 0)
    assert found.reason.startswith("one image needs ")
    assert "10.0 MiB are there for it" in found.reason
    assert found.out_of_memory is not None
    assert found.setting.batch == 1
    below = largest_batch(SPEC, SMALL, "backward", CONTEXT)
    assert below.reason == "500.0 MiB are no more than the context's 500.0 MiB"


def test_named_gpus() -> None:
    small, large = (
        largest_batch(SPEC, SMALL, "backward", name, trace_of=_trace_of(lambda batch: GIB * batch))
        for name in ("V100-16GB", "a100-80gb")
    )
    assert (small.gpu, small.capacity) == ("v100-16gb", GPUS["v100-16gb"])
    assert (small.batch, large.batch) == (15, 78)
    assert "500.0 MiB" in small.assumption
    # As data sheets print them; cards with GDDR6 keep a sixteenth for error correction.
    nominal = {"t4": 16, "a10": 24, "l4": 24, "l40s": 48, "rtx3090": 24, "rtx4090": 24}
    nominal |= {"rtx5090": 32, "a6000": 48, "h20": 96, "h200": 141, "b200": 180}
    for name, capacity in GPUS.items():
        printed = nominal.get(name) or int(name.split("-")[1].removesuffix("gb"))
        assert 0.9 * printed < capacity / GIB < printed


def test_what_cannot_be_asked() -> None:
    with pytest.raises(UnknownNameError, match=r"unknown GPU 'a100-80'; did you mean a100-80gb"):
        largest_batch(SPEC, SMALL, "backward", "a100-80")
    with pytest.raises(UsageError, match="capacity -5: write a number of bytes"):
        largest_batch(SPEC, SMALL, "backward", -5)
    with pytest.raises(UsageError, match="context -1"):
        largest_batch(SPEC, SMALL, "backward", GIB, context=-1)


# Confirmed by runs: only out of memory makes a batch smaller.


MOST = 4096
ON_GPU = Setting(Resolution(64, 64), device="cuda")


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
    run = Runner(limit)
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
    run = Runner(limit)
    search(run, max(1, round(limit * off)), 1 << 20)
    assert len(run.asked) <= 12


@given(
    limit=st.integers(0, MOST),
    start=st.integers(1, MOST),
    at=st.integers(0, 30),
    end=st.sampled_from(["crashed", "timed out", "failed"]),
)
def test_any_other_end_stops_the_search_and_shrinks_nothing(
    limit: int, start: int, at: int, end: Outcome
) -> None:
    smooth = Runner(limit)
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
    found = search(Runner(130), 128, MOST)
    tried = ((134, "out of memory"), (132, "out of memory"), (131, "out of memory"))
    measured = ((128, "measured"), (130, "measured"))
    assert found == BatchSearch(130, 131, measured + tried, None)
    refused = tuple((batch, "out of memory") for batch in (3, 2, 1))
    assert search(Runner(0), 3).tried == refused


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


def confirm(run: Runner, start: int = 8, setting: Setting = ON_GPU) -> Confirmed:
    measure = Measure(run)
    found = confirm_largest(SPEC, setting, "step", start, 60, measure=measure, limit=7)
    assert set(measure.asked) == {("step", Recipe("adamw"), 60, 7)}
    assert found.limit == 7
    return found


def test_what_is_confirmed() -> None:
    found = confirm(Runner(9))
    assert (found.model, found.start, found.largest, found.refused) == ("dat_t", 8, 9, 10)
    assert found.row.setting == replace(ON_GPU, batch=9)
    assert found.stopped is None
    assert found.certain
    table = to_markdown(largest_tables([found]))
    assert "the largest batch that runs is 9 (64x64, float32, eager attention, step" in table
    assert "| 10 | out of memory | why 10" in " ".join(table.split())
    assert to_markdown(largest_tables([confirm(Runner(0))])).startswith("### dat_t: no batch ran")


def test_a_crash_is_told_and_is_no_limit() -> None:
    found = confirm(Runner(100, {1: "crashed"}))
    assert (found.largest, found.refused) == (8, None)
    assert (found.stopped.outcome, found.stopped.setting.batch) == ("crashed", 9)
    assert not found.certain
    table = to_markdown(largest_tables([found]))
    assert "batch 8 ran; the search ended early" in table
    assert "Batch 9 crashed: why 9. The GPU did not run out of memory" in table


@pytest.mark.gpu
def test_the_largest_batch_on_a_real_gpu() -> None:
    room = 3 << 30
    ballast = torch.empty(torch.cuda.mem_get_info()[0] - room, dtype=torch.uint8, device="cuda")
    setting = Setting(Resolution(224, 224), device="cuda")
    found = confirm_largest(SPEC, setting, "backward", 16, 120)
    del ballast
    assert found.certain, found.stopped
    assert found.refused == found.largest + 1
    assert found.row.peaks.reserved < room


def test_only_a_gpu_has_a_largest_batch() -> None:
    with pytest.raises(UsageError, match="on cuda, not on cpu"):
        confirm_largest(SPEC, replace(ON_GPU, device="cpu"), "backward", 8, 60)
