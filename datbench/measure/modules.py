"""Which module is running: paths and classes, through torch's global hooks.

Global hooks leave the model's own hooks alone; they are removed when the tracking ends.
"""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.nn.modules.module import (
    register_module_forward_hook,
    register_module_forward_pre_hook,
)


class ModuleTracker:
    """A stack of (path, class name) of the modules whose forward is running.

    A class with an attribute `stands_for` goes by that name: it is another layer's equal.

    A module that is called under a name of `model.named_modules()` has that path; `_orig_mod`,
    which `torch.compile` adds, is left out. A module made during the forward has its caller's.
    """

    def __init__(self, model: nn.Module) -> None:
        self._paths: dict[int, str] = {}
        for path, module in model.named_modules():
            clean = ".".join(part for part in path.split(".") if part != "_orig_mod")
            self._paths.setdefault(id(module), clean)
        self._root = type(model).__qualname__
        self._stack: list[tuple[str, str]] = []

    @property
    def current(self) -> tuple[str, str]:
        """Path and class of the innermost running module."""
        return self._stack[-1] if self._stack else ("", self._root)

    def __enter__(self) -> ModuleTracker:
        self._handles = (
            register_module_forward_pre_hook(self._enter),
            register_module_forward_hook(self._exit, always_call=True),
        )
        return self

    def __exit__(self, *exc_info: object) -> None:
        for handle in self._handles:
            handle.remove()
        self._stack.clear()

    def _enter(self, module: nn.Module, inputs: Any) -> None:
        path = self._paths.get(id(module))
        if path is None:
            path = self.current[0]
        kind: str = getattr(module, "stands_for", type(module).__qualname__)
        self._stack.append((path, kind))

    def _exit(self, module: nn.Module, inputs: Any, output: Any) -> None:
        if self._stack:
            self._stack.pop()
