"""A model that can be built: its name, what it builds, and where that comes from. Free of torch."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Protocol, TypeVar

from ..errors import UsageError
from ..setting import MAX_SIDE, MIN_SIDE, Attention, Bounds, Resolution
from .config import Pyramid

if TYPE_CHECKING:
    from torch import nn

LIBRARIES = TIMM, TRANSFORMERS, TORCHVISION = ("timm:", "transformers:", "torchvision:")
"""Before the name of a library's model."""

CONFIG = "config:"
"""Before the name of a published YAML file, which may be called anything."""


def split_config(name: str) -> tuple[Path, str]:
    """The file that ``config:FILE,option=value`` names, and ``,option=value``.

    A file's name may have commas: the longest name of a file that is there counts.
    """
    file, options = name[len(CONFIG) :], ""
    while not Path(file).is_file() and (option := re.search(r",\w+=[^,]*$", file)):
        file, options = file[: option.start()], option.group() + options
    return Path(file), options


@dataclass(frozen=True)
class ModelSpec:
    """A model that datbench can build."""

    name: str  # what the user types
    config: Pyramid  # the architecture
    family: str  # ``dat``, ``dat++``, ``ablation`` or ``deformable-detr``
    source: str  # where the architecture is published
    summary: str  # one line for `datbench models`
    # Side of the input that the paper evaluates at, where the bias tables were made for another.
    evaluated_at: int | None = None

    @property
    def resolution(self) -> Resolution:
        """The input that the published figures belong to."""
        side = self.evaluated_at or self.config.image_size
        return Resolution(side, side)

    def build(self, resolution: Resolution, features: bool, attention: Attention) -> nn.Module:
        """The model, on the default device; it takes any input."""
        from .pyramid import PyramidBackbone

        return PyramidBackbone(self.config, features, attention)


@dataclass(frozen=True)
class Options:
    """What a name may change of a variant, ``dat_t,num_classes=10,in_chans=4``: see `Pyramid`."""

    num_classes: Annotated[int, Bounds(0, 1 << 24)] = 1000
    in_chans: Annotated[int, Bounds(1, 1 << 16)] = 3
    drop_path: Annotated[float, Bounds(0)] = 0.0
    layer_scale: float | None = None
    image_size: Annotated[int, Bounds(MIN_SIDE, MAX_SIDE)] = 224


def variant(spec: ModelSpec, options: Mapping[str, Any], name: str | None = None) -> ModelSpec:
    """`spec` with other options, under another name if there is one.

    Bias tables are made for `image_size`, which is the input then.

    Raises:
        UsageError: an option is unknown, or has no such value.
    """
    if not options:
        return spec
    from ..records import check_name, read_as

    name = name or spec.name
    for option in options:
        check_name("option", option, Options.__annotations__, name)
    read: Options = read_as(Options, dict(options), name)
    if read.drop_path >= 1:
        raise UsageError(f"{name}: drop_path: write a rate from 0 to below 1.")
    changes = {_FIELDS.get(key, key): getattr(read, key) for key in options}
    evaluated_at = None if "image_size" in options else spec.evaluated_at
    return replace(
        spec, name=name, config=replace(spec.config, **changes), evaluated_at=evaluated_at
    )


_FIELDS = {"num_classes": "classes"}
"""Options that have another name in `Pyramid`."""


class Named(Protocol):
    """What stands in a registry."""

    @property
    def name(self) -> str: ...


S = TypeVar("S", bound=Named)


def by_name(specs: Iterable[S]) -> Mapping[str, S]:
    """Specs by name, in the order given; a duplicate name raises ValueError."""
    found: dict[str, S] = {}
    for spec in specs:
        if found.setdefault(spec.name, spec) is not spec:
            raise ValueError(f"duplicate model name {spec.name!r}")
    return found
