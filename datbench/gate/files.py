"""Baselines in files, and what a gate takes from files of results."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..compare.files import KEPT, SAMPLING, check_seconds, of_results
from ..errors import MissingError, UsageError
from ..machine import HARDWARE, SOFTWARE
from ..records import ResultFile, checked, document, load, load_all, plain
from ..setting import How
from ..timing.records import ProcessTiming, ThroughputRow
from .records import DECISIVE, WHATS, Baseline, MemoryBaseline, TimeBaseline, What, fold, key, order

if TYPE_CHECKING:
    from ..memory.records import MemoryRow

KINDS = ("baseline", "memory", "throughput")
"""Kinds of result files that a gate compares."""

VERSIONS = ("torch", "torchvision", "timm", "transformers")
"""Packages that decide what a model computes, or contain models."""


def versions(here: Mapping[str, Any]) -> dict[str, Any]:
    """What a baseline says that it was written with.

    Without the machine, which no exact figure depends on and every commit would change.

    Args:
        here: this environment's summary.
    """
    found = {name: here[name] for name in ("datbench", "python", "torch")}
    for name in VERSIONS:
        if name not in found:
            with suppress(metadata.PackageNotFoundError):
                found[name] = metadata.version(name)
    return found


def public(version: object) -> str:
    """A version without the word for its build: ``2.6.0+cpu`` -> ``2.6.0``."""
    return str(version).partition("+")[0]


def apart(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, str]:
    """Which packages have another version than when the baseline was written, in words."""
    return {
        name: f"the baseline is of {name} {before[name]}, this is {now.get(name) or 'none'}"
        for name in VERSIONS
        if name in before and public(before[name]) != public(now.get(name))
    }


def read_baseline(path: Path, empty: bool = False) -> tuple[list[Baseline], dict[str, Any]]:
    """The rows of a baseline and the versions that it was written with.

    Args:
        empty: whether it may hold no row.

    Raises:
        MissingError: there is no such file.
        UsageError: the file is not a baseline, is broken, or holds a row twice.
    """
    if not path.exists():
        raise MissingError(
            f"there is no baseline {path}; write it: datbench gate update MODEL --baseline {path}."
        )
    found = load(path)
    if found.kind != "baseline":
        raise UsageError(f"{path} holds {found.kind!r} and is not a baseline.")
    rows = _rows(found)
    if not rows and not empty:
        raise UsageError(f"{path} holds no row; add one: datbench gate update MODEL.")
    unique(rows, str(path))
    return rows, found.environment


def _rows(found: ResultFile) -> list[Baseline]:
    """Rows of a baseline, which somebody may have edited."""
    for number, row in enumerate(found.rows, 1):
        if isinstance(row, TimeBaseline):
            _check_time(row, f"{found.name}, row {number}")
    return list(found.rows)


def _check_time(row: TimeBaseline, where: str) -> None:
    """Whether a time can be, and can be measured again."""
    for seconds in row.seconds:
        check_seconds(seconds, f"{where}: seconds")
    how = dict(row.how)
    gpus = how.pop("gpus", 1)
    if type(gpus) is not int or gpus < 1:
        raise UsageError(f"{where}: how.gpus: must be a number from 1, not {gpus!r:.40}.")
    for problem in checked(How, how, "how")[1]:
        raise UsageError(f"{where}: {problem}.")
    if row.setting.device == "meta":
        raise UsageError(f"{where}: setting.device: nothing takes time on meta.")


def unique(rows: Sequence[Baseline], name: str) -> None:
    """Whether there is one row of each thing.

    Raises:
        UsageError: one is there twice.
    """
    found = set()
    for row in rows:
        if key(row) in found:
            raise UsageError(
                f"{name} holds {row.model} at {row.setting.resolution} ({row.what}) twice."
            )
        found.add(key(row))


def read_results(files: Sequence[Path]) -> tuple[list[Baseline], set[What]]:
    """The rows of result files as a baseline has them, and what such files speak of.

    Raises:
        UsageError: one cannot be read, is of a kind that no baseline holds, or a row stands twice.
    """
    rows: list[Baseline] = []
    given: set[What] = set()
    read = [(path, each) for path in files for each in load_all(path)]
    for path, results in read:
        if path.is_dir() and results.kind not in KINDS:
            continue  # what else a sweep has measured
        found = _baselines(results, path)
        rows += found
        if results.kind == "baseline":
            given |= {row.what for row in found} or set(WHATS)
        else:
            given.add("memory" if results.kind == "memory" else "time")
    unique(rows, " and ".join(map(str, files)))
    return rows, given


def _baselines(results: ResultFile, path: Path) -> list[Baseline]:
    """Results as rows of a baseline."""
    if results.kind not in KINDS:
        raise UsageError(
            f"{path} holds {results.kind!r}; a gate takes {', '.join(KINDS)}. Counts need no file: "
            "they are computed."
        )
    if results.kind == "baseline":
        return _rows(results)
    if results.kind == "memory":
        return [simulated(row) for row in results.rows]
    of_results(results, path)  # says what cannot be, and mixed machines
    return [timed(row, here) for row, here in zip(results.rows, results.measured_in, strict=True)]


def simulated(row: MemoryRow) -> MemoryBaseline:
    """A ledger as a baseline's row."""
    parts = {
        f"{part.module or '(model)'} {part.operator}": {
            "tensors": part.tensors,
            "kept": part.kept or 0,
            "at_peak": part.at_peak,
        }
        for part in row.parts
    }
    return MemoryBaseline(
        model=row.model,
        setting=row.setting,
        mode=row.mode,
        lines={x.category: {"amount": x.amount, "at_peak": x.at_peak} for x in row.lines},
        after_forward=row.after_forward,
        at_end=row.at_end,
        peak=row.peak.amount,
        parts=fold(parts),
        recipe=row.recipe,
    )


