"""Interleaved repetitions: every bar is a ratio of medians of one run, on whatever machine."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parents[1]

#: Settings under which programs do not start as they do for a user.
UNUSUAL = {"PYTHONDONTWRITEBYTECODE", "PYTHONPROFILEIMPORTTIME"}


@dataclass(frozen=True)
class Run:
    """What one command took."""

    seconds: float
    peak_kib: int
    output: str


def run(*arguments: str) -> Run:
    """Run this Python with arguments in a fresh process; peak_kib is its peak resident memory."""
    launcher = [sys.executable, "-S", str(ROOT / "benchmarks" / "launcher.py")]
    done = subprocess.run(
        [*launcher, sys.executable, *arguments],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if name not in UNUSUAL},
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    return Run(**json.loads(done.stdout))


def interleaved(commands: dict[str, list[str]], times: int) -> dict[str, Run]:
    """Medians of seconds and memory of every command, after one run of each to warm the disk."""
    runs: dict[str, list[Run]] = {name: [] for name in commands}
    for i in range(times + 1):
        for name, arguments in commands.items():
            done = run(*arguments)
            if i:
                runs[name].append(done)
    return {
        name: Run(
            median(r.seconds for r in done), int(median(r.peak_kib for r in done)), done[-1].output
        )
        for name, done in runs.items()
    }


def interleaved_calls(
    one: Callable[[], object], other: Callable[[], object], pairs: int
) -> tuple[float, float]:
    """Median seconds of two calls, after two of each to warm up; who goes first alternates."""
    taken: dict[Callable[[], object], list[float]] = {one: [], other: []}
    for i in range(pairs + 2):
        for call in (one, other) if i % 2 else (other, one):
            begin = time.perf_counter()
            call()
            taken[call].append(time.perf_counter() - begin)
    return median(taken[one][2:]), median(taken[other][2:])


def cpu_seconds(
    one: Callable[[], object], other: Callable[[], object], pairs: int
) -> tuple[float, float]:
    """Least CPU seconds of two calls in turns, after one of each to warm up.

    What else runs on a shared machine makes a call slower, never faster.
    """
    taken: dict[Callable[[], object], list[float]] = {one: [], other: []}
    for _ in range(pairs + 1):
        for call, seconds in taken.items():
            begin = time.process_time()
            call()
            seconds.append(time.process_time() - begin)
    return min(taken[one][1:]), min(taken[other][1:])
