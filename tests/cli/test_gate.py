"""`datbench gate`: what fails, with which code, and what is named."""

import csv
import io
import json
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch

from datbench.counting.rules import RULES
from datbench.errors import MeasurementError
from datbench.gate.baseline import again, count_baseline
from datbench.gate.files import public, read_baseline
from datbench.gate.records import CountBaseline
from datbench.gate.verdicts import judged
from datbench.models.dat import REGISTRY
from datbench.records import document, dumps
from datbench.setting import How, Kind, Resolution, Setting
from datbench.timing.records import ProcessTiming, ThroughputRow, Timing

from .runner import Run

ROOT = Path(__file__).parents[2]

NET = """
import random

import numpy
import torch
from torch import nn

WIDTH, NAME, BROKEN = 12, "proj", False


def make():
    if BROKEN:
        raise RuntimeError("no weights here")
    net = nn.Sequential(nn.Conv2d(3, 8, 4, 4))
    for n in range(3):
        block = nn.Sequential()
        block.add_module(NAME, nn.Conv2d(8, WIDTH if n == 1 else 12, 1, bias=False))
        block.add_module("back", nn.Conv2d(WIDTH if n == 1 else 12, 8, 1, bias=False))
        net.add_module(f"{n + 1}", block)
    return net


def other():
    return make()


class Chosen(nn.Module):
    \"\"\"Goes on with the pixels whose first feature is positive, and sometimes once more.\"\"\"

    def __init__(self):
        super().__init__()
        self.proj, self.head = nn.Conv2d(3, 4, 4, 4), nn.Linear(4, 4)

    def forward(self, x):
        y = self.proj(x).flatten(2).transpose(1, 2)[0]
        y = self.head(y[torch.rand(len(y)) < 0.5])
        for each in (random.random(), numpy.random.rand()):
            y = self.head(y) if each < 0.5 else y
        return y
"""


