"""GLiT, as a literal. Free of torch.

Sources: "GLiT: Neural Architecture Search for Global and Local Image Transformer" (Chen et al.,
ICCV 2021), and bychen515/GLiT, which alone says what the search found, and for GLiT-Tiny alone.
What the blocks of GLiT-Small and GLiT-Base are is not published, so they are not built.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...errors import UsageError
from ...setting import MIN_SIDE, Attention, Resolution
from ..layers import MapConv, Mlp
from .spec import EPS, ComparisonSpec, TokenAttention, resized

HEADS = 3
"""Parts that a block's channels are divided into, some for attention and some for convolution."""


@dataclass(frozen=True)
class Glit:
    """What the search chooses for a block.

    Args:
        attention: how many of the three parts attend; the others convolve along the sequence.
        widening: of the attention, relative to its channels.
        local: widening of the convolution.
        kernel: of the convolution.
        expansion: of the feed-forward network.
    """

    attention: int
    widening: float = 1.0
    local: int = 1
    kernel: int = 31
    expansion: int = 4


@dataclass(frozen=True)
class GlitNet:
    """A GLiT: a ViT of patches of 16 whose blocks are `blocks`.

    Args:
        image_size: side of the training input in pixels; it fixes the position embeddings' size.
    """

    dim: int
    blocks: tuple[Glit, ...]
    image_size: int = 224
    classes: int = 1000

    @property
    def has_maps(self) -> bool:
        """None but one, of stride 16."""
        return False

    def make(self, resolution: Resolution, features: bool, attention: Attention) -> nn.Module:
        """The module; it takes any input."""
        return GlitModel(self, attention)


_MIXED = Glit(attention=1, local=4, expansion=6)

GLIT_T = GlitNet(
    dim=192,
    blocks=(
        Glit(attention=3, widening=0.5),
        Glit(attention=0, local=2, kernel=31),
        _MIXED,
        Glit(attention=3),
        Glit(attention=0, local=4, kernel=45),
        _MIXED,
        Glit(attention=3, expansion=2),
        Glit(attention=1, local=4, expansion=2),
        Glit(attention=0, local=4, kernel=45),
        Glit(attention=3),
        Glit(attention=0, local=4, kernel=31),
        Glit(attention=3, widening=2.0, expansion=6),
    ),
)

GLIT_SPECS = (
    ComparisonSpec("glit_t", GLIT_T, "GLiT (ICCV 2021)", "GLiT-Tiny, searched, global and local"),
)

# GLiT's modules: attention over all tokens beside a gated convolution along their sequence.

PATCH = 16


class SequenceConv(nn.Module):
    """1x1, gate, depthwise convolution, batch norm, Swish, 1x1 along the sequence. (B, N, C)."""

    def __init__(self, dim: int, widening: int, kernel: int) -> None:
        super().__init__()
        hidden = dim * widening
        self.linear1 = nn.Conv1d(dim, 2 * hidden, 1)
        self.dwconv = nn.Conv1d(hidden, hidden, kernel, padding=kernel // 2, groups=hidden)
        self.norm = nn.BatchNorm1d(hidden)
        self.linear2 = nn.Conv1d(hidden, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.glu(self.linear1(x.transpose(1, 2)), dim=1)  # (B, hidden, N)
        y: Tensor = self.linear2(F.silu(self.norm(self.dwconv(x))))
        return y.transpose(1, 2)


class GlitBlock(nn.Module):
    """x + parts(LN(x)), x + ffn(LN(x)): the first parts' channels attend, the others convolve."""

    def __init__(self, dim: int, config: Glit, attention: Attention) -> None:
        super().__init__()
        attending = dim * config.attention // HEADS
        self.split = [attending, dim - attending]
        self.norm1 = nn.LayerNorm(dim, eps=EPS)
        self.attn = self.conv = None
        if attending:
            width = int(attending * config.widening)
            self.attn = TokenAttention(attending, config.attention, attention, width)
        if attending < dim:
            self.conv = SequenceConv(dim - attending, config.local, config.kernel)
        self.norm2 = nn.LayerNorm(dim, eps=EPS)
        self.ffn = Mlp(dim, config.expansion)

    def forward(self, x: Tensor) -> Tensor:
        attending, convolving = self.norm1(x).split(self.split, dim=-1)
        parts = [
            module(part)
            for module, part in ((self.attn, attending), (self.conv, convolving))
            if module is not None
        ]
        x = x + (torch.cat(parts, dim=-1) if len(parts) > 1 else parts[0])
        branch: Tensor = self.ffn(self.norm2(x))
        return x + branch


class GlitModel(nn.Module):
    """(B, 3, H, W) -> logits (B, classes); another input's position embeddings are resized."""

    def __init__(self, config: GlitNet, attention: Attention) -> None:
        super().__init__()
        dim, side = config.dim, config.image_size // PATCH
        self.patch = MapConv(3, dim, PATCH, stride=PATCH)
        self.token = nn.Parameter(torch.zeros(1, 1, dim))
        self.token_position = nn.Parameter(torch.zeros(1, 1, dim))
        self.position = nn.Parameter(torch.zeros(1, side, side, dim))
        self.blocks = nn.Sequential(*(GlitBlock(dim, block, attention) for block in config.blocks))
        self.norm = nn.LayerNorm(dim, eps=EPS)
        self.head = nn.Linear(dim, config.classes)
        for parameter in (self.token, self.token_position, self.position):
            nn.init.trunc_normal_(parameter, std=0.02)

    def forward(self, image: Tensor) -> Tensor:
        height, width = image.shape[-2:]
        if min(height, width) < MIN_SIDE:
            raise UsageError(
                f"input {width}x{height} is too small: both sides need at least {MIN_SIDE} pixels."
            )
        x = self.patch(image.permute(0, 2, 3, 1))  # (B, h, w, C)
        x = (x + resized(self.position, x.shape[1], x.shape[2])).flatten(1, 2)  # (B, h w, C)
        token = (self.token + self.token_position).expand(len(x), -1, -1)
        x = self.blocks(torch.cat((token, x), dim=1))  # (B, 1 + h w, C)
        y: Tensor = self.head(self.norm(x)[:, 0])
        return y
