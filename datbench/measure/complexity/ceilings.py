"""What the machine does at best: one matrix product and one copy, in the same run."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from ...measurements import Ceilings
from ..timing import time_calls

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
    """Measure them with the threads that torch is set to.

    Args:
        budget: seconds, shared evenly.
        sides: of the square matrices; the fastest counts.
        copied: bytes of the source of the copy.
    """
    sides = sides or (SIDES_CUDA if device.type == "cuda" else SIDES)
    each = budget / (2 * len(sides) + 1)
    with torch.inference_mode():
        rates = {side: _product(side, device, dtype, each) for side in sides}
        moved = _copy(copied, device, dtype, each)
    best = max(rates, key=lambda side: rates[side])
    name = str(dtype).removeprefix("torch.")
    return Ceilings(
        str(device), name, torch.get_num_threads(), rates[best], best, moved, 2 * copied
    )


def _product(side: int, device: torch.device, dtype: torch.dtype, budget: float) -> float:
    """The faster of two ways to the same product: a CPU may have a kernel for one of them only."""
    left, right = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    out = torch.empty_like(left)
    ways = (lambda: torch.mm(left, right, out=out), lambda: F.linear(left, right))
    median = min(time_calls(way, device, budget=budget).median for way in ways)
    return side**3 / median


def _copy(copied: int, device: torch.device, dtype: torch.dtype, budget: float) -> float:
    source = torch.ones(copied // dtype.itemsize, dtype=dtype, device=device)
    target = torch.zeros_like(source)  # its pages are there before the first copy
    timing = time_calls(lambda: target.copy_(source), device, budget=budget)
    return 2 * source.numel() * dtype.itemsize / timing.median
