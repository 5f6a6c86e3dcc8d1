"""A file of pytest-benchmark as a side of a comparison: benchmarks are matched by full name.

One process is one sample of the machine. pytest-benchmark runs one, so that the ratio is shown and
a verdict takes more; files of `datbench throughput --processes N` hold as many.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...benchmark_files import Benchmark, from_document, is_benchmark_file
from .files import Ended, Found, ResultFile, check_seconds
from .files import read as read_result


@dataclass(frozen=True)
class FoundBenchmark(Found):
    """A benchmark; its model is its full name, its batch the one that its parameters name."""

    @property
    def key(self) -> str:
        """What two benchmarks must have in common to be compared."""
        return self.model

    def words(self) -> str:
        """A name for people."""
        return self.model


def read(path: Path) -> ResultFile:
    """A result of `datbench throughput --format json`, or of pytest-benchmark.

    Raises:
        UsageError: it cannot be read, is neither of them, or is damaged.
    """
    content = _json(path)
    if not is_benchmark_file(content):
        return read_result(path)
    file = from_document(content, path)
    environment = file.environment()
    rows: dict[str, Found] = {
        row.fullname: _found(row, environment, f"{path} ({row.name})") for row in file.rows
    }
    return ResultFile(path, rows)


def _json(path: Path) -> Any:
    """What a file holds; None where it cannot be read, which `read_result` complains of."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None


def _found(row: Benchmark, environment: Mapping[str, Any], where: str) -> FoundBenchmark:
    setting = {"batch": _number(row.params.get("batch")), "device": row.params.get("device")}
    for seconds in filter(None, row.processes):
        check_seconds(seconds, where)
    # Below the clock's resolution a median is zero, and no figure.
    processes = tuple(Ended("measured", None, seconds or None) for seconds in row.processes)
    how = {"gpus": _number(row.params.get("gpus"))}
    return FoundBenchmark(row.fullname, setting, how, processes, "measured", None, (environment,))


def _number(value: object) -> int:
    """A number from 1 that a parameter may give; 1 where it gives none."""
    return value if isinstance(value, int) and value > 0 else 1
