"""Result files: the records that each kind holds, how they are written, read and merged.

A file is ``{"format": "datbench", "version", "kind", "environment", "rows"}``; a row is a record
of one of the classes that `RECORDS` lists for the kind. Reading is strict: what has passed it, no
later step refuses. Free of torch; pydantic is loaded when something is read.
"""

from __future__ import annotations

import importlib
import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from .errors import LibraryError, UnknownNameError, UsageError
from .files import read_text
from .setting import Count, How, Setting
from .units import Brief

if TYPE_CHECKING:
    import pandas as pd
    from pydantic import TypeAdapter, ValidationError

Document = dict[str, Any]
"""The content of a file, as JSON has it."""

Environment: TypeAlias = dict[str, Any]
"""What `datbench.machine` says of a machine and its software: any fields."""

VERSION = 3
"""The version of the files that are written.

1 (0.1.0): the first. 2: what rows of some kinds had beside their record's fields became fields
(`allocator` and `context` of memory, `simulated_peak`, `order`, `false_alarms`, `verdicts` ...),
and every field of a record is written, null where it has no value.
"""


def _modes(value: Any, timed: bool = False) -> Any:
    """Rows of version 2 with their modes in the words of version 3; `timed`: of a time."""
    if isinstance(value, list):
        return [_modes(each, timed) for each in value]
    if not isinstance(value, dict):
        return value
    timed = timed or value.get("kind") == "profile"  # a part of a report
    new = {"infer": "inference", "train-forward": "forward", "train": "backward"}
    new |= {"train": "step"} if timed else {}
    return {
        name: new.get(each, each)
        if name == "mode" and isinstance(each, str)
        else _modes(each, timed or name == "how")
        for name, each in value.items()
    }


MIGRATIONS: dict[int, Callable[[Document], Document]] = {
    1: lambda content: {**content, "version": 2},  # its rows are read as they are: defaults suffice
    2: lambda content: {
        **content,
        "version": 3,
        "rows": _modes(content.get("rows"), content.get("kind") == "profile"),
    },
}
"""From a document of this version to one of the next."""

RECORDS: dict[str, tuple[str, ...]] = {
    "flops": ("counting.records:CountRow",),
    "explain": ("counting.records:ExplainRow",),
    "params": ("records:ParamsEntry",),
    "models": ("records:ModelEntry",),
    "show": ("records:ShowEntry",),
    "env": ("records:Environment",),
    "eq10": ("eq10.records:ModuleTerms",),
    "eq10-fit": ("eq10.records:Fit",),
    "eq10-paper": ("eq10.records:Claim",),
    "eq10-measured": ("eq10.records:Measurements",),
    "memory": ("memory.records:MemoryRow",),
    "memory-largest": ("memory.records:LargestBatch", "memory.records:Confirmed"),
    "memory-measured": ("memory.records:GpuRow",),
    "table": ("paper.records:Comparison",),
    "table-search": ("paper.records:Search",),
    "summary": ("paper.records:SummaryRow",),
    "throughput": ("timing.records:ThroughputRow",),
    "profile": ("profile.records:ProfileRow",),
    "compare": ("compare.records:ComparisonRow",),
    "compare-aa": ("compare.records:FalseAlarms",),
    "points": ("points.records:PointsRow",),
    "baseline": (
        "gate.records:CountBaseline",
        "gate.records:MemoryBaseline",
        "gate.records:TimeBaseline",
    ),
    "gate": ("gate.records:GateRow",),
    "selftest": ("selftest.records:CheckRow",),
    "report": ("report.records:ReportPart",),
    "validate": ("records:FileCheck",),
    "peaks": ("timing.records:Ceilings",),
    "sweep": ("sweep.records:SweepState",),
    "sweep-plan": ("sweep.records:SweepUnit",),
    "sweep-fit": ("sweep.records:SweepFit",),
    # Of parts of a report alone.
    "figure": ("memory.records:Timeline",),
    "pytest-benchmark": ("timing.pytest_benchmark:Benchmark",),
}
"""By kind, the classes that a row may be, as ``module:name`` below this package."""

ENVIRONMENT = "measured_in"
"""What a row of a file that was merged from several environments carries besides its own fields."""


@dataclass(frozen=True)
class ParamsEntry:
    """The elements of a model, or of one part or stage of it."""

    model: str
    params: Count  # trainable parameters, what papers print
    frozen: Count  # parameters without gradient
    buffers: Count  # elements of registered buffers, persistent or not
    stage: str | None = None  # with `--by stage`
    part: str | None = None  # with `--by part`
    features: bool = False  # four feature maps, no head


