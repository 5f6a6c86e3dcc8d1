"""What is measured: the modules, the maps and strides, and what all of them share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from ...errors import UsageError
from ...models.config import Deformable, DeformableDetr, SpatialReduction, Stage, Window
from ...models.config import Mixer as MixerConfig
from ...types import ATTENTIONS, DTYPES, Attention
from ..device import check_device

WINDOW = 7
"""Swin's."""

RATIO = 2
"""Of spatial reduction where the map grows."""

DETR_POINTS = 49
"""Keys a query in Table 8: as many as DAT-T's queries have at 224."""


@dataclass(frozen=True)
class Job:
    """One point to be: a module's description, the side of its map, r."""

    kind: str
    config: MixerConfig
    side: int
    stride: int

    def __str__(self) -> str:
        coarser = f" r {self.stride}" if self.kind in ("DMHA", "SRA") else ""
        return f"{self.kind} {self.side}x{self.side}{coarser}"


@dataclass(frozen=True)
class How:
    """What all points share."""

    dim: int
    heads: int
    batch: int
    dtype: torch.dtype
    device: torch.device
    attention: Attention

    def shape(self, side: int) -> tuple[int, int, int, int]:
        """(B, H, W, C) of a square map."""
        return self.batch, side, side, self.dim


def how_of(dim: int, heads: int, batch: int, dtype: str, device: str, attention: Attention) -> How:
    """What all points share, checked.

    Raises:
        UsageError: it cannot be timed so, or not here.
    """
    for value, known, what in ((dtype, DTYPES, "dtype"), (attention, ATTENTIONS, "attention")):
        if value not in known:
            raise UsageError(f"{what} {value!r}: choose one of {', '.join(known)}.")
    if batch < 1:
        raise UsageError(f"batch {batch}: write a number from 1.")
    where = check_device(device)
    if where.type == "meta":
        raise UsageError("nothing runs on meta, so nothing can be timed; use cpu or cuda.")
    return How(dim, heads, batch, getattr(torch, dtype), where, attention)


def jobs_of(
    dim: int,
    heads: int,
    groups: int,
    kernel: int,
    sides: Sequence[int],
    strides: Sequence[int],
    side_for_strides: int,
) -> Iterator[Job]:
    """Every point to be, once: small maps first, the modules of one map beside each other.

    Raises:
        UsageError: sizes that do not fit each other, or too few of them.
    """
    numbers = (dim, heads, groups, kernel, side_for_strides, *sides, *strides)
    if min(numbers) < 1:
        raise UsageError("widths, heads, groups, kernels, sides and strides are numbers from 1.")
    for what, values in (("sides", sides), ("strides", strides)):
        if len(set(values)) < 3:
            raise UsageError(f"{what}: a line with its interval takes three different ones.")
    if max(strides) > side_for_strides:
        raise UsageError(
            f"stride {max(strides)} leaves no key on a map of side {side_for_strides}; "
            "use smaller strides or a larger map."
        )
    if min(sides) < RATIO:
        raise UsageError(f"side {min(sides)}: the smallest map that SRA can reduce is {RATIO}.")
    try:
        Stage(dim, heads, (Deformable(groups, kernel),))
    except ValueError as error:
        raise UsageError(f"{error}.") from error
    for side in sorted(set(sides)):
        yield Job("DMHA", Deformable(groups, kernel), side, 1)
        yield Job("MSA", SpatialReduction(1), side, 1)
        yield Job("SRA", SpatialReduction(RATIO), side, RATIO)
        yield Job("W-MSA", Window(WINDOW), side, 1)
        yield Job("D-DETR", DeformableDetr(DETR_POINTS), side, 1)
    side = side_for_strides
    for stride in sorted(set(strides), reverse=True):
        if stride != 1 or side not in sides:
            yield Job("DMHA", Deformable(groups, kernel, stride), side, stride)
        if stride != 1 and (stride != RATIO or side not in sides):
            yield Job("SRA", SpatialReduction(stride), side, stride)
