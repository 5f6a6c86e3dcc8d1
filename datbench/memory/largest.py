"""The largest batch that a device's memory holds.

Two small batches are simulated. Where they make the same storages, other batches are scaled from
these and replayed through the allocator, without a simulation of their own; the answer and the
batch after it are simulated before they are believed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache

from .. import units
from ..errors import MeasurementError, UsageError
from ..models.resolve import Spec
from ..run import as_built
from ..setting import MAX_BATCH, PLAIN, MemoryMode, Recipe, Setting
from .allocator import replay
from .device import TIMEOUT, measure_gpu
from .records import (
    CONTEXT,
    Confirmed,
    GpuRow,
    LargestBatch,
    Outcome,
    Replay,
    Tried,
    check_budget,
    gpu_memory,
)
from .simulation import Trace, simulate_model

TraceOf = Callable[[int], Trace]
"""The simulation of one batch."""

# A batch of one image is another run: a dimension of one needs no copy that others need.
_BASE, _NEXT, _CHECKED = 2, 3, 5
_MANY = 64  # images, from which the memory of one is reckoned


def largest_batch(
    spec: Spec,
    setting: Setting,
    mode: MemoryMode,
    capacity: int | str,
    context: int = CONTEXT,
    expandable: bool = False,
    recipe: Recipe = PLAIN,
    trace_of: TraceOf | None = None,
) -> LargestBatch:
    """The largest batch of a model, by simulation.

    Args:
        setting: its batch is not used.
        capacity: of the device, in bytes, or a name of `allocation.GPUS`.
        context: bytes of it that tensors cannot have.
        expandable: whether the allocator's segments grow (`expandable_segments:True`).
        recipe: how it is trained.
        trace_of: how a batch is simulated, where it is not `simulate_model`.

    Raises:
        UnknownNameError: no such GPU.
        UsageError: a negative amount, or a recipe that does not suit the mode.
        MeasurementError: the model does not run with this setting.
    """
    gpu = capacity.lower() if isinstance(capacity, str) else None
    whole = gpu_memory(capacity) if isinstance(capacity, str) else capacity
    check_budget("capacity", whole)
    check_budget("context", context)

    there = replace(setting, device="meta")

    def simulated(batch: int) -> Trace:
        nonlocal there
        if there.device == "cpu" and batch > _CHECKED:
            # It takes the memory that it is followed in; no large batch is run for that.
            if tried.linear is None or tried.linear.at(_CHECKED) != tried.trace(_CHECKED):
                raise MeasurementError(
                    f"{spec.name} needs real values, and its memory does not grow linearly with "
                    "the batch; try batches with --batch, or on a GPU with --device cuda."
                )
            return tried.linear.at(batch)
        module, trace = simulate_model(spec, replace(setting, batch=batch), mode, recipe)
        there = as_built(module, setting)
        return trace

    tried = _Search(trace_of or simulated, max(whole - context, 0), expandable)
    batch = tried.largest()
    fits = tried.simulated(batch) if batch else None
    following = tried.unlimited(batch + 1) if batch < MAX_BATCH else None
    return LargestBatch(
        model=spec.name,
        setting=replace(setting, batch=max(batch, 1)),
        mode=mode,
        recipe=recipe.of(mode),
        capacity=whole,
        gpu=gpu,
        context=context,
        expandable=expandable,
        batch=batch,
        reserved=fits.reserved_peak if fits else 0,
        reserved_next=following.reserved_peak if following else None,
        out_of_memory=tried.simulated(batch + 1).out_of_memory if following else None,
        simulations=tried.trace.cache_info().currsize,
        scaled=tried.linear is not None,
        assumption=(
            f"{units.size(context)} are taken for the CUDA context and libraries; workspaces of "
            "cuBLAS and cuDNN and other processes are not in the figure."
        ),
        reason=_reason(batch, whole, context, following),
    )


def _reason(batch: int, capacity: int, context: int, following: Replay | None) -> str | None:
    if following is None:
        return f"batches above {MAX_BATCH} are not tried"
    if batch:
        return None
    if capacity <= context:
        return f"{units.size(capacity)} are no more than the context's {units.size(context)}"
    return (
        f"one image needs {units.size(following.reserved_peak)}, and "
        f"{units.size(capacity - context)} are there for it"
    )


@dataclass(frozen=True)
class Linear:
    """A trace whose every storage is a constant and a part for each image."""

    base: Trace
    slopes: tuple[int, ...]

    def at(self, batch: int) -> Trace:
        """The trace of another batch."""
        more = batch - _BASE
        blocks = zip(self.base.blocks, self.slopes, strict=True)
        scaled = tuple(replace(block, size=block.size + more * slope) for block, slope in blocks)
        return replace(self.base, blocks=scaled)


def linear(trace_of: TraceOf) -> Linear | None:
    """The line through two batches; None where they differ in more than sizes."""
    base, following = trace_of(_BASE), trace_of(_NEXT)
    if len(base.blocks) != len(following.blocks):
        return None
    blocks = zip(base.blocks, following.blocks, strict=True)
    found = Linear(base, tuple(b.size - a.size for a, b in blocks))
    return found if found.at(_NEXT) == following else None


class _Search:
    """Which batches fit: by scaling where that is allowed, by simulation at the end."""

    def __init__(self, trace_of: TraceOf, room: int, expandable: bool) -> None:
        self.trace = cache(trace_of)
        self._room = room  # bytes for tensors
        self._expandable = expandable
        self.linear: Linear | None = None

    def largest(self) -> int:
        """The batch that fits while the next one does not; 0 where none fits."""
        self.linear = linear(self.trace)
        if self.linear is not None:
            reserved = replay(self.linear.at(_MANY), self._expandable).reserved_peak
            start = self._room * _MANY // max(reserved, 1)
            batch = search(self._scaled, start).largest or 0
            if self._is_largest(batch):
                return batch
            self.linear = None  # the line ends somewhere: simulate every candidate
        return search(self._scaled, 1).largest or 0

    def simulated(self, batch: int) -> Replay:
        """The run of a batch on this device."""
        return replay(self.trace(batch), self._expandable, self._room)

    def unlimited(self, batch: int) -> Replay:
        """The run of a batch where memory has no end."""
        return replay(self.trace(batch), self._expandable)

    def _fits(self, batch: int) -> bool:
        return self.simulated(batch).out_of_memory is None

    def _scaled(self, batch: int) -> Outcome:
        if self.linear is None or batch < _BASE:
            found = self.simulated(batch)
        else:
            found = replay(self.linear.at(batch), self._expandable, self._room)
        return "measured" if found.out_of_memory is None else "out of memory"

    def _is_largest(self, batch: int) -> bool:
        fits = batch == 0 or self._fits(batch)
        return fits and (batch == MAX_BATCH or not self._fits(batch + 1))


# The largest batch that runs, by running it: only out of memory makes it smaller.


@dataclass(frozen=True)
class BatchSearch:
    """What a search found."""

    largest: int | None  # that was measured; None where none was
    refused: int | None  # the smallest that ran out of memory; None where none did
    tried: tuple[tuple[int, Outcome], ...]  # in order
    stopped: Outcome | None  # that ended the search early: neither measured nor out of memory


def search(run: Callable[[int], Outcome], start: int, most: int = MAX_BATCH) -> BatchSearch:
    """The largest batch for which `run` is "measured", beginning at `start`.

    Steps away from the start double until one batch runs and a larger one is out of memory; then
    the gap is halved. No batch is run twice. A larger batch is taken to need more memory.
    """
    batch = min(max(1, start), most)
    step = max(1, batch // 64)  # the simulation is a few percent off at most
    largest, refused, stopped = 0, most + 1, None
    tried: list[tuple[int, Outcome]] = []
    while refused - largest > 1 and stopped is None:
        outcome = run(batch)
        tried.append((batch, outcome))
        if outcome == "measured":
            largest = batch
        elif outcome == "out of memory":
            refused = batch
        else:
            stopped = outcome
        if refused > most:  # nothing ran out of memory yet
            batch, step = min(largest + step, most), step * 2
        elif largest == 0:  # nothing ran yet
            batch, step = max(refused - step, 1), step * 2
        else:
            batch = (largest + refused) // 2
    least = refused if refused <= most else None
    return BatchSearch(largest or None, least, tuple(tried), stopped)


def confirm_largest(
    spec: Spec,
    setting: Setting,
    mode: MemoryMode,
    start: int,
    limit_s: float = TIMEOUT,
    recipe: Recipe = PLAIN,
    measure: Callable[..., GpuRow] = measure_gpu,
    limit: int | None = None,
) -> Confirmed:
    """Find the largest batch on a GPU, each in a fresh process.

    Args:
        setting: its batch is not used.
        start: where to begin: the simulation's answer.
        limit_s: seconds that one run may take.
        measure: `measure_gpu`, unless a test brings its own.
        limit: bytes that tensors may take of the GPU; None for all of it.

    Raises:
        UsageError: the device is not a GPU, or is not here.
    """
    if not setting.device.startswith("cuda"):
        raise UsageError(f"the largest batch is confirmed on cuda, not on {setting.device}.")
    recipe = recipe.of(mode)
    rows: dict[int, GpuRow] = {}

    def run(batch: int) -> Outcome:
        here = replace(setting, batch=batch)
        rows[batch] = measure(spec, here, mode, recipe, limit_s, limit)
        return rows[batch].outcome

    found = search(run, start)
    last = found.tried[-1][0]
    return Confirmed(
        model=spec.name,
        setting=setting,
        mode=mode,
        recipe=recipe,
        start=start,
        largest=found.largest,
        refused=found.refused,
        tried=tuple(Tried(b, outcome, rows[b].reason) for b, outcome in found.tried),
        stopped=rows[last] if found.stopped is not None else None,
        row=rows[found.largest] if found.largest is not None else None,
        limit=limit,
    )
