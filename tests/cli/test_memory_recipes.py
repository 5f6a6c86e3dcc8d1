"""`datbench memory` with an optimizer, autocast and checkpointing."""

import csv
import io
from pathlib import Path

import pytest

from .runner import Run


def _line(text: str, start: str) -> str:
    """The line that starts so, with single blanks."""
    return next(" ".join(x.split()) for x in text.splitlines() if x.startswith(start))


def test_a_full_step(run: Run) -> None:
    arguments = ("memory", "dat_t", "--mode", "step", "--batch", "8")
    text = run(*arguments).text
    assert text.startswith("dat_t: peak 1.2 GiB, 904.2 MiB kept for backward (224x224, batch 8, ")
    assert "full step, adamw)" in text.splitlines()[0]
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
    (row,) = run("memory", "dat_t", "--res", "64", "--mode", "train", "--format", "json").rows
    (line,) = [line for line in row["lines"] if line["category"] == "optimizer"]
    assert (line["amount"], line["reason"]) == (None, "no optimizer's step was made")
    assert row["recipe"]["optimizer"] is None


def test_autocast_and_checkpointing(run: Run) -> None:
    arguments = ("memory", "dat_t", "--batch", "8", "--mode", "train")
    found = {}
    for extra in ((), ("--autocast", "bfloat16"), ("--checkpointing", "block")):
        (row,) = run(*arguments, *extra, "--format", "json").rows
        found[extra] = {line["category"]: line["amount"] for line in row["lines"]}
    plain, cast, saving = found.values()
    assert 0.5 < cast["kept"] / plain["kept"] < 0.85
    assert saving["kept"] < plain["kept"] / 8
    assert plain["gradients"] == cast["gradients"] == saving["gradients"]
    both = ("--autocast", "float16", "--checkpointing", "block")
    title = " ".join(run(*arguments, *both).text.split("(", 1)[1].split(")", 1)[0].split())
    assert title == (
        "224x224, batch 8, float32, autocast to float16, eager attention, training, "
        "block checkpointing"
    )


def test_a_recipe_is_in_every_csv_row(run: Run) -> None:
    arguments = ("memory", "dat_t", "dat_s", "--res", "64", "--mode", "step", "--autocast")
    rows = list(csv.DictReader(io.StringIO(run(*arguments, "bfloat16", "--format", "csv").text)))
    assert [row["optimizer"] for row in rows] == ["adamw"] * 2
    assert [row["autocast"] for row in rows] == ["bfloat16"] * 2
    assert [row["checkpointing"] for row in rows] == [""] * 2
    assert all(int(row["optimizer_state"]) > 2 * int(row["parameters"]) for row in rows)


def test_a_full_step_is_verified(run: Run) -> None:
    arguments = ("memory", "dat_t", "--res", "64", "--mode", "step", "--checkpointing", "block")
    (row,) = run(*arguments, "--verify", "--format", "json").rows
    assert row["measured"]["peak"] == pytest.approx(row["peak"]["amount"], rel=0.02)
    assert row["measured"]["at_end"] == pytest.approx(row["at_end"], rel=1e-3)


def test_models_that_cannot_be_checkpointed(run: Run, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "net_without_blocks.py").write_text(
        "from torch import nn\ndef net():\n    return nn.Conv2d(3, 8, 4, 4)\n", encoding="utf-8"
    )
    arguments = ("memory", "net_without_blocks:net", "--res", "64", "--checkpointing", "block")
    assert "Conv2d cannot be checkpointed" in run(*arguments).complaint(2)
