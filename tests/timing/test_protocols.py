"""Published protocols on clocks and devices that a test moves by hand."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from datbench.errors import UnknownNameError, UsageError
from datbench.timing.protocols import (
    PROTOCOLS,
    misfit,
    protocol_named,
    run_protocol,
)
from datbench.timing.sample import time_calls

LAUNCH = 1.0
"""Seconds of the host for a call; the device's own are `Machine.seconds`."""


@dataclass
class Machine:
    """A device that works through calls one after another, and a host that waits when it is told.

    Args:
        seconds: of the device for the call of that number, from 0.
        between: of the host, each time it reads the clock.
    """

    seconds: Callable[[int], float]
    between: float = 0.0
    now: float = 0.0
    busy_until: float = 0.0
    calls: int = 0
    waits: list[int] = field(default_factory=list)

    def run(self) -> None:
        self.now += LAUNCH
        self.busy_until = max(self.busy_until, self.now) + self.seconds(self.calls)
        self.calls += 1

    def wait(self) -> None:
        self.waits.append(self.calls)
        self.now = max(self.now, self.busy_until)

    def clock(self) -> float:
        self.now += self.between
        return self.now

    def measured(self, name: str, batch: int = 64) -> float:
        """Seconds of a call, as the protocol computes them."""
        protocol = replace(PROTOCOLS[name], batch=None)
        found = run_protocol(self.run, "cpu", protocol, batch, clock=self.clock, wait=self.wait)
        assert found.images_per_second == pytest.approx(batch / found.seconds)
        return found.seconds


@pytest.mark.parametrize(
    ("name", "batch", "between", "seconds", "warmup", "calls", "waits"),
    [
        # 30 calls: the first is launched in 1, the device then works for 30 x 4 without a pause.
        ("swin", 64, 0.0, (1 + 30 * 4) / 30, 50, 30, [50, 80]),
        # The clock runs already: 10 calls are launched in 10 and end at 41.
        ("tome", 64, 0.0, (31 + 1 + 30 * 4) / 30, 10, 30, [10, 40]),
        # Each launch is waited for: 1 + 4; the loop's own clock is read once more, at its end.
        ("timm", 64, 0.5, (40 * 5 + 0.5) / 40, 10, 40, range(10, 51)),
        # What lies between two calls is not theirs: 0.5 of every second reading is.
        ("mmdet", 1, 0.5, 1 + 4 + 0.5, 5, 1995, range(5, 2001)),
        ("pycls", 1, 0.5, 1 + 4 + 0.5, 3, 30, range(3, 34)),
    ],
)
def test_when_a_protocol_waits_and_what_it_sums(
    name: str,
    batch: int,
    between: float,
    seconds: float,
    warmup: int,
    calls: int,
    waits: Sequence[int],
) -> None:
    machine = Machine(lambda call: 4.0, between)
    assert machine.measured(name, batch) == pytest.approx(seconds)
    assert machine.calls == warmup + calls
    assert machine.waits == list(waits)


def test_a_warm_up_that_a_protocol_misses_is_the_difference() -> None:
    """The first 65 calls take 3 s, all others 2 s: Swin's 50 leave 15 of its 30 slow."""

    def seconds(call: int) -> float:
        return 3.0 if call < 65 else 2.0

    host = Machine(lambda call: 0.0)

    def run() -> None:
        host.now += seconds(host.calls)
        host.calls += 1

    timing = time_calls(run, budget=600.0, least=400.0, clock=lambda: host.now)
    assert timing.median == 2.0
    row = 64 / timing.median
    host.calls = 0
    found = run_protocol(run, "cpu", PROTOCOLS["swin"], 64, clock=lambda: host.now, row=row)
    # by hand: (15 x 3 + 15 x 2) / 30 = 2.5 s a batch, 25.6 images/s beside 32
    assert found.seconds == pytest.approx(2.5)
    assert found.images_per_second == pytest.approx(25.6)
    assert found.difference == pytest.approx(25.6 / 32 - 1)
    host.calls = 65  # the same protocol where all is warm
    warm = run_protocol(run, "cpu", PROTOCOLS["swin"], 64, clock=lambda: host.now, row=row)
    assert warm.difference == pytest.approx(0.0)


def test_a_row_of_another_batch_has_no_figure() -> None:
    swin, dat = PROTOCOLS["swin"], PROTOCOLS["dat"]
    assert misfit(swin, 64, "inference") is None
    assert misfit(swin, 8, "inference") == "swin takes batches of 64"
    assert misfit(swin, 64, "step") == "swin times inference"
    assert misfit(PROTOCOLS["timm-train"], 256, "inference") == "timm-train times training"
    assert misfit(dat, 8, "inference") is None
    with pytest.raises(UsageError, match="swin takes batches of 64, not of 8"):
        run_protocol(lambda: None, "cpu", swin, 8)


def test_on_the_real_clock() -> None:
    done: list[int] = []
    protocol = replace(PROTOCOLS["swin"], warmup=1, calls=3)
    found = run_protocol(lambda: done.append(1), "cpu", protocol, 64)
    assert (len(done), found.difference) == (4, None)
    assert found.seconds > 0


def test_names() -> None:
    for protocol in PROTOCOLS.values():
        file = r"https://github\.com/[\w-]+/[\w-]+/blob/[0-9a-f]{40}/[\w/]+\.py"
        assert re.fullmatch(file, protocol.source), protocol.name
        assert protocol.duration(0.5) == 0.5 * (protocol.warmup + protocol.calls)
    assert protocol_named("swin") is PROTOCOLS["swin"]
    with pytest.raises(UnknownNameError, match="did you mean swin"):
        protocol_named("swim")


def test_the_documentation_lists_them_as_they_are() -> None:
    text = (Path(__file__).parents[2] / "docs" / "protocols.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| \[([\w-]+)\]\((\S+)\) \| (.*) \|$", text, re.MULTILINE)
    expected = []
    for known in PROTOCOLS.values():
        batch = known.batch or "any"
        facts = (known.warmup, known.calls, batch, known.mode, known.waits, known.sums)
        expected.append((known.name, known.source, " | ".join(map(str, facts))))
    assert rows == expected
