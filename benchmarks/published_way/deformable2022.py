"""Deformable attention as the 2022 code writes it: 1x1 convolutions on NCHW maps."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .config2022 import Offsets, Position, StageConfig
from .layers import LayerNormProxy


def centre_grid(h: int, w: int, like: Tensor) -> Tensor:
    """(h, w, 2), (y, x): pixel centres, (i + 0.5) / n * 2 - 1 (2022: `_get_ref_points`)."""
    y = torch.linspace(0.5, h - 0.5, h, dtype=like.dtype, device=like.device) / h * 2 - 1
    x = torch.linspace(0.5, w - 0.5, w, dtype=like.dtype, device=like.device) / w * 2 - 1
    return torch.stack(torch.meshgrid(y, x, indexing="ij"), -1)


class DeformableAttention(nn.Module):
    """Attention over keys sampled at learned points (2022: `DAttentionBaseline`).

    Any input size: the relative bias is sampled at normalised displacements; the fixed one is
    resized bilinearly, as the detection code does.
    """

    def __init__(
        self, stage: StageConfig, map_size: int, position: Position, offsets: Offsets
    ) -> None:
        super().__init__()
        dim, heads, groups = stage.dim, stage.heads, stage.groups
        if offsets == "unused" and (stage.stride != 1 or position not in ("relative", "none")):
            raise ValueError("offsets='unused' needs stride 1 and a relative bias or none")
        self.heads = heads
        self.groups = groups
        self.position = position
        self.offsets = offsets
        self.offset_range = stage.offset_range
        self.scale = (dim // heads) ** -0.5
        cg = dim // groups
        self.conv_offset = nn.Sequential(
            nn.Conv2d(cg, cg, stage.kernel, stage.stride, stage.kernel // 2, groups=cg),
            LayerNormProxy(cg),
            nn.GELU(),
            nn.Conv2d(cg, 2, 1, bias=False),
        )
        self.proj_q = nn.Conv2d(dim, dim, 1)
        self.proj_k = nn.Conv2d(dim, dim, 1)
        self.proj_v = nn.Conv2d(dim, dim, 1)
        self.proj_out = nn.Conv2d(dim, dim, 1)
        # The 2022 code sizes the tables by the map whatever the stride: it passes the map's size
        # as the size of the keys.
        self.rpe_table: nn.Module | nn.Parameter | None
        if position == "dwconv":
            self.rpe_table = nn.Conv2d(dim, dim, 3, padding=1, groups=dim)
        elif position == "none":
            self.rpe_table = None
        else:
            side, pixels = 2 * map_size - 1, map_size * map_size
            shape = (heads, side, side) if position == "relative" else (heads, pixels, pixels)
            self.rpe_table = nn.Parameter(nn.init.trunc_normal_(torch.empty(shape), std=0.01))

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        g, heads, d = self.groups, self.heads, c // self.heads
        q = self.proj_q(x)
        points = None if self.offsets == "unused" else self.sampling_points(q)
        sampled = x
        if points is not None:
            sampled = F.grid_sample(
                x.reshape(b * g, c // g, h, w), points.flip(-1), align_corners=True
            )  # (B*g, C/g, Hk, Wk); flip: (y, x) -> (x, y)
        hk, wk = sampled.shape[2:]
        sampled = sampled.reshape(b, c, 1, hk * wk)  # (B, C, 1, N)

        heads_q = q.reshape(b * heads, d, h * w)  # (B*heads, d, HW)
        k = self.proj_k(sampled).reshape(b * heads, d, hk * wk)  # (B*heads, d, N)
        v = self.proj_v(sampled).reshape(b * heads, d, hk * wk)  # (B*heads, d, N)
        attn = torch.einsum("bcm,bcn->bmn", heads_q, k) * self.scale  # (B*heads, HW, N)
        bias = self.bias(points, b, h, w, hk, wk)
        if bias is not None:
            attn = attn + bias
        attn = F.softmax(attn, dim=2)
        out = torch.einsum("bmn,bcn->bcm", attn, v)  # (B*heads, d, HW)
        out = out.reshape(b, c, h, w)  # (B, C, H, W)
        if isinstance(self.rpe_table, nn.Conv2d):
            out = out + self.rpe_table(q)
        return self.proj_out(out)

    def sampling_points(self, q: Tensor) -> Tensor:
        """(B*g, Hk, Wk, 2) in (y, x): reference points plus offsets."""
        b, c, h, w = q.shape
        g = self.groups
        offset = self.conv_offset(q.reshape(b * g, c // g, h, w))  # (B*g, 2, Hk, Wk)
        hk, wk = offset.shape[2:]
        if self.offset_range > 0:
            cell = torch.tensor([1.0 / hk, 1.0 / wk], dtype=q.dtype, device=q.device)
            offset = offset.tanh() * cell.reshape(1, 2, 1, 1) * self.offset_range
        offset = offset.permute(0, 2, 3, 1)  # (B*g, Hk, Wk, 2)
        if self.offsets == "zeroed":
            offset = torch.zeros_like(offset)
        points = offset + centre_grid(hk, wk, q)
        return points if self.offset_range >= 0 else points.tanh()

    def bias(
        self, points: Tensor | None, b: int, h: int, w: int, hk: int, wk: int
    ) -> Tensor | None:
        """The position bias, (B*heads, HW, N); none where there is none or it is a convolution."""
        g, heads, table = self.groups, self.heads, self.rpe_table
        if not isinstance(table, nn.Parameter):
            return None
        if self.position == "fixed":
            if table.shape[1:] != (h * w, hk * wk):
                size = (h * w, hk * wk)
                resized = F.interpolate(table[None], size, mode="bilinear", align_corners=True)
            else:
                resized = table[None]
            return resized.expand(b, -1, -1, -1).reshape(b * heads, h * w, hk * wk)
        if points is None:
            return self.looked_up(table, h, w).repeat(b, 1, 1)  # (B*heads, HW, HW)
        queries = centre_grid(h, w, points).reshape(1, h * w, 1, 2)  # (1, HW, 1, 2)
        displacement = (queries - points.reshape(b * g, 1, hk * wk, 2)) * 0.5  # (B*g, HW, N, 2)
        rows, columns = table.shape[1:]
        tables = table[None].expand(b, -1, -1, -1)
        tables = tables.reshape(b * g, heads // g, rows, columns)  # (B*g, heads/g, rows, columns)
        bias = F.grid_sample(tables, displacement.flip(-1), align_corners=True)
        return bias.reshape(b * heads, h * w, hk * wk)  # from (B*g, heads/g, HW, N)

    def looked_up(self, table: Tensor, h: int, w: int) -> Tensor:
        """(heads, HW, HW): the bias at whole-pixel displacements, query minus key."""
        if table.shape[1:] != (2 * h - 1, 2 * w - 1):
            raise ValueError(f"offsets='unused' runs at its own size only, not on a {h}x{w} map")
        y, x = torch.arange(h, device=table.device), torch.arange(w, device=table.device)
        dy = y[:, None, None, None] - y[None, None, :, None] + h - 1  # (H, 1, H, 1)
        dx = x[None, :, None, None] - x[None, None, None, :] + w - 1  # (1, W, 1, W)
        return table[:, dy, dx].reshape(-1, h * w, h * w)  # from (heads, H, W, H, W)
