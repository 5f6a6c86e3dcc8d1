"""Spatial-reduction attention (PVT), as DAT's Table 6 uses it in stages 1 and 2."""

from __future__ import annotations

from torch import Tensor, nn

from ..config import SpatialReduction
from ..layers import MapConv, Pointwise
from .attention import Mixer, attend


class SpatialReductionAttention(Mixer):
    """(B, H, W, C) -> (B, H, W, C); keys from floor(H / ratio) x floor(W / ratio) pixels.

    `projection` is the layer of the published code: DAT's is a 1x1 convolution, PVT's linear.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        config: SpatialReduction,
        projection: type[nn.Linear] = Pointwise,
    ) -> None:
        super().__init__(dim, heads)
        self.query = projection(dim, dim)
        self.key_value = projection(dim, 2 * dim)
        self.out = projection(dim, dim)
        self.reduce = (
            nn.Sequential(MapConv(dim, dim, config.ratio, stride=config.ratio), nn.LayerNorm(dim))
            if config.ratio > 1
            else nn.Identity()
        )

    def forward(self, x: Tensor) -> Tensor:
        b, h, w, c = x.shape
        q = self.query(x).view(b, h * w, self.heads, self.head_dim).transpose(1, 2)
        kv = self.key_value(self.reduce(x))  # (B, Hk, Wk, 2C)
        kv = kv.view(b, -1, 2, self.heads, self.head_dim)  # (B, Ns, 2, M, d)
        k, v = kv.permute(2, 0, 3, 1, 4).unbind(0)  # (B, M, Ns, d) each
        x = attend(q, k, v, self.scale, None, self.attention)  # (B, M, HW, d)
        return self.out(x.transpose(1, 2).reshape(b, h, w, c))
