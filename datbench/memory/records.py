"""Where the memory of a model goes, as plain values. Every amount is in bytes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, get_args

from .. import units
from ..errors import FieldError, UnknownNameError, UsageError
from ..render.figure import Figure
from ..setting import PLAIN, Count, MemoryMode, Recipe, Setting
from ..units import Brief

Category = Literal[
    "parameters", "buffers", "inputs", "kept", "outputs", "gradients", "optimizer", "temporary"
]
"""What a storage is: the first of these that fits; `kept` is saved for backward."""

CATEGORIES: tuple[Category, ...] = get_args(Category)


@dataclass(frozen=True)
class LedgerLine:
    """One category of memory."""

    category: Category
    # the whole of it; of temporaries the most at any one time. None where the mode has no such
    # thing, and `reason` says why.
    amount: Count | None
    at_peak: Count | None  # the part that is alive when the total is largest; None with `amount`
    reason: str | None = None


@dataclass(frozen=True)
class MemoryPart:
    """What the operators of one place make."""

    # stage, module, operator: the place; None where parts are not told apart by it
    stage: str | None
    module: str | None
    operator: str | None
    tensors: Count  # how many storages of it are saved for backward
    kept: Count | None  # their bytes; None where nothing is kept
    at_peak: Count  # bytes made here that are alive when the total is largest


@dataclass(frozen=True)
class Peak:
    """Where the total is largest: the operator that was running, its module, and the phase."""

    amount: Count
    operator: str
    module: str
    phase: str


@dataclass(frozen=True)
class CpuPeak:
    """The same run on the CPU, replayed from what torch's profiler saw allocated."""

    peak: Count  # with what was there before: parameters, buffers, inputs
    at_end: Count  # alive when the run has ended
    operator: str  # the outermost operator that was running at the peak
    difference: float  # the simulated peak less this one, as a share of this one


NO_CONTEXT = (
    "measured on a GPU only, workspaces of cuBLAS and cuDNN too: datbench memory measure "
    "--device cuda"
)
"""Why a simulation has no line for it."""


@dataclass(frozen=True)
class ContextLine:
    """What the CUDA context and libraries take; a simulation does not know it."""

    amount: Count | None = None
    reason: str | None = NO_CONTEXT


@dataclass(frozen=True, repr=False)
class MemoryRow(Brief):
    """The ledger of one model at one setting."""

    model: str
    setting: Setting
    mode: MemoryMode
    # one for each category; what they say of the peak sums to the peak
    lines: tuple[LedgerLine, ...]
    after_forward: Count  # alive when the forward has ended
    at_end: Count  # alive when the run has ended
    peak: Peak
    # by stage, module and operator; parameters, buffers and inputs belong to none
    parts: tuple[MemoryPart, ...]
    measured: CpuPeak | None = None  # None where `--verify` was not asked for
    recipe: Recipe = PLAIN  # with the optimizer named in a full step
    allocator: tuple[Replay, ...] = ()  # the same run, by segments that grow and that do not
    context: ContextLine = ContextLine()

    def __post_init__(self) -> None:
        there = sorted(line.category for line in self.lines)
        if there != sorted(CATEGORIES):
            raise FieldError(f"lines: must have each of {', '.join(CATEGORIES)} once.")

    def line(self, category: Category) -> LedgerLine:
        """The line of one category."""
        return next(line for line in self.lines if line.category == category)

    def parts_by(self, *places: Literal["stage", "module", "operator"]) -> list[MemoryPart]:
        """Parts summed to these places, those that keep most first, then those at the peak."""
        sums: dict[tuple[str | None, ...], MemoryPart] = {}
        for part in self.parts:
            stage = part.stage if "stage" in places else None
            module = part.module if "module" in places else None
            operator = part.operator if "operator" in places else None
            place = (stage, module, operator)
            before = sums.get(place, MemoryPart(*place, 0, None, 0))
            kept = None if part.kept is None else part.kept + (before.kept or 0)
            tensors, at_peak = before.tensors + part.tensors, before.at_peak + part.at_peak
            sums[place] = MemoryPart(*place, tensors, kept, at_peak)
        return sorted(sums.values(), key=lambda part: (-(part.kept or 0), -part.at_peak))


