"""pytest-benchmark's JSON: written as it writes it, read by it, and read back."""

import csv
import json
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from datbench.cli.main import main
from datbench.errors import UsageError
from datbench.records import document as records_document
from datbench.records import dumps, read_json
from datbench.setting import How, Resolution, Setting
from datbench.timing.pytest_benchmark import BenchmarkFile, document, from_document, stats
from datbench.timing.records import ProcessTiming, ThroughputRow, Timing

WHERE = {"processor": "a processor", "cpus": 2, "python": "3.11"}


def row(model: str, *processes: tuple[float, ...]) -> ThroughputRow:
    timings = [
        Timing(samples, (), 3, "interval", sorted(samples)[len(samples) // 2], 0.0, 1.0, 0.95)
        for samples in processes
    ]
    setting = Setting(Resolution(64, 64), 4, device="cpu")
    done = tuple(ProcessTiming("measured", timing=timing) for timing in timings)
    return ThroughputRow(model, setting, How(), "measured", None, 4, len(done), 1, done)


def read(path: Path) -> BenchmarkFile:
    return from_document(read_json(path), path)


def write(path: Path, *rows: ThroughputRow) -> Path:
    path.write_text(json.dumps(document(rows, WHERE), allow_nan=False))
    return path


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 6, 7, 8, 9, 30, 31])
def test_figures_are_those_of_pytest_benchmark(count: int) -> None:
    theirs = pytest.importorskip("pytest_benchmark.stats").Stats()
    generator = random.Random(count)
    samples = [generator.lognormvariate(0, 0.7) for _ in range(count)]
    for sample in samples:
        theirs.update(sample)
    ours = stats(samples, 7)
    for name, value in theirs.as_dict().items():
        if name == "hd15iqr":  # older versions give the first datum beyond the fence
            continue
        assert ours[name] == (value if isinstance(value, str) else pytest.approx(value)), name
    assert (ours["iterations"], ours["data"]) == (7, samples)


def test_pytest_benchmark_compares_our_files(tmp_path: Path) -> None:
    pytest.importorskip("pytest_benchmark")
    one = write(tmp_path / "one.json", row("dat_t", (0.1, 0.2, 0.3)), row("dat_s", (0.5, 0.6)))
    two = write(tmp_path / "two.json", row("dat_t", (0.2, 0.3, 0.4)))
    command = [sys.executable, "-m", "pytest_benchmark", "compare", str(one), str(two)]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    lines = [line for line in ran.stdout.splitlines() if line.startswith("throughput[")]
    assert len(lines) == 3
    (found,) = (line for line in lines if "dat_t" in line and "one)" in line)
    assert "200.0000 (1.0)" in found  # the median in ms
    assert found.split()[-2:] == ["3", "3"]  # rounds and iterations


def test_what_is_written_is_read_back_without_rows_that_have_no_samples(tmp_path: Path) -> None:
    failed = replace(row("dat_b"), outcome="crashed", processes=())
    file = read(write(tmp_path / "a.json", row("dat_t", (0.1, 0.4), (0.2, 0.3, 0.5)), failed))
    (found,) = file.rows
    assert found.fullname == "datbench::throughput[dat_t-64x64-batch4-float32-cpu-eager-inference]"
    assert found.samples == (0.1, 0.4, 0.2, 0.3, 0.5)
    assert (found.median, found.rounds, found.iterations) == (0.3, 5, 3)
    assert found.processes == (0.4, 0.3)
    assert found.params["batch"] == 4
    assert file.environment()["processor"] == "a processor"


def theirs(path: Path, **medians: float) -> Path:
    """As pytest-benchmark saves by default: without the samples."""
    nothing = {"group": None, "params": None, "param": None, "extra_info": {}, "options": {}}
    figures = {name: stats([median]) for name, median in medians.items()}
    for one in figures.values():
        del one["data"]
    content = {
        "machine_info": {"node": "here", "cpu": {"brand_raw": "P", "count": 2}},
        "commit_info": {},
        "benchmarks": [
            {"name": name, "fullname": f"test_x.py::{name}", "stats": one, **nothing}
            for name, one in figures.items()
        ],
        "datetime": "2026-01-01T00:00:00",
        "version": "4.0.0",
    }
    path.write_text(json.dumps(content))
    return path


