"""A job in a fresh process: started, waited for, never left behind.

The job is a line of JSON on the process's standard input, which stays open: the process ends when
it closes. The answer is a file that the job names, since a model may print what it likes; it may be
written early with what is known so far, and then again.
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
from collections.abc import Callable, Mapping
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

PACKAGES = Path(__file__).resolve().parents[2]
"""The folder of the package that runs here, whichever way it was found."""


class Interrupted(KeyboardInterrupt):
    """Ctrl-C while a process was at work; `answer` is what it still gave."""

    def __init__(self, answer: dict[str, Any] | Ending) -> None:
        super().__init__()
        self.answer = answer


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
    """Do a job in a fresh process that runs a module, which calls `serve`.

    However this function is left, by Ctrl-C too, the process has ended. An answer that it wrote
    before it was out of time or died has an entry `ENDED` that says so.

    Args:
        python: another interpreter than this one, with a datbench of its own.
        source: a folder whose packages it is to import before all others; unless told, datbench
            itself is this process's own, whatever the working directory holds.
        env: variables that it gets besides this process's.
        patience: seconds that it gets after Ctrl-C, which is passed on to it, to answer with what
            it has; none at all unless told. A second Ctrl-C ends it.

    Raises:
        Interrupted: Ctrl-C, and there was patience.
        OSError: the interpreter cannot be started.
    """
    program = command(module, python, source)
    variables = None if env is None else {**os.environ, **env}
    with tempfile.TemporaryDirectory(prefix="datbench-") as folder:
        result = Path(folder, "result.json")
        with Path(folder, "errors").open("w+b") as errors:
            text = json.dumps({**job, "result": str(result)})
            code, interrupted = _run(program, text, errors, timeout, variables, patience)
            answer = _read(result, code, errors)
    if interrupted:
        raise Interrupted(answer)
    return answer


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
    program: list[str],
    job: str,
    errors: IO[bytes],
    timeout: float,
    env: Mapping[str, str] | None,
    patience: float,
) -> tuple[int | None, bool]:
    """The process's exit code, None where it was out of time; and whether Ctrl-C was pressed."""
    process = subprocess.Popen(
        program,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=errors,
        text=True,
        env=env,
        start_new_session=os.name == "posix",  # Ctrl-C is ours alone
    )
    try:
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it is gone already; its code says how
            process.stdin.write(f"{job}\n")
            process.stdin.flush()
        return process.wait(timeout), False
    except subprocess.TimeoutExpired:
        return None, False
    except KeyboardInterrupt:
        if not patience or os.name != "posix":
            raise
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.send_signal(signal.SIGINT)
            process.wait(patience)
        return process.returncode, True
    finally:
        _end(process)


def _end(process: subprocess.Popen[str]) -> None:
    """Kill what is left of it and of what it started."""
    if process.poll() is None:
        if os.name == "posix":
            os.killpg(process.pid, signal.SIGKILL)
        else:
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


def serve(work: Callable[[dict[str, Any]], dict[str, Any]]) -> int:
    """The other side: read the job, do it, write the answer. Returns the exit code.

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


def one_line(error: BaseException) -> str:
    """An error as one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
