"""GLiT: attention over all tokens beside a gated convolution along their sequence.

Sources: "GLiT: Neural Architecture Search for Global and Local Image Transformer" (Chen et al.,
ICCV 2021), and bychen515/GLiT, the only source for what the search found, and only for GLiT-Tiny.
What the blocks of GLiT-Small and GLiT-Base are is not published, so they are not built.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...setting import Attention
from ..layers import MapConv, Mlp, check_sides
from .tokens import EPS, TokenAttention, TokenModel

HEADS = 3
"""Parts that a block's channels are divided into, some for attention and some for convolution."""


@dataclass(frozen=True)
class Glit:
    """What the search chooses for a block."""

    attention: int  # how many of the three parts attend; the others convolve along the sequence
    widening: float = 1.0  # of the attention, relative to its channels
    local: int = 1  # widening of the convolution
    kernel: int = 31  # of the convolution
    expansion: int = 4  # of the feed-forward network


@dataclass(frozen=True)
class GlitNet:
    """A GLiT: a ViT of patches of 16 whose blocks are `blocks`."""

    dim: int
    blocks: tuple[Glit, ...]
    image_size: int = 224  # side of the training input; it fixes the position embeddings' size
    classes: int = 1000


_MIXED = Glit(attention=1, local=4, expansion=6)

_GLIT_T = GlitNet(
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

MODELS = {"glit_t": _GLIT_T}

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
        return x + self.ffn(self.norm2(x))


class GlitModel(TokenModel):
    """(B, 3, H, W) -> logits (B, classes); another input's position embeddings are resized."""

    def __init__(self, config: GlitNet, attention: Attention) -> None:
        dim = config.dim
        super().__init__(dim, config.image_size // PATCH)
        self.patch = MapConv(3, dim, PATCH, stride=PATCH)
        self.blocks = nn.Sequential(*(GlitBlock(dim, block, attention) for block in config.blocks))
        self.norm = nn.LayerNorm(dim, eps=EPS)
        self.head = nn.Linear(dim, config.classes)

    def forward(self, image: Tensor) -> Tensor:
        check_sides(image)
        x = self.patch(image.permute(0, 2, 3, 1))  # (B, h, w, C)
        x = self.blocks(self.sequence(x))  # (B, 1 + h w, C)
        return self.head(self.norm(x)[:, 0])


MODULE = GlitModel
