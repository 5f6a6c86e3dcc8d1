"""A comparison model: a name, an architecture, and where that comes from. Free of torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar

from ...errors import UnknownNameError, UsageError
from ...setting import Attention, Resolution

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class ComparisonSpec:
    """A model of another paper that datbench builds."""

    name: str  # what the user types
    file: str  # beside this one, with its architecture in `MODELS`, and `MODULE`
    source: str  # where it is published
    summary: str  # one line for `datbench models`
    has_maps: bool = True  # four of them, for dense prediction
    classes: int = 1000
    family: ClassVar[str] = "comparison"

    def changed(self, options: Mapping[str, Any], name: str) -> ComparisonSpec:
        """The same with other options, of which there is one: ``num_classes``.

        Raises:
            UsageError: it has no such option, or the option no such value.
        """
        classes = options.get("num_classes", self.classes)
        if unknown := sorted(options.keys() - {"num_classes"}):
            raise UnknownNameError(
                f"{name}: unknown option {unknown[0]!r}: of {self.name}, num_classes can be chosen."
            )
        if type(classes) is not int or classes < 1:
            raise UsageError(f"{name}: num_classes: write a whole number from 1.")
        return replace(self, name=name, classes=classes) if options else self

    @property
    def config(self) -> Any:
        """The architecture. It stands beside its module, which needs torch: both load here."""
        found = self._file().MODELS[self.name.partition(",")[0].strip()]
        return replace(found, classes=self.classes)

    def _file(self) -> Any:
        return import_module(f".{self.file}", __package__)

    @property
    def resolution(self) -> Resolution:
        """The input that the published figures belong to."""
        return Resolution(224, 224)

    def build(self, resolution: Resolution, features: bool, attention: Attention) -> nn.Module:
        """The model, on the default device; it takes any input."""
        make = self._file().MODULE
        if self.has_maps:
            return make(self.config, features, attention)
        if features:
            raise UsageError(
                f"{self.name} has no four maps of strides 4 to 32: leave features out."
            )
        return make(self.config, attention)
