"""Models that do odd things when they run, as `tests.timing.odd_models:NAME`."""

import os
import signal
import time
from collections.abc import Callable
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


def _where(x: Tensor) -> None:
    found = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    if len(found) > 1:
        raise ValueError(f"this runs on processors {found}")


BEGUN = "DATBENCH_TEST_BEGUN"
"""The variable that names the file which says that a model has been called often."""


class _Later:
    """Does something odd at its hundredth call."""

    def __init__(self, does: Callable[[Tensor], object]) -> None:
        self.calls = 0
        self.does = does

    def __call__(self, x: Tensor) -> None:
        self.calls += 1
        time.sleep(0.001)
        if self.calls == 100:
            self.does(x)


class _Saying:
    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, x: Tensor) -> None:
        self.calls += 1
        time.sleep(0.004)
        if self.calls == 60:
            Path(os.environ[BEGUN]).touch()


def _leaves_a_child(x: Tensor) -> None:
    child = os.fork()
    if child == 0:
        time.sleep(300)
        os._exit(0)
    Path(os.environ[BEGUN]).write_text(str(child))
    os._exit(3)


class _Interrupting:
    """Presses Ctrl-C in its own process, after some calls."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, x: Tensor) -> None:
        self.calls += 1
        if self.calls == 9:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(5)


def plain() -> Net:
    return Net(lambda x: None)


def fills() -> Net:
    return Net(_fills)


def always_fills() -> Net:
    return Net(_always_fills)


def raises() -> Net:
    return Net(_raises)


def kills_itself() -> Net:
    return Net(lambda x: os.kill(os.getpid(), signal.SIGKILL))


def fills_later() -> Net:
    return Net(_Later(_always_fills))


def sleeps() -> Net:
    return Net(lambda x: time.sleep(60))


def takes_a_while() -> Net:
    return Net(lambda x: time.sleep(0.004))


def takes_longer() -> Net:
    def does(x: Tensor) -> None:
        _where(x)
        time.sleep(0.006)

    return Net(does)


def leaves_a_child() -> Net:
    return Net(_Later(_leaves_a_child))


def says_that_it_has_begun() -> Net:
    return Net(_Saying())


def interrupts() -> Net:
    return Net(_Interrupting())


def no_gradient() -> nn.Module:
    return plain().requires_grad_(False)
