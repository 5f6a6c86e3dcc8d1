"""Sweeps on a real Slurm, which this starts on this machine: to the end, whatever is killed."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from datbench.process import PACKAGES
from datbench.sweep.records import KINDS
from tests.sweep.cluster import NODES, LocalSlurm, Unavailable, install, wait

pytestmark = pytest.mark.slurm

NETS = """
import os, time
from torch import nn

def quick():
    return nn.Conv2d(3, 4, 3)

quick_2 = quick_3 = quick_4 = quick

def held():
    while os.path.exists(os.environ["HOLD"]):
        time.sleep(0.05)
    return quick()

held_2 = held
"""
"""Models that are counted in no time; some wait until they are let go."""

PLAN = """
[[grid]]
kind = "flops"
res = 16
model = ["nets.py:quick", "nets.py:quick_2", "nets.py:held", "nets.py:held_2", "nets.py:quick_3", \
"nets.py:quick_4"]
"""
"""Each of two shards has a quick one, one that waits, and another quick one."""

PROGRAM = """
import sys
from datbench.sweep import slurm
slurm.POLL = 0.5
from datbench.cli.main import entry
entry()
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalSlurm]:
    """Two nodes with two fake GPUs each; an array has at most three tasks."""
    try:
        install()
    except Unavailable as error:
        pytest.skip(f"needs Slurm: {error}")
    with tempfile.TemporaryDirectory(prefix="slurm-", dir="/tmp") as folder:
        found = LocalSlurm(Path(folder), max_array=4)
        try:
            found.start()
            yield found
        finally:
            found.stop()


class Scene:
    """A sweep, and the program that drives it."""

    def __init__(self, cluster: LocalSlurm, place: Path) -> None:
        self.cluster, self.place, self.folder = cluster, place, place / "grid"
        self.hold = place / "hold"
        self.folder.mkdir()
        (place / "nets.py").write_text(NETS)
        (self.folder / "sweep.toml").write_text(PLAN)
        self.environment = {
            **os.environ,
            **cluster.environment,
            "HOLD": str(self.hold),
            "PYTHONPATH": str(PACKAGES),
        }
        self.drivers: list[subprocess.Popen[str]] = []

    def start(self, *more: str, jobs: int = 2, path: str = "") -> subprocess.Popen[str]:
        """`datbench sweep run grid --engine slurm ...` in the background."""
        command = ("run", "grid", "--engine", "slurm", f"--jobs={jobs}", "--slurm", "gres=gpu:1")
        return self.program(*command, *more, path=path)

    def program(self, *arguments: str, path: str = "") -> subprocess.Popen[str]:
        """`datbench sweep ...` in the background."""
        driver = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, "sweep", *arguments],
            cwd=self.place,
            env={**self.environment, "PATH": path + os.environ["PATH"]},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.drivers.append(driver)
        return driver

    def end(self, driver: subprocess.Popen[str], code: int = 0, seconds: float = 120) -> str:
        """Wait for a program; what it said."""
        out, errors = driver.communicate(timeout=seconds)
        assert driver.returncode == code, out + errors + self.logs()
        assert "Traceback" not in errors
        return errors if code else out + errors

    def at_work(self) -> subprocess.Popen[str]:
        """A sweep whose two shards have a record each, and are at the model that waits."""
        self.hold.touch()
        driver = self.start()
        wait(
            lambda: len(self.records()) == 2 and len(self.marks()) == 2 and len(self.jobs()) == 2,
            90,
            "both shards are at work",
        )
        return driver

    def records(self) -> list[Path]:
        """All records."""
        return [path for kind in KINDS for path in (self.folder / kind).rglob("*.json")]

    def marks(self) -> list[Path]:
        """Of tries that have no record yet."""
        return list((self.folder / "tries").glob("*"))

    def jobs(self, state: str = "running") -> list[str]:
        """Of the queue, such as 12_1."""
        return self.cluster.ask("squeue", "-h", "-r", f"--states={state}", "-o", "%i").split()

    def logs(self) -> str:
        """What the jobs said."""
        return "".join(p.read_text() for p in sorted((self.folder / "log").glob("*")))

    def arrays(self) -> int:
        """How many were submitted."""
        return (self.folder / "slurm.jsonl").read_text().count('"token"')

    def pid(self, what: str) -> int:
        """Of the program of the first job, its ``agent`` or its ``worker``, or of its stepd."""
        if what in ("job", "slurmstepd"):
            sign = "slurmstepd: " if what == "slurmstepd" else " --shard "
            return min(pid for pid, said in self.cluster.processes().items() if sign in said)
        worker = min(json.loads(path.read_text())["process"] for path in self.marks())
        return worker if what == "worker" else _parent(worker)

    def at(self, what: str) -> list[int]:
        """Of all agents, or of all workers."""
        found = self.cluster.processes()
        agents = [pid for pid, said in found.items() if "sweep.agent" in said]
        # A worker is forked from its agent.
        workers = [pid for pid in agents if _parent(pid) in agents]
        return workers if what == "worker" else [pid for pid in agents if pid not in workers]

    def let_go(self) -> None:
        """Let the models that wait go on."""
        self.hold.unlink(missing_ok=True)

    def release(self) -> None:
        """Let jobs that were put back into the queue start now, and not in two minutes."""
        for job in self.jobs("pending"):
            self.cluster.ask("scontrol", "update", f"jobid={job}", "StartTime=now")

    def check(self, units: int = 6) -> None:
        """Every unit has one record, whole; nothing is left over."""
        counts = Counter(path.name.partition(".")[0] for path in self.records())
        assert len(counts) == units
        assert set(counts.values()) == {1}
        for path in self.records():
            assert json.loads(path.read_text())["unit"]["outcome"] == "ok", path.read_text()
        assert self.marks() == []
        assert list((self.folder / "beside").glob("*")) == []


