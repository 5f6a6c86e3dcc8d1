"""A report as plain values: rows of any kind, each with where it came from; and what changed.

`report.json` is a document of kind ``report`` whose rows are `ReportPart`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from ..machine import place_of, same_place
from ..records import ENVIRONMENT
from ..render.table import Table
from ..render.vega import Chart
from ..units import Brief

COMPUTED = "computed here"
"""The source of what `datbench report` counts and simulates itself."""

PartRole = Literal["", "resolutions"]


@dataclass(frozen=True, repr=False)
class ReportPart(Brief):
    """Rows of one kind."""

    kind: str  # of the rows, as a document of their own would say it
    source: str  # the file they are from, or `COMPUTED`
    environment: dict[str, Any]  # that they were measured in
    rows: tuple[dict[str, Any], ...]
    role: PartRole = ""  # ``resolutions`` for counts of one model over several sizes


@dataclass(frozen=True)
class Source:
    """A part of a report, and its rows as the values that they were written from."""

    part: ReportPart
    values: tuple[Any, ...]


@dataclass(frozen=True)
class Delta:
    """One figure beside the baseline's; None where it is on one side only."""

    model: str
    resolution: str
    what: str  # the figure; `detail` says of what
    detail: str
    unit: str  # ``MAC``, ``element``, ``byte`` or ``image/s``
    before: float | None
    now: float | None
    exact: bool = True  # whether any difference is a change: of time it is not


# A report as values: its sections, their charts and tables, what is missing, and the summary.


@dataclass(frozen=True)
class Entry:
    """A table of the report: for people, and as one table of plain numbers."""

    key: str  # for file names and anchors
    people: Table
    machines: Table
    further: tuple[Table, ...] = ()  # tables that stand below it


@dataclass(frozen=True)
class Missing:
    """What the report does not have, and the command that gives it; empty where none does."""

    what: str
    command: str = ""


@dataclass(frozen=True)
class Section:
    """A chapter: a sentence, charts, tables, and what is missing from it."""

    key: str
    title: str
    lead: str
    charts: tuple[Chart, ...] = ()
    entries: tuple[Entry, ...] = ()
    missing: tuple[Missing, ...] = ()


@dataclass(frozen=True)
class Fact:
    """A figure of the summary."""

    figure: str
    label: str
    command: str = ""  # that gives it, where it is not there


@dataclass(frozen=True)
class Content:
    """The whole report."""

    title: str
    facts: tuple[Fact, ...]
    verdicts: tuple[tuple[str, int], ...]  # cells by verdict, those that there are
    unexpected: int  # cells whose verdict is not what the table's file expects
    sections: tuple[Section, ...]
    deltas: tuple[Delta, ...] | None = None  # against the baseline; None where there is none
    baseline: str = ""  # its name
    notes: tuple[str, ...] = field(default=())
    made: str = ""  # when, where, by which command and versions the report was
    # what could not be computed, and why; a section of `sections` too
    failed: tuple[Missing, ...] = ()

    def charts(self) -> list[Chart]:
        """Every chart in order."""
        return [chart for section in self.sections for chart in section.charts]

    def entries(self) -> list[Entry]:
        """Every table in order."""
        return [entry for section in self.sections for entry in section.entries]


def naming(form: str, taken: Iterable[str] = ()) -> Callable[[str], str]:
    """Gives every name once: one that is taken gets a number, in this form."""
    known = set(taken)

    def named(name: str) -> str:
        found, number = name, 1
        while found in known:
            number += 1
            found = form.format(name, number)
        known.add(found)
        return found

    return named


# The rows of a report by kind, and by the place where they were measured.


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

    def environments(self, kind: str) -> list[dict[str, Any]]:
        """Where each row of a kind was measured, in the order of `of`."""
        return [
            plain.get(ENVIRONMENT) or source.part.environment
            for source in self.sources
            if source.part.kind == kind and not source.part.role
            for plain in source.part.rows
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
