"""DAT as the CVPR 2022 code writes it, with the rows of the paper's ablation tables.

Sources: the 2022 code of LeapLabTHU/DAT (models/dat.py, models/dat_blocks.py, commit 42b489e);
`PyramidAttention` of its 2023 code (2f31405); LeapLabTHU/DAT-Detection (models/utils/dat_blocks.py,
4d4023d) for maps that are no multiple of the window and for `DAttentionDCN`, the attention of
Deformable DETR. Dropout and drop path are left out: they do not act in evaluation mode.
"""

from collections import OrderedDict
from dataclasses import replace
from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from .config2022 import Dat2022Config, Mixer, StageConfig
from .deformable2022 import DeformableAttention
from .layers import LayerNormProxy
from .others2022 import DeformableDetrAttention, PyramidAttention
from .window2022 import LocalAttention, ShiftWindowAttention


class Ffn(nn.Module):
    """Linear, GELU, linear on tokens (2022: `TransformerMLP`)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        layers["linear1"] = nn.Linear(dim, 4 * dim)
        layers["act"] = nn.GELU()
        layers["linear2"] = nn.Linear(4 * dim, dim)
        self.chunk = nn.Sequential(layers)

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        x = self.chunk(x.flatten(2).transpose(1, 2))  # (B, HW, C)
        return x.transpose(1, 2).reshape(b, c, h, w)  # (B, C, H, W)


class ConvFfn(nn.Module):
    """With a depthwise convolution before the GELU (2022: `TransformerMLPWithConv`)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.linear1 = nn.Conv2d(dim, 4 * dim, 1)
        self.linear2 = nn.Conv2d(4 * dim, dim, 1)
        self.dwc = nn.Conv2d(4 * dim, 4 * dim, 3, padding=1, groups=4 * dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear2(F.gelu(self.dwc(self.linear1(x))))


def make_mixer(mixer: Mixer, config: Dat2022Config, stage: StageConfig, map_size: int) -> nn.Module:
    """The token mixer of one block."""
    if mixer == "local":
        return LocalAttention(stage.dim, stage.heads, config.window)
    if mixer == "shifted":
        return ShiftWindowAttention(stage.dim, stage.heads, config.window, map_size)
    if mixer == "deformable":
        return DeformableAttention(stage, map_size, config.position, config.offsets)
    if mixer == "pyramid":
        return PyramidAttention(stage.dim, stage.heads, stage.reduction)
    if mixer == "ddetr":
        return DeformableDetrAttention(stage.dim, stage.heads, stage.points, map_size)
    raise ValueError(f"unknown mixer {mixer!r}")


class TransformerStage(nn.Module):
    """Pre-norm blocks: a mixer, then a feed-forward network (2022: `TransformerStage`)."""

    def __init__(self, config: Dat2022Config, stage: StageConfig, map_size: int) -> None:
        super().__init__()
        blocks = len(stage.mixers)
        ffn = ConvFfn if config.conv_ffn else Ffn
        self.layer_norms = nn.ModuleList(LayerNormProxy(stage.dim) for _ in range(2 * blocks))
        self.mlps = nn.ModuleList(ffn(stage.dim) for _ in range(blocks))
        self.attns = nn.ModuleList(make_mixer(m, config, stage, map_size) for m in stage.mixers)

    def forward(self, x: Tensor) -> Tensor:
        for i, (attn, mlp) in enumerate(zip(self.attns, self.mlps, strict=True)):
            x = attn(self.layer_norms[2 * i](x)) + x
            x = mlp(self.layer_norms[2 * i + 1](x)) + x
        return x


class Dat2022(nn.Module):
    """Image (B, 3, H, W) -> logits (B, num_classes) (2022: `DAT`)."""

    def __init__(self, config: Dat2022Config) -> None:
        super().__init__()
        self.config = config
        dims = [stage.dim for stage in config.stages]
        overlap = config.conv_patches
        self.patch_proj = nn.Sequential(
            nn.Conv2d(3, dims[0], 7 if overlap else 4, 4, 3 if overlap else 0),
            LayerNormProxy(dims[0]),
        )
        self.stages = nn.ModuleList(
            TransformerStage(config, stage, config.image_size // (4 * 2**i))
            for i, stage in enumerate(config.stages)
        )
        self.down_projs = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(a, b, 3 if overlap else 2, 2, 1 if overlap else 0, bias=False),
                LayerNormProxy(b),
            )
            for a, b in pairwise(dims)
        )
        self.cls_norm = LayerNormProxy(dims[-1])
        self.cls_head = nn.Linear(dims[-1], config.num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch_proj(x)  # (B, C, H/4, W/4)
        for i, stage in enumerate(self.stages):
            x = stage(x)
            if i < len(self.down_projs):
                x = self.down_projs[i](x)
        x = F.adaptive_avg_pool2d(self.cls_norm(x), 1).flatten(1)  # (B, C)
        return self.cls_head(x)


SHIFTED: tuple[Mixer, ...] = ("local", "shifted")
DEFORMABLE: tuple[Mixer, ...] = ("local", "deformable")
DDETR: tuple[Mixer, ...] = ("local", "ddetr")
PYRAMID: tuple[Mixer, ...] = ("pyramid", "pyramid")

# Table 1; kernels of the offset network by stage 9, 7, 5, 3 (2022 code).
DAT_T = Dat2022Config(
    stages=(
        StageConfig(dim=96, heads=3, mixers=SHIFTED),
        StageConfig(dim=192, heads=6, mixers=SHIFTED),
        StageConfig(dim=384, heads=12, mixers=DEFORMABLE * 3, groups=3, kernel=5),
        StageConfig(dim=768, heads=24, mixers=DEFORMABLE, groups=6, kernel=3),
    )
)
DAT_S = Dat2022Config(
    stages=(
        StageConfig(dim=96, heads=3, mixers=SHIFTED),
        StageConfig(dim=192, heads=6, mixers=SHIFTED),
        StageConfig(dim=384, heads=12, mixers=DEFORMABLE * 9, groups=3, kernel=5),
        StageConfig(dim=768, heads=24, mixers=DEFORMABLE, groups=6, kernel=3),
    )
)
DAT_B = Dat2022Config(
    stages=(
        StageConfig(dim=128, heads=4, mixers=SHIFTED),
        StageConfig(dim=256, heads=8, mixers=SHIFTED),
        StageConfig(dim=512, heads=16, mixers=DEFORMABLE * 9, groups=4, kernel=5),
        StageConfig(dim=1024, heads=32, mixers=DEFORMABLE, groups=8, kernel=3),
    )
)

_ONE, _TWO, _THREE, _FOUR = DAT_T.stages
_DEFORMABLE_ONE = replace(_ONE, mixers=DEFORMABLE, groups=1, stride=4, kernel=9)
_DEFORMABLE_TWO = replace(_TWO, mixers=DEFORMABLE, groups=2, stride=2, kernel=7)
_PYRAMID_ONE = replace(_ONE, mixers=PYRAMID, reduction=8)
_PYRAMID_TWO = replace(_TWO, mixers=PYRAMID, reduction=4)
_DDETR_THREE = replace(_THREE, mixers=DDETR * 3)
_DDETR_FOUR = replace(_FOUR, mixers=DDETR)


def _ddetr(points_three: int, points_four: int) -> Dat2022Config:
    three = replace(_DDETR_THREE, points=points_three)
    return replace(DAT_T, stages=(_ONE, _TWO, three, replace(_DDETR_FOUR, points=points_four)))


def _coarser(config: Dat2022Config) -> Dat2022Config:
    one, two, three, four = config.stages
    return replace(config, stages=(one, two, replace(three, stride=2), four))


VARIANTS: dict[str, Dat2022Config] = {
    # Table 2
    "dat_t": DAT_T,
    "dat_s": DAT_S,
    "dat_b": DAT_B,
    "dat_b_384": replace(DAT_B, image_size=384, window=12),
    # Table 9
    "dat_t_star": replace(DAT_T, conv_patches=True),
    # Table 6
    "dat_t_no_offsets_no_bias": replace(DAT_T, offsets="unused", position="none"),
    "dat_t_no_offsets": replace(DAT_T, offsets="unused"),
    "dat_t_no_bias": replace(DAT_T, position="none"),
    "dat_t_fixed": replace(DAT_T, position="fixed"),
    "dat_t_dwconv": replace(DAT_T, position="dwconv"),
    "dat_t_pyramid": replace(DAT_T, stages=(_PYRAMID_ONE, _PYRAMID_TWO, _THREE, _FOUR)),
    # Table 7: the stages with deformable attention
    "dat_t_stages_1234": replace(DAT_T, stages=(_DEFORMABLE_ONE, _DEFORMABLE_TWO, _THREE, _FOUR)),
    "dat_t_stages_234": replace(DAT_T, stages=(_ONE, _DEFORMABLE_TWO, _THREE, _FOUR)),
    "dat_t_stages_4": replace(
        DAT_T, stages=(_ONE, _TWO, replace(_THREE, mixers=SHIFTED * 3), _FOUR)
    ),
    # Table 8: keys per query in stages 3 and 4
    "ddetr_16_16": _ddetr(16, 16),
    "ddetr_49_49": _ddetr(49, 49),
    "ddetr_196_49": _ddetr(196, 49),
    "dat_t_49_49": replace(DAT_T, stages=(_ONE, _TWO, replace(_THREE, stride=2), _FOUR)),
    # Tables 3 to 5
    "dat_s_49_49": _coarser(DAT_S),
    "dat_b_49_49": _coarser(DAT_B),
}

#: Trainable parameters in millions: the paper's cells where they are exact, to four digits.
PARAMETERS_M: dict[str, float] = {
    "dat_t": 28.3191,
    "dat_s": 49.7004,
    "dat_b": 87.8816,
    "dat_b_384": 88.1783,
    "dat_t_star": 30.2640,
    "dat_t_no_offsets_no_bias": 28.2888,
    "dat_t_no_offsets": 28.3191,
    "dat_t_no_bias": 28.2888,
    "dat_t_fixed": 29.7294,
    "dat_t_dwconv": 28.3080,
    "dat_t_pyramid": 30.6771,
    "dat_t_stages_1234": 28.3862,
    "dat_t_stages_234": 28.3415,
    "dat_t_stages_4": 28.2875,
    "ddetr_16_16": 27.7585,
    "ddetr_49_49": 30.9578,
    "ddetr_196_49": 37.0700,
    "dat_t_49_49": 28.3191,
    "dat_s_49_49": 49.7004,
    "dat_b_49_49": 87.8816,
}


def build_dat2022(config: str | Dat2022Config) -> Dat2022:
    """A model by the name of its variant or from a configuration; in evaluation mode."""
    return Dat2022(VARIANTS[config] if isinstance(config, str) else config).eval()
