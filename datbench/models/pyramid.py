"""The pyramid backbone: a stem, four stages with down-sampling between them, a head."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from ..setting import Attention
from .config import Mixer as MixerConfig
from .config import Pyramid
from .layers import (
    DropPath,
    LayerScale,
    Pointwise,
    check_sides,
    depthwise,
    drop_rates,
    make_downsample,
    make_ffn,
    make_stem,
)
from .mixers import make_mixer
from .mixers.attention import Mixer


class Block(nn.Module):
    """x + lpu(x), x + mixer(LN(x)), x + ffn(LN(x)): paper Eqs. 4 and 5. (B, H, W, C)."""

    def __init__(self, config: Pyramid, mixer: MixerConfig, stage: int, drop_path: float) -> None:
        super().__init__()
        dim, heads = config.stages[stage].dim, config.stages[stage].heads
        self.lpu = depthwise(dim) if config.lpu else None
        self.norm1 = nn.LayerNorm(dim)
        self.mixer = make_mixer(mixer, dim, heads, config.map_side(stage))
        self.norm2 = nn.LayerNorm(dim)
        self.ffn = make_ffn(config.ffn, dim, config.expansion)
        scaled = config.layer_scale
        self.scale1 = nn.Identity() if scaled is None else LayerScale(dim, scaled)
        self.scale2 = nn.Identity() if scaled is None else LayerScale(dim, scaled)
        self.drop_path = DropPath(drop_path) if drop_path else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        if self.lpu is not None:
            x = x + self.lpu(x)
        x = x + self.drop_path(self.scale1(self.mixer(self.norm1(x))))
        return x + self.drop_path(self.scale2(self.ffn(self.norm2(x))))


class StageModule(nn.Module):
    """Down-sampling from the previous stage (none in the first), then the blocks.

    Where the stem's width is not the first stage's, that stage begins with a projection.
    """

    def __init__(self, config: Pyramid, stage: int, rates: list[float]) -> None:
        super().__init__()
        here = config.stages[stage]
        self.downsample = (
            make_downsample(config.downsample, config.stages[stage - 1].dim, here.dim)
            if stage
            else nn.Identity()
        )
        stem = here.dim if stage or config.stem_dim is None else config.stem_dim
        self.projection = None if stem == here.dim else Pointwise(stem, here.dim)
        self.blocks = nn.Sequential(
            *(
                Block(config, mixer, stage, rate)
                for mixer, rate in zip(here.blocks, rates, strict=True)
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.downsample(x)
        if self.projection is not None:
            x = self.projection(x)
        return self.blocks(x)


class Head(nn.Module):
    """LN, global average pooling, linear: (B, H, W, C) -> (B, classes); (B, C) for 0 classes."""

    def __init__(self, dim: int, classes: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.linear: nn.Module = nn.Linear(dim, classes) if classes else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(x).permute(0, 3, 1, 2)  # (B, C, H, W), a view
        return self.linear(F.adaptive_avg_pool2d(x, 1).flatten(1))


class PyramidBackbone(nn.Module):
    """A backbone as `config` describes it.

    Args:
        features: return four normalised maps for dense prediction instead of logits; there is a
            norm for each and no head.
        attention: how attention products are computed; see `datbench.setting.Attention`.

    Input (B, in_chans, H, W), both sides at least 32. Returns logits (B, classes), or with
    `features` a list of (B, C_i, H_i, W_i) for strides 4, 8, 16 and 32.
    """

    def __init__(
        self, config: Pyramid, features: bool = False, attention: Attention = "eager"
    ) -> None:
        super().__init__()
        self.config = config
        self.in_chans = config.in_chans
        stem_dim = config.stem_dim or config.stages[0].dim
        self.stem = make_stem(config.stem, stem_dim, config.in_chans)
        rates = drop_rates(config.drop_path, [len(stage.blocks) for stage in config.stages])
        self.stages = nn.ModuleList(StageModule(config, i, some) for i, some in enumerate(rates))
        dims = [stage.dim for stage in config.stages]
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for dim in dims) if features else None
        self.head = None if features else Head(dims[-1], config.classes)
        self.set_attention(attention)

    def set_attention(self, attention: Attention) -> None:
        """Compute attention this way in every mixer from now on."""
        for module in self.modules():
            if isinstance(module, Mixer):
                module.attention = attention

    def embed(self, x: Tensor) -> Tensor:
        """The stem: (B, in_chans, H, W) -> (B, H/4, W/4, C)."""
        check_sides(x)
        return self.stem(x.permute(0, 2, 3, 1))

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        x = self.embed(x)
        maps: list[Tensor] = []
        for i, stage in enumerate(self.stages):
            x = stage(x)
            if self.norms is not None:
                maps.append(self.norms[i](x).permute(0, 3, 1, 2))  # (B, C_i, H_i, W_i)
        return maps if self.head is None else self.head(x)
