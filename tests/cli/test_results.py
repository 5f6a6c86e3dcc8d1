"""`datbench results`: files of every kind, and files that are broken."""

import csv
import io
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

import datbench
from datbench.records import load

from .runner import Run

MADE = {
    "flops": "flops dat_t --res 32",
    "flops-many": "flops dat_t dat_t_stages_4 --res 32",
    "flops-strict": "flops dat_t --res 32 --convention strict",
    "explain": "explain dat_t --res 32",
    "params": "params dat_t --by stage",
    "models": "models",
    "show": "show dat_t",
    "env": "env",
    "eq10": "eq10 dat_t --res 32",
    "eq10-fit": "eq10 fit height=7,14 width=7,14",
    "eq10-paper": "eq10 example",
    "memory": "memory dat_t --res 32",
    "memory-many": "memory dat_t dat_t_stages_4 --res 32",
    "memory-largest": "memory largest dat_t --res 32 --mode inference --memory 700MiB",
    "table": "table 6",
}
"""Every command that needs no time; the measured kinds are made in tests/test_records.py."""

DRAWN_ALIKE = set(MADE) - {"show"}
"""Of the other the fields stand in plain columns."""


@pytest.mark.parametrize("name", MADE)
def test_a_file_of_every_command_is_whole_and_shown(run: Run, name: str) -> None:
    command = MADE[name].split()
    assert run(*command, "--format", "json", "--out", "r.json").code == 0
    found = run("results", "validate", "r.json", "--format", "json").rows
    assert [(row["verdict"], row["problems"]) for row in found] == [("whole", [])]
    shown = run("results", "show", "r.json").text
    if name in DRAWN_ALIKE:
        assert shown == run(*command).text
    assert "───" in shown
    assert not any(line.endswith(" ") for line in shown.splitlines())
    assert "|:---" in run("results", "show", "r.json", "--format", "md").text
    latex = run("results", "show", "r.json", "--format", "latex").text
    assert latex.count(r"\toprule") == latex.count(r"\bottomrule") > 0
    assert json.loads(run("results", "show", "r.json", "--format", "json").text) == _read("r.json")
    head, *rows = csv.reader(io.StringIO(run("results", "show", "r.json", "--format", "csv").text))
    assert {len(row) for row in rows} == {len(head)}
    if name in DRAWN_ALIKE:
        as_csv = ("--format", "csv")
        own = run(*command, *as_csv).text
        assert run("results", "show", "r.json", *as_csv).text == own
        assert run("results", "convert", "r.json", "--to", "csv").text == own


