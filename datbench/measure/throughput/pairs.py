"""Two fresh processes at once that take turns, and what each of them gave; see `turns`."""

from __future__ import annotations

import os
import time
from collections.abc import Collection
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...timings import How, ProcessTiming
from ...versus import Side
from ..processes import Ending, Interrupted, Question, ask_together
from .process import (
    PATIENCE,
    SHORT_OF_MEMORY,
    WORKER,
    asked,
    check,
    not_started,
    outcome,
)

ONE_AT_A_TIME = "--one-at-a-time"

CROWDED = (SHORT_OF_MEMORY, "busy or unavailable")
"""Parts of what is said where memory is not enough for two, or a GPU takes one process only."""

TOPOLOGY = Path("/sys/devices/system/cpu")

Answers = list[dict[str, Any] | Ending]


def time_pair(
    first: Side, second: Side, timeout: float, number: int = 0
) -> tuple[ProcessTiming, ProcessTiming]:
    """Time two sides in two fresh processes that take turns; the first has the first turn.

    What goes wrong there is an outcome, Ctrl-C too.

    Args:
        timeout: seconds that both may take together.
        number: of the pair: it chooses the processors of sides that name their threads.

    Raises:
        UsageError: a device or an interpreter is not here, or a model cannot be run so on any.
        MeasurementError: the machine cannot start two processes.
    """
    sides = (first, second)
    for side in sides:
        check(side.setting, side.how)
    begin = time.perf_counter()
    interrupted = False
    answers: Answers
    try:
        answers = ask_together(_questions(sides, timeout, number), timeout, patience=PATIENCE)
    except Interrupted as error:
        answers, interrupted = list(error.answers), True
    except KeyboardInterrupt:  # the second one
        answers, interrupted = [Ending(None, ""), Ending(None, "")], True
    except OSError as error:
        raise not_started(error, first.python, second.python) from error
    seconds = time.perf_counter() - begin
    one, other = (
        _explained(outcome(answer, interrupted, timeout, side.setting.device, seconds))
        for side, answer in zip(sides, answers, strict=True)
    )
    return one, other


def _questions(sides: tuple[Side, Side], timeout: float, number: int) -> list[Question]:
    """One for each side, with the ends of the two pipes that are its."""
    to_first, from_second, to_second, from_first = _pipes()
    ends = ((to_first, from_first), (to_second, from_second))
    questions: list[Question] = []
    for side, (inward, outward) in zip(sides, ends, strict=True):
        job = {
            **asked(side.model, side.setting, side.how, timeout),
            "turns": {"in": inward, "out": outward, "begins": not questions},
            "processors": processors(side.how, side.setting.device, number),
        }
        source = None if side.source is None else Path(side.source)
        questions.append(Question(WORKER, job, side.python, source, (inward, outward)))
    return questions


def _pipes() -> list[int]:
    """Two pipes: what is read and what is written of each, all beyond the standard streams.

    Raises:
        OSError: there are no descriptors left.
    """
    import fcntl  # POSIX only, as all that is here

    found: list[int] = []
    with ExitStack() as wrong, ExitStack() as always:
        for _ in range(2):
            for descriptor in os.pipe():
                always.callback(os.close, descriptor)
                # A parent whose standard input is closed would get that number.
                found.append(fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 3))
                wrong.callback(os.close, found[-1])
        wrong.pop_all()
    return found


def _explained(timing: ProcessTiming) -> ProcessTiming:
    """With what two processes at once had to do with its end, if anything."""
    reason = timing.reason or ""
    crowded = timing.outcome == "out of memory" or any(sign in reason for sign in CROWDED)
    if crowded:
        said = f"{reason}; both sides were there at once: {ONE_AT_A_TIME} has one there"
        return replace(timing, reason=said)
    if timing.outcome == "measured" and timing.turns is None:
        reason = f"its datbench does not know how to take turns; use {ONE_AT_A_TIME}"
        return replace(timing, outcome="failed", reason=reason)
    return timing


def processors(how: How, device: str, number: int) -> tuple[int, ...]:
    """Those that a pair's processes are bound to, both to the same: each has a speed of its own.

    There are as many as the side has threads, all of different cores, and the next pair has the
    next ones. None where the threads are left to torch, which takes the whole machine, where there
    are not as many cores, on a GPU, and where the system cannot bind a process.
    """
    if how.threads is None or device.startswith("cuda") or not hasattr(os, "sched_getaffinity"):
        return ()
    cores = _a_core_each(sorted(os.sched_getaffinity(0)))
    if len(cores) < how.threads:
        return ()
    return tuple(cores[(number + i) % len(cores)] for i in range(how.threads))


def _a_core_each(numbers: Collection[int]) -> list[int]:
    """One processor of each core."""
    found: dict[str, int] = {}
    for number in numbers:
        siblings = TOPOLOGY / f"cpu{number}" / "topology" / "thread_siblings_list"
        try:
            core = siblings.read_text(encoding="ascii").strip()
        except OSError:  # not told: a core of its own
            core = str(number)
        found.setdefault(core, number)
    return list(found.values())
