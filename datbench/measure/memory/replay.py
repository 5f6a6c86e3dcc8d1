"""The replay of a trace through the modelled allocator."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ...allocation import OutOfMemory, Replay, check_budget
from .allocator import Allocator
from .pieces import Change, Piece
from .trace import Event, Trace


@dataclass(frozen=True)
class Step:
    """An event of a trace, as the allocator met it.

    Args:
        address: of the block; None where memory was out.
        changes: what was taken from the driver for it, and what was given back.
    """

    event: Event
    address: int | None
    changes: tuple[Change, ...]


def play(trace: Trace, allocator: Allocator) -> Iterator[Step]:
    """Every event in order, up to the one for which there is no memory.

    A storage of no bytes is not allocated.
    """
    pieces: dict[int, Piece] = {}
    for event in trace.events:
        if event.change > 0:
            piece = allocator.allocate(event.change)
            changes, allocator.changes = tuple(allocator.changes), []
            yield Step(event, None if piece is None else piece.address, changes)
            if piece is None:
                return
            pieces[event.block.born] = piece
        elif event.change < 0:
            piece = pieces.pop(event.block.born)
            address = piece.address
            allocator.free(piece)
            yield Step(event, address, ())


def replay(trace: Trace, expandable: bool = False, capacity: int | None = None) -> Replay:
    """What PyTorch's allocator would reserve for a run.

    Raises:
        UsageError: a negative capacity.
    """
    if capacity is not None:
        check_budget("capacity", capacity)
    allocator = Allocator(expandable, capacity)
    requested = allocated = reserved = slack = segments = 0
    out_of_memory = None
    for step in play(trace, allocator):
        requested = max(requested, allocator.requested)
        allocated = max(allocated, allocator.allocated)
        if allocator.reserved > reserved:
            reserved, segments = allocator.reserved, allocator.segments
            slack = reserved - allocator.allocated
        if step.address is None:
            block = step.event.block
            out_of_memory = OutOfMemory(
                block.size,
                allocator.allocated,
                allocator.reserved,
                block.operator,
                block.module,
                block.phase,
            )
    return Replay(
        expandable, capacity, requested, allocated, reserved, slack, segments, out_of_memory
    )
