"""`datbench compare files`."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from datbench.records import document, dumps
from datbench.setting import How, Resolution, Setting
from datbench.timing.records import ProcessTiming, ThroughputRow, TimeOutcome, Timing

from .runner import Run

HERE = {"processor": "One CPU", "cpus": 2, "gpus": [], "torch": "2.8.0", "python": "3.11.2"}
OTHER = {**HERE, "processor": "Another CPU"}


def row(
    seconds: Sequence[float],
    model: str = "dat_t",
    outcome: TimeOutcome = "measured",
    environment: dict[str, Any] = HERE,
    **changed: Any,
) -> ThroughputRow:
    processes = tuple(
        ProcessTiming(
            outcome,
            None if outcome == "measured" else "a reason",
            Timing((s,), (), 1, "interval", s, s, s, 0.95) if outcome == "measured" else None,
            1,
            environment=environment,
        )
        for s in seconds
    )
    how = How(**changed)
    setting = Setting(Resolution(224, 224), 8, device="cpu")
    return ThroughputRow(model, setting, how, outcome, None, 8, len(seconds), 1, processes)


def spread(middle: float, scatter: float = 0.001, count: int = 8) -> list[float]:
    return [middle * (1 + scatter * (i - count / 2)) for i in range(count)]


@pytest.fixture
def write(tmp_path: Path) -> Any:
    def write(name: str, *rows: ThroughputRow) -> str:
        path = tmp_path / f"{name}.json"
        path.write_text(dumps(document("throughput", rows, HERE)))
        return str(path)

    return write


@pytest.mark.parametrize(
    ("b", "verdict", "code"),
    [
        (spread(1.0), "same", 0),
        (spread(0.9), "faster", 0),
        (spread(1.05), "slower", 1),
        (spread(1.0, 0.02), "ambiguous", 4),
        (spread(2.0, count=2), "ambiguous", 4),
    ],
)
def test_verdicts_and_exit_codes(
    run: Run, write: Any, b: list[float], verdict: str, code: int
) -> None:
    found = run(
        "compare", "files", write("a", row(spread(1.0))), write("b", row(b)), "--format", "json"
    )
    assert found.code == code, found.err
    (only,) = json.loads(found.out)["rows"]
    assert only["decision"]["verdict"] == verdict
    assert only["rate_a"] == pytest.approx(8, rel=0.01)
    assert only["order"] is None
    assert len(only["runs"]) == 8 + len(b)


def test_what_is_missing_failed_or_sampled_longer(run: Run, write: Any) -> None:
    a = write("a", row(spread(1)), row(spread(1), "dat_s"))
    b = write("b", row(spread(1)), row(spread(1), compile=True))
    found = run("compare", "files", a, b)
    assert found.code == 3
    assert "missing in 2 of 3 rows; the first is dat_s, 224x224, batch 8, cpu: missing" in found.err
    assert found.out.count("missing: ") == 2
    assert "were not interleaved" in found.out
    # A regression counts before what is missing.
    assert run("compare", "files", a, write("b", row(spread(1.1)))).code == 1
    one = write("one", row(spread(1)))
    assert (
        run("compare", "files", one, write("b", row(spread(1), budget=9.0, width=0.01))).code == 0
    )
    found = run("compare", "files", one, write("b", row([1.0] * 2, outcome="out of memory")))
    assert found.code == 5
    assert "failed: B out of memory: a reason" in found.err
    found = run("compare", "files", one, write("b", row(spread(1.0, 0.02))))
    assert found.code == 4
    assert "`datbench throughput --processes" in found.err
    assert "(--processes" not in found.err


def test_different_machines_are_refused_and_other_versions_are_noted(run: Run, write: Any) -> None:
    """Row by row: files of two machines are fine where the same rows are of the same one."""
    here, there = row(spread(1)), row(spread(1), environment=OTHER)
    a, b = write("a", here), write("b", there)
    refused = run("compare", "files", a, b).complaint(2)
    assert "different machines (processor One CPU and Another CPU)" in refused
    text = run("compare", "files", a, b, "--across-machines").text
    assert "Warning: the files are from different machines: processor One CPU" in text
    other = replace(there, model="dat_s")
    both = write("both", here, other)
    assert run("compare", "files", both, both).code == 0
    refused = run("compare", "files", both, write("c", other, there)).complaint(2)
    assert "processor One CPU and Another CPU" in refused
    newer = {**HERE, "torch": "2.9.0", "gpus": [{"name": "a GPU beside the CPU"}]}
    text = run("compare", "files", a, write("d", row(spread(1), environment=newer))).text
    assert "Warning: torch 2.8.0 for A, 2.9.0 for B." in text
    text = run("compare", "files", a, mixed(a, HERE, {**HERE, "torch": "2.9.0"})).text
    assert "Warning: torch 2.8.0, 2.9.0 for A, 2.8.0, 2.9.0 for B." in text


DAMAGED = {
    "row 1: processes[1].timing.middle": ('"median"', '"middle"'),
    "must be seconds of a call": ('"median": 1', '"median": -1'),
    "not 1e-300": ('"median": 1.0', '"median": 1e-300'),
    "not lie among the samples": ('"median": 1.0', '"median": 3.0'),
    "must be a number": ('"median": 1.0', '"median": "1"'),
    "processes[1].threads": ('"threads": 1', '"threads": [1]'),
    "processes[1].threads: ": ('"threads": 1', '"threads": "x"'),
    "a number from 1, not -1": ('"threads": 1', '"threads": -1'),
    "gpus: must be a number from 1": ('"gpus": 1', '"gpus": 0'),
    "rows must be a list": ('"rows"', '"lines"'),
    "does not say what machine": ('"processor"', '"p"'),
}
"""What a file is refused with in which some text is replaced."""


@pytest.mark.parametrize("said", DAMAGED)
def test_damaged_files_are_refused(run: Run, write: Any, said: str) -> None:
    a, b = write("a", row([1.0])), Path(write("b", row([1.0])))
    b.write_text(b.read_text().replace(*DAMAGED[said]))
    assert said in run("compare", "files", a, str(b)).complaint(2)


def test_files_without_times_are_refused(run: Run, write: Any) -> None:
    nothing = write("nothing")
    assert "neither" in run("compare", "files", nothing, nothing).complaint(3)
    Path(nothing).write_text(dumps(document("flops", [], {})))
    assert "holds 'flops'" in run("compare", "files", nothing, nothing).complaint()


def test_batches_that_cannot_be_are_refused_in_both_files(run: Run, write: Any) -> None:
    path = write("a", row([1.0]))
    content = json.loads(Path(path).read_text())
    for batch in (0, -1, "8", [8], 1 << 40):
        content["rows"][0]["setting"]["batch"] = batch
        Path(path).write_text(json.dumps(content))
        assert "a.json, row 1: setting" in run("compare", "files", path, path).complaint(2)


def mixed(path: str, first: dict[str, Any], second: dict[str, Any], threads: int = 1) -> str:
    """The file with the first half of its processes in one environment, the rest in another."""
    content = json.loads(Path(path).read_text())
    for only in content["rows"]:
        for number, each in enumerate(only["processes"]):
            late = number >= len(only["processes"]) // 2
            each["environment"] = second if late else first
            each["threads"] = threads if late else 1
    Path(path).write_text(json.dumps(content))
    return path


@pytest.mark.parametrize("across", [(), ("--across-machines",)])
def test_a_row_that_mixes_machines_is_refused(
    run: Run, write: Any, across: tuple[str, ...]
) -> None:
    good = write("good", row(spread(1)))
    bad = mixed(write("bad", row(spread(1))), HERE, OTHER)
    for pair in ((good, bad), (bad, good), (bad, bad)):
        said = run("compare", "files", *pair, *across).complaint(2)
        assert "mixes machines in one row, dat_t, 224x224" in said
        assert "processor Another CPU and One CPU" in said
    bad = mixed(write("threads", row(spread(1))), HERE, HERE, threads=2)
    assert "(threads 1 and 2)" in run("compare", "files", good, bad, *across).complaint(2)


def test_files_merged_from_two_machines_are_refused(run: Run, write: Any, tmp_path: Path) -> None:
    """`results merge --mixed` leaves two rows of one model, each with its own machine."""
    a, b = write("a", row(spread(1))), write("b", row(spread(1), environment=OTHER))
    content = json.loads(Path(b).read_text())
    Path(b).write_text(json.dumps({**content, "environment": OTHER}))
    merged = str(tmp_path / "merged.json")
    assert run("results", "merge", a, b, "--across-machines", "--out", merged).code == 0
    assert "mixes machines in one row" in run("compare", "files", a, merged).complaint(2)


def test_speed_counts_every_gpu(run: Run, write: Any) -> None:
    two = replace(row(spread(1.0)), gpus=2)
    found = run("compare", "files", write("a", two), write("b", two), "--format", "json")
    (only,) = json.loads(found.out)["rows"]
    assert only["rate_a"] == pytest.approx(2 * 8, rel=0.01)
    assert only["rate_b"] == pytest.approx(2 * 8, rel=0.01)
