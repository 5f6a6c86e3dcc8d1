"""A model on several GPUs at once, each with a process of its own, started by torchrun.

A sample is the slowest rank's. In inference every rank runs its own replica, and all begin a sample
together; in training the gradients are averaged over the ranks. On a CPU the ranks share its cores.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from statistics import median
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from ..errors import LibraryError, UsageError
from ..machine import usable_cores
from ..process import (
    JOB,
    Ending,
    Reply,
    Tail,
    command,
    message,
    read,
    short,
    start,
    write,
    write_answer,
)
from ..run import Runner, failure, ready
from ..setting import How, Setting
from ..signals import HANGUPS
from .process import check, timing_of
from .records import UNFINISHED, ProcessTiming, TimeOutcome
from .sample import Clock, Stopwatch, stopwatch, time_calls
from .telemetry import merged, watching
from .worker import LEAST, TimingJob, add_ceilings, first_call, surroundings

# One rank of several, started by torchrun: `datbench.timing.ranks` tells it its job.
#
# Every rank runs the same `time_calls` with rank 0's clock and the slowest rank's samples. All that
# it decides follows from these two, so all ranks decide the same, and stop together.


STOP = "stop"
"""A file beside the job's: the samples that there are will do."""

RESULT = "result.json"


@dataclass(frozen=True)
class RankJob(TimingJob):
    """What all ranks are to time together."""

    timeout: float = math.inf  # seconds for the ranks to find each other
    folder: str = ""  # what the ranks have in common


@dataclass(frozen=True)
class RankFailure:
    """Why a rank gave no answer."""

    rank: int
    outcome: TimeOutcome
    reason: str


def work(job: RankJob) -> ProcessTiming | None:
    """Do one rank's part; rank 0 answers for all."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the stop file is how it is told
    folder, rank = Path(job.folder), os.environ["RANK"]
    (folder / f"{rank}.pid").write_text(str(os.getpid()), encoding="utf-8")
    try:
        here = replace(job, setting=replace(job.setting, device=_device(job)))
        found = _measured(here, folder / STOP)
    except (Exception, SystemExit) as error:
        failed = RankFailure(int(rank), *failure(error, job.device.type == "cuda"))
        write(folder / f"{rank}.failure.json", failed)
        os._exit(1)
    if rank != "0":
        return None
    if job.ceilings and found["outcome"] == "measured":  # the other ranks leave them to this one
        write_answer(ProcessTiming(**{**found, "refused": {"ceilings": UNFINISHED}}))
        add_ceilings(here, found)
    return ProcessTiming(**found)


def _measured(job: RankJob, stop: Path) -> dict[str, Any]:
    """What is the same on all ranks, but for its `environment`."""
    how, device = job.how, job.device
    torch.set_num_threads(_threads(how))
    _join(device, how, job.timeout)
    torch.manual_seed(0)
    call, unused = _averaging(ready(job.model, job.setting, how), how, device)
    compiling = first_call(call, device) if how.compile else None
    clock = Shared(lambda: stop.exists())
    budget = min(how.budget, clock.agreed(job.left))
    own: list[float] = []
    with watching(device) as watch:
        timing = time_calls(
            call,
            budget=budget,
            width=how.width,
            least=LEAST * how.budget,
            clock=clock,
            between=watch.stamp,
            own=slowest(stopwatch(device), own),
        )
        telemetry = watch.telemetry(timing)
    if clock.stopped:
        timing = replace(timing, stopped="interrupted")
    elif budget < how.budget and timing.stopped == "budget":
        timing = replace(timing, stopped="timeout")
    mine = median(own[-len(timing.samples) :]) / timing.calls
    told: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(told, (mine, telemetry), group=clock.group)
    medians, telemetries = zip(*told, strict=True)
    distributed = {"ranks": len(told), "backend": dist.get_backend()}
    return {
        "outcome": "interrupted" if clock.stopped else "measured",
        "reason": "by Ctrl-C" if clock.stopped else None,
        "timing": timing,
        "threads": torch.get_num_threads(),
        "compiling": compiling,
        "ranks": medians,
        "refused": {},
        "telemetry": merged(telemetries),
        "environment": surroundings()
        | {"distributed": {**distributed, "find_unused_parameters": unused}},
    }


def _device(job: RankJob) -> str:
    """The rank's own GPU, which is the current one from here on; or the CPU."""
    if job.device.type != "cuda":
        return "cpu"
    name = f"cuda:{os.environ['LOCAL_RANK']}"
    torch.cuda.set_device(name)
    return name


