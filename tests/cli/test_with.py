"""``MODEL+HEAD`` as a user meets it."""

import csv
import io
from pathlib import Path

import pytest

from .runner import Run

SMALL = ("--res", "128x64")


def test_flops_by_stage(run: Run) -> None:
    text = run("flops", "dat_t+retinanet", "--res", "1280x800", "--by", "stage").text
    assert "dat_t+retinanet: 286.7" in text
    parts = [line.split()[0] for line in text.splitlines() if " GiB" in line or " MiB" in line]
    assert parts == [
        "backbone.stem",
        "backbone.stages.0",  # RetinaNet starts at stride 8: no norm on this map
        *(f"backbone.{what}.{i}" for i in range(1, 4) for what in ("stages", "norms")),
        "neck",
        "head",
        "total",
    ]


def _by(run: Run, *arguments: str) -> dict[str, dict[str, str]]:
    """The rows of a breakdown by parts."""
    text = run(*arguments, "--by", "part", "--format", "csv").text
    return {row["part"]: row for row in csv.DictReader(io.StringIO(text))}


def test_flops_by_part(run: Run) -> None:
    small = ("dat_t+upernet", "--res", "256x128")
    rows = _by(run, "flops", *small)
    assert list(rows) == ["backbone", "decode_head", "auxiliary_head", "resize", "total"]
    assert (rows["auxiliary_head"]["macs"], rows["auxiliary_head"]["params"]) == ("0", "923798")
    (whole,) = run("flops", *small, "--format", "json").rows
    stages = [s for s in whole["stages"] if s["name"].startswith("backbone.")]
    assert int(rows["backbone"]["macs"]) == sum(stage["amount"] for stage in stages)
    alone = run("flops", "dat_t", "--features", *small[1:], "--format", "json").rows[0]
    assert int(rows["backbone"]["macs"]) == alone["macs"]
    assert int(rows["backbone"]["params"]) == alone["params"]
    for key, total in (("macs", whole["macs"]), ("params", whole["params"])):
        parts = [row[key] for name, row in rows.items() if name != "total"]
        assert int(rows["total"][key]) == total == sum(int(part or 0) for part in parts)


def test_flops_by_part_and_stage_of_a_backbone_alone(run: Run) -> None:
    assert list(_by(run, "flops", "dat_t")) == ["stem", "stages", "head", "total"]
    text = run("flops", "dat_t+retinanet", *SMALL, "--by", "part,stage").text
    assert [line.split()[0] for line in text.splitlines() if " calls " in line] == ["part", "stage"]


def test_params_by_part_and_stage(run: Run) -> None:
    rows = _by(run, "params", "dat_t+cascade_mask_rcnn")
    parts = ["backbone", "neck", "rpn_head", "box_heads", "mask_heads"]
    assert list(rows) == [*parts, "total"]
    assert sum(int(rows[part]["params"]) for part in parts) == 85_660_588
    *stages, total = run(
        "params", "dat_t+cascade_mask_rcnn", "--by", "stage", "--format", "json"
    ).rows
    assert sum(row["params"] for row in stages) == total["params"] == 85_660_588
    assert {"neck", "rpn_head", "box_heads.2", "mask_heads.0"} <= {row["stage"] for row in stages}


def test_swins_norms_are_its_backbones(run: Run) -> None:
    pytest.importorskip("timm", reason="needs datbench[timm]", exc_type=ImportError)
    swin = "timm:swin_tiny_patch4_window7_224+retinanet"
    assert list(_by(run, "flops", swin, "--res", "64")) == ["backbone", "neck", "head", "total"]
    rows = run("flops", swin, "--res", "64", "--format", "json").rows
    stages = [stage["name"] for stage in rows[0]["stages"] if "norms" in stage["name"]]
    assert stages == [f"backbone.norms.{i}" for i in (1, 2, 3)]


def test_a_file_whose_name_ends_as_a_head(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published = Path(__file__).parents[1] / "models" / "configs" / "dat_tiny.yaml"
    (tmp_path / "x+retinanet").write_bytes(published.read_bytes())
    monkeypatch.chdir(tmp_path)
    (alone,) = run("params", "config:x+retinanet", "--format", "json").rows
    assert alone["params"] == run("params", "dat_t", "--format", "json").rows[0]["params"]
    (with_head,) = run("params", "config:x+retinanet+upernet", "--format", "json").rows
    assert with_head["model"] == "config:x+retinanet+upernet"


@pytest.mark.parametrize("command", ["params", "show"])
def test_backbones_that_cannot_carry_a_head(run: Run, command: str) -> None:
    """Also where nothing would be run."""
    pytest.importorskip("timm", reason="needs datbench[timm]", exc_type=ImportError)
    said = run(command, "timm:vit_tiny_patch16_224+retinanet").complaint()
    assert "a head needs stride 4 there" in said
    said = run(command, "timm:dat_t,out_indices=(0,1)+retinanet").complaint()
    assert "declares 2 feature maps" in said


def test_the_default_input_is_the_papers(run: Run) -> None:
    (row,) = run("flops", "dat_t+retinanet", "--format", "json").rows
    assert (row["setting"]["width"], row["setting"]["height"]) == (1280, 800)
    (row,) = run("flops", "dat_t+upernet", "--format", "json").rows
    assert (row["setting"]["width"], row["setting"]["height"]) == (2048, 512)
    stages = {stage["name"] for stage in row["stages"]}
    assert stages >= {"decode_head", "resize"}
    assert "auxiliary_head" not in stages  # parameters alone
    assert row["stage_params"]["auxiliary_head"] == 923_798


def test_memory(run: Run) -> None:
    (row,) = run("memory", "dat_t+retinanet", *SMALL, "--by", "stage", "--format", "json").rows
    assert row["model"] == "dat_t+retinanet"
    alone = run("memory", "dat_t", "--features", *SMALL, "--format", "json").rows[0]
    assert row["after_forward"] > alone["after_forward"]
    assert run("memory", "dat_t+upernet", *SMALL, "--batch", "2").code == 0


def test_eq10_of_the_backbone(run: Run) -> None:
    rows = run("eq10", "dat_t_49_49+retinanet", "--check", "--format", "json").rows
    alone = run("eq10", "dat_t_49_49", "--res", "1280x800", "--format", "json").rows
    assert [row["stage"] for row in rows] == [row["stage"] for row in alone]
    assert [row["terms"] for row in rows] == [row["terms"] for row in alone]


def test_show_and_models(run: Run) -> None:
    text = run("show", "dat_t+mask_rcnn").text
    assert "dat_t+mask_rcnn at 1280x800" in text
    assert "MaskRCNN" in text
    listed = run("models").text
    assert "semantic_fpn" in listed
    assert "dat_t+semantic_fpn" in listed


def test_the_search_as_csv(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from datbench.paper import search

    monkeypatch.setattr(search, "ENCODERS", search.ENCODERS[:1])
    rows = run("table", "search", "5", "--format", "csv").lines
    assert {row["head"] for row in rows} == {"semantic_fpn", "upernet"}
    assert len(rows) == 2 * (5 + 3) * 3
    assert {row["list"] for row in rows} == {"best", "nearest"}
    text = run("table", "search", "5").text
    tried = len(search.DECODERS["semantic_fpn"])
    assert f"semantic_fpn: {tried} configurations, each the same for every row; 0 of them" in text


def test_a_table_without_anything_to_search_for(run: Run) -> None:
    assert "no row to search" in run("table", "search", "6").complaint(3)
