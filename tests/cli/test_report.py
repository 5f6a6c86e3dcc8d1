"""`datbench report`: what is written, what is refused, and that nothing is half-written."""

import csv
import json
import platform
import re
import shlex
from dataclasses import replace
from pathlib import Path

import pytest

from datbench.cli.main import main
from datbench.compare.records import ComparisonRow, Decision
from datbench.memory.simulation import memory_row
from datbench.memory.view import charts as memory_charts
from datbench.models.resolve import resolve
from datbench.records import document, dumps
from datbench.render.vega import LIGHT
from datbench.setting import Resolution, Setting
from datbench.timing.records import ThroughputRow

from ..row_samples import sample
from .runner import Run, refused

SMALL = ("dat_t", "--tables", "7", "--res", "64", "--plots", "none")
NOTHING = ("none", "--tables", "none", "--plots", "none")


def rows_of(path: Path | str) -> list[dict[str, str]]:
    with Path(path).open() as file:
        return list(csv.DictReader(file))


@pytest.fixture(autouse=True)
def _no_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)


@pytest.fixture(scope="module")
def former(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("former") / "out"
    assert main(["report", *SMALL, "--out", str(out)]) == 0
    return out


def test_every_format_has_the_same_rows(former: Path) -> None:
    (row,) = rows_of(former / "csv" / "models.csv")
    content = json.loads((former / "report.json").read_text())
    parts = {(part["kind"], part["role"]): part for part in content["rows"]}
    (counted,) = parts["flops", ""]["rows"]
    assert (content["format"], content["version"], content["kind"]) == ("datbench", 3, "report")
    assert row["model"] == counted["model"] == "dat_t"
    assert int(row["macs"]) == counted["macs"]
    shown = f" {counted['macs'] / 1e9:.4f} "
    text = (former / "report.md").read_text()
    latex = (former / "latex" / "models.tex").read_text()
    assert shown in text
    assert shown in latex
    assert "\\toprule" in latex
    (table,) = parts["table", ""]["rows"]
    cells = sum(len(line["cells"]) for line in table["lines"])
    assert len(rows_of(former / "csv" / "table-7.csv")) == cells == 15
    names = ["attention", "memory", "models", "sources", "table-7"]
    for folder in ("csv", "latex"):
        assert sorted(path.stem for path in (former / folder).iterdir()) == names
    assert not (former / "report.html").exists()
    assert not (former / "plots").exists()
    for command in ("throughput", "profile", "memory"):  # what is missing
        assert f"`datbench {command} " in text
    assert "**0** timed runs" in text


def test_what_is_written_reads_well(former: Path) -> None:
    """The head says when, where and by which command; a wide table is as wide as the text."""
    made = (former / "report.md").read_text().splitlines()[2]
    command = shlex.join(["datbench", "report", *SMALL, "--out", str(former)])
    assert f"by `{command}`, with datbench" in made
    assert re.match(r"Made on \d{4}-\d\d-\d\d \d\d:\d\d ", made)
    assert f" on {platform.node()} by " in made
    wide = (former / "latex" / "memory.tex").read_text()
    assert "\\resizebox{\\linewidth}{!}{%\n\\begin{tabular}" in wide
    assert "\\end{tabular}\n}\n" in wide
    assert wide.count("{") - wide.count("\\{") == wide.count("}") - wide.count("\\}")
    assert "resizebox" not in (former / "latex" / "models.tex").read_text()


def test_the_json_is_read_back(run: Run, former: Path) -> None:
    file = str(former / "report.json")
    assert "whole" in run("results", "validate", file).text
    assert run("report", *NOTHING, "--from", file, "--out", "again").text == "again/report.md\n"
    for name in ("models", "table-7"):
        assert rows_of(f"again/csv/{name}.csv") == rows_of(former / "csv" / f"{name}.csv")
    run("report", *SMALL, "--from", file, "--out", "out")
    assert len(rows_of("out/csv/models.csv")) == 1  # what is there already stands once


def test_a_comment_says_what_changed(run: Run, former: Path) -> None:
    content = json.loads((former / "report.json").read_text())
    counts = next(p for p in content["rows"] if p["kind"] == "flops" and not p["role"])
    (row,) = counts["rows"]
    now = row["forward"]
    row["forward"] -= 1
    before = Path("before.json")
    before.write_text(json.dumps(content))
    run("report", *SMALL, "--baseline", "before.json", "--out", "out")
    comment = Path("out/comment.md").read_text()
    assert "1 exact one changed" in comment
    assert f"{now - 1:,} " in comment
    assert " +1 (below 0.01 %) " in comment
    assert " peak " not in comment  # that did not change
    assert "## Against the baseline" in Path("out/report.md").read_text()


def test_a_baseline_of_the_gate(run: Run) -> None:
    words = "gate update --baseline base.json dat_t dat_s --res 64 --mode inference"
    run(*words.split())
    run("report", *SMALL, "--baseline", "base.json", "--out", "out")
    comment = Path("out/comment.md").read_text()
    # Forward and parameters of dat_t; those of dat_s, which no model here is; and one peak.
    assert "2 figures are those of base.json" in comment
    assert "2 not in this report" in comment
    assert "1 new" in comment
    # What is on the baseline's side alone is a number here, and rows in the report.
    assert "dat_s" not in comment
    assert "dat_s" in Path("out/csv/changes.csv").read_text()


def test_a_baseline_adds_its_settings_to_a_models_own_size(run: Run) -> None:
    rows = run("flops", "dat_t", "--res", "64", "--format", "json").text
    Path("before.json").write_text(rows)
    run(
        "report",
        *("dat_t", "--tables", "none", "--plots", "none"),
        *("--baseline", "before.json", "--out", "out"),
    )
    assert [row["resolution"] for row in rows_of("out/csv/models.csv")] == [
        "224x224",
        "64x64",
    ]
    assert {row["resolution"] for row in rows_of("out/csv/memory.csv")} == {"224x224"}
    text = Path("out/report.md").read_text()
    assert "Memory was simulated at 224x224 and not at 64x64: dat_t." in text
    changes = {(c["resolution"], c["what"]): c["change"] for c in rows_of("out/csv/changes.csv")}
    assert changes["64x64", "forward"] == changes["64x64", "params"] == "same"
    assert changes["224x224", "forward"] == "new"


def throughput(
    speed: float, processor: str = "One", version: str = "1", **of: object
) -> tuple[dict[str, object], dict[str, str]]:
    """A timed row and where it was measured; `of` may change a field at any depth, by its name."""
    setting = {"resolution": {"width": 224, "height": 224}, "device": "cpu", "batch": 1}
    setting |= {"dtype": "float32", "attention": "eager", "backward": False, "features": False}
    how = {"mode": "inference", "threads": 1, "compile": False, "channels_last": False}
    how |= {"flush": False, "budget": 5.0, "width": 0.02}
    row: dict[str, object] = {"model": "net", "outcome": "measured", "reason": None}
    row |= {"requested_batch": 1, "asked": 1, "gpus": 1, "processes": [], "seconds": 1 / speed}
    row |= {"images_per_second": speed, "setting": setting, "how": how}
    for name, value in of.items():
        next(part for part in (setting, how, row) if name in part)[name] = value
    return row, {"processor": processor, "torch": "2.6", "datbench": version}


def changes_of(
    run: Run, before: list[tuple[dict, dict]], now: list[tuple[dict, dict]]
) -> list[dict[str, str]]:
    """What a report of `now` says of the baseline `before`."""
    for name, rows in (("before", before), ("now", now)):
        _, environment = rows[0]
        text = dumps(document("throughput", [row for row, _ in rows], environment))
        Path(f"{name}.json").write_text(text)
    made = run(
        "report",
        *(*NOTHING, "--out", "out"),
        *("--from", "now.json", "--baseline", "before.json"),
    )
    assert made.code == 0, made.err
    return rows_of("out/csv/changes.csv")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("attention", "sdpa"), ("compile", True), ("channels_last", True), ("threads", 2)),
        *(("gpus", 2), ("flush", True), ("batch", 2), ("dtype", "bfloat16"), ("mode", "step")),
        ("device", "cuda"),
    ],
)
def test_a_speed_is_compared_at_its_own_setting_alone(run: Run, name: str, value: object) -> None:
    found = changes_of(run, [throughput(10.0)], [throughput(20.0, **{name: value})])
    assert sorted(row["change"] for row in found) == ["new", "not in this report"]
    assert len({row["detail"] for row in found}) == 2


