"""PVT and DPT: four stages of spatial-reduction attention, position embeddings, a class token.

Sources: Pyramid Vision Transformer (Wang et al., ICCV 2021), Table 1; DPT: Deformable Patch-based
Transformer for Visual Recognition (Chen et al., ACM MM 2021): PVT's stages, with deformable patches
of 3x3 points in front of stages 2 to 4. What the papers leave open is as in whai362/PVT and
CASIA-IVA-Lab/DPT. PVT's Table 1 prints three blocks in stage 2 of S and M; the published code has
four, and the parameters that the paper's Table 2 prints are theirs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ...setting import Attention
from ..config import SpatialReduction
from ..layers import DropPath, MapConv, Mlp, check_sides, drop_rates, patches
from ..mixers.attention import Mixer
from ..mixers.grids import sample
from ..mixers.spatial_reduction import SpatialReductionAttention
from .tokens import EPS, embedding, resized


@dataclass(frozen=True)
class PvtStage:
    """Blocks at one resolution."""

    dim: int
    heads: int
    depth: int
    ratio: int  # how many times smaller than the map the keys' map is, to a side
    expansion: int  # of the feed-forward networks


@dataclass(frozen=True)
class Pvt:
    """A PVT, or with deformable patches a DPT."""

    stages: tuple[PvtStage, PvtStage, PvtStage, PvtStage]
    # Side k of the grid of points that each patch of stages 2 to 4 samples; None: plain patches.
    deformable_points: int | None = None
    image_size: int = 224  # side of the training input; it fixes the position embeddings' size
    classes: int = 1000
    drop_path: float = 0.0  # the last block's rate of stochastic depth, in training


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


MODELS = {
    "pvt_t": _pvt((2, 2, 2, 2)),
    "pvt_s": _pvt((3, 4, 6, 3)),
    "pvt_m": _pvt((3, 4, 18, 3)),
    "pvt_l": _pvt((3, 8, 27, 3)),
    "dpt_t": _pvt((2, 2, 2, 2), deformable_points=3),
    "dpt_s": _pvt((3, 4, 6, 3), deformable_points=3),
    "dpt_m": _pvt((3, 4, 18, 3), deformable_points=3),
}

INITIAL_EXTENT = 0.25
"""Half the side of the initial box, in patches: points on pixel centres of a 2x2 patch."""


class DeformablePatch(nn.Module):
    """(B, H, W, C) -> (B, H/2, W/2, dim); an odd last row or column makes no patch.

    DPT's DePatch: each patch moves and scales what it covers. A convolution over the plain patch,
    LN, GELU and a linear layer predict a box: its centre moves by up to one patch, its half side
    lies between 0 and one patch. The box is cut to the image, `points` x `points` points of it are
    sampled bilinearly, and a linear layer and LN follow.
    """

    def __init__(self, dim_in: int, dim: int, points: int) -> None:
        super().__init__()
        self.points = points
        self.patch = MapConv(dim_in, dim, 2, stride=2)
        self.patch_norm = nn.LayerNorm(dim)
        self.act = nn.GELU()
        self.box = nn.Linear(dim, 4, bias=False)
        nn.init.zeros_(self.box.weight)
        # tanh of it is the initial extent.
        self.extent_bias = nn.Parameter(torch.full((2,), math.atanh(INITIAL_EXTENT)))
        self.project = nn.Linear(points * points * dim_in, dim)
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        codes: Tensor = self.box(self.act(self.patch_norm(self.patch(x))))  # (B, h, w, 4)
        sampled = self._sample(x, self._points(codes))
        return self.norm(self.project(sampled))

    def _points(self, codes: Tensor) -> Tensor:
        """Where each patch samples, x the slower: (B, h, w, k, k, 2) as (x, y) in [-1, 1]."""
        _, h, w, _ = codes.shape
        cell = codes.new_tensor([1.0 / w, 1.0 / h])  # (x, y) with the image's sides as 1
        along_x = (torch.arange(w, device=codes.device, dtype=codes.dtype) + 0.5) / w
        along_y = (torch.arange(h, device=codes.device, dtype=codes.dtype) + 0.5) / h
        centre = torch.stack(torch.meshgrid(along_x, along_y, indexing="xy"), -1)  # (h, w, 2)
        centre = centre + codes[..., :2].tanh() * cell  # (B, h, w, 2)
        extent = (codes[..., 2:] + self.extent_bias).tanh().relu() * cell  # (B, h, w, 2)
        low, high = (centre - extent).clamp(0.0, 1.0), (centre + extent).clamp(0.0, 1.0)
        steps = torch.linspace(0.0, 1.0, self.points, device=codes.device, dtype=codes.dtype)
        spread = low[..., None] + (high - low)[..., None] * steps  # (B, h, w, 2, k)
        k = self.points
        xs = spread[..., 0, :, None].expand(-1, -1, -1, k, k)
        ys = spread[..., 1, None, :].expand(-1, -1, -1, k, k)
        return torch.stack((xs, ys), -1) * 2.0 - 1.0

    def _sample(self, x: Tensor, points: Tensor) -> Tensor:
        """Bilinear features at the points, zero outside: (B, h, w, k k C)."""
        b, h, w, k, _, _ = points.shape
        grid = points.reshape(b, h * w, k * k, 2)
        maps = x.permute(0, 3, 1, 2)  # (B, C, H, W)
        sampled = sample(maps, grid, align_corners=False)
        return sampled.permute(0, 2, 3, 1).reshape(b, h, w, -1)  # from (B, C, h w, k k)


class PvtBlock(nn.Module):
    """x + attention(LN(x)), x + mlp(LN(x)); (B, H, W, C).

    Patches and reduced keys have PyTorch's default epsilon in their LayerNorm, as published.
    """

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
        return x + self.drop_path(self.ffn(self.norm2(x)))


class PvtStageModule(nn.Module):
    """Patches, position embeddings, blocks.

    With `class_token`, the last stage's blocks see the map as one row of pixels with the class
    token in front, and so does what follows: (B, 1, 1 + H W, C).
    """

    def __init__(self, config: Pvt, stage: int, rates: list[float], class_token: bool) -> None:
        super().__init__()
        here = config.stages[stage]
        before, points = config.stages[stage - 1].dim, config.deformable_points
        self.patches: nn.Module
        if stage and points:
            self.patches = DeformablePatch(before, here.dim, points)
        else:
            self.patches = patches(before, here.dim, 2) if stage else patches(3, here.dim, 4)
        side = config.image_size // 4 >> stage
        self.positions = embedding(1, side, side, here.dim)
        self.class_token = embedding(1, 1, 1, here.dim) if class_token else None
        self.class_position = embedding(1, 1, 1, here.dim) if class_token else None
        self.blocks = nn.Sequential(*(PvtBlock(config, stage, rate) for rate in rates))

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x)
        x = x + resized(self.positions, x.shape[1], x.shape[2], "bilinear")
        if self.class_token is not None and self.class_position is not None:
            token = (self.class_token + self.class_position).expand(len(x), -1, -1, -1)
            x = torch.cat((token, x.flatten(1, 2)[:, None]), dim=2)  # (B, 1, 1 + HW, C)
        return self.blocks(x)


class ClassTokenHead(nn.Module):
    """LN, the class token, linear: (B, 1, 1 + N, C) -> (B, classes)."""

    def __init__(self, dim: int, classes: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim, eps=EPS)
        self.linear = nn.Linear(dim, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.norm(x)[:, 0, 0])


class PyramidTransformer(nn.Module):
    """A PVT or DPT as `config` describes it.

    Args:
        features: return four maps for dense prediction instead of logits; as in the published
            detection code they are not normalised, and there is no class token.
        attention: how attention products are computed; see `datbench.setting.Attention`.

    Input (B, 3, H, W), both sides at least 32; position embeddings are resized bilinearly where
    the input is not of the training size. Returns logits (B, classes), or with `features` a list
    of (B, C_i, H_i, W_i) for strides 4, 8, 16 and 32.
    """

    def __init__(self, config: Pvt, features: bool = False, attention: Attention = "eager") -> None:
        super().__init__()
        self.config = config
        rates = drop_rates(config.drop_path, [stage.depth for stage in config.stages])
        self.stages = nn.ModuleList(
            PvtStageModule(config, i, some, class_token=not features and i == len(rates) - 1)
            for i, some in enumerate(rates)
        )
        self.head = None if features else ClassTokenHead(config.stages[-1].dim, config.classes)
        for module in self.modules():
            if isinstance(module, Mixer):
                module.attention = attention

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        check_sides(x)
        x = x.permute(0, 2, 3, 1)  # (B, H, W, 3)
        maps: list[Tensor] = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x.permute(0, 3, 1, 2))  # (B, C_i, H_i, W_i)
        return maps if self.head is None else self.head(x)


MODULE = PyramidTransformer
