"""The process in which a model is timed, started by `datbench.timing.process`."""

from __future__ import annotations

import math
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Any

import torch

from ..errors import one_line
from ..machine import environment
from ..models.resolve import Spec
from ..process import PACKAGES, write_answer
from ..run import failure, ready, synchronize
from ..setting import How, Setting
from .ceilings import ceilings
from .records import UNFINISHED, ProcessTiming, ProtocolTiming, Timing
from .sample import time_calls
from .telemetry import by_turns, watching
from .turns import Pipes, Turns, pin

LEAST = 0.2
"""The part of the budget before an interval is trusted: clocks take a while to rise."""

MARGIN = 0.5
"""Seconds before the time-out in which nothing is begun, so that the answer is still written."""

HALF = 0.45
"""The part of the time left that samples get where another process takes turns; some is lost
between turns."""

CEILINGS = 0.3
"""Seconds for the machine peaks, relative to the budget."""

CEILINGS_LEAST = 1.5
"""Seconds for them at least; with fewer, a cold call would be all there is."""

CEILINGS_MOST = 3.0

LATE = "--timeout left no time for it"


class _OutOfTime(Exception):
    """The time that the process has is over."""


@dataclass(frozen=True)
class TimingJob:
    """What a process is to time."""

    model: str
    setting: Setting
    how: How
    end: float = math.inf  # of the time that there is, in seconds since the epoch
    ceilings: bool = False
    protocols: tuple[str, ...] = ()
    turns: Pipes | None = None  # to another process that takes turns with this one
    processors: tuple[int, ...] = ()  # that it is bound to then

    @property
    def device(self) -> torch.device:
        """The setting's."""
        return torch.device(self.setting.device)

    @property
    def left(self) -> float:
        """Seconds that are left to begin something in."""
        return self.end - time.time() - MARGIN


def work(job: TimingJob) -> ProcessTiming:
    """Time one model. Whatever it raises is an outcome, and what was finished is kept."""
    # Nothing is left to be interrupted then.
    return timed(job, job.model, lambda: signal.signal(signal.SIGINT, signal.SIG_IGN))


def timed(
    job: TimingJob, model: str | Spec, ended: Callable[[], object] = lambda: None
) -> ProcessTiming:
    """The same in a process that goes on.

    Args:
        model: built in place of the job's.
        ended: called when the timing has ended, whatever its outcome.
    """
    found: dict[str, Any] = {"outcome": "measured"}
    try:
        _measure(job, model, found)
    except KeyboardInterrupt:
        found["outcome"] = "interrupted"
    except (Exception, SystemExit) as error:
        found["outcome"], found["reason"] = failure(error, job.device.type == "cuda")
    finally:
        ended()
    return ProcessTiming(**found, environment=surroundings())


def surroundings() -> dict[str, Any]:
    """The environment, with the datbench that ran: a working directory may hold another."""
    return environment() | {"datbench_from": str(PACKAGES)}


def _measure(job: TimingJob, model: str | Spec, found: dict[str, Any]) -> None:
    """Add what is found as it is known."""
    if job.how.threads is not None:
        torch.set_num_threads(job.how.threads)
    found["threads"] = torch.get_num_threads()
    found["refused"] = {}
    _time(job, model, found)
    if job.ceilings:  # last, when the model has left its memory: samples come first
        add_ceilings(job, found)


def _time(job: TimingJob, model: str | Spec, found: dict[str, Any]) -> None:
    torch.manual_seed(0)
    call = ready(model, job.setting, job.how)
    found["compiling"] = first_call(call, job.device) if job.how.compile else None
    with watching(job.device) as watch, _bound_to(job.processors):
        timing, turns = _sample(job, call, watch.stamp)
        telemetry = watch.telemetry(timing)
    found["timing"] = timing
    found["telemetry"] = telemetry if turns is None else by_turns(telemetry)
    if turns is not None:
        found |= {"turns": turns.taken, "restless": turns.restless}
        found["processors"] = job.processors
    if timing.stopped == "interrupted":
        raise KeyboardInterrupt
    after = (*job.protocols, *(["ceilings"] if job.ceilings else []))
    if after:  # write the samples now: what follows them may be cut off
        cut = dict.fromkeys(after, UNFINISHED)
        early = {**found, "refused": cut, "environment": surroundings()}
        write_answer(ProcessTiming(**early))
    for followed in _follow(job, call, timing.median, found["refused"]):
        found["protocols"] = (*found.get("protocols", ()), followed)


