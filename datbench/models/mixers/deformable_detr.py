"""Deformable-DETR attention as a backbone's mixer: DAT Appendix A, Eq. 11 and Table 8.

Each head of each query samples K points of its own, at offsets predicted from the query, and
weighs them with weights predicted from the query. It multiplies no queries with keys.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...setting import Kind
from ..config import DeformableDetr
from ..declared import Declaration, declared
from ..layers import Pointwise
from .attention import Mixer
from .chunks import Chunk, chunks, in_chunks
from .grids import reference_points, sample
from .tiles import vary


class DeformableDetrAttention(Mixer):
    """(B, H, W, C) -> (B, H, W, C)."""

    def __init__(self, dim: int, heads: int, config: DeformableDetr, map_side: int) -> None:
        super().__init__(dim, heads)
        self.points = config.points
        self.offsets = nn.Linear(dim, heads * config.points * 2)
        self.weights = nn.Linear(dim, heads * config.points)
        self.value = Pointwise(dim, dim)
        self.out = Pointwise(dim, dim)
        # The published module keeps its grid as a frozen parameter, which Table 8 counts.
        like = torch.zeros(())
        grid = reference_points(map_side, map_side, 2023, like).flip(-1)  # (H, W, 2) as (y, x)
        self.reference = nn.Parameter(grid.contiguous(), requires_grad=False)
        self._initialise()

    def _initialise(self) -> None:
        """Zero weights; offset biases on the usual ring of directions, point i at i + 1 times."""
        nn.init.zeros_(self.offsets.weight)
        nn.init.zeros_(self.weights.weight)
        nn.init.zeros_(self.weights.bias)
        angle = torch.arange(self.heads, dtype=torch.float32) * (2.0 * math.pi / self.heads)
        ring = torch.stack((angle.cos(), angle.sin()), dim=-1)  # (M, 2)
        ring = ring / ring.abs().amax(dim=-1, keepdim=True)
        steps = torch.arange(1, self.points + 1, dtype=torch.float32)
        bias = ring[:, None, :] * steps[None, :, None]  # (M, K, 2)
        with torch.no_grad():
            self.offsets.bias.copy_(bias.reshape(-1))

    def forward(self, x: Tensor) -> Tensor:
        b, h, w, c = x.shape
        m, d, points = self.heads, self.head_dim, self.points
        weights = self.weights(x).view(b, h * w, m, points).softmax(dim=-1)  # (B, HW, M, K)
        grid = self._grid(h, w).view(1, h * w, 1, 1, 2)
        where = grid + self.offsets(x).view(b, h * w, m, points, 2)  # (B, HW, M, K, 2) as (y, x)
        value = self.value(x)  # (B, H, W, C)
        if self.attention == "chunked" and not vary(h, w):
            return self.out(self._gather(value, where, weights).view(b, h, w, c))
        weights = weights.transpose(1, 2).reshape(b * m, 1, h * w, points)  # (B M, 1, HW, K)
        where = where.transpose(1, 2).reshape(b * m, h * w, points, 2).flip(-1)  # as (x, y)
        value = value.view(b, h, w, m, d).permute(0, 3, 4, 1, 2)  # (B, M, d, H, W)
        sampled = sample(value.flatten(0, 1), where)  # (B M, d, HW, K)
        y = (weights * sampled).sum(dim=-1)  # (B M, d, HW)
        y = y.view(b, c, h * w).transpose(1, 2).reshape(b, h, w, c)
        return self.out(y)

    def _gather(self, value: Tensor, where: Tensor, weights: Tensor) -> Tensor:
        """The same as sums of weighted pixels, counted as without: (B, HW, C).

        No sampled value exists: `embedding_bag` adds up the four pixels around each point.
        """
        b, h, w, c = value.shape
        heads, points, device = self.heads, self.points, value.device
        samples = b * h * w * points * c
        more = {Kind.SAMPLE: samples, Kind.ELEMENTWISE: samples, Kind.REDUCTION: samples}
        moved = sum(t.numel() * t.element_size() for t in (value, where, weights))
        written = value.numel() * value.element_size()

        def gathered(chunk: Chunk, where: Tensor, weights: Tensor) -> Tensor:
            place = ((where.to(dtype) + 1) * ((size - 1) / 2)).unsqueeze(-1)  # (B, n, M, K, 2, 1)
            pixel = place.detach().floor() + size.new_tensor([0, 1])  # (B, n, M, K, 2, 2)
            near = 1 - (place - pixel).abs()
            near = near * ((pixel >= 0) & (pixel < size[:, None]))  # nothing outside of the map
            y, x = near.unbind(-2)  # (B, n, M, K, 2) each
            share = y.unsqueeze(-1) * x.unsqueeze(-2) * weights.to(dtype)[..., None, None]
            pixel = pixel.clamp(min=0).minimum(size[:, None] - 1).long() * stride
            y, x = pixel.unbind(-2)
            index = (y.unsqueeze(-1) + x.unsqueeze(-2)).flatten(-2) + first  # (B, n, M, K, 4)
            share = share.to(table.dtype).reshape(-1, 4 * points)
            index = index.view(-1, 4 * points)  # (B n M, 4 K)
            y = F.embedding_bag(index, table, mode="sum", per_sample_weights=share)
            return y.view(b, -1, c)

        with declared(Declaration("datbench::deformable_detr", more, moved, written)):
            dtype = torch.promote_types(where.dtype, torch.float32)  # of positions
            half_on_cpu = device.type == "cpu" and value.itemsize == 2
            table = (value.float() if half_on_cpu else value).view(-1, self.head_dim)  # (B HW M, d)
            size = torch.tensor([h, w], dtype=dtype, device=device)
            stride = torch.tensor([[w * heads], [heads]], device=device)
            image = torch.arange(b, device=device).view(b, 1, 1, 1, 1) * (h * w * heads)
            first = image + torch.arange(heads, device=device).view(heads, 1, 1)
            parts = chunks(h, w, points * c)
            return in_chunks(gathered, parts, w, where, weights).to(value.dtype)

    def _grid(self, h: int, w: int) -> Tensor:
        """The frozen grid, or a new one of the same rule at another size: (H, W, 2) as (y, x)."""
        if not vary(h, w) and self.reference.shape[:2] == (h, w):
            return self.reference
        return reference_points(h, w, 2023, self.reference).flip(-1)
