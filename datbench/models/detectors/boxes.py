"""Boxes that stand for proposals, and what a box head sees of a feature pyramid.

A dummy forward has no proposals of its own: nothing is decoded, sorted or suppressed. The boxes
are fixed for a size of the input and spread over places, sizes and shapes, so that every level of
the pyramid is used, a run can be repeated, and the work does not depend on values (on ``meta``
there are none).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...types import Kind
from ..declared import Declaration, declared

Box = tuple[float, float, float, float]
"""x and y of the first corner and of the last, in pixels of the input."""

FINEST = 56
"""Boxes below this side (the geometric mean) times two are of the finest level (FPN, Eq. 1)."""

_SMALLEST = 16.0

# Fractional parts of multiples of these are spread evenly over the unit cube in four dimensions
# (additive recurrence with the root of x^5 = x + 1).
_ROOT = 1.1673039782614187
_STEPS = tuple(_ROOT**-i for i in range(1, 5))


@lru_cache(maxsize=64)
def proposals(count: int, width: int, height: int) -> tuple[Box, ...]:
    """`count` boxes inside an input of this size, the same ones every time."""
    boxes = []
    for i in range(count):
        x, y, size, shape = ((0.5 + i * step) % 1 for step in _STEPS)
        side = _SMALLEST * (min(width, height) / _SMALLEST) ** size
        stretch = 2 ** (shape - 0.5)  # width over height from 1/2 to 2
        w, h = min(side * stretch, width), min(side / stretch, height)
        left, top = x * (width - w), y * (height - h)
        boxes.append((left, top, left + w, top + h))
    return tuple(boxes)


def level_of(box: Box, levels: int) -> int:
    """The level that a box is cut from: one coarser for each doubling of its side (FPN, Eq. 1)."""
    side = math.sqrt((box[2] - box[0]) * (box[3] - box[1]))
    return min(max(math.floor(math.log2(side / FINEST + 1e-6)), 0), levels - 1)


class Regions(nn.Module):
    """Every box of every image, cut from its level: (B n, C, side, side)."""

    def __init__(self, side: int) -> None:
        super().__init__()
        self.side = side

    def forward(self, levels: Sequence[Tensor], boxes: Sequence[Box], width: int) -> Tensor:
        """`levels` are (B, C, H/s, W/s), the finest first; `width` is the input's, in pixels."""
        return _regions(levels, boxes, self.side, width)


def _regions(levels: Sequence[Tensor], boxes: Sequence[Box], side: int, width: int) -> Tensor:
    at = [level_of(box, len(levels)) for box in boxes]
    order = sorted(range(len(boxes)), key=lambda i: at[i])
    parts = []
    for i, x in enumerate(levels):
        here = [boxes[j] for j in order if at[j] == i]
        if here:
            parts.append(roi_align(x, here, side, x.shape[-1] / width))  # (B, n_i, C, s, s)
    places = sorted(range(len(order)), key=order.__getitem__)  # of each box among the parts
    every = torch.cat(parts, dim=1)[:, places]  # (B, n, C, side, side), in the boxes' order
    return every.flatten(0, 1)


def roi_align(x: Tensor, boxes: Sequence[Box], side: int, scale: float, points: int = 2) -> Tensor:
    """RoIAlign (Mask R-CNN) of boxes inside the image: (B, C, H, W) -> (B, n, C, side, side).

    Every cell of a box is the mean of `points` x `points` bilinear samples; pixel centres are at
    halves ("aligned"). The operator counts as one: fvcore has no rule for it, nor has mmcv.

    Args:
        scale: pixels of `x` for a pixel of the input.
    """
    b, c, h, w = x.shape
    n, along = len(boxes), side * points
    samples = b * c * n * along * along
    element = x.element_size()
    one = Declaration(
        "datbench::roi_align",
        # Four weights, four products and sums less one, then the mean of a cell.
        {Kind.ELEMENTWISE: 8 * samples, Kind.REDUCTION: samples},
        bytes_read=x.numel() * element,
        bytes_written=b * n * c * side * side * element,
    )
    with declared(one):
        corners = torch.tensor(boxes, dtype=torch.float32, device=x.device) * scale  # (n, 4)
        steps = (torch.arange(along, dtype=torch.float32, device=x.device) + 0.5) / along
        first, last = corners[:, None, :2], corners[:, None, 2:]  # (n, 1, 2)
        places = first + (last - first) * steps[None, :, None]  # (n, along, 2): x, y
        # Pixel p of `x` has its centre at p + 0.5; -1 and 1 are the map's edges.
        places = places / torch.tensor([w, h], dtype=torch.float32, device=x.device) * 2 - 1
        xs = places[:, None, :, 0].expand(n, along, along)
        ys = places[:, :, None, 1].expand(n, along, along)
        grid = torch.stack((xs, ys), dim=-1).view(1, n * along, along, 2)
        grid = grid.to(x.dtype).expand(b, -1, -1, -1)
        found = F.grid_sample(x, grid, padding_mode="border", align_corners=False)
        found = F.avg_pool2d(found, points)  # (B, C, n side, side)
        return found.view(b, c, n, side, side).transpose(1, 2)
