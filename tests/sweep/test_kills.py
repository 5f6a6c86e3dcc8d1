"""A sweep that is killed at any moment loses no finished unit, repeats none, and leaves no half."""

import os
import random
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from datbench.signals import HANGUPS
from tests.processes import gone

from .small import children, finished, keys, kill, models, plan, program, records

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

PLAN = """
processes = {processes}
[[grid]]
kind = ["flops", "throughput"]
model = {models}
res = [32, 48]
batch = [1, 2]
threads = 1
budget = 0.1
device = "cpu"
"""


def victim(driver: int, which: str) -> int | None:
    """The driver, its agent, or the agent's worker; None where there is none now."""
    if which == "driver":
        return driver
    agents = children(driver)
    if which == "agent" or not agents:
        return agents[0] if agents else None
    workers = children(agents[0])
    return workers[0] if workers else None


def killed_at(folder: Path, whom: Sequence[str], longest: float, first: bool = False) -> None:
    """Run a sweep to its end, and kill its processes one after the other at random moments.

    Args:
        longest: seconds until the next moment.
        first: whether a unit must be at work then.
    """
    moments, left = random.Random(0), list(whom)
    kept: dict[str, tuple[int, int]] = {}
    while True:
        process = program("sweep", "run", folder)
        while process.poll() is None and left:
            while process.poll() is None and (
                victim(process.pid, left[0]) is None or (first and not list(folder.glob("tries/*")))
            ):
                time.sleep(0.01)
            time.sleep(moments.uniform(0, longest))
            found = victim(process.pid, left[0])
            if found is not None and process.poll() is None:
                kill(found)
                left.pop(0)
        _, err = process.communicate(timeout=300)
        assert "Traceback" not in err, err
        made = {key: path.stat() for key, path in records(folder).items()}
        now = {key: (stat.st_ino, stat.st_mtime_ns) for key, stat in made.items()}
        assert kept.items() <= now.items()  # nothing is lost, and nothing was made again
        kept = now
        if len(kept) == len(keys(folder)) and process.returncode in (0, 5):
            assert not left
            return


def test_killed(tmp_path: Path) -> None:
    text = PLAN.format(processes=1, models=models(tmp_path, "a"))
    folder = plan(tmp_path / "sweep", text)
    killed_at(folder, ["worker", "agent", "driver"], 0.2, first=True)
    assert {path.name.split(".")[1] for path in records(folder).values()} == {"ok"}
    assert not list((folder / "beside").glob("*"))


@pytest.mark.slow
@pytest.mark.parametrize("which", ["driver", "agent", "worker"])
def test_killed_fifty_times(which: str, tmp_path: Path) -> None:
    text = PLAN.format(processes=25, models=models(tmp_path, "a", "b"))
    folder = plan(tmp_path / "sweep", text)
    longest = {"driver": 12.0, "agent": 8.0, "worker": 1.0}[which]
    killed_at(folder, [which] * 50, longest)
    assert len(records(folder)) == len(keys(folder)) == 8 + 25 * 8
    # A worker that is killed three times at the same unit is not started again.
    ended = [path.name.split(".")[1] for path in records(folder).values()]
    assert set(ended) <= {"ok", "crashed"}
    assert ended.count("ok") >= 0.9 * len(ended)


@pytest.mark.parametrize(
    "number",
    [
        signal.SIGTERM,
        *(pytest.param(each, marks=pytest.mark.slow) for each in HANGUPS if each != signal.SIGTERM),
    ],
)
def test_a_signal_leaves_the_unit_at_work_pending(number: int, tmp_path: Path) -> None:
    (model,) = models(tmp_path, "hangs")
    folder = plan(
        tmp_path / "sweep",
        f'[[grid]]\nkind = "throughput"\nmodel = "{model}"\nres = 32\ndevice = "cpu"\n',
    )
    process = program("sweep", "run", folder)
    end = time.monotonic() + 120
    while not list(folder.glob("tries/*")):
        assert time.monotonic() < end
        assert process.poll() is None
        time.sleep(0.05)
    (agent,) = children(process.pid)
    (worker,) = children(agent)
    os.kill(process.pid, number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.splitlines()[-1] == "datbench: interrupted."
    assert gone(agent)
    assert gone(worker)
    assert records(folder) == {}
    assert not list(folder.glob("tries/*"))
    code, out, _ = finished("sweep", "status", folder, "--format", "csv")
    assert code == 0
    assert out.splitlines()[1].split(",")[1:4] == ["throughput", "1", "1"]
