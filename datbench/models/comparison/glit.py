"""GLiT, as a literal. Free of torch.

Sources: "GLiT: Neural Architecture Search for Global and Local Image Transformer" (Chen et al.,
ICCV 2021), and bychen515/GLiT, which alone says what the search found, and for GLiT-Tiny alone.
What the blocks of GLiT-Small and GLiT-Base are is not published, so they are not built.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...types import Attention, Resolution
from .spec import ComparisonSpec

if TYPE_CHECKING:
    from torch import nn

HEADS = 3
"""Parts that a block's channels are divided into, some for attention and some for convolution."""


@dataclass(frozen=True)
class Glit:
    """What the search chooses for a block.

    Args:
        attention: how many of the three parts attend; the others convolve along the sequence.
        widening: of the attention, relative to its channels.
        local: widening of the convolution.
        kernel: of the convolution.
        expansion: of the feed-forward network.
    """

    attention: int
    widening: float = 1.0
    local: int = 1
    kernel: int = 31
    expansion: int = 4


@dataclass(frozen=True)
class GlitNet:
    """A GLiT: a ViT of patches of 16 whose blocks are `blocks`.

    Args:
        image_size: side of the training input in pixels; it fixes the position embeddings' size.
    """

    dim: int
    blocks: tuple[Glit, ...]
    image_size: int = 224
    classes: int = 1000

    @property
    def has_maps(self) -> bool:
        """None but one, of stride 16."""
        return False

    def make(self, resolution: Resolution, features: bool, attention: Attention) -> nn.Module:
        """The module; it takes any input."""
        from .glit_modules import GlitModel

        return GlitModel(self, attention)


_MIXED = Glit(attention=1, local=4, expansion=6)

GLIT_T = GlitNet(
    dim=192,
    blocks=(
        Glit(attention=3, widening=0.5),
        Glit(attention=0, local=2, kernel=31),
        _MIXED,
        Glit(attention=3),
        Glit(attention=0, local=4, kernel=45),
        _MIXED,
        Glit(attention=3, expansion=2),
        Glit(attention=1, local=4, expansion=2),
        Glit(attention=0, local=4, kernel=45),
        Glit(attention=3),
        Glit(attention=0, local=4, kernel=31),
        Glit(attention=3, widening=2.0, expansion=6),
    ),
)

GLIT_SPECS = (
    ComparisonSpec("glit_t", GLIT_T, "GLiT (ICCV 2021)", "GLiT-Tiny, searched, global and local"),
)
