"""`datbench profile` as a user meets it."""

import gzip
import json
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from datbench.timing.records import Ceilings

from .runner import Run

SMALL = ("profile", "dat_t", "--res", "32", "--budget", "0.1")
TINY = ("profile", "tiny_net:net", "--res", "32", "--budget", "0.1")

NET = """
from torch import nn

def net():
    part = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.GELU())
    return nn.Sequential(part, nn.Conv2d(8, 8, 3), nn.Flatten(), nn.Linear(7200, 4))
"""


@cache
def _once(measured: Callable[..., Ceilings], *how: object) -> Ceilings:
    return measured(*how)


@pytest.fixture(autouse=True)
def _ceilings_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are the machine's, and take longer than all the rest here."""
    from datbench.profile import profile

    measured = profile.ceilings
    monkeypatch.setattr(profile, "ceilings", lambda *how: _once(measured, *how))


@pytest.fixture
def _net() -> None:
    Path("tiny_net.py").write_text(NET)


def test_the_answer_stands_on_top(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from datbench.profile import profile

    monkeypatch.setenv("COLUMNS", "100")
    ceilings = profile.ceilings
    # A busy machine's own may be so low that another sentence is the true one.
    monkeypatch.setattr(
        profile, "ceilings", lambda *how: replace(ceilings(*how), macs=1e15, bytes=1e15)
    )
    lines = run(*SMALL, "--notes").text.splitlines()
    assert max(map(len, lines)) <= 100
    assert lines[0].startswith("dat_t takes ")
    text = " ".join(" ".join(lines).split())
    assert "times what its work takes at machine peak" in text
    assert "32x32, batch 1, float32, eager attention, inference, on cpu, 1 thread." in text
    assert "operator calls of the forward, in order." in text
    assert "stages.2" in text
    assert "linear" in text


@pytest.mark.usefixtures("_net")
def test_json_has_every_group(run: Run) -> None:
    assert run(*TINY, "--mode", "step", "--channels-last", "--out", "p.json").text == ""
    (row,) = json.loads(Path("p.json").read_text())["rows"]
    for kind in ("md", "latex"):
        assert run("results", "show", "p.json", "--format", kind).text
    assert row["mode"] == "step"
    assert row["channels_last"] is True
    assert row["matching"] == "calls"
    assert row["matched"] == row["expected"] > 0
    assert row["timing"]["samples"]
    assert row["ceilings"]["macs"] > 0
    assert sum(group["part"]["share"] for group in row["groups"]) == pytest.approx(1)
    assert {group["phase"] for group in row["groups"]} == {"forward", "backward", "step"}
    assert all(group["stage"] for group in row["groups"])


@pytest.mark.usefixtures("_net")
def test_csv_is_one_breakdown(run: Run) -> None:
    assert "more operators" in run(*TINY, "--top", "2").text
    rows = run(*TINY, "--by", "module", "--depth", "1", "--format", "csv").lines
    assert {"0", "1", "2", "3"} == {row["module"] for row in rows}
    assert sum(float(row["share"]) for row in rows) == pytest.approx(1)
    assert rows[0].keys() >= {"calls", "macs", "bytes", "ideal", "gap", "bound", "intensity"}


def test_a_trace_is_written_whole(run: Run, tmp_path: Path) -> None:
    assert "linear" in run(*SMALL, "--trace", "run.json.gz").text
    assert [path.name for path in tmp_path.iterdir()] == ["run.json.gz"]
    found = json.loads(gzip.decompress((tmp_path / "run.json.gz").read_bytes()))
    names = {event.get("name") for event in found["traceEvents"]}
    assert {"stages.2.blocks.1.mixer (DeformableAttention)", "aten::linear"} <= names


def test_one_file_by_two_names(run: Run, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("kept")
    (tmp_path / "soft.json").symlink_to("x.json")
    (tmp_path / "hard.json").hardlink_to(tmp_path / "x.json")
    for other in ("soft.json", "hard.json"):
        line = run(*SMALL, "--trace", other, "--out", "x.json").complaint(2)
        assert f"--out x.json and --trace {other} are one file" in line
    assert (tmp_path / "x.json").read_text() == "kept"


def test_a_model_that_does_not_run_leaves_nothing(run: Run, tmp_path: Path) -> None:
    arguments = ("profile", "torch.nn:Flatten", "--res", "32", "--budget", "0.1")
    line = run(*arguments, "--mode", "step", "--trace", "t.json", "--out", "p.json").complaint(5)
    assert "no parameter of the model has a gradient" in line
    assert not list(tmp_path.iterdir())


def test_a_batch_that_no_memory_holds(run: Run) -> None:
    line = run("profile", "dat_t", "--batch", "1000000", "--res", "1280x800").complaint(5)
    assert "dat_t at 1280x800, batch 1000000 on cpu: out of memory" in line
    assert "profile a smaller batch" in line


def test_ctrl_c_ends_it_quietly(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from datbench.profile import profile

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(profile, "observe", interrupted)
    assert run(*SMALL, "--trace", "t.json", "--out", "p.json").complaint(130) == "interrupted."
    assert not list(tmp_path.iterdir())
