"""Token mixers: one file each. `make_mixer` turns a frozen config into its module."""

from __future__ import annotations

from ..config import Deformable, DeformableDetr, Neighborhood, SpatialReduction, Window
from ..config import Mixer as MixerConfig
from .attention import Mixer
from .deformable import DeformableAttention
from .deformable_detr import DeformableDetrAttention
from .neighborhood import NeighborhoodAttention
from .spatial_reduction import SpatialReductionAttention
from .window import WindowAttention


def make_mixer(config: MixerConfig, dim: int, heads: int, map_side: int) -> Mixer:
    """The module that `config` describes, for maps of side `map_side` at the training size."""
    match config:
        case Window():
            return WindowAttention(dim, heads, config, map_side)
        case Neighborhood():
            return NeighborhoodAttention(dim, heads, config)
        case SpatialReduction():
            return SpatialReductionAttention(dim, heads, config)
        case Deformable():
            return DeformableAttention(dim, heads, config, map_side)
        case DeformableDetr():
            return DeformableDetrAttention(dim, heads, config, map_side)
