"""`datbench memory` as a user meets it."""

import csv
import io
import json
from dataclasses import replace
from pathlib import Path

import pytest

from datbench.memory.records import CpuPeak
from datbench.memory.simulate import memory_row
from datbench.memory.view import many_models, tables
from datbench.models.resolve import resolve
from datbench.setting import Resolution, Setting

from .runner import Run


def _line(text: str, start: str) -> str:
    """The line that starts so, with single blanks."""
    return next(" ".join(x.split()) for x in text.splitlines() if x.startswith(start))


def test_one_model_has_a_ledger(run: Run) -> None:
    text = run("memory", "dat_t", "--batch", "64").text
    assert text.startswith("dat_t: peak 7.2 GiB, 7.1 GiB kept for backward (224x224, batch 64, ")
    assert "attention, train-forward)" in text.splitlines()[0]
    assert _line(text, "kept for backward") == "kept for backward 7.1 GiB 7.1 GiB 97.9 %"
    assert "gradients: no backward was run; optimizer state: no optimizer's step was made." in text
    assert "The peak is in the forward: addmm in head.linear." in text
    assert "The largest that are kept for backward" in text
    assert "stages.0  clone" in text


def test_inference_keeps_nothing(run: Run) -> None:
    text = run("memory", "dat_t", "--mode", "inference").text
    assert _line(text, "kept for backward") == "kept for backward - - -"
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
    arguments = ("memory", "dat_t", "--mode", "train", "--format", "json")
    (row,) = run(*arguments).rows
    lines = {line["category"]: line["amount"] for line in row["lines"]}
    assert lines["gradients"] == lines["parameters"] == 113_276_552
    assert row["peak"]["phase"] == "backward"
    assert row["setting"]["backward"] is True


def test_settings_are_rows_of_one_table(run: Run) -> None:
    arguments = ("memory", "dat_t", "dat_s", "--res", "64", "--res", "96x64", "--batch", "1")
    arguments += ("--batch", "2", "--mode", "train", "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(run(*arguments).text)))
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
    assert first == "Memory in bytes; 64x64, batch 1, bfloat16, eager attention, train-forward"
    assert "batch" not in heading
    assert "gradients" not in heading


def test_breakdowns(run: Run) -> None:
    text = run("memory", "dat_t", "--res", "64", "--by", "stage,operator").text
    assert "By the stage that made it" in text
    assert "By the operator that made it" in text
    arguments = ("memory", "dat_t", "--res", "64", "--by", "module", "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(run(*arguments).text)))
    assert {"stem.0", "stages.2.blocks.1.mixer"} <= {row["module"] for row in rows}
    kept = [int(row["kept"]) for row in rows]
    assert kept == sorted(kept, reverse=True)


def test_features_and_formats(run: Run, tmp_path: Path) -> None:
    arguments = ("memory", "dat_b", "--res", "1280x800", "--features")
    assert "four feature maps, no head" in " ".join(run(*arguments).text.split())
    for suffix, words in (
        ("md", "| kept for backward"),
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
    text = run("memory", "net_for_memory:net", "--res", "64", "--mode", "train").text
    assert text.startswith("net_for_memory:net: peak")
    assert "no gradient" in run("memory", "net_for_memory:nothing").complaint(5)
    text = run("memory", "net_for_memory:nothing", "--mode", "inference").text
    assert "Nothing was made." in text


def test_verify_puts_the_cpu_beside_it(run: Run) -> None:
    arguments = ("memory", "dat_t", "--res", "64", "--batch", "2", "--mode", "train", "--verify")
    (row,) = run(*arguments, "--format", "json").rows
    measured = row["measured"]
    assert measured["peak"] == pytest.approx(row["peak"]["amount"], rel=0.02)
    assert measured["at_end"] == pytest.approx(row["at_end"], rel=1e-3)
    assert measured["difference"] == row["peak"]["amount"] / measured["peak"] - 1
    assert abs(measured["difference"]) < 0.02


def test_verify_in_words() -> None:
    row = memory_row(resolve("dat_t"), Setting(Resolution(64, 64)), "train-forward")
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
        (("dat_t", "--batch", "0"), "batch 0: write a number from 1"),
        (("dat_t", "--batch", "-3"), "batch -3: write a number from 1"),
        (("dat_t", "--batch", "many"), "--batch"),
        (("dat_t", "--mode", "forward"), "did you mean train-forward"),
        (("dat_t", "--mode", "xyz"), "choose one of inference, train-forward, train, step"),
        (("dat_t", "--mode", "train", "--optimizer", "sgd"), "use the mode step"),
        (("dat_t", "--optimizer", "adamw"), "train-forward makes no optimizer's step"),
        (("dat_t", "--mode", "step", "--optimizer", "adam"), "did you mean adamw"),
        (("dat_t", "--autocast", "int8"), "choose one of bfloat16, float16"),
        (("dat_t", "--autocast", "float16", "--dtype", "float16"), "leave out --dtype float16"),
        (("dat_t", "--autocast", "float16", "--verify"), "leave one of --verify and --autocast"),
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
        (("dat_t", "--device", "cuda:99"), "device 'cuda:99' is not available here"),
    ],
)
def test_bad_input(run: Run, arguments: tuple[str, ...], words: str) -> None:
    assert words in run("memory", *arguments).complaint(2)
