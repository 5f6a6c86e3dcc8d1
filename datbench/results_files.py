"""Result files: read, checked field by field, and turned back into the values they were.

Version history of the format stands in `datbench.results`. A file of an older version is brought
up one version at a time by `MIGRATIONS`; version 1 is the first, so there is none yet.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import results
from .errors import UsageError
from .reading import Problem, Reader, problems_of

Document = dict[str, Any]

MIGRATIONS: dict[int, Callable[[Document], Document]] = {}
"""From a document of this version to one of the next."""


@dataclass(frozen=True)
class ParamsEntry:
    """A row of kind ``params``; `stage` where they were broken down."""

    model: str
    params: int
    frozen: int
    buffers: int
    stage: str | None = None
    features: bool = False


@dataclass(frozen=True)
class ModelEntry:
    """A row of kind ``models``."""

    model: str
    family: str
    resolution: str
    source: str
    summary: str


@dataclass(frozen=True)
class ShowEntry:
    """A row of kind ``show``: stages of one of ours, parts of another's."""

    model: str
    resolution: str
    stages: tuple[dict[str, Any], ...] = ()
    parts: tuple[dict[str, Any], ...] = ()
    published: dict[str, Any] | None = None
    checkpoint: dict[str, Any] | None = None


@dataclass(frozen=True)
class Layout:
    """What rows of a kind are.

    Args:
        rows: the classes that a row may be, as ``module:Class`` below this package; none where a
            row may hold anything.
        extras: what the command adds to each row, by field, in the same spelling; a tuple of it.
    """

    rows: tuple[str, ...] = ()
    extras: Mapping[str, str] = field(default_factory=dict)


LAYOUTS: dict[str, Layout] = {
    "flops": Layout(("results:CountRow",)),
    "explain": Layout(("results:ExplainRow",)),
    "params": Layout(("results_files:ParamsEntry",)),
    "models": Layout(("results_files:ModelEntry",)),
    "show": Layout(("results_files:ShowEntry",)),
    "env": Layout(),
    "eq10": Layout(("terms:ModuleTerms",)),
    "eq10-fit": Layout(("terms:Fit",)),
    "eq10-paper": Layout(("terms:Claim",)),
    "eq10-measured": Layout(("measurements:Measurements",)),
    "memory": Layout(("ledger:MemoryRow",), {"allocator": "allocation:Replay", "context": ""}),
    "memory-largest": Layout(("allocation:LargestBatch", "gpu_memory:Confirmed")),
    "memory-measured": Layout(("gpu_memory:GpuRow",), {"simulated_peak": ""}),
    "table": Layout(("cells:Comparison",)),
    "throughput": Layout(("timings:ThroughputRow",)),
    "profile": Layout(("profiles:ProfileRow",)),
    "compare": Layout(("versus:VersusRow",), {"order": "", "false_alarms": ""}),
    "compare-aa": Layout(("versus:FalseAlarms",), {"verdicts": "", "a": ""}),
    "table-search": Layout(),
    "points": Layout(("points:PointsRow",)),
    "validate": Layout(),
    "baseline": Layout(
        ("baselines:CountBaseline", "baselines:MemoryBaseline", "baselines:TimeBaseline")
    ),
    "gate": Layout(("gates:GateRow",)),
    "report": Layout(("reports:ReportPart",)),
}

ENVIRONMENT = "measured_in"
"""What a row of a file that was merged from several environments carries besides its own fields."""


