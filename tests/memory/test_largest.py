"""The largest batch for a device's memory."""

import math
from collections.abc import Callable

import pytest

from datbench import Resolution, Setting
from datbench.errors import UnknownNameError, UsageError
from datbench.memory.allocator import replay
from datbench.memory.largest import largest_batch, linear
from datbench.memory.records import CONTEXT, GPUS, LargestBatch
from datbench.memory.simulate import StorageBlock, Trace, simulate_model
from datbench.models.resolve import resolve
from datbench.records import document, dumps
from datbench.setting import MAX_BATCH, MemoryMode, Recipe

MIB, GIB = 2**20, 2**30
SPEC, SMALL = resolve("dat_t"), Setting(Resolution(64, 96))


def _trace_of(size: Callable[[int], int]) -> Callable[[int], Trace]:
    """One block, as large as told for each batch."""

    def trace(batch: int) -> Trace:
        block = StorageBlock(size(batch), "outputs", "aten::mm", "head", "forward", 1, None)
        return Trace((block,), 1, 1)

    return trace


def _largest(size: Callable[[int], int], room: int) -> LargestBatch:
    return largest_batch(SPEC, SMALL, "inference", room, context=0, trace_of=_trace_of(size))


@pytest.mark.parametrize(
    ("mode", "expandable"),
    [("inference", False), ("train-forward", True), ("train", False), ("train", True)],
)
def test_it_fits_and_one_more_does_not(mode: MemoryMode, expandable: bool) -> None:
    found = largest_batch(SPEC, SMALL, mode, 800 * MIB, 100 * MIB, expandable)
    assert found.batch > 5
    assert found.scaled
    assert found.simulations == 6  # 1, 2, 3, 5, the answer and the next
    assert found.setting.batch == found.batch

    def run(batch: int, room: int | None) -> tuple[int, bool]:
        setting = Setting(SMALL.resolution, batch=batch)
        replayed = replay(simulate_model("dat_t", setting, mode)[1], expandable, room)
        return replayed.reserved_peak, replayed.out_of_memory is None

    assert run(found.batch, 700 * MIB) == (found.reserved, True)
    assert not run(found.batch + 1, 700 * MIB)[1]
    assert run(found.batch + 1, None)[0] == found.reserved_next
    assert found.reserved <= 700 * MIB
    assert found.out_of_memory is not None
    assert found.out_of_memory.operator.startswith("aten::")
    assert found.reason is None


def test_what_training_adds_is_counted() -> None:
    """The state of the optimizer takes room for images; blocks that are run again make room."""
    room = GIB

    def largest(mode: MemoryMode, **recipe: str) -> int:
        found = largest_batch(
            SPEC,
            SMALL,
            mode,
            room,
            recipe=Recipe(**recipe),  # type: ignore[arg-type]
        )
        assert found.scaled
        return found.batch

    plain = largest("train")
    assert (
        largest("step", optimizer="sgd-momentum") < plain < largest("train", checkpointing="block")
    )


@pytest.mark.parametrize(
    ("name", "mode"),
    [("dat_t", "train"), ("datpp_t", "train-forward"), ("dat_t_ddetr_16_16", "inference")],
)
def test_scaling_is_simulating(name: str, mode: MemoryMode) -> None:
    def simulated(batch: int) -> Trace:
        return simulate_model(name, Setting(SMALL.resolution, batch=batch), mode)[1]

    line = linear(simulated)
    assert line is not None
    for batch in (2, 4, 64):
        assert line.at(batch) == simulated(batch)


def test_by_pencil() -> None:
    # Segments of 30 MiB an image: three fit into 100 MiB, four need 120.
    found = _largest(lambda batch: 30 * MIB * batch, 100 * MIB)
    assert (found.batch, found.reserved, found.reserved_next) == (3, 90 * MIB, 120 * MIB)


def test_where_no_line_is_every_candidate_is_simulated() -> None:
    found = _largest(lambda batch: MIB * batch**2, 1000 * MIB)
    assert found.batch == math.isqrt(1000)
    assert not found.scaled


def test_a_line_that_ends_is_not_believed() -> None:
    found = _largest(lambda batch: MIB * batch * (20 if batch < 10 else 40), 1000 * MIB)
    assert found.batch == 25
    assert not found.scaled


def test_nothing_fits() -> None:
    found = largest_batch(SPEC, SMALL, "train", 600 * MIB)
    assert (found.batch, found.reserved) == (0, 0)
    assert found.reason is not None
    assert found.reason.startswith("one image needs ")
    assert "100.0 MiB are there for it" in found.reason
    assert found.out_of_memory is not None
    assert found.setting.batch == 1
    below = largest_batch(SPEC, SMALL, "train", CONTEXT)
    assert below.reason == "500.0 MiB are no more than the context's 500.0 MiB"


def test_one_image_alone() -> None:
    assert _largest(lambda batch: 30 * MIB * batch, 40 * MIB).batch == 1


def test_there_is_an_end_to_batches() -> None:
    found = _largest(lambda batch: 20 * batch, 40 * MIB)
    assert found.batch == MAX_BATCH
    assert found.reserved_next is None
    assert found.out_of_memory is None
    assert found.reason == f"batches above {MAX_BATCH} are not tried"


def test_named_gpus() -> None:
    small, large = (
        largest_batch(SPEC, SMALL, "train", name, trace_of=_trace_of(lambda batch: GIB * batch))
        for name in ("V100-16GB", "a100-80gb")
    )
    assert (small.gpu, small.capacity) == ("v100-16gb", GPUS["v100-16gb"])
    assert (small.batch, large.batch) == (15, 78)
    assert "500.0 MiB" in small.assumption
    for name, capacity in GPUS.items():
        nominal = {"rtx3090": 24, "rtx4090": 24, "h200": 141}.get(name)
        nominal = nominal or int(name.split("-")[1].removesuffix("gb"))
        assert 0.97 * nominal < capacity / GIB < nominal


def test_what_cannot_be_asked() -> None:
    with pytest.raises(UnknownNameError, match=r"unknown GPU 'a100-80'; did you mean a100-80gb"):
        largest_batch(SPEC, SMALL, "train", "a100-80")
    with pytest.raises(UsageError, match="capacity -5: write a number of bytes"):
        largest_batch(SPEC, SMALL, "train", -5)
    with pytest.raises(UsageError, match="context -1"):
        largest_batch(SPEC, SMALL, "train", GIB, context=-1)


def test_it_is_a_row_of_a_document() -> None:
    text = dumps(document("memory", [_largest(lambda batch: 30 * MIB * batch, 100 * MIB)], {}))
    assert '"batch": 3' in text
    assert '"reserved_next": 125829120' in text
