"""NAT: neighbourhood attention in every block of a pyramid, with overlapping convolutions between.

Source: "Neighborhood Attention Transformer" (CVPR 2023), Table 1, and its published code,
SHI-Labs/Neighborhood-Attention-Transformer, `classification/nat.py`.
"""

from __future__ import annotations

from ..config import Neighborhood, Pyramid, Stage
from ..pyramid import PyramidBackbone

MODULE = PyramidBackbone


def _nat(head: int, depth: int, expansion: int, layer_scale: float | None = None) -> Pyramid:
    """Heads of 32 channels, `head` of them in stage 1; `depth` blocks in stage 3."""
    first, second, third, fourth = (
        Stage(32 * head * 2**i, head * 2**i, (Neighborhood(7),) * blocks)
        for i, blocks in enumerate((3, 4, depth, 5))
    )
    return Pyramid(
        (first, second, third, fourth),
        stem="convs",
        downsample="overlap",
        expansion=expansion,
        layer_scale=layer_scale,
    )


MODELS = {
    "nat_mini": _nat(2, depth=6, expansion=3),
    "nat_t": _nat(2, depth=18, expansion=3),
    "nat_s": _nat(3, depth=18, expansion=2, layer_scale=1e-5),
    "nat_b": _nat(4, depth=18, expansion=2, layer_scale=1e-5),
}
