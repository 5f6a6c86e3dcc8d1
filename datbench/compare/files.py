"""Result files of `datbench throughput` or pytest-benchmark, compared row by row.

The processes of two files were not interleaved, so that nothing cancels what the machine did in
between; the test is the rank sum of two separate sets. One process is one sample of the machine.
pytest-benchmark runs only one: the ratio is shown, but a verdict needs more.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..errors import MissingError, UsageError
from ..machine import HARDWARE, distinct, joined, short, software
from ..records import ResultFile, load, parse, plain, read_json
from ..timing.pytest_benchmark import Benchmark, from_document, is_benchmark_file
from ..timing.records import ProcessTiming, ThroughputRow, TimeOutcome, Timing
from .decide import decide_samples
from .records import ComparisonRow, Decision, SideName, TimedRun, Unit, side_by_side
from .run import median_rate, rate

SAMPLING = ("budget", "width")
"""Fields of a `How` that say how long it is sampled, not how it runs."""

KEPT = ("measured", "interrupted")
"""Outcomes after which the other processes of a row are still valid."""

SHORTEST, LONGEST = 1e-10, 1e7
"""Seconds that a call may take: a tenth of a nanosecond is less than a clock, 1e7 are months."""

UNTURNED = (
    "the processes of two files were not interleaved: a machine that was slower meanwhile looks "
    "like a slower model"
)


@dataclass(frozen=True)
class FileRow:
    """The rows of one file that belong together."""

    name: str  # for people
    of: dict[str, Any]  # its model, its setting, and how it was run
    processes: tuple[ProcessTiming, ...]
    outcome: TimeOutcome
    reason: str | None
    around: tuple[Mapping[str, Any], ...]  # what the file says that it was measured in
    unit: Unit = "images/s"

    @property
    def images(self) -> int:
        """Images of one call: a batch for each GPU that took part. One, if calls are counted."""
        if self.unit == "calls/s":
            return 1
        return int(self.of["setting"]["batch"]) * int(self.of["how"].get("gpus") or 1)

    @property
    def environments(self) -> tuple[Mapping[str, Any], ...]:
        """The processes' own, which ran the model; the file's where they have none."""
        own = tuple(each.environment for each in self.processes if each.environment)
        return own or self.around

    def machine(self) -> dict[str, list[Any]]:
        """The different values of each thing that makes a machine, where it counts."""
        on_gpu = str(self.of["setting"].get("device")).startswith("cuda")
        found = {
            name: distinct(each[name] for each in self.environments if name in each)
            for name in HARDWARE
            if name != "gpus" or on_gpu  # a CPU's time does not depend on the GPUs beside it
        }
        if not on_gpu:
            threads = (each.threads for each in self.processes if each.threads is not None)
            found["threads"] = distinct(threads)
        return found


FileRows = dict[str, FileRow]
"""What a file holds, by what two rows must have in common to be compared."""


def read(path: Path) -> FileRows:
    """A result of `datbench throughput --format json`, with each row of one machine.

    Raises:
        UsageError: the file cannot be read or is of another kind; a row is damaged, impossible, or
            not of one machine.
    """
    return of_results(load(path, "throughput"), path)


def of_results(results: ResultFile, path: Path) -> FileRows:
    """The rows of a file that was read already.

    Raises:
        UsageError: the file is of another kind; a row is impossible, or not of one machine.
    """
    if results.kind != "throughput":
        raise UsageError(
            f"{path} holds {results.kind!r}; compare takes files of "
            "`datbench throughput --format json`."
        )
    rows: FileRows = {}
    for number, (row, here) in enumerate(zip(results.rows, results.measured_in, strict=True), 1):
        _check(row, f"{path}, row {number}")
        key, found = _keyed(row, here)
        rows[key] = _together(rows[key], found) if key in rows else found
    return _of_one_machine(rows, path)


def _check(row: ThroughputRow, where: str) -> None:
    """Whether a row's figures can be true."""
    for number, process in enumerate(row.processes, 1):
        place, timing = f"{where}: processes[{number}]", process.timing
        if timing is not None:
            check_seconds(timing.median, f"{place}.timing.median")
            if timing.samples and not min(timing.samples) <= timing.median <= max(timing.samples):
                raise UsageError(f"{place}.timing.median: does not lie among the samples.")


def check_seconds(seconds: float, where: str) -> None:
    """Whether a call can take so long.

    Raises:
        UsageError: it cannot.
    """
    if not SHORTEST <= seconds <= LONGEST:
        raise UsageError(
            f"{where}: must be seconds of a call, {SHORTEST:g} to {LONGEST:g}, not {seconds:g}."
        )


def _keyed(row: ThroughputRow, environment: Mapping[str, Any]) -> tuple[str, FileRow]:
    # More than one GPU is another way of running it.
    setting, how = plain(row.setting), {**plain(row.how), "gpus": row.gpus}
    same = {name: each for name, each in how.items() if name not in SAMPLING}
    key = json.dumps([row.model, setting, same], sort_keys=True)
    size = f"{setting.get('width')}x{setting.get('height')}"
    name = f"{row.model}, {size}, batch {setting.get('batch')}, {setting.get('device')}"
    of = {"model": row.model, "setting": setting, "how": how}
    return key, FileRow(name, of, row.processes, row.outcome, row.reason, (environment,))


