"""Which of the recorded points are wanted, and where they lie on the image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ...errors import UsageError
from ...points import Point, Style
from .propagate import Scored, everyone, one, propagated, scored
from .record import Layer

TOP = 20
"""Points of each block (of a query: of each block and head) that are kept unless told."""


@dataclass(frozen=True)
class Wanted:
    """What to show.

    Args:
        stage, block, group: only these, counted from 1; all that the style shows without.
        head: weights of this head alone, or of ``each``; the mean over a group's heads without.
        query: the pixel that asks, (x, y).
    """

    style: Style
    stage: int | None = None
    block: int | None = None
    group: int | None = None
    head: int | Literal["each"] | None = None
    query: tuple[float, float] | None = None
    top: int | None = None


def gathered(
    found: Sequence[Layer], wanted: Wanted, width: int, height: int
) -> tuple[list[Point], tuple[float, float] | None]:
    """Points of recorded blocks, for an image of this many pixels; and the pixel that asked.

    Raises:
        UsageError: there is no such group or head.
    """
    shown = blocks_to_show([(layer.stage, layer.block) for layer in found], wanted)
    chosen = [layer for layer in found if (layer.stage, layer.block) in shown]
    for what, number, most in (
        ("group", wanted.group, max(layer.groups for layer in chosen)),
        ("head", wanted.head, max(layer.heads for layer in chosen)),
    ):
        if isinstance(number, int) and number > most:
            raise UsageError(f"--{what} {number}: there are {most} at most in what is shown.")
    query = wanted.query
    single = wanted.style == "query" or any(
        layer.own and wanted.style == "groups" for layer in chosen
    )
    if single and query is None:
        query = ((width - 1) / 2, (height - 1) / 2)
    canvas = _Canvas(width, height, wanted)
    if wanted.style == "groups":
        return [p for layer in chosen for p in canvas.grid(layer, query)], query
    if wanted.style == "query":
        assert query is not None
        shares = [one(layer, *canvas.cell(layer, query)) for layer in chosen]
        marked = [scored(layer, share) for layer, share in zip(chosen, shares, strict=True)]
    else:
        last = found[-1]
        first = everyone(last) if query is None else one(last, *canvas.cell(last, query))
        marked = [each for each in propagated(found, first) if each.layer in chosen]
    return [p for each in marked for p in canvas.heaviest(each, top_of(wanted) or TOP)], query


def top_of(wanted: Wanted) -> int | None:
    """How many points of a block are kept; None where all are."""
    return None if wanted.style == "groups" else wanted.top or TOP


def blocks_to_show(known: Sequence[tuple[int, int]], wanted: Wanted) -> list[tuple[int, int]]:
    """Blocks to show: of Figure 5 all, of Figure 6 each stage's last, of Figure 7 the very last."""
    chosen = [
        (stage, block)
        for stage, block in known
        if wanted.stage in (None, stage) and wanted.block in (None, block)
    ]
    if wanted.style == "propagated" or wanted.block is not None:
        return chosen
    return chosen[-1:] if wanted.style == "query" else list(dict(chosen).items())


class _Canvas:
    """The image: from maps and normalised points to its pixels, and back."""

    def __init__(self, width: int, height: int, wanted: Wanted) -> None:
        self.width, self.height, self.wanted = width, height, wanted

    def pixels(self, layer: Layer, points: Tensor) -> Tensor:
        """Normalised points (..., 2) in pixels: -1 is the centre of the map's first cell.

        The map's cells divide the image equally; that is where `grid_sample` with
        `align_corners=True` reads what the stem has put there.
        """
        cells = points.new_tensor([layer.width, layer.height])
        image = points.new_tensor([self.width, self.height])
        return ((points + 1) / 2 * (cells - 1) + 0.5) * (image / cells) - 0.5

    def cell(self, layer: Layer, pixel: tuple[float, float]) -> tuple[int, int]:
        """Row and column of the map's cell that a pixel lies in."""
        column = int((pixel[0] + 0.5) * layer.width / self.width)
        row = int((pixel[1] + 0.5) * layer.height / self.height)
        return min(row, layer.height - 1), min(column, layer.width - 1)

    def grid(self, layer: Layer, query: tuple[float, float] | None) -> list[Point]:
        """All points of a block, group by group; where queries have their own, one query's."""
        points = layer.points
        if layer.own:
            assert query is not None
            row, column = self.cell(layer, query)
            points = points[:, row * layer.width + column]  # (M, K, 2)
        return [
            Point(x, y, layer.stage, layer.block, group)
            for group, places in enumerate(self.pixels(layer, points.double()).tolist(), 1)
            if self.wanted.group in (None, group)
            for x, y in places
        ]

    def heaviest(self, found: Scored, top: int) -> list[Point]:
        """The points of a block with the most weight; of each head where each is wanted."""
        layer, head = found.layer, self.wanted.head
        per_group = found.scores.shape[1]  # heads
        if head is None:
            return self._ranked(layer, found.points, found.scores.mean(1), None, top)
        points: list[Point] = []
        for number in range(1, layer.heads + 1) if head == "each" else [head]:
            if number > layer.heads:
                continue  # a later stage has it
            group = (number - 1) // per_group
            only = torch.zeros_like(found.scores[:, 0])  # (G, N)
            only[group] = found.scores[group, (number - 1) % per_group]
            points += self._ranked(layer, found.points, only, number, top, group + 1)
        return points

    def _ranked(
        self,
        layer: Layer,
        places: Tensor,
        scores: Tensor,
        head: int | None,
        top: int,
        only: int | None = None,
    ) -> list[Point]:
        """The heaviest of points (G, N, 2) with scores (G, N)."""
        group = only or self.wanted.group
        if group is not None and group > layer.groups:
            return []
        if only is not None and self.wanted.group not in (None, only):
            return []
        if group is not None:
            places, scores = places[group - 1 : group], scores[group - 1 : group]
        count = scores.shape[1]
        order = scores.flatten().sort(descending=True, stable=True).indices[:top]
        pixels = self.pixels(layer, places.double().flatten(0, 1))[order].tolist()
        weights = scores.flatten()[order].tolist()
        return [
            Point(x, y, layer.stage, layer.block, group or index // count + 1, head, weight)
            for (x, y), weight, index in zip(pixels, weights, order.tolist(), strict=True)
        ]
