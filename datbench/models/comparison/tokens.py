"""What transformers over a sequence of tokens share: attention, embeddings, a class token."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...setting import Attention
from ..mixers.attention import attend

EPS = 1e-6
"""The layer norms' epsilon in ViT and in models that follow its code."""


def embedding(*shape: int) -> nn.Parameter:
    """A learnt table of this shape, with ViT's initial values."""
    table = torch.zeros(shape)
    nn.init.trunc_normal_(table, std=0.02)
    return nn.Parameter(table)


def resized(position: Tensor, h: int, w: int, mode: str = "bicubic") -> Tensor:
    """Position embeddings of a map, (1, side, side, C) -> (1, h, w, C), resized if they differ."""
    if position.shape[1:3] == (h, w):
        return position
    table = position.permute(0, 3, 1, 2)  # (1, C, side, side)
    return F.interpolate(table, (h, w), mode=mode, align_corners=False).permute(0, 2, 3, 1)


class TokenAttention(nn.Module):
    """Multi-head self-attention over all tokens, (B, N, C) -> (B, N, C).

    Args:
        width: of queries, keys and values, all heads together; default: C.
    """

    def __init__(
        self, dim: int, heads: int, attention: Attention, width: int | None = None
    ) -> None:
        super().__init__()
        width = dim if width is None else width
        self.heads = heads
        self.head_dim = width // heads
        self.scale = self.head_dim**-0.5
        self.attention = attention
        self.qkv = nn.Linear(dim, 3 * width)
        self.out = nn.Linear(width, dim)

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        b, n, _ = x.shape
        qkv = self.qkv(x).view(b, n, 3, self.heads, self.head_dim)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # (B, M, N, d) each
        x = attend(q, k, v, self.scale, bias, self.attention)  # (B, M, N, d)
        return self.out(x.transpose(1, 2).flatten(2))


class TokenModel(nn.Module):
    """A model with a class token in front of the tokens of a map, and positions for all of them.

    Args:
        side: of the map at the training size; positions are resized for another one.
    """

    def __init__(self, dim: int, side: int) -> None:
        super().__init__()
        self.token = embedding(1, 1, dim)
        self.token_position = embedding(1, 1, dim)
        self.position = embedding(1, side, side, dim)

    def sequence(self, x: Tensor) -> Tensor:
        """The tokens of a map, (B, h, w, C) -> (B, 1 + h w, C)."""
        x = (x + resized(self.position, x.shape[1], x.shape[2])).flatten(1, 2)  # (B, h w, C)
        token = (self.token + self.token_position).expand(len(x), -1, -1)
        return torch.cat((token, x), dim=1)
