"""A comparison model: a name, an architecture, and where that comes from. Free of torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol

from ...errors import UsageError
from ...types import Attention, Resolution
from ..spec import Registry

if TYPE_CHECKING:
    from torch import nn


class Architecture(Protocol):
    """A frozen description of a network, which knows its module."""

    @property
    def has_maps(self) -> bool:
        """Whether it can return four maps for dense prediction."""

    def make(self, resolution: Resolution, features: bool, attention: Attention) -> nn.Module:
        """The module for this input, on the default device."""


@dataclass(frozen=True)
class ComparisonSpec:
    """A model of another paper that datbench builds.

    Args:
        name: what the user types.
        config: the architecture.
        source: where it is published.
        summary: one line for `datbench models`.
        evaluated_at: side of the input that its published figures belong to.
    """

    name: str
    config: Architecture
    source: str
    summary: str
    evaluated_at: int = 224
    family: ClassVar[str] = "comparison"

    @property
    def resolution(self) -> Resolution:
        """The input that the published figures belong to."""
        return Resolution(self.evaluated_at, self.evaluated_at)

    def build(self, resolution: Resolution, features: bool, attention: Attention) -> nn.Module:
        """The model for this input, on the default device.

        Raises:
            UsageError: `features` is asked for, and the network has no four maps.
        """
        if features and not self.config.has_maps:
            raise UsageError(
                f"{self.name} has no four maps of strides 4 to 32: leave features out."
            )
        return self.config.make(resolution, features, attention)


Comparisons = Registry[ComparisonSpec]
"""Comparison models by name."""
