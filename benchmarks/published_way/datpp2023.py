"""DAT++ as the 2023 code writes it.

Sources: LeapLabTHU/DAT at commit 2f31405 (models/dat.py, models/dat_blocks.py, models/nat.py and
configs/dat_{tiny,small,base,base_384}.yaml). The neighbourhood attention, there a CUDA kernel of
natten, is written plainly: it gathers the 49 neighbours of every query. Dropout and drop path are
left out: they do not act in evaluation mode.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .layers import LayerNormProxy

Mixer = Literal["neighborhood", "deformable"]


# ------------------------------------------------------------------------------ configuration


@dataclass(frozen=True)
class StageConfig:
    """One stage; the fields below `mixers` are of the deformable attention."""

    dim: int
    heads: int
    mixers: tuple[Mixer, ...]
    groups: int
    stride: int
    kernel: int
    offset_range: float = -1.0  # negative: free offsets, positions clamped


@dataclass(frozen=True)
class Datpp2023Config:
    """A DAT++; `image_size` sizes the bias tables."""

    stages: tuple[StageConfig, ...]
    image_size: int = 224
    neighborhood: int = 7
    num_classes: int = 1000


# -------------------------------------------------------------------- neighbourhood attention


def neighbors(n: int, kernel: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Of each of n positions on an axis: its kernel neighbours and their rows in the bias table.

    The window slides up to the border and stays there, so every query has kernel neighbours.
    """
    i = torch.arange(n, device=device)
    start = (i - kernel // 2).clamp(0, n - kernel)
    index = start[:, None] + torch.arange(kernel, device=device)  # (n, kernel)
    return index, index - i[:, None] + kernel - 1


class NeighborhoodAttention2D(nn.Module):
    """Attention to the nearest kernel x kernel pixels (2023: models/nat.py)."""

    def __init__(self, dim: int, heads: int, kernel: int) -> None:
        super().__init__()
        self.heads = heads
        self.kernel = kernel
        self.scale = (dim // heads) ** -0.5
        self.qkv = nn.Linear(dim, 3 * dim)
        side = 2 * kernel - 1
        self.rpb = nn.Parameter(nn.init.trunc_normal_(torch.empty(heads, side, side), std=0.02))
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        kernel = self.kernel
        x = x.permute(0, 2, 3, 1)  # (B, H, W, C)
        if height < kernel or width < kernel:
            x = F.pad(x, (0, 0, 0, max(0, kernel - width), 0, max(0, kernel - height)))
        b, h, w, c = x.shape
        heads, d = self.heads, c // self.heads
        qkv = self.qkv(x).reshape(b, h, w, 3, heads, d)  # (B, H, W, 3, heads, d)
        q, k, v = qkv.permute(3, 0, 4, 1, 2, 5)  # each (B, heads, H, W, d)

        rows, row_bias = neighbors(h, kernel, x.device)  # (H, kernel)
        columns, column_bias = neighbors(w, kernel, x.device)  # (W, kernel)
        rows, columns = rows[:, None, :, None], columns[None, :, None, :]
        near = (b, heads, h, w, kernel * kernel, d)  # from (B, heads, H, W, kernel, kernel, d)
        near_k = k[:, :, rows, columns].reshape(near)
        near_v = v[:, :, rows, columns].reshape(near)
        bias = self.rpb[:, row_bias[:, None, :, None], column_bias[None, :, None, :]]
        bias = bias.reshape(heads, h, w, kernel * kernel)  # (heads, H, W, kernel^2)

        attn = torch.einsum("bhyxd,bhyxnd->bhyxn", q * self.scale, near_k) + bias
        attn = attn.softmax(dim=-1)  # (B, heads, H, W, kernel^2)
        x = torch.einsum("bhyxn,bhyxnd->bhyxd", attn, near_v)  # (B, heads, H, W, d)
        x = x.permute(0, 2, 3, 1, 4).reshape(b, h, w, c)  # (B, H, W, C)
        x = x[:, :height, :width]
        return self.proj(x).permute(0, 3, 1, 2)  # (B, C, H, W)


# ---------------------------------------------------------------------- deformable attention


def key_grid(h: int, w: int, like: Tensor) -> Tensor:
    """(h, w, 2), (y, x): (i + 0.5) / (n - 1) * 2 - 1, as published: past 1 at the end, NaN at n=1.

    At one key per axis the published code divides by zero; so does this.
    """
    y = torch.linspace(0.5, h - 0.5, h, dtype=like.dtype, device=like.device)
    x = torch.linspace(0.5, w - 0.5, w, dtype=like.dtype, device=like.device)
    yx = torch.stack(torch.meshgrid(y, x, indexing="ij"), -1)
    return yx / yx.new_tensor([h - 1.0, w - 1.0]) * 2 - 1


def query_grid(h: int, w: int, like: Tensor) -> Tensor:
    """(h, w, 2), (y, x): i / (n - 1) * 2 - 1 (2023: `_get_q_grid`)."""
    y = torch.arange(h, dtype=like.dtype, device=like.device)
    x = torch.arange(w, dtype=like.dtype, device=like.device)
    yx = torch.stack(torch.meshgrid(y, x, indexing="ij"), -1)
    return yx / yx.new_tensor([h - 1.0, w - 1.0]) * 2 - 1


class DeformableAttention(nn.Module):
    """Attention over keys sampled at learned points (2023: `DAttentionBaseline`)."""

    def __init__(self, stage: StageConfig, map_size: int) -> None:
        super().__init__()
        dim, heads, groups, kernel = stage.dim, stage.heads, stage.groups, stage.kernel
        self.heads = heads
        self.groups = groups
        self.offset_range = stage.offset_range
        self.scale = (dim // heads) ** -0.5
        cg = dim // groups
        padding = 0 if kernel == stage.stride else kernel // 2
        self.conv_offset = nn.Sequential(
            nn.Conv2d(cg, cg, kernel, stage.stride, padding, groups=cg),
            LayerNormProxy(cg),
            nn.GELU(),
            nn.Conv2d(cg, 2, 1, bias=False),
        )
        self.proj_q = nn.Conv2d(dim, dim, 1)
        self.proj_k = nn.Conv2d(dim, dim, 1)
        self.proj_v = nn.Conv2d(dim, dim, 1)
        self.proj_out = nn.Conv2d(dim, dim, 1)
        side = 2 * map_size - 1
        table = torch.empty(heads, side, side)
        self.rpe_table = nn.Parameter(nn.init.trunc_normal_(table, std=0.01))

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        g, heads, d = self.groups, self.heads, c // self.heads
        q = self.proj_q(x)
        points = self.sampling_points(q)  # (B*g, Hk, Wk, 2)
        n = points.shape[1] * points.shape[2]
        sampled = F.grid_sample(
            x.reshape(b * g, c // g, h, w), points.flip(-1), align_corners=True
        )  # (B*g, C/g, Hk, Wk); flip: (y, x) -> (x, y)
        sampled = sampled.reshape(b, c, 1, n)  # (B, C, 1, N)

        q = q.reshape(b * heads, d, h * w)  # (B*heads, d, HW)
        k = self.proj_k(sampled).reshape(b * heads, d, n)  # (B*heads, d, N)
        v = self.proj_v(sampled).reshape(b * heads, d, n)  # (B*heads, d, N)
        attn = torch.einsum("bcm,bcn->bmn", q, k) * self.scale  # (B*heads, HW, N)
        attn = F.softmax(attn + self.bias(points, b, h, w), dim=2)
        out = torch.einsum("bmn,bcn->bcm", attn, v)  # (B*heads, d, HW)
        return self.proj_out(out.reshape(b, c, h, w))  # (B, C, H, W)

    def sampling_points(self, q: Tensor) -> Tensor:
        """(B*g, Hk, Wk, 2) in (y, x): reference points plus offsets."""
        b, c, h, w = q.shape
        g = self.groups
        offset = self.conv_offset(q.reshape(b * g, c // g, h, w)).contiguous()  # (B*g, 2, Hk, Wk)
        hk, wk = offset.shape[2:]
        if self.offset_range >= 0:
            limit = self.offset_range / (offset.new_tensor([hk, wk]) - 1)
            offset = offset.tanh() * limit.reshape(1, 2, 1, 1)
        points = offset.permute(0, 2, 3, 1) + key_grid(hk, wk, q)  # (B*g, Hk, Wk, 2)
        return points if self.offset_range >= 0 else points.clamp(-1.0, 1.0)

    def bias(self, points: Tensor, b: int, h: int, w: int) -> Tensor:
        """The table, sampled at normalised displacements: (B*heads, HW, N)."""
        g, heads = self.groups, self.heads
        n = points.shape[1] * points.shape[2]
        queries = query_grid(h, w, points).reshape(1, h * w, 1, 2)  # (1, HW, 1, 2)
        displacement = (queries - points.reshape(b * g, 1, n, 2)) * 0.5  # (B*g, HW, N, 2)
        rows, columns = self.rpe_table.shape[1:]
        tables = self.rpe_table[None].expand(b, -1, -1, -1)
        tables = tables.reshape(b * g, heads // g, rows, columns)  # (B*g, heads/g, rows, columns)
        bias = F.grid_sample(tables, displacement.flip(-1), align_corners=True)
        return bias.reshape(b * heads, h * w, n)  # from (B*g, heads/g, HW, N)


# ------------------------------------------------------------------------------------- model


class ConvFfn(nn.Module):
    """1x1, plus a depthwise 3x3, GELU, 1x1 (2023: `TransformerMLPWithConv`)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.linear1 = nn.Sequential(nn.Conv2d(dim, 4 * dim, 1))
        self.linear2 = nn.Sequential(nn.Conv2d(4 * dim, dim, 1))
        self.dwc = nn.Conv2d(4 * dim, 4 * dim, 3, padding=1, groups=4 * dim)

    def forward(self, x: Tensor) -> Tensor:
        x = self.linear1(x)
        return self.linear2(F.gelu(x + self.dwc(x)))


def make_mixer(
    mixer: Mixer, config: Datpp2023Config, stage: StageConfig, map_size: int
) -> nn.Module:
    """The token mixer of one block."""
    if mixer == "neighborhood":
        return NeighborhoodAttention2D(stage.dim, stage.heads, config.neighborhood)
    if mixer == "deformable":
        return DeformableAttention(stage, map_size)
    raise ValueError(f"unknown mixer {mixer!r}")


class TransformerStage(nn.Module):
    """Blocks of local perception unit, mixer, feed-forward network (2023: `TransformerStage`)."""

    def __init__(self, config: Datpp2023Config, stage: StageConfig, map_size: int) -> None:
        super().__init__()
        dim, blocks = stage.dim, len(stage.mixers)
        self.layer_norms = nn.ModuleList(LayerNormProxy(dim) for _ in range(2 * blocks))
        self.mlps = nn.ModuleList(ConvFfn(dim) for _ in range(blocks))
        self.attns = nn.ModuleList(make_mixer(m, config, stage, map_size) for m in stage.mixers)
        self.local_perception_units = nn.ModuleList(
            nn.Conv2d(dim, dim, 3, padding=1, groups=dim) for _ in range(blocks)
        )

    def forward(self, x: Tensor) -> Tensor:
        for i, (attn, mlp) in enumerate(zip(self.attns, self.mlps, strict=True)):
            x = self.local_perception_units[i](x.contiguous()) + x
            x = attn(self.layer_norms[2 * i](x)) + x
            x = mlp(self.layer_norms[2 * i + 1](x)) + x
        return x


class Datpp2023(nn.Module):
    """Image (B, 3, H, W) -> logits (B, num_classes) (2023: `DAT` with `use_conv_patches`)."""

    def __init__(self, config: Datpp2023Config) -> None:
        super().__init__()
        self.config = config
        dims = [stage.dim for stage in config.stages]
        self.patch_proj = nn.Sequential(
            nn.Conv2d(3, dims[0] // 2, 3, 2, 1),
            LayerNormProxy(dims[0] // 2),
            nn.GELU(),
            nn.Conv2d(dims[0] // 2, dims[0], 3, 2, 1),
            LayerNormProxy(dims[0]),
        )
        self.stages = nn.ModuleList(
            TransformerStage(config, stage, config.image_size // (4 * 2**i))
            for i, stage in enumerate(config.stages)
        )
        self.down_projs = nn.ModuleList(
            nn.Sequential(nn.Conv2d(a, b, 3, 2, 1, bias=False), LayerNormProxy(b))
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


# ---------------------------------------------------------------------------------- variants

ALTERNATE: tuple[Mixer, ...] = ("neighborhood", "deformable")
LAST: tuple[Mixer, ...] = ("deformable", "deformable")

# configs/dat_{tiny,small,base}.yaml of the 2023 code.
DATPP_T = Datpp2023Config(
    stages=(
        StageConfig(dim=64, heads=2, mixers=ALTERNATE, groups=1, stride=8, kernel=9),
        StageConfig(dim=128, heads=4, mixers=ALTERNATE * 2, groups=2, stride=4, kernel=7),
        StageConfig(dim=256, heads=8, mixers=ALTERNATE * 9, groups=4, stride=2, kernel=5),
        StageConfig(dim=512, heads=16, mixers=LAST, groups=8, stride=1, kernel=3),
    )
)
DATPP_S = Datpp2023Config(
    stages=(
        StageConfig(dim=96, heads=3, mixers=ALTERNATE, groups=1, stride=8, kernel=9),
        StageConfig(dim=192, heads=6, mixers=ALTERNATE * 2, groups=2, stride=4, kernel=7),
        StageConfig(dim=384, heads=12, mixers=ALTERNATE * 9, groups=3, stride=2, kernel=5),
        StageConfig(dim=768, heads=24, mixers=LAST, groups=6, stride=1, kernel=3),
    )
)
DATPP_B = Datpp2023Config(
    stages=(
        StageConfig(dim=128, heads=4, mixers=ALTERNATE, groups=2, stride=8, kernel=9),
        StageConfig(dim=256, heads=8, mixers=ALTERNATE * 2, groups=4, stride=4, kernel=7),
        StageConfig(dim=512, heads=16, mixers=ALTERNATE * 9, groups=8, stride=2, kernel=5),
        StageConfig(dim=1024, heads=32, mixers=LAST, groups=16, stride=1, kernel=3),
    )
)

#: At 384 the published DAT-B++ keeps the tables of 224: run `datpp_b` on a 384x384 input.
VARIANTS: dict[str, Datpp2023Config] = {
    "datpp_t": DATPP_T,
    "datpp_s": DATPP_S,
    "datpp_b": DATPP_B,
}

#: Trainable parameters in millions (the page of DAT++ and fvcore, to three digits).
PARAMETERS_M: dict[str, float] = {"datpp_t": 23.963, "datpp_s": 53.127, "datpp_b": 93.691}


def build_datpp2023(config: str | Datpp2023Config) -> Datpp2023:
    """A model by the name of its variant or from a configuration; in evaluation mode."""
    return Datpp2023(VARIANTS[config] if isinstance(config, str) else config).eval()
