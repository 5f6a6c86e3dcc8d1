"""The life of every storage of one run, as plain values. Free of torch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from ...ledger import CATEGORIES, Category, Peak

Phase = Literal["before", "forward", "backward", "step"]


@dataclass(frozen=True)
class Block:
    """One storage.

    Args:
        size: in bytes.
        operator, module, phase: what made it, and where; empty for what was there before.
        born, died: times; None for what outlives the run.
    """

    size: int
    category: Category
    operator: str
    module: str
    phase: Phase
    born: int
    died: int | None

    def alive_at(self, time: int) -> bool:
        """Whether it is there once the event of this time has happened."""
        return self.born <= time and (self.died is None or time < self.died)


@dataclass(frozen=True)
class Event:
    """The birth (`change` above 0) or the death of a block."""

    time: int
    change: int
    block: Block


@dataclass(frozen=True)
class Trace:
    """Every storage of a run. Time counts events: one birth or one death at each.

    Args:
        blocks: in the order of their birth.
        forward_end: the time of the last event of the forward.
        end: the time of the last event.
    """

    blocks: tuple[Block, ...]
    forward_end: int
    end: int

    @cached_property
    def events(self) -> tuple[Event, ...]:
        """Births and deaths in the order in which they happened."""
        return tuple(sorted(self._events(), key=lambda event: event.time))

    def _events(self) -> Iterator[Event]:
        for block in self.blocks:
            yield Event(block.born, block.size, block)
            if block.died is not None:
                yield Event(block.died, -block.size, block)

    def live(self, time: int) -> dict[Category, int]:
        """Bytes alive at a time, by category."""
        found = dict.fromkeys(CATEGORIES, 0)
        for block in self.blocks:
            if block.alive_at(time):
                found[block.category] += block.size
        return found

    def whole(self, category: Category) -> int:
        """All bytes of a category, whenever they lived."""
        return sum(block.size for block in self.blocks if block.category == category)

    def most(self, *categories: Category) -> Event:
        """The event after which blocks of these categories hold most; the first such."""
        live, best, at = 0, -1, None
        for event in self.events:
            if event.block.category in categories:
                live += event.change
                if live > best:
                    best, at = live, event
        if at is None:
            raise ValueError("no such block")
        return at

    @cached_property
    def peak_time(self) -> int:
        """When the total is largest, the first time."""
        return self.most(*CATEGORIES).time

    @cached_property
    def peak(self) -> Peak:
        """Where the total is largest."""
        block = self.most(*CATEGORIES).block
        total = sum(self.live(self.peak_time).values())
        return Peak(total, block.operator, block.module, block.phase)
