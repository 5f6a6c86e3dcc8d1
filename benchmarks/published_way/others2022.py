"""The other mixers of the ablations: spatial reduction (Table 6) and Deformable-DETR (Table 8)."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .layers import LayerNormProxy


class PyramidAttention(nn.Module):
    """Attention to a spatially reduced map (row P of Table 6; 2023: `PyramidAttention`)."""

    def __init__(self, dim: int, heads: int, reduction: int) -> None:
        super().__init__()
        self.heads = heads
        self.reduction = reduction
        self.scale = (dim // heads) ** -0.5
        self.q = nn.Conv2d(dim, dim, 1)
        self.kv = nn.Conv2d(dim, 2 * dim, 1)
        self.proj = nn.Conv2d(dim, dim, 1)
        if reduction > 1:
            self.proj_ds = nn.Sequential(
                nn.Conv2d(dim, dim, reduction, reduction), LayerNormProxy(dim)
            )

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        heads, d = self.heads, c // self.heads
        q = self.q(x).reshape(b * heads, d, h * w) * self.scale  # (B*heads, d, HW)
        k, v = self.kv(self.proj_ds(x) if self.reduction > 1 else x).chunk(2, dim=1)
        n = k.shape[2] * k.shape[3]
        k, v = k.reshape(b * heads, d, n), v.reshape(b * heads, d, n)  # (B*heads, d, N)
        attn = F.softmax(torch.einsum("bcm,bcn->bmn", q, k), dim=2)  # (B*heads, HW, N)
        out = torch.einsum("bmn,bcn->bcm", attn, v)  # (B*heads, d, HW)
        return self.proj(out.reshape(b, c, h, w))  # (B, C, H, W)


def corner_grid(h: int, w: int) -> Tensor:
    """(h, w, 2), (y, x): (i + 0.5) / (n - 1) * 2 - 1, the grid that `DAttentionDCN` freezes."""
    y = (torch.arange(h) + 0.5) / (h - 1) * 2 - 1
    x = (torch.arange(w) + 0.5) / (w - 1) * 2 - 1
    return torch.stack(torch.meshgrid(y, x, indexing="ij"), -1)


class DeformableDetrAttention(nn.Module):
    """K points of its own for each query and head (Table 8; DAT-Detection: `DAttentionDCN`)."""

    def __init__(self, dim: int, heads: int, points: int, map_size: int) -> None:
        super().__init__()
        self.heads = heads
        self.points = points
        self.reference = nn.Parameter(corner_grid(map_size, map_size), requires_grad=False)
        self.proj_off = nn.Linear(dim, heads * points * 2)
        self.proj_att = nn.Linear(dim, heads * points)
        self.proj_v = nn.Conv2d(dim, dim, 1)
        self.proj_out = nn.Conv2d(dim, dim, 1)
        self.reset_offsets()

    @torch.no_grad()
    def reset_offsets(self) -> None:
        """Point i of head m starts at i + 1 steps in the m-th direction; equal weights."""
        theta = torch.arange(self.heads) * (2 * math.pi / self.heads)
        ring = torch.stack((theta.cos(), theta.sin()), -1)  # (heads, 2)
        ring = ring / ring.abs().amax(-1, keepdim=True)
        steps = torch.arange(1, self.points + 1)
        self.proj_off.bias.copy_((ring[:, None] * steps[None, :, None]).reshape(-1))
        nn.init.zeros_(self.proj_off.weight)
        nn.init.zeros_(self.proj_att.weight)
        nn.init.zeros_(self.proj_att.bias)

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        heads, n, d = self.heads, self.points, c // self.heads
        tokens = x.flatten(2).transpose(1, 2)  # (B, HW, C)
        weight = self.proj_att(tokens).reshape(b, h * w, heads, n)  # (B, HW, heads, K)
        weight = weight.softmax(dim=3)
        offset = self.proj_off(tokens).reshape(b, h * w, heads, n, 2)  # (B, HW, heads, K, 2)
        reference: Tensor = self.reference
        if reference.shape[:2] != (h, w):
            reference = corner_grid(h, w).to(self.reference)
        points = reference.reshape(1, h * w, 1, 1, 2) + offset  # (B, HW, heads, K, 2)
        points = points.permute(0, 2, 1, 3, 4)
        points = points.reshape(b * heads, h * w, n, 2)  # (B*heads, HW, K, 2)

        value = self.proj_v(x).reshape(b * heads, d, h, w)  # (B*heads, d, H, W)
        sampled = F.grid_sample(value, points.flip(-1), align_corners=True)  # (B*heads, d, HW, K)
        weight = weight.permute(0, 2, 1, 3)
        weight = weight.reshape(b * heads, 1, h * w, n)  # (B*heads, 1, HW, K)
        out = (weight * sampled).sum(dim=3)  # (B*heads, d, HW)
        return self.proj_out(out.reshape(b, c, h, w))  # (B, C, H, W)
