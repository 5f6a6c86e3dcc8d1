"""From `sweep.toml` or options to units; what is refused, with its line."""

import json
from itertools import product
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from datbench.errors import UsageError
from datbench.sweep.plan import key_of, parse_plan, specification, text_of, units_of
from datbench.sweep.records import Grid, Plan
from datbench.sweep.store import Sweep, only_one, read_mark
from tests.cli.runner import Run

from .small import plan

GRID = '[[grid]]\nkind = "throughput"\nmodel = "dat_t"\ndevice = "cpu"\n'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "sweep.toml has no grid; add a table [[grid]] with kind and model."),
        ("grid = 3\n", "line 1: grid: must be a list"),
        ("[[grid]\n", "(at line 1"),
        (GRID + "bathc = 3\n", "line 5: bathc: unknown key 'bathc'; did you mean batch?"),
        ("proceses = 3\n" + GRID, "line 1: proceses: unknown key 'proceses'; did you mean"),
        (GRID + "batch = []\n", "line 5: batch: the grid is empty"),
        (GRID + "batch = 'x'\n", "line 5: batch: must be"),
        (GRID + "batch = 0\n", "line 5: batch: must be a number from 1, not 0"),
        (GRID + "res = [64, 12]\n", "line 5: res: "),
        (GRID + 'dtype = "int8"\n', "line 5: dtype: unknown dtype 'int8'"),
        (GRID + 'memory = "16GiB"\n', "line 5: memory: has no meaning for throughput."),
        (GRID + "budget = 0\n", "line 5: budget: must be above 0"),
        (GRID + 'mode = "backward"\n', "line 5: mode: unknown mode 'backward'"),
        ('[[grid]]\nkind = "speed"\n', "line 2: kind: unknown kind 'speed'"),
        ('[[grid]]\nkind = "flops"\n', "line 1: model: is missing: name models."),
        ('[[grid]]\nkind = "flops"\nmodel = "dat_x"\n', "line 3: model: unknown model 'dat_x'"),
        (GRID + "batch = [1, 1]\n", "dat_t, 224x224, batch 1, float32, eager attention, "),
        (GRID + "batch = [1, 1]\n", " is twice; name it once."),
        (GRID + GRID, " is in grid 1 too; name it once."),
        ("timeout = -1\n" + GRID, "line 1: timeout: must be above 0"),
    ],
)
def test_what_is_wrong_is_one_line(text: str, said: str, run: Run, tmp_path: Path) -> None:
    folder = plan(tmp_path / "sweep", text)
    assert said in run("sweep", "run", str(folder)).complaint()
    assert [path.name for path in folder.iterdir()] == ["sweep.toml"]  # nothing half-written


def test_every_combination_once_in_shuffled_rounds() -> None:
    text = """
processes = 3
[[grid]]
kind = ["throughput", "flops", "peaks"]
model = ["dat_t", "datpp_t"]
res = [64, "96x64"]
batch = [1, 2]
dtype = ["float32", "bfloat16"]
device = "cpu"
"""
    units = [unit for unit, _ in units_of(text)]
    assert len({key_of(specification(unit)) for unit in units}) == len(units) == 16 + 2 + 3 * 16
    kinds = [unit.kind for unit in units]
    assert kinds == ["flops"] * 16 + ["peaks"] * 2 + ["throughput"] * 48
    rounds = [[specification(u) | {"round": 0} for u in units if u.kind == "throughput"
               and u.round == turn] for turn in range(3)]  # fmt: skip
    asked = set(product(("dat_t", "datpp_t"), (64, 96), (1, 2), ("float32", "bfloat16")))
    for each in rounds:
        assert {
            (u["model"], u["setting"]["width"], u["setting"]["batch"], u["setting"]["dtype"])
            for u in each
        } == asked
    assert rounds[0] != rounds[1] != rounds[2]
    assert units == [unit for unit, _ in units_of(text)]
    other = [unit for unit, _ in units_of("seed = 1\n" + text)]
    assert other != units
    assert set(other) == set(units)


def test_a_key_is_of_the_specification_alone() -> None:
    """The time-out, other units and the machine do not change it: kept here, it must never do."""
    ((unit, timeout),), ((same, usual),) = units_of(GRID + "timeout = 5\n"), units_of(GRID)
    assert key_of(specification(unit)) == key_of(specification(same)) == "e72635b779013418a929"
    assert (timeout, usual) == (5.0, 300.0)


_values = {
    "kind": st.sampled_from(["flops", "throughput", ("flops", "memory"), "memory-measured"]),
    "model": st.sampled_from(["dat_t", ("dat_t", "dat_s")]),
    "res": st.sampled_from([None, 64, "96x64", (64, "96x64")]),
    "batch": st.sampled_from([1, 7, (1, 8)]),
    "attention": st.sampled_from(["eager", ("eager", "sdpa")]),
    "features": st.booleans(),
    "input": st.sampled_from([(), ("float:{B}x3x{H}x{W}",)]),
}


