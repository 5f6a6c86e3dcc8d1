"""A head on a backbone, as something that can be built. Free of torch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeAlias

from ...errors import ResolutionError, UsageError
from ...setting import Attention, Resolution
from ..comparison.spec import ComparisonSpec
from ..external import FactorySpec, TimmSpec
from ..spec import ModelSpec
from ..transformers import TransformersSpec
from .heads import HEADS, JOINT, MIN_SIDE

if TYPE_CHECKING:
    from torch import nn

    from .dense import Dense, FourMaps

Backbone: TypeAlias = ModelSpec | ComparisonSpec | TimmSpec | TransformersSpec | FactorySpec

NORMED = ("swin_",)
"""Models of timm's whose feature maps come without the norms that the published detection code
has (SwinTransformer/Swin-Transformer-Object-Detection, `norm0` to `norm3`)."""


@dataclass(frozen=True)
class MapsSpec:
    """The four feature maps of a backbone, as a head sees them.

    Args:
        start: the first map that the head takes, from 0; those before it have no norm.
    """

    backbone: Backbone
    start: int = 0

    @property
    def name(self) -> str:
        """The backbone's, and what is made of it."""
        which = f"maps from {self.start}" if self.start else "maps"
        return f"{self.backbone.name} ({which})"

    @property
    def resolution(self) -> Resolution:
        """The backbone's."""
        return self.backbone.resolution

    @property
    def normed(self) -> bool:
        """Whether norms are added to the maps."""
        spec = self.backbone
        return isinstance(spec, TimmSpec) and spec.architecture.startswith(NORMED)

    def build(self, resolution: Resolution, features: bool, attention: Attention) -> FourMaps:
        """The backbone for this input, on the default device.

        Raises:
            UsageError: it does not give four feature maps.
        """
        from .dense import FourMaps
        from .maps import channels_of

        backbone = self.raw(resolution, attention)
        # Whoever counts the maps runs them, and a run checks them.
        channels = channels_of(self.backbone.name, backbone, resolution, trusted=True)
        return FourMaps(self.backbone.name, backbone, channels, self.normed, self.start)

    def raw(self, resolution: Resolution, attention: Attention) -> nn.Module:
        """The backbone itself, giving its feature maps."""
        from .maps import without_norms

        return without_norms(self._raw(resolution, attention), self.start)

    def _raw(self, resolution: Resolution, attention: Attention) -> nn.Module:
        spec = self.backbone
        if isinstance(spec, ModelSpec):
            from ..pyramid import PyramidBackbone

            return PyramidBackbone(spec.config, features=True, attention=attention)
        if isinstance(spec, FactorySpec):
            return spec.build(resolution, False, attention)
        if isinstance(spec, ComparisonSpec) and not spec.config.has_maps:
            raise UsageError(
                f"{spec.name} has no four maps of strides 4 to 32, which a head needs."
            )
        if isinstance(spec, TimmSpec) and "out_indices" not in spec.options:
            # A ResNet has a map of stride 2 before the four.
            spec = replace(spec, options={**spec.options, "out_indices": (-4, -3, -2, -1)})
        return spec.build(resolution, True, attention)


@dataclass(frozen=True)
class DetectorSpec:
    """A detector or segmentor: a backbone with four feature maps, and a head's name."""

    backbone: Backbone
    head: str

    @property
    def name(self) -> str:
        """As the user writes it: ``dat_t+retinanet``."""
        return f"{self.backbone.name}{JOINT}{self.head}"

    @property
    def resolution(self) -> Resolution:
        """The input of the papers' figures: 1280x800 for detectors, 2048x512 for segmentors."""
        return HEADS[self.head].resolution

    @property
    def maps(self) -> MapsSpec:
        """What the head stands on."""
        return MapsSpec(self.backbone, HEADS[self.head].start)

    def build(self, resolution: Resolution, features: bool, attention: Attention) -> Dense:
        """The whole model for this input, on the default device.

        Raises:
            ResolutionError: a side is below 64.
            UsageError: the backbone does not give four feature maps.
        """
        from .dense import MODULES
        from .maps import channels_of

        if features:
            raise UsageError(f"{self.name}: --features is for backbones; leave out the head.")
        if min(resolution.width, resolution.height) < MIN_SIDE:
            raise ResolutionError(
                f"{self.name}: resolution {resolution}: each side of a detector's or segmentor's "
                f"input needs at least {MIN_SIDE} pixels."
            )
        maps = self.maps
        backbone = maps.raw(resolution, attention)
        ours = isinstance(self.backbone, (ModelSpec, ComparisonSpec))
        # A count of parameters alone runs nothing: others' backbones are tried out here.
        channels = channels_of(self.backbone.name, backbone, resolution, trusted=ours)
        make = MODULES[self.head]
        return make(self.name, backbone, channels, maps.normed)