def timed(row: ThroughputRow, around: Mapping[str, Any]) -> TimeBaseline:
    """What a baseline keeps of a measured row.

    Args:
        around: the file's environment, where the processes do not say theirs.
    """
    ended = [process for process in row.processes if process.outcome == "measured"]
    seconds = tuple(process.timing.median for process in ended if process.timing is not None)
    # As files have it: a field that is new and says nothing makes no other row of an old baseline.
    how = {name: value for name, value in plain(row.how).items() if name not in SAMPLING}
    found = next((process.environment for process in ended if process.environment), around)
    kept = {name: found[name] for name in (*HARDWARE, *SOFTWARE) if name in found}
    threads = sorted({process.threads for process in ended if process.threads is not None})
    return TimeBaseline(
        row.model,
        row.setting,
        how | {"gpus": row.gpus},
        seconds,
        kept | {"threads": threads},
        _why_not(row, ended, seconds),
    )


def _why_not(
    row: ThroughputRow, ended: Sequence[ProcessTiming], seconds: Sequence[float]
) -> str | None:
    """Why a row's processes are no samples of one time; None where they are."""
    bad = next((process for process in row.processes if process.outcome not in KEPT), None)
    if bad is not None:
        return f"{bad.outcome}: {bad.reason}" if bad.reason else bad.outcome
    environments = [process.environment for process in ended]
    mixed = [
        name
        for name in DECISIVE
        if len({str(each[name]) for each in environments if name in each}) > 1
    ]
    if mixed:
        return f"its processes ran with several versions of {' and '.join(mixed)}"
    if len(seconds) < len(ended):
        return "a process was measured, and its file holds no time of it"
    return None if seconds else f"{row.outcome}: {row.reason or 'no process has ended'}"


def text_of(rows: Sequence[Baseline], environment: dict[str, Any]) -> str:
    """A baseline as JSON with one entry a line, so that its history reads well."""
    content = document("baseline", sorted(rows, key=order), environment)
    return _lines(content, 0) + "\n"


_OPEN = 4
"""Levels that are spread over lines: the document, its rows, a row, a row's long fields."""

_CLOSED = ("setting", "recipe", "how", "environment")


def _lines(value: Any, level: int, name: str = "") -> str:
    nested = isinstance(value, (Mapping, list, tuple)) and value
    if not nested or level == _OPEN or name in _CLOSED:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    if isinstance(value, Mapping):
        opening, closing = "{", "}"
        parts = [
            f"{json.dumps(key, ensure_ascii=False)}: {_lines(inner, level + 1, key)}"
            for key, inner in value.items()
        ]
    else:
        opening, closing = "[", "]"
        parts = [_lines(inner, level + 1) for inner in value]
    indent = "  " * (level + 1)
    entries = ",\n".join(f"{indent}{part}" for part in parts)
    return f"{opening}\n{entries}\n{'  ' * level}{closing}"
