"""One fresh process that times a model, and what its end is called."""

from __future__ import annotations

import importlib.util
import math
import os
import shutil
import sys
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from ..errors import MeasurementError, UsageError
from ..machine import check_present
from ..process import SHORT_OF_MEMORY, Question, Reply, asking, short
from ..setting import TIME_MODES, How, Setting
from .records import UNFINISHED, ComparedSide, ProcessTiming
from .turns import Pipes
from .worker import TimingJob

TIMEOUT = 300.0
"""Seconds that one process may take, its start and `import torch` included."""

PATIENCE = 15.0
"""Seconds that a process has after Ctrl-C to give the samples that it has."""

WORKER = "datbench.timing.worker:work"


def time_in_process(
    name: str,
    setting: Setting,
    how: How,
    *,
    timeout: float = TIMEOUT,
    python: str | None = None,
    source: Path | None = None,
    ceilings: bool = False,
    protocols: tuple[str, ...] = (),
) -> ProcessTiming:
    """Time a model in a fresh process. What goes wrong there is an outcome, not an error.

    Ctrl-C is an outcome too: the process is asked for the samples that it has.

    Args:
        python: another interpreter than this one, with a datbench of its own.
        source: a checkout of the project to use instead of the installed one.
        ceilings: measure the machine peaks after the model.
        protocols: published ones to follow after the model was timed.

    Raises:
        UsageError: the device is not here, or the model cannot be run so on any.
    """
    check(setting, how)
    job = TimingJob(name, setting, how, time.time() + timeout, ceilings, protocols)
    (found,) = _timed(lambda: [Question(WORKER, job, python, source)], timeout)
    return found


def _timed(make: Callable[[], list[Question]], timeout: float) -> list[ProcessTiming]:
    """What processes answer that work at once.

    Args:
        make: makes what they are asked.

    Raises:
        UsageError: an interpreter is not there.
        MeasurementError: the machine cannot start a process.
    """
    begin, questions = time.perf_counter(), list[Question]()
    try:
        questions += make()
        with asking(questions, ProcessTiming) as asked:
            replies = asked.replies(timeout, PATIENCE)
    except OSError as error:
        if error.filename is not None and error.filename in [each.python for each in questions]:
            said = f"{error.filename}: {error.strerror}; name a Python interpreter."
            raise UsageError(said) from error
        said = f"no process can be started: {error.strerror or error}."
        raise MeasurementError(said) from error
    seconds = time.perf_counter() - begin
    return [
        timing_of(reply, timeout, question.job.setting.device, seconds)
        for question, reply in zip(questions, replies, strict=True)
    ]


def timing_of(
    reply: Reply[ProcessTiming], timeout: float, device: str, seconds: float
) -> ProcessTiming:
    """What a process gave, or how it ended without."""
    answer, ending = reply.answer, reply.ending
    if reply.interrupted and (answer is None or answer.timing is None):
        return ProcessTiming("interrupted", "no sample was finished", seconds=seconds)
    if answer is None:
        assert ending is not None
        return ProcessTiming(*ending.outcome(timeout, device), seconds=seconds)
    reason = answer.reason and short(answer.reason)
    refused = answer.refused
    if ending is not None:
        cut = short(f"{UNFINISHED} ({ending})")
        refused = {name: cut if why == UNFINISHED else why for name, why in refused.items()}
    found = replace(answer, reason=reason, refused=refused, seconds=seconds)
    if not reply.interrupted:
        return found
    timing = found.timing
    if timing is not None and found.turns and timing.stopped == "timeout":
        # The other side was told of Ctrl-C first, and gave no more turns.
        found = replace(found, timing=replace(timing, stopped="interrupted"))
    return replace(found, outcome="interrupted", reason="by Ctrl-C")


def check(setting: Setting, how: How) -> None:
    """Whether this can be run here at all.

    Raises:
        UsageError: it cannot; the message says why.
    """
    kind = setting.device.split(":")[0]
    if kind not in ("cuda", "cpu"):
        raise UsageError(f"time is measured on cuda or on cpu, not on {setting.device!r}.")
    if how.mode not in TIME_MODES:
        raise UsageError(f"mode {how.mode!r}: choose one of {', '.join(TIME_MODES)}.")
    if how.threads is not None and how.threads < 1:
        raise UsageError(f"threads {how.threads}: write a number from 1.")
    if not all(0 < value < math.inf for value in (how.budget, how.width)):
        raise UsageError("budget and width are finite numbers above 0.")
    if how.flush and kind != "cuda":
        raise UsageError("the level-2 cache is flushed on a GPU only; use --device cuda.")
    try:
        check_present(setting.device)
    except UsageError as error:
        raise UsageError(
            f"device {setting.device!r} is not available here; use cpu, or cuda where a GPU is."
        ) from error
    if how.compile:
        check_compiler(kind)


def check_compiler(kind: str, env: Mapping[str, str] = os.environ) -> None:
    """Whether `torch.compile` finds what it compiles with.

    Raises:
        UsageError: it does not.
    """
    if kind == "cpu":
        usual = "clang++" if sys.platform == "darwin" else "g++"
        compiler = (env.get("CXX", "").split() or [usual])[0]
        if shutil.which(compiler) is None:
            raise UsageError(
                f"torch.compile needs a C++ compiler on a CPU, and there is no {compiler!r} here; "
                "install one, name it in CXX, or leave out --compile."
            )
    elif importlib.util.find_spec("triton") is None:
        raise UsageError(
            "torch.compile needs triton on a GPU, which is not installed; install it or leave out "
            "--compile."
        )


# Two fresh processes at once that take turns, and what each of them gave; see `turns`.


ONE_AT_A_TIME = "--one-at-a-time"

CROWDED = (SHORT_OF_MEMORY, "busy or unavailable")
"""Parts of what is said where memory is not enough for two, or a GPU takes one process only."""

TOPOLOGY = Path("/sys/devices/system/cpu")


def time_pair(
    first: ComparedSide, second: ComparedSide, timeout: float, number: int = 0
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
    one, other = map(_explained, _timed(lambda: _questions(sides, timeout, number), timeout))
    return one, other


def _questions(
    sides: tuple[ComparedSide, ComparedSide], timeout: float, number: int
) -> list[Question]:
    """One for each side, with the ends of the two pipes that are its."""
    to_first, from_second, to_second, from_first = _pipes()
    ends = (Pipes(to_first, from_first, True), Pipes(to_second, from_second, False))
    questions = []
    for side, pipes in zip(sides, ends, strict=True):
        job = TimingJob(
            side.model,
            side.setting,
            side.how,
            time.time() + timeout,
            turns=pipes,
            processors=processors(side.how, side.setting.device, number),
        )
        source = None if side.source is None else Path(side.source)
        keeps = (pipes.inward, pipes.outward)
        questions.append(Question(WORKER, job, side.python, source, keeps))
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
    """Add what two processes at once had to do with its end, if anything."""
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
