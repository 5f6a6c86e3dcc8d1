"""What the modelled allocator is made of: its sizes, and pieces of segments in two pools.

The sizes stand in PyTorch's `c10/core/AllocatorConfig.h`, before that in
`c10/cuda/CUDACachingAllocator.cpp`, by the names given here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, NamedTuple

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


class Change(NamedTuple):
    """Memory taken from the driver or given back, as the allocator's own traces call it."""

    action: Action
    address: int
    size: int


@dataclass(eq=False)
class Piece:
    """A stretch of a segment: in use, free, or addresses without memory.

    Args:
        mapped: whether there is memory behind it.
        requested: what was asked for; 0 where it is not in use.
    """

    address: int
    size: int
    pool: Pool
    mapped: bool = True
    requested: int = 0
    previous: Piece | None = None
    next: Piece | None = None

    @property
    def end(self) -> int:
        """The first address after it."""
        return self.address + self.size


@dataclass(eq=False)
class Pool:
    """The shelves of one of the two pools.

    Args:
        free: size and address of every free piece, in this order.
        unmapped: addresses of pieces without memory, in order.
    """

    small: bool
    free: list[tuple[int, int]] = field(default_factory=list)
    unmapped: list[int] = field(default_factory=list)

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
