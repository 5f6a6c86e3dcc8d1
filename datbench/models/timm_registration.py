"""Our variants among timm's: `timm.create_model("dat_t")` after `import datbench.models`.

Neither timm nor torch is imported for it. Where timm is not loaded yet, a finder waits at the
front of `sys.meta_path` for its model package, lets the usual finders find it, registers once it
was executed, and goes. Importing timm never fails because of it: what goes wrong is logged.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec
    from types import ModuleType

    from torch import nn

    from .spec import ModelSpec

__all__ = ["install"]  # timm appends the names that it registers

_REGISTRY_HOME = "timm.models"

default_cfgs: dict[str, dict[str, Any]] = {}
"""What timm looks up beside an entry point, by name."""


def install() -> None:
    """Register now if timm is loaded, else as soon as it is."""
    if sys.modules.get(_REGISTRY_HOME) is not None:
        _register_or_log()
    elif not any(isinstance(finder, _AfterTimm) for finder in sys.meta_path):
        sys.meta_path.insert(0, _AfterTimm())


def register() -> None:
    """Give timm an entry point for every variant whose name it does not have yet."""
    from timm.models import is_model, register_model

    from .dat import REGISTRY

    for spec in REGISTRY:
        if not is_model(spec.name):
            default_cfgs[spec.name] = _default_cfg(spec)
            globals()[spec.name] = register_model(_entry_point(spec))


def _register_or_log() -> None:
    try:
        register()
    except Exception as error:  # whatever it is, it is no reason for timm not to load
        import logging  # logged, not warned of: a warning may be an error here

        logging.getLogger("datbench").warning(
            "timm does not get datbench's models: %s: %s", type(error).__name__, error
        )


def _default_cfg(spec: ModelSpec) -> dict[str, Any]:
    """A model as timm describes it; mean, deviation and crop are its defaults, ImageNet's."""
    size = spec.resolution
    return {
        "input_size": (3, size.height, size.width),
        "min_input_size": (3, 32, 32),
        "num_classes": spec.config.classes,
        "first_conv": "stem.0",
        "classifier": "head.linear",
        "description": spec.summary,
    }


def _entry_point(spec: ModelSpec) -> Callable[..., nn.Module]:
    """The function that timm calls; timm takes its name for the model's."""

    def entry_point(pretrained: bool = False, **options: Any) -> nn.Module:
        from .timm_models import build

        return build(spec, pretrained, **options)

    entry_point.__name__ = entry_point.__qualname__ = spec.name
    entry_point.__doc__ = f"{spec.summary} ({spec.source})."
    return entry_point


class _AfterTimm:
    """A finder of timm's model package that adds what is done after its execution."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != _REGISTRY_HOME:
            return None
        for finder in list(sys.meta_path):
            find = None if finder is self else getattr(finder, "find_spec", None)
            spec: ModuleSpec | None = find(fullname, path, target) if find else None
            if spec is not None:
                if hasattr(spec.loader, "exec_module"):
                    spec.loader = cast(Any, _Loader(spec.loader, self))
                return spec
        return None

    def leave(self) -> None:
        if self in sys.meta_path:
            sys.meta_path.remove(self)


class _Loader:
    """Another loader, which the module gets back before its code runs."""

    def __init__(self, loader: Any, finder: _AfterTimm) -> None:
        self._loader = loader
        self._finder = finder

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        module: ModuleType | None = self._loader.create_module(spec)
        return module

    def exec_module(self, module: ModuleType) -> None:
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        self._loader.exec_module(module)
        self._finder.leave()
        _register_or_log()
