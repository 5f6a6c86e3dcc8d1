"""CeiT, as a literal. Free of torch.

Sources: "Incorporating Convolution Designs into Visual Transformers" (Yuan et al., ICCV 2021),
and coeusguo/ceit for what the paper leaves open: the stem's 64 channels, which give the 24.2M
parameters that the paper prints (32 would give 24.0M).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...types import Attention, Resolution
from .spec import ComparisonSpec

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Ceit:
    """A CeiT: a convolutional stem, then one width and stride 16 throughout.

    Args:
        dim, heads, depth: width C, heads M and the number of blocks.
        stem: channels of the stem's convolution.
        image_size: side of the training input in pixels; it fixes the position embeddings' size.
    """

    dim: int
    heads: int
    depth: int = 12
    stem: int = 64
    expansion: int = 4
    image_size: int = 224
    classes: int = 1000

    @property
    def has_maps(self) -> bool:
        """None but one, of stride 16."""
        return False

    def make(self, resolution: Resolution, features: bool, attention: Attention) -> nn.Module:
        """The module; it takes any input."""
        from .ceit_modules import CeitModel

        return CeitModel(self, attention)


CEIT_S = Ceit(dim=384, heads=6)

CEIT_SPECS = (ComparisonSpec("ceit_s", CEIT_S, "CeiT (ICCV 2021)", "CeiT-S, convolutions in FFNs"),)
