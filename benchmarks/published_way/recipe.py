"""The weights and the input behind the golden files (source: the README beside those files)."""

import math
import zlib

import numpy as np
import torch
from torch import Tensor, nn

#: These hold the architecture's own values, never random ones. The README names the first two;
#: `reference` (the grid of the Deformable-DETR rows) is a constant of the architecture as well.
OWN_VALUES = frozenset({"relative_position_index", "attn_mask", "reference"})
BIAS_TABLES = frozenset({"rpe_table", "relative_position_bias_table", "rpb"})


def recipe_tensor(key: str, shape: tuple[int, ...]) -> Tensor:
    """The tensor that the recipe gives to a published key."""
    random = np.random.RandomState(zlib.crc32(key.encode()) & 0x7FFFFFFF)
    x = torch.from_numpy(random.standard_normal(shape).astype(np.float32))
    last = key.rsplit(".", 1)[-1]
    if last == "weight" and len(shape) >= 2:
        return x / math.sqrt(math.prod(shape[1:]))
    if last == "weight":  # the norms
        return 1 + 0.1 * x
    if last in BIAS_TABLES:
        return 0.5 * x
    return 0.1 * x


def recipe_state_dict(model: nn.Module) -> dict[str, Tensor]:
    """The recipe applied to every key of a model in the published layout."""
    return {
        key: value.clone()
        if key.rsplit(".", 1)[-1] in OWN_VALUES
        else recipe_tensor(key, tuple(value.shape))
        for key, value in model.state_dict().items()
    }


def recipe_input(b: int, h: int, w: int) -> Tensor:
    """The input (b, 3, h, w) of every golden output."""
    x = np.random.RandomState(0).standard_normal((b, 3, h, w))
    return torch.from_numpy(x.astype(np.float32))
