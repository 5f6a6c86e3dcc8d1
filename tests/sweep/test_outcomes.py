"""How units end, what is tried again, and who reads a sweep's directory."""

import csv
import io
import json
import os
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from datbench.machine import alone_on
from datbench.records import load, load_all
from datbench.sweep import work
from datbench.sweep.store import Sweep
from tests.cli.runner import Run

from .small import finished, models, plan, program, records, run_to_end

ODD = ("killed", "crashes", "leaves", "raises", "large", "a")


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep of models that end in every way."""
    folder = tmp_path_factory.mktemp("odd")
    times = 'kind = "throughput"\nres = 32\nbudget = 0.1\nthreads = 1\ndevice = "cpu"\n'
    text = f"""
seed = 1  # of two batches that are too large, the smaller comes first
[[grid]]
{times}model = {models(folder, *ODD)}

[[grid]]
{times}model = {models(folder, "large", "a")}
batch = 2

[[grid]]
{times}model = {models(folder, "hangs")}
timeout = 5

[[grid]]
kind = "memory-measured"
model = "{models(folder, "a")[0]}"
res = 32
dtype = ["float32", "amp-bfloat16"]
device = "cpu"
"""
    code, out, err = finished("sweep", "run", plan(folder / "sweep", text))
    assert code == 5
    assert err.splitlines()[-1] == (
        "datbench: not every unit was measured: 2 failed, 1 timeout, 2 crashed."
    )
    assert "`datbench sweep retry" in out
    return folder / "sweep"


def units(folder: Path) -> dict[tuple[str, int, str], dict[str, Any]]:
    """The block of each unit, by model, batch and kind."""
    found = {}
    for path in records(folder).values():
        content = json.loads(path.read_text(encoding="utf-8"))
        about = content["unit"]["specification"]
        name = about["model"].rpartition(":")[2]
        cast = (about.get("recipe") or {}).get("autocast")
        where = (name, about["setting"]["batch"], cast or about["kind"])
        found[where] = content["unit"] | {"rows": content["rows"]}
    return found


def test_each_ends_as_it_must(odd: Path) -> None:
    found = units(odd)
    assert {where: block["outcome"] for where, block in found.items()} == {
        **{(name, 1, "throughput"): outcome for name, outcome in (
            ("killed", "crashed"), ("crashes", "crashed"), ("leaves", "failed"),
            ("raises", "failed"), ("hangs", "timeout"))},
        **{(name, n, "throughput"): outcome for n in (1, 2) for name, outcome in (
            ("large", "oom"), ("a", "ok"))},
        ("a", 1, "memory-measured"): "ok",
        ("a", 1, "bfloat16"): "unsupported",
    }  # fmt: skip
    reasons = {where[0]: block["reason"] for where, block in found.items() if where[1] == 1}
    assert "signal 9 (SIGKILL)" in reasons["killed"]
    assert "tried 3 times" in reasons["killed"]
    assert "signal 11 (SIGSEGV)" in reasons["crashes"]
    assert "exit code 7" in reasons["leaves"]
    assert "no such luck" in reasons["raises"]
    assert reasons["hangs"] == "did not finish in 5 s"
    assert found["large", 2, "throughput"]["reason"] == "not run: batch 1 ran out of memory"


def test_a_record_says_what_made_it(odd: Path) -> None:
    block = units(odd)["a", 1, "throughput"]
    assert block["code"].keys() == {"datbench", "torch"}
    assert block["tries"] == 1
    assert block["variables"]["OMP_NUM_THREADS"] == os.environ["OMP_NUM_THREADS"]
    assert block["host"]
    assert block["seconds"] < 300


def test_retry(odd: Path) -> None:
    before = records(odd)
    code, out, err = finished("sweep", "retry", odd, "oom")
    assert code == 0, err
    assert "2 units are pending again." in out
    assert len(records(odd)) == len(before) - 2
    assert len(list((odd / "retried").glob("*.oom.0.json"))) == 2
    code, out, _ = finished("sweep", "run", odd, "--no-prune", "--format", "json")
    assert code == 5
    found = units(odd)["large", 2, "throughput"]
    assert found["outcome"] == "oom"
    assert "not run" not in found["reason"]


# A directory as other commands read it.


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep that is finished, by options alone, of three kinds and two rounds."""
    folder = tmp_path_factory.mktemp("grid")
    names = models(folder, "a", "b")
    options = "--res 32 --batch 1,2 --threads 1 --budget 0.1 --device cpu --processes 2".split()
    out = run_to_end(folder / "sweep", *names, "--kind", "throughput,flops,memory", *options)
    assert len(out.splitlines()) == 6
    return folder / "sweep"


def test_rounds_are_processes_of_one_row(grid: Path, run: Run) -> None:
    found = load(grid, "throughput")
    assert [(len(row.processes), row.asked, row.interval_of) for row in found.rows] == [
        (2, 2, "processes")
    ] * 4
    lines = list(csv.DictReader(io.StringIO(run("results", "show", f"{grid}/throughput",
                                                "--format", "csv").text)))  # fmt: skip
    assert len(lines) == 4
    assert sorted({each.kind for each in load_all(grid)}) == ["flops", "memory", "throughput"]


