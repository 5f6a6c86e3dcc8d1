"""What every test shares."""

import os
import signal
from collections.abc import Iterator

import pytest
import torch

from datbench.models.external import FactorySpec
from datbench.models.resolve import Spec
from datbench.models.spec import CONFIG
from datbench.paper import workshop
from datbench.setting import Resolution


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    """Small models gain nothing from threads, and lose a hundredfold where cores are shared."""
    torch.set_num_threads(1)
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # of the processes that tests start


@pytest.fixture(autouse=True, scope="session")
def _ctrl_c_interrupts() -> None:
    """A shell's background job starts with SIGINT ignored, and what it starts inherits that."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture(autouse=True, scope="session")
def _tables_are_computed_once() -> Iterator[None]:
    """Many tests print all tables: their models, which never change, are counted once for all."""
    made: dict[tuple[str, str], workshop.Made] = {}
    make = workshop._make

    def remembered(spec: Spec, resolution: Resolution) -> workshop.Made:
        if isinstance(spec, FactorySpec) or spec.name.startswith(CONFIG):  # their files change
            return make(spec, resolution)
        key = (spec.name, str(resolution))
        if key not in made:
            made[key] = make(spec, resolution)
        return made[key]

    workshop._make = remembered
    yield
    workshop._make = make
