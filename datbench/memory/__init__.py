"""Where the memory goes: the life of every storage, simulated on meta tensors.

``datbench.memory(model)`` simulates a model, as `datbench.api.memory` says. What simulates is
loaded on first use: records and views of memory do not need torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..called import called

if TYPE_CHECKING:
    from .simulation import Event, StorageBlock, Trace, memory_row, simulate, simulate_model

__all__ = ["Event", "StorageBlock", "Trace", "memory_row", "simulate", "simulate_model"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import simulation

    return getattr(simulation, name)


called(__name__)
