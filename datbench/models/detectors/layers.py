"""What the necks and heads share: convolutions with their norm and ReLU, and resizing."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


def conv_relu(dim_in: int, dim_out: int, kernel: int = 3) -> nn.Sequential:
    """A convolution with a bias that keeps the map's size, and a ReLU."""
    conv = nn.Conv2d(dim_in, dim_out, kernel, padding=kernel // 2)
    return nn.Sequential(conv, nn.ReLU(inplace=True))


def conv_norm_relu(dim_in: int, dim_out: int, kernel: int = 3) -> nn.Sequential:
    """The same without a bias and with batch normalisation (published: synchronised)."""
    conv = nn.Conv2d(dim_in, dim_out, kernel, padding=kernel // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(dim_out), nn.ReLU(inplace=True))


def bilinear(x: Tensor, like: Tensor) -> Tensor:
    """`x` resized to the height and width of `like`."""
    return F.interpolate(x, size=like.shape[-2:], mode="bilinear", align_corners=False)


def nearest(x: Tensor, like: Tensor) -> Tensor:
    """The same, by the nearest pixel."""
    return F.interpolate(x, size=like.shape[-2:], mode="nearest")
