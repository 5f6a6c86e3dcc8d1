"""pytest-benchmark's JSON, read. Free of torch.

The layout is that of pytest-benchmark 4 and 5; `benchmark_documents` writes it.
"""

from __future__ import annotations

import math
import platform
import statistics
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated, Any

from typing_extensions import Required, TypedDict

from ..errors import UsageError
from ..records import checked, read_as
from ..setting import Bounds, Count
from ..units import Brief
from .records import ThroughputRow

Seconds = Annotated[float, Bounds(0)]


@dataclass(frozen=True, repr=False)
class Benchmark(Brief):
    """One benchmark of a file; times are in seconds."""

    name: str
    fullname: str  # what benchmarks of two files are matched by
    group: str | None
    params: Mapping[str, Any]
    extra: Mapping[str, Any]
    samples: tuple[Seconds, ...]  # raw, each the mean of `iterations` calls; none if not saved
    rounds: Count
    iterations: Count
    minimum: Seconds
    maximum: Seconds
    mean: Seconds
    median: Seconds
    stddev: Seconds

    @property
    def processes(self) -> tuple[float, ...]:
        """The median of each process; pytest-benchmark itself runs one."""
        found, problems = checked(tuple[Seconds, ...], self.extra.get(PROCESSES))
        return (self.median,) if problems or not found else found


@dataclass(frozen=True)
class BenchmarkFile:
    """What is read of a file of pytest-benchmark."""

    rows: tuple[Benchmark, ...]
    machine: Mapping[str, Any]

    def environment(self) -> dict[str, Any]:
        """What it was measured on, by our names; what it does not say is left out."""
        cpu = self.machine.get("cpu")
        cpu = cpu if isinstance(cpu, Mapping) else {}
        system, release = self.machine.get("system"), self.machine.get("release")
        # Without py-cpuinfo the host's name tells machines apart.
        host = [self.machine.get(name) for name in ("node", "machine")]
        elsewhere = ", ".join(filter(None, host)) or None
        found = {
            "processor": cpu.get("brand_raw") or self.machine.get("processor") or elsewhere,
            "cpus": cpu.get("count"),
            "python": self.machine.get("python_version"),
            "platform": f"{system}-{release}" if system and release else None,
        }
        return {name: value for name, value in found.items() if value is not None}


PROCESSES = "process_medians"
"""Among a benchmark's extra information: seconds of a call in each process, of files of ours."""


def is_benchmark_file(content: object) -> bool:
    """Whether a JSON document is pytest-benchmark's."""
    return isinstance(content, dict) and "benchmarks" in content and "machine_info" in content


class _Stats(TypedDict, total=False):
    min: Required[Seconds]
    max: Required[Seconds]
    mean: Required[Seconds]
    median: Required[Seconds]
    stddev: Required[Seconds]
    data: list[Seconds] | None
    rounds: Count
    iterations: Count


class _Entry(TypedDict, total=False):
    name: Required[str]
    fullname: str
    group: str | None
    params: dict[str, Any] | None
    extra_info: dict[str, Any] | None
    stats: Required[_Stats]


class _File(TypedDict, total=False):
    benchmarks: Required[list[_Entry]]
    machine_info: Required[dict[str, Any]]
    commit_info: dict[str, Any] | None
    datetime: str | None
    version: str | None


def from_document(content: Any, path: Path) -> BenchmarkFile:
    """What ``pytest --benchmark-json`` or ``--benchmark-save`` wrote, of a document already read.

    Raises:
        UsageError: the document is of another kind, is empty, or is damaged.
    """
    if not is_benchmark_file(content):
        raise UsageError(f"{path} is not a result of pytest-benchmark.")
    file: _File = read_as(_File, content, str(path), extra="ignore")
    if not file["benchmarks"]:
        raise UsageError(f"{path} holds no benchmarks.")
    rows = tuple(map(_benchmark, file["benchmarks"]))
    twice, number = Counter(row.fullname for row in rows).most_common(1)[0]
    if number > 1:
        raise UsageError(f"{path} holds {twice} twice.")
    return BenchmarkFile(rows, file["machine_info"])


def _benchmark(entry: _Entry) -> Benchmark:
    figures = entry["stats"]
    samples = tuple(figures.get("data") or ())
    return Benchmark(
        entry["name"],
        entry.get("fullname", entry["name"]),
        entry.get("group"),
        entry.get("params") or {},
        entry.get("extra_info") or {},
        samples,
        figures.get("rounds") or len(samples),
        figures.get("iterations") or 1,
        figures["min"],
        figures["max"],
        figures["mean"],
        figures["median"],
        figures["stddev"],
    )


# Our timed rows as pytest-benchmark's JSON, which its own command line compares. Free of torch.


