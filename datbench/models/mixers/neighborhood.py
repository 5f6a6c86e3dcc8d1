"""Neighbourhood attention (NAT) with relative position bias, in plain PyTorch.

Every query attends to the size x size keys around it; near a border the window is moved inside
the map, so that every query has the same number of keys. The published models take it from
natten. Here queries are cut into tiles, each tile attends to the union of its windows, and a
bias of minus infinity removes the keys outside a query's own window: fused attention applies,
and keys and values are copied about three times instead of size^2 times.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..config import Neighborhood
from ..declared import declared
from .attention import Mixer, attend, declaration
from .tiles import Tiling, at_least, vary

TILE = 7
"""Largest side of a tile of queries, save that a map of up to twice this is one tile. Smaller tiles
copy more keys, larger ones multiply more pairs that the bias then removes.
"""


class NeighborhoodAttention(Mixer):
    """(B, H, W, C) -> (B, H, W, C).

    A map smaller than the window is padded with zeros on the right and bottom before the
    projection, unmasked, and cropped after attention, as natten's module did.
    """

    def __init__(self, dim: int, heads: int, config: Neighborhood) -> None:
        super().__init__(dim, heads)
        self.size = config.size
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)
        span = 2 * config.size - 1
        self.bias_table = nn.Parameter(torch.zeros(heads, span, span))
        nn.init.trunc_normal_(self.bias_table, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        b, h, w, _ = x.shape
        rows, cols = at_least(self.size, h), at_least(self.size, w)
        if vary(h, w) or (rows, cols) != (h, w):
            x = F.pad(x, (0, 0, 0, cols - w, 0, rows - h))
        qkv = self.qkv(x).view(b, rows, cols, 3, self.heads, self.head_dim)
        q, k, v = qkv.unbind(3)  # (B, H, W, M, d) each
        tiled = self._in_tiles if vary(h, w) else self._tiled
        keys = self.size**2
        with declared(declaration("neighborhood_attention", q, keys, {}, k, v, self.bias_table)):
            y = tiled(q, k, v, (h, w))
        return self.out(y)

    def _tiled(self, q: Tensor, k: Tensor, v: Tensor, crop: tuple[int, int]) -> Tensor:
        """(B, H, W, M, d) each, at least as large as the window, -> (B, h, w, C), cropped."""
        b, h, w, m, d = q.shape
        rows, cols = _tiles(h, self.size), _tiles(w, self.size)
        nh, nw, t, u = len(rows.keys), len(cols.keys), rows.tile, cols.tile
        if nh * t > h or nw * u > w:
            q = F.pad(q, (0, 0, 0, 0, 0, nw * u - w, 0, nh * t - h))
        q = q.view(b, nh, t, nw, u, m, d).permute(0, 5, 1, 3, 2, 4, 6)
        q = q.reshape(b, m * nh * nw, t * u, d)  # (B, M nT, T^2, d)
        table = _tile_bias(self.bias_table, rows, cols)  # (M nT, T^2, K^2), for every image
        key_y = torch.tensor(rows.keys, device=q.device)[:, None, :, None] * w  # (nh, 1, K, 1)
        key_x = torch.tensor(cols.keys, device=q.device)[None, :, None, :]  # (1, nw, 1, K)
        first = torch.arange(b * m, device=q.device)[:, None] * (h * w)  # of an image's head
        seen = (first + (key_y + key_x).view(-1)).view(-1)  # (B M nT K^2,)

        def gather(x: Tensor) -> Tensor:
            x = x.permute(0, 3, 1, 2, 4).reshape(-1, d)  # (B M H W, d)
            return x.index_select(0, seen).view(b, m * nh * nw, -1, d)  # (B, M nT, K^2, d)

        y = attend(q, gather(k), gather(v), self.scale, table, self.attention)  # (B, M nT, T^2, d)
        y = y.reshape(b, m, nh, nw, t, u, d).permute(0, 2, 4, 3, 5, 1, 6)
        y = y.reshape(b, nh * t, nw * u, m, d)[:, : crop[0], : crop[1]]
        return y.flatten(-2)

    def _in_tiles(self, q: Tensor, k: Tensor, v: Tensor, crop: tuple[int, int]) -> Tensor:
        """The same for sides that are symbols, in tiles of `TILE` queries a side."""
        _, h, w, m, _ = q.shape
        size, span, around = self.size, self.bias_table.shape[-1], self.size // 2
        tiles, side = Tiling(m, h, w, TILE, q.device), TILE + size - 1  # K
        y, x = tiles.pixels(TILE)  # (M nT, T^2)
        y, x = y.clamp(max=h - 1), x.clamp(max=w - 1)
        along = torch.arange(side**2, device=q.device)
        # A tile sees the keys from its first query's window on, moved inside the map.
        key_y = (tiles.top - around).clamp(max=h - side).clamp(min=0) + along // side  # (M nT, K^2)
        key_x = (tiles.left - around).clamp(max=w - side).clamp(min=0) + along % side
        pairs, inside = torch.zeros_like(key_y[:1, None]), []
        for query, key, length in ((y, key_y, h), (x, key_x, w)):
            query, key = query[:, :, None], key[:, None]
            start = (query - around).clamp(max=length - size).clamp(min=0)
            inside.append((key >= start) & (key < start + size))
            pairs = pairs * span + key - query + size - 1  # (M nT, T^2, K^2)
        # One entry more, of minus infinity, for the pairs outside a window.
        table = F.pad(self.bias_table.flatten(1), (0, 1), value=float("-inf"))  # (M, span^2 + 1)
        pairs = torch.where(inside[0] & inside[1], pairs, span**2)
        bias = table.flatten()[tiles.head[:, None] * (span**2 + 1) + pairs]
        key_y, key_x = key_y.clamp(max=h - 1), key_x.clamp(max=w - 1)
        k, v = tiles.gather(k, key_y, key_x), tiles.gather(v, key_y, key_x)  # (B, M nT, K^2, d)
        found = attend(tiles.gather(q, y, x), k, v, self.scale, bias, self.attention)
        y, x = (torch.arange(length, device=q.device) for length in crop)
        return tiles.place(tiles.join(found), y, x)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, size={self.size}"


def _tile_bias(bias: Tensor, rows: Tiles, cols: Tiles) -> Tensor:
    """The bias of every pair of a tile, minus infinity outside the window: (M nT, T^2, K^2).

    Tiles away from a border have the same bias: it is gathered once for each kind of tile.
    """
    span = bias.shape[-1]
    # One row and column more, of minus infinity, for the pairs outside a window.
    table = F.pad(bias, (0, 1, 0, 1), value=float("-inf"))  # (M, span + 1, span + 1)
    y = torch.tensor(rows.offsets, device=bias.device)[:, None, :, None, :, None]
    x = torch.tensor(cols.offsets, device=bias.device)[None, :, None, :, None, :]
    pairs = y * (span + 1) + x  # (ky, kx, T, T, K, K) for ky x kx kinds of tile
    kinds = pairs.shape[0] * pairs.shape[1]
    pairs = pairs.reshape(kinds, pairs.shape[2] * pairs.shape[3], -1)  # (kinds, T^2, K^2)
    gathered = table.flatten(1)[:, pairs]  # (M, kinds, T^2, K^2)
    of_row = torch.tensor(rows.kinds, device=bias.device) * len(cols.offsets)
    of_col = torch.tensor(cols.kinds, device=bias.device)
    of_tile = (of_row[:, None] + of_col).view(-1)  # (nT,)
    return gathered[:, of_tile].flatten(0, 1)  # (M nT, T^2, K^2)


@dataclass(frozen=True)
class Tiles:
    """Tiles along one axis, in plain numbers: n tiles of T queries that see K keys each."""

    tile: int  # T
    keys: list[list[int]]  # (n, K) positions of the keys that a tile sees
    kinds: list[int]  # (n,) which row of `offsets` a tile has
    # (kinds, T, K) index into the bias table, key less query plus size - 1, or 2 size - 1 outside
    # the query's window. Padded queries repeat the last one.
    offsets: list[list[list[int]]]


@lru_cache(maxsize=256)
def _tiles(length: int, size: int) -> Tiles:
    tiles = -(-length // TILE) if length > 2 * TILE else 1
    tile = -(-length // tiles)
    span = min(tile + size - 1, length)
    keys: list[list[int]] = []
    kinds: list[int] = []
    offsets: dict[tuple[tuple[int, ...], ...], int] = {}
    for begin in range(0, length, tile):
        queries = [min(begin + i, length - 1) for i in range(tile)]
        # A window starts size // 2 before its query, moved inside the map.
        starts = [min(max(query - size // 2, 0), length - size) for query in queries]
        first = min(starts[0], length - span)
        seen = range(first, first + span)
        keys.append(list(seen))
        offset = tuple(
            tuple(
                key - query + size - 1 if start <= key < start + size else 2 * size - 1
                for key in seen
            )
            for query, start in zip(queries, starts, strict=True)
        )
        kinds.append(offsets.setdefault(offset, len(offsets)))
    return Tiles(tile, keys, kinds, [[list(row) for row in offset] for offset in offsets])
