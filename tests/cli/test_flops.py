"""`datbench flops`: the figures, in every format and under every convention."""

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from datbench.counting import count
from datbench.counting.records import CountRow

from .runner import Run

COCO = ("flops", "dat_s", "--res", "1280x800")
MACS, PARAMS = 301_959_091_200, 49_700_402


def row(run: Run, *arguments: str) -> dict[str, Any]:
    (only,) = run("flops", *arguments, "--format", "json").rows
    return only


def test_the_total_and_its_breakdown_by_stage_and_operator(run: Run) -> None:
    text = run(*COCO).text
    title, *lines = text.splitlines()
    assert title == (
        "dat_s: 301.959 GMACs, 49.700 M parameters (fvcore convention; 1280x800, batch 1, float32, "
        "eager attention, forward)"
    )
    cells = {line.split()[0]: line.split() for line in lines if line.split()}
    assert cells["total"][2:6] == ["301.9591", "100.0", "%", "49.7004"]
    stages = ["stem", "stages.0", "stages.1", "stages.2", "stages.3", "head"]
    assert sum(float(cells[stage][2]) for stage in stages) == pytest.approx(301.9591, abs=1e-3)
    calls = [int(cells[name][1].replace(",", "")) for name in (*stages, "total")]
    assert sum(calls[:-1]) == calls[-1]
    operators = ["linear", "matmul", "grid_sampler", "conv2d", "layer_norm", "adaptive_avg_pool2d"]
    assert sum(float(cells[name][2]) for name in operators) == pytest.approx(301.9591, abs=1e-3)
    assert "(model)" not in text  # a view at the top costs nothing and is no row
    assert "Papers of this field print MACs as FLOPs." in text


def test_json_carries_integers_and_the_setting(run: Run) -> None:
    document = json.loads(run(*COCO, "--format", "json").text)
    assert document["kind"] == "flops"
    assert set(document["environment"]) == {"datbench", "python", "torch", "platform"}
    (found,) = document["rows"]
    assert (found["macs"], found["params"]) == (MACS, PARAMS)
    assert isinstance(found["macs"], int)
    assert (found["unit"], found["convention"], found["flops"]) == ("MAC", "fvcore", None)
    assert found["setting"] == {
        "width": 1280,
        "height": 800,
        "batch": 1,
        "dtype": "float32",
        "device": "meta",
        "attention": "eager",
        "backward": False,
        "features": False,
    }
    for part in ("stages", "operators", "modules"):
        assert sum(group["amount"] for group in found[part]) == MACS
    assert sum(found["stage_params"].values()) == PARAMS
    assert found["unknown"] == {}


def test_several_models_and_resolutions_make_one_table(run: Run) -> None:
    arguments = ("flops", "dat_t", "datpp_t", "--res", "224", "--res", "256x192")
    text = run(*arguments).text
    heading = text.splitlines()[1].split()
    assert heading == ["model", "input", "GMACs", "params", "(M)", "read", "written"]
    expected = [(model, res) for model in ("dat_t", "datpp_t") for res in ("224x224", "256x192")]
    lines = [line.split() for line in text.splitlines() if line.startswith("dat")]
    assert [(line[0], line[1]) for line in lines] == expected
    rows = run(*arguments, "--format", "json").rows
    sizes = [(r["model"], f"{r['setting']['width']}x{r['setting']['height']}") for r in rows]
    assert sizes == expected
    assert [f"{r['macs'] / 1e9:.4f}" for r in rows] == [line[2] for line in lines]


def test_processes_share_the_models(run: Run) -> None:
    words = ("flops", "dat_t", "pvt_t", "datpp_t", "--res", "64,96", "--format", "csv")
    assert run(*words, "--jobs", "2").text == run(*words).text


def test_each_model_is_counted_at_its_own_size_unless_told(run: Run) -> None:
    rows = run("flops", "dat_t", "dat_b_384", "--format", "json").rows
    assert [r["setting"]["width"] for r in rows] == [224, 384]


