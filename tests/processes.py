"""What tests of other processes share: their end, jobs done in this one, Ctrl-C when it is due."""

import json
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from types import SimpleNamespace
from typing import Any

from datbench.process import Ending, Question, Reply, alive, asking, packed, unpacked


def gone(pid: int, seconds: float = 10.0) -> bool:
    """Whether a process ends in time; it may wait for somebody to notice that it has."""
    end = time.monotonic() + seconds
    while alive(pid) and time.monotonic() < end:
        time.sleep(0.05)
    return not alive(pid)


def asked_here(function: str, job: Any, answer: type[Any], *_: Any, **__: Any) -> Reply[Any]:
    """In place of `datbench.process.ask`: the job done in this process, with the same answer."""
    try:
        module, _, name = function.partition(":")
        found = getattr(import_module(module), name)(job)
    except Exception as error:
        return Reply(None, Ending(1, f"{type(error).__name__}: {error}"))
    return Reply(unpacked(answer, json.loads(json.dumps(packed(found)))))


@contextmanager
def asking_here(questions: Sequence[Question], answer: type[Any], env: Any = None) -> Iterator[Any]:
    """In place of `datbench.process.asking`, for a question that is alone."""
    if len(questions) > 1:
        with asking(questions, answer, env) as asked:
            yield asked
    else:
        replies = [asked_here(each.function, each.job, answer) for each in questions]
        yield SimpleNamespace(replies=lambda *_: replies)


@contextmanager
def ctrl_c(when: Callable[[], bool]) -> Iterator[None]:
    """Ctrl-C in this process, as soon as this is true."""

    def press(*_: Any) -> None:
        if when():
            raise KeyboardInterrupt
        signal.setitimer(signal.ITIMER_REAL, 0.05)

    before = signal.signal(signal.SIGALRM, press)
    signal.setitimer(signal.ITIMER_REAL, 0.1)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
