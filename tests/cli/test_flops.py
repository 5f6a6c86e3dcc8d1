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

from .runner import Run, unwrapped

COCO = ("flops", "dat_s", "--res", "1280x800")
MACS, PARAMS = 301_959_091_200, 49_700_402


def row(run: Run, *arguments: str) -> dict[str, Any]:
    (only,) = run("flops", *arguments, "--format", "json").rows
    return only


def test_one_model_is_broken_down_in_every_format(run: Run) -> None:
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
    latex, markdown = (run(*COCO, "--format", form).text for form in ("latex", "md"))
    for shown in (latex, markdown):
        assert "301.9591" in shown
        assert "49.7004" in shown
    assert markdown.startswith("### dat_s: 301.959 GMACs")
    assert markdown.count("|:---") == 2
    assert "- One multiply-add is one MAC." in markdown
    frame = pd.read_csv(io.StringIO(run(*COCO, "--by", "operator", "--format", "csv").text))
    assert frame["macs"].sum() == MACS
    assert set(frame["model"]) == {"dat_s"}
    assert "grid_sampler" in set(frame["operator"])


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


def test_several_models_and_sizes_make_one_table_in_any_number_of_processes(run: Run) -> None:
    arguments = ("flops", "dat_t", "datpp_t", "--res", "64", "--res", "96x64")
    text = run(*arguments).text
    assert text.startswith("MACs under the fvcore convention; ")
    heading = text.splitlines()[1].split()
    assert heading == ["model", "input", "GMACs", "params", "(M)", "read", "written"]
    expected = [(model, res) for model in ("dat_t", "datpp_t") for res in ("64x64", "96x64")]
    lines = [line.split() for line in text.splitlines() if line.startswith("dat")]
    assert [(line[0], line[1]) for line in lines] == expected
    rows = run(*arguments, "--jobs", "2", "--format", "json").rows
    sizes = [(r["model"], f"{r['setting']['width']}x{r['setting']['height']}") for r in rows]
    assert sizes == expected
    assert [f"{r['macs'] / 1e9:.4f}" for r in rows] == [line[2] for line in lines]
    own = run("flops", "dat_t", "dat_b_384", "--format", "json").rows
    assert [r["setting"]["width"] for r in own] == [224, 384]


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


def test_conventions_are_views_of_one_count(run: Run) -> None:
    units = {"fvcore": "MAC", "mmdet": "MAC", "torch": "FLOP", "strict": "FLOP"}
    views = {name: row(run, "datpp_t", "--res", "64", "--convention", name) for name in units}
    for key in ("params", "bytes_read", "bytes_written", "unknown", "free"):
        assert len({json.dumps(view[key]) for view in views.values()}) == 1
    assert len({view["amount"] for view in views.values()}) == 4
    for name, view in views.items():
        assert view["unit"] == units[name]
        assert view["amount"] == view["macs" if view["unit"] == "MAC" else "flops"]
        assert (view["flops"] is None) == (view["unit"] == "MAC")
    assert views["torch"]["flops"] == 2 * views["torch"]["macs"]  # two FLOPs are one MAC
    assert views["strict"]["macs"] == views["torch"]["macs"]
    strict = run("flops", "dat_t", "datpp_t", "--res", "64", "--convention", "strict").text
    assert strict.startswith("FLOPs under the strict convention; ")
    assert "One multiply-add is two FLOPs." in strict


def test_csv_is_read_back_by_pandas_with_its_setting(run: Run) -> None:
    text = run(*COCO[:2], "dat_t", *COCO[2:], "--batch", "2", "--format", "csv").text
    frame = pd.read_csv(io.StringIO(text))
    assert frame["macs"].tolist()[0] == 2 * MACS
    assert frame["params"].tolist() == [PARAMS, 28_319_138]
    assert frame["resolution"].tolist() == ["1280x800"] * 2
    assert frame["unknown"].tolist() == [0, 0]
    first = frame.iloc[0]
    assert (first["batch"], first["dtype"], first["convention"]) == (2, "float32", "fvcore")
    assert not first["backward"]


