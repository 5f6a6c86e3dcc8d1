"""Result files of `datbench throughput`, read for a comparison: rows checked and put together."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from .. import records
from ..errors import UsageError
from ..machine import HARDWARE, _distinct, _joined, _short, software
from ..timing.pytest_benchmark import Benchmark, from_document, is_benchmark_file
from ..timing.records import ProcessTiming, ThroughputRow, TimeOutcome
from .decide import decide_samples
from .records import Decision, Run, SideName, VersusRow

KIND = "throughput"

SAMPLING = ("budget", "width")
"""Of a `How`: how long it is sampled, not how it runs."""

KEPT = ("measured", "interrupted")
"""Outcomes that leave the other processes of a row as good as they are."""

SHORTEST, LONGEST = 1e-10, 1e7
"""Seconds that a call may take: a tenth of a nanosecond is less than a clock, 1e7 are months."""


@dataclass(frozen=True)
class Ended:
    """One process of a row.

    Args:
        seconds: the median of a call; None where the process does not count.
        environment: what it says that it ran in; empty where it says nothing.
    """

    outcome: TimeOutcome
    reason: str | None
    seconds: float | None
    threads: int | None = None
    environment: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Found:
    """The rows of one file that belong together.

    Args:
        around: what the file says that each of these rows was measured in.
    """

    model: str
    setting: dict[str, Any]
    how: dict[str, Any]
    processes: tuple[Ended, ...]
    outcome: TimeOutcome
    reason: str | None
    around: tuple[Mapping[str, Any], ...] = ()

    @property
    def key(self) -> str:
        """What two rows must have in common to be compared."""
        how = {name: value for name, value in self.how.items() if name not in SAMPLING}
        return json.dumps([self.model, self.setting, how], sort_keys=True)

    @property
    def images(self) -> int:
        """Of one call: a batch for each GPU that took part."""
        return int(self.setting["batch"]) * int(self.how.get("gpus") or 1)

    @property
    def environments(self) -> tuple[Mapping[str, Any], ...]:
        """The processes' own, which ran the model; the file's where they have none."""
        own = tuple(each.environment for each in self.processes if each.environment)
        return own or self.around

    def words(self) -> str:
        """A name for people."""
        setting = self.setting
        size = f"{setting.get('width')}x{setting.get('height')}"
        return f"{self.model}, {size}, batch {setting.get('batch')}, {setting.get('device')}"


@dataclass(frozen=True)
class ResultFile:
    """What a file holds, by key."""

    path: Path
    rows: dict[str, Found]


def read(path: Path) -> ResultFile:
    """A result of `datbench throughput --format json`.

    Raises:
        UsageError: it cannot be read, is no such result, or a row is damaged or cannot be.
    """
    content = records.read(path)
    if content["kind"] != KIND:
        raise UsageError(
            f"{path} holds {content['kind']!r}; compare takes files of "
            "`datbench throughput --format json`."
        )
    rows: dict[str, Found] = {}
    for number, row in enumerate(content["rows"], 1):
        where = f"{path}, row {number}"
        if not isinstance(row, dict):
            raise UsageError(f"{where}: must be an object.")
        value: ThroughputRow = records.row_value(KIND, row, where)
        found = _found(row, value, content["environment"], where)
        rows[found.key] = _together(rows.get(found.key), found)
    return ResultFile(path, rows)


def _found(
    row: Mapping[str, Any], value: ThroughputRow, environment: Mapping[str, Any], where: str
) -> Found:
    if value.gpus < 1:
        raise UsageError(f"{where}: gpus: must be a number from 1, not {value.gpus}.")
    own = row.get(records.ENVIRONMENT)
    return Found(
        value.model,
        dict(row["setting"]),
        # A way of running that this version does not know is another way all the same; and more
        # than one GPU is another way of running it.
        {**asdict(value.how), **row["how"], "gpus": value.gpus},
        tuple(
            _ended(process, f"{where}: processes[{number}]")
            for number, process in enumerate(value.processes, 1)
        ),
        value.outcome,
        value.reason,
        (own if isinstance(own, dict) else environment,),
    )


def _ended(process: ProcessTiming, where: str) -> Ended:
    """A process, if its figures can be true."""
    timing, seconds = process.timing, None
    if process.threads is not None and process.threads < 1:
        raise UsageError(f"{where}.threads: must be a number from 1, not {process.threads}.")
    if timing is not None:
        check_seconds(timing.median, f"{where}.timing.median")
        if timing.samples and not min(timing.samples) <= timing.median <= max(timing.samples):
            raise UsageError(f"{where}.timing.median: does not lie among the samples.")
        seconds = timing.median if process.outcome == "measured" else None
    return Ended(process.outcome, process.reason, seconds, process.threads, process.environment)


def check_seconds(seconds: float, where: str) -> None:
    """Whether a call can take so long.

    Raises:
        UsageError: it cannot.
    """
    if not SHORTEST <= seconds <= LONGEST:
        raise UsageError(
            f"{where}: must be seconds of a call, {SHORTEST:g} to {LONGEST:g}, not {seconds:g}."
        )


def _together(one: Found | None, other: Found) -> Found:
    if one is None:
        return other
    worse = one if one.outcome != "measured" else other
    return Found(
        one.model,
        one.setting,
        one.how,
        (*one.processes, *other.processes),
        worse.outcome,
        worse.reason,
        (*one.around, *other.around),
    )


# A file of pytest-benchmark as a side of a comparison: benchmarks are matched by full name.
#
# One process is one sample of the machine. pytest-benchmark runs one, so that the ratio is shown
# and a verdict takes more; files of `datbench throughput --processes N` hold as many.


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


def read_benchmarks(path: Path) -> ResultFile:
    """A result of `datbench throughput --format json`, or of pytest-benchmark.

    Raises:
        UsageError: it cannot be read, is neither of them, or is damaged.
    """
    content = _json(path)
    if not is_benchmark_file(content):
        return read(path)
    file = from_document(content, path)
    environment = file.environment()
    rows: dict[str, Found] = {
        row.fullname: _found_benchmarks(row, environment, f"{path} ({row.name})")
        for row in file.rows
    }
    return ResultFile(path, rows)


def _json(path: Path) -> Any:
    """What a file holds; None where it cannot be read, which `read_result` complains of."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None


