"""Several ranks through torchrun, with gloo on a CPU."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from datbench.errors import LibraryError, UsageError
from datbench.setting import How, Resolution, Setting
from datbench.timing import ranks
from datbench.timing.ranks import time_on_gpus
from datbench.timing.records import UNFINISHED, ProcessTiming
from datbench.timing.sample import time_calls
from tests.processes import ctrl_c, gone

HERE = Path(__file__).parent
ON_CPU = Setting(Resolution(32, 32), device="cpu")
TWO_CORES = pytest.mark.skipif(ranks.usable_cores() < 2, reason="needs two cores")


@pytest.fixture
def factories(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Ranks find `rank_models`; the working directory holds packages that nobody is to take."""
    for name in ("datbench", "torch"):
        (tmp_path / "elsewhere" / name).mkdir(parents=True)
        (tmp_path / "elsewhere" / name / "__init__.py").write_text("raise ImportError('wrong')")
    monkeypatch.chdir(tmp_path / "elsewhere")
    given = os.environ.get("PYTHONPATH")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(HERE), *([given] if given else [])]))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@TWO_CORES
def test_gradients_are_averaged_and_the_slowest_rank_counts(
    factories: None, tmp_path: Path
) -> None:
    how = How(mode="step", threads=1, budget=0.4)
    found = time_on_gpus(
        f"rank_models:uneven,told={tmp_path}", ON_CPU, how, 2, timeout=120, ceilings=True
    )
    assert (found.outcome, found.reason, found.refused) == ("measured", None, {})
    for rank in (0, 1):  # by hand: (1 + 2) / 2
        assert (tmp_path / f"gradient-{rank}").read_text() == "1.5"
    timing = found.timing
    # Rank 1 sleeps after the gradients are averaged, so its sleep is its own.
    assert len(found.ranks) == 2
    assert found.ranks[0] < found.ranks[1]
    assert min(timing.samples) >= 0.05
    assert found.ranks[1] == pytest.approx(timing.median)
    assert found.threads == 1
    assert found.ceilings.threads == 1
    assert found.telemetry.reason is not None  # a CPU
    assert found.environment["distributed"] == {
        "ranks": 2,
        "backend": "gloo",
        "find_unused_parameters": True,
    }


@TWO_CORES
def test_a_rank_that_dies_is_an_outcome_and_leaves_nobody(factories: None, tmp_path: Path) -> None:
    how = How(threads=1, budget=1.0)
    found = time_on_gpus(f"rank_models:killed,told={tmp_path}", ON_CPU, how, 2, timeout=120)
    assert found.outcome == "crashed"
    assert found.reason.startswith("rank 1: killed by signal 9 (SIGKILL)")
    assert "smaller batch" in found.reason
    assert all(gone(int((tmp_path / f"pid-{rank}").read_text())) for rank in (0, 1))


TIMED = {"samples": [0.5], "warmup": [], "calls": 1, "stopped": "budget", "coverage": 0.0}
TIMED |= dict.fromkeys(("median", "low", "high"), 0.5)
ANSWER = {"outcome": "measured", "reason": None, "timing": TIMED, "ranks": [0.5, 0.25]}


