"""A model of PyTorch's caching allocator for CUDA.

Written after its source (`c10/cuda/CUDACachingAllocator.cpp`) with the default options and one
stream: no rounding to powers of two, no limit to splitting, no garbage collection. The driver is
taken to hand out memory at rising addresses, in steps of 2 MiB.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from .records import OutOfMemory, Replay, check_budget
from .simulation import Event, Trace

# What the modelled allocator is made of: its sizes, and pieces of segments in two pools.
#
# The sizes stand in PyTorch's `c10/core/AllocatorConfig.h`, before that in
# `c10/cuda/CUDACachingAllocator.cpp`, by the names given here.


SMALLEST = 512
"""Sizes are multiples of it (`kMinBlockSize`)."""

SMALL = 2**20
"""The largest size that the small pool serves (`kSmallSize`)."""

SMALL_SEGMENT = 2 * 2**20
"""A segment of the small pool, and a page of one that grows (`kSmallBuffer`)."""

LARGE_SEGMENT = 20 * 2**20
"""A shared segment of the large pool, and a page (`kLargeBuffer`, later `large_segment_size`)."""

OWN_SEGMENT = 10 * 2**20
"""From this size on, a segment is made for the one request (`kMinLargeAlloc`)."""

ROUNDING = 2 * 2**20
"""Segments made for one request are multiples of it (`kRoundLarge`)."""

SPACE = LARGE_SEGMENT << 24
"""Addresses that a growing segment sets aside; a whole number of pages of both kinds."""

Action = Literal["segment_alloc", "segment_free", "segment_map", "segment_unmap"]


class SegmentChange(NamedTuple):
    """Memory taken from the driver or given back, as the allocator's own traces call it."""

    action: Action
    address: int
    size: int


@dataclass(eq=False)
class Piece:
    """A stretch of a segment: in use, free, or addresses without memory."""

    address: int
    size: int
    pool: Pool
    mapped: bool = True  # whether there is memory behind it
    requested: int = 0  # what was asked for; 0 where it is not in use
    previous: Piece | None = None
    next: Piece | None = None

    @property
    def end(self) -> int:
        """The first address after it."""
        return self.address + self.size


@dataclass(eq=False)
class Pool:
    """The shelves of one of the two pools."""

    small: bool
    free: list[tuple[int, int]] = field(default_factory=list)  # sizes and addresses, in order
    unmapped: list[int] = field(default_factory=list)  # addresses of pieces without memory

    @property
    def page(self) -> int:
        """What a growing segment grows by."""
        return SMALL_SEGMENT if self.small else LARGE_SEGMENT


def rounded(requested: int) -> int:
    """The size of what is allocated for a request."""
    return max(round_up(requested, SMALLEST), SMALLEST)


def segment_size(size: int) -> int:
    """The size of the segment that is taken for a rounded size, if none has room."""
    if size <= SMALL:
        return SMALL_SEGMENT
    return LARGE_SEGMENT if size < OWN_SEGMENT else round_up(size, ROUNDING)