def test_a_speed_keeps_its_figures(run: Run) -> None:
    """Of another datbench on the same machine; a machine of another kind is another row."""
    before = [throughput(2.45)]
    (row,) = changes_of(run, before, [throughput(7.36, version="2")])
    assert (row["before"], row["now"], row["change"]) == ("2.45", "7.36", "+4.91 (+200.41 %)")
    assert " 2.45 " in Path("out/comment.md").read_text()
    found = changes_of(run, before, [throughput(7.36, "Other")])
    assert sorted(row["change"] for row in found) == ["new", "not in this report"]


def test_two_runs_at_one_setting_are_two_rows(run: Run) -> None:
    found = changes_of(
        run, [throughput(10.0)], [throughput(10.0), throughput(30.0, reason="again")]
    )
    assert [(row["now"], row["change"]) for row in found] == [("30.0", "new"), ("10.0", "same")]
    assert found[0]["detail"] == f"{found[1]['detail']}, run 2"


def test_macs_are_compared_at_their_own_setting_alone(run: Run) -> None:
    run("flops", "dat_t", "--res", "64", "--attention", "sdpa", "--out", "before.json")
    run("report", *SMALL, "--baseline", "before.json", "--out", "out", "--res", "64")
    forward = [row for row in rows_of("out/csv/changes.csv") if row["what"] == "forward"]
    assert {row["change"] for row in forward} == {"new", "not in this report"}


