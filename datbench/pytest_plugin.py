"""The pytest plugin: fixtures for what a model costs. It loads nothing until one is called.

Found by the entry point ``pytest11``; ``-p no:datbench`` leaves it out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .testing import Flops, Memory


@pytest.fixture(scope="session")
def datbench_flops() -> Callable[..., Flops]:
    """`datbench.testing.flops`: count one run of a model, under any convention."""
    from .testing import flops

    return flops


@pytest.fixture(scope="session")
def datbench_memory() -> Callable[..., Memory]:
    """`datbench.testing.memory`: simulate what one run of a model holds at once."""
    from .testing import memory

    return memory


@pytest.fixture(scope="session")
def assert_macs() -> Callable[..., None]:
    """`datbench.testing.assert_macs`: fail unless a model counts exactly what is expected."""
    from .testing import assert_macs

    return assert_macs