def _parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


@pytest.fixture
def scene(cluster: LocalSlurm, tmp_path: Path) -> Iterator[Scene]:
    """A sweep of six units; whatever is left of it ends with the test."""
    found = Scene(cluster, tmp_path)
    yield found
    found.let_go()
    for driver in found.drivers:
        driver.kill()
        driver.communicate()
    cluster.cancel_all()


def test_to_the_end_and_reported(scene: Scene) -> None:
    plan = PLAN + (
        '\n[[grid]]\nkind = "throughput"\nmodel = "nets.py:quick"\nres = 16\nthreads = 1\n'
        'budget = 0.2\ndevice = "cpu"\n\n[slurm]\ntime = 5\ncomment = "two words"\n'
        'setup = "export FROM_SETUP=yes"\n'
    )
    (scene.folder / "sweep.toml").write_text(plan)
    said = scene.end(scene.start())
    scene.check(7)
    assert "shard 1/2" in said
    assert 'no unit for a GPU: write device = "cuda"' in said
    script = (scene.folder / "slurm.sh").read_text()
    assert "export FROM_SETUP=yes" in script
    # On a GPU each, as gres=gpu:1 says.
    units = [json.loads(path.read_text())["unit"] for path in scene.records()]
    assert {unit["shard"] for unit in units} == {"1/2", "2/2"}
    assert all(unit["variables"]["CUDA_VISIBLE_DEVICES"] in ("0", "1") for unit in units)
    assert scene.end(scene.program("status", "grid")).count("flops") == 1


Fault = Callable[[Scene], None]


def _killed(what: str) -> Fault:
    def fault(scene: Scene) -> None:
        os.kill(scene.pid(what), signal.SIGKILL)

    return fault


def _node_lost(scene: Scene) -> None:
    name = NODES[0]
    scene.cluster.kill(name)
    wait(lambda: "down" in scene.cluster.ask("sinfo", "-h", "-N", "-o", "%T"), 60, "a node is down")
    scene.cluster.start_node(name)


def _requeued(scene: Scene) -> None:
    for job in scene.jobs():
        scene.cluster.ask("scontrol", "requeue", job)