@given(st.fixed_dictionaries(_values), st.integers(1, 3), st.integers(0, 5))
@settings(suppress_health_check=[HealthCheck.too_slow], max_examples=30, deadline=None)
def test_a_plan_as_text_says_the_same(values: dict[str, object], processes: int, seed: int) -> None:
    wanted = Plan((Grid(**values),), processes, seed, slurm={"partition": "gpu"})  # type: ignore[arg-type]
    assert parse_plan(text_of(wanted), "x") == wanted


def test_options_are_a_plan(run: Run, tmp_path: Path) -> None:
    names = (
        "dat_t",
        "datpp_t",
        "--kind",
        "flops,throughput",
        "--res",
        "64,96x64",
        "--batch",
        "1,2",
    )
    more = "--dtype float32,bf16 --attention eager,sdpa --processes 2".split()
    rows = run("sweep", "run", str(tmp_path / "x"), *names, *more, "--dry-run", "--device", "cpu",
               "--format", "json").rows  # fmt: skip
    assert len(rows) == 32 + 2 * 32
    assert not (tmp_path / "x").exists()
    shown = run("sweep", "run", str(tmp_path / "x"), *names, "--dry-run").text
    assert "16 units. If each took its whole time-out, that would be 1.3 hours." in shown
    part = run("sweep", "run", str(tmp_path / "x"), *names, "--dry-run", "--shard", "2/4",
               "--format", "json").rows  # fmt: skip
    assert len(part) == 4


def test_units_are_frozen(run: Run, tmp_path: Path) -> None:
    folder = plan(tmp_path / "sweep", GRID)
    Sweep.create(folder)
    (folder / "sweep.toml").write_text("# the same\n" + GRID, encoding="utf-8")
    assert len(Sweep.create(folder).units) == 1
    (folder / "sweep.toml").write_text(GRID + "batch = 2\n", encoding="utf-8")
    with pytest.raises(UsageError, match="is another sweep, of 1 units"):
        Sweep.create(folder)
    said = run("sweep", "run", str(folder), "dat_s", "--device", "cpu").complaint()
    assert "is another sweep" in said
    (folder / "units.jsonl").write_text("{}\n", encoding="utf-8")
    assert "is damaged" in run("sweep", "status", str(folder)).complaint()


def test_two_drivers_of_one_directory(run: Run, tmp_path: Path) -> None:
    folder = plan(tmp_path / "sweep", GRID)
    Sweep.create(folder)
    lock = only_one(folder, "shard-1-of-1")
    assert lock >= 0
    said = run("sweep", "run", str(folder)).complaint()
    assert said.startswith("another `datbench sweep run` (process ")


def test_other_code(run: Run, tmp_path: Path) -> None:
    folder = plan(tmp_path / "sweep", GRID.replace("throughput", "memory-measured"))
    sweep = Sweep.create(folder)
    (unit,) = sweep.units
    sweep.put(unit, "ok", {"unit": {"outcome": "ok", "specification": unit.specified}})
    (folder / "code.json").write_text(json.dumps({"datbench": "0.0.1", "torch": "1.0"}))
    said = run("sweep", "run", str(folder)).complaint()
    assert "1 records of" in said
    assert "were made by other code (datbench 0.0.1, now " in said
    assert "--changed keep leaves them" in said
    assert run("sweep", "run", str(folder), "--changed", "keep").code == 0
    assert sweep.scan() == {unit.key: "ok"}


def test_estimate(run: Run, tmp_path: Path) -> None:
    options = "dat_t --res 224 --batch 1,64,4096 --device cpu --memory 16GiB --estimate".split()
    found = run("sweep", "run", str(tmp_path / "x"), *options, "--format", "json").rows
    assert [each["peak"] <= each["capacity"] for each in found] == [True, True, False]
    exact = run("memory", "dat_t", "--batch", "64", "--mode", "inference", "--format", "json").rows
    assert found[1]["peak"] == pytest.approx(exact[0]["peak"]["amount"], rel=0.02)


def test_marks_of_tries_may_be_cut_off_or_gone(run: Run, tmp_path: Path) -> None:
    """Another shard removes its own at any moment."""
    sweep = Sweep.create(plan(tmp_path / "sweep", GRID))
    (unit,) = sweep.units
    paths = [sweep.begin(unit, number) for number in (1, 2, 10)]
    assert sweep.tries() == {unit.key: paths}
    assert "(process " in run("sweep", "status", str(sweep.folder), "--notes").text
    paths[-1].write_text('{"host"', encoding="utf-8")
    assert "(process " not in run("sweep", "status", str(sweep.folder), "--notes").text
    assert read_mark(tmp_path / "gone") == {}
    (sweep.folder / "beside").mkdir()
    (sweep.folder / "beside" / ".nfs01").touch()  # as a network's file system leaves them
    sweep.sweep_out()
