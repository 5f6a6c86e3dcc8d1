"""Where deformable attention samples an image, as plain values.

Coordinates are pixels of the image as it is given, from its upper left pixel's centre. Stages,
blocks, groups and heads are counted from 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ..setting import Setting

Style = Literal["propagated", "groups", "query"]
"""As DAT's Figure 5, 6 or 7 show them."""

STYLES: tuple[Style, ...] = ("propagated", "groups", "query")

FIGURES: dict[int, Style] = {5: "propagated", 6: "groups", 7: "query"}
"""DAT (CVPR 2022): Section 4.5, and Appendix C."""


@dataclass(frozen=True)
class Point:
    """One sampling point.

    Args:
        block: within its stage.
        group: the offset group; of Deformable-DETR attention the head, which moves its own points.
        head: whose weight it is; None for the mean over the group's heads.
        weight: the attention that it gets; None where none was asked for.
    """

    x: float
    y: float
    stage: int
    block: int
    group: int
    head: int | None = None
    weight: float | None = None


@dataclass(frozen=True)
class PointsRow:
    """The points of one model on one image.

    Args:
        setting: with the size that the image was resized to.
        image: its file.
        width, height: of the image, in pixels.
        checkpoint: the file of the weights; None without one.
        random: the weights are; a factory of the user's may have made others without a file.
        query: the pixel that asks; None where all do.
        top: how many were kept of each block (of a query: of each block and head).
        points: the heaviest first, within each block and head; as the grid runs without weights.
    """

    model: str
    setting: Setting
    style: Style
    image: str
    width: int
    height: int
    checkpoint: str | None
    random: bool
    query: tuple[float, float] | None
    top: int | None
    points: tuple[Point, ...]
