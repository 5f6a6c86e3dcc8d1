"""`datbench selftest`: every check is run, told and kept, whatever became of the others."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from datbench.errors import LibraryError
from datbench.selftest import checks
from datbench.selftest.records import NO_GPU, CheckRow

from .runner import Run


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """A check of each sort in place of the real ones."""

    def passes(device: str) -> Iterator[CheckRow]:
        yield CheckRow.of("counts", device, "dat_t", "MACs", 4_563_458_304, 4_563_458_304)

    def fails(device: str) -> Iterator[CheckRow]:
        yield CheckRow.of("memory", device, "dat_t", "bytes", 2**30, 2**31, 0.02)

    def raises(device: str) -> Iterator[CheckRow]:
        yield CheckRow.of("times", device, "a call", "s", 0.01, 0.011, 0.2)
        raise ValueError("no\nsuch thing")

    def lacks(device: str) -> Iterator[CheckRow]:
        raise LibraryError("timm is not installed; pip install timm.")
        yield

    four = {"counts": passes, "memory": fails, "times": raises, "profile": lacks}
    monkeypatch.setattr(checks, "CHECKS", four)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def test_every_check_is_run_and_told(run: Run, few: None, tmp_path: Path) -> None:
    file = tmp_path / "selftest.json"
    said = run("selftest", "--device", "cpu", "--out", str(file)).complaint(1)
    assert said == "2 of 9 checks failed; the first is memory, dat_t, on cpu."
    rows = json.loads(file.read_text())["rows"]
    assert [row["verdict"] for row in rows if row["device"] == "cpu"] == [
        *("passed", "failed", "passed", "failed", "not run"),
    ]
    assert {row["reason"] for row in rows if row["device"] == "cuda"} == {NO_GPU}
    assert "ValueError: no such thing" in {row["reason"] for row in rows}
    shown = " ".join(run("results", "show", str(file), "--format", "md").text.split())
    assert "| memory | dat_t | cpu | 1.0 GiB | 2.0 GiB | +1e+02 % | 2 % | failed |" in shown
    assert "| profile | all | cuda | - | - | - | - | not run: no CUDA device |" in shown
    plain = run("results", "convert", str(file), "--to", "csv").text
    assert "memory,dat_t,cpu,bytes,1073741824.0,2147483648.0,1.0,0.02,failed," in plain
    out = ("--plots", "none", "--out", str(tmp_path / "report"))
    run("report", "none", "--tables", "none", "--from", str(file), *out)
    assert "not run: no CUDA device" in (tmp_path / "report" / "report.md").read_text()


@pytest.mark.slow
def test_every_check_passes_on_a_cpu(run: Run) -> None:
    rows = run("selftest", "--device", "cpu", "--format", "json").rows
    assert {row["verdict"] for row in rows if row["device"] == "cpu"} == {"passed"}


@pytest.mark.gpu
def test_every_check_passes_on_a_gpu(run: Run) -> None:
    assert "passed" in run("selftest", "--device", "cuda").text