def test_latex_has_booktabs_rules_and_a_caption_with_the_unit(run: Run) -> None:
    text = run("flops", "dat_t", "dat_s", "--format", "latex").text
    for rule in (r"\toprule", r"\midrule", r"\bottomrule"):
        assert rule in text
    assert r"\caption{MACs under the fvcore convention" in text
    assert r"dat\_s & 224x224 & 9.0084 & 49.7004" in text


def test_by_stage_alone_and_by_module_cut_to_a_depth(run: Run) -> None:
    def by(*words: str) -> str:
        return run("flops", "dat_t", "--res", "64", "--by", *words).text

    stages = by("stage")
    assert "stages.3" in stages
    assert "grid_sampler" not in stages
    assert "stages.2.blocks.1.mixer.offset_network" in by("module")
    cut = by("module", "--depth", "2")
    names = [line.split()[0] for line in cut.splitlines()[3:] if line[:1] in "sh"]
    assert "stages.2" in names
    assert all(name.count(".") < 2 for name in names)
    both = by("operator, stage")
    assert both.index("matmul") < both.index("stages.3")


@pytest.mark.parametrize("dtype", ["float64", "bfloat16", "float16"])
def test_a_dtype_changes_bytes_only(run: Run, dtype: str) -> None:
    def without_bytes(found: dict[str, Any]) -> dict[str, Any]:
        found["setting"].pop("dtype")
        for part in ("stages", "operators", "modules"):
            found[part] = [{k: g[k] for k in ("name", "calls", "amount")} for g in found[part]]
        return {k: v for k, v in found.items() if not k.startswith("bytes")}

    single = row(run, "dat_t")
    other = row(run, "dat_t", "--dtype", dtype)
    wider = dtype == "float64"
    assert (other["bytes_read"] > single["bytes_read"]) == wider
    assert (other["bytes_written"] > single["bytes_written"]) == wider
    assert without_bytes(other) == without_bytes(single)


def test_batch_backward_and_features(run: Run) -> None:
    forward = row(run, "dat_t")
    three = row(run, "dat_t", "--batch", "3")
    assert (three["macs"], three["params"]) == (3 * forward["macs"], forward["params"])
    both = row(run, "dat_t", "--mode", "backward")
    assert forward["backward"] is None
    assert both["forward"] == forward["macs"]
    assert both["macs"] == both["forward"] + both["backward"]
    assert 1.5 < both["backward"] / both["forward"] < 2.5
    text = run("flops", "dat_t", "--mode", "backward", "--batch", "3").text
    assert "(13.767 GMACs forward, " in text
    assert "forward and backward" in text
    assert "batch 3" in text
    features = row(run, "dat_t", "--features")
    norms, head = 2 * (96 + 192 + 384 + 768), 2 * 768 + 768 * 1000 + 1000
    assert features["params"] == forward["params"] - head + norms
    assert features["setting"]["features"] is True
    assert "head" not in {group["name"] for group in features["stages"]}
    text = run("flops", "dat_t", "--features").text
    assert "eager attention, four feature maps, no head, forward)" in unwrapped(text)


@pytest.mark.parametrize("others", [(), ("datpp_t",)])
def test_unknown_operators_are_named_and_can_fail_the_run(
    run: Run, monkeypatch: pytest.MonkeyPatch, others: tuple[str, ...]
) -> None:
    chosen = ("flops", "dat_t", *others, "--res", "64")
    assert run(*chosen, "dat_t_ddetr_16_16", "--max-unknown", "0").text
    count_row = count.count_row

    def with_unknown(*arguments: Any) -> CountRow:
        return replace(count_row(*arguments), unknown={"mine::op": 3})

    monkeypatch.setattr(count, "count_row", with_unknown)
    text = run(*chosen).text
    said = f"UNKNOWN, cost missing from the total: mine::op ({3 * (1 + len(others))} calls)."
    assert said in unwrapped(text)
    assert run(*chosen, "--max-unknown", "3").code == 0
    failed = run(*chosen, "--max-unknown", "2")
    assert (failed.code, failed.out) == (1, text)
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
