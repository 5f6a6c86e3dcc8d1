"""`datbench memory` as a user meets it."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from datbench.memory import device
from datbench.memory.records import CpuPeak
from datbench.memory.simulation import memory_row
from datbench.memory.view import many_models, tables
from datbench.models.resolve import resolve
from datbench.setting import Resolution, Setting
from tests.processes import asked_here

from .runner import Run, unwrapped

NETS = """
import torch
from torch import nn

def net():
    return nn.Sequential(nn.Conv2d(3, 8, 4, 4), nn.BatchNorm2d(8), nn.ReLU())

def wider():
    return nn.Sequential(nn.Conv2d(3, 16, 4, 4), nn.ReLU())

def nothing():
    return nn.Identity()

class NoWayBack(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, grad):
        raise ValueError("no way back")

class Fails(nn.Conv2d):
    def __init__(self):
        super().__init__(3, 8, 3)

    def forward(self, x):
        return NoWayBack.apply(super().forward(x))

class OnlyMeta(Fails):
    def forward(self, x):
        if not x.is_meta:
            raise RuntimeError("no values, please")
        return nn.Conv2d.forward(self, x)
"""


@pytest.fixture
def nets() -> None:
    Path("nets_for_memory.py").write_text(NETS, encoding="utf-8")


def _line(text: str, start: str) -> str:
    """The line that starts so, with single blanks."""
    return next(unwrapped(x) for x in text.splitlines() if x.startswith(start))


def _row(run: Run, *words: str) -> dict[str, Any]:
    """The one row of the result, with its ledger's lines by category."""
    (row,) = run("memory", "dat_t", *words, "--format", "json").rows
    return {**row, "ledger": {line["category"]: line for line in row["lines"]}}


def test_one_model_has_a_ledger_and_the_allocator_below_it(run: Run) -> None:
    text = run("memory", "dat_t", "--batch", "64").text
    assert text.startswith("dat_t: peak 7.2 GiB, 7.1 GiB saved for backward (224x224, batch 64, ")
    assert "attention, forward)" in text.splitlines()[0]
    assert _line(text, "saved for backward") == "saved for backward 7.1 GiB 7.1 GiB 97.9 %"
    assert "gradients: no backward was run; optimizer state: no optimizer's step was made." in text
    assert "The peak is in the forward: addmm in head.linear." in text
    assert "The largest that are saved for backward" in text
    assert "stages.0  clone" in text
    assert "What the allocator would reserve" in text
    assert "Context and libraries: measured on a GPU only" in text
    row = _row(run, "--res", "64")
    plain, expandable = row["allocator"]
    assert (plain["expandable"], expandable["expandable"]) == (False, True)
    for replay in row["allocator"]:
        assert replay["requested_peak"] == row["peak"]["amount"]
        assert replay["requested_peak"] <= replay["allocated_peak"] <= replay["reserved_peak"]
    assert row["context"]["amount"] is None
    assert "--device cuda" in row["context"]["reason"]


def test_inference_gives_reasons_and_never_a_false_zero(run: Run) -> None:
    text = run("memory", "dat_t", "--res", "64", "--mode", "inference").text
    assert _line(text, "saved for backward") == "saved for backward - - -"
    assert "gradients are not recorded in inference" in text
    assert "The largest that are alive at the peak" in text
    row = _row(run, "--res", "64", "--mode", "inference")
    kept = row["ledger"]["kept"]
    assert kept["amount"] is kept["at_peak"] is None
    assert kept["reason"]
    assert row["ledger"]["parameters"]["amount"] == 113_276_552
    assert row["ledger"]["inputs"]["amount"] == 4 * 3 * 64 * 64
    assert row["peak"]["amount"] == sum(line["at_peak"] or 0 for line in row["lines"])
    assert (row["mode"], row["setting"]["backward"], row["measured"]) == ("inference", False, None)


def test_training_has_gradients_and_no_state_without_a_step(run: Run) -> None:
    row = _row(run, "--res", "64", "--mode", "backward")
    gradients, state = row["ledger"]["gradients"], row["ledger"]["optimizer"]
    assert gradients["amount"] == row["ledger"]["parameters"]["amount"] == 113_276_552
    assert (state["amount"], state["reason"]) == (None, "no optimizer's step was made")
    assert row["recipe"]["optimizer"] is None
    assert (row["peak"]["phase"], row["setting"]["backward"]) == ("backward", True)


