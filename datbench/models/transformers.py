"""Models of Hugging Face's transformers, from literals of ours or its configurations.

The library's classes are given published depths and widths, and random weights: nothing is
downloaded, and its hub is never asked. A name carries options, as timm's do:
``transformers:cvt_13,num_labels=21841`` is what `CvtConfig(num_labels=21841)` describes.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import LibraryError, UnknownNameError, UsageError, one_line
from ..setting import Attention, Resolution
from .external import SIDE, named, split_options
from .spec import TRANSFORMERS

# Depths as in whai362/PVT and microsoft/CvT. Every other setting is the library's default, which is
# theirs but for CvT's classes.
ARCHITECTURES: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "pvt_tiny": ("Pvt", {"depths": [2, 2, 2, 2]}),
    "pvt_small": ("Pvt", {"depths": [3, 4, 6, 3]}),
    "pvt_medium": ("Pvt", {"depths": [3, 4, 18, 3]}),
    "pvt_large": ("Pvt", {"depths": [3, 8, 27, 3]}),
    "cvt_13": ("Cvt", {"depth": [1, 2, 10]}),
    "cvt_21": ("Cvt", {"depth": [1, 4, 16]}),
}
"""A family, as the names of the library's classes begin, and what its member sets otherwise."""


@dataclass(frozen=True)
class TransformersSpec:
    """A model of transformers', with options.

    Any family of the library's gives the model without a head, or with ``num_labels`` the
    classifier. Those of `ARCHITECTURES` are classifiers.
    """

    name: str  # as the user wrote it; it resolves back to this spec
    architecture: str  # a key of `ARCHITECTURES`, or the library's name of a family: ``vit``
    options: Mapping[str, Any] = field(default_factory=dict)  # fields of the configuration

    @property
    def resolution(self) -> Resolution:
        """The image size of the configuration; a literal's is known without the library."""
        size = self.options.get("image_size", SIDE)
        if self.architecture not in ARCHITECTURES:
            size = getattr(self._config(), "image_size", SIDE)
        height, width = size if isinstance(size, (list, tuple)) else (size, size)
        return Resolution(width, height)

    def build(self, resolution: Resolution, features: bool, attention: Attention) -> nn.Module:
        """The model for this input, on the default device; nothing is downloaded.

        The library computes the attention of PVT and CvT in one way only, whatever `attention`
        says.
        """
        if self.architecture in ARCHITECTURES:
            return self._published(ARCHITECTURES[self.architecture][0], features)
        if features:
            raise UsageError(f"{self.name}: --features is for datbench's and timm's models.")
        config = self._config()
        height, width = resolution.height, resolution.width
        sized = hasattr(config, "image_size") and "image_size" not in self.options
        if sized and resolution != self.resolution:
            config = self._config(image_size=height if height == width else (height, width))
        if getattr(config, "use_pretrained_backbone", False):
            config.use_pretrained_backbone = False
        kind = "ForImageClassification" if "num_labels" in self.options else ""
        try:
            model: nn.Module = _load(f"AutoModel{kind}").from_config(config)
        except Exception as error:  # somebody else's code may raise anything
            raise self._refused(error) from error
        channels: Any = getattr(config, "num_channels", 3)
        takes = list(inspect.signature(model.forward).parameters)
        if "pixel_values" in takes and takes[0] != "pixel_values":
            example: Any = partial(_pixels, channels)
            model.example_inputs = example
        model.in_chans = channels
        return model

    def _published(self, family: str, features: bool) -> nn.Module:
        if features and family != "Pvt":
            raise UsageError(f"{self.name} has three stages: no four maps of strides 4 to 32.")
        config = self._config()
        make = _load(f"{family}ForImageClassification")
        try:
            model = make(config)
            made: nn.Module
            if family == "Cvt":
                made = CvtLogits(model, model.cvt.encoder.stages, model.layernorm)
            elif features:
                made = PvtMaps(model)
            else:
                made = PvtLogits(model, _stages(model), model.pvt.encoder.layer_norm)
            made.in_chans = config.num_channels
            return made
        except (TypeError, ValueError, ArithmeticError, LookupError) as error:
            raise self._refused(error) from error

    def _config(self, **more: Any) -> Any:
        if self.architecture in ARCHITECTURES:
            what, (family, published) = self.name.split(",")[0], ARCHITECTURES[self.architecture]
            settings, make = {"num_labels": 1000, **published}, _load(f"{family}Config")
        else:
            what, settings = self.architecture, more
            make = _load("CONFIG_MAPPING")[self.architecture]
        known = {*inspect.signature(make).parameters, "num_labels"} - {"kwargs"}
        for option in self.options:
            if option not in known:
                raise UnknownNameError.among(f"option of {what}", option, known)
        try:
            return make(**{**settings, **self.options})
        except Exception as error:  # its validators raise errors of their own
            raise self._refused(error) from error

    def _refused(self, error: Exception) -> UsageError:
        said = one_line(error).rstrip(".")
        return UsageError(f"{self.name}: transformers does not build it: {said:.300}.")


def _pixels(channels: int, batch: int, height: int, width: int) -> dict[str, Tensor]:
    return {"pixel_values": torch.rand(batch, channels, height, width, device="cpu")}


def transformers_spec(text: str) -> TransformersSpec:
    """``transformers:NAME[,option=value...]``. The library is loaded for names that it knows."""
    name, options = split_options(text, text[len(TRANSFORMERS) :])
    if name in ARCHITECTURES:
        if not isinstance(options.get("image_size", SIDE), int):
            raise UsageError(f"{text}: write image_size as one number.")
    elif name not in (families := _load("CONFIG_MAPPING")):
        names = [*ARCHITECTURES, *families]
        raise UnknownNameError.among("transformers model", name, names)
    return TransformersSpec(text, name, options)


def _load(name: str) -> Any:
    """A class of transformers'."""
    remedy = "pip install transformers"
    try:
        return getattr(importlib.import_module("transformers"), name)
    except ModuleNotFoundError as error:
        raise LibraryError(
            f"this needs transformers, and {error.name} is not installed: {remedy}."
        ) from error
    except AttributeError as error:
        raise LibraryError(
            f"the transformers that is installed has no {name}: {remedy} --upgrade."
        ) from error
    except Exception as error:  # its dependencies are checked at import, and fail in their ways
        raise LibraryError(f"transformers cannot be loaded: {named(error)}") from error


# Modules of transformers' as datbench runs them: an image in, logits or maps out. Their parts stand
# under `stages`, so that a breakdown by stages has rows of stages. The whole that they belong to is
# called, and registered nowhere.


class _Logits(nn.Module):
    """A classifier: (B, 3, H, W) -> (B, classes)."""

    def __init__(self, model: Any, stages: nn.ModuleList, norm: nn.Module) -> None:
        super().__init__()
        self.stages = stages
        self.norm = norm
        self.head = model.classifier
        self._whole = (model,)  # in a tuple: it is not a child

    def forward(self, x: Tensor) -> Tensor:
        return self._whole[0](pixel_values=x).logits


class CvtLogits(_Logits):
    """CvT."""


class PvtLogits(_Logits):
    """PVT."""


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
