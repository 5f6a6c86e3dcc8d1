"""Where the memory goes: the life of every storage, simulated on meta tensors."""

from __future__ import annotations

from .rows import memory_row
from .simulate import simulate, simulate_model
from .trace import Block, Event, Trace

__all__ = ["Block", "Event", "Trace", "memory_row", "simulate", "simulate_model"]
