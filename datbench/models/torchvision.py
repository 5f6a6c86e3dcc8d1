"""Models of torchvision, by name, without weights: ``torchvision:resnet50``.

Detectors take a list of images, optical flow two images and video models 16 frames, all in
evaluation mode: torchvision's detectors need targets where they train.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from ..errors import LibraryError, UnknownNameError, UsageError, first_line
from ..setting import Attention, Resolution
from .external import SIDE, named, split_options
from .spec import TORCHVISION

if TYPE_CHECKING:
    from torch import nn

DETECTION = Resolution(1280, 800)
"""Input of a detector, as of datbench's own."""


@dataclass(frozen=True)
class TorchvisionSpec:
    """A model of torchvision's, with options."""

    name: str  # as the user wrote it; it resolves back to this spec
    architecture: str  # torchvision's name
    options: Mapping[str, Any] = field(default_factory=dict)  # for its function

    @property
    def resolution(self) -> Resolution:
        """The crop that the weights were evaluated at."""
        models, kind = self._library()
        if kind == "detection":
            return DETECTION
        weights = models.get_model_weights(self.architecture)
        transforms = next(iter(weights)).transforms  # a function with its arguments
        told = getattr(transforms, "keywords", {})
        crop = told.get("crop_size", told.get("resize_size", SIDE))
        height, width = crop if isinstance(crop, (tuple, list)) else (crop, crop)
        return Resolution(width, height)

    def build(self, resolution: Resolution, features: bool, attention: Attention) -> nn.Module:
        """The model for this input, on the default device."""
        if features:
            raise UsageError(f"{self.name}: --features is for datbench's and timm's models.")
        models, kind = self._library()
        options = {"weights": None, **self.options}
        if "weights" in self.options:
            raise UsageError(f"{self.name}: no weights are needed to count; leave out weights.")
        if kind in ("detection", "segmentation"):
            options["weights_backbone"] = None
        sides = (resolution.height, resolution.width)
        if self.architecture.startswith("vit_") and sides != (SIDE, SIDE):
            options.setdefault("image_size", resolution.height)
        elif self.architecture.startswith("maxvit"):
            options.setdefault("input_size", sides)
        elif self.architecture in ("googlenet", "inception_v3"):
            options.setdefault("init_weights", False)  # else it warns
        try:
            model: nn.Module = models.get_model(self.architecture, **options)
        except (TypeError, ValueError, LookupError, AssertionError) as error:
            raise UsageError(
                f"{self.name}: torchvision does not build it: {named(error)}"
            ) from error
        example: Any = partial(_example, kind)
        if kind in ("detection", "optical_flow", "video"):
            model.example_inputs = example
        return model

    def _library(self) -> tuple[Any, str]:
        """Torchvision's models, and what kind this one is: the module that its function is in.

        Raises:
            LibraryError: torchvision cannot be loaded.
            UnknownNameError: it has no such model.
        """
        try:
            models = importlib.import_module("torchvision.models")
        except Exception as error:  # one of another torch fails in several ways
            raise LibraryError(
                f"this needs a torchvision that fits torch ({first_line(error)}): "
                "pip install torchvision."
            ) from error
        names = models.list_models()
        if self.architecture not in names:
            raise UnknownNameError.among("torchvision model", self.architecture, names)
        function = models.get_model_builder(self.architecture)
        return models, function.__module__.split(".")[2]


def _example(kind: str, batch: int, height: int, width: int) -> Any:
    """What models of this kind take."""
    import torch

    if kind == "detection":
        return ([torch.rand(3, height, width, device="cpu") for _ in range(batch)],)
    if kind == "optical_flow":
        return tuple(torch.rand(2, batch, 3, height, width, device="cpu"))
    return torch.rand(batch, 3, 16, height, width, device="cpu")  # frames


def torchvision_spec(text: str) -> TorchvisionSpec:
    """``torchvision:NAME[,option=value...]``; nothing is loaded yet."""
    return TorchvisionSpec(text, *split_options(text, text[len(TORCHVISION) :]))
