"""Two processes that take turns of a few hundredths of a second, so that both see the same machine.

A machine's speed moves by itself, within a second too: its clock, its caches, its other tenants.
Processes one after the other then differ by what happened to the machine in between. These two have
their samples out of the same seconds, and one waits while the other works. Each writes bytes into
the other's pipe: the first says that its model is built, every later one gives the turn away, and
the last says that it wants no more turns, upon which the other ends too. An end of file instead of
it says that the other has crashed.
"""

from __future__ import annotations

import math
import os
import select
import threading
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ..errors import MeasurementError
from .records import WAITED
from .sample import Clock

TURN = 0.02
"""Seconds after which the turn is given away; a sample that has begun is finished."""

LEAST = 2
"""Samples of a turn."""

REST = 0.001
"""Seconds between two looks at whether this process's threads have come to rest."""

REST_MOST = 0.25
"""Seconds that they are waited for; LLVM's OpenMP looks for work for 0.2 s, GNU's for 0.01."""

TIRED = 3
"""Rests in a row that did not come, after which they are not waited for any more."""

RESTLESS = 0.2
"""The part of the other side's turns in which this process may work without a warning."""

THREADS = Path("/proc/self/task")

_GIVEN, _OVER = b".", b"e"


@dataclass(frozen=True)
class Pipes:
    """One side's ends of the two pipes, as file descriptors."""

    inward: int  # of the pipe that the other side writes
    outward: int  # of the pipe that this side writes
    begins: bool  # whether the first turn is this side's


class Turns:
    """One side of it.

    Args:
        warm: a call that is waited for. It begins a turn, untimed, unless a call takes longer than
            a turn: the other side has left the caches as it needed them.
        left: seconds that there still are.
        busy: seconds that this process has used of processors.
        working: whether another thread of this process is at work.
    """

    def __init__(
        self,
        pipes: Pipes,
        warm: Callable[[], object],
        left: Clock,
        clock: Clock = time.perf_counter,
        busy: Clock = time.process_time,
        working: Callable[[], bool] | None = None,
    ) -> None:
        self.taken = 0
        self._open = [pipes.inward, pipes.outward]
        self._inward, self._outward, self._begins = pipes.inward, pipes.outward, pipes.begins
        self._warm, self._left, self._clock, self._busy = warm, left, clock, busy
        self._working = threads_at_work if working is None else working
        self._waited = 0.0
        self._began = 0.0
        self._samples = 0
        self._tired = 0
        self._worked = self._idle = 0.0
        self._over = False

    @property
    def restless(self) -> bool:
        """Whether threads of this process go on working in the other side's turns."""
        return self._worked > RESTLESS * self._idle

    def clock(self) -> float:
        """Seconds without those waited for rest or the other side; endless when that has ended."""
        return math.inf if self._over else self._clock() - self._waited

    def meet(self) -> None:
        """Wait until the other side is as far; then for the first turn.

        Raises:
            MeasurementError: the time was over before, or the other side, or the pipes are gone.
        """
        try:
            self._tell(_GIVEN)
            self._wait()
            if not self._begins:
                self._wait()
        except OSError as error:
            raise MeasurementError(
                f"the pipe to the other side is gone ({error.strerror}); use --one-at-a-time"
            ) from error
        if self._over:  # it crashed while it was built: there is nobody to compare with
            raise MeasurementError(WAITED)
        self._begin()

    def sampled(self) -> None:
        """A sample has ended: give the turn away and wait for the next, if this one is over."""
        self._samples += 1
        spent = self._clock() - self._began
        if self._samples < LEAST or spent < TURN or self._over:
            return
        self._come_to_rest()
        self._tell(_GIVEN)
        busy, waited = self._busy(), self._waited
        self._wait()
        self._worked += self._busy() - busy
        self._idle += self._waited - waited
        if not self._over:
            if spent / self._samples < TURN:
                self._warm()
            self._begin()

    def end(self) -> None:
        """No turn is wanted any more."""
        # Its only turn may have been the whole budget: the other one has not had any yet.
        first = self._begins and self.taken == 1
        with suppress(OSError):
            self._tell(_GIVEN + _OVER if first else _OVER)
        self._close()

    def keep_from_children(self) -> None:
        """Let no process that the model starts hold the pipes: their end would not be seen."""
        for descriptor in self._open:
            with suppress(OSError):
                os.set_inheritable(descriptor, False)
        os.register_at_fork(after_in_child=self._close)

    def _close(self) -> None:
        while self._open:
            with suppress(OSError):
                os.close(self._open.pop())

    def _begin(self) -> None:
        self._began, self._samples = self._clock(), 0
        self.taken += 1

    def _come_to_rest(self) -> None:
        """Wait until no other thread is at work: OpenMP's look for more of it for a while."""
        begin = self._clock()
        while self._tired < TIRED:
            time.sleep(REST)
            if not self._working():
                self._tired = 0
                break
            if self._clock() - begin > REST_MOST:
                self._tired += 1
                break
        self._waited += self._clock() - begin

    def _tell(self, what: bytes) -> None:
        try:
            os.write(self._outward, what)
        except BrokenPipeError:
            self._over = True

    def _wait(self) -> None:
        """Until the turn is given back, or the other side or the time has ended.

        Raises:
            MeasurementError: the time, before there was a turn.
        """
        if self._over:
            return
        begin = self._clock()
        bell = select.poll()
        bell.register(self._inward, select.POLLIN)
        if not bell.poll(1000 * max(0.0, self._left())):
            if not self.taken:
                raise MeasurementError(WAITED)
            self._over = True
            return
        self._over = os.read(self._inward, 1) != _GIVEN
        self._waited += self._clock() - begin


def threads_at_work() -> bool:
    """Whether another thread of this process runs, or would if there were a processor for it.

    Processor time does not tell: Linux adds it up some 4 ms late for a thread that runs elsewhere.
    """
    if not THREADS.exists():  # not Linux
        busy = time.process_time()
        time.sleep(REST)
        return time.process_time() - busy > REST / 4
    own = threading.get_native_id()
    for thread in THREADS.iterdir():
        if int(thread.name) != own:
            with suppress(OSError):  # it has ended meanwhile
                if (thread / "stat").read_text().rpartition(")")[2].split()[0] == "R":
                    return True
    return False


def pin(processors: Collection[int]) -> None:
    """Let every thread of this process run on these processors only, and those that they start."""
    for thread in THREADS.iterdir():
        with suppress(ProcessLookupError):  # it has ended meanwhile
            os.sched_setaffinity(int(thread.name), processors)
