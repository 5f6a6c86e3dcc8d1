"""Searches for a configuration as tables."""

from __future__ import annotations

from collections.abc import Sequence

from ..cells import Candidate, Miss, Search
from ..units import giga
from .table import Column, Table, Value


def search_tables(found: Search) -> list[Table]:
    """The configurations that miss least over all cells, and the nearest one of each cell."""
    choices = [Column(name, name) for name in found.best[0].choices]
    cells = [Column(m.row, f"{m.row} ({m.printed})") for m in found.best[0].misses]
    worst = Column("worst", "worst", lambda value: f"{100 * value:.1f} %")
    title = (
        f"{found.head}: {found.tried:,} configurations, each the same for every row; "
        f"{found.reproducing} of them round to every print"
    )
    best = Table(
        (*choices, *cells, worst),
        tuple((*c.choices.values(), *map(_said, c.misses), c.worst) for c in found.best),
        title,
        ("Computed in units of 1e9, and the difference from the print; least in the worst row.",),
    )
    rows: list[tuple[Value, ...]] = [
        (miss.row, miss.printed, *candidate.choices.values(), *_own(miss, candidate))
        for i, candidate in enumerate(found.nearest)
        for miss in [candidate.misses[i]]
    ]
    columns = (
        Column("row", "row"),
        Column("printed", "printed"),
        *choices,
        Column("computed", "computed"),
        worst,
    )
    note = "The nearest of each row, whatever it gives for the others; worst: over all rows."
    return [best, Table(columns, tuple(rows), f"{found.head}: row by row", (note,))]


def for_machines(searches: Sequence[Search]) -> Table:
    """One row for each cell of each configuration that is shown, in plain numbers."""
    choices = list(searches[0].best[0].choices)
    names = ["head", "list", "rank", *choices, "row", "printed", "computed", "difference", "agrees"]
    rows: list[tuple[Value, ...]] = [
        (
            *(one.head, kind, rank),
            *candidate.choices.values(),
            *(miss.row, miss.printed, miss.amount, miss.relative, miss.agrees),
        )
        for one in searches
        for kind, candidates in (("best", one.best), ("nearest", one.nearest))
        for rank, candidate in enumerate(candidates, start=1)
        for miss in candidate.misses
    ]
    return Table(tuple(Column(name, name) for name in names), tuple(rows))


def _said(miss: Miss) -> str:
    return f"{giga(miss.amount)} ({100 * miss.relative:+.1f} %)"


def _own(miss: Miss, candidate: Candidate) -> tuple[Value, ...]:
    return _said(miss), candidate.worst
