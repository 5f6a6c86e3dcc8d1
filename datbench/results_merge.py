"""Result files of one kind, merged into one without losing or mixing anything in silence."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias

from .errors import UsageError
from .results import VERSION
from .results_files import ENVIRONMENT, Document, values

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