def _threads(how: How) -> int:
    """The threads asked for; else a rank's share of the cores: torchrun would choose 1."""
    if how.threads is not None:
        return how.threads
    return max(usable_cores() // int(os.environ["LOCAL_WORLD_SIZE"]), 1)


def _join(device: torch.device, how: How, timeout: float) -> None:
    """Join the other ranks: through NCCL where gradients on GPUs are averaged, else gloo."""
    on_gpu = device.type == "cuda" and how.mode == "step"
    dist.init_process_group(
        "nccl" if on_gpu else "gloo",
        timeout=timedelta(seconds=timeout),
        device_id=device if on_gpu else None,
    )


def _averaging(one: Runner, how: How, device: torch.device) -> tuple[Runner, bool]:
    """What is timed, and whether the model has parameters that a step does not use.

    Inference runs independent replicas. In training the gradients are averaged over the ranks while
    the backward runs, as DistributedDataParallel does; looking for unused parameters costs time in
    every step, so it is asked for only where there are some.
    """
    if how.mode == "inference":
        return one, False
    unused = _has_unused(one)
    parallel = nn.parallel.DistributedDataParallel(
        one.model,
        device_ids=[device] if device.type == "cuda" else None,
        find_unused_parameters=unused,
    )
    return Runner(parallel, one.inputs, "step", how.compile, how.autocast), unused


def _has_unused(one: Runner) -> bool:
    """Whether a step leaves a parameter without a gradient."""
    Runner(one.model, one.inputs, "step", autocast=one.autocast)()
    unused = any(p.grad is None for p in one.model.parameters() if p.requires_grad)
    one.model.zero_grad(set_to_none=True)
    return unused


def _on_cpu() -> dist.ProcessGroup:
    """All ranks, through gloo: what is said there waits for no GPU."""
    group = dist.new_group(backend="gloo")
    assert isinstance(group, dist.ProcessGroup)
    return group


class Shared:
    """Rank 0's clock, on every rank; at infinity once somebody wants it to stop.

    Args:
        stops: asked on rank 0 alone.
    """

    def __init__(self, stops: Callable[[], bool], clock: Clock = time.perf_counter) -> None:
        self.group = _on_cpu()
        self.stopped = False
        self._stops = stops
        self._clock = clock

    def agreed(self, value: float) -> float:
        """Rank 0's value, on every rank."""
        told = torch.tensor([value], dtype=torch.float64)
        dist.broadcast(told, 0, group=self.group)
        return told.item()

    def __call__(self) -> float:
        """A collective: every rank calls it as often."""
        now = torch.zeros(1, dtype=torch.float64)
        if dist.get_rank() == 0:
            now.fill_(float("inf") if self._stops() else self._clock())
        dist.broadcast(now, 0, group=self.group)
        self.stopped = self.stopped or now.item() == float("inf")
        return now.item()


def slowest(bare: Stopwatch, own: list[float]) -> Stopwatch:
    """A stopwatch that all ranks start together, and whose time is the slowest rank's.

    Args:
        own: to which this rank's time is added.
    """
    group = _on_cpu()

    def watch(run: Callable[[], object], calls: int) -> float:
        dist.barrier(group=group)
        seconds = bare(run, calls)
        own.append(seconds)
        most = torch.tensor([seconds], dtype=torch.float64)
        dist.all_reduce(most, op=dist.ReduceOp.MAX, group=group)
        return most.item()

    return watch


TIMEOUT = 600.0
"""Seconds for all ranks: their start, `import torch`, building, and the budget."""

PATIENCE = 15.0
"""Seconds after Ctrl-C in which the ranks may finish a sample and answer."""

FAREWELL = 5.0
"""Seconds that torchrun has to end by itself once its ranks have."""

_ECHOES = ("Connection closed by peer", "Connection reset by peer", "DistNetworkError")
"""What gloo and the store say where the other side is gone."""

LAUNCHER = "from torch.distributed.run import main; main()"

WORKER = "from datbench.process import serve; serve('datbench.timing.ranks:work')"


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
        ceilings: rank 0 measures the machine peaks after the model, while the others do nothing.

    Raises:
        UsageError: there are fewer GPUs or cores, or the model cannot be run so on any.
        LibraryError: torch has no torchrun, or cannot connect ranks here.
    """
    check_ranks(setting, how, gpus)
    check(setting, how)
    began = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="datbench-") as folder:
        end = time.time() + timeout
        job = RankJob(name, setting, how, end, ceilings, timeout=timeout, folder=folder)
        here = Path(folder)
        (here / "job.json").write_text(message(here / RESULT, job), encoding="utf-8")
        found = _outcome(here, *_run(here, gpus, timeout), setting, timeout)
    return replace(found, seconds=time.perf_counter() - began)


def check_ranks(setting: Setting, how: How, gpus: int) -> None:
    """Check whether this number of ranks can run here.

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


def _run(folder: Path, ranks: int, timeout: float) -> tuple[int | None, bool, str]:
    """Run torchrun. Returns its exit code, None where it was out of time; whether Ctrl-C was
    pressed; and what was written to standard error.

    However this is left, no rank is.
    """
    # Its own way to start a module, like Python's, looks into the working directory first.
    options = ("--standalone", f"--nproc-per-node={ranks}", "--no-python")
    process = start(
        [*command(LAUNCHER), *options, *command(WORKER)],
        env={JOB: str(folder / "job.json")},
        hangups=[each for each in HANGUPS if each != signal.SIGTERM],  # which torchrun sends
    )
    said = Tail(process)
    code, interrupted = None, False
    try:
        code = process.wait(timeout)
    except subprocess.TimeoutExpired:
        pass
    except KeyboardInterrupt:
        interrupted = True
        (folder / STOP).touch()
        with contextlib.suppress(subprocess.TimeoutExpired, KeyboardInterrupt):
            process.wait(PATIENCE)
        code = process.poll()
    finally:
        _end(process, folder)
    return code, interrupted, said.text()


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
    folder: Path, code: int | None, interrupted: bool, said: str, setting: Setting, timeout: float
) -> ProcessTiming:
    """What the ranks left behind, as a value."""
    result, last = folder / RESULT, _last(said)
    if interrupted or result.exists():
        answer = read(result, ProcessTiming) if result.exists() else None
        reply = Reply(answer, None if code == 0 else Ending(code, last), interrupted)
        return timing_of(reply, timeout, setting.device, 0.0)
    failures = [read(path, RankFailure) for path in sorted(folder.glob("*.failure.json"))]
    # One rank's failure breaks the others' connections: the cause goes before what it caused.
    failures.sort(key=lambda f: (f.outcome != "out of memory", _is_echo(f.reason)))
    death = _death(said)
    killed = death is not None and death[1] < 0
    if failures and not (killed and _is_echo(failures[0].reason)):
        first = failures[0]
        return ProcessTiming(first.outcome, short(f"rank {first.rank}: {first.reason}"))
    if code is None or death is None:
        return ProcessTiming(*Ending(code, last).outcome(timeout, setting.device))
    rank, how = death
    outcome, reason = Ending(how, "" if how < 0 else last).outcome(timeout, setting.device)
    return ProcessTiming(outcome, f"rank {rank}: {reason}")


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