def _preempted(scene: Scene) -> None:
    """A job of a partition with precedence takes both nodes."""
    command = ("sbatch", "--parsable", "-p", "high", "-N", "2", "--exclusive", "-o", "/dev/null")
    job = scene.cluster.ask(*command, "--wrap", "sleep 3")
    wait(lambda: job in scene.jobs(), 40, "the other job runs")
    wait(lambda: job not in scene.jobs(), 40, "the other job ends")


@pytest.mark.parametrize(
    "fault",
    [
        *(
            pytest.param(_killed(what), id=f"{what} killed")
            for what in ("job", "agent", "worker", "slurmstepd")
        ),
        pytest.param(_node_lost, id="node lost"),
        pytest.param(_requeued, id="requeue"),
        pytest.param(_preempted, id="preemption"),
    ],
)
def test_what_is_lost_is_done_again(scene: Scene, fault: Fault) -> None:
    """The driver is at work all the time, and nobody else does anything."""
    driver = scene.at_work()
    finished = {path: path.read_bytes() for path in scene.records()}
    fault(scene)
    scene.let_go()
    wait(lambda: scene.release() or driver.poll() is not None, 120, "the driver ends")
    scene.end(driver)
    scene.check()
    assert {path: path.read_bytes() for path in finished} == finished


@pytest.mark.parametrize("name", ["TERM", "USR1", "USR2", "HUP", "INT"])
def test_signals_leave_the_unit_pending(scene: Scene, name: str) -> None:
    driver = scene.at_work()
    driver.kill()  # else it would submit the shard again
    job, other = scene.jobs()
    scene.cluster.ask("scancel", "--batch", f"--signal={name}", job)
    wait(lambda: scene.jobs() == [other], 30, "the job ends")
    assert len(scene.records()) == 2
    assert len(scene.marks()) == 1  # of the other job
    assert "interrupted" in scene.logs()
    scene.let_go()
    scene.end(scene.start())
    scene.check()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("which", "longest", "rounds"),
    [("driver", 4.0, 500), ("agent", 8.0, 100), ("worker", 2.0, 100)],
)
def test_killed_fifty_times(scene: Scene, which: str, longest: float, rounds: int) -> None:
    """At random moments: no finished unit is lost or made again."""
    (scene.folder / "sweep.toml").write_text(
        f'processes = {rounds}\n[[grid]]\nkind = "throughput"\nmodel = ["nets.py:quick", '
        '"nets.py:quick_2"]\nres = 16\nthreads = 1\nbudget = 0.1\ndevice = "cpu"\n'
    )
    moments, left, kept = random.Random(0), 50, dict[Path, tuple[int, int]]()
    while True:
        driver = scene.start()
        while left and driver.poll() is None:
            time.sleep(moments.uniform(0, longest))
            pids = [driver.pid] if which == "driver" else scene.at(which)
            if pids and driver.poll() is None:
                with suppress(ProcessLookupError):
                    os.kill(moments.choice(pids), signal.SIGKILL)
                    left -= 1
            now = {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in scene.records()}
            assert kept.items() <= now.items()
            kept = now
        _, errors = driver.communicate(timeout=600)
        assert "Traceback" not in errors
        if len(scene.records()) == 2 * rounds:
            break
    assert left == 0
    outcomes = Counter(path.name.split(".")[1] for path in scene.records())
    assert outcomes["ok"] >= 2 * rounds - 10
    assert set(outcomes) <= {"ok", "crashed"}  # a worker that was killed three times
    wait(lambda: not scene.jobs(), 60, "the jobs end")
    assert scene.marks() == []
    assert list((scene.folder / "beside").glob("*")) == []


def test_jobs_cancelled_by_hand_are_not_submitted_again(scene: Scene) -> None:
    driver = scene.at_work()
    job = scene.jobs()[0]
    scene.cluster.ask("scancel", job)
    wait(lambda: job not in scene.jobs("running,completing"), 30, "the job ends")
    scene.let_go()
    said = scene.end(driver, 5)
    assert "were cancelled; 2 units are pending" in said
    assert len(scene.records()) == 4
    assert scene.arrays() == 1
    scene.end(scene.start())
    scene.check()