@pytest.mark.parametrize(
    ("convention", "unit"),
    [("fvcore", "MAC"), ("mmdet", "MAC"), ("torch", "FLOP"), ("strict", "FLOP")],
)
def test_a_figure_says_macs_or_flops_and_never_the_other(
    run: Run, convention: str, unit: str
) -> None:
    other = "FLOP" if unit == "MAC" else "MAC"
    chosen = ("flops", "dat_t", "--convention", convention)
    title, heading = run(*chosen).text.splitlines()[:2]
    assert f"G{unit}s" in title
    assert f"{convention} convention" in title
    assert {f"G{unit}s", f"{unit}/byte"} <= set(heading.split())
    assert other not in title + heading
    header = run(*chosen, "--format", "csv").text.splitlines()[0]
    assert f"{unit.lower()}s" in header.split(",")
    assert f"{other.lower()}s" not in header.split(",")
    (found,) = run(*chosen, "--format", "json").rows
    assert found["unit"] == unit
    assert found["amount"] == found["macs" if unit == "MAC" else "flops"]
    assert (found["flops"] is None) == (unit == "MAC")


def test_two_flops_are_one_mac(run: Run) -> None:
    products = row(run, "dat_t", "--convention", "torch")
    assert products["flops"] == 2 * products["macs"]
    assert row(run, "dat_t", "--convention", "strict")["macs"] == products["macs"]


def test_conventions_are_views_of_one_count(run: Run) -> None:
    views = [
        row(run, "datpp_t", "--convention", name) for name in ("fvcore", "torch", "mmdet", "strict")
    ]
    for key in ("params", "bytes_read", "bytes_written", "unknown", "free"):
        assert len({json.dumps(view[key]) for view in views}) == 1
    assert len({view["amount"] for view in views}) == 4


@pytest.mark.parametrize("format", ["table", "csv", "md", "json", "latex"])
def test_every_format_holds_the_same_figures(run: Run, format: str) -> None:
    text = run(*COCO, "--format", format).text
    exact = format in ("csv", "json")
    assert (str(MACS) if exact else "301.9591") in text
    assert (str(PARAMS) if exact else "49.7004") in text
    assert text.endswith("\n")


def test_csv_is_read_back_by_pandas_with_its_setting(run: Run) -> None:
    text = run(
        "flops", "dat_s", "dat_t", "--res", "1280x800", "--batch", "2", "--format", "csv"
    ).text
    frame = pd.read_csv(io.StringIO(text))
    assert frame["macs"].tolist()[0] == 2 * MACS
    assert frame["params"].tolist() == [PARAMS, 28_319_138]
    assert frame["resolution"].tolist() == ["1280x800"] * 2
    assert frame["unknown"].tolist() == [0, 0]
    first = frame.iloc[0]
    assert (first["batch"], first["dtype"], first["convention"]) == (2, "float32", "fvcore")
    assert not first["backward"]


def test_csv_of_a_breakdown(run: Run) -> None:
    text = run(*COCO, "--by", "operator", "--format", "csv").text
    frame = pd.read_csv(io.StringIO(text))
    assert frame["macs"].sum() == MACS
    assert set(frame["model"]) == {"dat_s"}
    assert "grid_sampler" in set(frame["operator"])


def test_latex_has_booktabs_rules_and_a_caption_with_the_unit(run: Run) -> None:
    text = run("flops", "dat_t", "dat_s", "--format", "latex").text
    for rule in (r"\toprule", r"\midrule", r"\bottomrule"):
        assert rule in text
    assert r"\caption{MACs under the fvcore convention" in text
    assert r"dat\_s & 224x224 & 9.0084 & 49.7004" in text


def test_markdown_has_a_heading_for_the_model_and_a_table_a_part(run: Run) -> None:
    text = run("flops", "dat_t", "--format", "md").text
    assert text.startswith("### dat_t: 4.589 GMACs")
    assert text.count("|:---") == 2
    assert "- One multiply-add is one MAC." in text


def test_by_stage_alone_and_by_module_cut_to_a_depth(run: Run) -> None:
    stages = run("flops", "dat_t", "--by", "stage").text
    assert "stages.3" in stages
    assert "grid_sampler" not in stages
    modules = run("flops", "dat_t", "--by", "module").text
    assert "stages.2.blocks.1.mixer.offset_network" in modules
    cut = run("flops", "dat_t", "--by", "module", "--depth", "2").text
    names = [line.split()[0] for line in cut.splitlines()[3:] if line[:1] in "sh"]
    assert "stages.2" in names
    assert all(name.count(".") < 2 for name in names)
    both = run("flops", "dat_t", "--by", "operator, stage").text
    assert both.index("matmul") < both.index("stages.3")


def test_a_batch_multiplies_the_work_and_nothing_else(run: Run) -> None:
    one, three = row(run, "datpp_t"), row(run, "datpp_t", "--batch", "3")
    assert three["macs"] == 3 * one["macs"]
    assert three["params"] == one["params"]
    assert "batch 3" in run("flops", "datpp_t", "--batch", "3").text


