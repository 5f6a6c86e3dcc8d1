"""CeiT: an image-to-tokens stem, blocks with a depthwise convolution in their feed-forward network,
and one last block over the class tokens of all blocks.

Sources: "Incorporating Convolution Designs into Visual Transformers" (Yuan et al., ICCV 2021),
and coeusguo/ceit for what the paper leaves open: the stem's 64 channels, which give the 24.2M
parameters that the paper prints (32 would give 24.0M). Where paper and code differ, the code is
followed: its last block runs over every class token and not only the last.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ...setting import Attention
from ..layers import Mlp, Pointwise, check_sides, depthwise
from .tokens import EPS, TokenAttention, TokenModel


@dataclass(frozen=True)
class Ceit:
    """A CeiT: a convolutional stem, then one width and stride 16 throughout."""

    dim: int  # width C
    heads: int  # M
    depth: int = 12  # blocks
    stem: int = 64  # channels of the stem's convolution
    expansion: int = 4
    image_size: int = 224  # side of the training input; it fixes the position embeddings' size
    classes: int = 1000


MODELS = {"ceit_s": Ceit(dim=384, heads=6)}

PATCH = 4
"""Side of a patch of the stem's map, which has stride 4 itself."""


class MapNorm(nn.BatchNorm2d):
    """Batch normalisation of (B, H, W, C) maps."""

    stands_for = "BatchNorm2d"

    def forward(self, x: Tensor) -> Tensor:
        # (B, C, H, W) and back
        return super().forward(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


class ImageToTokens(nn.Module):
    """conv 7x7 s2, norm, max-pooling 3x3 s2, patches: (B, 3, H, W) -> (B, H/16, W/16, C)."""

    def __init__(self, stem: int, dim: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, stem, 7, stride=2, padding=3, bias=False)
        self.norm = nn.BatchNorm2d(stem)
        self.pool = nn.MaxPool2d(3, stride=2, padding=1)
        self.patch = nn.Conv2d(stem, dim, PATCH, stride=PATCH)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.norm(self.conv(x)))  # (B, stem, H/4, W/4)
        y: Tensor = self.patch(x)
        return y.permute(0, 2, 3, 1)


class LocalFfn(nn.Module):
    """1x1, depthwise 3x3, 1x1, each with a batch norm; GELU after the first two. (B, H, W, C)."""

    def __init__(self, dim: int, expansion: int) -> None:
        super().__init__()
        hidden = dim * expansion
        self.linear1 = Pointwise(dim, hidden)
        self.norm1 = MapNorm(hidden)
        self.dwconv = depthwise(hidden)
        self.norm2 = MapNorm(hidden)
        self.linear2 = Pointwise(hidden, dim)
        self.norm3 = MapNorm(dim)
        self.act = nn.GELU()

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.norm1(self.linear1(x)))
        x = self.act(self.norm2(self.dwconv(x)))
        return self.norm3(self.linear2(x))


class CeitBlock(nn.Module):
    """Attention over class token and map, then the local FFN over only the map."""

    def __init__(self, config: Ceit, attention: Attention) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.dim, eps=EPS)
        self.attn = TokenAttention(config.dim, config.heads, attention)
        self.norm2 = nn.LayerNorm(config.dim, eps=EPS)
        self.ffn = LocalFfn(config.dim, config.expansion)

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        b, n, c = x.shape  # (B, 1 + HW, C)
        x = x + self.attn(self.norm1(x))
        token, tokens = self.norm2(x).split([1, n - 1], dim=1)
        tokens = self.ffn(tokens.reshape(b, *size, c)).flatten(1, 2)  # (B, HW, C)
        # The published code adds the normalised class token to itself.
        return x + torch.cat((token, tokens), dim=1)


class ClassTokens(nn.Module):
    """The last block, over the class tokens of all blocks: (B, depth, C) -> (B, C)."""

    def __init__(self, config: Ceit, attention: Attention) -> None:
        super().__init__()
        self.embedding = nn.Parameter(torch.zeros(1, config.depth, config.dim))
        self.norm1 = nn.LayerNorm(config.dim, eps=EPS)
        self.attn = TokenAttention(config.dim, config.heads, attention)
        self.norm2 = nn.LayerNorm(config.dim, eps=EPS)
        self.ffn = Mlp(config.dim, config.expansion)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.embedding
        x = x + self.attn(self.norm1(x))
        x = x + self.ffn(self.norm2(x))
        return x[:, -1]


class CeitModel(TokenModel):
    """(B, 3, H, W) -> logits (B, classes); another input's position embeddings are resized."""

    def __init__(self, config: Ceit, attention: Attention) -> None:
        super().__init__(config.dim, config.image_size // (4 * PATCH))
        self.stem = ImageToTokens(config.stem, config.dim)
        self.blocks = nn.ModuleList(CeitBlock(config, attention) for _ in range(config.depth))
        self.last = ClassTokens(config, attention)
        self.norm = nn.LayerNorm(config.dim, eps=EPS)
        self.head = nn.Linear(config.dim, config.classes)

    def forward(self, image: Tensor) -> Tensor:
        check_sides(image)
        x = self.stem(image)  # (B, h, w, C)
        h, w = x.shape[1], x.shape[2]
        x = self.sequence(x)  # (B, 1 + h w, C)
        tokens = []
        for block in self.blocks:
            x = block(x, (h, w))
            tokens.append(x[:, 0])
        return self.head(self.norm(self.last(torch.stack(tokens, dim=1))))


MODULE = CeitModel
