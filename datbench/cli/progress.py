"""A progress bar on standard error, where there is something to wait for and somebody to see."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

Job = TypeVar("Job")


def progress(jobs: Sequence[Job], name: Callable[[Job], str]) -> Iterable[Job]:
    """Yield every job, showing the name of the one at work."""
    if len(jobs) < 2 or sys.stderr is None or not sys.stderr.isatty():
        return jobs
    return _shown(jobs, name)


def _shown(jobs: Sequence[Job], name: Callable[[Job], str]) -> Iterator[Job]:
    from rich.progress import Progress

    from .output import console

    with Progress(console=console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=len(jobs))
        for job in jobs:
            bar.update(task, description=name(job))
            yield job
            bar.advance(task)


@contextmanager
def status() -> Iterator[Callable[[str], None]]:
    """A function that shows what is at work, where somebody watches."""
    if sys.stderr is None or not sys.stderr.isatty():
        yield lambda text: None
        return
    from .output import console

    with console(stderr=True).status("") as shown:
        yield shown.update
