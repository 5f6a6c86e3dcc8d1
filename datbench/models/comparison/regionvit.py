"""RegionViT, as a literal. Free of torch.

Sources: "RegionViT: Regional-to-Local Attention for Vision Transformers" (Chen et al., ICLR 2022),
and IBM/RegionViT for what the paper leaves open.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...types import Attention, Resolution
from .spec import ComparisonSpec

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class RegionVit:
    """A RegionViT: a regional token stands for a window of local tokens, in every stage.

    Args:
        dims, heads, depths: of the four stages.
        window: side of a regional token's window, in local tokens.
    """

    dims: tuple[int, int, int, int]
    heads: tuple[int, int, int, int]
    depths: tuple[int, int, int, int]
    window: int = 7
    expansion: int = 4
    classes: int = 1000

    @property
    def has_maps(self) -> bool:
        """Four, of the local tokens."""
        return True

    def make(self, resolution: Resolution, features: bool, attention: Attention) -> nn.Module:
        """The module; it takes any input."""
        from .regionvit_modules import RegionVitModel

        return RegionVitModel(self, features, attention)


REGIONVIT_S = RegionVit(dims=(96, 192, 384, 768), heads=(3, 6, 12, 24), depths=(2, 2, 8, 2))

REGIONVIT_SPECS = (
    ComparisonSpec(
        "regionvit_s",
        REGIONVIT_S,
        "RegionViT (ICLR 2022)",
        "RegionViT-S, regional and local tokens",
    ),
)
