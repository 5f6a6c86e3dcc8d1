"""The largest batch that runs, by running it: only out of memory makes it smaller."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from ...errors import UsageError
from ...gpu_memory import Confirmed, GpuRow, Outcome, Tried
from ...ledger import MemoryMode, Recipe
from ...models.resolve import Spec
from ...types import MAX_BATCH, Setting
from .gpu import TIMEOUT, measure_gpu


@dataclass(frozen=True)
class Found:
    """What a search found.

    Args:
        largest: that was measured; None where none was.
        refused: the smallest that ran out of memory; None where none did.
        tried: in order.
        stopped: the outcome that ended the search early: neither measured nor out of memory.
    """

    largest: int | None
    refused: int | None
    tried: tuple[tuple[int, Outcome], ...]
    stopped: Outcome | None


def search(run: Callable[[int], Outcome], start: int, most: int = MAX_BATCH) -> Found:
    """The largest batch for which `run` is "measured", beginning at `start`.

    Steps away from the start double until one batch runs and a larger one is out of memory; then
    the gap is halved. No batch is run twice. A larger batch is taken to need more memory.
    """
    batch = min(max(1, start), most)
    step = max(1, batch // 64)  # the simulation is a few percent off at most
    largest, refused = 0, most + 1
    tried: list[tuple[int, Outcome]] = []
    while refused - largest > 1:
        outcome = run(batch)
        tried.append((batch, outcome))
        if outcome == "measured":
            largest = batch
        elif outcome == "out of memory":
            refused = batch
        else:
            return _found(largest, refused, most, tried, outcome)
        batch, step = _next(largest, refused, most, step)
    return _found(largest, refused, most, tried, None)


def _next(largest: int, refused: int, most: int, step: int) -> tuple[int, int]:
    """The next batch and the next step; halves once there is one of each."""
    if refused > most:  # nothing ran out of memory yet
        return min(largest + step, most), step * 2
    if largest == 0:  # nothing ran yet
        return max(refused - step, 1), step * 2
    return (largest + refused) // 2, step


def _found(
    largest: int, refused: int, most: int, tried: list[tuple[int, Outcome]], stopped: Outcome | None
) -> Found:
    return Found(largest or None, refused if refused <= most else None, tuple(tried), stopped)


def confirm_largest(
    spec: Spec,
    setting: Setting,
    mode: MemoryMode,
    start: int,
    limit_s: float = TIMEOUT,
    recipe: Recipe | None = None,
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
        UsageError: the device is no GPU, or is not here.
    """
    if not setting.device.startswith("cuda"):
        raise UsageError(f"the largest batch is confirmed on cuda, not on {setting.device}.")
    recipe = (recipe or Recipe()).of(mode)
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
