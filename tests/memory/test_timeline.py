"""The plot of what is alive, and the file that PyTorch's memory visualiser opens."""

import pickle
import pickletools
from typing import Any

import pytest
from torch.cuda import _memory_viz

from datbench import Resolution, Setting
from datbench.memory.allocator import replay
from datbench.memory.records import CATEGORIES, Category
from datbench.memory.simulation import StorageBlock, Trace, simulate_model
from datbench.memory.timeline import timeline, visualiser
from datbench.render.figure import Figure
from datbench.render.terminal import to_terminal
from tests.nets import short


@pytest.fixture(scope="module")
def trace() -> Trace:
    return simulate_model(short("dat_t"), Setting(Resolution(64, 96), batch=4), "backward")[1]


SMALL = Trace(
    (
        StorageBlock(1024, "parameters", "", "", "before", 1, None),
        StorageBlock(2048, "kept", "aten::mm", "layer", "forward", 2, 4),
        StorageBlock(0, "temporary", "aten::empty", "layer", "forward", 3, None),
        StorageBlock(512, "gradients", "aten::mm", "layer", "backward", 5, None),
    ),
    forward_end=3,
    end=5,
)


def _values(figure: Figure) -> dict[str, tuple[float, ...]]:
    return {series.name: series.y for series in figure.series}


def test_a_small_timeline_by_pencil() -> None:
    figure = timeline(SMALL)
    assert figure.y_label == "alive (KiB)"
    assert figure.series[0].x == (0, 1, 2, 3, 4)
    assert _values(figure) == {
        "total": (1, 3, 3, 1, 1.5),
        "parameters": (1, 1, 1, 1, 1),
        "kept": (0, 2, 2, 0, 0),
        "gradients": (0, 0, 0, 0, 0.5),
    }
    note = "Peak: 3.0 KiB at 1, aten::mm in layer (forward). The forward ends at 2."
    assert figure.notes == (note,)
    drawn = to_terminal(figure, 80)
    assert "alive (KiB)" in drawn
    assert "(forward)" in drawn


@pytest.mark.parametrize("points", [40, 240, 100_000])
def test_few_points_and_every_peak(trace: Trace, points: int) -> None:
    figure = timeline(trace, "dat_t", points)
    values = _values(figure)
    x = figure.series[0].x
    assert len(x) <= points
    assert list(x) == sorted(set(x))
    assert max(values["total"]) * 2**20 == trace.peak.amount
    there = [name for name in CATEGORIES if trace.whole(name)]
    assert list(values) == ["total", *there]
    for category in there:
        most = trace.live(trace.most(category).time)[category]
        assert max(values[category]) * 2**20 == most
    parts = zip(*(values[name] for name in values if name != "total"), strict=True)
    assert [sum(part) for part in parts] == pytest.approx(values["total"])
    assert values["total"][-1] * 2**20 == sum(trace.live(trace.end).values())


def test_no_spike_is_lost_between_the_points() -> None:
    """A ramp of small blocks, a low and a high spike, and a temporary where the total is lower."""
    blocks = [StorageBlock(900, "kept", "aten::mm", "", "forward", 1, 408)]
    time = 1

    def born(category: Category, size: int, died: int | None) -> None:
        nonlocal time
        time += 1
        blocks.append(StorageBlock(size, category, "aten::mm", "", "forward", time, died))

    def spike(category: Category, size: int) -> None:
        nonlocal time
        born(category, size, time + 2)
        time += 1

    for n in range(600):
        if n == 203:
            spike("outputs", 700)
        elif n == 403:
            spike("outputs", 5000)
        elif time == 407:
            time = 408
            spike("temporary", 600)
            born("kept", 900, None)
        else:
            born("kept", 1, None)
    values = _values(timeline(Trace(tuple(blocks), time, time), points=60))
    assert [round(1024 * y) for y in values["outputs"] if y] == [700, 5000]
    assert max(values["temporary"]) * 1024 == 600


