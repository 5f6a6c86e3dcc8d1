"""What `datbench memory` has besides the ledger."""

import json
import pickle
import sys
from pathlib import Path

import pytest

from .runner import Run


def test_the_allocator_stands_below_the_ledger(run: Run) -> None:
    text = run("memory", "dat_t", "--batch", "8").text
    assert "What the allocator would reserve" in text
    assert "Context and libraries: measured on a GPU only" in text
    (row,) = run("memory", "dat_t", "--batch", "8", "--format", "json").rows
    plain, expandable = row["allocator"]
    assert (plain["expandable"], expandable["expandable"]) == (False, True)
    for replay in row["allocator"]:
        assert replay["requested_peak"] == row["peak"]["amount"]
        assert replay["requested_peak"] <= replay["allocated_peak"] <= replay["reserved_peak"]
    assert row["context"]["amount"] is None
    assert "--device cuda" in row["context"]["reason"]


def test_several_runs_have_their_names(run: Run) -> None:
    text = run("memory", "dat_t", "--batch", "1", "--batch", "2").text
    assert "dat_t, 224x224, batch 2  expandable" in text


def test_largest_batch(run: Run) -> None:
    (row,) = run("memory", "dat_t", "--res", "64", "--largest", "2GiB", "--format", "json").rows
    assert row["batch"] > 10
    assert row["reserved"] <= 2 * 2**30 - 500 * 2**20 < row["reserved_next"]
    (more,) = run(
        "memory",
        "dat_t",
        "--res",
        "64",
        "--largest",
        "2GiB",
        "--context",
        "1MiB",
        "--format",
        "json",
    ).rows
    assert more["batch"] > row["batch"]
    assert "500.0 MiB are taken for the CUDA context" in row["assumption"]


def test_largest_batch_of_a_named_gpu(run: Run) -> None:
    text = run(
        "memory", "dat_t", "--res", "64", "--mode", "inference", "--largest", "v100-16gb"
    ).text
    assert "v100-16gb  15.7 GiB" in text


FAILING = """
import torch
from torch import nn

class Fails(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, grad):
        raise ValueError("no way back")

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)

    def forward(self, x):
        return Fails.apply(self.conv(x))

class Reads(Net):
    def forward(self, x):
        return self.conv(x) * x.sum().item()
"""


def test_what_others_code_raises_is_one_line(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    (tmp_path / "fails_in_memory.py").write_text(FAILING)
    for name, words in (("Net", "ValueError: no way back"), ("Reads", "use --device cpu")):
        line = run("memory", f"fails_in_memory:{name}", "--mode", "train").complaint(5)
        assert words in line


def test_nothing_fits(run: Run) -> None:
    text = run("memory", "dat_t", "--largest", "600MiB", "--mode", "train").text
    assert " 0 " in text
    assert "one image needs" in text


def test_timelines(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "90")
    text = run("memory", "dat_t", "--res", "64", "--mode", "train", "--timeline").text
    assert text.startswith("dat_t: memory over the run (train, batch 1)")
    assert "kept" in text
    assert "aten::convolution_backward in stages." in text
    assert max(map(len, text.splitlines())) <= 90
    assert (
        "dat_t: peak" in run("memory", "dat_t", "--res", "64", "--timeline-out", "run.pickle").text
    )
    snapshot = pickle.loads((tmp_path / "run.pickle").read_bytes())
    assert {"segments", "device_traces"} <= set(snapshot)
    assert len(snapshot["device_traces"][0]) > 100


def test_a_timeline_as_a_plot(run: Run, tmp_path: Path) -> None:
    pytest.importorskip("vl_convert", reason="needs datbench[plots]")
    text = run("memory", "dat_t", "--res", "64", "--timeline-out", "run.svg").text
    assert "dat_t: peak" in text  # the ledger as ever
    assert b"dat_t: memory over the run" in (tmp_path / "run.svg").read_bytes()


def test_measured_on_the_cpu(run: Run) -> None:
    arguments = ("memory", "dat_t", "--res", "64", "--batch", "2", "--device", "cpu")
    text = run(*arguments, "--verify").text
    assert "allocated by the run" in text
    assert "Peak of tensors: simulated beside measured" in text
    (verified,) = run(*arguments, "--verify", "--format", "json").rows
    assert verified["simulated_peak"] == pytest.approx(verified["peaks"]["requested"], rel=0.05)
    (row,) = run(*arguments, "--format", "json").rows
    assert row["outcome"] == "measured"
    assert row["peaks"]["process"] > row["peaks"]["allocated"] > 113_276_552
    json.dumps(row, allow_nan=False)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--largest", "big"), "unknown GPU 'big'"),
        (("--largest", "16"), "--largest '16' is not understood; write an amount such as 16GiB"),
        (("--largest", "a100-40"), "did you mean a100-40gb"),
        (("--largest", "8GiB", "--context", "x"), "--context 'x' is not understood"),
        (("--context", "1GiB"), "--context is a part of --largest"),
        (("--largest", "-5GiB"), "--largest '-5GiB' is not understood"),
        (("--largest", "0GiB"), "write an amount above 0"),
        (("--largest", "400MiB"), "the context takes 500.0 MiB and leaves nothing of 400.0 MiB"),
        (("--largest", "8GiB", "--batch", "3"), "leave out --batch"),
        (("--largest", "8GiB", "--device", "cuda:99"), "is not available here"),
        (("--timeline", "--by", "stage"), "leave out --by, --verify, --out"),
        (("--largest", "8GiB", "--verify"), "--by and --verify are of a ledger"),
        (("--largest", "8GiB", "--device", "cpu"), "is confirmed on cuda, not on cpu"),
        (("--timeline-out", "run.txt"), "--timeline-out run.txt: write .png, .svg, .pickle"),
        (("--timeline-out", "no/run.svg"), "--timeline-out no/run.svg: there is no directory"),
        (("--timeline", "--batch", "1", "--batch", "2"), "--timeline draws one run"),
        (("--timeline", "--format", "json"), "--timeline draws in the terminal"),
        (("--timeline", "--device", "cpu"), "leave out --largest and --device"),
    ],
)
def test_bad_input(run: Run, arguments: tuple[str, ...], words: str) -> None:
    assert words in run("memory", "dat_t", "--res", "64", *arguments).complaint(2)
