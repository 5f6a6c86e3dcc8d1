"""Result files of `datbench throughput`, read for a comparison: rows checked and put together."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ... import results_files
from ...errors import UsageError
from ...timings import ProcessTiming, ThroughputRow, TimeOutcome

KIND = "throughput"

HARDWARE = ("processor", "cpus", "usable_cpus", "cpu_capability", "gpus")
"""What makes a machine; memory is left out, since kernels disagree about what they keep of it."""

SOFTWARE = ("torch", "datbench", "python", "platform", "cuda")
"""What may differ on one machine, and is what people compare: noted, not refused."""

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
    content = results_files.read(path)
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
        value: ThroughputRow = results_files.row_value(KIND, row, where)
        found = _found(row, value, content["environment"], where)
        rows[found.key] = _together(rows.get(found.key), found)
    return ResultFile(path, rows)


def _found(
    row: Mapping[str, Any], value: ThroughputRow, environment: Mapping[str, Any], where: str
) -> Found:
    if value.gpus < 1:
        raise UsageError(f"{where}: gpus: must be a number from 1, not {value.gpus}.")
    own = row.get(results_files.ENVIRONMENT)
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
