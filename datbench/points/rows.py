"""A model run on an image: the row of points that a plot or a table of them takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from .. import units
from ..counting.count import build_for_count
from ..errors import MeasurementError, UsageError
from ..models.checkpoints import load_checkpoint
from ..models.layers import image_channels
from ..models.mixers.deformable_detr import DeformableDetrAttention
from ..models.pyramid import PyramidBackbone
from ..models.resolve import Spec, build, is_ours
from ..pictures import as_input, read_image
from ..run import available_bytes, reported
from ..setting import Resolution, Setting
from .records import PointsRow, SamplingPoint, Style
from .sampling import (
    Layer,
    Scored,
    bytes_to_record,
    everyone,
    layers,
    one,
    places,
    propagated,
    scored,
)

if TYPE_CHECKING:
    from PIL.Image import Image

# Which of the recorded points are wanted, and where they lie on the image.

TOP = 20
"""Points of each block (of a query: of each block and head) that are kept by default."""


@dataclass(frozen=True)
class Selection:
    """What to show."""

    style: Style
    stage: int | None = None  # stage, block, group: only these, from 1; None: all that are shown
    block: int | None = None
    group: int | None = None
    head: int | Literal["each"] | None = None  # whose weights; None: the mean of a group's heads
    query: tuple[float, float] | None = None  # the pixel that asks, (x, y)
    top: int | None = None


def gathered(
    found: Sequence[Layer], wanted: Selection, width: int, height: int
) -> tuple[list[SamplingPoint], tuple[float, float] | None]:
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


def top_of(wanted: Selection) -> int | None:
    """How many points of a block are kept; None where all are."""
    return None if wanted.style == "groups" else wanted.top or TOP


def blocks_to_show(known: Sequence[tuple[int, int]], wanted: Selection) -> list[tuple[int, int]]:
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

    def __init__(self, width: int, height: int, wanted: Selection) -> None:
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

    def grid(self, layer: Layer, query: tuple[float, float] | None) -> list[SamplingPoint]:
        """All points of a block, group by group; where queries have their own, one query's."""
        points = layer.points
        if layer.own:
            assert query is not None
            row, column = self.cell(layer, query)
            points = points[:, row * layer.width + column]  # (M, K, 2)
        return [
            SamplingPoint(x, y, layer.stage, layer.block, group)
            for group, places in enumerate(self.pixels(layer, points.double()).tolist(), 1)
            if self.wanted.group in (None, group)
            for x, y in places
        ]

    def heaviest(self, found: Scored, top: int) -> list[SamplingPoint]:
        """The points of a block with the most weight; of each head where each is wanted."""
        layer, head = found.layer, self.wanted.head
        if head is None:
            return self._ranked(found, found.scores.mean(1), None, self.wanted.group, top)
        points: list[SamplingPoint] = []
        heads = found.scores.shape[1]  # of a group
        for number in range(1, layer.heads + 1) if head == "each" else [head]:
            group, place = (number - 1) // heads + 1, (number - 1) % heads
            # A head above the layer's is a later stage's.
            if number <= layer.heads and self.wanted.group in (None, group):
                points += self._ranked(found, found.scores[:, place], number, group, top)
        return points

    def _ranked(
        self, found: Scored, scores: Tensor, head: int | None, group: int | None, top: int
    ) -> list[SamplingPoint]:
        """The heaviest of a block's points with scores (G, N); of one group, or of all."""
        layer, places, first = found.layer, found.points, 1  # (G, N, 2)
        if group is not None:
            places, scores, first = places[group - 1 : group], scores[group - 1 : group], group
        weights, order = scores.flatten().sort(descending=True, stable=True)
        weights, order = weights[:top], order[:top]
        x, y = self.pixels(layer, places.double().flatten(0, 1))[order].unbind(-1)
        groups = order // scores.shape[1] + first
        columns = (each.tolist() for each in (x, y, groups, weights))
        return [
            SamplingPoint(x, y, layer.stage, layer.block, group, head, weight)
            for x, y, group, weight in zip(*columns, strict=True)
        ]


