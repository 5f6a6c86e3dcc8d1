"""Where the memory goes: the life of every storage, simulated on meta tensors."""

from __future__ import annotations

from .simulate import Block, Event, Trace, memory_row, simulate, simulate_model

__all__ = ["Block", "Event", "Trace", "memory_row", "simulate", "simulate_model"]
