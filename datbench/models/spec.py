"""The registry: a name, what it builds, and where that comes from. Free of torch."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from ..errors import UnknownNameError
from ..setting import Resolution
from .config import Pyramid

TIMM, TRANSFORMERS = "timm:", "transformers:"
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


class Named(Protocol):
    """What a registry holds."""

    @property
    def name(self) -> str: ...


S = TypeVar("S", bound=Named)


class Registry(Generic[S]):
    """Specs by name, in the order given; a duplicate name raises ValueError."""

    def __init__(self, specs: Iterable[S]) -> None:
        self._specs: dict[str, S] = {}
        for spec in specs:
            if spec.name in self._specs:
                raise ValueError(f"duplicate model name {spec.name!r}")
            self._specs[spec.name] = spec

    def __iter__(self) -> Iterator[S]:
        return iter(self._specs.values())

    def names(self) -> tuple[str, ...]:
        """Every name, in order."""
        return tuple(self._specs)

    def get(self, name: str) -> S:
        """The spec called `name`.

        Raises:
            UnknownNameError: there is none; the message suggests the closest names.
        """
        spec = self._specs.get(name)
        if spec is None:
            raise UnknownNameError.among(
                "model", name, self._specs, "`datbench models` lists them all."
            )
        return spec
