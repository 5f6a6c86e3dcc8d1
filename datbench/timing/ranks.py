"""A model on several GPUs at once, each with a process of its own, started by torchrun.

A sample is the slowest rank's. In inference every rank runs its own replica, and all begin a sample
together; in training the gradients are averaged over the ranks. On a CPU the ranks share its cores.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, replace
from datetime import timedelta
from pathlib import Path
from statistics import median
from typing import IO, Any

import torch
import torch.distributed as dist
from torch import nn

from ..errors import LibraryError, UsageError
from ..process import ENDED, Ending, command
from ..run import Runner, failure, ready
from ..setting import How, Resolution, Setting
from .process import check, ended, filled, short
from .records import UNFINISHED, ProcessTiming
from .sample import Clock, Stopwatch, stopwatch, time_calls
from .telemetry import merged, watching
from .worker import add_ceilings, left, surroundings

# One rank of several, started by torchrun: `datbench.timing.ranks` tells it its job.
#
# Every rank runs the same `time_calls` with rank 0's clock and the slowest rank's samples. All that
# it decides follows from these two, so all ranks decide the same, and stop together.


JOB = "DATBENCH_RANKS_JOB"
"""The variable that names the file of the job."""

STOP = "stop"
"""A file beside the job's: the samples that there are will do."""

LEAST = 0.2
"""Of the budget, before an interval is trusted."""


def work(job: dict[str, Any], stop: Path) -> dict[str, Any]:
    """A rank's part; what it returns is the same on all ranks, but for its `environment`."""
    given = dict(job["setting"])
    how = How(**job["how"])
    setting = Setting(Resolution(**given.pop("resolution")), **given)
    device = _device(setting.device)
    setting = replace(setting, device=str(device))
    torch.set_num_threads(_threads(how, device))
    _join(device, how, job["timeout"])
    torch.manual_seed(0)
    model = ready(job["model"], setting, how)
    call, unused = _averaging(model, how, device)
    compiling = _first_call(call, device) if how.compile else None
    clock = Shared(lambda: stop.exists())
    budget = min(how.budget, clock.agreed(left(job)))
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
    return {
        "outcome": "interrupted" if clock.stopped else "measured",
        "reason": "by Ctrl-C" if clock.stopped else None,
        "timing": asdict(timing),
        "threads": torch.get_num_threads(),
        "compiling": compiling,
        "ranks": medians,
        "telemetry": asdict(merged(telemetries)),
        "environment": surroundings()
        | {
            "distributed": {
                "ranks": dist.get_world_size(),
                "backend": dist.get_backend(),
                "find_unused_parameters": unused,
            }
        },
    }


def _device(name: str) -> torch.device:
    if torch.device(name).type != "cuda":
        return torch.device("cpu")
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
    torch.cuda.set_device(device)
    return device


def _threads(how: How, device: torch.device) -> int:
    """As many as were asked for; else a rank's share of the cores. torchrun's own choice is one."""
    if how.threads is not None:
        return how.threads
    return max(usable_cores() // int(os.environ["LOCAL_WORLD_SIZE"]), 1)


def usable_cores() -> int:
    """Cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _join(device: torch.device, how: How, timeout: float) -> None:
    """Join the other ranks: through NCCL where gradients on GPUs are averaged, else gloo."""
    on_gpu = device.type == "cuda" and how.mode == "train"
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
    if how.mode == "infer":
        return one, False
    unused = _has_unused(one)
    parallel = nn.parallel.DistributedDataParallel(
        one.model,
        device_ids=[device] if device.type == "cuda" else None,
        find_unused_parameters=unused,
    )
    return Runner(parallel, one.inputs, "train", how.compile), unused


def _has_unused(one: Runner) -> bool:
    """Whether a step leaves a parameter without a gradient."""
    Runner(one.model, one.inputs, "train")()
    unused = any(p.grad is None for p in one.model.parameters() if p.requires_grad)
    one.model.zero_grad(set_to_none=True)
    return unused


def _first_call(call: Callable[[], object], device: torch.device) -> float:
    begin = time.perf_counter()
    call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - begin


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


def _write(path: Path, answer: dict[str, Any]) -> None:
    beside = path.with_suffix(".part")
    beside.write_text(json.dumps(answer), encoding="utf-8")
    beside.replace(path)


def _end_with_standard_input() -> None:
    """Torchrun hands our standard input on; it ends when the process that asked does."""
    sys.stdin.buffer.read()
    os._exit(1)


def main() -> int:
    """Set this process up, and do this rank's part."""
    threading.Thread(target=_end_with_standard_input, daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the stop file is how it is told
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    path = Path(os.environ[JOB])
    job = json.loads(path.read_text(encoding="utf-8"))
    rank = os.environ["RANK"]
    (path.parent / f"{rank}.pid").write_text(str(os.getpid()), encoding="utf-8")
    try:
        answer = work(job, path.parent / STOP)
    except (Exception, SystemExit) as error:
        on_gpu = torch.device(job["setting"]["device"]).type == "cuda"
        outcome, reason = failure(error, on_gpu)
        failed = {"rank": int(rank), "outcome": outcome, "reason": reason}
        _write(path.parent / f"{rank}.failure.json", failed)
        return 1
    if rank == "0":
        _finish(path.parent / "result.json", job, answer)
    return 0


def _finish(result: Path, job: dict[str, Any], answer: dict[str, Any]) -> None:
    """Write rank 0's answer; then again with the ceilings, which the others leave to it."""
    if not job.get("ceilings") or answer["outcome"] != "measured":
        return _write(result, answer)
    _write(result, answer | {UNFINISHED: ["ceilings"]})
    given = dict(job["setting"])
    setting = Setting(Resolution(**given.pop("resolution")), **given)
    add_ceilings(answer, _device(setting.device), setting, How(**job["how"]), left(job))
    return _write(result, answer)


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code)  # no model's exit handlers, and no wait for the reading thread

TIMEOUT = 600.0
"""Seconds for all ranks: their start, `import torch`, building, and the budget."""

PATIENCE = 15.0
"""Seconds after Ctrl-C in which the ranks may finish a sample and answer."""

FAREWELL = 5.0
"""Seconds that torchrun has to end by itself once its ranks have."""

_ECHOES = ("Connection closed by peer", "Connection reset by peer", "DistNetworkError")
"""What gloo and the store say where the other side is gone."""

LAUNCHER = "torch.distributed.run"

WORKER = "datbench.timing.ranks"


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
