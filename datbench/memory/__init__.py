"""Where the memory goes: the life of every storage, simulated on meta tensors."""

from __future__ import annotations

from .simulate import Event, StorageBlock, Trace, memory_row, simulate, simulate_model

__all__ = ["Event", "StorageBlock", "Trace", "memory_row", "simulate", "simulate_model"]
