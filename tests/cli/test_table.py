"""`datbench table` as a user meets it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from datbench.paper.records import VERDICTS

from .runner import Run

MINE = """
title = "Two models"
source = "My paper, Table 1"
rows = [
  { method = "DAT-T", flops = "4.6G", params = "28.3M", top1 = "82", build = { model = "dat_t" } },
  { method = "Net", flops = "21.3M", build = { model = "my_net:Net,width=16" } },
]
[columns]
method = { title = "Method" }
flops = { title = "FLOPs", quantity = "macs", unit = "G" }
params = { title = "#Param", quantity = "params", unit = "M" }
top1 = { title = "Top-1", quantity = "accuracy" }
"""

NET = """
from torch import nn

class Net(nn.Sequential):
    def __init__(self, width):
        super().__init__(nn.Conv2d(3, width, 3))
"""


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    (tmp_path / "my_net.py").write_text(NET)
    path = tmp_path / "mine.toml"
    path.write_text(MINE)
    return path


def test_a_paper_table(run: Run) -> None:
    text = run("table", "8").text
    assert text.startswith("Table 8: DAT and Deformable-DETR attention (10 agree, 5 not reproducib")
    rows = [line.split() for line in text.splitlines() if line.startswith(("D-DETR ", "DAT "))]
    assert rows[2][:-3] == (
        "D-DETR 196 49 6.16G 6.1612 agrees 37.26M 37.2634 agrees 37.9GB 18.58 not".split()
    )
    assert "Acc." in text.partition("not shown: ")[2].partition("\n")[0]
    whole = " ".join(run("table", "8", "--format", "md").text.split())
    assert "| 2.6x | 2.632 | 2.605 | saved for backward, batch 64 | agrees |" in whole
    assert "batch 128 it would be 37.01, -2.3 % from the printed value" in whole
    assert "The D-DETR rows print shift masks" in whole
    assert "accuracy comes from training" in whole


def test_a_table_of_ones_own(run: Run, mine: Path) -> None:
    text = run("table", str(mine)).text
    assert "mine: Two models (3 agree, 1 published only)" in text
    assert "My paper, Table 1" in text
    # 16 * 27 * 222 * 222 multiply-adds
    rows = run("table", str(mine), "--format", "json").rows
    cell = rows[0]["lines"][1]["cells"]["flops"]
    assert cell["evidence"][0]["amount"] == 16 * 27 * 222 * 222
    assert cell["evidence"][0]["model"] == "my_net:Net,width=16"
    assert cell["verdict"] == "agrees"
    assert run("table", str(mine), "--check").code == 0


def test_check_fails_for_what_is_not_as_expected(run: Run, mine: Path) -> None:
    def expecting(printed: str, flops: str) -> str:
        build = '{ model = "dat_t" }'
        return MINE.replace("4.6G", printed).replace(
            build, f'{build}, expect = {{ flops = "{flops}" }}'
        )

    mine.write_text(MINE.replace("4.6G", "4.9G"))
    done = run("table", str(mine), "--check")
    assert done.code == 1
    assert done.err == (
        "datbench: 1 of 4 cells are not as expected: table mine, DAT-T, flops: wrong in print, "
        "expected agrees.\n"
    )
    assert "wrong in print (unexpected)" in done.out
    mine.write_text(expecting("4.9G", "wrong in print"))
    assert run("table", str(mine), "--check").code == 0
    mine.write_text(expecting("4.6G", "differs"))  # an expected difference that is gone
    done = run("table", str(mine), "--check")
    assert done.code == 1
    assert "DAT-T, flops: agrees, expected differs" in done.err


def test_check_misses_a_row_that_cannot_be_built(run: Run, mine: Path) -> None:
    (mine.parent / "my_net.py").write_text("raise RuntimeError('broken\\nfor good')")
    plain = run("table", str(mine))
    assert plain.code == 0
    assert "importing it raised RuntimeError: broken." in plain.out
    assert "4.5889  agrees" in plain.out  # the rest goes on
    done = run("table", str(mine), "--check")
    assert done.code == 3
    assert "1 of 4 cells could not be computed: table mine, Net" in done.err


@pytest.mark.parametrize(
    ("net", "reason"),
    [
        ("import sys\n\ndef Net(width): sys.exit(0)", "raised SystemExit: 0"),
        (NET + "\n    def forward(self, x, y): return x", "missing 1 required positional"),
        (NET + "\n    def forward(self, x): return {}['a']", "KeyError: 'a'"),
        ("import sys; sys.exit(4)", "importing it raised SystemExit: 4"),
    ],
)
def test_others_code_spoils_its_own_row_alone(run: Run, mine: Path, net: str, reason: str) -> None:
    (mine.parent / "my_net.py").write_text(net)
    done = run("table", str(mine), "--format", "json", "--check")
    assert done.code == 3
    lines = json.loads(done.out)["rows"][0]["lines"]
    assert lines[0]["cells"]["flops"]["verdict"] == "agrees"
    assert reason in lines[1]["cells"]["flops"]["reason"]


def test_a_paper_is_judged_by_the_papers_alone(run: Run, mine: Path) -> None:
    mine.write_text(MINE.replace('"28.3M"', '"28.319M"').replace("DAT-T", "Mine"))
    alone = run("table", "8", "--format", "json").rows[0]
    beside = run("table", "8", str(mine), "--format", "json").rows[0]
    assert alone == beside


def test_prints_with_other_prefixes(run: Run, mine: Path) -> None:
    mine.write_text(MINE.replace('"4.6G"', '"0.0049T"').replace('"28.3M"', '"0K"'))
    text = run("table", str(mine), "--format", "md").text
    assert "0.0046T is computed, -0.0003T (-6.3 %)" in text
    assert "4.5889" in text  # the column keeps its unit
    assert "28319.1380K is computed, +28319.1380K" in text
    (row,) = run("table", str(mine), "--format", "json").rows
    assert row["lines"][0]["cells"]["params"]["difference"] is None


def test_a_users_table_has_a_name_of_its_own(run: Run, mine: Path) -> None:
    mine.write_text('table = "2"\n' + MINE)
    assert "table '2' is one of the papers'" in run("table", str(mine)).complaint()


def test_csv_is_one_row_a_cell_with_what_every_rule_gives(run: Run) -> None:
    rows = run("table", "6", "8", "--format", "csv").lines
    assert len(rows) == 28 + 20
    assert {row["verdict"] for row in rows} <= set(VERDICTS)
    first = rows[0]
    assert (first["table"], first["row"], first["column"]) == ("6", "S, ✗, ✗", "flops")
    assert (first["printed"], first["computed"], first["unit"]) == ("4.57G", "4574297856", "MAC")
    assert (float(first["low"]), float(first["high"])) == (4.565e9, 4.575e9)
    flops, *others = (row for row in rows if row["table"] == "8")
    params = next(row for row in others if row["column"] == "params")
    assert flops["follows"].startswith("fvcore, ")
    assert flops["computed"] == flops["fvcore"]
    assert int(flops["mmdet"]) < int(flops["multiply-adds"]) < int(flops["fvcore"])
    assert params["follows"] == params["fvcore"] == ""


def test_rules_on_request_and_an_overview_of_several(run: Run) -> None:
    short = run("table", "8", "6", "8").text
    assert short.count("Table 8:") == 1
    assert short.splitlines()[-1].split() == ["all", "24", "0", "0", "5", "19", "0"]
    assert "by whose rules" not in short
    text = run("table", "8", "6", "--notes").text
    assert text.count("FLOPs: by whose rules") == 2
    scores = text[text.index("Printed values that the total by each rule rounds to") :]
    header, _, *lines = scores.splitlines()[1:6]
    assert header.split()[:3] == ["table", "printed", "fvcore"]
    assert [line.split()[:3] for line in lines] == [
        ["8", "5", "5"],
        ["6", "7", "7"],
        ["all", "12", "12"],
    ]


def test_json_carries_the_evidence(run: Run) -> None:
    (row,) = run("table", "8", "--format", "json").rows
    cell = row["lines"][4]["cells"]["flops"]
    assert cell["printed"] == "4.59G"
    assert cell["evidence"] == [
        {
            "model": "dat_t",
            "resolution": "224x224",
            "amount": 4_588_941_408,
            "unit": "MAC",
            "rule": "fvcore",
        }
    ]
    assert row["lines"][0]["labels"] == {"attn": "D-DETR", "keys3": "16", "keys4": "16"}
    memory = row["lines"][0]["cells"]["memory"]
    assert (memory["printed"], memory["verdict"]) == ("13.9GB", "not reproducible")
    assert [ratio["verdict"] for ratio in row["ratios"]] == ["agrees", "agrees"]


def test_a_template_is_a_table(run: Run) -> None:
    assert run("table", "template", "--out", "mine.toml").text == ""
    (table,) = run("table", "mine.toml", "--format", "json").rows
    verdicts = [cell["verdict"] for line in table["lines"] for cell in line["cells"].values()]
    assert verdicts.count("agrees") == 3


def test_a_csv_file_is_a_table(run: Run) -> None:
    """As a spreadsheet writes it: a byte-order mark, blanks, a cell left out."""
    text = "\ufeffModel, Note, FLOPs, Params, top1\r\ndat_t,ours,4.6,28,82.0\r\ndat_s,,8.9G,,\r\n"
    Path("nets.csv").write_text(text, encoding="utf-8")
    (table,) = run("table", "nets.csv", "--format", "json").rows
    cells = [line["cells"] for line in table["lines"]]
    assert [cell["flops"]["verdict"] for cell in cells] == ["agrees", "differs"]
    assert (cells[0]["params"]["verdict"], "params" in cells[1]) == ("agrees", False)
    rows = run("summary", "nets.csv", "--columns", "top1", "--format", "json").rows
    assert [(row["name"], row["top1"]) for row in rows] == [("DAT-T", 82.0), ("DAT-S", None)]


NO_TABLES = {
    "": "needs a column model",
    "model,note\ndat_t,x\n": "needs a column model, and some of flops",
    "model,flops,flops\ndat_t,1,2\n": "once each",
    "model,flops\ndat_t\n": "row 1: write 2 cells",
    "model,flops\ndat_t,4.6GB\n": "row 1 (dat_t), column flops: '4.6GB' is not a figure",
    "model,flops\ndat_tt,4.6\n": "unknown model 'dat_tt'",
}


def test_a_csv_file_that_is_none(run: Run) -> None:
    for text, said in NO_TABLES.items():
        Path("bad.csv").write_text(text)
        assert said in run("table", "bad.csv").complaint()


def test_markdown_latex_and_a_narrow_terminal(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run("table", "6", "--out", "t.md").code == 0
    assert "### Table 6: Ablation" in Path("t.md").read_text()
    latex = run("table", "6", "--format", "latex").text
    assert r"\ensuremath{\surd}" in latex
    assert "✓" not in latex.partition("\\end{table")[0]
    monkeypatch.setenv("COLUMNS", "60")
    text = run("table", "8").text
    assert max(len(line) for line in text.splitlines()) <= 60
    assert "37.2634" in text


def test_memory_is_measured_where_a_device_is(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through what would run it on a GPU: an eighth of a GiB an image, and no room above 64."""
    from datbench.memory.records import GpuPeaks, GpuRow
    from datbench.models.resolve import Spec
    from datbench.paper import verdicts, workshop
    from datbench.setting import PLAIN, MemoryMode, Setting

    def measured(spec: Spec, setting: Setting, mode: MemoryMode) -> GpuRow:
        fits = setting.batch <= 64
        gib = setting.batch * 2**27
        peaks = GpuPeaks(gib, gib, 2 * gib, None, 0) if fits else None
        outcome = "measured" if fits else "out of memory"
        return GpuRow(spec.name, setting, mode, PLAIN, outcome, None, peaks, (), None, None, 1.0)

    monkeypatch.setattr(workshop, "measure_gpu", measured)
    monkeypatch.setattr(verdicts, "check_present", lambda device: None)
    (row,) = run("table", "8", "--device", "cuda", "--format", "json", "--check").rows
    for line in row["lines"]:
        rules = {e["rule"]: e["amount"] for e in line["cells"]["memory"]["evidence"]}
        assert rules["allocated on cuda, batch 64"] == 8 * 2**30
        assert rules["reserved on cuda, batch 64"] == 16 * 2**30
        assert rules["allocated on cuda, batch 128: out of memory"] is None
    text = run("table", "8", "--device", "cuda", "--format", "md").text
    assert "allocated on cuda, batch 64 (GiB)" in text


WITHOUT_TIMM = """
import sys

class Nothing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "timm":
            raise {error}

sys.meta_path.insert(0, Nothing())
from datbench.cli.main import main
for words in ("table 7 --format json --check", "flops timm:resnet18"):
    print("exit code", main(words.split()), file=sys.stderr)
"""


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            'ModuleNotFoundError("No module named timm", name="timm")',
            "timm is not installed: pip install timm torchvision",
        ),
        (
            'RuntimeError("operator torchvision::nms does not exist")',
            "pip install --force-reinstall torch torchvision",
        ),
    ],
)
def test_without_timm_the_rest_works(error: str, words: str, tmp_path: Path) -> None:
    code = WITHOUT_TIMM.format(error=error)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path
    )
    table, refused = done.stderr.split("exit code 3\n")
    assert "2 of 15 cells could not be computed: table 7, none (Swin-T)" in table
    lines = json.loads(done.stdout)["rows"][0]["lines"]
    assert [line["cells"]["flops"]["verdict"] for line in lines] == ["agrees"] * 4 + [
        "published only"
    ]
    assert words in lines[4]["cells"]["flops"]["reason"]
    assert words in refused
    assert refused.endswith("exit code 5\n")
    assert "Traceback" not in done.stderr
