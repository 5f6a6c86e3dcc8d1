"""A comparison model: a name, an architecture, and where that comes from. Free of torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch.nn.functional as F
from torch import Tensor, nn

from ...errors import UsageError
from ...setting import Attention, Resolution
from ..mixers.attention import attend
from ..spec import Registry


class Architecture(Protocol):
    """A frozen description of a network, which knows its module."""

    @property
    def has_maps(self) -> bool:
        """Whether it can return four maps for dense prediction."""

    def make(self, resolution: Resolution, features: bool, attention: Attention) -> nn.Module:
        """The module for this input, on the default device."""


@dataclass(frozen=True)
class ComparisonSpec:
    """A model of another paper that datbench builds.

    Args:
        name: what the user types.
        config: the architecture.
        source: where it is published.
        summary: one line for `datbench models`.
        evaluated_at: side of the input that its published figures belong to.
    """

    name: str
    config: Architecture
    source: str
    summary: str
    evaluated_at: int = 224
    family: ClassVar[str] = "comparison"

    @property
    def resolution(self) -> Resolution:
        """The input that the published figures belong to."""
        return Resolution(self.evaluated_at, self.evaluated_at)

    def build(self, resolution: Resolution, features: bool, attention: Attention) -> nn.Module:
        """The model for this input, on the default device.

        Raises:
            UsageError: `features` is asked for, and the network has no four maps.
        """
        if features and not self.config.has_maps:
            raise UsageError(
                f"{self.name} has no four maps of strides 4 to 32: leave features out."
            )
        return self.config.make(resolution, features, attention)


Comparisons = Registry[ComparisonSpec]
"""Comparison models by name."""

# What transformers over a sequence of tokens share: attention, and resized embeddings.

EPS = 1e-6
"""Of ViT's layer norms, and of those that follow its code."""


class TokenAttention(nn.Module):
    """Multi-head self-attention over all tokens, (B, N, C) -> (B, N, C).

    Args:
        width: of queries, keys and values, all heads together; C unless told.
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
        y: Tensor = self.out(x.transpose(1, 2).flatten(2))
        return y


def resized(position: Tensor, h: int, w: int) -> Tensor:
    """Position embeddings of a map, (1, side, side, C) -> (1, h, w, C), bicubic if they differ."""
    if position.shape[1:3] == (h, w):
        return position
    table = position.permute(0, 3, 1, 2)  # (1, C, side, side)
    return F.interpolate(table, (h, w), mode="bicubic", align_corners=False).permute(0, 2, 3, 1)