@pytest.mark.parametrize("expandable", [False, True])
def test_torch_reads_the_file(
    trace: Trace, expandable: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    content: dict[str, Any] = pickle.loads(visualiser(trace, expandable))
    said = _memory_viz.trace(content)
    assert "= cudaMalloc(" in said or "segment_map" in said
    assert "free completed for" in said
    summary = _memory_viz.segsum(content)  # adds everything up, and raises where it does not
    assert f"segments: {len(content['segments'])}" in summary
    # Flame graphs, less the drawing, for which torch would fetch a program.
    flames = _memory_viz.memory(content, format_flamegraph=str)
    assert "before the run:0:parameters" in flames
    assert "aten::convolution_backward" in flames
    assert "seg_" in _memory_viz.segments(content, format_flamegraph=str)
    other = pickle.loads(visualiser(SMALL))
    _memory_viz.compare(content["segments"], other["segments"], format_flamegraph=str)
    assert "only_before" in capsys.readouterr().out
    assert "MemoryViz.js" in _memory_viz.trace_plot(content)
    assert "MemoryViz.js" in _memory_viz.trace_plot(content, plot_segments=True)


@pytest.mark.parametrize("expandable", [False, True])
def test_the_file_tells_what_the_replay_does(trace: Trace, expandable: bool) -> None:
    content: dict[str, Any] = pickle.loads(visualiser(trace, expandable))
    requested = reserved = most_requested = most_reserved = 0
    live: dict[int, int] = {}
    signs = {"segment_alloc": 1, "segment_map": 1, "segment_free": -1, "segment_unmap": -1}
    for entry in content["device_traces"][0]:
        action, address, size = entry["action"], entry["addr"], entry["size"]
        reserved += signs.get(action, 0) * size
        if action == "alloc":
            assert address not in live
            live[address] = size
            requested += size
        elif action == "free_completed":
            assert live.pop(address) == size
            requested -= size
        most_requested, most_reserved = max(most_requested, requested), max(most_reserved, reserved)
    found = replay(trace, expandable)
    assert (most_requested, most_reserved) == (found.requested_peak, found.reserved_peak)
    blocks = {
        block["address"]: block["requested_size"]
        for segment in content["segments"]
        for block in segment["blocks"]
        if block["state"] == "active_allocated"
    }
    assert blocks == live
    assert sum(segment["total_size"] for segment in content["segments"]) == reserved
    assert sum(blocks.values()) == sum(trace.live(trace.end).values())


def test_frames_name_module_and_operator(trace: Trace) -> None:
    entries = pickle.loads(visualiser(trace))["device_traces"][0]
    norm = next(e for e in entries if e["action"] == "alloc" and e["category"] == "kept")
    made = next(block for block in trace.blocks if block.category == "kept")
    assert norm["frames"] == [
        {"filename": made.module, "line": 0, "name": made.operator},
        {"filename": "forward", "line": 0, "name": "kept"},
    ]
    assert entries[0]["action"] == "segment_alloc"
    assert [frame["filename"] for frame in entries[1]["frames"]] == ["before the run"]


def test_the_page_can_read_the_file(trace: Trace) -> None:
    """It is JavaScript, with an unpickler of its own for protocols 2 to 4, and numbers to 2**53."""
    known = set(
        "APPEND APPENDS BINGET BININT BININT1 BININT2 BINUNICODE EMPTY_DICT EMPTY_LIST EMPTY_TUPLE "
        "FRAME LONG1 LONG_BINGET MARK MEMOIZE NEWFALSE NEWTRUE NONE PROTO SETITEM SETITEMS "
        "SHORT_BINUNICODE STOP TUPLE TUPLE1 TUPLE2 TUPLE3".split()
    )
    content = visualiser(trace)
    assert content[:2] == b"\x80\x04"
    assert {opcode.name for opcode, _, _ in pickletools.genops(content)} <= known
    snapshot = pickle.loads(content)
    entries = snapshot["device_traces"][0]
    assert max(entry["addr"] for entry in entries) < 2**53
    assert "unknown" in {entry.get("category") for entry in entries}
    assert visualiser(trace) == content
