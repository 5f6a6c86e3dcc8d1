"""Two processes that take turns of a few hundredths of a second, so that both see the same machine.

A machine's speed moves by itself, within a second too: its clock, its caches, its other tenants.
Processes one after the other then differ by what happened to the machine in between. These two have
their samples out of the same seconds, and one waits while the other works. Each writes a byte into
the other's pipe: the first says that its model is built, every later one gives the turn away. An
end of file says that the other has ended, whichever way.
"""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from ...errors import MeasurementError
from ...timings import WAITED
from ..timing import Clock

TURN = 0.02
"""Seconds after which the turn is given away; a sample that has begun is finished."""

LEAST = 2
"""Samples of a turn."""

REST = 0.001
"""Seconds in which this process uses no processor before it gives the turn away."""

REST_MOST = 0.25
"""Seconds that it waits for that; LLVM's OpenMP looks for work for 0.2 s, GNU's for 0.01."""


class Turns:
    """One side's end of it.

    Args:
        inward, outward: file descriptors: of the pipe that the other writes, and of the other one.
        begins: whether the first turn is this side's.
        warm: a call that is waited for. It begins every turn, untimed: the other side has left the
            caches as it needed them.
        left: seconds that there still are.
        busy: seconds that this process has used of processors.
    """

    def __init__(
        self,
        inward: int,
        outward: int,
        begins: bool,
        warm: Callable[[], object],
        left: Clock,
        clock: Clock = time.perf_counter,
        busy: Clock = time.process_time,
    ) -> None:
        self.taken = 0
        self._inward, self._outward, self._begins = inward, outward, begins
        self._warm, self._left, self._clock, self._busy = warm, left, clock, busy
        self._waited = 0.0
        self._began = 0.0
        self._samples = 0
        self._alone = False

    def clock(self) -> float:
        """Seconds that this side had for itself, from any beginning."""
        return self._clock() - self._waited

    def meet(self) -> None:
        """Wait until the other side is as far; then for the first turn.

        Raises:
            MeasurementError: the time was over before.
        """
        self._tell()
        self._wait()
        if not self._begins:
            self._wait()
        self._begin()

    def sampled(self) -> None:
        """A sample has ended: give the turn away and wait for the next, if this one is over.

        Raises:
            MeasurementError: the time was over before.
        """
        self._samples += 1
        if self._samples < LEAST or self._clock() - self._began < TURN or self._alone:
            return
        self._come_to_rest()
        self._tell()
        self._wait()
        self._begin()

    def end(self) -> None:
        """No turn is wanted any more."""
        os.close(self._outward)
        os.close(self._inward)

    def _begin(self) -> None:
        self._began, self._samples = self._clock(), 0
        self.taken += 1
        self._warm()

    def _come_to_rest(self) -> None:
        """Wait until no thread of this process runs: OpenMP's look for more work for a while."""
        begin = self._clock()
        while self._clock() - begin < REST_MOST:
            busy = self._busy()
            time.sleep(REST)
            if self._busy() - busy < REST / 4:
                break
        self._waited += self._clock() - begin

    def _tell(self) -> None:
        try:
            os.write(self._outward, b".")
        except BrokenPipeError:
            self._alone = True

    def _wait(self) -> None:
        if self._alone:
            return
        begin = self._clock()
        if not select.select([self._inward], [], [], max(0.0, self._left()))[0]:
            raise MeasurementError(WAITED)
        self._alone = not os.read(self._inward, 1)
        self._waited += self._clock() - begin


def of(job: Mapping[str, Any], warm: Callable[[], object], left: Clock) -> Turns | None:
    """The side that a job is of, if it is to take turns at all."""
    told = job.get("turns")
    return None if told is None else Turns(told["in"], told["out"], told["begins"], warm, left)


def pin(processors: Sequence[int]) -> None:
    """Let every thread of this process run on these processors only, and those that they start."""
    for thread in Path("/proc/self/task").iterdir():
        with suppress(ProcessLookupError):  # it has ended meanwhile
            os.sched_setaffinity(int(thread.name), processors)
