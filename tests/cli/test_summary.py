"""`datbench summary`: one row a model, as a paper has it."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from datbench.memory.records import GpuPeaks, GpuRow
from datbench.models.view import display_name
from datbench.paper.accuracy import printed
from datbench.records import document, dumps
from datbench.setting import Resolution, Setting
from datbench.timing.records import ThroughputRow

from ..row_samples import sample
from .runner import Run

NAMES = {
    "dat_t_star": "DAT-T*",
    "datpp_b_384": "DAT-B++",
    "dat_t+mask_rcnn": "DAT-T Mask R-CNN",
    "timm:convnext_tiny": "ConvNeXt-T",
    "timm:convnextv2_base.fcmae_ft_in22k_in1k_384": "ConvNeXtV2-B",
    "timm:resnet50": "ResNet-50",
    "timm:vit_base_patch16_224.augreg": "ViT-B/16",
    "torchvision:densenet121": "DenseNet-121",
    "my.nets:EffNet": "EffNet",
}


@pytest.mark.parametrize(("model", "name"), NAMES.items())
def test_names_are_those_of_papers(model: str, name: str) -> None:
    assert display_name(model) == name


def test_names_of_the_papers_models_are_the_printed_ones() -> None:
    """NAT and CoaT write sizes out."""
    names = {each.model: each.name for each in printed() if each.model}
    others = {name: display_name(model) for model, name in names.items()}
    differ = {name for name, shown in others.items() if name != shown}
    assert all(name.startswith(("NAT-", "CoaT")) for name in differ)
    assert len(others) - len(differ) > 20


def test_a_row_has_what_the_papers_print(run: Run) -> None:
    """Table 2 of the DAT paper: 28M and 4.6G for DAT-T, 50M and 9.0G for DAT-S."""
    columns = "params:0,macs:1,top1"
    text = run("summary", "dat_t", "dat_s", "--columns", columns, "--format", "md").text
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()]
    assert ["DAT-T", "28", "4.6", "82.0"] in rows
    assert ["DAT-S", "50", "9.0", "83.7"] in rows
    head = next(row for row in rows if row and row[0] == "model")
    assert head == ["model", "params (M)", "GMACs", "top-1 (%)"]


def _times(path: str, **fields: object) -> str:
    settings = [Setting(Resolution(224, 224), batch, device="cuda") for batch in (1, 64)]
    row = sample(ThroughputRow)
    how = replace(row.how, mode="inference")
    rows = [
        replace(
            row,
            model="dat_t",
            setting=s,
            how=how,
            images_per_second=10.0 * s.batch,
            seconds=0.1,
            **fields,
        )
        for s in settings
    ]
    Path(path).write_text(dumps(document("throughput", rows, {"processor": "here"})))
    return path


def test_measured_columns_come_from_files(run: Run) -> None:
    times = _times("times.json")
    memory = replace(
        sample(GpuRow),
        model="dat_t",
        setting=Setting(Resolution(224, 224), 64, device="cuda"),
        mode="forward",
        peaks=replace(sample(GpuPeaks), allocated=3 * 2**30),
    )
    Path("memory.json").write_text(dumps(document("memory-measured", [memory], {})))
    (row,) = run("summary", "--from", times, "--from", "memory.json", "--format", "json").rows
    assert (row["model"], row["images_per_second"]) == ("dat_t", 640.0)  # the fastest batch
    assert row["measured_memory"] == 3 * 2**30
    assert "batch 64" in row["timed"]
    assert "here" in row["timed"]
    text = run(
        "summary", "dat_t", "dat_s", "--batch", "1", "--from", times, "--columns", "images/s:1"
    )
    assert "DAT-T      10.0" in text.text
    assert "DAT-S         -" in text.text
    other = run("summary", "dat_t", "--res", "384", "--from", times).complaint()
    assert "hold none of these models" in other


def test_times_of_two_machines_are_not_one_column(run: Run) -> None:
    one = json.loads(Path(_times("one.json")).read_text())
    one["environment"] = {"processor": "there"}
    one["rows"] = [{**row, "model": "dat_s"} for row in one["rows"]]
    Path("two.json").write_text(json.dumps(one))
    said = run("summary", "dat_t", "dat_s", "--from", _times("one.json"), "--from", "two.json")
    assert "several machines" in said.complaint()


OWN = """
[columns]
net = {}
acc = {quantity = "accuracy"}
flops = {quantity = "macs", unit = "G"}
[[rows]]
net = "Ours, tiny"
acc = "83.4"
flops = "4.6"
build = {model = "dat_t"}
[[rows]]
net = "Ours, dense"
build = {model = "dat_t", with = "retinanet", res = "128"}
[[rows]]
net = "Theirs"
acc = "84.0"
"""


@pytest.mark.parametrize("models", [["own.toml"], ["dat_t", "own.toml"]])
def test_a_table_of_ones_own_has_its_names_and_accuracies(run: Run, models: list[str]) -> None:
    Path("own.toml").write_text(OWN)
    ours, dense = run("summary", *models, "--format", "json").rows
    assert (ours["name"], ours["top1"], ours["macs"]) == ("Ours, tiny", 83.4, 4588941408)
    assert (dense["name"], dense["top1"]) == ("Ours, dense", None)
    assert (dense["model"], dense["setting"]["width"]) == ("dat_t+retinanet", 128)


def test_a_row_may_take_something_else_than_an_image(run: Run) -> None:
    Path("summary_ids.py").write_text(
        "from torch import nn\n"
        "def ids(): return nn.Sequential(nn.Embedding(9, 16), nn.Linear(16, 4))\n"
    )
    Path("ids.toml").write_text(
        "[columns]\nnet = {}\n[[rows]]\nnet = 'Words'\n"
        "build = {model = 'summary_ids:ids', inputs = ['int64:{B}x12:0..8']}\n"
    )
    (row,) = run("summary", "ids.toml", "--batch", "8", "--format", "json").rows
    assert (row["name"], row["params"], row["macs"]) == ("Words", 9 * 16 + 68, 12 * 64)
