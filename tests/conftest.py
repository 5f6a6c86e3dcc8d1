"""What every test shares."""

import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def _two_threads() -> None:
    """The same arithmetic everywhere: sums depend on the number of threads."""
    torch.set_num_threads(2)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)