def _found_benchmarks(row: Benchmark, environment: Mapping[str, Any], where: str) -> FoundBenchmark:
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


# Whether figures are of one machine, row by row: processes within a row, and rows of two files.


def check_machines(file: ResultFile) -> None:
    """Whether every row is of one machine, and says of which.

    Raises:
        UsageError: a row is not, or does not say.
    """
    for row in file.rows.values():
        if not all("processor" in environment for environment in row.environments):
            raise _silent(file.path)
        mixed = [
            f"{name} {' and '.join(map(_short, values))}"
            for name, values in _machine(row).items()
            if len(values) > 1
        ]
        if mixed:
            raise UsageError(
                f"{file.path} mixes machines in one row, {row.words()} ({'; '.join(mixed)}); "
                "compare a file of each machine."
            )


def _silent(path: Path) -> UsageError:
    return UsageError(f"{path} does not say what machine it was measured on; measure it again.")


def apart(a: Found, b: Found) -> list[str]:
    """What says that two rows were measured on different machines, in words."""
    one, other = _machine(a), _machine(b)
    return [
        f"{name} {_joined(one[name])} and {_joined(other[name])}"
        for name in one
        if one[name] and other[name] and one[name] != other[name]
    ]


def differences_of_machines(a: ResultFile, b: ResultFile) -> list[str]:
    """The same of all rows that both files have, each difference once.

    Raises:
        UsageError: a row of a file is of several machines, or does not say of which.
    """
    for file in (a, b):
        check_machines(file)
    both = (key for key in a.rows if key in b.rows)
    return list(dict.fromkeys(said for key in both for said in apart(a.rows[key], b.rows[key])))


def _machine(row: Found) -> dict[str, list[Any]]:
    """The different values of each thing that makes a machine; what does not count is left out."""
    on_gpu = str(row.setting.get("device")).startswith("cuda")
    found = {
        name: _distinct(each[name] for each in row.environments if name in each)
        for name in HARDWARE
        if name != "gpus" or on_gpu  # a CPU's time does not depend on the GPUs beside it
    }
    if not on_gpu:
        threads = (each.threads for each in row.processes if each.threads is not None)
        found["threads"] = _distinct(threads)
    return found


# Two result files, compared row by row.
#
# The processes of a file were not run by turns with the other's, so that nothing cancels what the
# machine did in between; the test is the rank sum of two separate sets.


UNTURNED = (
    "the processes of two files were not run by turns: a machine that was slower meanwhile looks "
    "like a slower model"
)


def compare_files(a: ResultFile, b: ResultFile, floor: float, level: float) -> list[VersusRow]:
    """A row for each key of either file, in A's order and then B's."""
    return [
        _row(a.rows.get(key), b.rows.get(key), floor, level)
        for key in dict.fromkeys((*a.rows, *b.rows))
    ]


def _row(a: Found | None, b: Found | None, floor: float, level: float) -> VersusRow:
    either = a or b
    assert either is not None
    runs = (*_runs("A", a, 0), *_runs("B", b, 0 if a is None else len(a.processes)))
    rates = {side: [run.rate for run in runs if run.side == side and run.rate] for side in "AB"}
    return VersusRow(
        either.words(),
        either.words(),
        _decided(a, b, rates, floor, level),
        median(rates["A"]) if rates["A"] else None,
        median(rates["B"]) if rates["B"] else None,
        runs,
        interleaved=False,
        doubts=(*_of_the_machines(a, b), UNTURNED),
        setting={"model": either.model, "setting": either.setting, "how": either.how},
    )


def _of_the_machines(a: Found | None, b: Found | None) -> list[str]:
    if a is None or b is None:
        return []
    machines = apart(a, b)
    said = [f"the files are from different machines: {'; '.join(machines)}"] if machines else []
    return [*said, *software(a.environments, b.environments)]


def _decided(
    a: Found | None, b: Found | None, rates: Mapping[str, list[float]], floor: float, level: float
) -> Decision:
    if a is None or b is None:
        return Decision(
            "missing", floor, level, reason=f"{'A' if a is None else 'B'} has no such row"
        )
    for side, found in (("A", a), ("B", b)):
        ends = [(p.outcome, p.reason) for p in found.processes if p.outcome not in KEPT]
        if not found.processes and found.outcome not in KEPT:
            ends = [(found.outcome, found.reason)]
        if ends:
            outcome, reason = ends[0]
            why = f"{outcome}: {reason}" if reason else outcome
            return Decision("failed", floor, level, reason=f"{side} {why}")
    return decide_samples(_logs(rates["A"]), _logs(rates["B"]), floor, level)


def _logs(rates: Iterable[float]) -> list[float]:
    """Logarithms of seconds an image."""
    return [-math.log(rate) for rate in rates]


def _runs(side: SideName, found: Found | None, first: int) -> tuple[Run, ...]:
    if found is None:
        return ()
    return tuple(
        _run(side, process, first + number, found.images)
        for number, process in enumerate(found.processes)
    )


def _run(side: SideName, process: Ended, number: int, images: int) -> Run:
    rate = None if process.seconds is None else images / process.seconds
    return Run(number, 0, side, ProcessTiming(process.outcome, process.reason), rate)
