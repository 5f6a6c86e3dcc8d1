"""What an allocator makes of a run's storages, as plain values. Every amount is in bytes."""

from __future__ import annotations

from dataclasses import dataclass

from .errors import UnknownNameError, UsageError
from .ledger import MemoryMode, Recipe
from .types import Setting

CONTEXT = 500 * 2**20
"""What the CUDA context and libraries are taken to need; an assumption that every result states.

It is the process's memory less what PyTorch reserves, and some 300 to 600 MiB by GPU, driver and
the libraries that are loaded.
"""

NO_CONTEXT = "measured on a GPU only, with --device cuda; workspaces of cuBLAS and cuDNN too"
"""Why a simulation has no line for it."""

# The total that PyTorch's out-of-memory message names for such a GPU, in tenths of a GiB, rounded
# down: what the data sheet says less what the driver and error correction keep. It differs by
# driver in the second decimal, such as 79.10, 79.14 and 79.25 GiB for cards of 80 GB.
_TENTHS_OF_GIB = {
    "v100-16gb": 157,
    "v100-32gb": 317,
    "rtx3090": 235,
    "rtx4090": 235,
    "a100-40gb": 393,
    "a100-80gb": 791,
    "h100-80gb": 790,
    "h200": 1397,
}

GPUS: dict[str, int] = {name: tenths * 2**30 // 10 for name, tenths in _TENTHS_OF_GIB.items()}
"""Bytes that processes can get, by name of the GPU."""


def gpu_memory(name: str) -> int:
    """Bytes of a named GPU.

    Raises:
        UnknownNameError: it is not in the table; the message names those that are.
    """
    if name.lower() not in GPUS:
        raise UnknownNameError.among("GPU", name, GPUS, "Or give the bytes.")
    return GPUS[name.lower()]


def check_budget(what: str, amount: int) -> None:
    """Refuse memory below zero.

    Raises:
        UsageError: it is negative.
    """
    if amount < 0:
        raise UsageError(f"{what} {amount}: write a number of bytes, 0 or more.")


@dataclass(frozen=True)
class OutOfMemory:
    """The allocation that found no room, even after all that was cached had been given back.

    Args:
        requested: its size.
        allocated, reserved: when it failed.
        operator, module, phase: what asked for it; empty for what is there before the run.
    """

    requested: int
    allocated: int
    reserved: int
    operator: str
    module: str
    phase: str


@dataclass(frozen=True)
class Replay:
    """A run's allocations and frees, replayed through a model of PyTorch's caching allocator.

    Args:
        expandable: whether segments grow (`expandable_segments:True`).
        capacity: of the device for tensors; None where there is no limit.
        requested_peak: as the run asked for it.
        allocated_peak: with sizes rounded (`max_memory_allocated`).
        reserved_peak: of the device (`max_memory_reserved`).
        slack: reserved less allocated when the former reached its peak.
        segments: at that time; that grow, one for each pool.
        out_of_memory: where the run ended for lack of memory; None where it did not.
    """

    expandable: bool
    capacity: int | None
    requested_peak: int
    allocated_peak: int
    reserved_peak: int
    slack: int
    segments: int
    out_of_memory: OutOfMemory | None


@dataclass(frozen=True)
class LargestBatch:
    """The largest batch that a device's memory holds, by simulation.

    Args:
        setting: with this batch, and with 1 where none fits.
        capacity: of the device.
        gpu: its name; None where bytes were given.
        context: the part of the capacity that tensors cannot have.
        batch: 0 where none fits.
        reserved: at this batch, on this device; 0 where none fits.
        reserved_next: what one image more would reserve on a device without limit; None where
            it was not tried, and `reason` says why.
        out_of_memory: where the run with one image more ends.
        simulations: how many runs were simulated; the other batches were scaled from these.
        scaled: whether every storage was found to grow linearly with the batch.
        assumption: what the figure rests on, for people.
        reason: why there is no batch, or no larger one was tried; None otherwise.
    """

    model: str
    setting: Setting
    mode: MemoryMode
    recipe: Recipe
    capacity: int
    gpu: str | None
    context: int
    expandable: bool
    batch: int
    reserved: int
    reserved_next: int | None
    out_of_memory: OutOfMemory | None
    simulations: int
    scaled: bool
    assumption: str
    reason: str | None = None
