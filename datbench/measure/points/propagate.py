"""How much each sampling point weighs, in one block and over several.

DAT's Figure 5 shows "the most important keys across multiple deformable attention layers by
propagating their attention weights", like the figures of deformable convolutions, and gives no
formula. Here:

- In the last deformable block every query counts the same (or one alone counts): these are the
  queries' shares, and add up to 1.
- A point's score is the sum over the queries of share times attention weight, in the mean over the
  heads of its group.
- A point reads four cells of the map with bilinear weights; it passes its score on to them by these
  weights. The mean over the groups is the queries' shares of the deformable block before, so that a
  point there scores by what it gave to points that count later.
- Between stages a cell's share is divided equally among the cells that it was made of.

What stands between (local attention, feed-forward layers, residual branches) moves nothing. What a
point reads outside the map is lost.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .record import Layer


@dataclass(frozen=True)
class Scored:
    """Scores of one block's points: (G, M / G, N), for points (G, N, 2)."""

    layer: Layer
    points: Tensor
    scores: Tensor


def everyone(layer: Layer) -> Tensor:
    """Equal shares of all queries, (H W)."""
    cells = layer.height * layer.width
    return torch.full((cells,), 1 / cells, dtype=torch.float64)


def one(layer: Layer, row: int, column: int) -> Tensor:
    """The whole share to one query, (H W)."""
    shares = torch.zeros(layer.height * layer.width, dtype=torch.float64)
    shares[row * layer.width + column] = 1.0
    return shares


def scored(layer: Layer, shares: Tensor) -> Scored:
    """The points of a block with each head's scores, which add up to the shares' sum."""
    assert layer.weights is not None
    if layer.own:
        weights = layer.weights.double()
        asking = shares.nonzero()[:, 0]  # the points of others weigh nothing
        points = layer.points[:, asking].flatten(1, 2)  # (M, Q K, 2)
        scores = (weights[:, asking] * shares[asking, None]).flatten(1)  # (M, Q K)
        return Scored(layer, points, scores[:, None])
    # A head at a time: in float64 all of them would take twice what was recorded.
    scores = torch.stack([shares @ head.double() for head in layer.weights])  # (M, N)
    return Scored(layer, layer.points, scores.view(layer.groups, -1, scores.shape[-1]))


def landed(points: Tensor, weights: Tensor, height: int, width: int) -> Tensor:
    """What points (N, 2) with weights (N) give to the cells that they read, (height, width)."""
    x = (points[:, 0].double() + 1) / 2 * (width - 1)  # as align_corners=True has it
    y = (points[:, 1].double() + 1) / 2 * (height - 1)
    left, top = x.floor(), y.floor()
    given = torch.zeros(height * width, dtype=torch.float64)
    for down in (0, 1):
        for right in (0, 1):
            column, row = left + right, top + down
            part = (1 - (x - column).abs()) * (1 - (y - row).abs()) * weights
            inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
            index = (row * width + column)[inside].long()
            given.index_add_(0, index, part[inside])
    return given.view(height, width)


def passed_on(found: Scored) -> Tensor:
    """The queries' shares of the block before, on the same map: (H, W)."""
    layer = found.layer
    means = found.scores.mean(1)  # (G, N)
    maps = [
        landed(points, scores, layer.height, layer.width)
        for points, scores in zip(found.points, means, strict=True)
    ]
    return torch.stack(maps).mean(0)


def spread(shares: Tensor, height: int, width: int) -> Tensor:
    """Shares (H, W) divided among the cells of a finer map, (height, width); their sum stays."""
    rows = torch.arange(height) * shares.shape[0] // height
    columns = torch.arange(width) * shares.shape[1] // width
    down = torch.bincount(rows, minlength=shares.shape[0])[rows]
    right = torch.bincount(columns, minlength=shares.shape[1])[columns]
    return shares[rows][:, columns] / (down[:, None] * right[None, :])


def propagated(layers: Sequence[Layer], shares: Tensor) -> list[Scored]:
    """Every block's points with scores that come down from the last block, in the order of run.

    Args:
        shares: of the last block's queries, (H W).
    """
    found: list[Scored] = []
    for number in reversed(range(len(layers))):
        here = scored(layers[number], shares)
        found.append(here)
        if number:
            before = layers[number - 1]
            shares = spread(passed_on(here), before.height, before.width).flatten()
    return found[::-1]
