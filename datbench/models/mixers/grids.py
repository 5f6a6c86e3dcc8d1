"""Reference points and query positions of deformable attention, in both published years.

Coordinates are normalised to [-1, 1] as `grid_sample(align_corners=True)` takes them, and are
stored in its order: (x, y).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..config import CodeYear
from .tiles import at_least, vary


def sample(
    maps: Tensor, points: Tensor, align_corners: bool = True, padding: str = "zeros"
) -> Tensor:
    """Maps (B, C, H, W) at points (B, h, w, 2), bilinear: (B, C, h, w).

    In half precision on a CPU it is done in float32: torch's kernel computes addresses in the maps'
    type there, which is too coarse for large maps and reads beside them (torch 2.14).
    """
    dtype = maps.dtype
    half = maps.device.type == "cpu" and (dtype == torch.bfloat16 or dtype == torch.float16)
    if half:
        maps, points = maps.float(), points.float()
    found = F.grid_sample(maps, points, "bilinear", padding, align_corners)
    return found.to(dtype) if half else found


def _axis(length: int, shift: float, span: float, like: Tensor) -> Tensor:
    """(length,): (i + shift) / span * 2 - 1; one centred point where the span is empty."""
    some = at_least(1, span) if vary(length) else span
    if some == 0:
        return like.new_zeros(length)
    along = torch.arange(length, dtype=like.dtype, device=like.device)
    axis = (along + shift) / some * 2 - 1
    return axis * (1 + span - some) if vary(length) else axis  # by 0 where the span is empty


def _plane(height: int, width: int, shift: float, less: int, like: Tensor) -> Tensor:
    y = _axis(height, shift, height - less, like)
    x = _axis(width, shift, width - less, like)
    return torch.stack((x[None, :].expand(height, width), y[:, None].expand(height, width)), dim=-1)


def reference_points(height: int, width: int, code: CodeYear, like: Tensor) -> Tensor:
    """Sampling points before any offset, (height, width, 2).

    2022 divides by the number of points and is symmetric. 2023 divides by that number less one,
    so that the last point lies beyond 1, and is NaN for a single point: here that point is 0.
    """
    return _plane(height, width, 0.5, 0 if code == 2022 else 1, like)


def query_points(height: int, width: int, code: CodeYear, like: Tensor) -> Tensor:
    """Positions of the queries for the relative bias, (height, width, 2).

    2022 takes its reference points at the query size; 2023 runs from corner to corner.
    """
    if code == 2022:
        return reference_points(height, width, 2022, like)
    return _plane(height, width, 0.0, 1, like)