def points_row(
    spec: Spec,
    path: Path,
    wanted: Selection,
    resolution: Resolution | None = None,
    checkpoint: Path | None = None,
    weights: str | None = None,
) -> tuple[PointsRow, Image]:
    """Run a model on an image and gather its sampling points; the image is for drawing.

    Without a checkpoint the weights of our models are random, the same every time.

    Raises:
        UsageError: the image or the checkpoint cannot be read, or there is no such block.
        MeasurementError: the model does not run at this size, or needs more memory than is free.
    """
    setting = Setting(resolution or spec.resolution, device="cpu")
    empty = backbone_of(build_for_count(spec, Setting(setting.resolution)), spec.name, wanted)
    if (channels := image_channels(empty)) != 3:
        raise UsageError(f"{spec.name} takes images of {channels} channels; a picture has 3.")
    image = read_image(path)
    if wanted.query is not None:
        x, y = wanted.query
        if not (-0.5 <= x < image.width - 0.5 and -0.5 <= y < image.height - 0.5):
            raise UsageError(
                f"the pixel {x:g},{y:g} lies outside the image, which is {image.width} wide and "
                f"{image.height} high."
            )
    _check_memory(empty, spec.name, setting.resolution, wanted)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = build(spec, setting.resolution)
    backbone = backbone_of(model, spec.name, wanted).eval()
    loaded = None
    if checkpoint is not None:
        loaded = load_checkpoint(backbone, checkpoint, weights, head=False)
    size = setting.resolution
    pixels = torch.from_numpy(as_input(image, size.width, size.height))[None]  # (1, 3, H, W)
    with reported(spec.name, setting, not is_ours(spec)):
        found = layers(backbone, pixels, _weighed(backbone, wanted))
        points, query = gathered(found, wanted, image.width, image.height)
    if not points:
        raise UsageError(f"--head {wanted.head} attends to another group than {wanted.group}.")
    row = PointsRow(
        spec.name,
        setting,
        wanted.style,
        str(path),
        image.width,
        image.height,
        None if checkpoint is None else str(checkpoint),
        checkpoint is None and is_ours(spec),
        query,
        top_of(wanted),
        tuple(points),
        loaded.weights if loaded else None,
    )
    return row, image


def _check_memory(
    backbone: PyramidBackbone, name: str, size: Resolution, wanted: Selection
) -> None:
    """Refuse a run for which the system would end the process instead of refusing memory.

    Args:
        backbone: on meta.

    Raises:
        MeasurementError: what the run holds at once is more than what is free.
    """
    free = available_bytes(torch.device("cpu"))
    if free is None:
        return
    image = torch.empty(1, 3, size.height, size.width, device="meta")
    try:
        needed = bytes_to_record(backbone, image, _weighed(backbone, wanted))
    except (RuntimeError, AssertionError):
        return  # the run itself says what is wrong
    if needed > free:
        other = "" if wanted.style == "groups" else ", or draw groups, which keep no attention"
        raise MeasurementError(
            f"{name} at {size}: this takes {units.size(needed)}, {units.size(free)} are free; give "
            f"a smaller --res{other}."
        )


def backbone_of(model: nn.Module, name: str, wanted: Selection) -> PyramidBackbone:
    """The backbone inside a model, which has what is wanted.

    Raises:
        UsageError: it has no such block, or no deformable attention at all.
    """
    backbone = next((m for m in model.modules() if isinstance(m, PyramidBackbone)), None)
    known = [] if backbone is None else places(backbone)
    if backbone is None or not known:
        raise UsageError(
            f"{name} has no deformable attention that samples points; dat_t and datpp_t have."
        )
    stages = sorted({stage for stage, _, _ in known})
    if wanted.stage is not None and wanted.stage not in stages:
        raise UsageError(
            f"--stage {wanted.stage}: {name} has deformable attention in stage "
            f"{' and '.join(map(str, stages))}."
        )
    chosen = [place for place in known if wanted.stage in (None, place[0])]
    if wanted.block is not None and all(block != wanted.block for _, block, _ in chosen):
        where = ", ".join(f"{stage}.{block}" for stage, block, _ in chosen)
        raise UsageError(
            f"--block {wanted.block}: {name} has deformable attention in these blocks, "
            f"as stage.block: {where}."
        )
    if wanted.style == "groups" and wanted.query is not None:
        shown = blocks_to_show([(stage, block) for stage, block, _ in known], wanted)
        own = (isinstance(m, DeformableDetrAttention) for s, b, m in known if (s, b) in shown)
        if not any(own):
            raise UsageError(
                f"all queries of {name} share their points; `datbench points query` shows those of "
                "one pixel."
            )
    return backbone


def _weighed(backbone: PyramidBackbone, wanted: Selection) -> list[tuple[int, int]] | None:
    """Stage and block of those whose weights are needed; None where all are."""
    if wanted.style == "propagated":
        return None
    known = [(stage, block) for stage, block, _ in places(backbone)]
    return blocks_to_show(known, wanted) if wanted.style == "query" else []
