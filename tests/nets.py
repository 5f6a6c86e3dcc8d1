"""Tiny models that several tests use, and the sizes of their tensors in bytes."""

import torch
from torch import Tensor, nn

WEIGHTS = 4 * (16 * 64 + 64 + 64 * 16 + 16)
INPUT, OUTPUT, HIDDEN = 4 * 8 * 16, 4 * 8 * 16, 4 * 8 * 64
"""Of `mlp`, whose input is (8, 16)."""


def mlp(device: str = "meta") -> nn.Sequential:
    """Two layers with a GELU between them."""
    with torch.device(device):
        return nn.Sequential(nn.Linear(16, 64), nn.GELU(), nn.Linear(64, 16))


def image(*shape: int) -> Tensor:
    """An input on meta."""
    return torch.empty(shape, device="meta")
