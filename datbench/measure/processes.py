"""A job in a fresh process: started, waited for, never left behind.

The job is a line of JSON on the process's standard input, which stays open: the process ends when
it closes. The answer is a file that the job names, since a model may print what it likes.
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
from collections.abc import Callable
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


def ask(module: str, job: dict[str, Any], timeout: float) -> dict[str, Any] | Ending:
    """Do a job in a fresh process of ``python -m module``, which calls `serve`.

    However this function is left, by Ctrl-C too, the process has ended.
    """
    with tempfile.TemporaryDirectory(prefix="datbench-") as folder:
        result = Path(folder, "result.json")
        with Path(folder, "errors").open("w+b") as errors:
            code = _run(module, json.dumps({**job, "result": str(result)}), errors, timeout)
            if result.exists():
                answer: dict[str, Any] = json.loads(result.read_text(encoding="utf-8"))
                return answer
            errors.seek(0)
            lines = errors.read().decode(errors="replace").splitlines()
    return Ending(code, next((line.strip() for line in reversed(lines) if line.strip()), ""))


def _run(module: str, job: str, errors: IO[bytes], timeout: float) -> int | None:
    """The process's exit code; None where it was out of time."""
    process = subprocess.Popen(
        [sys.executable, "-m", module],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=errors,
        text=True,
        start_new_session=os.name == "posix",  # Ctrl-C is ours alone
    )
    try:
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it is gone already; its code says how
            process.stdin.write(f"{job}\n")
            process.stdin.flush()
        return process.wait(timeout)
    except subprocess.TimeoutExpired:
        return None
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
    answer = work(job)
    result = Path(job["result"])
    beside = result.with_suffix(".part")
    beside.write_text(json.dumps(answer), encoding="utf-8")
    beside.replace(result)
    return 0


def _end_with_standard_input() -> None:
    sys.stdin.read()
    os._exit(1)


def one_line(error: BaseException) -> str:
    """An error as one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
