"""Layers around the mixers: stems, down-sampling, feed-forward networks, drop path.

Inside a backbone, feature maps are (B, H, W, C): a projection is an `nn.Linear`, LayerNorm needs
no permute, and a convolution sees the map as a channels-last view, without a copy.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import UsageError
from ..setting import MIN_SIDE
from .config import Downsample, FeedForward, Stem

NO_SCRIPT = (
    "torch.jit.script cannot read these models, which are written in more of Python than it knows: "
    "use torch.export.export(model, (image,)) or torch.jit.trace(model, image)."
)


def check_sides(image: Tensor) -> None:
    """Refuse an image (B, 3, H, W) that has a side below 32."""
    height, width = image.shape[-2:]
    if height < MIN_SIDE or width < MIN_SIDE:
        raise UsageError(
            f"input {width}x{height} is too small: both sides need at least {MIN_SIDE} pixels."
        )


def drop_rates(last: float, depths: Sequence[int]) -> list[list[float]]:
    """Each stage's rates of stochastic depth: linear from 0 in the first block to `last`."""
    # Plain floats: calling .item() on a tensor would forbid building on meta.
    blocks = sum(depths)
    rates = [last * i / max(blocks - 1, 1) for i in range(blocks)]
    return [rates[sum(depths[:i]) : sum(depths[: i + 1])] for i in range(len(depths))]


def image_channels(module: nn.Module) -> int:
    """Channels of the images that a model takes: what it says in `in_chans`, or 3."""
    channels = getattr(module, "in_chans", 3)
    return channels if isinstance(channels, int) else 3


class MapConv(nn.Conv2d):
    """A 2-D convolution on (B, H, W, C) maps, returning (B, H', W', C').

    `stands_for` names the layer of the published code: a counter that goes by the classes of
    modules (mmcv's hooks) counts this one as that.
    """

    stands_for = "Conv2d"

    def forward(self, x: Tensor) -> Tensor:
        x = x.permute(0, 3, 1, 2)  # (B, C, H, W), channels last in memory
        return super().forward(x).permute(0, 2, 3, 1)  # (B, H', W', C')

    def __prepare_scriptable__(self) -> None:
        """Refuse `torch.jit.script`, which asks here first; every model here has such a layer."""
        raise UsageError(NO_SCRIPT)


class Pointwise(nn.Linear):
    """A published 1x1 convolution, as a linear layer over the channels of (B, H, W, C)."""

    stands_for = "Conv2d"


def depthwise(dim: int, kernel: int = 3) -> MapConv:
    """A depthwise convolution that keeps the map's size."""
    return MapConv(dim, dim, kernel, padding=kernel // 2, groups=dim)


def patches(dim_in: int, dim: int, size: int, bias: bool = True) -> nn.Sequential:
    """A linear embedding of patches, and a norm: (B, H, W, C) -> (B, H/size, W/size, dim)."""
    return nn.Sequential(MapConv(dim_in, dim, size, stride=size, bias=bias), nn.LayerNorm(dim))


def make_stem(kind: Stem, dim: int, in_chans: int = 3) -> nn.Sequential:
    """The patch embedding: (B, H, W, in_chans) -> (B, H/4, W/4, dim)."""
    if kind == "patch":
        return patches(in_chans, dim, 4)
    if kind == "overlap":
        return nn.Sequential(MapConv(in_chans, dim, 7, stride=4, padding=3), nn.LayerNorm(dim))
    half = dim // 2
    between = (nn.LayerNorm(half), nn.GELU()) if kind == "double" else ()
    return nn.Sequential(
        MapConv(in_chans, half, 3, stride=2, padding=1),
        *between,
        MapConv(half, dim, 3, stride=2, padding=1),
        nn.LayerNorm(dim),
    )


def make_downsample(kind: Downsample, dim_in: int, dim_out: int) -> nn.Sequential:
    """(B, H, W, dim_in) -> (B, H/2, W/2, dim_out); "patch" drops an odd last row or column."""
    if kind == "patch":
        return patches(dim_in, dim_out, 2, bias=False)
    conv = MapConv(dim_in, dim_out, 3, stride=2, padding=1, bias=False)
    return nn.Sequential(conv, nn.LayerNorm(dim_out))


class Gelu(nn.GELU):
    """GELU; where no gradient is recorded it overwrites its input.

    That input, four times as large as the map, is the largest tensor around: finding memory for
    another one takes a CPU as long as the GELU. A hook that may have kept the input keeps it whole:
    `keep` says that the module which made it has one.
    """

    def forward(self, x: Tensor, keep: bool = False) -> Tensor:
        watched = keep or self._forward_hooks or self._forward_pre_hooks
        if watched or torch.is_grad_enabled():
            return F.gelu(x)
        return torch.ops.aten.gelu_(x)


class Mlp(nn.Module):
    """linear, GELU, linear."""

    def __init__(self, dim: int, expansion: int) -> None:
        super().__init__()
        self.linear1 = nn.Linear(dim, dim * expansion)
        self.act = Gelu()
        self.linear2 = nn.Linear(dim * expansion, dim)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.act(self.linear1(x), keep=bool(self.linear1._forward_hooks))
        return self.linear2(hidden)


class ConvMlp(nn.Module):
    """The same with a depthwise 3x3 before the GELU; DAT++ adds the convolution to its input."""

    def __init__(self, dim: int, expansion: int, residual: bool) -> None:
        super().__init__()
        self.residual = residual
        self.linear1 = Pointwise(dim, dim * expansion)
        self.dwconv = depthwise(dim * expansion)
        self.act = Gelu()
        self.linear2 = Pointwise(dim * expansion, dim)

    def forward(self, x: Tensor) -> Tensor:
        x = self.linear1(x)
        local = self.dwconv(x)
        if self.residual:
            hidden = self.act(x + local)
        else:
            hidden = self.act(local, keep=bool(self.dwconv._forward_hooks))
        return self.linear2(hidden)


def make_ffn(kind: FeedForward, dim: int, expansion: int) -> nn.Module:
    """The feed-forward network of a block, (B, H, W, C) -> (B, H, W, C)."""
    if kind == "linear":
        return Mlp(dim, expansion)
    return ConvMlp(dim, expansion, residual=kind == "conv_residual")


class LayerScale(nn.Module):
    """A learnt factor for each channel of a branch (CaiT)."""

    def __init__(self, dim: int, initial: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((dim,), initial))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight


class DropPath(nn.Module):
    """Stochastic depth: in training, drops a sample's whole branch with probability `rate`."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.rate == 0.0:
            return x
        keep = 1.0 - self.rate
        mask = x.new_empty((x.shape[0],) + (1,) * (x.ndim - 1)).bernoulli_(keep).div_(keep)
        return x * mask

    def extra_repr(self) -> str:
        return f"rate={self.rate}"
