"""Signals that end a program: they interrupt, once, and wait where they are held back."""

import os
import signal
from collections.abc import Iterator

import pytest

from datbench.signals import HANGUPS, as_interrupts, held_back

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals are POSIX")


@pytest.fixture(autouse=True)
def _as_they_were() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, *HANGUPS)}
    yield
    for number, handler in before.items():
        assert signal.getsignal(number) == handler
        signal.signal(number, handler)


def test_every_one_interrupts_and_the_second_is_ignored_unless_it_is_ctrl_c() -> None:
    """A terminal that closes sends two; what is being written then is finished."""
    for number in HANGUPS:
        with pytest.raises(KeyboardInterrupt), as_interrupts() as came:
            signal.raise_signal(number)
        assert came == [number]
    with as_interrupts() as came:
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGHUP)
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert came == [signal.SIGHUP, signal.SIGTERM, signal.SIGINT]


def test_what_is_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    with as_interrupts() as came, held_back():
        signal.raise_signal(signal.SIGHUP)
    assert came == []
    signal.signal(signal.SIGHUP, before)


def test_held_back_until_the_block_is_over() -> None:
    with as_interrupts() as came:
        holding = held_back()
        holding.__enter__()
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)
        assert came == []
        with pytest.raises(KeyboardInterrupt):
            holding.__exit__(None, None, None)
    assert came == [signal.SIGTERM]
