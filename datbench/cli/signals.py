"""What a signal means to a command that has something to keep."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def terminated_as_interrupt() -> Iterator[None]:
    """Let SIGTERM, with which a CI job is cancelled, do what Ctrl-C does: KeyboardInterrupt.

    What handled it before does so again afterwards. Outside of the main thread, where Python lets
    nobody handle signals, nothing is changed.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield
    finally:
        # None: it was not Python that set it
        signal.signal(signal.SIGTERM, signal.SIG_DFL if before is None else before)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
