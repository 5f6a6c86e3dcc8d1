"""Models that do odd things when they run, as `tests.timing.odd_models:NAME`."""

import os
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from torch import Tensor, nn

FITS = 4


class Net(nn.Module):
    """Does something first, except where it is only counted."""

    def __init__(self, does: Callable[[Tensor], object]) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.does = does

    def forward(self, x: Tensor) -> Tensor:
        if not x.is_meta:
            self.does(x)
        return self.conv(x).mean((2, 3))  # (B, 4)


def _fills(x: Tensor) -> None:
    if x.shape[0] > FITS:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you asked for too much.")


def _always_fills(x: Tensor) -> None:
    raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you asked for too much.")


def _raises(x: Tensor) -> None:
    raise ValueError("no such thing\nas this")


BEGUN = "DATBENCH_TEST_BEGUN"
"""The variable that names the file which says that a model has been called often."""


class _At:
    """Does something odd at one of its calls, and takes a while for each."""

    def __init__(self, call: int, does: Callable[[Tensor], object], seconds: float = 0.0) -> None:
        self.calls, self.call, self.does, self.seconds = 0, call, does, seconds

    def __call__(self, x: Tensor) -> None:
        self.calls += 1
        time.sleep(self.seconds)
        if self.calls == self.call:
            self.does(x)


def _leaves_a_child(x: Tensor) -> None:
    child = os.fork()
    if child == 0:
        time.sleep(300)
        os._exit(0)
    Path(os.environ[BEGUN]).write_text(str(child))
    os._exit(3)


def _presses_ctrl_c(x: Tensor) -> None:
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(5)


def _on_one_processor(x: Tensor) -> None:
    found = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    if len(found) > 1:
        raise ValueError(f"this runs on processors {found}")
    time.sleep(0.006)


plain = partial(Net, lambda x: None)
fills = partial(Net, _fills)
always_fills = partial(Net, _always_fills)
raises = partial(Net, _raises)
sleeps = partial(Net, lambda x: time.sleep(60))
takes_a_while = partial(Net, lambda x: time.sleep(0.004))
takes_longer = partial(Net, _on_one_processor)


def fills_later() -> Net:
    return Net(_At(30, _always_fills, 0.001))


def leaves_a_child() -> Net:
    return Net(_At(100, _leaves_a_child, 0.001))


def says_that_it_has_begun() -> Net:
    return Net(_At(60, lambda x: Path(os.environ[BEGUN]).touch(), 0.004))


def interrupts() -> Net:
    return Net(_At(9, _presses_ctrl_c))


def no_gradient() -> nn.Module:
    return plain().requires_grad_(False)
