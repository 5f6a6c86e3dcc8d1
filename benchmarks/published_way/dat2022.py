"""DAT as the CVPR 2022 code writes it, with the rows of the paper's ablation tables.

Sources: the 2022 code of LeapLabTHU/DAT (models/dat.py, models/dat_blocks.py, commit 42b489e);
`PyramidAttention` of its 2023 code (2f31405); LeapLabTHU/DAT-Detection (models/utils/dat_blocks.py,
4d4023d) for maps that are no multiple of the window and for `DAttentionDCN`, the attention of
Deformable DETR. Dropout and drop path are left out: they do not act in evaluation mode.
"""

import math
from collections import OrderedDict
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .layers import LayerNormProxy

Mixer = Literal["local", "shifted", "deformable", "pyramid", "ddetr"]
Position = Literal["relative", "fixed", "dwconv", "none"]
Offsets = Literal["learned", "zeroed", "unused"]


# ------------------------------------------------------------------------------ configuration


@dataclass(frozen=True)
class StageConfig:
    """One stage; the fields below `mixers` matter to the mixers that use them."""

    dim: int
    heads: int
    mixers: tuple[Mixer, ...]
    groups: int = 1  # deformable: groups of channels with offsets of their own
    stride: int = 1  # deformable: the r of the paper
    kernel: int = 3  # deformable: of the offset network
    offset_range: float = 2.0  # deformable: the s of the paper
    reduction: int = 1  # pyramid: the spatial-reduction ratio
    points: int = 16  # ddetr: samples per query and head


@dataclass(frozen=True)
class Dat2022Config:
    """A DAT of 2022.

    `offsets`: "learned"; "zeroed" runs the offset network and samples at the reference points (what
    the switch `no_off` of the 2022 code is after; as written it calls a method that tensors do not
    have); "unused" neither runs it nor samples, and looks the bias up by whole pixels: only so do
    the rows without offsets of Table 6 come out.
    """

    stages: tuple[StageConfig, ...]
    image_size: int = 224  # sizes the bias tables and the mask buffers
    window: int = 7
    position: Position = "relative"
    offsets: Offsets = "learned"
    conv_patches: bool = False  # DAT-T*: overlapping stem and down-sampling
    conv_ffn: bool = False  # `use_dwc_mlps`
    num_classes: int = 1000


# -------------------------------------------------------------------------- window attention


def pad_to_multiple(x: Tensor, n: int) -> Tensor:
    """Zeros on the right and the bottom of an NCHW map, up to a multiple of n."""
    bottom, right = -x.shape[2] % n, -x.shape[3] % n
    return F.pad(x, (0, right, 0, bottom)) if bottom or right else x


def relative_index(window: int) -> Tensor:
    """(n, n), n = window^2: the row of the flat bias table for every (query, key)."""
    i = torch.arange(window)
    yx = torch.stack(torch.meshgrid(i, i, indexing="ij"), -1).reshape(-1, 2)  # (n, 2)
    delta = yx[:, None] - yx[None] + window - 1  # (n, n, 2), query minus key
    return delta[..., 0] * (2 * window - 1) + delta[..., 1]


