"""The process in which a model is timed, started by `datbench.timing.process`."""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from time import perf_counter
from typing import Any

import torch

from ..errors import one_line
from ..machine import environment
from ..process import PACKAGES, serve, write_answer
from ..run import failure, ready
from ..setting import How, Resolution, Setting
from .ceilings import ceilings
from .records import UNFINISHED, Timing
from .sample import time_calls
from .telemetry import by_turns, watching
from .turns import Turns, pin
from .turns import of as taking_turns

LEAST = 0.2
"""Of the budget, before an interval is trusted: clocks take a while to rise."""

MARGIN = 0.5
"""Seconds before the time-out in which nothing is begun, so that the answer is still written."""

HALF = 0.45
"""Of the time that is left, where another process takes turns; some is for what lies between."""

CEILINGS = 0.3
"""Seconds for the ceilings, relative to the budget."""

CEILINGS_LEAST = 1.5
"""Seconds for them at least; with fewer, a cold call would be all there is."""

CEILINGS_MOST = 3.0

LATE = "--timeout left no time for it"


class _OutOfTime(Exception):
    """The time that the process has is over."""


def work(job: dict[str, Any]) -> dict[str, Any]:
    """Time one model. Whatever it raises is an outcome, and what was finished is kept.

    Args:
        job: ``model``, ``setting``, ``how``, ``ceilings`` (bool), ``protocols`` (names),
            ``end`` (of the time that there is, seconds since the epoch), and ``result``, where the
            samples are written as soon as they are there. Beside another process ``turns`` (its
            pipes ``in`` and ``out``, and whether it ``begins``) and ``processors``.
    """
    given = dict(job["setting"])
    setting = Setting(Resolution(**given.pop("resolution")), **given)
    answer: dict[str, Any] = {"outcome": "measured", "reason": None}
    try:
        _measure(job, setting, How(**job["how"]), answer)
    except KeyboardInterrupt:
        answer["outcome"] = "interrupted"
    except (Exception, SystemExit) as error:
        outcome, reason = failure(error, torch.device(setting.device).type == "cuda")
        answer |= {"outcome": outcome, "reason": reason}
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # nothing is left to be interrupted
    return answer | {"environment": surroundings()}


def surroundings() -> dict[str, Any]:
    """The environment, with the datbench that ran: a working directory may hold another."""
    return environment() | {"datbench_from": str(PACKAGES)}


def left(job: dict[str, Any]) -> float:
    """Seconds that are left to begin something in."""
    return float(job.get("end", float("inf"))) - time.time() - MARGIN


def _measure(job: dict[str, Any], setting: Setting, how: How, answer: dict[str, Any]) -> None:
    """Add to the answer as things are known."""
    if how.threads is not None:
        torch.set_num_threads(how.threads)
    answer["threads"] = torch.get_num_threads()
    device = torch.device(setting.device)
    _time(job, setting, how, device, answer)
    if job.get("ceilings"):  # last, when the model has left its memory: samples come first
        add_ceilings(answer, device, setting, how, left(job))


def _time(
    job: dict[str, Any], setting: Setting, how: How, device: torch.device, answer: dict[str, Any]
) -> None:
    torch.manual_seed(0)
    call = ready(job["model"], setting, how)
    if how.compile:
        begin = perf_counter()
        call()
        _wait(device)
        answer["compiling"] = perf_counter() - begin
    with watching(device) as watch, _bound_to(job.get("processors", ())):
        timing, turns = _sample(job, setting, how, call, watch.stamp)
        answer["timing"] = asdict(timing)
        told = watch.telemetry(timing)
        answer["telemetry"] = asdict(told if turns is None else by_turns(told))
    if turns is not None:
        answer |= {"turns": turns.taken, "restless": turns.restless}
        answer["processors"] = job.get("processors", ())
    if timing.stopped == "interrupted":
        raise KeyboardInterrupt
    _keep(job, answer)
    if job.get("protocols"):
        _follow(job, setting, how, call, timing.median, answer)