def read(path: Path) -> Document:
    """A result file as a document of this version; its rows are not checked yet.

    Raises:
        UsageError: it cannot be read, is empty, cut off, somebody else's, or of a newer version.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise UsageError(f"there is no file {path}.") from error
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is no text, and so no datbench result.") from error
    if not text.strip():
        raise UsageError(f"{path} is empty; it was perhaps cut off while it was written.")
    return migrated(results.loads(text, str(path)), str(path))


def migrated(content: Document, name: str) -> Document:
    """The document in the layout of this version.

    Raises:
        UsageError: it has a version that never was, or is no document.
    """
    version = content["version"]
    while version != results.VERSION:
        if version not in MIGRATIONS:
            raise UsageError(f"{name} has version {version}, which no datbench has written.")
        content = MIGRATIONS[version](content)
        version = content["version"]
    for key, kind, what in (
        ("kind", str, "text"),
        ("rows", list, "a list"),
        ("environment", dict, "an object"),
    ):
        if not isinstance(content.get(key), kind):
            raise UsageError(f"{name}: {key} must be {what}; this is no datbench result.")
    return content


def layout(kind: str, name: str = "the document") -> Layout:
    """The layout of a kind.

    Raises:
        UsageError: this version knows no such kind.
    """
    if kind not in LAYOUTS:
        raise UsageError(f"{name} holds {kind!r}, which this datbench does not know.")
    return LAYOUTS[kind]


def _class(name: str) -> type[Any]:
    module, _, attribute = name.partition(":")
    found: type[Any] = getattr(importlib.import_module(f"{__package__}.{module}"), attribute)
    return found


def row_problems(kind: str, row: object) -> list[Problem]:
    """What is wrong with a row, with the field's name; nothing if it is whole."""
    wanted = layout(kind)
    if not isinstance(row, dict):
        return [Problem("", "must be an object")]
    own = {n: value for n, value in row.items() if n != ENVIRONMENT and n not in wanted.extras}
    if not wanted.rows:
        return problems_of(Any, own)
    # Of several classes, the one that fits best says what is wrong.
    found = min((problems_of(_class(name), own, strict=True) for name in wanted.rows), key=len)
    for name, of in wanted.extras.items():
        hint = tuple[_class(of), ...] if of else Any  # type: ignore[misc]
        if name in row:
            found += problems_of(hint, row[name], name)
    if ENVIRONMENT in row:
        found += problems_of(dict[str, Any], row[ENVIRONMENT], ENVIRONMENT)
    return found


def row_value(kind: str, row: dict[str, Any], name: str = "the row") -> Any:
    """The value that a row was written from.

    Raises:
        UsageError: a field is missing or is not what it must be; the message names it.
    """
    wanted = layout(kind)
    best: list[Problem] = []
    for of in wanted.rows:
        reader = Reader()
        value = reader.read(_class(of), row, "")
        if not reader.problems:
            return value
        if not best or len(reader.problems) < len(best):
            best = reader.problems
    if best:
        raise UsageError(f"{name}: {best[0]}.")
    return row


def extra(kind: str, row: dict[str, Any], name: str) -> Any:
    """One of the extras of a row, as a value; None where it has none."""
    of = layout(kind).extras.get(name)
    if name not in row or of is None:
        return None
    return Reader().read(tuple[_class(of), ...], row[name], name) if of else row[name]  # type: ignore[misc]


def values(content: Document, name: str) -> list[Any]:
    """Every row of a document as the value that it was written from.

    Raises:
        UsageError: a row is broken; the message names the file, the row and the field.
    """
    layout(content["kind"], name)
    found = []
    for number, row in enumerate(content["rows"], 1):
        where = f"{name}, row {number}"
        if not isinstance(row, dict):
            raise UsageError(f"{where}: must be an object.")
        found.append(row_value(content["kind"], row, where))
    return found


TOLD_BY = ("setting", "recipe", "how")
"""Objects that say what a row is of."""


def flat(row: Mapping[str, Any], short: bool = False) -> dict[str, Any]:
    """Nested fields under dotted names, lists as JSON text.

    Args:
        short: leave out lists, and objects that do not say what the row is of.
    """
    found: dict[str, Any] = {}
    for name, value in row.items():
        if isinstance(value, Mapping):
            if not short or name in TOLD_BY:
                found |= {f"{name}.{below}": each for below, each in flat(value, short).items()}
        elif not isinstance(value, (list, tuple)):
            found[name] = value
        elif not short:
            found[name] = json.dumps(value, ensure_ascii=False)
    return found


def each(row: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    """One row for each element of the list or object `name`, beside what the row is of.

    Raises:
        UsageError: the row has no such list.
    """
    value = row.get(name)
    if isinstance(value, Mapping):
        value = [
            {"name": key, **inner} if isinstance(inner, Mapping) else {"name": key, "value": inner}
            for key, inner in value.items()
        ]
    if not isinstance(value, (list, tuple)):
        known = [key for key, inner in row.items() if isinstance(inner, (list, tuple, Mapping))]
        raise UsageError(
            f"--each {name}: the rows have no such list; they have {', '.join(known) or 'none'}."
        )
    rest = flat(row, short=True)
    return [
        rest
        | {
            f"{name}.{below}" if below else name: inner
            for below, inner in (
                flat(element) if isinstance(element, Mapping) else {"": element}
            ).items()
        }
        for element in value
    ]
