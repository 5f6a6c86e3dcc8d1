"""Signals that ask a program to end: what they do, and where they wait."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

HANGUPS = tuple(
    getattr(signal, name)
    for name in ("SIGHUP", "SIGTERM", "SIGUSR1", "SIGUSR2")
    if hasattr(signal, name)
)
"""Besides Ctrl-C's: of a terminal that closes, and of systems that cancel a job or warn it."""


def _in_main_thread() -> bool:
    """Elsewhere Python lets nobody handle signals."""
    return threading.current_thread() is threading.main_thread()


@contextmanager
def as_interrupts() -> Iterator[list[int]]:
    """Let every such signal do what Ctrl-C does: KeyboardInterrupt. Yields those that came.

    What is ignored (by `nohup`) stays ignored. Who sends such a signal often sends another one:
    after the first signal, Ctrl-C alone interrupts again.
    """
    came: list[int] = []

    def noted(number: int, frame: FrameType | None) -> None:
        known = bool(came)
        came.append(number)
        if number == signal.SIGINT or not known:
            raise KeyboardInterrupt

    taken = [n for n in HANGUPS if signal.getsignal(n) not in (signal.SIG_IGN, None)]
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        taken.append(signal.SIGINT)
    before = {n: signal.signal(n, noted) for n in taken} if _in_main_thread() else {}
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def held_back() -> Iterator[None]:
    """Let such signals wait until the block is over."""
    came: list[int] = []
    taken = [
        number
        for number in (signal.SIGINT, *HANGUPS)
        if signal.getsignal(number) not in (signal.SIG_IGN, None)
    ]
    before = {}
    try:
        if _in_main_thread():
            for number in taken:
                before[number] = signal.signal(number, lambda number, frame: came.append(number))
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if came:
            signal.raise_signal(came[0])