@dataclass(frozen=True)
class ModelEntry:
    """A model that datbench knows."""

    model: str
    family: str
    resolution: str  # its own input
    source: str  # where it is published
    summary: str


@dataclass(frozen=True, repr=False)
class ShowEntry(Brief):
    """How a model is built."""

    model: str
    resolution: str
    stages: tuple[dict[str, Any], ...] = ()  # of one of datbench's models
    parts: tuple[dict[str, Any], ...] = ()  # of any other model
    published: dict[str, Any] | None = None  # what the papers print of it
    modules: tuple[dict[str, Any], ...] = ()  # with `--by module`: each with all that is in it
    checkpoint: dict[str, Any] | None = None  # which tensors of a file matched


@dataclass(frozen=True)
class Problem:
    """What is wrong with a file."""

    where: str  # the row and the field; empty for the whole
    problem: str

    def __str__(self) -> str:
        return f"{self.where}: {self.problem}" if self.where else self.problem


@dataclass(frozen=True, repr=False)
class FileCheck(Brief):
    """A file and everything that is wrong with it."""

    file: str
    kind: str | None  # None where the file does not say it
    rows: Count | None
    verdict: Literal["whole", "broken"]
    problems: tuple[Problem, ...] = ()


# Writing.


def document(kind: str, rows: Sequence[Any], environment: Environment) -> Document:
    """The JSON document of some records."""
    return {
        "format": "datbench",
        "version": VERSION,
        "kind": kind,
        "environment": environment,
        "rows": [plain(row) for row in rows],
    }


