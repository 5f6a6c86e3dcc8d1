"""Deformable patch embedding (DePatch, of DPT): each patch moves and scales what it covers."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..layers import MapConv

INITIAL_EXTENT = 0.25
"""Half the side of the initial box, in patches: points on pixel centres of a 2x2 patch."""


class DeformablePatch(nn.Module):
    """(B, H, W, C) -> (B, H/2, W/2, dim); an odd last row or column makes no patch.

    A convolution over the plain patch, LN, GELU and a linear layer predict a box: its centre
    moves by up to one patch, its half side lies between 0 and one patch. The box is cut to the
    image, `points` x `points` points of it are sampled bilinearly, and a linear layer and LN
    follow.
    """

    def __init__(self, dim_in: int, dim: int, points: int) -> None:
        super().__init__()
        self.points = points
        self.patch = MapConv(dim_in, dim, 2, stride=2)
        self.patch_norm = nn.LayerNorm(dim)
        self.act = nn.GELU()
        self.box = nn.Linear(dim, 4, bias=False)
        nn.init.zeros_(self.box.weight)
        # tanh of it is the initial extent.
        self.extent_bias = nn.Parameter(torch.full((2,), math.atanh(INITIAL_EXTENT)))
        self.project = nn.Linear(points * points * dim_in, dim)
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        codes: Tensor = self.box(self.act(self.patch_norm(self.patch(x))))  # (B, h, w, 4)
        sampled = self._sample(x, self._points(codes))
        y: Tensor = self.norm(self.project(sampled))
        return y

    def _points(self, codes: Tensor) -> Tensor:
        """Where each patch samples, x the slower: (B, h, w, k, k, 2) as (x, y) in [-1, 1]."""
        _, h, w, _ = codes.shape
        cell = codes.new_tensor([1.0 / w, 1.0 / h])  # (x, y) with the image's sides as 1
        along_x = (torch.arange(w, device=codes.device, dtype=codes.dtype) + 0.5) / w
        along_y = (torch.arange(h, device=codes.device, dtype=codes.dtype) + 0.5) / h
        centre = torch.stack(torch.meshgrid(along_x, along_y, indexing="xy"), -1)  # (h, w, 2)
        centre = centre + codes[..., :2].tanh() * cell  # (B, h, w, 2)
        extent = (codes[..., 2:] + self.extent_bias).tanh().relu() * cell  # (B, h, w, 2)
        low, high = (centre - extent).clamp(0.0, 1.0), (centre + extent).clamp(0.0, 1.0)
        steps = torch.linspace(0.0, 1.0, self.points, device=codes.device, dtype=codes.dtype)
        spread = low[..., None] + (high - low)[..., None] * steps  # (B, h, w, 2, k)
        k = self.points
        xs = spread[..., 0, :, None].expand(-1, -1, -1, k, k)
        ys = spread[..., 1, None, :].expand(-1, -1, -1, k, k)
        return torch.stack((xs, ys), -1) * 2.0 - 1.0

    def _sample(self, x: Tensor, points: Tensor) -> Tensor:
        """Bilinear features at the points, zero outside: (B, h, w, k k C)."""
        b, h, w, k, _, _ = points.shape
        grid = points.reshape(b, h * w, k * k, 2)
        maps = x.permute(0, 3, 1, 2)  # (B, C, H, W)
        sampled = F.grid_sample(maps, grid, mode="bilinear", align_corners=False)
        return sampled.permute(0, 2, 3, 1).reshape(b, h, w, -1)  # from (B, C, h w, k k)