def test_files_of_others_are_read(tmp_path: Path) -> None:
    file = read(theirs(tmp_path / "a.json", test_a=0.25, test_b=0.5))
    found = [(row.name, row.median, row.samples) for row in file.rows]
    assert found == [("test_a", 0.25, ()), ("test_b", 0.5, ())]
    assert file.environment() == {"processor": "P", "cpus": 2}


def compare(capsys: pytest.CaptureFixture[str], *words: Any) -> tuple[int, str]:
    code = main(["compare", "files", *map(str, words)])
    return code, capsys.readouterr().out


def test_compare_matches_by_full_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a = theirs(tmp_path / "a.json", test_a=0.25, test_b=0.5)
    b = theirs(tmp_path / "b.json", test_a=0.5, test_c=0.5)
    code, text = compare(capsys, a, b, "--format", "json")
    rows = json.loads(text)["rows"]
    assert {row["unit"] for row in rows} == {"calls/s"}
    found = {row["a"]: (row["decision"]["verdict"], row["decision"]["ratio"]) for row in rows}
    assert code == 3
    assert found["test_x.py::test_a"] == ("ambiguous", pytest.approx(0.5))  # one process of each
    assert found["test_x.py::test_b"][0] == found["test_x.py::test_c"][0] == "missing"
    (line, *_) = csv.DictReader(compare(capsys, a, b, "--format", "csv")[1].splitlines())
    assert (float(line["call_a"]), float(line["call_b"])) == (0.25, 0.5)
    assert "rate_a" not in line
    shown = compare(capsys, a, b, "--notes")[1]
    assert "A, a call" in shown
    assert "250 ms" in shown
    assert "images/s" not in shown


def test_compare_has_a_verdict_on_many_processes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [
        write(tmp_path / f"{base}.json", row("dat_t", *((base + n / 1000,) for n in range(8))))
        for base in (0.1, 0.2)
    ]
    code, text = compare(capsys, *files, "--format", "json")
    (found,) = json.loads(text)["rows"]
    assert (code, found["decision"]["verdict"]) == (1, "slower")
    assert found["rate_a"] == pytest.approx(4 / 0.1035, rel=0.01)


def test_times_are_converted_to_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    timed = replace(row("dat_t", (0.1, 0.2)), seconds=0.15)
    times, out = tmp_path / "times.json", tmp_path / "t.json"
    times.write_text(dumps(records_document("throughput", [timed], {})))
    words = ["results", "convert", str(times), "--out", str(out), "--to"]
    assert main([*words, "pytest-benchmark"]) == 0
    assert [each.samples for each in read(out).rows] == [(0.1, 0.2)]
    assert main([*words, "pytest_benchmark"]) == 2
    assert "did you mean pytest-benchmark?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda c: c.update(benchmarks=[]), "holds no benchmarks"),
        (lambda c: c.update(benchmarks={}), "benchmarks: must be a list, not an object"),
        (lambda c: c.pop("machine_info"), "not a result of pytest-benchmark"),
        (lambda c: c["benchmarks"][0].pop("stats"), r"benchmarks\[1\]\.stats: is missing"),
        (lambda c: c["benchmarks"][0].pop("name"), r"benchmarks\[1\]\.name: is missing"),
        (
            lambda c: c["benchmarks"][0]["stats"].update(median="x"),
            "stats.median: must be a number",
        ),
        (
            lambda c: c["benchmarks"][0]["stats"].update(data=[1, None]),
            r"stats\.data\[2\]: must be a number, not null",
        ),
        (lambda c: c["benchmarks"].append(c["benchmarks"][0]), "test_x.py::test_a twice"),
    ],
)
def test_damage_is_named(tmp_path: Path, change: Any, said: str) -> None:
    path = theirs(tmp_path / "a.json", test_a=0.25)
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(UsageError, match=said):
        read(path)
