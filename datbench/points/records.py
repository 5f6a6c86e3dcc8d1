"""Where deformable attention samples an image, as plain values.

Coordinates are pixels of the image as it is given, from its upper left pixel's centre. Stages,
blocks, groups and heads are counted from 1.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from ..errors import UsageError
from ..setting import Setting
from ..units import Brief

Style = Literal["propagated", "groups", "query"]
"""As DAT's Figures 5, 6 and 7 show them (CVPR 2022, Section 4.5 and Appendix C)."""


@dataclass(frozen=True)
class SamplingPoint:
    """One sampling point."""

    x: float
    y: float
    stage: int
    block: int  # within its stage
    # the offset group; of Deformable-DETR attention the head, which moves its own points
    group: int
    head: int | None = None  # whose weight it is; None for the mean over the group's heads
    weight: float | None = None  # the attention that it gets; None where none was asked for


@dataclass(frozen=True, repr=False)
class PointsRow(Brief):
    """The points of one model on one image."""

    model: str
    setting: Setting  # with the size that the image was resized to
    style: Style
    image: str  # its file
    width: int  # width, height: of the image, in pixels
    height: int
    checkpoint: str | None  # the file of the weights; None without one
    random: bool  # the weights are; a factory of the user's may have made others without a file
    query: tuple[float, float] | None  # the pixel that asks; None where all do
    top: int | None  # how many were kept of each block (of a query: of each block and head)
    # the heaviest first, within each block and head; as the grid runs without weights
    points: tuple[SamplingPoint, ...]
    weights: str | None = None  # where in the file they were read; empty at its top


def pixel_of(text: str) -> tuple[float, float]:
    """The pixel ``X,Y``."""
    match = re.fullmatch(r"\s*(-?\d{1,6}(?:\.\d*)?)\s*,\s*(-?\d{1,6}(?:\.\d*)?)\s*", text)
    if match is None:
        raise UsageError(f"the pixel {text!r} is not understood; write X,Y such as 112,80.")
    return float(match[1]), float(match[2])


def number_of(name: str, text: str, every: str) -> int | None:
    """A number from 1; None for the word that stands for all."""
    if text == every:
        return None
    if not re.fullmatch("[0-9]{1,4}", text) or int(text) < 1:
        raise UsageError(f"--{name} {text!r}: write a number from 1, or {every}.")
    return int(text)
