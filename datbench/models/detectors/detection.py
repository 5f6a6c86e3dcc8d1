"""Heads of detectors, as mmdetection 2.x configures them for 80 classes."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from .layers import conv_norm_relu, conv_relu

CLASSES = 80  # COCO's
DIM = 256
BOX_SIDE = 7
MASK_SIDE = 14


class RetinaHead(nn.Module):
    """Two towers of four convolutions, shared by all levels; nine anchors a pixel, no norm."""

    def __init__(self, classes: int = CLASSES, anchors: int = 9, depth: int = 4) -> None:
        super().__init__()
        self.class_tower = nn.Sequential(*(conv_relu(DIM, DIM) for _ in range(depth)))
        self.box_tower = nn.Sequential(*(conv_relu(DIM, DIM) for _ in range(depth)))
        self.classes = nn.Conv2d(DIM, anchors * classes, 3, padding=1)
        self.boxes = nn.Conv2d(DIM, anchors * 4, 3, padding=1)

    def forward(self, levels: Sequence[Tensor]) -> dict[str, list[Tensor]]:
        scores = [self.classes(self.class_tower(x)) for x in levels]  # (B, A classes, H, W) each
        boxes = [self.boxes(self.box_tower(x)) for x in levels]  # (B, 4 A, H, W) each
        return {"scores": scores, "boxes": boxes}


class RPN(nn.Module):
    """Region proposals: one shared convolution, three anchors a pixel."""

    def __init__(self, anchors: int = 3) -> None:
        super().__init__()
        self.conv = nn.Conv2d(DIM, DIM, 3, padding=1)
        self.classes = nn.Conv2d(DIM, anchors, 1)
        self.boxes = nn.Conv2d(DIM, anchors * 4, 1)

    def forward(self, levels: Sequence[Tensor]) -> dict[str, list[Tensor]]:
        # Published without a module, so that hooks do not see this ReLU.
        maps = [F.relu(self.conv(x), inplace=True) for x in levels]
        return {
            "proposal_scores": [self.classes(x) for x in maps],  # (B, A, H, W) each
            "proposal_boxes": [self.boxes(x) for x in maps],  # (B, 4 A, H, W) each
        }


class BoxHead(nn.Module):
    """(N, 256, 7, 7) -> scores (N, classes + 1) and a box for each class (N, 4 classes).

    Args:
        convs: convolutions with batch normalisation before the linear layers.
        linears: linear layers of 1024.
    """

    def __init__(self, convs: int, linears: int, classes: int = CLASSES, dim: int = 1024) -> None:
        super().__init__()
        self.convs = nn.Sequential(*(conv_norm_relu(DIM, DIM) for _ in range(convs)))
        widths = [DIM * BOX_SIDE**2] + [dim] * linears
        self.linears = nn.Sequential(
            *(
                layer
                for i in range(linears)
                for layer in (nn.Linear(widths[i], widths[i + 1]), nn.ReLU(inplace=True))
            )
        )
        self.classes = nn.Linear(dim, classes + 1)
        self.boxes = nn.Linear(dim, 4 * classes)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.convs(x).flatten(1)  # (N, 256 7 7)
        x = self.linears(x)
        return self.classes(x), self.boxes(x)


class MaskHead(nn.Module):
    """(N, 256, 14, 14) -> a mask for each class (N, classes, 28, 28)."""

    def __init__(self, classes: int = CLASSES, depth: int = 4) -> None:
        super().__init__()
        self.convs = nn.Sequential(*(conv_relu(DIM, DIM) for _ in range(depth)))
        self.upsample = nn.ConvTranspose2d(DIM, DIM, 2, stride=2)
        self.act = nn.ReLU(inplace=True)
        self.masks = nn.Conv2d(DIM, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.upsample(self.convs(x)))  # (N, 256, 28, 28)
        y: Tensor = self.masks(x)
        return y
