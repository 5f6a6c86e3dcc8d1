"""A job in a fresh process: started, waited for, never left behind.

The job is a line of JSON on the process's standard input, which stays open: the process ends when
it closes. The answer is a file that the job names, since a model may print what it likes; it may be
written early with what is known so far, and then again. The other side is `serving`.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any


@dataclass(frozen=True)
class Ending:
    """A process that gave no answer.

    Args:
        code: its exit code, negative for a signal; None where it was out of time.
        last: the last line of what it wrote to standard error; empty where there is none.
    """

    code: int | None
    last: str

    @property
    def signalled(self) -> bool:
        """Whether somebody else's signal ended it."""
        return self.code is not None and self.code < 0

    def __str__(self) -> str:
        if self.code is None:
            return "out of time"
        how = f"killed by {_signal(-self.code)}" if self.signalled else f"exit code {self.code}"
        return f"{how}: {self.last}" if self.last else how


ENDED = "ended"
"""The entry of an answer whose process did not end well after it, with how that was."""

PACKAGES = Path(__file__).resolve().parents[1]
"""The folder of the package that runs here, whichever way it was found."""


class Interrupted(KeyboardInterrupt):
    """Ctrl-C while processes were at work; `answers` are what they still gave."""

    def __init__(self, *answers: dict[str, Any] | Ending) -> None:
        super().__init__()
        self.answers = answers

    @property
    def answer(self) -> dict[str, Any] | Ending:
        """Of the only process."""
        (answer,) = self.answers
        return answer


@dataclass(frozen=True)
class Question:
    """A job for a fresh process that runs a module, which calls `serving.serve`.

    Args:
        python: another interpreter than this one, with a datbench of its own.
        source: a folder whose packages it is to import before all others; unless told, datbench
            itself is this process's own, whatever the working directory holds.
        keeps: file descriptors of this process that it gets too, under the same numbers; they are
            closed here once it has them.
    """

    module: str
    job: Mapping[str, Any]
    python: str | None = None
    source: Path | None = None
    keeps: tuple[int, ...] = ()


def ask(
    module: str,
    job: dict[str, Any],
    timeout: float,
    *,
    python: str | None = None,
    source: Path | None = None,
    env: Mapping[str, str] | None = None,
    patience: float = 0.0,
) -> dict[str, Any] | Ending:
    """Do one job in a fresh process; see `Question` and `ask_together`.

    Raises:
        Interrupted: Ctrl-C, and there was patience.
        OSError: the interpreter cannot be started.
    """
    question = Question(module, job, python, source)
    (answer,) = ask_together([question], timeout, env=env, patience=patience)
    return answer


def ask_together(
    questions: Sequence[Question],
    timeout: float,
    *,
    env: Mapping[str, str] | None = None,
    patience: float = 0.0,
) -> list[dict[str, Any] | Ending]:
    """Do jobs in fresh processes, all at once.

    However this function is left, by Ctrl-C too, the processes have ended. An answer that one wrote
    before it was out of time or died has an entry `ENDED` that says so.

    Args:
        timeout: seconds for all of them.
        env: variables that they get besides this process's.
        patience: seconds that they get after Ctrl-C, which is passed on to them, to answer with
            what they have; none at all unless told. A second Ctrl-C ends them.

    Raises:
        Interrupted: Ctrl-C, and there was patience.
        OSError: an interpreter cannot be started.
    """
    variables = None if env is None else {**os.environ, **env}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="datbench-")))
        errors = [
            stack.enter_context(Path(folder, f"errors{i}").open("w+b"))
            for i in range(len(questions))
        ]
        results = [Path(folder, f"result{i}.json") for i in range(len(questions))]
        jobs = [
            json.dumps({**question.job, "result": str(result)})
            for question, result in zip(questions, results, strict=True)
        ]
        codes, interrupted = _run(questions, jobs, errors, timeout, variables, patience)
        answers = [_read(*each) for each in zip(results, codes, errors, strict=True)]
    if interrupted:
        raise Interrupted(*answers)
    return answers


def _read(result: Path, code: int | None, errors: IO[bytes]) -> dict[str, Any] | Ending:
    errors.seek(0)
    lines = errors.read().decode(errors="replace").splitlines()
    ending = Ending(code, next((line.strip() for line in reversed(lines) if line.strip()), ""))
    if not result.exists():
        return ending
    answer: dict[str, Any] = json.loads(result.read_text(encoding="utf-8"))
    return answer if code == 0 else {**answer, ENDED: str(ending)}