def _sample(
    job: dict[str, Any],
    setting: Setting,
    how: How,
    call: Callable[[], object],
    stamp: Callable[[], None],
) -> tuple[Timing, Turns | None]:
    """The samples, and the turns in which they were taken, if another process took turns too."""
    device = torch.device(setting.device)

    def warm() -> None:
        call()
        _wait(device)

    turns = taking_turns(job, warm, lambda: left(job))
    if turns is None:
        budget = min(how.budget, left(job))
        width, clock, between = how.width, perf_counter, stamp
    else:
        warm()  # the very first call takes longest, and both sides may do theirs at once
        turns.meet()
        # The other one needs as much. The budget is used up: of the two none may end early.
        budget, width, clock = min(how.budget, HALF * left(job)), 0.0, turns.clock

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
    if not processors:
        yield
        return
    before = os.sched_getaffinity(0)
    pin(processors)
    try:
        yield
    finally:
        pin(before)


def _keep(job: dict[str, Any], answer: dict[str, Any]) -> None:
    """Write the samples now: what comes after them may be cut off."""
    rest = [*job.get("protocols", ()), *(["ceilings"] if job.get("ceilings") else [])]
    if rest and "result" in job:
        write_answer(job, answer | {"environment": surroundings(), UNFINISHED: rest})


def _follow(
    job: dict[str, Any],
    setting: Setting,
    how: How,
    call: Callable[[], object],
    seconds: float,
    answer: dict[str, Any],
) -> None:
    """Time the same calls as published protocols do, where they fit the row and the time left."""
    from .protocols import misfit, protocol_named, run_protocol

    done = answer["protocols"] = []
    refused = answer.setdefault("refused", {})
    # What the ceilings need is theirs.
    end = time.time() + left(job) - (_seconds(how) if job.get("ceilings") else 0.0)

    def limited() -> object:
        if time.time() > end:
            raise _OutOfTime
        return call()

    for name in job["protocols"]:
        protocol = protocol_named(name)
        reason = misfit(protocol, setting.batch, how.mode)
        if reason is None and protocol.duration(seconds) > end - time.time():
            took = protocol.duration(seconds)
            reason = f"{name} would take {took:.0f} s, more than --timeout leaves"
        if reason is not None:
            refused[name] = reason
            continue
        row = setting.batch / seconds
        try:
            found = run_protocol(limited, setting.device, protocol, setting.batch, row=row)
        except _OutOfTime:
            refused[name] = f"{name} was slower than the samples; --timeout ended it"
        except (RuntimeError, MemoryError, ValueError) as error:  # the samples are good
            refused[name] = one_line(error)
        else:
            done.append(asdict(found))


def add_ceilings(
    answer: dict[str, Any], device: torch.device, setting: Setting, how: How, time_left: float
) -> None:
    """Measure the machine's ceilings with the threads that torch is set to, or say why not."""
    seconds = min(_seconds(how), time_left)
    if seconds < CEILINGS_LEAST / 2:
        answer.setdefault("refused", {})["ceilings"] = LATE
        return
    if device.type == "cuda":
        torch.cuda.empty_cache()
    try:
        found = ceilings(device, getattr(torch, setting.dtype), seconds)
    except (RuntimeError, MemoryError) as error:
        answer.setdefault("refused", {})["ceilings"] = one_line(error)
    else:
        answer["ceilings"] = asdict(found)


def _seconds(how: How) -> float:
    """For the ceilings."""
    return min(max(CEILINGS * how.budget, CEILINGS_LEAST), CEILINGS_MOST)


def flusher(device: torch.device) -> Callable[[], None]:
    """What evicts a GPU's level-2 cache: a write of twice its size, waited for."""
    size = 2 * int(torch.cuda.get_device_properties(device).L2_cache_size)
    buffer = torch.empty(size, dtype=torch.uint8, device=device)

    def flush() -> None:
        buffer.zero_()
        _wait(device)

    return flush


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def main() -> int:
    """Set this process up, and do what it is asked."""
    # A shell's background jobs ignore it, and so would their children.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    return serve(work)


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code)  # no model's exit handlers, and no wait for the reading thread
