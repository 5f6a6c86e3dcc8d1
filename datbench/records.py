"""Result files: read, checked field by field, and turned back into the values they were.

Version history of the format stands below. A file of an older version is brought
up one version at a time by `MIGRATIONS`; version 1 is the first, so there is none yet.
"""

from __future__ import annotations

import importlib
import json
import math
import types
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeAlias, Union, get_args, get_origin, get_type_hints

from .errors import UsageError
from .setting import Setting

# From plain values, as JSON has them, back to dataclasses: what a type's fields say is checked.


LARGEST = 10**30
"""No figure reaches it; beyond 1e308 a whole number could not even be drawn."""

_COUNTS = frozenset(
    "params frozen buffers macs flops calls forward bytes_read bytes_written peak after_forward "
    "at_end asked gpus samples warmup kept at_peak".split()
)
"""Fields of numbers that are never negative, whatever has them."""

_WORDS = {int: "a whole number", str: "text", bool: "true or false"}


@dataclass(frozen=True)
class Problem:
    """What is wrong with one field; the field is empty for the whole."""

    field: str
    message: str

    def __str__(self) -> str:
        return f"{self.field}: {self.message}" if self.field else self.message


def problems_of(hint: Any, value: object, path: str = "", strict: bool = False) -> list[Problem]:
    """Everything that keeps `value` from being a `hint`.

    Args:
        strict: fields that no class has are problems too.
    """
    reader = Reader(strict)
    reader.read(hint, value, path)
    return reader.problems


class Reader:
    """Reads values of a type and keeps what was wrong, with the path of the field."""

    def __init__(self, strict: bool = False) -> None:
        self.problems: list[Problem] = []
        self._strict = strict

    def read(self, hint: Any, value: Any, path: str) -> Any:
        """The value of this type; of no use where a problem was found."""
        if hint is Any:
            return self._anything(value, path)
        if is_dataclass(hint):
            return self._dataclass(hint, value, path)
        origin, inner = get_origin(hint), get_args(hint)
        if origin in (Union, types.UnionType):
            return self._union(inner, value, path)
        if origin is Literal:
            return self._one_of(inner, value, path)
        if origin is tuple:
            return self._tuple(inner, value, path)
        if isinstance(origin, type) and issubclass(origin, Mapping):
            return self._mapping(inner[1], value, path)
        return self._scalar(hint, value, path)

    def _wrong(self, path: str, message: str) -> None:
        self.problems.append(Problem(path, message))

    def _scalar(self, hint: Any, value: Any, path: str) -> Any:
        if hint is float:
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                self._wrong(path, f"must be a number, not {_said(value)}")
            else:
                self._bounded(value, path)
        elif hint in _WORDS:
            if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
                self._wrong(path, f"must be {_WORDS[hint]}, not {_said(value)}")
            elif hint is int:
                self._bounded(value, path)
        elif hint is type(None):
            if value is not None:
                self._wrong(path, f"must be null, not {_said(value)}")
        else:
            raise TypeError(f"{path}: no reader for {hint}")
        return value

    def _bounded(self, value: float, path: str) -> None:
        # A whole number may be too large to be asked whether it is finite.
        if isinstance(value, float) and not math.isfinite(value):
            self._wrong(path, f"must be a finite number, not {value}")
        elif isinstance(value, int) and abs(value) > LARGEST:
            self._wrong(path, f"must be a number below {LARGEST:.0e}, not one of so many digits")
        elif value < 0 and path.rpartition(".")[2] in _COUNTS:
            self._wrong(path, f"must not be negative, as {value} is")

    def _anything(self, value: Any, path: str) -> Any:
        if isinstance(value, (int, float)):
            self._bounded(value, path)
        elif isinstance(value, Mapping):
            for name, below in value.items():
                self._anything(below, _below(path, str(name)))
        elif isinstance(value, (list, tuple)):
            for number, below in enumerate(value, 1):
                self._anything(below, f"{path}[{number}]")
        return value

    def _one_of(self, known: tuple[Any, ...], value: Any, path: str) -> Any:
        if not isinstance(value, (str, int)) or value not in known:
            self._wrong(path, f"must be one of {', '.join(map(str, known))}, not {_said(value)}")
        return value

    def _union(self, hints: tuple[Any, ...], value: Any, path: str) -> Any:
        if value is None and type(None) in hints:
            return None
        others = [hint for hint in hints if hint is not type(None)]
        tried: list[list[Problem]] = []
        for hint in others:
            reader = Reader(self._strict)
            found = reader.read(hint, value, path)
            if not reader.problems:
                return found
            tried.append(reader.problems)
        fewest = min(tried, key=len)
        self.problems += fewest
        return value

    def _tuple(self, inner: tuple[Any, ...], value: Any, path: str) -> Any:
        if not isinstance(value, (list, tuple)):
            self._wrong(path, f"must be a list, not {_said(value)}")
            return ()
        if len(inner) == 2 and inner[1] is Ellipsis:
            inner = (inner[0],) * len(value)
        if len(inner) != len(value):
            self._wrong(path, f"must have {len(inner)} elements, not {len(value)}")
            return ()
        pairs = zip(inner, value, strict=True)
        return tuple(
            self.read(hint, each, f"{path}[{number}]")
            for number, (hint, each) in enumerate(pairs, 1)
        )

    def _mapping(self, inner: Any, value: Any, path: str) -> Any:
        if not isinstance(value, Mapping):
            self._wrong(path, f"must be an object, not {_said(value)}")
            return {}
        return {name: self.read(inner, each, _below(path, name)) for name, each in value.items()}

    def _dataclass(self, kind: Any, value: Any, path: str) -> Any:
        if not isinstance(value, Mapping):
            self._wrong(path, f"must be an object, not {_said(value)}")
            return None
        if kind is Setting and "resolution" not in value:
            # A row's own setting has the input's sides among its fields.
            sides = {side: value[side] for side in ("width", "height") if side in value}
            value = {"resolution": sides, **{k: v for k, v in value.items() if k not in sides}}
        before = len(self.problems)
        given = self._fields(kind, value, path)
        if len(self.problems) > before:
            return None
        try:
            return kind(**given)
        except (UsageError, ValueError, TypeError) as error:
            self._wrong(path, str(error).rstrip("."))
            return None

    def _fields(self, kind: Any, value: Mapping[str, Any], path: str) -> dict[str, Any]:
        hints, given = _hints(kind), {}
        known = {each.name: each for each in fields(kind) if each.init}
        for name, each in known.items():
            below = path if kind is Setting and name == "resolution" else _below(path, name)
            if name in value:
                given[name] = self.read(hints[name], value[name], below)
            elif each.default is MISSING and each.default_factory is MISSING:
                self._wrong(below, "is missing")
        if self._strict:
            for name in value:
                if name not in known:
                    self._wrong(_below(path, str(name)), "is no field of this kind")
        return given


