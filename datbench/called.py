"""Packages that are functions too: `datbench.memory(model)` beside `datbench.memory.simulation`.

Importing a package sets the attribute of that name in `datbench`, so that a function there would be
lost. The package itself is called instead, and stays a package.
"""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any


class CalledPackage(ModuleType):
    """A package that calls the function of its name in `datbench.api`."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """What the function says of itself."""
        return self._function(*args, **kwargs)

    @property
    def _function(self) -> Callable[..., Any]:
        found: Callable[..., Any] = getattr(
            importlib.import_module(f"{__package__}.api"), self.__name__.rpartition(".")[2]
        )
        return found

    @property
    def __signature__(self) -> inspect.Signature:
        return inspect.signature(self._function)


def called(name: str) -> None:
    """Make a package one of these."""
    sys.modules[name].__class__ = CalledPackage