def _read(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(Path(name).read_text())
    return content


def _flops(run: Run, out: str, *arguments: str) -> dict[str, Any]:
    run("flops", *arguments, "--res", "64", "--format", "json", "--out", out)
    return _read(out)


def test_each_element_of_a_list_is_a_row(run: Run) -> None:
    (row,) = _flops(run, "r.json", "dat_t")["rows"]
    lines = run("results", "convert", "r.json", "--to", "csv", "--by", "operators").lines
    assert [each["operators.name"] for each in lines] == [g["name"] for g in row["operators"]]
    assert sum(int(each["operators.amount"]) for each in lines) == row["amount"]
    assert {each["setting.backward"] for each in lines} == {"False"}
    counted = run("results", "convert", "r.json", "--to", "csv", "--by", "counted").lines
    assert {each["counted.name"]: int(each["counted.value"]) for each in counted} == row["counted"]
    assert run("results", "convert", "r.json", "--out", "r.tex").code == 0
    assert r"\toprule" in Path("r.tex").read_text()
    assert run("results", "convert", "r.json", "--out", "r.md").code == 0
    assert "counted" not in Path("r.md").read_text()


def test_pytest_benchmark_is_of_times(run: Run) -> None:
    _flops(run, "r.json", "dat_t")
    said = run("results", "convert", "r.json", "--to", "pytest-benchmark").complaint()
    assert "r.json holds flops; times are of throughput" in said


def test_parquet_has_the_same_figures(run: Run) -> None:
    pytest.importorskip("pyarrow")
    import pandas as pd

    (row,) = _flops(run, "r.json", "dat_t")["rows"]
    assert run("results", "convert", "r.json", "--out", "r.parquet").code == 0
    frame = pd.read_parquet("r.parquet")
    assert frame["amount"].tolist() == [row["amount"]]
    assert json.loads(frame["stages"][0]) == row["stages"]


def test_a_data_frame_has_the_same_figures(run: Run) -> None:
    rows = _flops(run, "r.json", "dat_t", "dat_s")["rows"]
    found = datbench.frame(Path("r.json"))
    assert found["amount"].tolist() == [row["amount"] for row in rows]
    assert found["setting.width"].tolist() == [64, 64]
    assert found["setting.backward"].tolist() == [False, False]
    operators = datbench.frame(load(Path("r.json")).rows, "operators")
    assert operators["operators.amount"].sum() == found["amount"].sum()


def test_parquet_without_a_writer(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("pyarrow", "fastparquet"):
        monkeypatch.setitem(sys.modules, name, None)
    _flops(run, "r.json", "dat_t")
    said = run("results", "convert", "r.json", "--out", "r.parquet").complaint(5)
    assert "pip install pyarrow" in said
    assert not Path("r.parquet").exists()
    said = run("results", "convert", "r.json", "--to", "parquet").complaint()
    assert "name a file" in said


def test_merging_loses_nothing(run: Run) -> None:
    a = _flops(run, "a.json", "dat_t", "dat_t_stages_4")
    b = _flops(run, "b.json", "dat_t_no_bias", "dat_t")
    assert run("results", "merge", "a.json", "b.json", "--out", "m.json").text == ""
    merged = _read("m.json")
    assert merged["rows"] == [*a["rows"], b["rows"][0]]
    assert {**merged, "rows": 0} == {**a, "rows": 0}
    assert run("results", "validate", "m.json").text


def test_rows_that_differ_are_refused_or_chosen(run: Run) -> None:
    a = _flops(run, "a.json", "dat_t")
    b = json.loads(json.dumps(a))
    b["rows"][0]["amount"] += 1
    Path("b.json").write_text(json.dumps(b))
    said = run("results", "merge", "a.json", "b.json", "--out", "m.json").complaint()
    assert "a.json and b.json differ about dat_t, 64x64, batch 1; keep one" in said
    assert not Path("m.json").exists()
    for keep, kept in (("first", a), ("last", b)):
        text = run("results", "merge", "a.json", "b.json", "--keep", keep).text
        assert json.loads(text)["rows"] == kept["rows"]


def test_two_environments_are_told_apart(run: Run) -> None:
    a = _flops(run, "a.json", "dat_t")
    b = json.loads(json.dumps(a))
    b["environment"]["torch"] = "0.4"
    Path("b.json").write_text(json.dumps(b))
    said = run("results", "merge", "a.json", "b.json").complaint()
    assert f"several environments (torch {a['environment']['torch']} and 0.4)" in said
    assert (
        run("results", "merge", "a.json", "b.json", "--across-machines", "--out", "m.json").code
        == 0
    )
    rows = _read("m.json")["rows"]
    assert [row["measured_in"]["torch"] for row in rows] == [a["environment"]["torch"], "0.4"]
    assert run("results", "validate", "m.json").text
    shown = run("results", "show", "m.json").text.splitlines()
    assert shown[1].endswith("measured on")
    assert [line.rpartition("torch ")[2] for line in shown[3:5]] == [
        a["environment"]["torch"],
        "0.4",
    ]
    assert "measured on" not in run("results", "show", "a.json").text
    again = run("results", "merge", "m.json", "a.json", "--across-machines").text
    assert json.loads(again)["rows"] == rows


def test_no_two_rows_of_a_file_are_merged(run: Run) -> None:
    """A gate's rows differ in nothing but what they are of in words."""
    Path("merged_net.py").write_text(
        "from torch import nn\n\n\ndef make():\n    return nn.Conv2d(3, 4, 4)"
    )
    held = ("memory", "merged_net:make", "--res", "64", "--batch", "2,3", "--out", "held.json")
    assert run(*held).code == 0
    added = ("merged_net:make", "--res", "64", "--from", "held.json")
    assert run("gate", "update", "--baseline", "b.json", *added).code == 0
    assert run("gate", "--baseline", "b.json", "--format", "json", "--out", "g.json").code == 0
    rows = _read("g.json")["rows"]
    assert len(rows) == 3
    assert json.loads(run("results", "merge", "g.json", "g.json").text)["rows"] == rows
    other = {**rows[1], "detail": "batch 2, step"}  # of the same model and setting
    Path("i.json").write_text(json.dumps(_read("g.json") | {"rows": [other]}))
    both = json.loads(run("results", "merge", "g.json", "i.json").text)["rows"]
    assert both == [*rows, other]
    for row in rows:  # now nothing tells two of them apart
        row["detail"], row["what"] = "text", "memory"
        row["setting"] = rows[0]["setting"]
    Path("h.json").write_text(json.dumps(_read("g.json") | {"rows": rows}))
    merged = run("results", "merge", "h.json", "h.json", "--keep", "first").text
    assert json.loads(merged)["rows"] == rows


def test_kinds_are_not_merged(run: Run) -> None:
    _flops(run, "a.json", "dat_t")
    run("models", "--format", "json", "--out", "b.json")
    said = run("results", "merge", "a.json", "b.json").complaint()
    assert "a.json holds 'flops' and b.json 'models'" in said


def _params(rows: str) -> str:
    head = '{"format": "datbench", "version": 1, "kind": "params", "environment": {}, "rows": '
    return f"{head}{rows}}}"


BROKEN = {
    "is empty": "",
    "is not complete JSON": '{"format": "datbench", "ver',
    "is not a datbench result": '{"benchmarks": []}',
    "version must be a whole number": '{"format": "datbench", "version": "1"}',
    "'version' stands twice": '{"format": "datbench", "version": 1, "version": 1}',
    "reads up to 3. Upgrade datbench": '{"format": "datbench", "version": 4}',
    "kind must be text": '{"format": "datbench", "version": 1}',
    "holds 'x', which this datbench does not know": _params("[]").replace("params", "x"),
    "row 1: must be an object": _params("[3]"),
    "row 1, params: must not be negative": _params(
        '[{"model": "m", "params": -1, "frozen": 0, "buffers": 0}]'
    ),
    "row 1, params: must be a number below 1e+30": _params(
        f'[{{"model": "m", "params": 1{"0" * 400}, "frozen": 0, "buffers": 0}}]'
    ),
    "row 1, buffers: must be a finite number, not nan": _params(
        '[{"model": "m", "params": 1, "frozen": 0, "buffers": NaN}]'
    ),
}

READERS = """
results show f.json
results merge good.json f.json
results convert --to csv f.json
compare files f.json f.json
gate --baseline f.json
gate update --baseline b.json --from f.json
report none --tables none --plots none --out out --from f.json
report none --tables none --plots none --out out --from good.json --baseline f.json
plot cost --from f.json
summary --from f.json
"""
"""Every command that reads a result file."""


@pytest.fixture(scope="module")
def good() -> dict[str, str]:
    """A file that is whole, made once."""
    return {}


@pytest.mark.parametrize("said", BROKEN)
def test_what_is_broken_is_said_by_every_command(run: Run, good: dict[str, str], said: str) -> None:
    Path("f.json").write_text(BROKEN[said])
    if not good:
        _flops(run, "good.json", "dat_t")
        good["text"] = Path("good.json").read_text()
    Path("good.json").write_text(good["text"])
    done = run("results", "validate", "good.json", "f.json")
    assert done.code == 2
    assert "1 of 2 files are broken: f.json" in done.err
    assert said in done.err
    assert "whole" in done.out
    assert "broken" in done.out
    for words in READERS.strip().splitlines():
        line = run(*words.split()).complaint()
        assert said.removeprefix("row 1, ").partition(":")[0] in line or "'params'" in line, words


@pytest.mark.parametrize("path", ["none.json", ".", "binary.json"])
def test_what_cannot_be_read(run: Run, path: str) -> None:
    Path("binary.json").write_bytes(b"\xff\xfe\x00")
    for command in ("show", "validate"):
        assert path in run("results", command, path).err
        assert run("results", command, path).code == 2


def test_no_file_is_overwritten_by_a_failure(run: Run) -> None:
    _flops(run, "a.json", "dat_t")
    Path("out").mkdir()
    assert "is a directory" in run("results", "merge", "a.json", "--out", "out").complaint()
    assert (
        "is a directory"
        in run("results", "convert", "a.json", "--to", "csv", "--out", "out").complaint()
    )
    assert "say what to write" in run("results", "convert", "a.json").complaint()
    said = run("results", "convert", "a.json", "--to", "csv", "--by", "names").complaint()
    assert "they have setting, stages, operators, modules" in said
    if os.geteuid():
        Path("a.json").chmod(0)
        assert "Permission" in run("results", "show", "a.json").complaint()