@cache
def _hints(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind)


def _below(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _said(value: Any) -> str:
    """A value in a message, never long."""
    text = "null" if value is None else repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


VERSION = 1


def document(kind: str, rows: Sequence[Any], environment: dict[str, Any]) -> dict[str, Any]:
    """The JSON document of some rows (dataclasses or dicts)."""
    return {
        "format": "datbench",
        "version": VERSION,
        "kind": kind,
        "environment": environment,
        "rows": [row if isinstance(row, dict) else _plain(row) for row in rows],
    }


def _plain(row: Any) -> dict[str, Any]:
    values = asdict(row)
    setting = values.get("setting")
    if setting is not None:
        resolution = setting.pop("resolution")
        values["setting"] = {**resolution, **setting}
    return values


def dumps(content: dict[str, Any]) -> str:
    """Text of a document, ending in a newline."""
    return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object each of whose keys stands there once: of two, JSON's readers take the last."""
    found = dict(pairs)
    if len(found) < len(pairs):
        twice, _ = Counter(key for key, _ in pairs).most_common(1)[0]
        raise UsageError(f"the key {twice!r:.60} stands twice in one object.")
    return found


def loads(text: str, name: str = "the document") -> dict[str, Any]:
    """Read a document back.

    Raises:
        UsageError: it is not JSON, not ours, or of a newer version.
    """
    try:
        content = json.loads(text, object_pairs_hook=_once)
    except UsageError as error:
        raise UsageError(f"{name}: {error}") from None
    except (ValueError, RecursionError) as error:  # numbers and nesting beyond Python's limits too
        raise UsageError(f"{name} is no complete JSON: {error}.") from error
    if not isinstance(content, dict) or content.get("format") != "datbench":
        raise UsageError(f"{name} is no datbench result.")
    version = content.get("version")
    if type(version) is not int:  # true is an int for Python
        said = "null" if version is None else repr(version)
        raise UsageError(
            f"{name}: version must be a whole number, not {said:.40}; this is no datbench result."
        )
    if version > VERSION:
        raise UsageError(
            f"{name} has version {version}; this datbench reads up to {VERSION}. Upgrade datbench."
        )
    return content


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
    "flops": Layout(("counting.records:CountRow",)),
    "explain": Layout(("counting.records:ExplainRow",)),
    "params": Layout(("records:ParamsEntry",)),
    "models": Layout(("records:ModelEntry",)),
    "show": Layout(("records:ShowEntry",)),
    "env": Layout(),
    "eq10": Layout(("eq10.records:ModuleTerms",)),
    "eq10-fit": Layout(("eq10.records:Fit",)),
    "eq10-paper": Layout(("eq10.records:Claim",)),
    "eq10-measured": Layout(("timing.records:Measurements",)),
    "memory": Layout(
        ("memory.records:MemoryRow",), {"allocator": "memory.records:Replay", "context": ""}
    ),
    "memory-largest": Layout(("memory.records:LargestBatch", "memory.records:Confirmed")),
    "memory-measured": Layout(("memory.records:GpuRow",), {"simulated_peak": ""}),
    "table": Layout(("paper.records:Comparison",)),
    "throughput": Layout(("timing.records:ThroughputRow",)),
    "profile": Layout(("profile.records:ProfileRow",)),
    "compare": Layout(("compare.records:VersusRow",), {"order": "", "false_alarms": ""}),
    "compare-aa": Layout(("compare.records:FalseAlarms",), {"verdicts": "", "a": ""}),
    "table-search": Layout(),
    "points": Layout(("points.records:PointsRow",)),
    "validate": Layout(),
    "baseline": Layout(
        ("gate.records:CountBaseline", "gate.records:MemoryBaseline", "gate.records:TimeBaseline")
    ),
    "gate": Layout(("gate.records:GateRow",)),
    "report": Layout(("report.records:ReportPart",)),
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
    return migrated(loads(text, str(path)), str(path))


def migrated(content: Document, name: str) -> Document:
    """The document in the layout of this version.

    Raises:
        UsageError: it has a version that never was, or is no document.
    """
    version = content["version"]
    while version != VERSION:
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


# Result files of one kind, merged into one without losing or mixing anything in silence.


Keep = Literal["first", "last"]

Key: TypeAlias = tuple[str, int]
"""What a row is of, and which one of its file that look so."""

_WHAT = (
    "model setting how mode recipe detail convention resolution module kind stage features table "
    "what a b capacity context expandable start dim heads groups kernel batch dtype device "
    "expression"
).split()
"""Fields that say what a row is of, wherever a kind has them; all others are figures."""


def merged(
    files: Sequence[tuple[str, Document]], keep: str | None = None, mixed: bool = False
) -> Document:
    """One document with the rows of all.

    Args:
        keep: ``first`` or ``last`` of rows that are of one thing and differ.
        mixed: allow several environments; each row then carries its own.

    Raises:
        UsageError: the files are of several kinds or environments, a row is broken, or two rows
            of one thing differ.
    """
    first, content = files[0]
    for name, other in files:
        values(other, name)  # nothing broken gets in
        if other["kind"] != content["kind"]:
            raise UsageError(
                f"{first} holds {content['kind']!r} and {name} {other['kind']!r}; files of one "
                "kind are merged."
            )
    rows = [
        (number, name, row, row.get(ENVIRONMENT, other["environment"]))
        for number, (name, other) in enumerate(files)
        for row in other["rows"]
    ]
    apart = [environment for *_, environment in rows if environment != content["environment"]]
    if apart and not mixed:
        raise UsageError(
            f"these files were made in several environments ({_apart(content, apart[0])}): merge "
            "them with --mixed, and every row says its own."
        )
    found: dict[Key, tuple[str, dict[str, Any]]] = {}
    alike: Counter[tuple[int, str]] = Counter()
    for number, name, row, environment in rows:
        whole = {**row, ENVIRONMENT: environment} if apart else row
        # Rows of one file are never merged: the second that looks alike meets another's second.
        what = identity(whole)
        alike[number, what] += 1
        _enter(found, (what, alike[number, what]), name, whole, keep)
    environment = {"mixed": True} if apart else content["environment"]
    return {
        "format": "datbench",
        "version": VERSION,
        "kind": content["kind"],
        "environment": environment,
        "rows": [row for _, row in found.values()],
    }


def _enter(
    found: dict[Key, tuple[str, dict[str, Any]]],
    key: Key,
    name: str,
    row: dict[str, Any],
    keep: str | None,
) -> None:
    before = found.get(key)
    if before is None or (before[1] != row and keep == "last"):
        found[key] = (name, row)
    elif before[1] != row and keep is None:
        raise UsageError(
            f"{before[0]} and {name} differ about {_named(row)}; keep one of them with --keep "
            "first or --keep last."
        )


def identity(row: Mapping[str, Any]) -> str:
    """What a row is of: its model, setting and how it was run; the whole row where it has none."""
    known = {name: row[name] for name in (*_WHAT, ENVIRONMENT) if name in row}
    if not known.keys() - {ENVIRONMENT}:
        known = dict(row)
    return json.dumps(known, sort_keys=True)


def _named(row: Mapping[str, Any]) -> str:
    setting = row.get("setting")
    parts = [str(row.get("model") or row.get("table") or "a row")]
    if isinstance(setting, Mapping):
        parts.append(f"{setting.get('width')}x{setting.get('height')}")
        parts.append(f"batch {setting.get('batch')}")
    return ", ".join(parts)


def _apart(content: Document, other: Mapping[str, Any]) -> str:
    """The first field that differs, in words."""
    own = content["environment"]
    for name in (*own, *other):
        if own.get(name) != other.get(name):
            return f"{name} {own.get(name)} and {other.get(name)}"
    return "they differ"