@pytest.fixture
def fake(factories: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """A torchrun whose rank works until it is told to stop; the file gets the rank's process."""
    monkeypatch.setattr(ranks, "LAUNCHER", "from fake_torchrun import main; main()")
    monkeypatch.setattr(ranks, "FAREWELL", 0.1)
    monkeypatch.setenv("TOLD", str(tmp_path / "pid"))
    monkeypatch.setenv("ANSWER", json.dumps(ANSWER))
    yield tmp_path / "pid"
    assert gone(int((tmp_path / "pid").read_text()))


def begun(fake: Path) -> bool:
    return fake.exists() and bool(fake.read_text())


def run(timeout: float = 60) -> ProcessTiming:
    return time_on_gpus("dat_t", ON_CPU, How(), 1, timeout=timeout)


@pytest.mark.parametrize("lingers", ["", "1"])
def test_out_of_time(fake: Path, lingers: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LINGERS", lingers)

    def wait(process: Any, timeout: float | None = None) -> int:
        if timeout == 60:
            while not begun(fake):
                time.sleep(0.01)
            raise subprocess.TimeoutExpired("torchrun", timeout)
        return real(process, timeout)

    real: Callable[..., int] = subprocess.Popen.wait
    monkeypatch.setattr(subprocess.Popen, "wait", wait)
    found = run()
    assert (found.outcome, found.reason) == ("timed out", "did not finish in 60 s")


def test_an_answer_outlives_its_process(tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text(
        json.dumps({**ANSWER, "refused": {"ceilings": UNFINISHED}})
    )
    found = ranks._outcome(tmp_path, None, False, "", ON_CPU, 60)
    assert found.outcome == "measured"
    assert found.refused == {"ceilings": "the process did not finish it (out of time)"}
    assert ranks._outcome(tmp_path, 0, False, "", ON_CPU, 60).timing == found.timing


@pytest.mark.skipif(sys.platform == "win32", reason="needs signals")
def test_ctrl_c_keeps_the_samples(fake: Path) -> None:
    with ctrl_c(lambda: begun(fake)):
        found = run()
    assert (found.outcome, found.reason) == ("interrupted", "by Ctrl-C")
    assert found.timing.samples == (0.5,)
    assert found.ranks == (0.5, 0.25)


REPORT = """
=====
datbench.timing.ranks FAILED
-----
Failures:
[1]:
  rank      : 0 (local_rank: 0)
  exitcode  : -15 (pid: 10)
-----
Root Cause (first observed failure):
[0]:
  time      : 2030-01-01_00:00:00
  rank      : 3 (local_rank: 3)
  exitcode  : {code} (pid: 11)
=====
"""
ECHO = ("failed", "RuntimeError: Connection closed by peer [::1]")
NO_LIBRARY = "ImportError: no such library\nx.errors.ChildFailedError:\n" + REPORT.format(code=4)


@pytest.mark.parametrize(
    ("failures", "said", "outcome", "reason"),
    [
        ({0: ECHO, 2: ("out of memory", "x")}, REPORT.format(code=1), "out of memory", "rank 2: x"),
        ({0: ECHO, 1: ("failed", "no model")}, REPORT.format(code=1), "failed", "rank 1: no model"),
        ({0: ECHO}, REPORT.format(code=-11), "crashed", "rank 3: killed by signal 11 (SIGSEGV)"),
        ({}, "usage: ...\nno such thing\n=====\n", "crashed", "exit code 1: no such thing"),
        ({}, "", "crashed", "exit code 1"),
        ({}, NO_LIBRARY, "crashed", "rank 3: exit code 4: ImportError: no such library"),
    ],
)
def test_what_ranks_leave_behind(
    tmp_path: Path, failures: dict[int, tuple[str, str]], said: str, outcome: str, reason: str
) -> None:
    for rank, (what, why) in failures.items():
        told = {"rank": rank, "outcome": what, "reason": why}
        (tmp_path / f"{rank}.failure.json").write_text(json.dumps(told))
    found = ranks._outcome(tmp_path, 1, False, said, ON_CPU, 60)
    assert (found.outcome, found.reason) == (outcome, reason)


def test_more_than_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(ranks, "usable_cores", lambda: 3)
    on_gpu = Setting(Resolution(32, 32), device="cuda")
    for setting, gpus, line in (
        (on_gpu, 2, "--gpus 2: this machine has 1 GPU."),
        (ON_CPU, 4, "--gpus 4: this machine has 3 cores that ranks may use."),
        (ON_CPU, 0, "gpus 0: write a number from 1."),
        (Setting(Resolution(32, 32), device="cuda:1"), 1, "several GPUs are cuda, not cuda:1."),
    ):
        with pytest.raises(UsageError) as error:
            time_on_gpus("dat_t", setting, How(), gpus)
        assert str(error.value) == line


def test_a_torch_without_nccl(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dist, "is_nccl_available", lambda: False)
    with pytest.raises(LibraryError, match="without NCCL"):
        ranks._check_torch("cuda")
    monkeypatch.setattr(dist, "is_available", lambda: False)
    with pytest.raises(LibraryError, match=r"without torch\.distributed"):
        ranks._check_torch("cpu")


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[None]:
    """This process as the only rank."""
    store = dist.FileStore(str(tmp_path / "store"), 1)
    dist.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def test_ranks_stop_when_the_shared_clock_does(alone: None) -> None:
    ticks = iter(range(1000))
    clock = ranks.Shared(lambda: len(own) >= 20, clock=lambda: next(ticks) * 1e-3)
    own: list[float] = []
    seconds = iter([0.0] * 5 + [0.5] * 1000)  # the first five time nothing
    watch = ranks.slowest(lambda run, calls: next(seconds), own)
    timing = time_calls(lambda: None, budget=1e3, width=0.0, clock=clock, own=watch)
    assert clock.stopped
    assert set(timing.samples) == {0.5}
    assert len(own) == 20