@pytest.fixture
def net(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    (tmp_path / "gate_net.py").write_text(NET)
    monkeypatch.syspath_prepend(tmp_path)
    import gate_net

    return gate_net


WRITTEN: dict[str, str] = {}
"""The baseline of `baseline`, made once."""


@pytest.fixture
def baseline(run: Run, net: Any) -> str:
    if "b.json" not in WRITTEN:
        words = "memory gate_net:make --res 64 --batch 2 --out held.json"
        assert run(*words.split()).code == 0
        added = ("gate_net:make", "--res", "64", "--from", "held.json")
        text = run("gate", "update", "--baseline", "b.json", *added).text
        assert text.startswith("b.json: 2 new, 0 changed, 0 removed, 0 the same")
        WRITTEN["b.json"] = Path("b.json").read_text()
    Path("b.json").write_text(WRITTEN["b.json"])
    return "b.json"


@contextmanager
def edited(path: str) -> Iterator[dict[str, Any]]:
    """A JSON file's content, written back as it is left."""
    content = json.loads(Path(path).read_text())
    yield content
    text = json.dumps(content)
    Path(path).write_text(text)


def _code(run: Run, *arguments: str, code: int) -> tuple[str, str]:
    done = run("gate", *arguments)
    assert done.code == code, done.err
    (line,) = done.err.splitlines() or [""]
    return done.out, line


@pytest.mark.parametrize(
    "names",
    [
        ("dat_t", "dat_t_ddetr_16_16"),
        pytest.param(tuple(REGISTRY), marks=pytest.mark.slow, id="all"),
    ],
)
def test_the_projects_own_variants_are_as_their_baseline_says(
    run: Run, names: tuple[str, ...]
) -> None:
    """If this fails, run `datbench gate --baseline baselines/variants.json`, as CI's gate does.

    The forward of every variant is in a paper's table too.
    """
    baseline = json.loads((ROOT / "baselines" / "variants.json").read_text())
    assert {row["model"] for row in baseline["rows"]} == set(REGISTRY)
    baseline["rows"] = [row for row in baseline["rows"] if row["model"] in names]
    Path("b.json").write_text(json.dumps(baseline))
    done = run("gate", "--baseline", "b.json", "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(done.out)))
    assert {row["model"] for row in rows} == set(names)
    moved = [row for row in rows if row["verdict"] != "same"]
    written_with = baseline["environment"]["torch"]
    if public(torch.__version__) == public(written_with):
        assert moved == []
        assert done.code == 0
    # Another torch may differentiate with other operators, such as `ge` in place of `gt`: what the
    # forward computes is the same in all.
    assert [row for row in moved if row["detail"] == "batch 1, forward"] == []


def test_unchanged_code_passes_in_every_format(run: Run, baseline: str) -> None:
    for form in ("table", "md", "json", "csv", "latex"):
        text = run("gate", "--baseline", baseline, "--format", form).text
        assert ("nothing has changed" in text) == (form not in ("json", "csv"))
        if form == "json":
            content = json.loads(text)
            assert content["kind"] == "gate"
            assert [row["verdict"] for row in content["rows"]] == ["same", "same"]


def test_a_wider_layer_is_found_and_named_and_a_smaller_one_may_be_allowed(
    run: Run, baseline: str, net: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The job's summary is appended to."""
    Path("summary.md").write_text("before\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", "summary.md")
    net.WIDTH = 13
    out, line = _code(run, "--baseline", baseline, code=1)
    assert "2.proj conv2d" in out
    assert "2.proj.weight" in out
    assert "12x8x1x1 -> 13x8x1x1" in out
    assert "2.proj conv2d: conv 24,576 -> 26,624" in line
    assert "1.proj" not in out  # nothing else is blamed
    assert "3.proj" not in out
    summary = Path("summary.md").read_text()
    assert summary.startswith("before\n")
    assert "2.proj conv2d" in summary
    monkeypatch.delenv("GITHUB_STEP_SUMMARY")
    rows = json.loads(_code(run, "--baseline", baseline, "--format", "json", code=1)[0])["rows"]
    assert [(row["what"], row["verdict"], row["direction"]) for row in rows] == [
        ("count", "changed", "more"),
        ("memory", "changed", "more"),
    ]
    assert Path("summary.md").read_text() == summary
    net.WIDTH = 11
    out, _ = _code(run, "--baseline", baseline, code=1)
    assert "fewer" in out
    assert "nothing" not in _code(run, "--baseline", baseline, "--allow-fewer", code=0)[0]
    # A summary that cannot be written changes no verdict.
    net.WIDTH = 12
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", "nowhere/summary.md")
    done = run("gate", "--baseline", baseline)
    assert done.code == 0
    assert "nothing has changed" in done.out
    assert "could not write the job summary nowhere/summary.md" in done.err


def test_one_mac_of_a_rule_is_found_and_named(
    run: Run, baseline: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rule = RULES["aten::conv2d"]

    def heavier(args: Any, kwargs: Any, out: Any) -> dict[Kind, int]:
        cost = dict(rule(args, kwargs, out))
        if args[1].shape[0] == 8 and args[1].shape[1] == 3:
            cost[Kind.CONV] += 1
        return cost

    from datbench.counting import operators

    monkeypatch.setitem(RULES, "aten::conv2d", heavier)
    monkeypatch.setattr(operators, "_plans", {})
    out, line = _code(run, "--baseline", baseline, code=1)
    assert "fvcore MACs forward" in out
    assert line.endswith("0 conv2d: conv 98,304 -> 98,305.")


def test_random_work_is_the_same_in_every_process_and_no_regression_where_it_changes(
    run: Run, net: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from datbench.gate import baseline as gate_baseline

    added = ("gate_net:Chosen", "--res", "64", "--mode", "inference")
    assert run("gate", "update", "--baseline", "b.json", *added).code == 0
    state = random.getstate()
    for seed in (5, 6, 7):  # as in another process
        torch.manual_seed(seed)
        random.seed(seed)
        numpy.random.seed(seed)
        assert "nothing has changed" in run("gate", "--baseline", "b.json").text
    random.setstate(state)
    monkeypatch.setattr(gate_baseline, "SEEDS", (2, 3))  # as if the model asked for one value more
    monkeypatch.setattr(gate_baseline.again, "__defaults__", (2,))
    _, line = _code(run, "--baseline", "b.json", code=5)
    assert "depends on random values or weights" in line


def test_no_false_alarm(baseline: str) -> None:
    """Forward, backward and memory of a small model, and the forward of a large one."""
    spec = REGISTRY.get("dat_t_stages_4")
    rows = [*read_baseline(Path(baseline))[0], count_baseline(spec, Setting(spec.resolution))]
    for _ in range(10):
        assert [judged(row, again(row)).verdict for row in rows] == ["same"] * 3


def test_a_renamed_module_is_missing(run: Run, baseline: str, net: Any) -> None:
    net.NAME = "inner"
    out, line = _code(run, "--baseline", baseline, code=3)
    assert "renamed inside the model" in line
    assert "{1-3}.proj" in out
    assert "proj -> inner" in out


def test_a_model_that_is_gone_is_missing(run: Run, baseline: str, net: Any) -> None:
    del net.make
    _, line = _code(run, "--baseline", baseline, code=3)
    assert "unknown factory 'make'" in line
    before = Path(baseline).read_text()
    said = run("gate", "update", "--baseline", baseline).complaint(3)
    assert "unknown factory 'make'" in said
    assert said.endswith("to leave it out: --remove gate_net:make.")
    assert Path(baseline).read_text() == before


def test_other_versions_are_said(run: Run, baseline: str) -> None:
    with edited(baseline) as content:
        content["environment"] |= {"torch": "1.0.0+x", "timm": "0.0.1"}
        content["rows"][0]["totals"]["fvcore"]["backward"] += 1  # as another autograd may do
    done = run("gate", "--baseline", baseline)
    assert done.code == 3
    assert f"The baseline is of torch 1.0.0+x, this is {torch.__version__}." in done.out
    assert "The baseline is of timm 0.0.1, this is " in done.out
    with edited(baseline) as content:
        content["rows"][0]["totals"]["fvcore"]["forward"] += 1
    _, line = _code(run, "--baseline", baseline, code=1)
    assert "fvcore MACs forward 24" in line  # of totals alone too


EDITED: dict[str, dict[str, Any]] = {
    "row 1: news: is not a known field.": {"news": 1},
    "row 1: params: must not be negative": {"params": -1},
    "row 1: params: must be a number below 1e+30": {"params": 10**400},
    "row 1: totals: no convention is there.": {"totals": {}},
    "row 1: how.bogus: is not a known field": {"how": {"bogus": 1}},
    "row 1: how.gpus: must be a number from 1, not 'x'": {"how": {"gpus": "x"}},
    "row 1: how.mode: must be one of": {"how": {"mode": 7}},
    "row 1: seconds: no process is there": {"seconds": []},
    "row 1: seconds: a call takes more than 0": {"seconds": [0]},
    "row 1: seconds: must be seconds of a call": {"seconds": [1e9]},
    "row 1: seconds[1]: must be a number below 1e+30": {"seconds": [10**400]},
}
"""What a row that somebody edited is refused with, and how it was edited: of counts, of times."""


@pytest.mark.parametrize("said", EDITED)
def test_a_row_that_was_edited_is_refused(run: Run, baseline: str, said: str) -> None:
    of_times = EDITED[said].keys() <= {"how", "seconds"}
    if of_times:
        Path(baseline).unlink()
        Path("t.json").write_text(_times())
        assert run("gate", "update", "--baseline", baseline, "--from", "t.json").code == 0
    with edited(baseline) as content:
        content["rows"][0] |= EDITED[said]
    assert said in run("gate", "--baseline", baseline, *["--time"] * of_times).complaint()
    if not of_times:
        short = said.removeprefix("row 1: ").rstrip(".")
        assert short in run("results", "validate", baseline).err


def test_a_convention_that_is_gone_is_missing(run: Run, baseline: str) -> None:
    with edited(baseline) as content:
        del content["rows"][0]["totals"]["fvcore"]
    _, line = _code(run, "--baseline", baseline, code=3)
    assert "fvcore forward, fvcore backward: in what is compared with it alone" in line


def test_the_baseline_is_not_written_over(run: Run, baseline: str) -> None:
    Path("link.json").symlink_to(baseline)
    Path("hard.json").hardlink_to(baseline)
    before = Path(baseline).read_text()
    for out in (baseline, f"./{baseline}", "link.json", "hard.json"):
        said = run("gate", "--baseline", baseline, "--out", out).complaint()
        assert f"is {baseline}, which is read" in said
        assert "which is read" in run("results", "merge", baseline, "--out", out).complaint()
        assert "which is read" in run("results", "convert", baseline, "--out", out).complaint()
    Path("t.json").write_text(_times())
    given = ("--baseline", baseline, "--from", "t.json")
    assert "t.json, which is read" in run("gate", *given, "--out", "t.json").complaint()
    assert Path(baseline).read_text() == before


def test_what_was_not_compared_is_missing(run: Run, baseline: str) -> None:
    Path("t.json").write_text(_times())
    assert run("gate", "update", "--baseline", "times.json", "--from", "t.json").code == 0
    _, line = _code(run, "--baseline", "times.json", code=3)
    assert "nothing was compared: give the times with --from FILE, or --time" in line
    assert run("gate", "update", "--baseline", baseline, "--from", "t.json").code == 0
    content = json.loads(Path("t.json").read_text())
    Path("none.json").write_text(json.dumps(content | {"rows": []}))
    _, line = _code(run, "--baseline", baseline, "--from", "none.json", code=3)
    assert "it is not in the results" in line


def test_times_of_two_machines_are_refused(run: Run) -> None:
    Path("t.json").write_text(_times())
    assert run("gate", "update", "--baseline", "b.json", "--from", "t.json").code == 0
    content = json.loads(Path("t.json").read_text())
    processes = content["rows"][0]["processes"]
    processes[3]["environment"]["processor"] = "another"
    Path("two.json").write_text(json.dumps(content))
    assert "mixes machines" in run("gate", "--baseline", "b.json", "--from", "two.json").complaint()
    processes[3]["environment"]["processor"] = "a processor"
    processes[3]["environment"]["torch"] = "2.7"
    Path("torches.json").write_text(json.dumps(content))
    _, line = _code(run, "--baseline", "b.json", "--from", "torches.json", code=5)
    assert "its processes ran with several versions of torch" in line
    processes[3]["environment"]["torch"] = "2.6"
    processes[3]["timing"] = None
    Path("lost.json").write_text(json.dumps(content))
    _, line = _code(run, "--baseline", "b.json", "--from", "lost.json", code=5)
    assert "a process was measured, and its file holds no time of it" in line


def test_the_report_uses_the_baselines_settings(run: Run, baseline: str) -> None:
    report = ("report", "gate_net:make", "--tables", "none", "--plots", "none", "--out", "o")
    assert run(*report, "--baseline", baseline).code == 0
    text = Path("o/comment.md").read_text()
    assert "3 figures are those of b.json" in text
    assert "not in this report" not in text


def test_a_renamed_variant_is_recognised_by_its_counts(run: Run) -> None:
    run("gate", "update", "--baseline", "b.json", "dat_t", "--res", "64", "--mode", "inference")
    path = Path("b.json")
    path.write_text(path.read_text().replace('"dat_t"', '"dat_tiny"'))
    _, line = _code(run, "--baseline", "b.json", code=3)
    assert "dat_t has the same counts: it was perhaps renamed" in line


def test_a_model_that_breaks_has_failed_and_not_changed(run: Run, baseline: str, net: Any) -> None:
    net.BROKEN = True
    out, line = _code(run, "--baseline", baseline, code=5)
    assert "2 failed" in out
    assert "no weights here" in line
    before = Path(baseline).read_text()
    assert "no weights here" in run("gate", "update", "--baseline", baseline).complaint(5)
    assert Path(baseline).read_text() == before


def test_update_says_what_it_changes(run: Run, baseline: str, net: Any) -> None:
    net.WIDTH = 13
    text = run("gate", "update", "--baseline", baseline).text
    assert text.startswith("b.json: 0 new, 2 changed, 0 removed, 0 the same")
    assert "12x8x1x1 -> 13x8x1x1" in text
    assert "nothing has changed" in run("gate", "--baseline", baseline).text
    before = Path(baseline).read_text()
    run("gate", "update", "--baseline", baseline)
    assert Path(baseline).read_text() == before
    added = ("gate_net:other", "--res", "64")
    assert "1 new" in run("gate", "update", "--baseline", baseline, *added).text
    text = run("gate", "update", "--baseline", baseline, "--remove", "gate_net:make").text
    assert "2 removed, 1 the same" in text
    with edited(baseline) as content:
        content["rows"] = []
    assert "1 new" in run("gate", "update", "--baseline", baseline, *added).text


def test_memory_of_a_file_is_compared(run: Run, baseline: str) -> None:
    measured = ("--res", "64", "--batch", "2", "--format", "json", "--out", "m.json")
    assert run("memory", "gate_net:make", *measured).code == 0
    assert "ledgers      1" in run("gate", "--baseline", baseline, "--from", "m.json").text
    assert run("memory", "gate_net:other", *measured).code == 0
    out, line = _code(run, "--baseline", baseline, "--from", "m.json", code=3)
    assert "gate_net:other has the same counts: it was perhaps renamed" in line
    assert "it is not in the baseline" in out


def _times(factor: float = 1.0, processor: str = "a processor", **changes: Any) -> str:
    """A result of `datbench throughput`, on a machine that need not exist."""
    machine = {"processor": processor, "cpus": 2, "torch": "2.6"}
    timings = (
        Timing((s,), (), 1, "budget", s, s, s, 0.9)
        for s in (factor * (1 + n / 1000) for n in range(6))
    )
    processes = tuple(
        ProcessTiming("measured", timing=timing, threads=1, environment=machine)
        for timing in timings
    )
    setting = Setting(Resolution(64, 64), device="cpu")
    row = ThroughputRow("gate_net:make", setting, How(), "measured", None, 1, 6, 1, processes)
    return dumps(document("throughput", [replace(row, **changes)], machine))


def test_times_are_kept_and_tested(
    run: Run, baseline: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("t.json").write_text(_times())
    assert "1 new" in run("gate", "update", "--baseline", baseline, "--from", "t.json").text
    (time,) = (row for row in json.loads(Path(baseline).read_text())["rows"] if "seconds" in row)
    assert "autocast" not in time["how"]  # older baselines have no such field
    assert "1 times of the baseline were not compared" in run("gate", "--baseline", baseline).text
    assert "times        1" in run("gate", "--baseline", baseline, "--from", "t.json").text
    Path("slow.json").write_text(_times(1.2))
    out, line = _code(run, "--baseline", baseline, "--from", "slow.json", code=1)
    assert "is slower" in line
    assert "speed x0.833" in out
    Path("elsewhere.json").write_text(_times(processor="another"))
    _, line = _code(run, "--baseline", baseline, "--from", "elsewhere.json", code=3)
    assert "no time of this machine: processor a processor there, another here" in line
    Path("broken.json").write_text(_times(processes=(), outcome="crashed", reason="signal 9"))
    _, line = _code(run, "--baseline", baseline, "--from", "broken.json", code=5)
    assert "crashed: signal 9" in line

    def again(row: Any) -> Any:
        raise MeasurementError("no device here")

    from datbench.gate import baseline as gate_baseline

    monkeypatch.setattr(gate_baseline, "measured_again", again)
    assert "no device here" in _code(run, "--baseline", baseline, "--time", code=5)[1]
    monkeypatch.setattr(gate_baseline, "measured_again", lambda row: row)
    assert "times        1" in run("gate", "--baseline", baseline, "--time").text


def test_a_file_holds_one_entry_a_line(baseline: str) -> None:
    lines = Path(baseline).read_text().splitlines()
    assert max(map(len, lines)) < 400
    assert any(line.strip().startswith('"{1-3}.proj aten::conv2d"') for line in lines)
    rows, environment = read_baseline(Path(baseline))
    always = {"datbench", "python", "torch"}
    assert always <= set(environment) <= {*always, "torchvision", "timm", "transformers"}
    assert isinstance(rows[0], CountBaseline)


def test_a_baseline_that_is_none(run: Run) -> None:
    said = "no baseline b.json; write it: datbench gate update MODEL --baseline b.json"
    assert said in run("gate", "--baseline", "b.json").complaint(3)
    for kind, said in (("flops", "holds 'flops' and is not a baseline"), ("baseline", "no row")):
        Path("b.json").write_text(dumps(document(kind, [], {})))
        assert said in run("gate", "--baseline", "b.json").complaint()


def test_what_does_not_go_with_a_baseline_is_refused(run: Run, baseline: str) -> None:
    def refused(*words: str) -> str:
        return run("gate", "--baseline", baseline, *words).complaint()

    assert "b.json holds no time" in refused("--time")
    assert "is a directory" in refused("--out", ".")
    assert "twice" in refused("--from", baseline, "--from", baseline)
    run("models", "--format", "json", "--out", "x.json")
    assert "x.json holds 'models'" in refused("--from", "x.json")
    with edited(baseline) as content:
        content["rows"] *= 2
    assert "twice" in refused()
