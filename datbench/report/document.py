"""A report as values: its sections, their charts and tables, what is missing, and the summary."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..reports import Delta
from .table import Table
from .vega import Chart


@dataclass(frozen=True)
class Entry:
    """A table of the report: for people, and as one table of plain numbers.

    Args:
        key: for file names and anchors.
        further: tables that stand below it.
    """

    key: str
    people: Table
    machines: Table
    further: tuple[Table, ...] = ()


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
    """A figure of the summary.

    Args:
        command: that gives it, where it is not there.
    """

    figure: str
    label: str
    command: str = ""


@dataclass(frozen=True)
class Content:
    """The whole report.

    Args:
        verdicts: cells by verdict, those that there are.
        unexpected: cells whose verdict is not what the table's file expects.
        deltas: against the baseline; None where there is none.
        baseline: its name.
        made: with which versions the report was.
        failed: what could not be computed, and why; a section of `sections` too.
    """

    title: str
    facts: tuple[Fact, ...]
    verdicts: tuple[tuple[str, int], ...]
    unexpected: int
    sections: tuple[Section, ...]
    deltas: tuple[Delta, ...] | None = None
    baseline: str = ""
    notes: tuple[str, ...] = field(default=())
    made: str = ""
    failed: tuple[Missing, ...] = ()

    def charts(self) -> list[Chart]:
        """Every chart in order."""
        return [chart for section in self.sections for chart in section.charts]

    def entries(self) -> list[Entry]:
        """Every table in order."""
        return [entry for section in self.sections for entry in section.entries]


def plural(verdict: str, number: int) -> str:
    """``2 agree``, ``1 wrong in print``."""
    word = verdict[:-1] if verdict in ("agrees", "differs") and number != 1 else verdict
    return f"{number} {word}"