def command(module: str, python: str | None = None, source: Path | None = None) -> list[str]:
    """How a module is run in a process of its own; arguments may follow.

    ``-m`` would look into the working directory first, which may hold another datbench. A user's
    own factories lie there all the same, so it comes last, as the empty entry: `sys.path` does not
    name it then, and `FactorySpec` puts it first once datbench and torch are there.
    """
    if source is not None:
        first = f"sys.path.insert(0, {str(source.resolve())!r}); "
    elif python is None:  # not the whole folder: it may be site-packages, which come after others
        first = f"sys.path.insert(0, {str(PACKAGES)!r}); import datbench; del sys.path[0]; "
    else:
        first = ""
    program = (
        f"import runpy, sys; sys.path[:] = filter(None, sys.path); {first}sys.path.append(''); "
        f"runpy.run_module({module!r}, run_name='__main__', alter_sys=True)"
    )
    return [python or sys.executable, "-c", program]


def _run(
    questions: Sequence[Question],
    jobs: Sequence[str],
    errors: Sequence[IO[bytes]],
    timeout: float,
    env: Mapping[str, str] | None,
    patience: float,
) -> tuple[list[int | None], bool]:
    """The processes' exit codes, None where one was out of time; and whether Ctrl-C was pressed."""
    with ExitStack() as stack:
        started: list[subprocess.Popen[str]] = []
        try:
            for question, beside in zip(questions, errors, strict=True):
                started.append(_start(question, beside, env))
                stack.callback(_end, started[-1])
        finally:
            for descriptor in (kept for question in questions for kept in question.keeps):
                os.close(descriptor)
        try:
            for process, job in zip(started, jobs, strict=True):
                _send(process, job)
            return _wait(started, timeout), False
        except KeyboardInterrupt:
            if not patience or os.name != "posix":
                raise
            for process in started:
                process.send_signal(signal.SIGINT)
            _wait(started, patience)
            return [process.returncode for process in started], True


def _start(
    question: Question, errors: IO[bytes], env: Mapping[str, str] | None
) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command(question.module, question.python, question.source),
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=errors,
        text=True,
        env=env,
        start_new_session=os.name == "posix",  # Ctrl-C is ours alone
        pass_fds=question.keeps,
    )


def _send(process: subprocess.Popen[str], job: str) -> None:
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError):  # it is gone already; its code says how
        process.stdin.write(f"{job}\n")
        process.stdin.flush()


def _wait(started: Sequence[subprocess.Popen[str]], seconds: float) -> list[int | None]:
    """Until all have ended, or the seconds are over: None for those that had not ended by then."""
    deadline = time.monotonic() + seconds
    codes: list[int | None] = []
    for process in started:
        try:
            codes.append(process.wait(max(0.0, deadline - time.monotonic())))
        except subprocess.TimeoutExpired:
            codes.append(None)
    return codes


def _end(process: subprocess.Popen[str]) -> None:
    """Kill what is left of it and of what it started."""
    if os.name == "posix":  # also where it has ended by itself: a child of it may not have
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    elif process.poll() is None:
        process.kill()
    process.wait()
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError):
        process.stdin.close()


def _signal(number: int) -> str:
    try:
        return f"signal {number} ({signal.Signals(number).name})"
    except ValueError:
        return f"signal {number}"


# The side of a fresh process that `processes` asks: read the job, do it, write the answer.


def serve(work: Callable[[dict[str, Any]], dict[str, Any]]) -> int:
    """Do the job that stands on standard input. Returns the exit code.

    `work` turns what may go wrong into an answer; what it raises ends the process.
    """
    job: dict[str, Any] = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_standard_input, daemon=True).start()
    write_answer(job, work(job))
    return 0


def write_answer(job: dict[str, Any], answer: dict[str, Any]) -> None:
    """Write the answer, whole or not at all; another one may follow and takes its place."""
    result = Path(job["result"])
    beside = result.with_suffix(".part")
    beside.write_text(json.dumps(answer), encoding="utf-8")
    beside.replace(result)


def _end_with_standard_input() -> None:
    sys.stdin.read()
    os._exit(1)
