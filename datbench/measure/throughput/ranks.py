"""A model on several GPUs at once, each with a process of its own, started by torchrun.

A sample is the slowest rank's. In inference every rank runs its own replica, and all begin a sample
together; in training the gradients are averaged over the ranks. On a CPU the ranks share its cores.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import tempfile
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import IO, Any

import torch

from ...errors import LibraryError, UsageError
from ...timings import How, ProcessTiming
from ...types import Setting
from ..processes import ENDED, Ending, command
from .process import check, ended, filled, short
from .ranks_worker import JOB, STOP, usable_cores

TIMEOUT = 600.0
"""Seconds for all ranks: their start, `import torch`, building, and the budget."""

PATIENCE = 15.0
"""Seconds after Ctrl-C in which the ranks may finish a sample and answer."""

FAREWELL = 5.0
"""Seconds that torchrun has to end by itself once its ranks have."""

_ECHOES = ("Connection closed by peer", "Connection reset by peer", "DistNetworkError")
"""What gloo and the store say where the other side is gone."""

LAUNCHER = "torch.distributed.run"
WORKER = "datbench.measure.throughput.ranks_worker"


def time_on_gpus(
    name: str,
    setting: Setting,
    how: How,
    gpus: int,
    *,
    timeout: float = TIMEOUT,
    ceilings: bool = False,
) -> ProcessTiming:
    """Time a model on `gpus` GPUs, or in as many processes on a CPU. What goes wrong is an outcome.

    The batch is each rank's. Images a second are `gpus` times the batch over the seconds.

    Args:
        ceilings: measure those of rank 0 after the model, while the other ranks do nothing.

    Raises:
        UsageError: there are fewer GPUs or cores, or the model cannot be run so on any.
        LibraryError: torch has no torchrun, or cannot connect ranks here.
    """
    check_ranks(setting, how, gpus)
    check(setting, how)
    began = time.perf_counter()
    job = {
        "model": name,
        "setting": asdict(setting),
        "how": asdict(how),
        "timeout": timeout,
        "ceilings": ceilings,
        "end": time.time() + timeout,
    }
    with tempfile.TemporaryDirectory(prefix="datbench-") as folder:
        here = Path(folder)
        (here / "job.json").write_text(json.dumps(job), encoding="utf-8")
        with (here / "errors").open("w+b") as errors:
            code, interrupted = _run(here, gpus, timeout, errors)
            errors.seek(0)
            said = errors.read().decode(errors="replace")
        found = _outcome(here, code, said, setting, timeout)
    seconds = time.perf_counter() - began
    if interrupted:
        reason = "no sample was finished" if found.timing is None else "by Ctrl-C"
        found = replace(found, outcome="interrupted", reason=reason)
    return replace(found, seconds=seconds)


def check_ranks(setting: Setting, how: How, gpus: int) -> None:
    """Whether so many ranks can run here.

    Raises:
        UsageError, LibraryError: they cannot; the message says why.
    """
    if gpus < 1:
        raise UsageError(f"gpus {gpus}: write a number from 1.")
    if how.flush:
        raise UsageError("the level-2 cache is flushed on one GPU only; leave out --gpus.")
    kind, _, index = setting.device.partition(":")
    if kind == "cuda":
        if index:
            raise UsageError(f"several GPUs are cuda, not {setting.device}.")
        there = torch.cuda.device_count() if torch.cuda.is_available() else 0
        what = "GPU" if there == 1 else "GPUs"
    else:
        there = usable_cores()
        what = "core that ranks may use" if there == 1 else "cores that ranks may use"
    if gpus > there:
        raise UsageError(f"--gpus {gpus}: this machine has {there} {what}.")
    _check_torch(kind)


def _check_torch(kind: str) -> None:
    import torch.distributed as dist

    if not dist.is_available():
        raise LibraryError("this torch was built without torch.distributed; install another.")
    if not dist.is_gloo_available():
        raise LibraryError("this torch was built without gloo, through which ranks agree.")
    if kind == "cuda" and not dist.is_nccl_available():
        raise LibraryError("this torch was built without NCCL, through which GPUs talk.")


def _run(folder: Path, ranks: int, timeout: float, errors: IO[bytes]) -> tuple[int | None, bool]:
    """Torchrun's exit code, None where it was out of time; and whether Ctrl-C was pressed.

    However this is left, no rank is.
    """
    # Its own way to start a module, like Python's, looks into the working directory first.
    options = ("--standalone", f"--nproc-per-node={ranks}", "--no-python")
    process = subprocess.Popen(
        [*command(LAUNCHER), *options, *command(WORKER)],
        stdin=subprocess.PIPE,  # never written to: ranks inherit it and end with it
        stdout=subprocess.DEVNULL,
        stderr=errors,
        env={**os.environ, JOB: str(folder / "job.json")},
        start_new_session=os.name == "posix",  # Ctrl-C is ours alone
    )
    try:
        return process.wait(timeout), False
    except subprocess.TimeoutExpired:
        return None, False
    except KeyboardInterrupt:
        (folder / STOP).touch()
        with contextlib.suppress(subprocess.TimeoutExpired, KeyboardInterrupt):
            process.wait(PATIENCE)
        return process.poll(), True
    finally:
        _end(process, folder)


def _end(process: subprocess.Popen[bytes], folder: Path) -> None:
    """Kill what is left; torchrun starts ranks in sessions of their own, which its own is not."""
    assert process.stdin is not None
    process.stdin.close()
    if process.poll() is None and os.name == "posix":
        for path in folder.glob("*.pid"):
            with contextlib.suppress(OSError, ValueError):
                os.killpg(int(path.read_text(encoding="utf-8")), signal.SIGKILL)
    try:
        process.wait(FAREWELL)
    except subprocess.TimeoutExpired:
        if os.name == "posix":
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
        process.wait()


def _outcome(
    folder: Path, code: int | None, said: str, setting: Setting, timeout: float
) -> ProcessTiming:
    """What the ranks left behind, as a value."""
    result = folder / "result.json"
    if result.exists():
        answer: dict[str, Any] = json.loads(result.read_text(encoding="utf-8"))
        if code != 0:
            answer[ENDED] = str(Ending(code, _last(said)))
        return replace(filled(answer, 0.0), ranks=tuple(answer["ranks"]))
    failures = [json.loads(p.read_text("utf-8")) for p in sorted(folder.glob("*.failure.json"))]
    # One rank's failure breaks the others' connections: the cause goes before what it caused.
    failures.sort(key=lambda f: (f["outcome"] != "out of memory", _is_echo(f["reason"])))
    death = _death(said)
    killed = death is not None and death[1] < 0
    if failures and not (killed and _is_echo(failures[0]["reason"])):
        first = failures[0]
        return ProcessTiming(first["outcome"], short(f"rank {first['rank']}: {first['reason']}"))
    last = _last(said)
    if code is not None and death is not None:
        rank, how = death
        found = ended(Ending(how, "" if how < 0 else last), timeout, setting.device, 0.0)
        return replace(found, reason=f"rank {rank}: {found.reason}")
    return ended(Ending(code, last), timeout, setting.device, 0.0)


def _is_echo(reason: str) -> bool:
    """Whether a failure is what another rank's end does to this one."""
    return any(word in reason for word in _ECHOES)


def _death(said: str) -> tuple[int, int] | None:
    """The rank that ended first and its exit code, from torchrun's report."""
    cause = said.rpartition("Root Cause")[2]
    rank = re.search(r"rank\s*:\s*(\d+)", cause)
    code = re.search(r"exitcode\s*:\s*(-?\d+)", cause)
    return (int(rank[1]), int(code[1])) if rank and code else None


def _last(said: str) -> str:
    """The last error that a rank wrote, before torchrun's report of it; else the last line."""
    lines = [line.strip() for line in said.splitlines() if line.strip(" =-")]
    errors = [line for line in lines if re.match(r"\w[\w.]*(Error|Exception)\b", line)]
    own = [line for line in errors if "ChildFailedError" not in line]
    return (own or lines or [""])[-1]