@pytest.mark.usefixtures("nets")
def test_settings_are_rows_of_one_table(run: Run) -> None:
    models = ("nets_for_memory:net", "nets_for_memory:wider")
    arguments = ("memory", *models, "--res", "32", "--res", "64x32", "--batch", "1", "--batch", "2")
    rows = run(*arguments, "--mode", "step", "--dtype", "amp-bfloat16", "--format", "csv").lines
    assert [(r["model"], r["resolution"], r["batch"]) for r in rows] == [
        (model, size, batch) for model in models for size in ("32x32", "64x32") for batch in "12"
    ]
    for row in rows:
        assert int(row["peak"]) > int(row["at_end"]) > int(row["parameters"]) > 0
        assert row["measured_peak"] == row["difference"] == ""
        recipe = row["optimizer"], row["autocast"], row["checkpointing"]
        assert recipe == ("adamw", "bfloat16", "")  # in every row
        assert int(row["optimizer_state"]) > 2 * int(row["parameters"])
    text = run("memory", "dat_t", "dat_s", "--res", "64", "--dtype", "bfloat16").text
    first, heading, *_ = text.splitlines()
    assert first == "Memory in bytes; 64x64, batch 1, bfloat16, eager attention, forward"
    assert "batch" not in heading  # what all rows share
    assert "gradients" not in heading
    text = run("memory", models[0], "--res", "64", "--batch", "1,2").text
    assert "net, 64x64, batch 2  expandable" in text


def test_breakdowns_and_formats(run: Run) -> None:
    small = ("memory", "dat_t", "--res", "64")
    text = run(*small, "--by", "stage,operator").text
    assert "By the stage that made it" in text
    assert "By the operator that made it" in text
    rows = run(*small, "--by", "module", "--format", "csv").lines
    assert {"stem.0", "stages.2.blocks.1.mixer"} <= {row["module"] for row in rows}
    kept = [int(row["kept"]) for row in rows]
    assert kept == sorted(kept, reverse=True)
    assert "four feature maps, no head" in unwrapped(run(*small, "--features").text)
    for suffix, words in (("md", "| saved for backward"), ("tex", "\\toprule")):
        path = Path(f"ledger.{suffix}")
        assert run(*small, "--out", str(path)).text == ""
        assert words in path.read_text(encoding="utf-8")


