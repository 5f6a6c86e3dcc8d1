"""`datbench eq10` as a user meets it."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from datbench.eq10 import measured
from datbench.eq10.records import Measurements
from tests.row_samples import sample

from .runner import Run


def test_without_a_model_it_is_dat_t_at_two_sizes(run: Run) -> None:
    text = run("eq10", "--check").text
    assert "dat_t at 224x224, stage 3, DMHA (stages.2.blocks.1.mixer and 2 more like it)" in text
    assert "dat_t at 1280x800, stage 3, DMHA" in text
    assert "HW=50x80, Ns=4000" in text
    assert "interpolation of the position bias  4 M HW Ns" in text
    assert "FAILS" not in text


def test_one_stage(run: Run) -> None:
    rows = run("eq10", "dat_t", "--stage", "3", "--format", "json").rows
    assert [row["kind"] for row in rows] == ["W-MSA", "DMHA"] * 3
    assert {row["stage"] for row in rows} == {3}
    dmha = rows[1]
    assert dmha["counted"] == 149_662_464 == sum(t["counted"] for t in dmha["terms"])
    assert dmha["sizes"] == {
        "height": 14, "width": 14, "keys": 196, "dim": 384, "heads": 12, "kernel": 5,
        "stride": 1, "groups": 3,
    }  # fmt: skip


def test_models_stand_in_one_table(run: Run) -> None:
    names = ["dat_t_ddetr_196_49", "datpp_t", "dat_t_sra", "dat_t"]
    text = run("eq10", *names, "--stage", "1", "--notes").text
    table = text.partition("\n\n")[0]
    assert all(name in table for name in names)
    assert "NA: 4 HW C² + 2 s² HW C" in text
    assert "SRA: 2 HW C² + 2 Ns C²" in text
    assert "W-MSA: 4 HW C² + 2 s² HW C (Swin, Eq. 2)" in text


def test_terms_of_deformable_modules_unless_all(run: Run) -> None:
    assert "stage 3, W-MSA" not in run("eq10", "dat_t").text
    assert "stage 3, W-MSA" in run("eq10", "dat_t", "--notes").text
    assert "stage 1, SRA" in run("eq10", "dat_t_sra", "--stage", "1").text


def test_csv_is_one_row_a_term(run: Run) -> None:
    rows = run("eq10", "dat_t", "--res", "640x480", "--format", "csv").lines
    assert len(rows) == 8 * 2 + 4 * 7
    assert all(row["predicted"] == row["counted"] for row in rows)
    assert all((row["residual"] == "0") is (row["cause"] == "") for row in rows)


def test_kinds_of_attention_in_one_table(run: Run) -> None:
    text = run("eq10", "kinds", "--check").text
    lines = [line.split() for line in text.splitlines()]
    assert ["MSA", "14x14", "196", "384", "12", "-", "1", "exact"] in [x[:8] for x in lines]
    for name in ("DMHA r=1", "DMHA r=2", "MSA", "SRA R=2", "W-MSA s=7", "NA s=7", "D-DETR K=4"):
        assert text.count(f"\n{name} ") == 2
    rows = run("eq10", "kinds", "--res", "640", "--format", "json").rows
    assert {(row["sizes"]["height"], row["sizes"]["width"]) for row in rows} == {(40, 40)}
    assert len(rows) == 7


def test_fit(run: Run) -> None:
    text = " ".join(run("eq10", "fit", "--check").text.split())
    assert "Ns C 11 2 2 2 offset network + 5 LayerNorm" in text
    assert "186 held-out modules are met exactly" in text
    (row,) = run(*"eq10 fit height=7,14 width=7,14 --convention torch --format json".split()).rows
    assert all(c["fitted"] == str(c["paper"]) for c in row["coefficients"])


def test_paper(run: Run) -> None:
    text = run("eq10", "example").text
    assert "5.08M" in text
    assert "slipped decimal" in text
    assert "122.9814" in text


@pytest.mark.parametrize("interrupted", [False, True])
def test_measure(run: Run, monkeypatch: pytest.MonkeyPatch, interrupted: bool) -> None:
    """What is asked for, and what is kept; tests/eq10/test_measured.py measures."""
    asked: dict[str, Any] = {}

    def measure(**how: Any) -> Measurements:
        asked.update(how)
        return replace(sample(Measurements), interrupted=interrupted)

    monkeypatch.setattr(measured, "measure", measure)
    arguments = ("eq10", "time", "--res", "128,144,160", "--budget", "1.5", "--out", "t.json")
    assert run(*arguments).code == (130 if interrupted else 0)
    assert (asked["sides"], asked["budget"], asked["batch"]) == ((8, 9, 10), 1.5, 1)
    assert (asked["dim"], asked["heads"], asked["groups"], asked["kernel"]) == (384, 12, 3, 5)
    (row,) = json.loads(Path("t.json").read_text())["rows"]
    assert [point["kind"] for point in row["points"]]
    assert run("results", "show", "t.json").text
