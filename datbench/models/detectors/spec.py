"""A head on a backbone, as something that can be built. Free of torch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeAlias

from ...errors import ResolutionError, UsageError
from ...setting import Attention, Resolution
from ..comparison.spec import ComparisonSpec
from ..external import FactorySpec, TimmSpec
from ..spec import ModelSpec
from .heads import HEADS, JOINT, MIN_SIDE

if TYPE_CHECKING:
    from torch import nn

    from ..torchvision import TorchvisionSpec
    from ..transformers import TransformersSpec
    from .dense import FourMaps

Backbone: TypeAlias = (
    "ModelSpec | ComparisonSpec | TimmSpec | TransformersSpec | TorchvisionSpec | FactorySpec"
)

NORMED = ("swin_",)
"""Models of timm's whose feature maps come without the norms that the published detection code
has (SwinTransformer/Swin-Transformer-Object-Detection, `norm0` to `norm3`)."""


@dataclass(frozen=True)
class MapsSpec:
    """The four feature maps of a backbone, as a head sees them."""

    backbone: Backbone
    start: int = 0  # the first map that the head takes, from 0; those before it have no norm

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
        """The backbone for this input, on the default device."""
        from .dense import FourMaps

        # Whoever counts the maps runs them, and a run checks them.
        backbone, channels = self.with_channels(resolution, attention, trusted=True)
        return FourMaps(self.backbone.name, backbone, channels, self.normed, self.start)

    def with_channels(
        self, resolution: Resolution, attention: Attention, trusted: bool
    ) -> tuple[nn.Module, tuple[int, ...]]:
        """The backbone itself, giving its feature maps, and their channels.

        Args:
            trusted: the channels that it declares are taken without a run.
        """
        from .maps import channels_of, without_norms

        spec = self.backbone
        if isinstance(spec, ComparisonSpec) and not spec.has_maps:
            raise UsageError(
                f"{spec.name} has no four maps of strides 4 to 32, which a head needs."
            )
        if isinstance(spec, TimmSpec) and "out_indices" not in spec.options:
            # A ResNet has a map of stride 2 before the four.
            spec = replace(spec, options={**spec.options, "out_indices": (-4, -3, -2, -1)})
        features = not isinstance(spec, FactorySpec)
        try:
            backbone = without_norms(spec.build(resolution, features, attention), self.start)
        except UsageError as error:
            if "out of range" not in str(error.__cause__) or spec is self.backbone:
                raise
            raise UsageError(
                f"{spec.name} has fewer than four maps of strides 4 to 32, which a head needs."
            ) from error
        return backbone, channels_of(spec.name, backbone, resolution, trusted)


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

    def check(self, resolution: Resolution) -> None:
        """Refuse an input that is too small.

        Raises:
            ResolutionError: a side is.
        """
        if min(resolution.width, resolution.height) < MIN_SIDE:
            raise ResolutionError(
                f"{self.name}: resolution {resolution}: each side of a detector's or segmentor's "
                f"input needs at least {MIN_SIDE} pixels."
            )

    def build(self, resolution: Resolution, features: bool, attention: Attention) -> FourMaps:
        """The whole model for this input, on the default device."""
        from .dense import MODULES

        if features:
            raise UsageError(f"{self.name}: --features is for backbones; leave out the head.")
        self.check(resolution)
        maps = self.maps
        # Counting only parameters runs nothing, so others' backbones are tried out here.
        ours = isinstance(self.backbone, (ModelSpec, ComparisonSpec))
        backbone, channels = maps.with_channels(resolution, attention, trusted=ours)
        return MODULES[self.head](self.name, backbone, channels, maps.normed, maps.start)
