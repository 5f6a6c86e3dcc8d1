"""What the caching allocator would reserve, and the largest batch, as tables."""

from __future__ import annotations

from collections.abc import Sequence

from .. import units
from ..allocation import NO_CONTEXT, LargestBatch, Replay
from .table import Column, Table


def replays_table(names: Sequence[str], replays: Sequence[Sequence[Replay]]) -> Table:
    """PyTorch's caching allocator, with its usual segments and with expandable ones.

    Args:
        names: of the runs; hidden where there is one.
        replays: of each run.
    """
    columns = (
        Column("run", "run", hidden=len(names) == 1),
        Column("expandable", "segments"),
        Column("requested_peak", "tensors", units.size),
        Column("allocated_peak", "allocated", units.size),
        Column("reserved_peak", "reserved", units.size),
        Column("slack", "slack", units.size),
        Column("segments", "number", units.integer),
        Column("context", "context and libraries", units.size),
    )
    rows = tuple(
        (
            name,
            "expandable" if r.expandable else "default",
            r.requested_peak,
            r.allocated_peak,
            r.reserved_peak,
            r.slack,
            r.segments,
            None,
        )
        for name, found in zip(names, replays, strict=True)
        for r in found
    )
    notes = (
        "Predicted by replaying the run through a model of PyTorch's caching allocator. Allocator "
        "slack: reserved and not allocated when most is reserved.",
        f"Context and libraries: {NO_CONTEXT}.",
    )
    return Table(columns, rows, "What the allocator would reserve", notes)


def largest_table(found: Sequence[LargestBatch]) -> Table:
    """The largest batch of each model."""
    columns = (
        Column("model", "model"),
        Column("resolution", "input"),
        Column("mode", "mode"),
        Column("gpu", "GPU"),
        Column("capacity", "memory", units.size),
        Column("batch", "largest batch", units.integer),
        Column("reserved", "reserved", units.size),
        Column("reserved_next", "one more, no limit", units.size),
        Column("reason", "why"),
    )
    rows = tuple(
        (
            f.model,
            str(f.setting.resolution),
            f.mode,
            f.gpu,
            f.capacity,
            f.batch,
            f.reserved,
            f.reserved_next,
            f.reason or _end(f),
        )
        for f in found
    )
    notes = tuple(dict.fromkeys(f.assumption for f in found))
    return Table(columns, rows, "Largest batch, by simulation", notes)


def _end(found: LargestBatch) -> str | None:
    """Where one image more runs out of memory."""
    end = found.out_of_memory
    if end is None:
        return None
    operator = end.operator.removeprefix("aten::") or "the model itself"
    where = f"{operator} in {end.module}" if end.module else operator
    return f"with one more, {where} finds no {units.size(end.requested)}"
