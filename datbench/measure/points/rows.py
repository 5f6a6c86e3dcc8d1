"""A model run on an image: the row of points that a plot or a table of them takes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from ... import units
from ...errors import MeasurementError, UsageError
from ...models.build import build
from ...models.checkpoints import load_checkpoint
from ...models.mixers import DeformableDetrAttention
from ...models.pyramid import PyramidBackbone
from ...models.resolve import Spec, is_ours
from ...points import PointsRow
from ...types import Resolution, Setting
from ..complexity.memory import available_bytes
from ..count import build_for_count
from .gather import Wanted, blocks_to_show, gathered, top_of
from .images import as_input, read_image
from .record import bytes_to_record, layers, places

if TYPE_CHECKING:
    from PIL.Image import Image


def points_row(
    spec: Spec,
    path: Path,
    wanted: Wanted,
    resolution: Resolution | None = None,
    checkpoint: Path | None = None,
) -> tuple[PointsRow, Image]:
    """Run a model on an image and gather its sampling points; the image is for drawing.

    Without a checkpoint the weights of our models are random, the same every time.

    Raises:
        UsageError: the image or the checkpoint cannot be read, or there is no such block.
        MeasurementError: the model does not run at this size, or needs more memory than is free.
    """
    setting = Setting(resolution or spec.resolution, device="cpu")
    empty = backbone_of(build_for_count(spec, Setting(setting.resolution)), spec.name, wanted)
    image = read_image(path)
    if wanted.query is not None:
        x, y = wanted.query
        if not (-0.5 <= x < image.width - 0.5 and -0.5 <= y < image.height - 0.5):
            raise UsageError(
                f"--query {x:g},{y:g} lies outside the image, which is {image.width} wide and "
                f"{image.height} high."
            )
    _check_memory(empty, spec.name, setting.resolution, wanted)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = build(spec, setting.resolution)
    backbone = backbone_of(model, spec.name, wanted).eval()
    if checkpoint is not None:
        load_checkpoint(backbone, checkpoint)
    size = setting.resolution
    pixels = torch.from_numpy(as_input(image, size.width, size.height))[None]  # (1, 3, H, W)
    try:
        found = layers(backbone, pixels, _weighed(backbone, wanted))
        points, query = gathered(found, wanted, image.width, image.height)
    except (RuntimeError, MemoryError) as error:
        line = (str(error).splitlines() or [""])[0]
        raise MeasurementError(f"{spec.name} at {size}: {line or 'out of memory'}") from error
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
    )
    return row, image


def _check_memory(backbone: PyramidBackbone, name: str, size: Resolution, wanted: Wanted) -> None:
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
        other = "" if wanted.style == "groups" else ", or --style groups, which keeps no attention"
        raise MeasurementError(
            f"{name} at {size}: this takes {units.size(needed)}, {units.size(free)} are free; give "
            f"a smaller --res{other}."
        )


def backbone_of(model: nn.Module, name: str, wanted: Wanted) -> PyramidBackbone:
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
                f"--query changes nothing with --style groups: all queries of {name} share their "
                "points; leave it out, or write --style query."
            )
    return backbone


def _weighed(backbone: PyramidBackbone, wanted: Wanted) -> list[tuple[int, int]] | None:
    """Stage and block of those whose weights are needed; None where all are."""
    if wanted.style == "propagated":
        return None
    known = [(stage, block) for stage, block, _ in places(backbone)]
    return blocks_to_show(known, wanted) if wanted.style == "query" else []
