"""Feature pyramid networks, as mmdetection 2.x configures them for detectors.

================  ==================================================================
levels            from the maps C2 to C5 (strides 4 to 32)
================  ==================================================================
P2 to P5          all four (Semantic FPN)
P2 to P6          the same; P6 is every other pixel of P5 (Mask R-CNN, Cascade)
P3 to P7          from C3; P6 is a convolution of C5, P7 of P6 (RetinaNet)
================  ==================================================================
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from .layers import nearest

Extra = Literal["none", "pool", "convs"]


class FPN(nn.Module):
    """Four maps (B, C_i, H/s, W/s) -> levels (B, dim, H/s, W/s), the finest first.

    Args:
        start: the first map that is used, from 0.
        extra: what makes coarser levels: nothing, a max-pooling of side 1 and stride 2 (one more
            level), or convolutions of stride 2 on the last map (two more).
    """

    def __init__(
        self, channels: Sequence[int], dim: int = 256, start: int = 0, extra: Extra = "none"
    ) -> None:
        super().__init__()
        self.start = start
        self.extra = extra
        used = channels[start:]
        self.laterals = nn.ModuleList(nn.Conv2d(c, dim, 1) for c in used)
        self.outputs = nn.ModuleList(nn.Conv2d(dim, dim, 3, padding=1) for _ in used)
        coarser = (used[-1], dim) if extra == "convs" else ()
        self.coarser = nn.ModuleList(nn.Conv2d(c, dim, 3, stride=2, padding=1) for c in coarser)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        used = maps[self.start :]
        levels = [lateral(x) for lateral, x in zip(self.laterals, used, strict=True)]
        for i in range(len(levels) - 1, 0, -1):
            levels[i - 1] = levels[i - 1] + nearest(levels[i], like=levels[i - 1])
        levels = [conv(x) for conv, x in zip(self.outputs, levels, strict=True)]
        if self.extra == "pool":
            levels.append(F.max_pool2d(levels[-1], 1, stride=2))
        x = used[-1]
        for conv in self.coarser:
            x = conv(x)
            levels.append(x)
        return levels
