"""How long `datbench report` takes for all of its models and tables, in a fresh process."""

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

RATIO = 6.0
"""Of wall time over that of `import torch`, on two cores that do nothing else."""

SIZE = 5_000_000


def test_report_of_everything(benchmark: Any, tmp_path: Path) -> None:
    pytest.importorskip("vl_convert", reason="needs datbench[report]")
    pytest.importorskip("timm", reason="needs datbench[timm]", exc_type=ImportError)
    program = [sys.executable, "-m", "datbench", "report", "--out"]
    spent: list[float] = []

    def run() -> None:
        before = sum(os.times()[2:4])
        started = time.perf_counter()
        subprocess.run([*program, str(tmp_path / f"out{len(spent)}")], check=True)
        spent.append(time.perf_counter() - started)
        benchmark.extra_info["processor_seconds"] = sum(os.times()[2:4]) - before

    benchmark.pedantic(run, rounds=1, iterations=1)
    page = tmp_path / "out0" / "report.html"
    benchmark.extra_info["bytes"] = page.stat().st_size
    assert page.stat().st_size < SIZE
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import torch"], check=True)
    ratio = benchmark.extra_info["ratio"] = min(spent) / (time.perf_counter() - began)
    print(ratio)
    assert ratio <= RATIO
