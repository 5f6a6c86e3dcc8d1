"""Deformable multi-head attention (DMHA): DAT Section 3.2, Eqs. 6-9, in both published years.

Queries are projected from the map; an offset network moves a grid of reference points, one grid
an offset group; keys and values are projected from features sampled there; a table interpolated
at the displacement between query and moved point gives the position bias.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...errors import UsageError
from ...setting import Kind
from ..config import Deformable
from ..declared import declared
from ..layers import Pointwise, depthwise
from .attention import Mixer, attend, declaration
from .chunks import Chunk, RowsOfTable, chunks, in_chunks
from .grids import query_points, reference_points, sample
from .tiles import at_least, vary


class SharedDepthwise(nn.Conv2d):
    """One depthwise convolution for each of G groups: (B, H, W, C) -> (B, Hk, Wk, C)."""

    stands_for = "Conv2d"

    def forward(self, x: Tensor) -> Tensor:
        c = x.shape[-1]
        shares = c // self.in_channels
        # Repeating the weights is cheaper than copying the map apart into its groups.
        weight = self.weight.repeat(shares, 1, 1, 1)  # (C, 1, k, k)
        bias = None if self.bias is None else self.bias.repeat(shares)
        x = x.permute(0, 3, 1, 2)  # (B, C, H, W), channels last in memory
        y = F.conv2d(x, weight, bias, self.stride, self.padding, groups=c)
        return y.permute(0, 2, 3, 1)  # (B, Hk, Wk, C)


class OffsetNetwork(nn.Module):
    """Figure 2(b): depthwise conv (stride r), LayerNorm, GELU, 1x1 conv to (dy, dx), no bias.

    One network of C/G channels serves all G groups: (B, H, W, C) -> (B, Hk, Wk, G, 2).
    """

    def __init__(self, dim: int, config: Deformable) -> None:
        super().__init__()
        self.groups = config.groups
        width = dim // config.groups
        # 2022 always pads by k // 2; 2023 does not pad where the kernel equals the stride.
        exact = config.code == 2023 and config.kernel == config.stride
        padding = 0 if exact else config.kernel // 2
        self.dwconv = SharedDepthwise(
            width, width, config.kernel, config.stride, padding, groups=width
        )
        self.norm = nn.LayerNorm(width)
        self.act = nn.GELU()
        self.out = Pointwise(width, 2, bias=False)

    def forward(self, q: Tensor) -> Tensor:
        x = self.dwconv(q).unflatten(-1, (self.groups, -1))  # (B, Hk, Wk, G, C/G)
        return self.out(self.act(self.norm(x)))


class DeformableAttention(Mixer):
    """(B, H, W, C) -> (B, H, W, C).

    Args:
        map_side: side of the map at the training size; bias tables are made for it.
    """

    def __init__(self, dim: int, heads: int, config: Deformable, map_side: int) -> None:
        super().__init__(dim, heads)
        self.config = config
        self.map_side = map_side
        self.offset_network = OffsetNetwork(dim, config)
        self.query = Pointwise(dim, dim)
        self.key = Pointwise(dim, dim)
        self.value = Pointwise(dim, dim)
        self.out = Pointwise(dim, dim)
        self.position_conv = depthwise(dim) if config.bias == "dwconv" else None
        self.bias_table = self._make_table() if config.bias in ("relative", "fixed") else None

    def _make_table(self) -> nn.Parameter:
        if self.config.bias == "fixed":
            queries, keys = self.map_side**2, (self.map_side // self.config.stride) ** 2
            table = nn.Parameter(torch.zeros(self.heads, queries, keys))
        else:
            span = 2 * self.map_side - 1
            table = nn.Parameter(torch.zeros(self.heads, span, span))
        nn.init.trunc_normal_(table, std=0.01)
        return table

    def forward(self, x: Tensor) -> Tensor:
        b, h, w, c = x.shape
        query = self.query(x)  # (B, H, W, C)
        if self.config.offsets:
            points = self.sampling_points(query)  # (B, Hk, Wk, G, 2)
            sampled = self._sample(x, points)  # (B, Ns, C)
        else:
            points = None
            sampled = self._pool(x)
        q = self._split(query.view(b, h * w, c))  # (B, M, HW, d)
        k = self._split(self.key(sampled))  # (B, M, Ns, d)
        v = self._split(self.value(sampled))
        parts = [Chunk(0, h, 0, w)]
        if self.attention == "chunked" and self.bias_table is not None:
            parts = chunks(h, w, self.heads * k.shape[2])
        if len(parts) > 1:
            y = self._in_chunks(q, k, v, points, (h, w), parts)
        else:
            bias = self._bias(points, h, w)
            y = attend(q, k, v, self.scale, bias, self.attention).transpose(1, 2)
        y = y.reshape(b, h, w, c)  # of (B, HW, M, d)
        if self.position_conv is not None:
            y = y + self.position_conv(query)
        return self.out(y)

    def _split(self, x: Tensor) -> Tensor:
        """(B, N, C) -> (B, M, N, d)."""
        return x.view(x.shape[0], -1, self.heads, self.head_dim).transpose(1, 2)

    def sampling_points(self, query: Tensor) -> Tensor:
        """Moved reference points (B, Hk, Wk, G, 2), normalised, in the order (x, y).

        Args:
            query: (B, H, W, C) projected queries.
        """
        offsets: Tensor = self.offset_network(query)  # (B, Hk, Wk, G, 2) as (dy, dx)
        _, hk, wk, _, _ = offsets.shape
        config = self.config
        offsets = offsets.flip(-1)  # (dx, dy)
        if config.offset_range is not None:
            less = 0 if config.code == 2022 else 1
            x, y = 1.0 / at_least(1, wk - less), 1.0 / at_least(1, hk - less)
            if vary(hk, wk):  # a tensor of them would hold them as they are now
                cell = offsets.new_tensor([1.0, 0.0]) * x + offsets.new_tensor([0.0, 1.0]) * y
            else:
                cell = offsets.new_tensor([x, y])
            offsets = offsets.tanh() * (cell * config.offset_range)
        grid = reference_points(hk, wk, config.code, offsets)  # (Hk, Wk, 2)
        points = offsets + grid[:, :, None]
        if config.offset_range is not None:
            return points
        return points.tanh() if config.code == 2022 else points.clamp(-1.0, 1.0)

    def _sample(self, x: Tensor, points: Tensor) -> Tensor:
        """Bilinear features at the points, each group its own channels: (B, Ns, C)."""
        b, h, w, c = x.shape
        g = self.config.groups
        maps = x.view(b, h, w, g, c // g).permute(0, 3, 4, 1, 2)  # (B, G, C/G, H, W)
        grid = points.permute(0, 3, 1, 2, 4)  # (B, G, Hk, Wk, 2)
        sampled = sample(maps.flatten(0, 1), grid.flatten(0, 1))  # (B G, C/G, Hk, Wk)
        sampled = sampled.view(b, c, -1)  # (B, C, Ns): channels of group 0 first
        return sampled.transpose(1, 2).contiguous()

    def _pool(self, x: Tensor) -> Tensor:
        """Keys without offsets: the map, average-pooled where r > 1 (2023 code). (B, Ns, C)."""
        r = self.config.stride
        if r > 1:
            x = F.avg_pool2d(x.permute(0, 3, 1, 2), r, r).permute(0, 2, 3, 1)  # (B, Hk, Wk, C)
        return x.flatten(1, 2)

    def _in_chunks(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        points: Tensor | None,
        size: tuple[int, int],
        parts: list[Chunk],
    ) -> Tensor:
        """The same in chunks of queries, counted as without: (B, HW, M, d)."""
        table, (h, w), keys = self.bias_table, size, k.shape[2]
        assert table is not None
        bias: Callable[[Chunk], Tensor]
        more: dict[Kind, int] = {}
        if self.config.bias == "fixed":
            bias = partial(self._fixed_rows, size=(h, w), keys=keys)
            if (h, w) != (self.map_side, self.map_side):
                more = {Kind.UPSAMPLE_BILINEAR: self.heads * h * w * keys}
        elif points is None:
            bias = self._looked_up_rows(h, w)
        else:
            b, _, _, g, _ = points.shape
            pairs = b * h * w * keys
            more = {Kind.SAMPLE: pairs * self.heads, Kind.ELEMENTWISE: pairs * g * 2}
            step = 1 / max(1, w - (0 if self.config.code == 2022 else 1))
            queries, places = self._halves(points, h, w)

        def attention(chunk: Chunk, q: Tensor) -> Tensor:
            mask = bias(chunk).to(q.dtype)
            found = attend(q.transpose(1, 2), k, v, self.scale, mask, self.attention)
            return found.transpose(1, 2)  # (B, n, M, d)

        with declared(declaration("deformable_attention", q, keys, more, k, v, table, points)):
            if Kind.SAMPLE in more:
                at = queries.view(2, h, w).permute(1, 2, 0)
                bias = RowsOfTable(table, at, step, places.view(b, g, 2, keys))
            return in_chunks(attention, parts, w, q.transpose(1, 2))

    def _bias(self, points: Tensor | None, h: int, w: int) -> Tensor | None:
        """The position bias, broadcastable to (B, M, HW, Ns), or None."""
        if self.bias_table is None:
            return None
        if self.config.bias == "fixed":
            return self._fixed_bias(h, w, points)
        if points is None:
            return self._looked_up_rows(h, w)(Chunk(0, h, 0, w))
        return self._relative_bias(points, h, w)

    def _fixed_bias(self, h: int, w: int, points: Tensor | None) -> Tensor:
        """One entry for each pair of query and key. (M, HW, Ns)."""
        assert self.bias_table is not None
        if vary(h, w) or (h, w) != (self.map_side, self.map_side):
            # The detection code resizes the table as one image of queries by keys.
            keys = h * w if points is None else points.shape[1] * points.shape[2]
            size = (h * w, keys)
            table = self.bias_table[None]
            return F.interpolate(table, size, mode="bilinear", align_corners=True)[0]
        return self.bias_table

    def _fixed_rows(self, chunk: Chunk, size: tuple[int, int], keys: int) -> Tensor:
        """The same for the queries of a chunk, (M, n, Ns)."""
        assert self.bias_table is not None
        table, (h, w) = self.bias_table, size
        at = chunk.of(w)
        if size == (self.map_side, self.map_side):
            return table[:, at]
        last = table.shape[1] - 1
        place = torch.arange(at.start, at.stop, dtype=torch.float32, device=table.device)
        place = place * (last / (h * w - 1))
        row = place.long().clamp(max=last - 1)
        weight = (place - row)[:, None].to(table.dtype)
        rows = torch.lerp(table.index_select(1, row), table.index_select(1, row + 1), weight)
        return F.interpolate(rows, keys, mode="linear", align_corners=True)

    def _looked_up_rows(self, h: int, w: int) -> Callable[[Chunk], Tensor]:
        """Integer displacements index the table, as Swin's do. (M, n, Ns) of a chunk."""
        assert self.bias_table is not None
        if self.config.stride != 1:
            raise UsageError("without offsets, a relative bias is defined for stride 1 only.")
        table: Tensor = self.bias_table
        if vary(h, w) or (h, w) != (self.map_side, self.map_side):
            size = (2 * h - 1, 2 * w - 1)
            table = F.interpolate(table[None], size, mode="bilinear", align_corners=True)[0]
        along_y = torch.arange(h, device=table.device)
        along_x = torch.arange(w, device=table.device)
        dy = along_y[:, None] - along_y[None, :] + h - 1  # (H, Hk)
        dx = along_x[:, None] - along_x[None, :] + w - 1  # (W, Wk)

        def rows(chunk: Chunk) -> Tensor:
            y, x = dy[chunk.top : chunk.bottom], dx[chunk.left : chunk.right]
            bias = table[:, y[:, None, :, None], x[None, :, None, :]]  # (M, rows, cols, Hk, Wk)
            return bias.reshape(self.heads, -1, h * w)

        return rows

    def _halves(self, points: Tensor, h: int, w: int) -> tuple[Tensor, Tensor]:
        """Halved positions (x, y), queries (1, 2, HW, 1) and points (B G, 2, 1, Ns).

        Their differences are in [-1, 1] inside the map.
        """
        b, hk, wk, g, _ = points.shape
        queries = query_points(h, w, self.config.code, points).view(1, h * w, 1, 2)
        queries = queries.permute(0, 3, 1, 2)  # (1, 2, HW, 1)
        keys = points.permute(0, 3, 4, 1, 2).reshape(b * g, 2, 1, hk * wk)
        return queries * 0.5, keys * 0.5

    def _relative_bias(self, points: Tensor, h: int, w: int) -> Tensor:
        """The table at the displacement from every point to every query. (B, M, HW, Ns)."""
        assert self.bias_table is not None
        b, hk, wk, g, _ = points.shape
        span_y, span_x = self.bias_table.shape[-2:]
        queries, keys = self._halves(points, h, w)
        # In planes of x and y, so that the longest loop is over keys; halved while small.
        displacement = (queries - keys).permute(0, 2, 3, 1)  # (B G, HW, Ns, 2)
        table = self.bias_table.view(1, g, -1, span_y, span_x)  # (1, G, M/G, 2H-1, 2W-1)
        table = table.expand(b, -1, -1, -1, -1).flatten(0, 1)  # (B G, M/G, 2H-1, 2W-1)
        bias = sample(table, displacement)
        return bias.view(b, self.heads, h * w, hk * wk)
