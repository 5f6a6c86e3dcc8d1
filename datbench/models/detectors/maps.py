"""Four feature maps from any backbone, checked."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import DatbenchError, UsageError
from ...setting import Resolution
from ..comparison.regionvit import RegionVitModel
from ..layers import image_channels
from ..module import without_values
from ..pyramid import PyramidBackbone

STRIDES = (4, 8, 16, 32)


def channels_of(
    name: str, backbone: nn.Module, resolution: Resolution, trusted: bool
) -> tuple[int, ...]:
    """Channels of the four maps: as the backbone declares them, or found out by running it.

    A declaration is timm's `feature_info.channels()` or an attribute `channels`.

    Args:
        trusted: take a declaration as it is; else the backbone is run and has to give just that.

    Raises:
        UsageError: it has no four maps of strides 4 to 32, or others than it declares.
    """
    declared = _declared(name, backbone)
    if declared is not None and trusted:
        return declared
    out, image = _run(backbone, resolution)
    maps = checked(name, out, declared, image, is_channels_last(backbone))
    return tuple(x.shape[1] for x in maps)


def _declared(name: str, backbone: nn.Module) -> tuple[int, ...] | None:
    info: Any = getattr(backbone, "feature_info", None)
    declared = info.channels() if hasattr(info, "channels") else getattr(backbone, "channels", None)
    if isinstance(declared, Sequence) and all(isinstance(c, int) for c in declared):
        if len(declared) != len(STRIDES):
            raise UsageError(f"{name} declares {len(declared)} feature maps; a head needs four.")
        return tuple(declared)
    if isinstance(backbone, PyramidBackbone):
        return tuple(stage.dim for stage in backbone.config.stages)
    return None


def _run(backbone: nn.Module, resolution: Resolution) -> tuple[Any, Tensor]:
    """What the backbone returns, and for which image: on meta, or where it lies if it cannot run
    there. The backbone is unchanged afterwards.
    """
    size = (1, image_channels(backbone), resolution.height, resolution.width)
    with torch.no_grad():
        try:
            image = torch.empty(size, device="meta")
            return without_values(backbone).eval()(image), image
        except DatbenchError:
            raise
        except (RuntimeError, NotImplementedError):
            weight = next(backbone.parameters(), None)  # a backbone may have none
            image = torch.zeros(size, device=None if weight is None else weight.device)
            return copy.deepcopy(backbone).eval()(image), image


def _listed(name: str, out: Any) -> list[Tensor]:
    """The four maps that a backbone returns, in a list, a tuple or a mapping of tensors."""
    found = list(out.values()) if isinstance(out, Mapping) else out
    needs = "a head needs four feature maps, of strides 4, 8, 16 and 32."
    if not isinstance(found, (list, tuple)):
        what = f"one tensor {_shape(found)}" if isinstance(found, Tensor) else type(found).__name__
        raise UsageError(f"{name} returns {what}; {needs}")
    maps = [x for x in found if isinstance(x, Tensor) and x.ndim == 4]
    if not len(found) == len(maps) == len(STRIDES):
        what = f"{len(found)} outputs, of which {len(maps)} are maps (B, C, H, W)"
        raise UsageError(f"{name} returns {what}; {needs}")
    return maps


def checked(
    name: str, out: Any, channels: Sequence[int] | None, image: Tensor, last: bool
) -> list[Tensor]:
    """The maps as (B, C_i, H_i, W_i), each of the channels and of about the size it should have.

    Args:
        channels: of each map; None to accept any.
        last: the backbone gives (B, H, W, C), as timm's Swin does.
    """
    maps = _listed(name, out)
    if last:
        maps = [x.permute(0, 3, 1, 2) for x in maps]  # (B, C, H, W)
    came = tuple(x.shape[1] for x in maps)
    if channels is not None and came != tuple(channels):
        raise UsageError(
            f"{name}: the channels of its maps are {', '.join(map(str, came))}, and the head was "
            f"made for {', '.join(map(str, channels))}."
        )
    for x, stride in zip(maps, STRIDES, strict=True):
        for side, whole in zip(x.shape[-2:], image.shape[-2:], strict=True):
            if not whole // stride <= side <= -(-whole // stride) + 1:
                raise UsageError(
                    f"{name} returns a map {_shape(x)} for an input {_shape(image)}; a head needs "
                    f"stride {stride} there (4, 8, 16 and 32 in turn)."
                )
    return maps


def without_norms(backbone: nn.Module, start: int) -> nn.Module:
    """A backbone of datbench's without the norms of the maps before `start`.

    Published backbones of detectors make norms only for the maps that the neck takes
    (`out_indices`); RetinaNet's neck starts at stride 8.
    """
    if isinstance(backbone, (PyramidBackbone, RegionVitModel)) and backbone.norms is not None:
        for i in range(start):
            backbone.norms[i] = nn.Identity()
    return backbone


def is_channels_last(backbone: nn.Module) -> bool:
    """Whether timm says that the maps are (B, H, W, C)."""
    return str(getattr(backbone, "output_fmt", "")).rpartition(".")[2] == "NHWC"


def _shape(x: Tensor) -> str:
    return "x".join(map(str, x.shape))
