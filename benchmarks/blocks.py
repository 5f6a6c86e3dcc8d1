"""A model whose work is known: so many equal blocks and nothing else.

``benchmarks.blocks:net,blocks=21`` does 5 % more than ``benchmarks.blocks:net,blocks=20``.
"""

import torch
from torch import nn

WIDTH = 24


class Net(nn.Module):
    """Equal 3x3 convolutions on the image, whose channels are repeated to their width."""

    def __init__(self, blocks: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.Conv2d(WIDTH, WIDTH, 3, padding=1) for _ in range(blocks))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.repeat(1, WIDTH // 3, 1, 1)  # (B, 3, H, W) -> (B, WIDTH, H, W)
        for block in self.blocks:
            x = block(x)
        return x


def net(blocks: int) -> Net:
    return Net(blocks)