def round_up(value: int, step: int) -> int:
    """The next multiple of a step."""
    return -(-value // step) * step


class Allocator:
    """The allocator's state."""

    def __init__(self, expandable: bool = False, capacity: int | None = None) -> None:
        self.expandable = expandable  # segments grow page by page (`expandable_segments:True`)
        self.capacity = capacity  # bytes that the driver has to give; None for no end of them
        self.requested = self.allocated = self.reserved = self.segments = 0
        self.changes: list[SegmentChange] = []
        self._small, self._large = Pool(small=True), Pool(small=False)
        self._pieces: dict[int, Piece] = {}
        self._top = SPACE

    # What programs ask for.

    def allocate(self, requested: int) -> Piece | None:
        """A piece for a request of a byte or more; None where memory is out."""
        size = rounded(requested)
        pool = self._small if size <= SMALL else self._large
        piece = self._fitting(pool, size) or self._taken(pool, size)
        if piece is None:
            self.release()
            piece = self._taken(pool, size)
            if piece is None:
                return None
        if piece.size - size >= self._least_rest(pool):
            self._shelve(self._cut(piece, size))
        piece.requested = requested
        self.requested += requested
        self.allocated += piece.size
        return piece

    def free(self, piece: Piece) -> None:
        """Take a piece back, and keep it for the next request."""
        self.requested -= piece.requested
        self.allocated -= piece.size
        piece.requested = 0
        self._shelve(self._joined(piece))

    def release(self) -> None:
        """Give back to the driver whatever is wholly free: segments, or pages."""
        for pool in (self._large, self._small):
            for _, address in list(pool.free):
                piece = self._pieces[address]
                if self.expandable:
                    self._unmap(piece)
                elif piece.previous is None and piece.next is None:
                    self._unshelve(piece)
                    del self._pieces[address]
                    self.segments -= 1
                    self._reserve("segment_free", piece)

    def runs(self) -> Iterator[list[Piece]]:
        """The pieces with memory, by segment; a hole in a growing segment divides it."""
        for address in sorted(self._pieces):
            piece: Piece | None = self._pieces[address]
            if piece is None or not piece.mapped:
                continue
            if piece.previous is not None and piece.previous.mapped:
                continue
            run = []
            while piece is not None and piece.mapped:
                run.append(piece)
                piece = piece.next
            yield run

    # Free pieces.

    def _fitting(self, pool: Pool, size: int) -> Piece | None:
        """The smallest free piece with room, the first of these; it leaves its shelf."""
        at = bisect_left(pool.free, (size, 0))
        if at == len(pool.free):
            return None
        if self.expandable:  # what can grow counts as large as it can become
            while at + 1 < len(pool.free) and self._room(pool, at + 1) < self._room(pool, at):
                at += 1
        piece = self._pieces[pool.free[at][1]]
        self._unshelve(piece)
        return piece

    def _room(self, pool: Pool, at: int) -> int:
        piece = self._pieces[pool.free[at][1]]
        after = piece.next
        return piece.size + (0 if after is None or after.mapped else after.size)

    def _least_rest(self, pool: Pool) -> int:
        """What is left of a piece is cut off from this size on (`should_split`)."""
        return SMALLEST if pool.small or self.expandable else SMALL + 1

    def _shelve(self, piece: Piece) -> None:
        if piece.mapped:
            insort(piece.pool.free, (piece.size, piece.address))
        else:
            insort(piece.pool.unmapped, piece.address)

    def _unshelve(self, piece: Piece) -> None:
        if piece.mapped:
            del piece.pool.free[bisect_left(piece.pool.free, (piece.size, piece.address))]
        else:
            del piece.pool.unmapped[bisect_left(piece.pool.unmapped, piece.address)]

    def _new(self, address: int, size: int, pool: Pool, mapped: bool) -> Piece:
        piece = self._pieces[address] = Piece(address, size, pool, mapped)
        return piece

    def _cut(self, piece: Piece, size: int) -> Piece:
        """Shorten a piece to a size; the rest of it, on no shelf yet."""
        rest = self._new(piece.address + size, piece.size - size, piece.pool, piece.mapped)
        rest.previous, rest.next = piece, piece.next
        if rest.next is not None:
            rest.next.previous = rest
        piece.size, piece.next = size, rest
        return rest

    def _joined(self, piece: Piece) -> Piece:
        """A piece with its free neighbours, which leave their shelves."""
        for other in (piece.previous, piece.next):
            if other is None or other.requested or other.mapped != piece.mapped:
                continue
            self._unshelve(other)
            left, right = (other, piece) if other is piece.previous else (piece, other)
            left.size += right.size
            left.next = right.next
            if left.next is not None:
                left.next.previous = left
            del self._pieces[right.address]
            piece = left
        return piece

    # Memory of the driver's.

    def _taken(self, pool: Pool, size: int) -> Piece | None:
        """A new piece with room, on no shelf; None where the driver has none."""
        if self.expandable:
            return self._grown(pool, size)
        amount = segment_size(size)
        if not self._fits(amount):
            return None
        piece = self._new(self._top, amount, pool, mapped=True)
        self._top += amount
        self.segments += 1
        self._reserve("segment_alloc", piece)
        return piece

    def _fits(self, amount: int) -> bool:
        return self.capacity is None or self.reserved + amount <= self.capacity

    def _reserve(self, action: Action, piece: Piece) -> None:
        """Keep the account of what the driver gave or got back."""
        given_back = action in ("segment_free", "segment_unmap")
        self.reserved += -piece.size if given_back else piece.size
        self.changes.append(SegmentChange(action, piece.address, piece.size))

    def _grown(self, pool: Pool, size: int) -> Piece | None:
        """The lowest stretch of free addresses with room, mapped as far as needed."""
        piece = self._stretch(pool, size)
        while not piece.mapped or piece.size < size:
            short = piece if not piece.mapped else piece.next
            assert short is not None  # the stretch is long enough
            missing = size if short is piece else size - piece.size
            mapped = self._map(short, min(missing, short.size))
            if mapped is None:
                return None
            piece = mapped
        self._unshelve(piece)
        return piece

    def _stretch(self, pool: Pool, size: int) -> Piece:
        for address in pool.unmapped:
            piece = self._pieces[address]
            if piece.previous is not None and not piece.previous.requested:
                piece = piece.previous
            room, end = 0, piece
            while room < size and not end.requested:
                room += end.size
                if end.next is None:
                    break
                end = end.next
            if room >= size:
                return piece
        piece = self._new(self._top, round_up(size, SPACE), pool, mapped=False)
        self._top = piece.end
        self.segments += 1
        self._shelve(piece)
        return piece

    def _map(self, piece: Piece, size: int) -> Piece | None:
        """Put memory behind the beginning of a piece; with the free piece before it."""
        size = round_up(size, piece.pool.page)
        if not self._fits(size):
            return None
        self._unshelve(piece)
        if size < piece.size:
            self._shelve(self._cut(piece, size))
        piece.mapped = True
        self._reserve("segment_map", piece)
        piece = self._joined(piece)
        self._shelve(piece)
        return piece

    def _unmap(self, piece: Piece) -> None:
        """Give back the whole pages of a free piece."""
        page = piece.pool.page
        start, end = round_up(piece.address, page), piece.end // page * page
        if start >= end:
            return
        self._unshelve(piece)
        if start > piece.address:
            before, piece = piece, self._cut(piece, start - piece.address)
            self._shelve(before)
        if end < piece.end:
            self._shelve(self._cut(piece, end - piece.address))
        piece.mapped = False
        self._reserve("segment_unmap", piece)
        self._shelve(self._joined(piece))


# The replay of a trace through the modelled allocator.


@dataclass(frozen=True)
class Step:
    """An event of a trace, as the allocator met it."""

    event: Event
    address: int | None  # of the block; None where memory was out
    changes: tuple[SegmentChange, ...]  # what was taken from the driver for it or given back


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
            held = (allocator.allocated, allocator.reserved)
            place = (block.operator, block.module, block.phase)
            out_of_memory = OutOfMemory(block.size, *held, *place)
    return Replay(
        expandable, capacity, requested, allocated, reserved, slack, segments, out_of_memory
    )
