"""The rows of a report by kind, and by the place where they were measured."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ..reports import Source, place_of, same_place
from ..results_files import ENVIRONMENT


class Rows:
    """The rows by kind, and where they were measured."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self.sources = sources

    def of(self, kind: str, role: str = "") -> list[Any]:
        """Rows of a kind."""
        return [
            value
            for source in self.sources
            if source.part.kind == kind and source.part.role == role
            for value in source.values
        ]

    def places(self, kind: str) -> list[tuple[str, list[Any]]]:
        """Rows of a kind by where they were measured: no plot mixes two places."""
        found: list[tuple[dict[str, Any], list[Any]]] = []
        for source in self.sources:
            if source.part.kind != kind:
                continue
            for plain, value in zip(source.part.rows, source.values, strict=True):
                here = plain.get(ENVIRONMENT) or source.part.environment
                rows = next((rows for known, rows in found if same_place(known, here)), None)
                if rows is None:
                    rows = []
                    found.append((here, rows))
                rows.append(value)
        return [(place_of(here), rows) for here, rows in found]


EXACT = frozenset({"flops", "figure", "eq10", "memory", "table"})
"""Kinds whose rows are the same on every machine."""


def distinct(sources: Sequence[Source]) -> list[Source]:
    """The same without rows that stand in an earlier part too, and without parts of no rows.

    Equal times of two machines are two rows.
    """
    seen: set[str] = set()
    found = []
    for source in sources:
        part = source.part
        where = None if part.kind in EXACT else part.environment
        texts = [_text([part.kind, part.role, where, row]) for row in part.rows]
        new = [n for n, text in enumerate(texts) if text not in seen and text not in texts[:n]]
        seen.update(texts)
        if new:
            rows = tuple(part.rows[n] for n in new)
            values = tuple(source.values[n] for n in new)
            found.append(Source(replace(part, rows=rows), values))
    return found


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True)