def test_status_and_cancel(scene: Scene) -> None:
    driver = scene.at_work()
    said = scene.end(scene.program("status", "grid"))
    first, second = scene.jobs()
    assert f"{first} running, shard 1/2" in said
    assert f"{second} running, shard 2/2" in said
    assert "2 jobs cancelled" in scene.end(scene.program("cancel", "grid"))
    assert "were cancelled; 4 units are pending" in scene.end(driver, 5)
    wait(lambda: not scene.jobs("all") or not scene.jobs(), 30, "the jobs end")
    assert scene.arrays() == 1
    assert "0 jobs cancelled" in scene.end(scene.program("cancel", "grid"))
    scene.let_go()
    scene.end(scene.start())
    scene.check()


def test_a_driver_attaches_to_what_runs_and_a_second_one_is_refused(scene: Scene) -> None:
    first = scene.at_work()
    assert "works on grid; wait for it" in scene.end(scene.start(), 2)
    first.kill()
    first.wait()
    scene.let_go()
    scene.end(scene.start(jobs=1))
    assert scene.arrays() == 1
    scene.check()


def test_a_shard_that_is_started_twice(scene: Scene) -> None:
    """As where a node was not reached, and still works: both do it, each unit is kept once."""
    driver = scene.at_work()
    other = scene.program("run", "grid", "--shard", "1/2")
    wait(lambda: len(scene.marks()) == 3, 60, "both are at the same unit")
    scene.let_go()
    assert "another process does shard 1/2 too" in scene.end(other)
    scene.end(driver)
    scene.check()


def test_the_walltime_ends_a_unit_before_the_job(scene: Scene) -> None:
    """A job of one minute; the unit would take longer, and is done by the next job."""
    scene.hold.touch()
    driver = scene.start("--slurm", "time=1")
    wait(lambda: "is over" in scene.logs() or driver.poll() is not None, 90, "a job's time is over")
    wait(lambda: not scene.jobs() or scene.arrays() > 1, 30, "the job ends")
    scene.let_go()
    scene.end(driver)
    assert "TIMEOUT" not in scene.logs()
    assert "DUE TO TIME LIMIT" not in scene.logs()  # slurmstepd's words for a job that it killed
    scene.check()


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("partition=nosuch", "invalid partition"),
        ("gres=nosuch:1", "Invalid generic resource"),
        ("nosuch=1", "unrecognized option '--nosuch"),
    ],
)
def test_what_sbatch_refuses_is_one_line(scene: Scene, option: str, message: str) -> None:
    before = set(scene.jobs("all"))
    said = scene.end(scene.start("--slurm", option), 2)
    assert message in said
    assert len(said.splitlines()) == 1
    assert set(scene.jobs("all")) <= before


def test_arrays_are_no_larger_than_the_cluster_allows(scene: Scene) -> None:
    said = scene.end(scene.start(jobs=6))
    assert "at most 3 tasks (MaxArraySize), not 6" in said
    assert "shard 3/3" in said
    scene.check()


def test_a_log_folder_that_vanishes(scene: Scene) -> None:
    driver = scene.start("--slurm", "begin=now+4")
    wait(lambda: len(scene.jobs("pending")) == 2, 30, "the jobs wait")
    (scene.folder / "log").rmdir()
    scene.end(driver)
    scene.check()


def test_sbatch_that_times_out_although_it_submitted(scene: Scene) -> None:
    place = scene.place / "bin"
    place.mkdir()
    fake = place / "sbatch"
    fake.write_text(
        '#!/bin/sh\nPATH=/usr/bin:/bin sbatch "$@" >/dev/null\n'
        'echo "sbatch: error: Batch job submission failed: Socket timed out" >&2\nexit 1\n'
    )
    fake.chmod(0o755)
    scene.end(scene.start(path=f"{place}:"))
    assert scene.arrays() == 1
    scene.check()


def test_a_controller_that_is_away_for_a_while(scene: Scene) -> None:
    """squeue does not answer: the jobs are not gone."""
    driver = scene.at_work()
    scene.cluster.kill("slurmctld")
    time.sleep(3)
    scene.let_go()
    assert driver.poll() is None
    scene.cluster.start_controller()
    scene.end(driver)
    assert scene.arrays() == 1
    scene.check()
