"""Modules of transformers' as datbench runs them: an image in, logits or maps out.

Their parts stand under `stages`, so that a breakdown by stages has rows of stages. The whole that
they belong to is called, and registered nowhere.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn


class CvtLogits(nn.Module):
    """CvT: (B, 3, H, W) -> (B, classes)."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.stages = model.cvt.encoder.stages
        self.norm = model.layernorm
        self.head = model.classifier
        self._whole = (model,)  # in a tuple: no child

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self._whole[0](pixel_values=x).logits
        return logits


class PvtLogits(nn.Module):
    """PVT: (B, 3, H, W) -> (B, classes)."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.stages = _stages(model)
        self.norm = model.pvt.encoder.layer_norm
        self.head = model.classifier
        self._whole = (model,)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self._whole[0](pixel_values=x).logits
        return logits


class PvtMaps(nn.Module):
    """PVT for dense prediction: a list of (B, C_i, H_i, W_i), strides 4 to 32.

    As in PVT's detection code the maps are not normalised and the last has no class token.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.stages = _stages(model)
        last: Any = model.pvt.encoder.patch_embeddings[-1]
        last.position_embeddings = nn.Parameter(last.position_embeddings.detach()[:, 1:])
        last.cls_token = None

    def forward(self, x: Tensor) -> list[Tensor]:
        maps: list[Tensor] = []
        for stage in self.stages:
            patches, *blocks = stage.children()
            tokens, height, width = patches(x)  # (B, H W, C)
            for block in blocks:
                (tokens,) = block(tokens, height, width)
            x = tokens.transpose(1, 2).unflatten(2, (height, width))  # (B, C, H, W)
            maps.append(x)
        return maps


def _stages(model: Any) -> nn.ModuleList:
    """The patches and blocks of each stage; position embeddings fit any input.

    The library reads a table as if it had the size of the map already, which fails for another
    size than the model's; PVT's own code resizes it bilinearly, and so do these.
    """
    encoder = model.pvt.encoder
    for patches in encoder.patch_embeddings:
        side = patches.image_size[0] // patches.patch_size[0]
        patches.interpolate_pos_encoding = partial(_resized, side)
    pairs = zip(encoder.patch_embeddings, encoder.block, strict=True)
    return nn.ModuleList(nn.ModuleList([patches, *blocks]) for patches, blocks in pairs)


def _resized(side: int, table: Tensor, h: int, w: int) -> Tensor:
    """Position embeddings (1, side side, C) for a map of h x w: (1, h w, C)."""
    if (h, w) == (side, side):
        return table
    image = table.transpose(1, 2).reshape(1, -1, side, side)  # (1, C, side, side)
    return F.interpolate(image, (h, w), mode="bilinear").flatten(2).transpose(1, 2)
