"""Signals that ask a program to end: what they do, and where they wait."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import FrameType

HANGUPS = tuple(
    getattr(signal, name)
    for name in ("SIGHUP", "SIGTERM", "SIGUSR1", "SIGUSR2")
    if hasattr(signal, name)
)
"""Besides Ctrl-C's: of a terminal that closes, and of systems that cancel a job or warn it."""


Handler = Callable[[int, FrameType | None], None]


@contextmanager
def _handled(numbers: Iterable[int], handler: Handler) -> Iterator[None]:
    """Handle these signals in the block; what is ignored (by `nohup`) stays ignored."""
    taken = [n for n in numbers if signal.getsignal(n) not in (signal.SIG_IGN, None)]
    before = {}
    try:
        if threading.current_thread() is threading.main_thread():  # elsewhere Python lets nobody
            for number in taken:
                before[number] = signal.signal(number, handler)
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)


@contextmanager
def as_interrupts() -> Iterator[list[int]]:
    """Let every such signal do what Ctrl-C does: KeyboardInterrupt. Yields those that came.

    Who sends such a signal often sends another one: after the first signal, Ctrl-C alone interrupts
    again.
    """
    came: list[int] = []

    def noted(number: int, frame: FrameType | None) -> None:
        known = bool(came)
        came.append(number)
        if number == signal.SIGINT or not known:
            raise KeyboardInterrupt

    ours = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    with _handled((*HANGUPS, signal.SIGINT) if ours else HANGUPS, noted):
        yield came


@contextmanager
def held_back() -> Iterator[None]:
    """Let such signals wait until the block is over."""
    came: list[int] = []
    try:
        with _handled((signal.SIGINT, *HANGUPS), lambda number, frame: came.append(number)):
            yield
    finally:
        if came:
            signal.raise_signal(came[0])
