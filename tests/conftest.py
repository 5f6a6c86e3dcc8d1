"""What every test shares."""

import hashlib
import os
import pickle
import signal
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache
from typing import Any

import pytest
import torch
import typer.main

from datbench.machine import LOCKS
from datbench.models.spec import TIMM, TRANSFORMERS
from datbench.paper import workshop
from tests.processes import asking_here
from tests.skips import pytest_sessionfinish, pytest_terminal_summary  # noqa: F401 (hooks)

# The same examples in every run: a run fails for what was changed, and for nothing else.
with suppress(ImportError):  # tests of a GPU do without it
    from hypothesis import settings

    settings.register_profile("the same", derandomize=True)
    settings.load_profile("the same")


@pytest.fixture(autouse=True, scope="session")
def _surroundings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    # Small models gain nothing from threads, and lose a hundredfold where cores are shared.
    torch.set_num_threads(1)
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # of the processes that tests start
    # Tests that run beside each other do not wait for each other's measurements.
    os.environ[LOCKS] = str(tmp_path_factory.mktemp("locks"))
    # A shell's background job starts with SIGINT ignored, and what it starts inherits that.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    with pytest.MonkeyPatch.context() as patch:
        # Tests run beside each other, which what they time would say.
        patch.setattr(os, "getloadavg", lambda: (0.0, 0.0, 0.0))
        # Typer makes the same commands anew for every call of the program, in some 60 ms.
        patch.setattr(typer.main, "get_command", cache(typer.main.get_command))
        yield


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")


@pytest.fixture
def _no_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is measured is measured in this process, unless two processes take turns."""
    for module in ("process", "timing.process"):
        monkeypatch.setattr(f"datbench.{module}.asking", asking_here)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture(autouse=True, scope="session")
def _tables_are_computed_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Many tests print all tables: their models, which never change, are counted once for all.

    All workers of one run share what each has counted and simulated.
    """
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent

    def once(make: Callable[..., Any]) -> Callable[..., Any]:
        def remembered(what: Any, *rest: Any) -> Any:
            name = what if isinstance(what, str) else what.name
            if ":" in name and not name.startswith((TIMM, TRANSFORMERS)):  # their files change
                return make(what, *rest)
            key = hashlib.sha256(repr((make.__name__, name, rest)).encode()).hexdigest()
            file = folder / f"{key}.pickle"
            if not file.exists():
                part = folder / f"{key}.{os.getpid()}"
                part.write_bytes(pickle.dumps(make(what, *rest)))
                part.replace(file)
            return pickle.loads(file.read_bytes())

        return remembered

    with pytest.MonkeyPatch.context() as patch:
        for name in ("_make", "_make_head", "_hold"):
            patch.setattr(workshop, name, once(getattr(workshop, name)))
        yield
