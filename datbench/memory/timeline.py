"""What is alive over a run: a plot, and a file for PyTorch's memory visualiser."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from typing import Any

from .. import units
from ..render.figure import Figure, Series
from .allocator import Allocator, Piece, play
from .records import CATEGORIES, Category
from .simulation import StorageBlock, Trace

POINTS = 240
"""Points of a curve; more than a terminal has columns."""

_SCALES = ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"), (1, "B"))


# The plot


def timeline(trace: Trace, title: str = "Memory over the run", points: int = POINTS) -> Figure:
    """Live bytes by category and in total, from when the run starts.

    For long runs only some times are drawn. These are always among them: the peak of the total and
    of every category, the end of the forward and the end of the run.
    """
    start = max((block.born for block in trace.blocks if block.phase == "before"), default=0)
    curves = _curves(trace)
    times = _chosen(trace, curves, start, points)
    peak = trace.peak
    scale, unit = next(pair for pair in _SCALES if peak.amount >= pair[0] or pair[0] == 1)
    x = tuple(float(time - start) for time in times)
    series = [
        Series(name, x, tuple(curve[time] / scale for time in times))
        for name, curve in curves.items()
        if any(curve)
    ]
    where = " ".join(filter(None, (peak.operator, peak.module and f"in {peak.module}")))
    note = (
        f"Peak: {units.size(peak.amount)} at {trace.peak_time - start}"
        f"{f', {where}' if where else ''} ({peak.phase}). "
        f"The forward ends at {max(trace.forward_end - start, 0)}."
    )
    across, up = "births and deaths of storages since the run began", f"alive ({unit})"
    return Figure(title, across, up, tuple(series), notes=(note,), stacked=True)


def _curves(trace: Trace) -> dict[str, list[int]]:
    """Live bytes at every time; the total first."""
    live: dict[Category, int] = dict.fromkeys(CATEGORIES, 0)
    curves: dict[str, list[int]] = {"total": [0], **{name: [0] for name in CATEGORIES}}
    for event in trace.events:
        live[event.block.category] += event.change
        for name in CATEGORIES:
            curves[name].append(live[name])
        curves["total"].append(sum(live.values()))
    return curves


def _chosen(trace: Trace, curves: dict[str, list[int]], start: int, points: int) -> Sequence[int]:
    """Times to draw: the highest and the lowest total of equal stretches, and what is promised."""
    times = range(start, trace.end + 1)
    if len(times) <= points:
        return times
    total = curves["total"].__getitem__
    chosen = {start, trace.end, max(trace.forward_end, start)}
    chosen |= {max(times, key=curve.__getitem__) for curve in curves.values()}
    stretches = max((points - len(chosen)) // 2, 1)
    for n in range(stretches):
        first, last = (start + len(times) * k // stretches for k in (n, n + 1))
        stretch = range(first, last)
        chosen |= {max(stretch, key=total), min(stretch, key=total)}
    return sorted(chosen)


# The visualiser's file


def visualiser(trace: Trace, expandable: bool = False) -> bytes:
    """A snapshot as `torch.cuda.memory._dump_snapshot` writes it, for pytorch.org/memory_viz.

    It has the segments at the end of the run, and every change before it. Addresses are the
    modelled allocator's. The stack of a block is its module and operator, then phase and category;
    a time is the event's number.
    """
    allocator = Allocator(expandable)
    entries: list[dict[str, Any]] = []
    living: dict[int, StorageBlock] = {}
    for step in play(trace, allocator):
        block, time = step.event.block, step.event.time
        assert step.address is not None  # no limit was given
        for change in step.changes:
            entries.append(_entry(change.action, change.address, change.size, block, time))
        if step.event.change > 0:
            living[step.address] = block
            actions = ["alloc"]
        else:
            del living[step.address]
            actions = ["free_requested", "free_completed"]
        category = {"category": str(block.category)}
        for action in actions:
            entries.append(_entry(action, step.address, block.size, block, time) | category)
    # The visualiser's page fails on categories unless "unknown" is one of them.
    end = {"action": "snapshot", "addr": 0, "size": 0, "stream": 0, "time_us": trace.end}
    entries.append({**end, "frames": [], "category": "unknown"})
    content = {
        "segments": [_segment(run, living, expandable) for run in allocator.runs()],
        "device_traces": [entries],
        "allocator_settings": {"expandable_segments": expandable},
    }
    # Newer protocols have opcodes that the visualiser does not read.
    return pickle.dumps(content, protocol=4)


def _frames(block: StorageBlock) -> list[dict[str, Any]]:
    """Innermost first, as a stack is printed."""
    phase = "before the run" if block.phase == "before" else block.phase
    what = [{"filename": phase, "line": 0, "name": str(block.category)}]
    if block.operator:
        what.insert(0, {"filename": block.module or "(model)", "line": 0, "name": block.operator})
    return what


def _entry(action: str, address: int, size: int, block: StorageBlock, time: int) -> dict[str, Any]:
    where = {"action": action, "addr": address, "size": size, "stream": 0, "time_us": time}
    return {**where, "frames": _frames(block)}


def _segment(run: list[Piece], living: dict[int, StorageBlock], expandable: bool) -> dict[str, Any]:
    used = sum(piece.size for piece in run if piece.requested)
    return {
        "device": 0,
        "address": run[0].address,
        "total_size": sum(piece.size for piece in run),
        "allocated_size": used,
        "active_size": used,
        "requested_size": sum(piece.requested for piece in run),
        "stream": 0,
        "segment_type": "small" if run[0].pool.small else "large",
        "segment_pool_id": (0, 0),
        "is_expandable": expandable,
        "frames": [],
        "blocks": [
            {
                "address": piece.address,
                "size": piece.size,
                "requested_size": piece.requested,
                "state": "active_allocated" if piece.requested else "inactive",
                "frames": _frames(living[piece.address]) if piece.requested else [],
            }
            for piece in run
        ],
    }