@dataclass(frozen=True, repr=False)
class Timeline(Brief):
    """Live bytes by category over a run; a report draws it."""

    model: str
    setting: str  # in words
    figure: Figure  # a series for each category, and ``total``

    def __post_init__(self) -> None:
        for series in self.figure.series:
            if series.name not in (*CATEGORIES, "total"):
                raise FieldError(f"figure.series: {series.name!r:.40} is not a category.")


# What an allocator makes of a run's storages, as plain values. Every amount is in bytes.


CONTEXT = 500 * 2**20
"""What the CUDA context and libraries are taken to need; an assumption that every result states.

It is the process's memory less what PyTorch reserves, and some 300 to 600 MiB by GPU, driver and
the libraries that are loaded.
"""

# The total that PyTorch's out-of-memory message names for such a GPU, in tenths of a GiB, rounded
# down: what the data sheet says less what the driver and error correction keep. It differs by
# driver in the second decimal, such as 79.10, 79.14 and 79.25 GiB for cards of 80 GB; the least
# that users of PyTorch report on Linux counts (T4: 14.56 to 14.76, A10 and A10G: 21.96 to 22.20,
# L4: 22.03 to 22.17, L40S: 44.42 and 44.53, B200: 178.35 GiB).
_TENTHS_OF_GIB = {
    "t4": 145,
    "v100-16gb": 157,
    "v100-32gb": 317,
    "a10": 219,
    "l4": 220,
    "rtx3090": 235,
    "rtx4090": 235,
    "rtx5090": 313,
    "l40s": 444,
    "a6000": 475,
    "a100-40gb": 393,
    "a100-80gb": 791,
    "h100-80gb": 790,
    "h20": 950,
    "h200": 1397,
    "b200": 1783,
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


_AMOUNT = re.compile(r"\s*([0-9]{1,12}(?:\.[0-9]{1,6})?)\s*([A-Za-z]{1,3})\s*")

_UNITS = {"B": 1, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "MB": 10**6, "GB": 10**9, "G": 2**30}


def bytes_of(text: str, flag: str) -> int:
    """``16GiB``, ``24GB`` or ``500MiB`` in bytes."""
    match = _AMOUNT.fullmatch(text)
    if match is None or match[2].upper() not in _UNITS:
        raise UsageError(f"{flag} {text!r} is not understood; write an amount such as 16GiB.")
    return int(float(match[1]) * _UNITS[match[2].upper()])


def capacity(text: str) -> tuple[int | str, int, int]:
    """``16GiB`` or ``v100-16gb``, perhaps with ``,context=1GiB``: amount or name, bytes, context.

    Raises:
        UsageError: it is not understood, or the context leaves nothing of it.
    """
    amount, _, reserved = text.partition(",context=")
    named = amount.strip()[:1].isalpha()
    whole = gpu_memory(amount) if named else bytes_of(amount, "--memory")
    context = bytes_of(reserved or "500MiB", "context")
    if not whole:
        raise UsageError("--memory: write an amount above 0, such as 16GiB.")
    if context >= whole:
        raise UsageError(
            f"the context takes {units.size(context)} and leaves nothing of {units.size(whole)}; "
            "name more memory, or less context: --memory MEMORY,context=AMOUNT."
        )
    return amount if named else whole, whole, context


def check_budget(what: str, amount: int) -> None:
    """Refuse memory below zero.

    Raises:
        UsageError: it is negative.
    """
    if amount < 0:
        raise UsageError(f"{what} {amount}: write a number of bytes, 0 or more.")


@dataclass(frozen=True)
class OutOfMemory:
    """The allocation that found no room, even after all that was cached had been given back."""

    requested: Count  # its size
    allocated: Count  # allocated, reserved: when it failed
    reserved: Count
    # operator, module, phase: what asked for it; empty for what is there before the run
    operator: str
    module: str
    phase: str


@dataclass(frozen=True)
class Replay:
    """A run's allocations and frees, replayed through a model of PyTorch's caching allocator."""

    expandable: bool  # whether segments grow (`expandable_segments:True`)
    capacity: int | None  # of the device for tensors; None where there is no limit
    requested_peak: Count  # as the run asked for it
    allocated_peak: Count  # with sizes rounded (`max_memory_allocated`)
    reserved_peak: Count  # of the device (`max_memory_reserved`)
    slack: int  # reserved less allocated when the former reached its peak
    segments: Count  # at that time; that grow, one for each pool
    # where the run ended for lack of memory; None where it did not
    out_of_memory: OutOfMemory | None


@dataclass(frozen=True, repr=False)
class LargestBatch(Brief):
    """The largest batch that a device's memory holds, by simulation."""

    model: str
    setting: Setting  # with this batch, and with 1 where none fits
    mode: MemoryMode
    recipe: Recipe
    capacity: int  # of the device
    gpu: str | None  # its name; None where bytes were given
    context: int  # the part of the capacity that tensors cannot have
    expandable: bool
    batch: int  # 0 where none fits
    reserved: Count  # at this batch, on this device; 0 where none fits
    # what one image more would reserve on a device without limit; None where it was not tried, and
    # `reason` says why
    reserved_next: Count | None
    out_of_memory: OutOfMemory | None  # where the run with one image more ends
    simulations: Count  # how many runs were simulated; the other batches were scaled from these
    scaled: bool  # whether every storage was found to grow linearly with the batch
    assumption: str  # what the figure rests on, for people
    reason: str | None = None  # why there is no batch, or no larger one was tried; None otherwise


# Memory as a device really held it, as plain values. Every amount is in bytes.


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

HELD: tuple[Held, ...] = get_args(Held)


@dataclass(frozen=True)
class HeldLine:
    """One part of what the process held; `amount` is None where `reason` says why."""

    part: Held
    amount: int | None
    reason: str | None = None


@dataclass(frozen=True)
class GpuEnvironment:
    """What a figure was measured on; None where it cannot be had."""

    name: str | None  # the GPU's; on a CPU the processor's
    memory: int | None  # the device's, all of it
    driver: str | None
    torch: str
    cuda: str | None
    # the caching allocator, with the settings that its environment variable gives
    allocator: str | None


@dataclass(frozen=True)
class GpuPeaks:
    """What the allocator and the driver say; None where `HeldLine.reason` says why."""

    # the most that tensors took while the run lasted, rounded as the allocator does
    allocated: Count | None
    # the same before rounding: what a simulation of tensors is compared with
    requested: Count | None
    reserved: Count | None  # the most that the allocator had from the driver
    # the process's memory when the run had ended; on a CPU its largest resident set
    process: int | None
    retries: Count | None  # how often the allocator had to give its cache back before it got more


@dataclass(frozen=True, repr=False)
class GpuRow(Brief):
    """One configuration, measured in a process of its own."""

    model: str
    setting: Setting
    mode: MemoryMode
    recipe: Recipe
    outcome: Outcome
    reason: str | None  # one line, where nothing was measured
    peaks: GpuPeaks | None
    lines: tuple[HeldLine, ...]  # one for each part; empty where nothing was measured
    environment: GpuEnvironment | None
    others: int | None  # processes that were on the GPU before this one; None where no one can tell
    seconds: float  # from the start of the process to its end
    simulated_peak: Count | None = None  # with `--verify`: what the simulation says of the run

    def line(self, part: Held) -> HeldLine | None:
        """The line of one part, if it was measured."""
        return next((line for line in self.lines if line.part == part), None)


@dataclass(frozen=True)
class Tried:
    """A batch that was run, and how that ended."""

    batch: int
    outcome: Outcome
    reason: str | None


@dataclass(frozen=True, repr=False)
class Confirmed(Brief):
    """The largest batch that runs, found by running it."""

    model: str
    setting: Setting
    mode: MemoryMode
    recipe: Recipe
    start: int  # the batch that the search began with
    largest: int | None  # that ran; None where none did
    # the smallest that ran out of memory; one more than `largest` where the search ended; None
    # where nothing ran out
    refused: int | None
    tried: tuple[Tried, ...]  # every run in order
    stopped: GpuRow | None  # the run that ended the search early, for another reason than memory
    row: GpuRow | None  # of the largest batch
    limit: int | None = None  # bytes that tensors were given of the GPU; None for all of it

    @property
    def certain(self) -> bool:
        """Whether the next batch was seen to run out of memory, or none is larger."""
        return self.stopped is None
