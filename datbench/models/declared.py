"""A way for a model to say what an operator costs where dispatch cannot see it.

Neighbourhood attention in plain PyTorch multiplies whole tiles and masks most of the products
away; what it computes is k*k products for each query. Such a function runs its body under
`declared(...)`, and an observer (the counter) takes the declared cost in place of the tiles'.
Without an observer it costs nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from ..setting import Kind


@dataclass(frozen=True)
class Declaration:
    """An operator as a model declares it: its cost by kind and the bytes that it must move."""

    operator: str
    cost: Mapping[Kind, int]
    bytes_read: int
    bytes_written: int
    backward: Mapping[Kind, int] | None = None  # what its backward costs; twice `cost` where None


class Observer(Protocol):
    """What wants to know of declared operators."""

    def enter(self, declaration: Declaration) -> None:
        """A declared operator begins."""

    def exit(self) -> None:
        """It has ended."""


_observers: list[Observer] = []


@contextmanager
def observing(observer: Observer) -> Iterator[None]:
    """Tell `observer` of every declared operator in this block."""
    _observers.append(observer)
    try:
        yield
    finally:
        _observers.remove(observer)


@contextmanager
def declared(declaration: Declaration) -> Iterator[None]:
    """Run a block as the one operator that `declaration` describes."""
    observers = tuple(_observers)
    for observer in observers:
        observer.enter(declaration)
    try:
        yield
    finally:
        for observer in observers:
            observer.exit()
