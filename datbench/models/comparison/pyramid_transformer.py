"""PVT and DPT: four stages of spatial-reduction attention, position embeddings, a class token."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...errors import UsageError
from ...types import MIN_SIDE, Attention
from ..config import SpatialReduction
from ..layers import DropPath, MapConv, Mlp
from ..mixers import Mixer, SpatialReductionAttention
from .deformable_patch import DeformablePatch
from .pvt import Pvt

EPS = 1e-6
"""Of the published blocks' LayerNorm; patches and reduced keys have PyTorch's default."""


class PvtBlock(nn.Module):
    """x + attention(LN(x)), x + mlp(LN(x)); (B, H, W, C)."""

    def __init__(self, config: Pvt, stage: int, drop_path: float) -> None:
        super().__init__()
        here = config.stages[stage]
        self.norm1 = nn.LayerNorm(here.dim, eps=EPS)
        reduction = SpatialReduction(here.ratio)
        self.mixer = SpatialReductionAttention(here.dim, here.heads, reduction, nn.Linear)
        self.norm2 = nn.LayerNorm(here.dim, eps=EPS)
        self.ffn = Mlp(here.dim, here.expansion)
        self.drop_path = DropPath(drop_path) if drop_path else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path(self.mixer(self.norm1(x)))
        branch: Tensor = self.drop_path(self.ffn(self.norm2(x)))
        return x + branch


class Patches(nn.Sequential):
    """Plain patches: (B, H, W, C) -> (B, H/size, W/size, dim)."""

    def __init__(self, dim_in: int, dim: int, size: int) -> None:
        super().__init__(MapConv(dim_in, dim, size, stride=size), nn.LayerNorm(dim))


class PvtStageModule(nn.Module):
    """Patches, position embeddings, blocks.

    With `class_token`, the last stage's blocks see the map as one row of pixels with the class
    token in front, and so does what follows: (B, 1, 1 + H W, C).
    """

    def __init__(self, config: Pvt, stage: int, rates: list[float], class_token: bool) -> None:
        super().__init__()
        here = config.stages[stage]
        if not stage:
            self.patches: nn.Module = Patches(3, here.dim, 4)
        else:
            before, points = config.stages[stage - 1].dim, config.deformable_points
            self.patches = (
                DeformablePatch(before, here.dim, points)
                if points
                else Patches(before, here.dim, 2)
            )
        side = config.image_size // 4 >> stage
        self.positions = _embedding(side, side, here.dim)
        self.class_token = _embedding(1, 1, here.dim) if class_token else None
        self.class_position = _embedding(1, 1, here.dim) if class_token else None
        self.blocks = nn.Sequential(*(PvtBlock(config, stage, rate) for rate in rates))

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x)
        x = x + self._positions(*x.shape[1:3])
        if self.class_token is not None and self.class_position is not None:
            token = (self.class_token + self.class_position).expand(len(x), -1, -1, -1)
            x = torch.cat((token, x.flatten(1, 2)[:, None]), dim=2)  # (B, 1, 1 + HW, C)
        y: Tensor = self.blocks(x)
        return y

    def _positions(self, h: int, w: int) -> Tensor:
        """Position embeddings for a map of h x w, (1, h, w, C)."""
        if (h, w) == self.positions.shape[1:3]:
            return self.positions
        table = self.positions.permute(0, 3, 1, 2)  # (1, C, H, W)
        return F.interpolate(table, (h, w), mode="bilinear").permute(0, 2, 3, 1)


def _embedding(h: int, w: int, dim: int) -> nn.Parameter:
    table = torch.zeros(1, h, w, dim)
    nn.init.trunc_normal_(table, std=0.02)
    return nn.Parameter(table)


class ClassTokenHead(nn.Module):
    """LN, the class token, linear: (B, 1, 1 + N, C) -> (B, classes)."""

    def __init__(self, dim: int, classes: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim, eps=EPS)
        self.linear = nn.Linear(dim, classes)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.linear(self.norm(x)[:, 0, 0])
        return logits


class PyramidTransformer(nn.Module):
    """A PVT or DPT as `config` describes it.

    Args:
        features: return four maps for dense prediction instead of logits; as in the published
            detection code they are not normalised, and there is no class token.
        attention: how attention products are computed; see `datbench.types.Attention`.

    Input (B, 3, H, W), both sides at least 32; position embeddings are resized bilinearly where
    the input is not of the training size. Returns logits (B, classes), or with `features` a list
    of (B, C_i, H_i, W_i) for strides 4, 8, 16 and 32.
    """

    def __init__(self, config: Pvt, features: bool = False, attention: Attention = "eager") -> None:
        super().__init__()
        self.config = config
        depths = [stage.depth for stage in config.stages]
        last = max(sum(depths) - 1, 1)
        rates = [config.drop_path * i / last for i in range(sum(depths))]
        self.stages = nn.ModuleList(
            PvtStageModule(
                config,
                i,
                rates[sum(depths[:i]) : sum(depths[: i + 1])],
                class_token=not features and i == len(depths) - 1,
            )
            for i in range(len(depths))
        )
        self.head = None if features else ClassTokenHead(config.stages[-1].dim, config.classes)
        for module in self.modules():
            if isinstance(module, Mixer):
                module.attention = attention

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        height, width = x.shape[-2:]
        if min(height, width) < MIN_SIDE:
            raise UsageError(
                f"input {width}x{height} is too small: both sides need at least {MIN_SIDE} pixels."
            )
        x = x.permute(0, 2, 3, 1)  # (B, H, W, 3)
        maps: list[Tensor] = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x.permute(0, 3, 1, 2))  # (B, C_i, H_i, W_i)
        return maps if self.head is None else self.head(x)
