"""PVT and DPT, as literals. Free of torch.

Sources: Pyramid Vision Transformer (Wang et al., ICCV 2021), Table 1; DPT: Deformable Patch-based
Transformer for Visual Recognition (Chen et al., ACM MM 2021): PVT's stages, with deformable patches
of 3x3 points in front of stages 2 to 4. What the papers leave open is as in whai362/PVT and
CASIA-IVA-Lab/DPT. PVT's Table 1 prints three blocks in stage 2 of S and M; the published code has
four, and the parameters that the paper's Table 2 prints are theirs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...types import Attention, Resolution
from .spec import ComparisonSpec

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class PvtStage:
    """Blocks at one resolution.

    Args:
        ratio: how many times smaller than the map the keys' map is, to a side.
        expansion: of the feed-forward networks.
    """

    dim: int
    heads: int
    depth: int
    ratio: int
    expansion: int


@dataclass(frozen=True)
class Pvt:
    """A PVT.

    Args:
        deformable_points: side k of the grid of points that each patch of stages 2 to 4 samples
            (DPT); None for plain patches.
        image_size: side of the training input in pixels; it fixes the position embeddings' size.
        drop_path: rate of the last block's stochastic depth (linear from 0), training only.
    """

    stages: tuple[PvtStage, PvtStage, PvtStage, PvtStage]
    deformable_points: int | None = None
    image_size: int = 224
    classes: int = 1000
    drop_path: float = 0.0

    @property
    def has_maps(self) -> bool:
        """Four, of the stages."""
        return True

    def make(self, resolution: Resolution, features: bool, attention: Attention) -> nn.Module:
        """The module; it takes any input."""
        from .pyramid_transformer import PyramidTransformer

        return PyramidTransformer(self, features, attention)


def _pvt(depths: tuple[int, int, int, int], deformable_points: int | None = None) -> Pvt:
    """Widths, heads, ratios and expansions are those of every PVT and DPT."""
    return Pvt(
        stages=(
            PvtStage(64, 1, depths[0], ratio=8, expansion=8),
            PvtStage(128, 2, depths[1], ratio=4, expansion=8),
            PvtStage(320, 5, depths[2], ratio=2, expansion=4),
            PvtStage(512, 8, depths[3], ratio=1, expansion=4),
        ),
        deformable_points=deformable_points,
    )


PVT_T = _pvt((2, 2, 2, 2))
PVT_S = _pvt((3, 4, 6, 3))
PVT_M = _pvt((3, 4, 18, 3))
PVT_L = _pvt((3, 8, 27, 3))

DPT_T = _pvt((2, 2, 2, 2), deformable_points=3)
DPT_S = _pvt((3, 4, 6, 3), deformable_points=3)
DPT_M = _pvt((3, 4, 18, 3), deformable_points=3)

_PVT, _DPT = "PVT (ICCV 2021)", "DPT (ACM MM 2021)"

PVT_SPECS = (
    ComparisonSpec("pvt_t", PVT_T, _PVT, "PVT-Tiny"),
    ComparisonSpec("pvt_s", PVT_S, _PVT, "PVT-Small"),
    ComparisonSpec("pvt_m", PVT_M, _PVT, "PVT-Medium"),
    ComparisonSpec("pvt_l", PVT_L, _PVT, "PVT-Large"),
    ComparisonSpec("dpt_t", DPT_T, _DPT, "DPT-Tiny, PVT with deformable patches"),
    ComparisonSpec("dpt_s", DPT_S, _DPT, "DPT-Small, PVT with deformable patches"),
    ComparisonSpec("dpt_m", DPT_M, _DPT, "DPT-Medium, PVT with deformable patches"),
)
