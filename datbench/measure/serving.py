"""The side of a fresh process that `processes` asks: read the job, do it, write the answer."""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any


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


def one_line(error: BaseException) -> str:
    """An error as one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
