"""Necks and heads: of detectors as mmdetection 2.x configures them for COCO's 80 classes, of
segmentors as mmsegmentation configures them for ADE20K's 150.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...errors import UsageError
from ...setting import Kind
from ..declared import Declaration, declared
from ..mixers.grids import sample

CLASSES = 80

SEGMENTATION_CLASSES = 150

DIM = 256

BOX_SIDE, MASK_SIDE = 7, 14


def tower() -> nn.Sequential:
    """Four convolutions 3x3 with biases, each with a ReLU; they keep the map's size."""
    convs = [nn.Conv2d(DIM, DIM, 3, padding=1) for _ in range(4)]
    return nn.Sequential(*(nn.Sequential(conv, nn.ReLU(inplace=True)) for conv in convs))


class SyncBatchNorm(nn.BatchNorm2d):
    """Batch normalisation where the published configurations have `norm_cfg = dict(type="SyncBN")`.

    One process synchronises nothing, and torch's own class asks for CUDA in training. The name
    matters: mmcv's hooks (1.3 and 1.4) ask for a module's exact class, and have none for SyncBN.
    """


def conv_norm_relu(dim_in: int, dim_out: int, kernel: int = 3) -> nn.Sequential:
    """A convolution with synchronised batch normalisation and a ReLU."""
    conv = nn.Conv2d(dim_in, dim_out, kernel, padding=kernel // 2, bias=False)
    return nn.Sequential(conv, SyncBatchNorm(dim_out), nn.ReLU(inplace=True))


def bilinear(x: Tensor, like: Tensor) -> Tensor:
    """`x` resized to the height and width of `like`."""
    return F.interpolate(x, size=like.shape[-2:], mode="bilinear", align_corners=False)


class RetinaHead(nn.Module):
    """Two towers of four convolutions, shared by all levels; nine anchors a pixel, no norm."""

    def __init__(self) -> None:
        super().__init__()
        self.class_tower = tower()
        self.box_tower = tower()
        self.classes = nn.Conv2d(DIM, 9 * CLASSES, 3, padding=1)
        self.boxes = nn.Conv2d(DIM, 9 * 4, 3, padding=1)

    def forward(self, levels: Sequence[Tensor]) -> dict[str, list[Tensor]]:
        return {
            "scores": [self.classes(self.class_tower(x)) for x in levels],  # (B, 720, H, W) each
            "boxes": [self.boxes(self.box_tower(x)) for x in levels],  # (B, 36, H, W) each
        }


class RPN(nn.Module):
    """Region proposals: one shared convolution, three anchors a pixel."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(DIM, DIM, 3, padding=1)
        self.classes = nn.Conv2d(DIM, 3, 1)
        self.boxes = nn.Conv2d(DIM, 3 * 4, 1)

    def forward(self, levels: Sequence[Tensor]) -> dict[str, list[Tensor]]:
        # Published without a module, so that hooks do not see this ReLU.
        maps = [F.relu(self.conv(x), inplace=True) for x in levels]
        return {
            "proposal_scores": [self.classes(x) for x in maps],  # (B, 3, H, W) each
            "proposal_boxes": [self.boxes(x) for x in maps],  # (B, 12, H, W) each
        }


class BoxHead(nn.Module):
    """(N, 256, 7, 7) -> scores (N, classes + 1) and a box for each class (N, 4 classes).

    Args:
        convs: convolutions with batch normalisation before the linear layers.
        linears: linear layers of 1024.
    """

    def __init__(self, convs: int, linears: int) -> None:
        super().__init__()
        self.convs = nn.Sequential(*(conv_norm_relu(DIM, DIM) for _ in range(convs)))
        layers: list[nn.Module] = []
        for i in range(linears):
            layers += [nn.Linear(1024 if i else DIM * BOX_SIDE**2, 1024), nn.ReLU(inplace=True)]
        self.linears = nn.Sequential(*layers)
        self.classes = nn.Linear(1024, CLASSES + 1)
        self.boxes = nn.Linear(1024, 4 * CLASSES)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.convs(x).flatten(1)  # (N, 256 7 7)
        x = self.linears(x)
        return self.classes(x), self.boxes(x)


class MaskHead(nn.Module):
    """(N, 256, 14, 14) -> a mask for each class (N, classes, 28, 28)."""

    def __init__(self) -> None:
        super().__init__()
        self.convs = tower()
        self.upsample = nn.ConvTranspose2d(DIM, DIM, 2, stride=2)
        self.act = nn.ReLU(inplace=True)
        self.masks = nn.Conv2d(DIM, CLASSES, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.upsample(self.convs(x)))  # (N, 256, 28, 28)
        return self.masks(x)


# Boxes that stand for proposals. A dummy forward has no proposals of its own: nothing is decoded,
# sorted or suppressed. The boxes are fixed for a size of the input and spread over places, sizes
# and shapes, so that every level of the pyramid is used, a run can be repeated, and the work does
# not depend on values (on ``meta`` there are none).
Box = tuple[float, float, float, float]
"""x and y of the first corner and of the last, in pixels of the input."""

FINEST = 56
"""Boxes below this side (the geometric mean) times two are of the finest level (FPN, Eq. 1)."""

_SMALLEST = 16.0

# Fractional parts of multiples of these are spread evenly over the unit cube in four dimensions
# (additive recurrence with the root of x^5 = x + 1).
_ROOT = 1.1673039782614187

_STEPS = tuple(_ROOT**-i for i in range(1, 5))


@lru_cache(maxsize=64)
def proposals(count: int, width: int, height: int) -> tuple[Box, ...]:
    """`count` boxes inside an input of this size, the same ones every time."""
    boxes = []
    for i in range(count):
        x, y, size, shape = ((0.5 + i * step) % 1 for step in _STEPS)
        side = _SMALLEST * (min(width, height) / _SMALLEST) ** size
        stretch = 2 ** (shape - 0.5)  # width over height from 1/2 to 2
        w, h = min(side * stretch, width), min(side / stretch, height)
        left, top = x * (width - w), y * (height - h)
        boxes.append((left, top, left + w, top + h))
    return tuple(boxes)


def level_of(box: Box, levels: int) -> int:
    """The level that a box is cut from: one coarser for each doubling of its side (FPN, Eq. 1)."""
    side = math.sqrt((box[2] - box[0]) * (box[3] - box[1]))
    return min(max(math.floor(math.log2(side / FINEST + 1e-6)), 0), levels - 1)


class Regions(nn.Module):
    """Every box of every image, cut from its level: (B n, C, side, side)."""

    def __init__(self, side: int) -> None:
        super().__init__()
        self.side = side

    def forward(self, levels: Sequence[Tensor], boxes: Sequence[Box], width: int) -> Tensor:
        """`levels` are (B, C, H/s, W/s), the finest first; `width` is the input's, in pixels."""
        at = [level_of(box, len(levels)) for box in boxes]
        order = sorted(range(len(boxes)), key=lambda i: at[i])
        parts = []
        for i, x in enumerate(levels):
            here = [boxes[j] for j in order if at[j] == i]
            if here:
                parts.append(roi_align(x, here, self.side, x.shape[-1] / width))
        places = sorted(range(len(order)), key=order.__getitem__)  # of each box among the parts
        every = torch.cat(parts, dim=1)[:, places]  # (B, n, C, side, side), in the boxes' order
        return every.flatten(0, 1)


def roi_align(x: Tensor, boxes: Sequence[Box], side: int, scale: float, points: int = 2) -> Tensor:
    """RoIAlign (Mask R-CNN) of boxes inside the image: (B, C, H, W) -> (B, n, C, side, side).

    Every cell of a box is the mean of `points` x `points` bilinear samples; pixel centres are at
    halves ("aligned"). The operator counts as one: fvcore has no rule for it, nor has mmcv.

    Args:
        scale: pixels of `x` for a pixel of the input.
    """
    b, c, h, w = x.shape
    n, along = len(boxes), side * points
    samples = b * c * n * along * along
    element = x.element_size()
    one = Declaration(
        "datbench::roi_align",
        # Four weights, four products and sums less one, then the mean of a cell.
        {Kind.ELEMENTWISE: 8 * samples, Kind.REDUCTION: samples},
        bytes_read=x.numel() * element,
        bytes_written=b * n * c * side * side * element,
    )
    with declared(one):
        corners = torch.tensor(boxes, dtype=torch.float32, device=x.device) * scale  # (n, 4)
        steps = (torch.arange(along, dtype=torch.float32, device=x.device) + 0.5) / along
        first, last = corners[:, None, :2], corners[:, None, 2:]  # (n, 1, 2)
        places = first + (last - first) * steps[None, :, None]  # (n, along, 2): x, y
        # Pixel p of `x` has its centre at p + 0.5; -1 and 1 are the map's edges.
        places = places / torch.tensor([w, h], dtype=torch.float32, device=x.device) * 2 - 1
        xs = places[:, None, :, 0].expand(n, along, along)
        ys = places[:, :, None, 1].expand(n, along, along)
        grid = torch.stack((xs, ys), dim=-1).view(1, n * along, along, 2)
        grid = grid.to(x.dtype).expand(b, -1, -1, -1)
        found = sample(x, grid, align_corners=False, padding="border")
        found = F.avg_pool2d(found, points)  # (B, C, n side, side)
        return found.view(b, c, n, side, side).transpose(1, 2)


Extra = Literal["none", "pool", "convs"]


class FPN(nn.Module):
    """Four maps C2 to C5 (B, C_i, H/s, W/s) -> levels (B, dim, H/s, W/s), the finest first.

    Args:
        start: the first map that is used, from 0.
        extra: what makes coarser levels. ``none``: P2 to P5 (Semantic FPN). ``pool``: one more, P6,
            every other pixel of P5 (Mask R-CNN, Cascade). ``convs``, from C3: two more, P6 is a
            convolution of C5 and P7 of P6 (RetinaNet).
    """

    def __init__(
        self, channels: Sequence[int], dim: int = 256, start: int = 0, extra: Extra = "none"
    ) -> None:
        super().__init__()
        self.start = start
        self.extra = extra
        used = channels[start:]
        self.laterals = nn.ModuleList(nn.Conv2d(c, dim, 1) for c in used)
        self.outputs = nn.ModuleList(nn.Conv2d(dim, dim, 3, padding=1) for _ in used)
        coarser = (used[-1], dim) if extra == "convs" else ()
        self.coarser = nn.ModuleList(nn.Conv2d(c, dim, 3, stride=2, padding=1) for c in coarser)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        used = maps[self.start :]
        levels = [lateral(x) for lateral, x in zip(self.laterals, used, strict=True)]
        for i in range(len(levels) - 1, 0, -1):
            finer = levels[i - 1]
            levels[i - 1] = finer + F.interpolate(levels[i], finer.shape[-2:], mode="nearest")
        levels = [conv(x) for conv, x in zip(self.outputs, levels, strict=True)]
        if self.extra == "pool":
            levels.append(F.max_pool2d(levels[-1], 1, stride=2))
        x = used[-1]
        for conv in self.coarser:
            x = conv(x)
            levels.append(x)
        return levels


class Classifier(nn.Sequential):
    """Dropout of whole channels in training, then a 1x1 convolution."""

    def __init__(self, dim: int) -> None:
        super().__init__(nn.Dropout2d(0.1), nn.Conv2d(dim, SEGMENTATION_CLASSES, 1))


class Doubled(nn.Module):
    """Twice the height and width, bilinearly."""

    def forward(self, x: Tensor) -> Tensor:
        return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


class Resize(nn.Module):
    """Logits at the size of the image, bilinearly."""

    def forward(self, logits: Tensor, image: Tensor) -> Tensor:
        return bilinear(logits, like=image)


class SemanticFPNHead(nn.Module):
    """Four levels (B, dim_in, H/s, W/s), s from 4 to 32 -> logits (B, classes, H/4, W/4).

    Every level is brought to stride 4 by convolutions with a doubling after each (Panoptic
    Feature Pyramid Networks); their sum is classified.
    """

    def __init__(self, dim_in: int = 256, dim: int = 128) -> None:
        super().__init__()
        self.scales = nn.ModuleList(self._scale(dim_in, dim, doublings) for doublings in range(4))
        self.classify = Classifier(dim)

    @staticmethod
    def _scale(dim_in: int, dim: int, doublings: int) -> nn.Sequential:
        layers: list[nn.Module] = []
        for i in range(max(doublings, 1)):
            layers.append(conv_norm_relu(dim if i else dim_in, dim))
            if doublings:
                layers.append(Doubled())
        return nn.Sequential(*layers)

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        y: Tensor = self.scales[0](levels[0])
        for scale, x in zip(list(self.scales)[1:], levels[1:], strict=True):
            y = y + bilinear(scale(x), like=y)
        return self.classify(y)


class PyramidPooling(nn.Module):
    """A map beside its means over grids of 1, 2, 3 and 6 cells a side (PSPNet), fused."""

    def __init__(self, dim_in: int, dim: int, grids: Sequence[int] = (1, 2, 3, 6)) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            nn.Sequential(nn.AdaptiveAvgPool2d(grid), *conv_norm_relu(dim_in, dim, 1))
            for grid in grids
        )
        self.fuse = conv_norm_relu(dim_in + len(grids) * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        if self.training and x.shape[0] == 1:
            raise UsageError(
                "upernet pools an image to one pixel, which batch normalisation cannot train on: "
                "use a batch of 2 or more, or --mode inference."
            )
        found = [x, *(bilinear(branch(x), like=x) for branch in self.branches)]
        return self.fuse(torch.cat(found, dim=1))


class UperHead(nn.Module):
    """Four maps (B, C_i, H/s, W/s) -> logits (B, classes, H/4, W/4).

    Pyramid pooling on the coarsest map, a feature pyramid of `dim` channels, and the fusion of
    all its levels at stride 4 (Unified Perceptual Parsing).
    """

    def __init__(self, channels: Sequence[int], dim: int = 512) -> None:
        super().__init__()
        self.pool = PyramidPooling(channels[-1], dim)
        self.laterals = nn.ModuleList(conv_norm_relu(c, dim, 1) for c in channels[:-1])
        self.outputs = nn.ModuleList(conv_norm_relu(dim, dim) for _ in channels[:-1])
        self.fuse = conv_norm_relu(len(channels) * dim, dim)
        self.classify = Classifier(dim)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        levels = [lateral(x) for lateral, x in zip(self.laterals, maps[:-1], strict=True)]
        levels.append(self.pool(maps[-1]))
        for i in range(len(levels) - 1, 0, -1):
            levels[i - 1] = levels[i - 1] + bilinear(levels[i], like=levels[i - 1])
        found = [conv(x) for conv, x in zip(self.outputs, levels[:-1], strict=True)] + levels[-1:]
        found = [found[0], *(bilinear(x, like=found[0]) for x in found[1:])]
        return self.classify(self.fuse(torch.cat(found, dim=1)))


class AuxiliaryHead(nn.Module):
    """One convolution on the map of stride 16, and a classifier; it runs only in training."""

    def __init__(self, dim_in: int, dim: int = 256) -> None:
        super().__init__()
        self.conv = conv_norm_relu(dim_in, dim)
        self.classify = Classifier(dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.classify(self.conv(x))
