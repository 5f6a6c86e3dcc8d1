"""Bars on sweeps: what is not measuring, as ratios in one run."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from datbench.machine import summary
from datbench.sweep import store, work
from datbench.sweep.records import Outcome
from datbench.sweep.store import Sweep

UNITS = 10_000

PLAN = '[[grid]]\nkind = "throughput"\nmodel = "dat_t"\nres = 64\ndevice = "cpu"\n'


def sweep_of(folder: Path, number: int) -> Sweep:
    """A sweep of this many rounds of one unit."""
    (folder / "sweep.toml").write_text(f"processes = {number}\n{PLAN}", encoding="utf-8")
    return Sweep.create(folder)


def fastest(call: Callable[[], object], times: int = 5) -> float:
    """Seconds of the fastest of some calls."""

    def seconds() -> float:
        begin = time.perf_counter()
        call()
        return time.perf_counter() - begin

    return min(seconds() for _ in range(times))


def test_resume_of_ten_thousand_units(benchmark: Any, tmp_path: Path) -> None:
    """Reading what is pending, in times of listing the names of the records."""
    sweep = sweep_of(tmp_path, UNITS)
    for planned in sweep.units:
        path = sweep.path(planned, "ok")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"{}\n")

    def listed() -> int:
        return sum(len(names) for _, _, names in os.walk(tmp_path / "throughput"))

    def resumed() -> list[store.PlannedUnit]:
        again = Sweep.create(tmp_path)
        done = again.scan()
        return [planned for planned in again.units if planned.key not in done]

    assert listed() == UNITS
    assert resumed() == []
    listing = fastest(listed)
    benchmark.pedantic(resumed, rounds=5)
    taken = benchmark.stats["min"]
    benchmark.extra_info["ratio"] = taken / listing
    assert taken < min(10 * listing, 1.0)


def test_bookkeeping_of_a_unit(
    benchmark: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A unit that does nothing, beyond its fsyncs, in times of a Python that does nothing."""
    number = 1000
    sweep = sweep_of(tmp_path, 5 * number)
    nothing: tuple[list[object], Outcome, None, list[str]] = ([], "ok", None, [])
    monkeypatch.setattr(work, "done", lambda unit, timeout: nothing)
    monkeypatch.setattr(os, "fsync", lambda handle: None)
    first = iter(range(0, 5 * number, number))

    def units() -> None:
        begin = next(first)
        numbers = tuple(range(begin, begin + number))
        job = work.UnitsJob(str(sweep.folder), numbers, (1,) * number, {}, around=summary())
        work.attend(job, lambda said: json.dumps(said))

    benchmark.pedantic(units, rounds=5)
    python = fastest(lambda: subprocess.run([sys.executable, "-c", "pass"], check=True))
    ratio = benchmark.stats["min"] / number / python
    benchmark.extra_info["ratio"] = ratio
    assert len(sweep.scan()) == 5 * number
    assert ratio < 0.2


def test_report_of_a_thousand_records(benchmark: Any, tmp_path: Path) -> None:
    """In times of a report of a hundred."""
    text = f"{PLAN}budget = 0.1\nthreads = 1\n"
    taken = {}
    for number in (100, 1000):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "sweep.toml").write_text(text, encoding="utf-8")
        first = Sweep.create(folder).units[0]
        rows, outcome, reason, _ = work.done(first.unit, 60.0)
        batches = ", ".join(str(batch) for batch in range(1, number + 1))
        (folder / "units.jsonl").unlink()
        (folder / "sweep.toml").write_text(f"{text}batch = [{batches}]\n", encoding="utf-8")
        sweep = Sweep.create(folder)
        job = work.UnitsJob(str(folder), (), (), {})
        for planned in sweep.units:
            more = [rows[0].__class__(**{**vars(rows[0]), "setting": planned.unit.setting})]
            content = work.record(planned, job, outcome, reason, more, summary(), time.time(), {})
            sweep.put(planned, outcome, content)
        options = ["report", "none", "--tables", "none", "--from", str(folder)]
        command = [
            sys.executable,
            "-m",
            "datbench",
            *options,
            "--out",
            str(tmp_path / f"r{number}"),
        ]
        call = lambda command=command: subprocess.run(command, check=True, capture_output=True)  # noqa: E731
        if number == 100:
            taken[number] = fastest(call, 2)
        else:
            benchmark.pedantic(call, rounds=2)
            taken[number] = benchmark.stats["min"]
    benchmark.extra_info["ratio"] = taken[1000] / taken[100]
    assert taken[1000] < 4 * taken[100]