def shift_mask(h: int, w: int, window: int, shift: int, like: Tensor | None = None) -> Tensor:
    """(windows, n, n): -100 between pixels that the cyclic shift brought together, else 0."""
    device = None if like is None else like.device
    dtype = None if like is None else like.dtype
    region = torch.zeros(h, w, device=device, dtype=dtype)
    cuts = (slice(0, -window), slice(-window, -shift), slice(-shift, None))
    for i, rows in enumerate(cuts):
        for j, columns in enumerate(cuts):
            region[rows, columns] = 3 * i + j
    region = region.reshape(h // window, window, w // window, window)
    region = region.permute(0, 2, 1, 3).reshape(-1, window * window)  # (windows, n)
    differs = region[:, None] != region[:, :, None]  # (windows, n, n)
    return torch.zeros_like(differs, dtype=region.dtype).masked_fill(differs, -100.0)


class LocalAttention(nn.Module):
    """Attention inside non-overlapping windows (2022: `LocalAttention`)."""

    relative_position_index: Tensor

    def __init__(self, dim: int, heads: int, window: int) -> None:
        super().__init__()
        self.heads = heads
        self.window = window
        self.scale = (dim // heads) ** -0.5
        table = torch.empty((2 * window - 1) ** 2, heads)
        self.relative_position_bias_table = nn.Parameter(nn.init.trunc_normal_(table, std=0.01))
        self.register_buffer("relative_position_index", relative_index(window))
        self.proj_qkv = nn.Linear(dim, 3 * dim)
        self.proj_out = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        h, w = x.shape[2:]
        x = self.attend(pad_to_multiple(x, self.window), None)
        return x[:, :, :h, :w]

    def attend(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """On a map that is a multiple of the window; mask is (windows, n, n)."""
        b, c, h, w = x.shape
        s, heads = self.window, self.heads
        n, rows, columns = s * s, h // s, w // s
        x = x.reshape(b, c, rows, s, columns, s)  # pixels split into (window, place in it)
        x = x.permute(0, 2, 4, 3, 5, 1).reshape(-1, n, c)  # (B*windows, n, C)

        q, k, v = self.proj_qkv(x).chunk(3, dim=2)
        split = (-1, n, heads, c // heads)  # below: (B*windows, heads, n, d)
        q = (q * self.scale).reshape(split).permute(0, 2, 1, 3)
        k = k.reshape(split).permute(0, 2, 1, 3)
        v = v.reshape(split).permute(0, 2, 1, 3)

        attn = torch.einsum("bhmc,bhnc->bhmn", q, k)  # (B*windows, heads, n, n)
        bias = self.relative_position_bias_table[self.relative_position_index.reshape(-1)]
        bias = bias.reshape(n, n, heads).permute(2, 0, 1).contiguous()  # (heads, n, n)
        attn = attn + bias[None]
        if mask is not None:
            attn = attn.reshape(b, rows * columns, heads, n, n)  # (B, windows, heads, n, n)
            attn = attn + mask[None, :, None]
            attn = attn.reshape(-1, heads, n, n)  # (B*windows, heads, n, n)
        attn = attn.softmax(dim=3)

        x = torch.einsum("bhmn,bhnc->bhmc", attn, v)  # (B*windows, heads, n, d)
        x = self.proj_out(x.permute(0, 2, 1, 3).reshape(-1, n, c))  # (B*windows, n, C)
        x = x.reshape(b, rows, columns, s, s, c)  # back to the places of the windows
        return x.permute(0, 5, 1, 3, 2, 4).reshape(b, c, h, w)  # (B, C, H, W)


class ShiftWindowAttention(LocalAttention):
    """The same on a rolled map (2022: `ShiftWindowAttention`; the shift is ceil(window / 2))."""

    attn_mask: Tensor

    def __init__(self, dim: int, heads: int, window: int, map_size: int) -> None:
        super().__init__(dim, heads, window)
        self.shift = math.ceil(window / 2)
        self.mask_size = map_size + -map_size % window
        mask = shift_mask(self.mask_size, self.mask_size, window, self.shift)
        self.register_buffer("attn_mask", mask)

    def forward(self, x: Tensor) -> Tensor:
        h, w = x.shape[2:]
        x = pad_to_multiple(x, self.window)
        mask = self.attn_mask
        if x.shape[2:] != (self.mask_size, self.mask_size):
            mask = shift_mask(x.shape[2], x.shape[3], self.window, self.shift, like=mask)
        x = torch.roll(x, (-self.shift, -self.shift), dims=(2, 3))
        x = torch.roll(self.attend(x, mask), (self.shift, self.shift), dims=(2, 3))
        return x[:, :, :h, :w]


# ---------------------------------------------------------------------- deformable attention


def centre_grid(h: int, w: int, like: Tensor) -> Tensor:
    """(h, w, 2), (y, x): pixel centres, (i + 0.5) / n * 2 - 1 (2022: `_get_ref_points`)."""
    y = torch.linspace(0.5, h - 0.5, h, dtype=like.dtype, device=like.device) / h * 2 - 1
    x = torch.linspace(0.5, w - 0.5, w, dtype=like.dtype, device=like.device) / w * 2 - 1
    return torch.stack(torch.meshgrid(y, x, indexing="ij"), -1)


class DeformableAttention(nn.Module):
    """Attention over keys sampled at learned points (2022: `DAttentionBaseline`).

    Any input size: the relative bias is sampled at normalised displacements; the fixed one is
    resized bilinearly, as the detection code does.
    """

    def __init__(
        self, stage: StageConfig, map_size: int, position: Position, offsets: Offsets
    ) -> None:
        super().__init__()
        dim, heads, groups = stage.dim, stage.heads, stage.groups
        if offsets == "unused" and (stage.stride != 1 or position not in ("relative", "none")):
            raise ValueError("offsets='unused' needs stride 1 and a relative bias or none")
        self.heads = heads
        self.groups = groups
        self.position = position
        self.offsets = offsets
        self.offset_range = stage.offset_range
        self.scale = (dim // heads) ** -0.5
        cg = dim // groups
        self.conv_offset = nn.Sequential(
            nn.Conv2d(cg, cg, stage.kernel, stage.stride, stage.kernel // 2, groups=cg),
            LayerNormProxy(cg),
            nn.GELU(),
            nn.Conv2d(cg, 2, 1, bias=False),
        )
        self.proj_q = nn.Conv2d(dim, dim, 1)
        self.proj_k = nn.Conv2d(dim, dim, 1)
        self.proj_v = nn.Conv2d(dim, dim, 1)
        self.proj_out = nn.Conv2d(dim, dim, 1)
        # The 2022 code sizes the tables by the map whatever the stride: it passes the map's size
        # as the size of the keys.
        self.rpe_table: nn.Module | nn.Parameter | None
        if position == "dwconv":
            self.rpe_table = nn.Conv2d(dim, dim, 3, padding=1, groups=dim)
        elif position == "none":
            self.rpe_table = None
        else:
            side, pixels = 2 * map_size - 1, map_size * map_size
            shape = (heads, side, side) if position == "relative" else (heads, pixels, pixels)
            self.rpe_table = nn.Parameter(nn.init.trunc_normal_(torch.empty(shape), std=0.01))

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        g, heads, d = self.groups, self.heads, c // self.heads
        q = self.proj_q(x)
        points = None if self.offsets == "unused" else self.sampling_points(q)
        sampled = x
        if points is not None:
            sampled = F.grid_sample(
                x.reshape(b * g, c // g, h, w), points.flip(-1), align_corners=True
            )  # (B*g, C/g, Hk, Wk); flip: (y, x) -> (x, y)
        hk, wk = sampled.shape[2:]
        sampled = sampled.reshape(b, c, 1, hk * wk)  # (B, C, 1, N)

        heads_q = q.reshape(b * heads, d, h * w)  # (B*heads, d, HW)
        k = self.proj_k(sampled).reshape(b * heads, d, hk * wk)  # (B*heads, d, N)
        v = self.proj_v(sampled).reshape(b * heads, d, hk * wk)  # (B*heads, d, N)
        attn = torch.einsum("bcm,bcn->bmn", heads_q, k) * self.scale  # (B*heads, HW, N)
        bias = self.bias(points, b, h, w, hk, wk)
        if bias is not None:
            attn = attn + bias
        attn = F.softmax(attn, dim=2)
        out = torch.einsum("bmn,bcn->bcm", attn, v)  # (B*heads, d, HW)
        out = out.reshape(b, c, h, w)  # (B, C, H, W)
        if isinstance(self.rpe_table, nn.Conv2d):
            out = out + self.rpe_table(q)
        return self.proj_out(out)

    def sampling_points(self, q: Tensor) -> Tensor:
        """(B*g, Hk, Wk, 2) in (y, x): reference points plus offsets."""
        b, c, h, w = q.shape
        g = self.groups
        offset = self.conv_offset(q.reshape(b * g, c // g, h, w))  # (B*g, 2, Hk, Wk)
        hk, wk = offset.shape[2:]
        if self.offset_range > 0:
            cell = torch.tensor([1.0 / hk, 1.0 / wk], dtype=q.dtype, device=q.device)
            offset = offset.tanh() * cell.reshape(1, 2, 1, 1) * self.offset_range
        offset = offset.permute(0, 2, 3, 1)  # (B*g, Hk, Wk, 2)
        if self.offsets == "zeroed":
            offset = torch.zeros_like(offset)
        points = offset + centre_grid(hk, wk, q)
        return points if self.offset_range >= 0 else points.tanh()

    def bias(
        self, points: Tensor | None, b: int, h: int, w: int, hk: int, wk: int
    ) -> Tensor | None:
        """The position bias, (B*heads, HW, N); none where there is none or it is a convolution."""
        g, heads, table = self.groups, self.heads, self.rpe_table
        if not isinstance(table, nn.Parameter):
            return None
        if self.position == "fixed":
            if table.shape[1:] != (h * w, hk * wk):
                size = (h * w, hk * wk)
                resized = F.interpolate(table[None], size, mode="bilinear", align_corners=True)
            else:
                resized = table[None]
            return resized.expand(b, -1, -1, -1).reshape(b * heads, h * w, hk * wk)
        if points is None:
            return self.looked_up(table, h, w).repeat(b, 1, 1)  # (B*heads, HW, HW)
        queries = centre_grid(h, w, points).reshape(1, h * w, 1, 2)  # (1, HW, 1, 2)
        displacement = (queries - points.reshape(b * g, 1, hk * wk, 2)) * 0.5  # (B*g, HW, N, 2)
        rows, columns = table.shape[1:]
        tables = table[None].expand(b, -1, -1, -1)
        tables = tables.reshape(b * g, heads // g, rows, columns)  # (B*g, heads/g, rows, columns)
        bias = F.grid_sample(tables, displacement.flip(-1), align_corners=True)
        return bias.reshape(b * heads, h * w, hk * wk)  # from (B*g, heads/g, HW, N)

    def looked_up(self, table: Tensor, h: int, w: int) -> Tensor:
        """(heads, HW, HW): the bias at whole-pixel displacements, query minus key."""
        if table.shape[1:] != (2 * h - 1, 2 * w - 1):
            raise ValueError(f"offsets='unused' runs at its own size only, not on a {h}x{w} map")
        y, x = torch.arange(h, device=table.device), torch.arange(w, device=table.device)
        dy = y[:, None, None, None] - y[None, None, :, None] + h - 1  # (H, 1, H, 1)
        dx = x[None, :, None, None] - x[None, None, None, :] + w - 1  # (1, W, 1, W)
        return table[:, dy, dx].reshape(-1, h * w, h * w)  # from (heads, H, W, H, W)


# ------------------------------------------------------------ the mixers of the ablation rows


class PyramidAttention(nn.Module):
    """Attention to a spatially reduced map (row P of Table 6; 2023: `PyramidAttention`)."""

    def __init__(self, dim: int, heads: int, reduction: int) -> None:
        super().__init__()
        self.heads = heads
        self.reduction = reduction
        self.scale = (dim // heads) ** -0.5
        self.q = nn.Conv2d(dim, dim, 1)
        self.kv = nn.Conv2d(dim, 2 * dim, 1)
        self.proj = nn.Conv2d(dim, dim, 1)
        if reduction > 1:
            self.proj_ds = nn.Sequential(
                nn.Conv2d(dim, dim, reduction, reduction), LayerNormProxy(dim)
            )

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        heads, d = self.heads, c // self.heads
        q = self.q(x).reshape(b * heads, d, h * w) * self.scale  # (B*heads, d, HW)
        k, v = self.kv(self.proj_ds(x) if self.reduction > 1 else x).chunk(2, dim=1)
        n = k.shape[2] * k.shape[3]
        k, v = k.reshape(b * heads, d, n), v.reshape(b * heads, d, n)  # (B*heads, d, N)
        attn = F.softmax(torch.einsum("bcm,bcn->bmn", q, k), dim=2)  # (B*heads, HW, N)
        out = torch.einsum("bmn,bcn->bcm", attn, v)  # (B*heads, d, HW)
        return self.proj(out.reshape(b, c, h, w))  # (B, C, H, W)


def corner_grid(h: int, w: int) -> Tensor:
    """(h, w, 2), (y, x): (i + 0.5) / (n - 1) * 2 - 1, the grid that `DAttentionDCN` freezes."""
    y = (torch.arange(h) + 0.5) / (h - 1) * 2 - 1
    x = (torch.arange(w) + 0.5) / (w - 1) * 2 - 1
    return torch.stack(torch.meshgrid(y, x, indexing="ij"), -1)


class DeformableDetrAttention(nn.Module):
    """K points of its own for each query and head (Table 8; DAT-Detection: `DAttentionDCN`)."""

    def __init__(self, dim: int, heads: int, points: int, map_size: int) -> None:
        super().__init__()
        self.heads = heads
        self.points = points
        self.reference = nn.Parameter(corner_grid(map_size, map_size), requires_grad=False)
        self.proj_off = nn.Linear(dim, heads * points * 2)
        self.proj_att = nn.Linear(dim, heads * points)
        self.proj_v = nn.Conv2d(dim, dim, 1)
        self.proj_out = nn.Conv2d(dim, dim, 1)
        self.reset_offsets()

    @torch.no_grad()
    def reset_offsets(self) -> None:
        """Point i of head m starts at i + 1 steps in the m-th direction; equal weights."""
        theta = torch.arange(self.heads) * (2 * math.pi / self.heads)
        ring = torch.stack((theta.cos(), theta.sin()), -1)  # (heads, 2)
        ring = ring / ring.abs().amax(-1, keepdim=True)
        steps = torch.arange(1, self.points + 1)
        self.proj_off.bias.copy_((ring[:, None] * steps[None, :, None]).reshape(-1))
        nn.init.zeros_(self.proj_off.weight)
        nn.init.zeros_(self.proj_att.weight)
        nn.init.zeros_(self.proj_att.bias)

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        heads, n, d = self.heads, self.points, c // self.heads
        tokens = x.flatten(2).transpose(1, 2)  # (B, HW, C)
        weight = self.proj_att(tokens).reshape(b, h * w, heads, n)  # (B, HW, heads, K)
        weight = weight.softmax(dim=3)
        offset = self.proj_off(tokens).reshape(b, h * w, heads, n, 2)  # (B, HW, heads, K, 2)
        reference: Tensor = self.reference
        if reference.shape[:2] != (h, w):
            reference = corner_grid(h, w).to(self.reference)
        points = reference.reshape(1, h * w, 1, 1, 2) + offset  # (B, HW, heads, K, 2)
        points = points.permute(0, 2, 1, 3, 4)
        points = points.reshape(b * heads, h * w, n, 2)  # (B*heads, HW, K, 2)

        value = self.proj_v(x).reshape(b * heads, d, h, w)  # (B*heads, d, H, W)
        sampled = F.grid_sample(value, points.flip(-1), align_corners=True)  # (B*heads, d, HW, K)
        weight = weight.permute(0, 2, 1, 3)
        weight = weight.reshape(b * heads, 1, h * w, n)  # (B*heads, 1, HW, K)
        out = (weight * sampled).sum(dim=3)  # (B*heads, d, HW)
        return self.proj_out(out.reshape(b, c, h, w))  # (B, C, H, W)


# ------------------------------------------------------------------------------------- model


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


# ---------------------------------------------------------------------------------- variants

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
}


def build_dat2022(config: str | Dat2022Config) -> Dat2022:
    """A model by the name of its variant or from a configuration; in evaluation mode."""
    return Dat2022(VARIANTS[config] if isinstance(config, str) else config).eval()
