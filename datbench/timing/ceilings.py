"""What the machine does at best: one matrix product and one copy, in the same run.

The fastest sample counts: other work on the machine and changing clocks slow samples down, and the
machine peak is the rate without them. The scatter of the samples is recorded too.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from .records import Ceilings, Scatter, Timing
from .sample import time_calls

SIDES = (512, 1024, 2048)

SIDES_CUDA = (2048, 4096, 8192)

COPIED = 256 << 20
"""Bytes of the tensor that is copied: larger than a processor's caches."""


def ceilings(
    device: torch.device,
    dtype: torch.dtype,
    budget: float = 5.0,
    sides: tuple[int, ...] | None = None,
    copied: int = COPIED,
) -> Ceilings:
    """Measure the machine peaks with the threads that torch is set to.

    Args:
        budget: seconds; a third is the copy's, whose samples are long.
        sides: of the square matrices; the fastest counts.
        copied: bytes of the source of the copy.
    """
    sides = sides or (SIDES_CUDA if device.type == "cuda" else SIDES)
    each = 2 * budget / 3 / (2 * len(sides))
    with torch.inference_mode():
        found = [
            (side, timing) for side in sides for timing in _products(side, device, dtype, each)
        ]
        moved = _copy(copied, device, dtype, budget / 3)
    side, product = max(found, key=lambda one: _rate(one[0] ** 3, one[1]))
    of_product, of_copy = (side**3, product), (2 * copied, moved)
    return Ceilings(
        str(device),
        str(dtype).removeprefix("torch."),
        torch.get_num_threads(),
        _rate(*of_product),
        side,
        _rate(*of_copy),
        2 * copied,
        _scatter(*of_product),
        _scatter(*of_copy),
    )


def _rate(work: int, timing: Timing) -> float:
    return work / min(timing.samples)


def _scatter(work: int, timing: Timing) -> Scatter:
    median, low, high = (work / seconds for seconds in (timing.median, timing.high, timing.low))
    return Scatter(median, low, high, timing.coverage, len(timing.samples))


def _products(
    side: int, device: torch.device, dtype: torch.dtype, budget: float
) -> tuple[Timing, Timing]:
    """Two ways to the same product: a CPU may have a fast kernel for one of them only."""
    left, right = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    out = torch.empty_like(left)
    return (
        time_calls(lambda: torch.mm(left, right, out=out), device, budget=budget),
        time_calls(lambda: F.linear(left, right), device, budget=budget),
    )


def _copy(copied: int, device: torch.device, dtype: torch.dtype, budget: float) -> Timing:
    source = torch.ones(copied // dtype.itemsize, dtype=dtype, device=device)
    target = torch.zeros_like(source)  # its pages are there before the first copy
    return time_calls(lambda: target.copy_(source), device, budget=budget)