def first_call(call: Callable[[], object], device: torch.device) -> float:
    """Seconds of a call that compiles."""
    begin = perf_counter()
    call()
    synchronize(device)
    return perf_counter() - begin


def _sample(
    job: TimingJob, call: Callable[[], object], stamp: Callable[[], None]
) -> tuple[Timing, Turns | None]:
    """The samples, and the turns in which they were taken, if another process took turns too."""
    how, device = job.how, job.device

    def warm() -> None:
        call()
        synchronize(device)

    turns = None if job.turns is None else Turns(job.turns, warm, lambda: job.left)
    if turns is None:
        budget = min(how.budget, job.left)
        width, clock, between = how.width, perf_counter, stamp
    else:
        turns.keep_from_children()
        warm()  # the very first call takes longest, and both sides may do theirs at once
        turns.meet()
        # The other one needs as much. The budget is used up: of the two none may end early.
        budget, width, clock = min(how.budget, HALF * job.left), 0.0, turns.clock

        def between() -> None:
            stamp()
            turns.sampled()

    try:
        timing = time_calls(
            call,
            device,
            budget=budget,
            width=width,
            least=LEAST * how.budget,
            clock=clock,
            prepare=flusher(device) if how.flush else None,
            between=between,
            keep=True,
        )
    finally:
        if turns is not None:
            turns.end()
    if budget < how.budget and timing.stopped == "budget":
        timing = replace(timing, stopped="timeout")
    return timing, turns


@contextmanager
def _bound_to(processors: Sequence[int]) -> Iterator[None]:
    """Run on these processors only, meanwhile; where there are none, on any."""
    before = os.sched_getaffinity(0) if processors else None
    if processors:
        pin(processors)
    try:
        yield
    finally:
        if before is not None:
            pin(before)


def _follow(
    job: TimingJob, call: Callable[[], object], seconds: float, refused: dict[str, str]
) -> Iterator[ProtocolTiming]:
    """Time the same calls as published protocols do, where they fit the row and the time left.

    Args:
        seconds: a call's, by the samples.
        refused: gets the reasons why others do not.
    """
    from .protocols import misfit, protocol_named, run_protocol

    batch = job.setting.batch
    # The time that the machine peaks need is left to them.
    end = time.time() + job.left - (peak_seconds(job.how) if job.ceilings else 0.0)

    def limited() -> object:
        if time.time() > end:
            raise _OutOfTime
        return call()

    for name in job.protocols:
        protocol = protocol_named(name)
        reason = misfit(protocol, batch, job.how.mode)
        took = protocol.duration(seconds)
        if reason is None and took > end - time.time():
            reason = f"{name} would take {took:.0f} s, more than --timeout leaves"
        if reason is not None:
            refused[name] = reason
            continue
        try:
            yield run_protocol(limited, job.setting.device, protocol, batch, row=batch / seconds)
        except _OutOfTime:
            refused[name] = f"{name} was slower than the samples; --timeout ended it"
        except (RuntimeError, MemoryError, ValueError) as error:  # the samples are good
            refused[name] = one_line(error)


def add_ceilings(job: TimingJob, found: dict[str, Any]) -> None:
    """Measure the machine peaks with the threads that torch is set to, or say why not."""
    seconds = min(peak_seconds(job.how), job.left)
    if seconds < CEILINGS_LEAST / 2:
        found["refused"]["ceilings"] = LATE
        return
    if job.device.type == "cuda":
        torch.cuda.empty_cache()
    try:
        found["ceilings"] = ceilings(job.device, getattr(torch, job.setting.dtype), seconds)
    except (RuntimeError, MemoryError) as error:
        found["refused"]["ceilings"] = one_line(error)


def peak_seconds(how: How) -> float:
    """Seconds for the machine peaks."""
    return min(max(CEILINGS * how.budget, CEILINGS_LEAST), CEILINGS_MOST)


def flusher(device: torch.device) -> Callable[[], None]:
    """What evicts a GPU's level-2 cache: a write of twice its size, waited for."""
    size = 2 * int(torch.cuda.get_device_properties(device).L2_cache_size)
    buffer = torch.empty(size, dtype=torch.uint8, device=device)

    def flush() -> None:
        buffer.zero_()
        synchronize(device)

    return flush