def _together(one: FileRow, other: FileRow) -> FileRow:
    worse = one if one.outcome != "measured" else other
    return replace(
        one,
        processes=(*one.processes, *other.processes),
        outcome=worse.outcome,
        reason=worse.reason,
        around=(*one.around, *other.around),
    )


def _read_any(path: Path) -> FileRows:
    """The same, or a result of pytest-benchmark, whose benchmarks are matched by full name."""
    if path.is_dir():
        return read(path)
    content = read_json(path)
    if not is_benchmark_file(content):
        return of_results(parse(content, str(path)), path)
    file = from_document(content, path)
    rows = {
        row.fullname: _benchmark(row, file.environment(), f"{path} ({row.name})")
        for row in file.rows
    }
    return _of_one_machine(rows, path)


def _benchmark(row: Benchmark, environment: Mapping[str, Any], where: str) -> FileRow:
    # A benchmark of others counts calls, whatever its parameters are called.
    unit: Unit = "images/s" if "images_per_second" in row.extra else "calls/s"
    batch, gpus = (
        value if isinstance(value := row.params.get(name), int) and value > 0 else 1
        for name in ("batch", "gpus")
    )
    processes = []
    for seconds in row.processes:
        if seconds:  # below the clock's resolution a median is zero, and no figure
            check_seconds(seconds, where)
        timing = Timing((seconds,), (), 1, "samples", seconds, seconds, seconds, 0.0)
        processes.append(ProcessTiming("measured", timing=timing))
    setting = {"batch": batch, "device": row.params.get("device")}
    of = {"model": row.fullname, "setting": setting, "how": {"gpus": gpus}}
    return FileRow(row.fullname, of, tuple(processes), "measured", None, (environment,), unit)


def _of_one_machine(rows: FileRows, path: Path) -> FileRows:
    for row in rows.values():
        if not all("processor" in environment for environment in row.environments):
            raise UsageError(
                f"{path} does not say what machine it was measured on; measure it again."
            )
        mixed = [
            f"{name} {' and '.join(map(short, values))}"
            for name, values in row.machine().items()
            if len(values) > 1
        ]
        if mixed:
            raise UsageError(
                f"{path} mixes machines in one row, {row.name} ({'; '.join(mixed)}); compare a "
                "file of each machine."
            )
    return rows


def compare_files(
    a: Path, b: Path, floor: float, level: float, across_machines: bool = False
) -> list[ComparisonRow]:
    """A row for each key of either file, in A's order and then B's.

    Raises:
        UsageError: a file is damaged or of another kind, or the machines differ.
        MissingError: neither file holds a row.
    """
    both = [(one, other) for _, one, other in side_by_side(_read_any(a), _read_any(b))]
    machines = dict.fromkeys(said for one, other in both for said in _apart(one, other))
    if machines and not across_machines:
        raise UsageError(
            f"{a} and {b} are from different machines ({'; '.join(machines)}); give "
            "--across-machines to compare them anyway."
        )
    if not both:
        raise MissingError(f"neither {a} nor {b} holds a row.")
    return [_compared(one, other, floor, level) for one, other in both]


def _apart(a: FileRow | None, b: FileRow | None) -> list[str]:
    """What says that two rows were measured on different machines, in words."""
    if a is None or b is None:
        return []
    one, other = a.machine(), b.machine()
    return [
        f"{name} {joined(one[name])} and {joined(other[name])}"
        for name in one
        if one[name] and other[name] and one[name] != other[name]
    ]


def _compared(a: FileRow | None, b: FileRow | None, floor: float, level: float) -> ComparisonRow:
    either = a or b
    assert either is not None
    doubts = []
    if machines := _apart(a, b):
        doubts.append(f"the files are from different machines: {'; '.join(machines)}")
    if a is not None and b is not None:
        doubts += software(a.environments, b.environments)
    runs: list[TimedRun] = []
    sides: tuple[tuple[SideName, FileRow | None], ...] = (("A", a), ("B", b))
    for side, row in sides:
        for process in row.processes if row else ():
            ended = ProcessTiming(process.outcome, process.reason)
            speed = rate(process, row.images) if row else None
            runs.append(TimedRun(len(runs), 0, side, ended, speed))
    return ComparisonRow(
        either.name,
        either.name,
        _decided(a, b, runs, floor, level),
        median_rate(runs, "A"),
        median_rate(runs, "B"),
        tuple(runs),
        interleaved=False,
        doubts=(*doubts, UNTURNED),
        setting=either.of,
        unit=either.unit,
    )


def _decided(
    a: FileRow | None, b: FileRow | None, runs: Sequence[TimedRun], floor: float, level: float
) -> Decision:
    if a is None or b is None:
        side = "A" if a is None else "B"
        return Decision("missing", floor, level, reason=f"{side} has no such row")
    for side, row in (("A", a), ("B", b)):
        ends = [(p.outcome, p.reason) for p in row.processes or (row,) if p.outcome not in KEPT]
        if ends:
            outcome, reason = ends[0]
            why = f"{outcome}: {reason}" if reason else outcome
            return Decision("failed", floor, level, reason=f"{side} {why}")
    one, other = ([-math.log(r.rate) for r in runs if r.side == s and r.rate] for s in "AB")
    return decide_samples(one, other, floor, level)
