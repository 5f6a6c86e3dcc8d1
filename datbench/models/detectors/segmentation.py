"""Heads of segmentors, as mmsegmentation configures them for 150 classes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...errors import UsageError
from .layers import bilinear, conv_norm_relu

CLASSES = 150  # ADE20K's
_DROPOUT = 0.1


class Classifier(nn.Sequential):
    """Dropout of whole channels in training, then a 1x1 convolution."""

    def __init__(self, dim: int, classes: int) -> None:
        super().__init__(nn.Dropout2d(_DROPOUT), nn.Conv2d(dim, classes, 1))


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

    def __init__(self, dim_in: int = 256, dim: int = 128, classes: int = CLASSES) -> None:
        super().__init__()
        self.scales = nn.ModuleList(self._scale(dim_in, dim, doublings) for doublings in range(4))
        self.classify = Classifier(dim, classes)

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
        logits: Tensor = self.classify(y)
        return logits


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
        y: Tensor = self.fuse(torch.cat(found, dim=1))
        return y


class UperHead(nn.Module):
    """Four maps (B, C_i, H/s, W/s) -> logits (B, classes, H/4, W/4).

    Pyramid pooling on the coarsest map, a feature pyramid of `dim` channels, and the fusion of
    all its levels at stride 4 (Unified Perceptual Parsing).
    """

    def __init__(self, channels: Sequence[int], dim: int = 512, classes: int = CLASSES) -> None:
        super().__init__()
        self.pool = PyramidPooling(channels[-1], dim)
        self.laterals = nn.ModuleList(conv_norm_relu(c, dim, 1) for c in channels[:-1])
        self.outputs = nn.ModuleList(conv_norm_relu(dim, dim) for _ in channels[:-1])
        self.fuse = conv_norm_relu(len(channels) * dim, dim)
        self.classify = Classifier(dim, classes)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        levels = [lateral(x) for lateral, x in zip(self.laterals, maps[:-1], strict=True)]
        levels.append(self.pool(maps[-1]))
        for i in range(len(levels) - 1, 0, -1):
            levels[i - 1] = levels[i - 1] + bilinear(levels[i], like=levels[i - 1])
        found = [conv(x) for conv, x in zip(self.outputs, levels[:-1], strict=True)] + levels[-1:]
        found = [found[0], *(bilinear(x, like=found[0]) for x in found[1:])]
        logits: Tensor = self.classify(self.fuse(torch.cat(found, dim=1)))
        return logits


class AuxiliaryHead(nn.Module):
    """One convolution on the map of stride 16, and a classifier; it runs in training alone."""

    def __init__(self, dim_in: int, dim: int = 256, classes: int = CLASSES) -> None:
        super().__init__()
        self.conv = conv_norm_relu(dim_in, dim)
        self.classify = Classifier(dim, classes)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classify(self.conv(x))
        return logits
