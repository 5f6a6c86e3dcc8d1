"""Attention in chunks of queries: what a pair of query and key needs exists for one chunk only.

In training a chunk is computed again in the backward instead of being saved.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from .grids import sample
from .tiles import vary

LIMIT = 1 << 23
"""The most values for pairs of a chunk, all heads of an image together (32 MiB in float32). At the
training sizes one chunk holds all queries: no kernel is launched more often than without chunks.
"""

_checkpoint: Any = getattr(checkpoint, "__wrapped__", checkpoint)
"""Without a wrapper whose first call loads torch's compiler."""


class Chunk(NamedTuple):
    """Queries of whole rows of the map, or of a part of one row."""

    top: int
    bottom: int
    left: int
    right: int

    def of(self, width: int) -> slice:
        """Where they are among all queries, row after row."""
        return slice(self.top * width + self.left, (self.bottom - 1) * width + self.right)


def chunks(h: int, w: int, values: int) -> list[Chunk]:
    """A map's queries, each with this many values, in chunks within `LIMIT`; one for symbols."""
    if vary(h, w, values) or h * w * values <= LIMIT:
        return [Chunk(0, h, 0, w)]
    queries = max(1, LIMIT // values)
    rows = max(1, queries // w)
    cols = -(-w // -(-w // queries))  # parts of a row are of one size
    return [
        Chunk(y, min(y + rows, h), x, min(x + cols, w))
        for y in range(0, h, rows)
        for x in range(0, w, cols)
    ]


def in_chunks(
    compute: Callable[..., Tensor], parts: Sequence[Chunk], width: int, *tensors: Tensor
) -> Tensor:
    """What `compute` makes of each chunk and its queries, side by side: (B, HW, ...).

    Args:
        tensors: (B, HW, ...); `compute` takes the (B, n, ...) of its chunk.
    """
    places = [part.of(width) for part in parts]
    sizes = [place.stop - place.start for place in places]
    # A program that is exported or compiled decides by itself what is computed again.
    if torch.is_grad_enabled() and not torch.compiler.is_compiling():
        compute = partial(_checkpoint, compute, use_reentrant=False, preserve_rng_state=False)
    split = zip(parts, *(torch.split(tensor, sizes, 1) for tensor in tensors), strict=True)
    return torch.cat([compute(*each) for each in split], dim=1)


class RowsOfTable:
    """A table interpolated at the displacements from all keys to the queries of a chunk.

    `grid_sample` takes four values for each pair. But a row's queries lie at equal steps, which are
    much smaller than a cell of the table on a large map. So the table is sampled for each key and
    row at the few columns (nodes) that the row crosses, and between them

        bias = node + s * slope + relu(s - 1) * (next slope - slope),  s = theta + phi in [0, 2),

    theta of the query and phi of the key: how far they lie beyond a node, in cells. All but the
    last term is a product of matrices.

    Args:
        table: (M, Sy, Sx).
        queries: (H, W, 2) halved positions (x, y), columns at equal steps.
        step: of two columns.
        keys: (B, G, 2, Ns) halved positions; each of G groups has M / G heads.
    """

    def __init__(self, table: Tensor, queries: Tensor, step: float, keys: Tensor) -> None:
        # Positions need float32, whatever the model's type.
        dtype = torch.promote_types(table.dtype, torch.float32)
        table, queries, keys = table.to(dtype), queries.to(dtype), keys.to(dtype)
        b, g, _, pixels = keys.shape
        self.shape = b, pixels
        self.unit = (table.shape[2] - 1) / 2  # cells of a displacement of 1
        table = table.view(1, g, -1, *table.shape[1:]).expand(b, -1, -1, -1, -1)
        self.tables = table.flatten(0, 1)  # (B G, M/G, Sy, Sx)
        keys_x, keys_y = keys.flatten(0, 1).transpose(0, 1).contiguous()  # (B G, Ns) each
        self.y, self.keys_y = queries[:, 0, 1], keys_y.view(-1, 1, 1, pixels)
        # Python's numbers: chunks are cut without asking a device.
        self.places = [x * step * self.unit for x in range(queries.shape[1])]
        first = (queries[0, 0, 0] - keys_x + 1) * self.unit  # (B G, Ns): where column 0 lies
        self.node = first.detach().floor().unsqueeze(1)
        self.phi = first.unsqueeze(1) - self.node  # (B G, 1, Ns)

    def __call__(self, chunk: Chunk) -> Tensor:
        """(B, M, n, Ns)."""
        b, keys = self.shape
        places = self.places[chunk.left : chunk.right]
        first, last = int(places[0]), int(places[-1]) + 2
        place = self.phi.new_tensor(places)[:, None] - first  # (n, 1), n of a row
        cell = place.floor()
        nodes = torch.arange(last - first + 1, dtype=cell.dtype, device=cell.device)  # (J,)
        x = (self.node + first + nodes[:, None]) / self.unit - 1  # (B G, J, Ns)
        y = self.y[chunk.top : chunk.bottom].view(-1, 1, 1) - self.keys_y  # (B G, rows, 1, Ns)
        x = x.unsqueeze(1).expand(-1, y.shape[1], -1, -1)
        points = torch.stack((x, y.expand_as(x)), dim=1).flatten(2, 3).permute(0, 2, 3, 1)
        node = sample(self.tables, points)  # (B G, M/G, rows J, Ns)
        node = node.view(*node.shape[:2], -1, len(nodes), keys)
        slope = node.diff(dim=3)
        beyond = (self.phi + (place - cell - 1)).clamp(min=0)  # (B G, n, Ns)
        bends = slope.diff(dim=3).index_select(3, cell.flatten().long())
        bends = (bends * beyond[:, None, None]).flatten(0, 2)  # (B M rows, n, Ns)
        terms = torch.cat((node, slope * self.phi[:, None, None]), dim=3).flatten(0, 2)
        hat = (1 - (place - nodes).abs()).clamp(min=0)  # (n, J): between two nodes
        weights = torch.cat((hat, (cell == nodes[:-1]).to(hat.dtype)), dim=1)
        bias = bends.baddbmm_(weights.expand(bends.shape[0], -1, -1), terms)
        return bias.view(b, -1, bias.shape[1] * (chunk.bottom - chunk.top), keys)