def test_other_commands_take_the_directory(grid: Path, run: Run, tmp_path: Path) -> None:
    said = run("results", "show", str(grid)).complaint()
    assert said.startswith(f"{grid} holds flops, memory and throughput; name one: {grid}/")
    assert run("results", "validate", str(grid)).text.count("whole") == 4 + 4 + 8
    merged = run("results", "merge", str(grid / "flops")).text
    assert len(json.loads(merged)["rows"]) == 4
    compared = run("compare", "files", str(grid), str(grid))
    assert compared.code == 4, compared.err  # two processes are too few
    base = tmp_path / "base.json"
    updated = run("gate", "update", "--from", str(grid), "--baseline", str(base))
    assert updated.code == 0, updated.err
    assert run("gate", "--from", str(grid), "--baseline", str(base)).code in (0, 4)
    report = run("report", "none", "--tables", "none", "--from", str(grid), "--plots", "none",
                 "--out", str(tmp_path / "report"))  # fmt: skip
    assert report.code == 0, report.err
    assert "Images a second" in (tmp_path / "report" / "report.md").read_text(encoding="utf-8")


def test_merge_of_shards_and_damaged_records(grid: Path, run: Run, tmp_path: Path) -> None:
    """As of jobs of a CI matrix: each has done its own part, in a directory of its own."""
    whole = records(grid)
    for number in (1, 2):
        copy = tmp_path / f"part{number}"
        copy.mkdir()
        for name in ("sweep.toml", "units.jsonl"):
            (copy / name).write_bytes((grid / name).read_bytes())
    for place, (key, path) in enumerate(sorted(whole.items())):
        there = tmp_path / f"part{1 + place % 2}" / path.relative_to(grid)
        there.parent.mkdir(parents=True, exist_ok=True)
        there.write_bytes(path.read_bytes())
        assert key
    one, other = (str(tmp_path / f"part{number}") for number in (1, 2))
    assert "8 records added." in run("sweep", "merge", one, other).text
    assert records(Path(one)).keys() == whole.keys()
    damaged = next(iter(records(Path(one)).values()))
    damaged.write_text(damaged.read_text(encoding="utf-8")[:-100], encoding="utf-8")
    said = run("results", "show", str(damaged.parents[1])).complaint()
    assert said.startswith(f"{damaged} is not complete JSON")
    assert said.endswith(f"; `datbench sweep merge {one}` sets it aside.")
    again = run("sweep", "merge", one)
    assert "a record was set aside" in again.err
    assert "0 records added." in again.out
    assert len(list((tmp_path / "part1" / "set-aside").iterdir())) == 1
    # The same, found by a run: the unit is measured again.
    next(iter(records(Path(one)).values())).write_text("", encoding="utf-8")
    code, _, err = finished("sweep", "run", one)
    assert code == 0
    assert "a record was set aside, and is made again" in err
    assert records(Path(one)).keys() == whole.keys()


def test_a_full_disk(tmp_path: Path) -> None:
    """It stops with one line; the unit is pending, and is done once there is room."""
    place = tmp_path / "small"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(place)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("only root can mount a small file system")
    try:
        text = f"""
[[grid]]
kind = "flops"
model = {models(tmp_path, "a", "b")}
res = [32, 40, 48, 56, 64, 72, 80, 88, 96, 104, 112]
"""
        folder = plan(place / "sweep", text)
        code, _, err = finished("sweep", "run", folder)
        assert code == 5, err
        assert "No space left on device; make room, and give the same command again." in err
        done = records(folder)
        assert 0 < len(done) < 22
        subprocess.run(["mount", "-o", "remount,size=4m", str(place)], check=True)
        run_to_end(folder)
        assert done.items() <= records(folder).items()
        assert len(records(folder)) == 22
    finally:
        subprocess.run(["umount", str(place)], check=True)


def test_each_gpu_has_its_share(tmp_path: Path) -> None:
    """There is none here: each unit says so, in the process of the GPU that it was for."""
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    text = f"""
[[grid]]
kind = "memory-measured"
model = {models(tmp_path, "a", "b")}
res = 32
device = "cuda"
"""
    folder = plan(tmp_path / "sweep", text)
    code, _, err = finished("sweep", "run", folder, env={"CUDA_VISIBLE_DEVICES": "GPU-1,GPU-2"})
    assert code == 0, err
    read = [json.loads(path.read_text(encoding="utf-8")) for path in records(folder).values()]
    assert {each["unit"]["variables"]["CUDA_VISIBLE_DEVICES"] for each in read} == {
        "GPU-1",
        "GPU-2",
    }
    assert {each["unit"]["reason"] for each in read} == {
        "device 'cuda' is not available here; use meta or cpu, or cuda where a GPU is"
    }


def test_a_unit_that_others_disturbed_is_measured_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a record, until it is the last time."""
    (model,) = models(tmp_path, "a")
    text = f'[[grid]]\nkind = "flops"\nmodel = "{model}"\nres = 32\n'
    sweep = Sweep.create(plan(tmp_path / "sweep", text))
    monkeypatch.setattr(work, "disturbed", lambda unit: 3)
    said: list[dict[str, object]] = []
    job = work.UnitsJob(str(sweep.folder), (0,), (1,), {})
    work.attend(job, said.append)
    key = sweep.units[0].key
    assert said == [{"begun": key}, {"disturbed": key, "others": 3}]
    assert sweep.scan() == {}
    work.attend(replace(job, last=True), said.append)
    assert sweep.scan() == {key: "ok"}
    (path,) = records(sweep.folder).values()
    assert json.loads(path.read_text(encoding="utf-8"))["unit"]["others"] == 3


def test_measurements_of_one_machine_wait_for_each_other(run: Run, tmp_path: Path) -> None:
    (model,) = models(tmp_path, "a")
    with alone_on("cpu"):
        options = ("--res", "32", "--budget", "0.1", "--threads", "1", "--device", "cpu")
        process = program("throughput", model, *options)
        assert process.stderr is not None
        while "the machine is loaded" in (line := process.stderr.readline()):
            pass  # as it may be
        assert line.endswith("another datbench measures on this device; waiting for it.\n")
        assert process.poll() is None
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
