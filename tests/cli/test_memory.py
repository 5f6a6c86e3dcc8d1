"""`datbench memory` as a user meets it."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from datbench.memory.records import CpuPeak
from datbench.memory.simulation import memory_row
from datbench.memory.view import many_models, tables
from datbench.models.resolve import resolve
from datbench.setting import Resolution, Setting

from .runner import Run


def _line(text: str, start: str) -> str:
    """The line that starts so, with single blanks."""
    return next(" ".join(x.split()) for x in text.splitlines() if x.startswith(start))


def test_one_model_has_a_ledger(run: Run) -> None:
    text = run("memory", "dat_t", "--batch", "64").text
    assert text.startswith("dat_t: peak 7.2 GiB, 7.1 GiB saved for backward (224x224, batch 64, ")
    assert "attention, forward)" in text.splitlines()[0]
    assert _line(text, "saved for backward") == "saved for backward 7.1 GiB 7.1 GiB 97.9 %"
    assert "gradients: no backward was run; optimizer state: no optimizer's step was made." in text
    assert "The peak is in the forward: addmm in head.linear." in text
    assert "The largest that are saved for backward" in text
    assert "stages.0  clone" in text


def test_inference_keeps_nothing(run: Run) -> None:
    text = run("memory", "dat_t", "--mode", "inference").text
    assert _line(text, "saved for backward") == "saved for backward - - -"
    assert "gradients are not recorded in inference" in text
    assert "The largest that are alive at the peak" in text


def test_json_gives_a_reason_and_never_a_false_zero(run: Run) -> None:
    (row,) = run("memory", "dat_t", "--mode", "inference", "--format", "json").rows
    lines = {line["category"]: line for line in row["lines"]}
    assert lines["kept"]["amount"] is None
    assert lines["kept"]["at_peak"] is None
    assert lines["kept"]["reason"]
    assert lines["parameters"]["amount"] == 113_276_552
    assert lines["inputs"]["amount"] == 4 * 3 * 224 * 224
    assert row["peak"]["amount"] == sum(line["at_peak"] or 0 for line in row["lines"])
    assert row["mode"] == "inference"
    assert row["setting"]["backward"] is False
    assert row["measured"] is None


def test_training_has_gradients(run: Run) -> None:
    arguments = ("memory", "dat_t", "--mode", "backward", "--format", "json")
    (row,) = run(*arguments).rows
    lines = {line["category"]: line["amount"] for line in row["lines"]}
    assert lines["gradients"] == lines["parameters"] == 113_276_552
    assert row["peak"]["phase"] == "backward"
    assert row["setting"]["backward"] is True


def test_settings_are_rows_of_one_table(run: Run) -> None:
    arguments = ("memory", "dat_t", "dat_s", "--res", "64", "--res", "96x64", "--batch", "1")
    arguments += ("--batch", "2", "--mode", "backward", "--format", "csv")
    rows = run(*arguments).lines
    assert [(r["model"], r["resolution"], r["batch"]) for r in rows] == [
        (model, size, batch)
        for model in ("dat_t", "dat_s")
        for size in ("64x64", "96x64")
        for batch in ("1", "2")
    ]
    for row in rows:
        assert int(row["peak"]) > int(row["at_end"]) > int(row["parameters"]) > 0
        assert row["peak_phase"] == "backward"
        assert row["measured_peak"] == row["difference"] == ""


def test_a_table_says_what_the_rows_share(run: Run) -> None:
    text = run("memory", "dat_t", "dat_s", "--res", "64", "--dtype", "bfloat16").text
    first, heading, *_ = text.splitlines()
    assert first == "Memory in bytes; 64x64, batch 1, bfloat16, eager attention, forward"
    assert "batch" not in heading
    assert "gradients" not in heading


def test_breakdowns(run: Run) -> None:
    text = run("memory", "dat_t", "--res", "64", "--by", "stage,operator").text
    assert "By the stage that made it" in text
    assert "By the operator that made it" in text
    arguments = ("memory", "dat_t", "--res", "64", "--by", "module", "--format", "csv")
    rows = run(*arguments).lines
    assert {"stem.0", "stages.2.blocks.1.mixer"} <= {row["module"] for row in rows}
    kept = [int(row["kept"]) for row in rows]
    assert kept == sorted(kept, reverse=True)


def test_features_and_formats(run: Run, tmp_path: Path) -> None:
    arguments = ("memory", "dat_b", "--res", "1280x800", "--features")
    assert "four feature maps, no head" in " ".join(run(*arguments).text.split())
    for suffix, words in (
        ("md", "| saved for backward"),
        ("tex", "\\toprule"),
        ("json", '"memory"'),
    ):
        path = tmp_path / f"ledger.{suffix}"
        assert run("memory", "dat_t", "--res", "64", "--out", str(path)).text == ""
        assert words in path.read_text(encoding="utf-8")
    assert json.loads(path.read_text(encoding="utf-8"))["kind"] == "memory"


def test_any_model_that_can_be_built(run: Run, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "net_for_memory.py").write_text(
        "from torch import nn\n"
        "def net():\n"
        "    return nn.Sequential(nn.Conv2d(3, 8, 4, 4), nn.BatchNorm2d(8), nn.ReLU())\n"
        "def nothing():\n"
        "    return nn.Identity()\n",
        encoding="utf-8",
    )
    text = run("memory", "net_for_memory:net", "--res", "64", "--mode", "backward").text
    assert text.startswith("net_for_memory:net: peak")
    assert "no gradient" in run("memory", "net_for_memory:nothing").complaint(5)
    text = run("memory", "net_for_memory:nothing", "--mode", "inference").text
    assert "Nothing was made." in text


def test_verify_puts_the_cpu_beside_it(run: Run) -> None:
    arguments = ("memory", "dat_t", "--res", "64", "--batch", "2", "--mode", "backward", "--verify")
    (row,) = run(*arguments, "--format", "json").rows
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


def test_verify_of_a_run_that_fails(run: Run, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "net_of_meta.py").write_text(
        "from torch import nn\n"
        "class Net(nn.Conv2d):\n"
        "    def forward(self, x):\n"
        "        if not x.is_meta:\n"
        "            raise RuntimeError('no values, please')\n"
        "        return super().forward(x)\n"
        "def net():\n"
        "    return Net(3, 4, 3)\n",
        encoding="utf-8",
    )
    line = run("memory", "net_of_meta:net", "--verify").complaint(5)
    assert line.startswith("net_of_meta:net: the run on the CPU failed: ")
    assert "no values, please" in line


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "name a model"),
        (("dat_q",), "did you mean"),
        (("dat_t", "--batch", "0"), "--batch '0': write a number from 1"),
        (("dat_t", "--batch", "1,-3"), "--batch '-3': write a number from 1"),
        (("dat_t", "--batch", "many"), "--batch"),
        (("dat_t", "--mode", "train-forward"), "the mode train-forward is now called forward"),
        (("dat_t", "--mode", "xyz"), "choose one of inference, forward, backward, step"),
        (("dat_t", "--mode", "backward", "--optimizer", "sgd"), "use the mode step"),
        (("dat_t", "--optimizer", "adamw"), "forward makes no optimizer's step"),
        (("dat_t", "--mode", "step", "--optimizer", "adam"), "did you mean adamw"),
        (("dat_t", "--dtype", "amp-int8"), "unknown dtype 'amp-int8'"),
        (("dat_t", "--autocast", "float16"), "--autocast is now --dtype amp-bfloat16"),
        (
            ("dat_t", "--dtype", "amp-half", "--verify"),
            "leave one of --verify and --dtype",
        ),
        (
            ("dat_t", "--checkpointing", "layer"),
            "unknown checkpointing 'layer'; choose one of block",
        ),
        (("dat_t", "--mode", "inference", "--checkpointing", "block"), "inference keeps nothing"),
        (("dat_t", "--attention", "flash"), "choose one of eager, sdpa"),
        (("dat_t", "--dtype", "int8"), "choose one of float32"),
        (("dat_t", "--res", "12y0"), "is not understood"),
        (("dat_t", "--by", "layer"), "choose one of stage, module, operator"),
        (("dat_t", "dat_s", "--by", "stage"), "name only one"),
        (("dat_t", "--by", "stage,module", "--format", "csv"), "a CSV file holds one table"),
        (("measure", "dat_t", "--device", "cuda:99"), "device 'cuda:99' is not available here"),
    ],
)
def test_bad_input(run: Run, arguments: tuple[str, ...], words: str) -> None:
    assert words in run("memory", *arguments).complaint(2)


# With an optimizer, autocast and checkpointing.


def test_a_full_step(run: Run) -> None:
    arguments = ("memory", "dat_t", "--mode", "step", "--batch", "8")
    text = run(*arguments).text
    assert text.startswith("dat_t: peak 1.2 GiB, 904.2 MiB saved for backward (224x224, batch 8, ")
    assert "step, adamw)" in text.splitlines()[0]
    assert _line(text, "optimizer state") == "optimizer state 216.1 MiB 216.1 MiB 17.1 %"
    assert "The peak is in the optimizer's step: _foreach_sqrt in (model)." in (
        run("memory", "dat_t", "--mode", "step").text
    )
    (row,) = run(*arguments, "--optimizer", "sgd", "--format", "json").rows
    lines = {line["category"]: line for line in row["lines"]}
    assert lines["optimizer"]["amount"] is lines["optimizer"]["at_peak"] is None
    assert lines["optimizer"]["reason"] == "SGD without momentum keeps none"
    assert row["recipe"] == {"optimizer": "sgd", "autocast": None, "checkpointing": None}
    assert row["setting"]["backward"] is True


def test_no_step_no_state(run: Run) -> None:
    (row,) = run("memory", "dat_t", "--res", "64", "--mode", "backward", "--format", "json").rows
    (line,) = [line for line in row["lines"] if line["category"] == "optimizer"]
    assert (line["amount"], line["reason"]) == (None, "no optimizer's step was made")
    assert row["recipe"]["optimizer"] is None


def test_autocast_and_checkpointing(run: Run) -> None:
    arguments = ("memory", "dat_t", "--batch", "8", "--mode", "backward")
    found = {}
    for extra in ((), ("--dtype", "amp-bf16"), ("--checkpointing", "block")):
        (row,) = run(*arguments, *extra, "--format", "json").rows
        found[extra] = {line["category"]: line["amount"] for line in row["lines"]}
    plain, cast, saving = found.values()
    assert 0.5 < cast["kept"] / plain["kept"] < 0.85
    assert saving["kept"] < plain["kept"] / 8
    assert plain["gradients"] == cast["gradients"] == saving["gradients"]
    both = ("--dtype", "amp-fp16", "--checkpointing", "block")
    title = " ".join(run(*arguments, *both).text.split("(", 1)[1].split(")", 1)[0].split())
    assert title == (
        "224x224, batch 8, float32, autocast to float16, eager attention, backward, "
        "block checkpointing"
    )


def test_a_recipe_is_in_every_csv_row(run: Run) -> None:
    arguments = ("memory", "dat_t", "dat_s", "--res", "64", "--mode", "step", "--dtype")
    rows = run(*arguments, "amp-bfloat16", "--format", "csv").lines
    assert [row["optimizer"] for row in rows] == ["adamw"] * 2
    assert [row["autocast"] for row in rows] == ["bfloat16"] * 2
    assert [row["checkpointing"] for row in rows] == [""] * 2
    assert all(int(row["optimizer_state"]) > 2 * int(row["parameters"]) for row in rows)


def test_models_that_cannot_be_checkpointed(run: Run, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "net_without_blocks.py").write_text(
        "from torch import nn\ndef net():\n    return nn.Conv2d(3, 8, 4, 4)\n", encoding="utf-8"
    )
    arguments = ("memory", "net_without_blocks:net", "--res", "64", "--checkpointing", "block")
    assert "Conv2d cannot be checkpointed" in run(*arguments).complaint(2)


# What there is besides the ledger.


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
    text = run("memory", "dat_t", "--batch", "1,2").text
    assert "dat_t, 224x224, batch 2  expandable" in text


def test_largest_batch(run: Run) -> None:
    (row,) = run(*"memory largest dat_t --res 64 --memory 2GiB --format json".split()).rows
    assert row["batch"] > 10
    assert row["reserved"] <= 2 * 2**30 - 500 * 2**20 < row["reserved_next"]
    words = "memory largest dat_t --res 64 --memory 2GiB,context=1MiB --format json"
    (more,) = run(*words.split()).rows
    assert more["batch"] > row["batch"]
    assert "500.0 MiB are taken for the CUDA context" in row["assumption"]


def test_largest_batch_of_a_named_gpu(run: Run) -> None:
    text = run(*"memory largest dat_t --res 64 --mode inference --memory v100-16gb".split()).text
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
    line = run("memory", "fails_in_memory:Net", "--mode", "backward").complaint(5)
    assert "ValueError: no way back" in line


def test_nothing_fits(run: Run) -> None:
    text = run(*"memory largest dat_t --memory 600MiB --mode backward".split()).text
    assert " 0 " in text
    assert "one image needs" in text


def test_measured_on_the_cpu(run: Run) -> None:
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


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--memory", "big"), "unknown GPU 'big'"),
        (("--memory", "16"), "--memory '16' is not understood; write an amount such as 16GiB"),
        (("--memory", "a100-40"), "did you mean a100-40gb"),
        (("--memory", "8GiB,context=x"), "context 'x' is not understood"),
        ((), "say what it has to fit into, such as --memory 16GiB"),
        (("--memory", "-5GiB"), "--memory '-5GiB' is not understood"),
        (("--memory", "0GiB"), "write an amount above 0"),
        (("--memory", "400MiB"), "the context takes 500.0 MiB and leaves nothing of 400.0 MiB"),
        (("--memory", "8GiB", "--batch", "3"), "No such option: --batch"),
        (("--memory", "8GiB", "--device", "cuda:99"), "is not available here"),
        (("--memory", "8GiB", "--device", "cpu"), "is confirmed on cuda, not on cpu"),
    ],
)
def test_bad_input_of_the_largest_batch(run: Run, arguments: tuple[str, ...], words: str) -> None:
    assert words in run("memory", "largest", "dat_t", "--res", "64", *arguments).complaint(2)