@pytest.mark.parametrize("dtype", ["float64", "bfloat16", "float16"])
def test_a_dtype_changes_bytes_only(run: Run, dtype: str) -> None:
    def without_bytes(found: dict[str, Any]) -> dict[str, Any]:
        found["setting"].pop("dtype")
        for part in ("stages", "operators", "modules"):
            found[part] = [{k: g[k] for k in ("name", "calls", "amount")} for g in found[part]]
        return {k: v for k, v in found.items() if not k.startswith("bytes")}

    single, other = row(run, "dat_t"), row(run, "dat_t", "--dtype", dtype)
    wider = dtype == "float64"
    assert (other["bytes_read"] > single["bytes_read"]) == wider
    assert (other["bytes_written"] > single["bytes_written"]) == wider
    assert without_bytes(other) == without_bytes(single)


def test_backward_is_counted_beside_the_forward(run: Run) -> None:
    forward, both = row(run, "dat_t"), row(run, "dat_t", "--mode", "backward")
    assert forward["backward"] is None
    assert both["forward"] == forward["macs"]
    assert both["macs"] == both["forward"] + both["backward"]
    assert 1.5 < both["backward"] / both["forward"] < 2.5
    text = run("flops", "dat_t", "--mode", "backward").text
    assert "(4.589 GMACs forward, " in text
    assert "forward and backward" in text


def test_features_have_four_norms_and_no_head(run: Run) -> None:
    whole, features = row(run, "dat_t"), row(run, "dat_t", "--features")
    norms, head = 2 * (96 + 192 + 384 + 768), 2 * 768 + 768 * 1000 + 1000
    assert features["params"] == whole["params"] - head + norms
    assert features["setting"]["features"] is True
    assert "head" not in {group["name"] for group in features["stages"]}
    text = run("flops", "dat_t", "--features").text
    assert "eager attention, four feature maps, no head, forward)" in " ".join(text.split())


def test_our_models_have_no_unknown_operator(run: Run) -> None:
    assert run("flops", "dat_t", "datpp_t", "dat_t_ddetr_16_16", "--max-unknown", "0").text


@pytest.mark.parametrize("others", [(), ("datpp_t",)])
def test_unknown_operators_are_named_and_can_fail_the_run(
    run: Run, monkeypatch: pytest.MonkeyPatch, others: tuple[str, ...]
) -> None:
    count_row = count.count_row

    def with_unknown(*arguments: Any) -> CountRow:
        return replace(count_row(*arguments), unknown={"mine::op": 3})

    monkeypatch.setattr(count, "count_row", with_unknown)
    text = run("flops", "dat_t", *others).text
    calls = 3 * (1 + len(others))
    assert f"UNKNOWN, cost missing from the total: mine::op ({calls} calls)." in " ".join(
        text.split()
    )
    assert run("flops", "dat_t", *others, "--max-unknown", "3").code == 0
    failed = run("flops", "dat_t", *others, "--max-unknown", "2")
    assert failed.code == 1
    assert failed.out == text
    assert failed.err == (
        "datbench: dat_t: 3 calls of operators without a rule, more than --max-unknown 2: "
        "mine::op.\n"
    )


def test_parameters_of_modules_that_did_not_run_are_in_the_breakdown(run: Run) -> None:
    Path("idle_net.py").write_text(
        "import torch\nfrom torch import nn\n\n\nclass Net(nn.Module):\n"
        "    def __init__(self):\n        super().__init__()\n"
        "        self.stem, self.idle = nn.Conv2d(3, 800, 3), nn.Linear(700, 700)\n"
        "        self.scale = nn.Parameter(torch.ones(90_000))\n\n"
        "    def forward(self, x):\n        return self.stem(x)\n"
    )
    for model in ("idle_net:Net", "dat_t+upernet"):
        for by in ("stage", "part"):
            text = run("flops", model, "--res", "64", "--by", by, "--format", "md").text
            rows = [line.strip("| ").split("|") for line in text.splitlines() if line[:1] == "|"]
            params = [float(row[4]) for row in rows[2:] if row[4].strip() != "-"]
            assert sum(params[:-1]) == pytest.approx(params[-1], abs=1e-3)
            assert len(params) > 2
    # datbench chooses the attention of its own models and of timm's, not a factory's.
    assert "eager attention" not in run("flops", "idle_net:Net", "--res", "64").text
    assert "eager attention" in text