@pytest.mark.usefixtures("nets")
def test_any_model_that_can_be_built(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be simulated or verified is said in one line."""
    small = ("--res", "64", "--mode", "backward")
    text = run("memory", "nets_for_memory:net", *small).text
    assert text.startswith("nets_for_memory:net: peak")
    assert "no gradient" in run("memory", "nets_for_memory:nothing").complaint(5)
    text = run("memory", "nets_for_memory:nothing", "--mode", "inference").text
    assert "Nothing was made." in text
    fails = ("memory", "nets_for_memory:Fails", "--res", "64")
    assert "ValueError: no way back" in run(*fails, "--mode", "backward").complaint(5)
    refused = run(*fails, "--checkpointing", "block").complaint()
    assert "Fails cannot be checkpointed" in refused
    monkeypatch.setattr(device, "ask", asked_here)
    line = run("memory", "nets_for_memory:OnlyMeta", "--verify").complaint(5)
    assert line.startswith("nets_for_memory:OnlyMeta: the run on the CPU failed: ")
    assert "no values, please" in line


def test_verify_puts_the_cpu_beside_it(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "ask", asked_here)
    row = _row(run, "--res", "64", "--batch", "2", "--mode", "backward", "--verify")
    measured = row["measured"]
    assert measured["peak"] == pytest.approx(row["peak"]["amount"], rel=0.02)
    assert measured["at_end"] == pytest.approx(row["at_end"], rel=1e-3)
    assert measured["difference"] == row["peak"]["amount"] / measured["peak"] - 1
    assert abs(measured["difference"]) < 0.02


def test_verify_in_words() -> None:
    row = memory_row(resolve("dat_t"), Setting(Resolution(64, 64)), "forward")
    measured = CpuPeak(row.peak.amount, row.at_end, "aten::linear", -1e-9)
    verified = replace(row, measured=measured)
    (ledger, _) = tables([verified])
    assert ledger.rows[-1] == ("measured on the CPU", row.at_end, row.peak.amount, 1.0)
    assert (
        "The simulated peak differs by +0.00 % from the CPU's, which is in linear." in ledger.notes
    )
    table = many_models([verified, row])
    columns = [column.name for column in table.visible()]
    assert {"measured_peak", "difference"} <= set(columns)
    assert [line[columns.index("difference")] for line in table.shown()] == ["+0.00 %", "-"]


def test_a_full_step(run: Run) -> None:
    text = run("memory", "dat_t", "--mode", "step", "--batch", "8").text
    assert text.startswith("dat_t: peak 1.2 GiB, 904.2 MiB saved for backward (224x224, batch 8, ")
    assert "step, adamw)" in text.splitlines()[0]
    assert _line(text, "optimizer state") == "optimizer state 216.1 MiB 216.1 MiB 17.1 %"
    small = ("--mode", "step", "--res", "64")
    assert "The peak is in the optimizer's step: _foreach_sqrt in (model)." in (
        run("memory", "dat_t", *small).text
    )
    row = _row(run, *small, "--optimizer", "sgd")
    state = row["ledger"]["optimizer"]
    assert state["amount"] is state["at_peak"] is None
    assert state["reason"] == "SGD without momentum keeps none"
    assert row["recipe"] == {"optimizer": "sgd", "autocast": None, "checkpointing": None}
    assert row["setting"]["backward"] is True


def test_autocast_and_checkpointing(run: Run) -> None:
    arguments = ("--batch", "8", "--mode", "backward")
    plain, cast, saving = (
        {
            category: line["amount"]
            for category, line in _row(run, *arguments, *more)["ledger"].items()
        }
        for more in ((), ("--dtype", "amp-bf16"), ("--checkpointing", "block"))
    )
    assert 0.5 < cast["kept"] / plain["kept"] < 0.85
    assert saving["kept"] < plain["kept"] / 8
    assert plain["gradients"] == cast["gradients"] == saving["gradients"]
    both = ("--dtype", "amp-fp16", "--checkpointing", "block", "--res", "64")
    title = unwrapped(run("memory", "dat_t", *arguments, *both).text.split("(", 1)[1].split(")")[0])
    assert title == (
        "64x64, batch 8, float32, autocast to float16, eager attention, backward, "
        "block checkpointing"
    )


@pytest.mark.usefixtures("nets")
def test_the_largest_batch(run: Run) -> None:
    words = ("memory", "largest", "nets_for_memory:net", "--res", "64", "--memory")
    row, more = (
        run(*words, amount, "--format", "json").rows[0] for amount in ("2GiB", "2GiB,context=1MiB")
    )
    assert row["batch"] > 10
    assert row["reserved"] <= 2 * 2**30 - 500 * 2**20 < row["reserved_next"]
    assert more["batch"] > row["batch"]
    assert "500.0 MiB are taken for the CUDA context" in row["assumption"]
    text = run(*words, "v100-16gb").text
    assert "v100-16gb  15.7 GiB" in text
    text = run(*"memory largest dat_t --memory 600MiB --mode backward".split()).text
    assert " 0 " in text
    assert "one image needs" in text


def test_measured_on_the_cpu(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process; tests/memory/test_gpu.py asks another one."""
    monkeypatch.setattr(device, "ask", asked_here)
    arguments = ("memory", "measure", "dat_t", "--res", "64", "--batch", "2", "--device", "cpu")
    assert run(*arguments, "--verify", "--out", "m.json").text == ""
    (row,) = json.loads(Path("m.json").read_text())["rows"]
    text = run("results", "show", "m.json").text
    assert "allocated by the run" in text
    assert "Peak of tensors: simulated beside measured" in text
    assert row["simulated_peak"] == pytest.approx(row["peaks"]["requested"], rel=0.05)
    assert row["outcome"] == "measured"
    assert row["peaks"]["process"] > row["peaks"]["allocated"] > 113_276_552
    json.dumps(row, allow_nan=False)