def plain(value: Any) -> Any:
    """A record as JSON has it. A setting has the input's sides among its other fields."""
    if is_dataclass(value):
        found = {each.name: plain(getattr(value, each.name)) for each in fields(value)}
        if isinstance(value, (Setting, How)):
            # An older datbench, which a comparison may run, does not know these fields.
            for name in ("inputs", "autocast"):
                if name in found and not found[name]:
                    del found[name]
        return {**found.pop("resolution"), **found} if isinstance(value, Setting) else found
    if isinstance(value, Mapping):
        return {name: plain(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(inner) for inner in value]
    return value


def dumps(content: Document) -> str:
    """Text of a document, ending in a newline."""
    return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


# Reading JSON.


def read_json(path: Path) -> Any:
    """What a JSON file holds.

    Raises:
        UsageError: it cannot be read, is empty or cut off, or has a key twice in one object.
    """
    text = read_text(path)
    if not text.strip():
        raise UsageError(f"{path} is empty; it was perhaps cut off while it was written.")
    return parse_json(text, str(path))


def parse_json(text: str, name: str) -> Any:
    """What a JSON text holds.

    Raises:
        UsageError: it is not complete, or has a key twice in one object.
    """
    try:
        # Python reads no whole number of 5,000 digits; one of 40 is refused by the field's name.
        return json.loads(text, object_pairs_hook=_once, parse_int=lambda digits: int(digits[:40]))
    except UsageError as error:
        raise UsageError(f"{name}: {error}") from None
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{name} is not complete JSON: {error}.") from error


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object each of whose keys stands there once: of two, JSON's readers take the last."""
    found = dict(pairs)
    if len(found) < len(pairs):
        twice, _ = Counter(key for key, _ in pairs).most_common(1)[0]
        raise UsageError(f"the key {twice!r:.60} stands twice in one object.")
    return found


# From plain values back to records: what a record's types say is checked by pydantic.


LARGEST = 10**30
"""No figure reaches it; beyond 1e308 a whole number could not even be drawn."""

_DEEPEST = 100
"""Levels of a document: Python, and other readers, read no thousand."""

NOT_KNOWN = "is not a known field"

_EXPECTED = {
    "int_type": "a whole number",
    "float_type": "a number",
    "string_type": "text",
    "bool_type": "true or false",
    "none_required": "null",
    **dict.fromkeys(("tuple_type", "list_type"), "a list"),
    **dict.fromkeys(("dict_type", "dataclass_type", "model_type"), "an object"),
}


Extra = Literal["forbid", "ignore"]
"""What becomes of fields that a type does not have."""


def checked(
    hint: Any, value: Any, place: str = "", extra: Extra = "forbid"
) -> tuple[Any, list[Problem]]:
    """A plain value as a value of this type; None, and what is wrong with it, where it is not one.

    Args:
        place: a path that stands before every field's.
    """
    problems = list(_unfit(value, place))
    if problems:
        return None, problems
    from pydantic import ValidationError

    try:
        # As JSON, where lists are tuples and objects are records, and nothing else is converted.
        return _adapter(hint).validate_json(json.dumps(value), strict=True, extra=extra), []
    except ValidationError as error:
        return None, _problems(error, value, place)


def read_as(hint: Any, value: Any, name: str, place: str = "", extra: Extra = "forbid") -> Any:
    """A plain value as a value of this type.

    Args:
        place: a path that stands before every field's.

    Raises:
        UsageError: it is not one; the message begins with `name`, and names the field.
    """
    found, problems = checked(hint, value, place, extra)
    if problems:
        raise UsageError(f"{name}: {problems[0]}.")
    return found


def check_keys(keys: Iterable[str], known: Iterable[str], name: str) -> None:
    """Refuse keys that are not known, each with the one that was probably meant.

    Raises:
        UnknownNameError: there are some.
    """
    if unknown := unknown_keys(keys, known):
        raise UnknownNameError(f"{name}: {' '.join(unknown)}")


def unknown_keys(keys: Iterable[str], known: Iterable[str]) -> list[str]:
    """A sentence about each key that is not known."""
    names = list(known)
    unknown = [str(key)[:60] for key in keys if key not in names]
    return [str(UnknownNameError.among("key", key, names)) for key in unknown]


def check_name(what: str, given: str, known: Iterable[str], name: str) -> None:
    """Refuse a name that is not known, with the one that was probably meant.

    Raises:
        UnknownNameError: it is not known.
    """
    names = list(known)
    if given not in names:
        raise UnknownNameError(f"{name}: {UnknownNameError.among(what, given, names)}")


@cache
def _adapter(hint: Any) -> TypeAdapter[Any]:
    from pydantic import TypeAdapter

    return TypeAdapter(hint)


def _unfit(value: Any, path: str, depth: int = 0) -> Iterator[Problem]:  # noqa: C901 (a type a branch)
    """Values that JSON can hold and no record does, wherever they stand."""
    if isinstance(value, float):
        if not math.isfinite(value):
            yield Problem(path, f"must be a finite number, not {value}")
    elif isinstance(value, int):
        if abs(value) > LARGEST:
            yield Problem(path, f"must be a number below {LARGEST:.0e}, and has too many digits")
    elif isinstance(value, str):
        if not value.isascii() and any("\ud800" <= letter <= "\udfff" for letter in value):
            yield Problem(path, "must be text that UTF-8 can write")
    elif depth > _DEEPEST:
        yield Problem("", f"nests more than {_DEEPEST} levels")
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            if isinstance(name, str):
                yield from _unfit(name, path)
                yield from _unfit(inner, _below(path, name), depth + 1)
            else:
                yield Problem(path, "a key is not text")
    elif isinstance(value, (list, tuple)):
        for number, inner in enumerate(value, 1):
            yield from _unfit(inner, f"{path}[{number}]", depth + 1)
    elif value is not None:
        yield Problem(path, f"must be text or a number, not a {type(value).__name__}")


def _problems(error: ValidationError, value: Any, place: str) -> list[Problem]:
    """What pydantic says, in our words; of a field that may be several things, by the best fit."""
    found: dict[tuple[str, str | None], dict[str, list[Problem]]] = {}
    errors = error.errors(include_url=False, include_input=True)
    # Of a list each element that is missing is an error of its own: the last one says its length.
    lengths = {
        each["loc"][:-1]: each["loc"][-1] + 1
        for each in errors
        if each["type"] == "missing" and isinstance(each["loc"][-1], int)
    }
    for each in errors:
        path, choice, before = place, "", None
        here = value
        last = len(each["loc"]) - 1
        for number, step in enumerate(each["loc"]):
            if isinstance(step, int):
                if number == last and each["type"] == "missing":
                    break  # the list is what is wrong
                path, here = f"{path}[{step + 1}]", here[step]
            elif isinstance(here, Mapping) and step in here:
                path, here = _below(path, step), here[step]
            elif number == last and each["type"] == "missing":
                path = _below(path, step)
            elif before is None and step != "[key]":  # which of several types it was taken for
                before, choice = path, step
        known = found.setdefault((path if before is None else before, before), {})
        known.setdefault(choice, []).append(
            Problem(path, _message(each, lengths.get(each["loc"][:-1])))
        )
    best = dict.fromkeys(
        problem
        for tried in found.values()
        for problem in min(tried.values(), key=lambda one: (-len(one[0].where), len(one)))
    )
    return sorted(best, key=lambda one: one.problem != NOT_KNOWN)  # a name mistyped is missing too


def _message(error: Any, length: int | None = None) -> str:
    """One error in our words; `length` is that of a list from which elements are missing."""
    kind, limits = error["type"], error.get("ctx", {})
    if kind in _EXPECTED:
        return f"must be {_EXPECTED[kind]}, not {said(error['input'])}"
    if kind == "missing" and isinstance(error["loc"][-1], int):
        return f"must have {length} elements, not {len(error['input'])}"
    if kind == "missing":
        return "is missing"
    if kind in ("unexpected_keyword_argument", "extra_forbidden"):
        return NOT_KNOWN
    if kind == "value_error":
        return str(limits["error"]).rstrip(".")
    if kind == "literal_error":
        known = limits["expected"].replace(" or ", ", ").replace("''", '""').replace("'", "")
        return f"must be one of {known}, not {said(error['input'])}"
    if kind in ("too_long", "too_short"):
        few = limits.get("max_length", limits.get("min_length"))
        return f"must have {few} elements, not {limits['actual_length']}"
    if kind in ("greater_than_equal", "less_than_equal", "greater_than", "less_than"):
        if limits.get("ge") == 0:
            return f"must not be negative, as {error['input']} is"
        ((bound, limit),) = limits.items()
        words = {"ge": "a number from", "le": "at most", "gt": "above", "lt": "below"}
        return f"must be {words[bound]} {limit}, not {error['input']}"
    return str(error["msg"]).lower()


def _below(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def said(value: Any) -> str:
    """A value in a message, never long."""
    if isinstance(value, Mapping):
        return "an object"
    if isinstance(value, (list, tuple)):
        return "a list"
    text = "null" if value is None else repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


# Reading result files.


@dataclass(frozen=True, repr=False)
class ResultFile(Brief):
    """The records of a result file."""

    name: str  # of the file, for messages
    kind: str
    environment: Environment
    rows: tuple[Any, ...]
    measured_in: tuple[Environment, ...]  # of each row: its own in a merged file, else the file's

    def document(self) -> Document:
        """The document that it would be written as."""
        content = document(self.kind, self.rows, self.environment)
        for row, here in zip(content["rows"], self.measured_in, strict=True):
            if here != self.environment:
                row[ENVIRONMENT] = here
        return content


def load(path: Path, *kinds: str) -> ResultFile:
    """The records of a result file of this or an older version, or of a sweep's directory.

    Args:
        kinds: that are wanted of a directory, where it may hold several.

    Raises:
        UsageError: as `load_all`; or a directory holds several kinds.
    """
    found = load_all(path)
    wanted = [each for each in found if not kinds or each.kind in kinds] or found
    if len(wanted) > 1:
        names = [each.kind for each in wanted]
        raise UsageError(
            f"{path} holds {', '.join(names[:-1])} and {names[-1]}; name one: {path / names[0]}."
        )
    return wanted[0]


def load_all(path: Path) -> list[ResultFile]:
    """The same of a directory with several kinds: the rows of each as of one file.

    Raises:
        UsageError: it cannot be read, or anything in it is not what it must be.
    """
    files = record_files(path) if path.is_dir() else {}
    if not files:
        return [parse(read_json(path), str(path))]
    peaks = files.get("peaks") or record_files(path.parent).get("peaks", [])
    read = {
        kind: [_unit_record(each) for each in found]
        for kind, found in {**files, "peaks": peaks}.items()
    }
    return [_gathered(kind, path, read[kind], read["peaks"]) for kind in files]


def _unit_record(path: Path) -> tuple[Document, ResultFile]:
    """A record of a sweep.

    Raises:
        UsageError: it is none; the message says how it is set aside.
    """
    try:
        content = read_json(path)
        file = parse(content, str(path))
        unit = content.get("unit")
        parts = ("number", int), ("specification", dict)
        if not all(isinstance(unit, dict) and isinstance(unit.get(n), t) for n, t in parts):
            raise UsageError(f"{path} is not a record of a sweep.")
    except UsageError as error:
        sweep = path.parents[2]
        said = str(error).rstrip(".")
        raise UsageError(f"{said}; `datbench sweep merge {sweep}` sets it aside.") from error
    return content, file


def record_files(folder: Path) -> dict[str, list[Path]]:
    """The records in a sweep's directory, or in that of one kind in it, by kind.

    They stand as ``KIND/ab/KEY.OUTCOME.json``; see `datbench.sweep.store`.
    """
    folders = {kind: folder / kind for kind in RECORDS}
    if folder.name in RECORDS and (folder.parent / "units.jsonl").exists():
        folders = {folder.name: folder}
    found = {kind: sorted(each.glob("??/*.json")) for kind, each in folders.items()}
    return {kind: each for kind, each in found.items() if each}


Gathered = Sequence[tuple[Document, ResultFile]]
"""Records of a sweep, as documents with a block about their unit, and as values."""


def _gathered(kind: str, path: Path, read: Gathered, peaks: Gathered) -> ResultFile:
    """The records of one kind as one file, in the order of their units; the rounds of a time are
    one row.
    """
    timed = kind == "throughput"
    rounds: dict[str, list[tuple[Any, Environment]]] = {}
    for content, file in sorted(read, key=lambda each: each[0]["unit"]["number"]):
        specified = content["unit"]["specification"]
        about = {name: value for name, value in specified.items() if name != "round"}
        where = json.dumps([about, file.environment], sort_keys=True)
        alone = "" if timed else str(len(rounds))
        for row in file.rows:
            rounds.setdefault(where + alone, []).append((row, file.environment))
    rows = [pair for pairs in rounds.values() for pair in pairs]
    if timed:
        together = record_class("timing.summary:together")
        rows = []
        for pairs in rounds.values():
            here = pairs[0][1]
            there = [row for _, file in peaks if file.environment == here for row in file.rows]
            rows.append((together([row for row, _ in pairs], there), here))
    places = tuple(here for _, here in rows)
    one = places[0] if places and all(each == places[0] for each in places) else {"mixed": True}
    return ResultFile(str(path), kind, one, tuple(row for row, _ in rows), places)


def parse(content: Any, name: str = "the document") -> ResultFile:
    """The same of a document.

    Raises:
        UsageError: anything in it is not what it must be; the message names the row and the field.
    """
    found = _current(content, name)
    rows = []
    for number, row in enumerate(found["rows"], 1):
        value, problems = _record(found["kind"], row)
        if problems:
            raise UsageError(f"{name}, row {number}: {problems[0]}.")
        rows.append(value)
    environment = found["environment"]
    places = tuple(row.get(ENVIRONMENT, environment) for row in found["rows"])
    return ResultFile(name, found["kind"], environment, tuple(rows), places)


def check_file(path: Path) -> FileCheck:
    """A file and everything that is wrong with it."""
    kind = rows = None
    problems: list[Problem] = []
    try:
        content = _current(read_json(path), str(path))
        kind, rows = content["kind"], content["rows"]
    except UsageError as error:
        problems.append(Problem("", str(error).removeprefix(str(path)).strip(": .")))
    for number, row in enumerate(rows or [], 1):
        for each in _record(content["kind"], row)[1]:
            where = f"row {number}, {each.where}" if each.where else f"row {number}"
            problems.append(Problem(where, each.problem))
    verdict: Literal["whole", "broken"] = "broken" if problems else "whole"
    return FileCheck(str(path), kind, None if rows is None else len(rows), verdict, tuple(problems))


def _current(given: Any, name: str) -> Document:
    """A document in the layout of this version; its rows are not checked yet."""
    if not isinstance(given, dict) or given.get("format") != "datbench":
        raise UsageError(f"{name} is not a datbench result.")
    content: Document = given
    version = content.get("version")
    if type(version) is not int:  # true is an int for Python
        raise UsageError(
            f"{name}: version must be a whole number, not {said(version)}; this is not a "
            "datbench result."
        )
    if version > VERSION:
        raise UsageError(
            f"{name} has version {version}; this datbench reads up to {VERSION}. Upgrade datbench."
        )
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
            raise UsageError(f"{name}: {key} must be {what}; this is not a datbench result.")
    if content["kind"] not in RECORDS:
        raise UsageError(
            f"{name} holds {said(content['kind'])}, which this datbench does not know."
        )
    for problem in _environment_problems(content["environment"], "environment"):
        raise UsageError(f"{name}: {problem}.")
    return content


def _record(kind: str, row: Any) -> tuple[Any, list[Problem]]:
    """A row as a record; of several classes, the one that fits best says what is wrong."""
    if not isinstance(row, dict):
        return None, [Problem("", "must be an object")]
    own = {name: value for name, value in row.items() if name != ENVIRONMENT}
    problems = _environment_problems(row.get(ENVIRONMENT, {}), ENVIRONMENT)
    tried = [checked(record_class(name), own) for name in RECORDS[kind]]
    value, found = min(tried, key=lambda one: len(one[1]))
    if kind == "report" and value is not None:
        found = _environment_problems(value.environment, "environment")
        found += _part_problems(value.kind, value.rows)
    elif kind == "env":
        found = _environment_problems(own, "")
    return value, found + problems


def _environment_problems(value: Any, place: str) -> list[Problem]:
    """What is wrong with an environment: of its fields, which are free, `gpus` is a list."""
    environment, problems = checked(Environment, value, place)
    if environment is None or environment.get("gpus") is None:
        return problems
    return checked(list[dict[str, Any]], environment["gpus"], _below(place, "gpus"))[1]


def _part_problems(kind: str, rows: Sequence[Any]) -> list[Problem]:
    """What is wrong with a part of a report, whose rows are those of a file of that kind."""
    if kind not in RECORDS:
        return [Problem("kind", f"is {said(kind)}, which this datbench does not know")]
    return [
        Problem(f"rows[{number}].{each.where}".rstrip("."), each.problem)
        for number, row in enumerate(rows, 1)
        for each in _record(kind, row)[1]
    ]


def record_class(name: str) -> Any:
    """The type that `RECORDS` names."""
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(f"{__package__}.{module}"), attribute)


def rows_of(files: Sequence[Path] | None, *kinds: str) -> list[tuple[Any, Mapping[str, Any]]]:
    """Rows of the files, each with its environment; they are all of one kind.

    Raises:
        UsageError: a file cannot be read, is broken, or holds another kind.
    """
    read = [load(path, *kinds) for path in files or ()]
    for content in read:
        if content.kind not in kinds:
            raise UsageError(
                f"{content.name} holds {content.kind!r}; name a file of {' or '.join(kinds)}."
            )
        if not content.rows:
            raise UsageError(f"{content.name} holds no rows.")
    if len({content.kind for content in read}) > 1:
        raise UsageError("these files are of several kinds; name files of one.")
    return [pair for c in read for pair in zip(c.rows, c.measured_in, strict=True)]


# One flat form, for tables of one column a field, CSV and Parquet.


TOLD_BY = ("setting", "recipe", "how")
"""Objects that say what a row is of."""


def flat_rows(
    rows: Sequence[Mapping[str, Any]], each: str | None = None, short: bool = False
) -> list[dict[str, Any]]:
    """Plain rows with nested fields under dotted names, every row with the same fields.

    Args:
        each: a list or an object in the rows, each element of which becomes a row.
        short: leave out lists and tallies, and fields that say nothing in any row.

    Raises:
        UsageError: the rows have no such list.
    """
    if each is not None:
        # Rows of one file may be of several kinds of thing.
        having = [row for row in rows if each in row] or rows
        found = [element for row in having for element in _elements(row, each)]
    else:
        found = [flat(row, short) for row in rows]
    names = dict.fromkeys(
        name for row in found for name, value in row.items() if not short or value is not None
    )
    return [{name: row.get(name) for name in names} for row in found]


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


def _elements(row: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    """One row for each element of the list or object `name`, beside what the row is of."""
    value = row.get(name)
    if isinstance(value, Mapping):
        value = [
            {"name": key, **inner} if isinstance(inner, Mapping) else {"name": key, "value": inner}
            for key, inner in value.items()
        ]
    if not isinstance(value, (list, tuple)):
        known = [key for key, inner in row.items() if isinstance(inner, (list, tuple, Mapping))]
        raise UsageError(
            f"--by {name}: the rows have no such list; they have {', '.join(known) or 'none'}."
        )
    rest = flat(row, short=True)
    return [rest | flat({name: element}) for element in value]


def frame(
    records: Path | ResultFile | Sequence[Any], each: str | None = None, short: bool = False
) -> pd.DataFrame:
    """Records as a pandas data frame: one row a record, nested fields under dotted names.

    Args:
        records: the path of a result file, what `load` reads from it, or its rows.
        each: a list or an object in the records, each element of which becomes a row.
        short: leave out lists and tallies, and fields that say nothing in any record.

    Raises:
        UsageError: the file cannot be read, or the records have no such list.
    """
    import pandas as pd

    if isinstance(records, Path):
        records = load(records)
    rows = records.rows if isinstance(records, ResultFile) else records
    found: pd.DataFrame = pd.DataFrame(flat_rows([plain(row) for row in rows], each, short))
    return found


def to_parquet(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """Flat rows as a Parquet file; a field of several types, or of 20 digits, becomes JSON text.

    Raises:
        LibraryError: pandas has nothing that writes it.
    """
    from io import BytesIO

    import pandas as pd

    frame = pd.DataFrame(rows, dtype=object)
    for name in frame.columns:
        kinds = {_parquet_type(value) for value in frame[name] if value is not None}
        if len(kinds) > 1 or "large" in kinds:
            frame[name] = [None if v is None else json.dumps(v) for v in frame[name]]
    written = BytesIO()
    try:
        frame.to_parquet(written, index=False)
    except ImportError as error:
        raise LibraryError(
            "Parquet is written by pyarrow, which is not installed: pip install pyarrow."
        ) from error
    return written.getvalue()


def _parquet_type(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return type(value).__name__
    return "number" if isinstance(value, float) or -(2**63) <= value < 2**63 else "large"


# Result files of one kind, merged into one without losing or mixing anything in silence.


_WHAT = (
    "model setting how mode recipe detail convention resolution module kind stage part features "
    "table what a b capacity context expandable start dim heads groups kernel batch dtype device "
    "expression"
).split()
"""Fields that say what a row is of, wherever a kind has them; all others are figures."""


def merged(files: Sequence[ResultFile], keep: str | None = None, mixed: bool = False) -> Document:
    """One document with the rows of all.

    Args:
        keep: ``first`` or ``last`` of rows that are of one thing and differ.
        mixed: allow several environments; each row then carries its own.

    Raises:
        UsageError: the files are of several kinds or environments, or two rows of one thing differ.
    """
    first = files[0]
    for file in files:
        if file.kind != first.kind:
            raise UsageError(
                f"{first.name} holds {first.kind!r} and {file.name} {file.kind!r}; files of one "
                "kind are merged."
            )
    apart = [here for file in files for here in file.measured_in if here != first.environment]
    if apart and not mixed:
        raise UsageError(
            "these files were made in several environments "
            f"({_difference(first.environment, apart[0])}): merge them with --across-machines, and "
            "every row says its own."
        )
    found: dict[tuple[str, int], tuple[str, Document]] = {}
    for file in files:
        # Rows of one file are never merged: the second that looks alike meets another's second.
        alike: Counter[str] = Counter()
        for row, here in zip(map(plain, file.rows), file.measured_in, strict=True):
            if apart:
                row[ENVIRONMENT] = here
            what = identity(row)
            alike[what] += 1
            name, before = found.get((what, alike[what]), ("", None))
            if before is None or (before != row and keep == "last"):
                found[what, alike[what]] = (file.name, row)
            elif before != row and keep is None:
                raise UsageError(
                    f"{name} and {file.name} differ about {_named(row)}; keep one of them with "
                    "--keep first or --keep last."
                )
    environment = {"mixed": True} if apart else first.environment
    return document(first.kind, [row for _, row in found.values()], environment)


def identity(row: Mapping[str, Any]) -> str:
    """What a row is of: its model, setting and how it was run; the whole row where it has none."""
    known = {name: row[name] for name in (*_WHAT, ENVIRONMENT) if row.get(name) is not None}
    if not known.keys() - {ENVIRONMENT}:
        known = dict(row)
    return json.dumps(known, sort_keys=True)


def _named(row: Mapping[str, Any]) -> str:
    found = str(row.get("model") or row.get("table") or "a row")
    if isinstance(row.get("setting"), Mapping):
        found += ", {width}x{height}, batch {batch}".format_map(row["setting"])
    return found


def _difference(one: Environment, other: Environment) -> str:
    """The first field that differs, in words."""
    differ = (name for name in (*one, *other) if one.get(name) != other.get(name))
    return next((f"{n} {one.get(n)} and {other.get(n)}" for n in differ), "they differ")
