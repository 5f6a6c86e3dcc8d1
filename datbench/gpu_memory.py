"""Memory as a device really held it, as plain values. Every amount is in bytes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from .ledger import MemoryMode, Recipe
from .types import Setting

Outcome = Literal["measured", "out of memory", "crashed", "timed out", "failed"]
"""How a run ended. Out of memory is the device's. Crashed: the process ended without an answer, by
a signal for example. Failed: it raised something else.
"""

Held = Literal[
    "parameters", "buffers", "inputs", "optimizer", "workspaces", "run", "slack", "context"
]
"""A part of what the process holds, from the model to everything that is not a tensor.

workspaces: allocated before the run and no tensor of ours: libraries' workspaces, rounding.
run: what the run itself allocated at its peak.
slack: reserved by the allocator at its peak and not allocated at its own.
context: the process's figure less what the allocator reserves: the CUDA context and libraries.
"""

HELD: tuple[Held, ...] = (
    "parameters",
    "buffers",
    "inputs",
    "optimizer",
    "workspaces",
    "run",
    "slack",
    "context",
)


@dataclass(frozen=True)
class HeldLine:
    """One part of what the process held; `amount` is None where `reason` says why."""

    part: Held
    amount: int | None
    reason: str | None = None


@dataclass(frozen=True)
class GpuEnvironment:
    """What a figure was measured on; None where it cannot be had.

    Args:
        name: the GPU's; on a CPU the processor's.
        memory: the device's, all of it.
        allocator: the caching allocator, with the settings that its environment variable gives.
    """

    name: str | None
    memory: int | None
    driver: str | None
    torch: str
    cuda: str | None
    allocator: str | None


@dataclass(frozen=True)
class GpuPeaks:
    """What the allocator and the driver say; None where `HeldLine.reason` says why.

    Args:
        allocated: the most that tensors took while the run lasted, rounded as the allocator does.
        requested: the same before rounding: what a simulation of tensors is compared with.
        reserved: the most that the allocator had from the driver.
        process: the process's memory when the run had ended; on a CPU its largest resident set.
        retries: how often the allocator had to give its cache back before it got more.
    """

    allocated: int | None
    requested: int | None
    reserved: int | None
    process: int | None
    retries: int | None


@dataclass(frozen=True)
class GpuRow:
    """One configuration, measured in a process of its own.

    Args:
        reason: one line, where nothing was measured.
        lines: one for each part; empty where nothing was measured.
        others: processes that were on the GPU before this one; None where no one can tell.
        seconds: from the start of the process to its end.
    """

    model: str
    setting: Setting
    mode: MemoryMode
    recipe: Recipe
    outcome: Outcome
    reason: str | None
    peaks: GpuPeaks | None
    lines: tuple[HeldLine, ...]
    environment: GpuEnvironment | None
    others: int | None
    seconds: float

    def line(self, part: Held) -> HeldLine | None:
        """The line of one part, if it was measured."""
        return next((line for line in self.lines if line.part == part), None)


@dataclass(frozen=True)
class Tried:
    """A batch that was run, and how that ended."""

    batch: int
    outcome: Outcome
    reason: str | None


@dataclass(frozen=True)
class Confirmed:
    """The largest batch that runs, found by running it.

    Args:
        start: the batch that the search began with.
        largest: that ran; None where none did.
        refused: the smallest that ran out of memory; one more than `largest` where the search
            ended; None where nothing ran out.
        tried: every run in order.
        stopped: the run that ended the search early, for another reason than memory.
        row: of the largest batch.
        limit: bytes that tensors were given of the GPU; None for all of it.
    """

    model: str
    setting: Setting
    mode: MemoryMode
    recipe: Recipe
    start: int
    largest: int | None
    refused: int | None
    tried: tuple[Tried, ...]
    stopped: GpuRow | None
    row: GpuRow | None
    limit: int | None = None

    @property
    def certain(self) -> bool:
        """Whether the next batch was seen to run out of memory, or none is larger."""
        return self.stopped is None