def test_other_files_and_the_job_summary_stay(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("out/csv").mkdir(parents=True)
    Path("out/mine.txt").write_text("mine")
    Path("out/csv/models.csv").write_text("old")
    Path("summary.md").write_text("before\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", "summary.md")
    run(*"report dat_t --tables none --res 64 --plots none --out out".split())
    text = Path("summary.md").read_text()
    assert text.startswith("before\n### Benchmark report")
    assert "dat_t" in text
    assert Path("out/mine.txt").read_text() == "mine"
    assert "dat_t" in Path("out/csv/models.csv").read_text()
    assert {path.name for path in Path().iterdir()} == {"out", "summary.md"}  # nothing is left


FACTORY = """
import torch

class Net(torch.nn.Linear):
    def forward(self, x):
        return super().forward(x.mean((2, 3)))

def net():
    return Net(3, 5)

def broken():
    raise RuntimeError("no")
"""


@pytest.fixture
def _shop() -> None:
    Path("shop.py").write_text(FACTORY)


@pytest.mark.usefixtures("_shop")
def test_what_failed_is_told_everywhere(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rest is there; without attention there are no terms."""
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", "summary.md")
    rest = ("--tables", "none", "--res", "64", "--plots", "none", "--out", "out")
    made = run("report", "shop:net", "shop:broken", *rest)
    assert (made.code, made.out) == (0, "out/report.md\n")
    assert made.err.startswith("datbench: not in the report: shop:broken: ")
    assert not Path("out/csv/attention.csv").exists()
    text = Path("out/report.md").read_text()
    assert "shop:net" in text
    assert "## What could not be computed" in text
    assert "Not here: shop:broken: " in text
    for name in ("out/comment.md", "summary.md"):
        text = Path(name).read_text()
        assert "- Could not be computed: shop:broken: " in text
        # Without a section of times below it, a comment says the command itself.
        assert "see Time" not in text
        assert "`datbench throughput shop:net " in text


@pytest.mark.usefixtures("_shop")
def test_a_report_of_nothing_is_none(run: Run) -> None:
    broken = ("shop:broken", "--tables", "none", "--plots", "none", "--out", "out")
    complaint = run("report", *broken).complaint(5)
    assert "nothing could be computed: shop:broken: " in complaint
    assert not Path("out").exists()


REFUSED = {
    "": "--out DIR",
    "--out ''": "--out DIR",
    "--out file": "is a file",
    "--out no/where": "there is no directory",
    "--out out dat_x": "unknown model 'dat_x'",
    "--out out --tables 2,12": "unknown table '12'; there are 1, 2",
    "--out out none dat_t": "stands alone",
    "--out out none --input float:1x3x{H}x{W}": "--input is what models take",
    "--out out none --tables none": "nothing to report",
    "--out out none --res 64": "--res is the size of models; name one.",
    "--out out --plots gif": "choose one of svg, png, none",
    "--out out --res 12y0": "is not understood",
    "--out out --from none.json": "there is no file",
    "--out out --from norows.json": "holds no rows",
    "--out out --baseline none.json": "there is no file",
    "--out out --no-html": "--no-html is now --plots svg or none.",
}


@refused(REFUSED)
def test_bad_input(run: Run, words: str, said: str) -> None:
    Path("file").write_text("")
    Path("norows.json").write_text(dumps(document("flops", [], {})))
    none = "" if "--plots" in words else "--plots none"
    assert said in run(*shlex.split(f"report {none} {words}")).complaint()
    assert {path.name for path in Path().iterdir()} == {"file", "norows.json"}


def test_without_the_plotting_library(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *rest: None if name == "vl_convert" else find(name, *rest),
    )
    complaint = run("report", "dat_t", "--tables", "none", "--out", "out").complaint(5)
    assert "pip install vl-convert-python" in complaint
    assert "--plots none" in complaint
    assert not Path("out").exists()


def test_two_environments_are_told(run: Run) -> None:
    row = {"name": "x", "value": 1}
    for number, cpu in enumerate(("One", "Other")):
        text = dumps(document("env", [row], {"processor": cpu}))
        Path(f"{number}.json").write_text(text)
    run("report", *NOTHING, "--from", "0.json", "--from", "1.json", "--out", "out")
    text = Path("out/report.md").read_text()
    assert "| One" in text
    assert "| Other" in text


def test_a_name_ends_no_line_and_styles_nothing(run: Run) -> None:
    run("memory", "dat_t", "--res", "64", "--out", "memory.json")
    content = json.loads(Path("memory.json").read_text())
    content["rows"][0]["model"] = "**x**\n\\input{y} [a](http://b) _z_ <b>|x dat_t"
    Path("memory.json").write_text(json.dumps(content))
    run("report", *NOTHING, "--from", "memory.json", "--out", "out")
    text = Path("out/report.md").read_text()
    assert "\\*\\*x\\*\\*\\n" in text
    assert "[a]\\(http://b) \\_z\\_ &lt;b>\\|x dat_t" in text
    assert "[a](" not in text
    assert "<b>" not in text
    for path in Path("out/latex").iterdir():
        lines = path.read_text().splitlines()
        assert not any(line.lstrip().startswith("\\input") for line in lines)


def test_a_category_has_its_colour_whatever_else_is_there() -> None:
    """Without a backward nothing is saved: the others keep the colours that they have with it."""
    colours = {}
    for mode in ("inference", "backward"):
        row = memory_row(
            resolve("dat_t"), Setting(Resolution(32, 32), backward=mode != "inference"), mode
        )
        (chart,) = memory_charts([row])
        color = chart.spec["layer"][0]["encoding"]["color"]
        shown = {value["part"] for value in chart.spec["data"]["values"]}
        assert set(color["legend"]["values"]) == shown
        colours[mode] = dict(zip(color["scale"]["domain"], LIGHT, strict=True))
        assert shown <= set(colours[mode])
    assert colours["inference"] == colours["backward"]


def test_several_machines_stand_beside_each_other(run: Run) -> None:
    """And comparisons have their intervals drawn."""
    files = []
    for gpu, factor in (("Fast GPU", 2.0), ("Slow GPU", 1.0)):
        row = replace(sample(ThroughputRow), outcome="measured")
        rows = [
            replace(row, model=name, images_per_second=rate * factor)
            for name, rate in (("dat_t", 900.0), ("dat_s", 400.0))
        ]
        if gpu == "Slow GPU":
            rows.pop()
        name = f"{gpu[:4]}.json"
        place = {"gpus": [{"name": gpu}], "torch": "2.9"}
        Path(name).write_text(dumps(document("throughput", rows, place)))
        files += ["--from", name]
    compared = replace(
        sample(ComparisonRow), decision=Decision("same", 0.02, 0.98, 1.01, 1.0, 1.02)
    )
    Path("compare.json").write_text(dumps(document("compare", [compared], {})))
    assert run("report", *NOTHING, *files, "--from", "compare.json", "--out", "out").code == 0
    lines = rows_of(Path("out/csv/machines.csv"))
    assert [list(line.values()) for line in lines] == [
        ["dat_t", "1800.0", "900.0"],
        ["dat_s", "800.0", ""],
    ]
    assert "| Fast GPU |" in re.sub(" +", " ", Path("out/report.md").read_text())
