"""`datbench points`."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from ..errors import UsageError
from ..files import complete_files
from ..models.resolve import complete_models
from ..points.records import Style, number_of, pixel_of
from .command import WHAT, argument, group, option
from .options import Inputs, Loaded, Sizes, Stage, Top, only
from .output import Format, Output

PICTURES = (".png", ".svg")


@dataclass(frozen=True)
class Sampling(Loaded):
    """Which points, on which image."""

    model: Annotated[
        str | None,
        argument(
            "A model with deformable attention: dat_t, datpp_t and their variants.",
            "MODEL",
            complete_models,
        ),
    ] = None
    image: Annotated[
        Path | None,
        argument("The image, in any format that Pillow reads.", "IMAGE", complete_files),
    ] = None
    res: Sizes = None
    stage: Stage = None
    block: Annotated[
        int | None, option(WHAT, "--block N", "Only this block of its stage, from 1.", min=1)
    ] = None
    group: Annotated[
        str, option(WHAT, "--group N", "Only this offset group, from 1, or all.", default=True)
    ] = "all"


@dataclass(frozen=True)
class Drawing(Output):
    """The result may be a picture too."""

    @property
    def picture(self) -> Path | None:
        """The picture to write."""
        path = self.path
        return path if path is not None and path.suffix.lower() in PICTURES else None

    @property
    def wanted(self) -> Format:
        """The format of the points; of a picture beside them, a table."""
        return super().wanted if self.picture is None else self.format or Format.TABLE


Head = Annotated[
    str,
    option(
        WHAT,
        "--head N",
        "Attention of this head, from 1; each for every head; mean for a group's heads together.",
        default=True,
    ),
]


Pixel = Annotated[
    str | None, argument("The pixel that asks, of the image as given. Default: the centre.", "X,Y")
]


def propagated(sampling: Sampling, output: Drawing, head: Head = "mean", top: Top = None) -> None:
    """Draw the most important keys over all blocks, as the paper's Figure 5 does.

    Without a checkpoint the weights are random, and the picture says so. Attention is computed
    eagerly: fused attention has no weights to show.

    Examples:
    datbench points dat_t cat.jpg --checkpoint dat_tiny_in1k_224.pth --out cat.png
    """
    _points("propagated", sampling, output, head=_head(head), top=top)


def groups(sampling: Sampling, output: Drawing, pixel: Pixel = None) -> None:
    """Draw where each offset group samples, as Figure 6 does: all points, without weights.

    Where every query has its own points, as in Deformable DETR: those of one pixel.

    Examples:
    datbench points groups dat_t cat.jpg --stage 3 --block 2 --out groups.png
    """
    _points("groups", sampling, output, query=None if pixel is None else pixel_of(pixel))


def query(
    sampling: Sampling, output: Drawing, pixel: Pixel = None, head: Head = "mean", top: Top = None
) -> None:
    """Draw the keys that one pixel attends to, as Figure 7 does.

    Examples:
    datbench points query dat_t cat.jpg 112,80 --stage 3 --out query.png
    """
    chosen = None if pixel is None else pixel_of(pixel)
    _points("query", sampling, output, head=_head(head), query=chosen, top=top)


def _points(style: Style, sampling: Sampling, output: Drawing, **more: Any) -> None:
    if sampling.image is None:
        raise UsageError("name the model and the image: datbench points MODEL IMAGE.")
    inputs = Inputs([sampling.model] if sampling.model else None, sampling.res)
    spec, size = inputs.one(), only([*inputs.sizes()] or [None], "size", "points takes one")
    part = number_of("group", sampling.group, "all")
    from ..points import view
    from ..points.rows import Selection, points_row

    shown = Selection(style, sampling.stage, sampling.block, part, **more)
    row, pixels = points_row(
        spec, sampling.image, shown, size, sampling.checkpoint, sampling.weights
    )
    if output.picture is not None:
        output.put(view.picture(row, pixels, output.picture.suffix))
    if output.picture is None or output.format is not None:
        out = output.out if output.picture is None else None
        Output(out, output.format, output.notes).write(
            view.tables(row, one=output.one), "points", [row]
        )
    if row.random:
        sys.stderr.write(
            f"datbench: {row.model} has random weights; give --checkpoint for what it learned.\n"
        )


def _head(text: str) -> int | Literal["each"] | None:
    return "each" if text == "each" else number_of("head", text, "mean")


app = group(
    "points",
    (propagated, groups, query),
    usual="propagated",
)