MODULE = "datbench"
"""Where a benchmark of ours stands: the file in the full name of a test."""


def document(rows: Sequence[ThroughputRow], environment: Mapping[str, Any]) -> dict[str, Any]:
    """The JSON document of timed rows; a row without a sample is left out.

    Args:
        environment: what `datbench.machine.environment` says.
    """
    return {
        "machine_info": _machine(environment),
        "commit_info": {
            "id": "unversioned",
            "time": None,
            "author_time": None,
            "dirty": False,
            "project": MODULE,
            "branch": "(unknown)",
        },
        "benchmarks": [_entry(row, _samples(row)) for row in rows if _samples(row)],
        "datetime": datetime.now(timezone.utc).isoformat(),
        "version": "5.0.0",  # of the layout, which readers look at; not of any installed package
    }


def _machine(environment: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "node": platform.node(),
        "processor": platform.processor(),
        "machine": platform.machine(),
        "python_compiler": platform.python_compiler(),
        "python_implementation": platform.python_implementation(),
        "python_implementation_version": platform.python_version(),
        "python_version": platform.python_version(),
        "python_build": list(platform.python_build()),
        "release": platform.release(),
        "system": platform.system(),
        "cpu": {
            "brand_raw": environment.get("processor"),
            "count": environment.get("cpus"),
            "arch_string_raw": platform.machine(),
        },
        "datbench": dict(environment),
    }


def _samples(row: ThroughputRow) -> list[float]:
    """The samples of all processes, in the order of time."""
    timings = [process.timing for process in row.processes if process.timing is not None]
    return [sample for timing in timings for sample in timing.samples]


def _entry(row: ThroughputRow, samples: list[float]) -> dict[str, Any]:
    setting, how = row.setting, row.how
    params = {
        "model": row.model,
        "res": str(setting.resolution),
        **{name: getattr(setting, name) for name in ("batch", "dtype", "device", "attention")},
        **{name: getattr(how, name) for name in ("mode", "threads", "compile", "channels_last")},
        "gpus": row.gpus,
    }
    told = [row.model, str(setting.resolution), f"batch{setting.batch}", setting.dtype]
    told += [setting.device, setting.attention, how.mode]
    told += [] if how.threads is None else [f"threads{how.threads}"]
    told += [name for name in ("compile", "channels_last") if params[name]]
    told += [f"gpus{row.gpus}"] if row.gpus > 1 else []
    name = f"throughput[{'-'.join(told)}]"
    timing = next(p.timing for p in row.processes if p.timing is not None)
    return {
        "group": None,
        "name": name,
        "fullname": f"{MODULE}::{name}",
        "params": params,
        "param": "-".join(told),
        "extra_info": {
            "images_per_second": row.images_per_second,
            "macs": row.macs,
            PROCESSES: [p.timing.median for p in row.processes if p.timing is not None],
            "outcome": row.outcome,
            "doubts": list(row.doubts),
        },
        "options": {
            "disable_gc": False,
            "timer": "perf_counter" if setting.device == "cpu" else "cuda events",
            "min_rounds": 1,
            "max_time": how.budget,
            "min_time": 0.0,
            "warmup": True,
        },
        "stats": stats(samples, timing.calls),
    }


def stats(samples: Sequence[float], iterations: int = 1) -> dict[str, Any]:
    """The figures of samples that a file holds, as pytest-benchmark defines them."""
    data = sorted(samples)
    # Medians of the halves; of an odd number the mean of both ways to halve it.
    half, other = len(data) // 2, (len(data) + 1) // 2
    q1 = (statistics.median(data[: half or 1]) + statistics.median(data[:other])) / 2
    q3 = (statistics.median(data[half:]) + statistics.median(data[min(other, len(data) - 1) :])) / 2
    iqr = q3 - q1
    mean = statistics.mean(data)
    stddev = statistics.stdev(data) if len(data) > 1 else 0.0
    low, high = q1 - 1.5 * iqr, q3 + 1.5 * iqr
    beyond = sum(abs(value - mean) > stddev for value in data)
    outside = sum(value < low or value > high for value in data)
    total = math.fsum(data)
    return {
        "min": data[0],
        "max": data[-1],
        "mean": mean,
        "stddev": stddev,
        "rounds": len(data),
        "median": statistics.median(data),
        "iqr": iqr,
        "q1": q1,
        "q3": q3,
        "iqr_outliers": outside,
        "stddev_outliers": beyond,
        "outliers": f"{beyond};{outside}",
        "ld15iqr": data[bisect_left(data, low)],
        "hd15iqr": data[bisect_right(data, high) - 1],
        "ops": len(data) / total if total else 0.0,
        "total": total,
        "iterations": iterations,
        "data": list(samples),
    }
