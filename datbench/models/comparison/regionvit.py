"""RegionViT: local tokens on a map of stride 4, and a regional token for each window of them.

In a block the regional tokens attend to each other, then each window attends within itself and its
regional token, through the same attention weights. Regional maps are window times coarser than
local ones at every stage.

Sources: "RegionViT: Regional-to-Local Attention for Vision Transformers" (Chen et al., ICLR 2022),
and IBM/RegionViT for what the paper leaves open.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...setting import Attention
from ..layers import MapConv, Mlp, check_sides
from ..mixers.window import relative_index
from .tokens import EPS, TokenAttention, embedding


@dataclass(frozen=True)
class RegionVit:
    """A RegionViT; widths, heads and depths are those of the four stages."""

    dims: tuple[int, int, int, int]
    heads: tuple[int, int, int, int]
    depths: tuple[int, int, int, int]
    window: int = 7  # side of a regional token's window, in local tokens
    expansion: int = 4
    classes: int = 1000


MODELS = {
    "regionvit_s": RegionVit(dims=(96, 192, 384, 768), heads=(3, 6, 12, 24), depths=(2, 2, 8, 2))
}

STRIDE = 4
"""The stride of the first local map."""


class LocalEmbedding(nn.Sequential):
    """Three convolutions 3x3, the first two with stride 2: (B, H, W, 3) -> (B, H/4, W/4, C)."""

    def __init__(self, dim: int) -> None:
        super().__init__(
            MapConv(3, dim // 4, 3, stride=2, padding=1),
            nn.LayerNorm(dim // 4),
            nn.GELU(),
            MapConv(dim // 4, dim // 2, 3, stride=2, padding=1),
            nn.LayerNorm(dim // 2),
            nn.GELU(),
            MapConv(dim // 2, dim, 3, padding=1),
        )


class RegionalEmbedding(nn.Module):
    """A linear embedding of whole regions; a last one that is cut is padded with zeros."""

    def __init__(self, dim: int, region: int) -> None:
        super().__init__()
        self.region = region
        self.conv = MapConv(3, dim, region, stride=region)

    def forward(self, x: Tensor) -> Tensor:
        h, w, side = x.shape[1], x.shape[2], self.region
        x = F.pad(x, (0, 0, 0, -w % side, 0, -h % side)) if h % side or w % side else x
        return self.conv(x)


class RegionBlock(nn.Module):
    """Regional attention, local attention, FFN.

    Tokens are (B, R, 1 + N, C): of R regions, the regional token and then its N local ones.
    """

    def __init__(self, config: RegionVit, stage: int, attention: Attention) -> None:
        super().__init__()
        dim, heads = config.dims[stage], config.heads[stage]
        self.norm0 = nn.LayerNorm(dim, eps=EPS)
        self.norm1 = nn.LayerNorm(dim, eps=EPS)
        self.attn = TokenAttention(dim, heads, attention)
        span = 2 * config.window - 1
        self.bias_table = embedding(heads, span * span)
        self.norm2 = nn.LayerNorm(dim, eps=EPS)
        self.ffn = Mlp(dim, config.expansion)

    def forward(self, x: Tensor, index: Tensor, mask: Tensor | None) -> Tensor:
        b, r, n, c = x.shape
        regional = x[:, :, 0]  # (B, R, C)
        regional = regional + self.attn(self.norm0(regional))
        x = torch.cat((regional[:, :, None], x[:, :, 1:]), dim=2).view(b * r, n, c)
        x = x + self.attn(self.norm1(x), self._bias(index, mask, b))
        x = x + self.ffn(self.norm2(x))
        return x.view(b, r, n, c)

    def _bias(self, index: Tensor, mask: Tensor | None, batch: int) -> Tensor:
        """(M, 1 + N, 1 + N), or (B R, M, 1 + N, 1 + N) with a mask; a regional token has none."""
        n = index.shape[0]
        bias = self.bias_table[:, index.view(-1)].view(-1, n, n)  # (M, N, N)
        bias = F.pad(bias, (1, 0, 1, 0))  # (M, 1 + N, 1 + N)
        if mask is None:
            return bias
        bias = bias + mask[:, None, None]  # (R, M, 1 + N, 1 + N)
        return bias.expand(batch, -1, -1, -1, -1).flatten(0, 1)  # (B R, M, 1 + N, 1 + N)


class RegionStage(nn.Module):
    """Down-sampling of both maps (none in the first stage), then the blocks."""

    index: Tensor

    def __init__(self, config: RegionVit, stage: int, attention: Attention) -> None:
        super().__init__()
        self.window = config.window
        self.downsample: nn.Module = nn.Identity()
        if stage:
            before, dim = config.dims[stage - 1], config.dims[stage]
            self.downsample = nn.Sequential(
                nn.LayerNorm(before),
                nn.GELU(),
                MapConv(before, dim, 3, stride=2, padding=1, groups=before),
            )
        self.blocks = nn.ModuleList(
            RegionBlock(config, stage, attention) for _ in range(config.depths[stage])
        )
        self.register_buffer("index", relative_index(config.window), persistent=False)

    def forward(self, regional: Tensor, local: Tensor) -> tuple[Tensor, Tensor]:
        regional, local = self.downsample(regional), self.downsample(local)
        b, rows, cols, c = regional.shape
        h, w, s = local.shape[1], local.shape[2], self.window
        bottom, right = rows * s - h, cols * s - w
        mask = None
        if bottom or right:
            local = F.pad(local, (0, 0, 0, right, 0, bottom))
            mask = _mask(h, w, rows, cols, s, local)
        x = local.view(b, rows, s, cols, s, c).transpose(2, 3)  # (B, rows, cols, s, s, C)
        x = x.reshape(b, rows * cols, s * s, c)  # (B, R, N, C)
        x = torch.cat((regional.flatten(1, 2)[:, :, None], x), dim=2)  # (B, R, 1 + N, C)
        for block in self.blocks:
            x = block(x, self.index, mask)
        regional = x[:, :, 0].reshape(b, rows, cols, c)
        local = x[:, :, 1:].reshape(b, rows, cols, s, s, c).transpose(2, 3)
        return regional, local.reshape(b, rows * s, cols * s, c)[:, :h, :w]


class RegionHead(nn.Module):
    """LN, mean of the regional tokens, linear: (B, rows, cols, C) -> (B, classes)."""

    def __init__(self, dim: int, classes: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim, eps=EPS)
        self.linear = nn.Linear(dim, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.norm(x).mean(dim=(1, 2)))


class RegionVitModel(nn.Module):
    """A RegionViT as `config` describes it.

    Input (B, 3, H, W), both sides at least 32. Returns logits (B, classes), or with `features`
    a list of the local maps, normalised, (B, C_i, H_i, W_i) for strides 4, 8, 16 and 32.
    """

    def __init__(self, config: RegionVit, features: bool, attention: Attention) -> None:
        super().__init__()
        self.local = LocalEmbedding(config.dims[0])
        self.regional = RegionalEmbedding(config.dims[0], STRIDE * config.window)
        self.stages = nn.ModuleList(
            RegionStage(config, stage, attention) for stage in range(len(config.dims))
        )
        self.norms = nn.ModuleList(map(nn.LayerNorm, config.dims)) if features else None
        self.head = None if features else RegionHead(config.dims[-1], config.classes)

    def forward(self, image: Tensor) -> Tensor | list[Tensor]:
        check_sides(image)
        x = image.permute(0, 2, 3, 1)  # (B, H, W, 3)
        regional, local = self.regional(x), self.local(x)
        maps: list[Tensor] = []
        for i, stage in enumerate(self.stages):
            regional, local = stage(regional, local)
            if self.norms is not None:
                maps.append(self.norms[i](local).permute(0, 3, 1, 2))  # (B, C_i, H_i, W_i)
        return maps if self.head is None else self.head(regional)


def _mask(h: int, w: int, rows: int, cols: int, window: int, like: Tensor) -> Tensor:
    """(R, 1 + N): minus infinity at padded local keys, 0 at others and at the regional token."""
    inside = torch.zeros(h, w, dtype=like.dtype, device=like.device)
    right, bottom = cols * window - w, rows * window - h
    mask = F.pad(inside, (0, right, 0, bottom), value=float("-inf"))
    mask = mask.view(rows, window, cols, window).transpose(1, 2)  # (rows, cols, s, s)
    return F.pad(mask.reshape(rows * cols, window * window), (1, 0))


MODULE = RegionVitModel
