"""What the configurations of a row compute for a column, by whose rules."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from decimal import Decimal

from ..cells import Evidence
from .printed import Printed
from .tables import READINGS, Build, ColumnData, RowData, TableData
from .workshop import Workshop

UNITS = {"macs": "MAC", "flops": "FLOP", "params": "element"}


@dataclass(frozen=True)
class Place:
    """A figure of a table: its row and column."""

    table: TableData
    row: RowData
    column: ColumnData

    @property
    def printed(self) -> Printed:
        """The figure as printed."""
        return self.row.printed[self.column.name]

    def __str__(self) -> str:
        return f"{_title(self.table)} ({self.table.label(self.row)})"

    def others(self) -> Iterator[Place]:
        """The figures of this column whose rows have the same configuration of those tried."""
        for row in self.table.rows:
            alike = row.together == self.row.together if self.row.together else row is self.row
            if alike and self.column.name in row.printed:
                yield replace(self, row=row)


def _title(table: TableData) -> str:
    return f"Table {table.table}" if table.table.isdigit() else table.title or table.table


def evidence_of(build: Build, row: RowData, column: ColumnData, workshop: Workshop) -> Evidence:
    """What one configuration computes for a column.

    Raises:
        DatbenchError: it cannot be computed.
    """
    if column.quantity in UNITS:
        made = workshop.make(build)
        res, rule = str(made.resolution), column.convention
        if column.quantity == "params":
            rule = "+".join(row.counting)
            amount = sum(made.elements[what] for what in row.counting)
        else:
            amount = made.totals[rule]
    else:
        assert column.quantity is not None
        amount = workshop.size(build, column.quantity)
        res, rule = "", f"stage {build.stage}"
    name = build.model if build.head is None else workshop.spec(build).name
    return Evidence(name, res, amount, UNITS.get(column.quantity or "", ""), rule)


def readings(build: Build, place: Place, workshop: Workshop) -> tuple[Evidence, ...]:
    """Of a number of multiply-adds, what every rule counts, the column's own first."""
    if place.column.quantity != "macs":
        return ()
    rules = dict.fromkeys((place.column.convention, *READINGS))
    columns = [replace(place.column, convention=rule) for rule in rules]
    return tuple(evidence_of(build, place.row, column, workshop) for column in columns)


def choose(place: Place, workshop: Workshop) -> int:
    """Which of the configurations tried misses least in the worst row of those that share it.

    A row alone would find a configuration of its own in any list that is long enough.
    """
    places = list(place.others())

    def worst(i: int) -> Decimal:
        return max(_distance(other, i, workshop) for other in places)

    return min(range(len(place.row.builds)), key=worst)


def _distance(place: Place, i: int, workshop: Workshop) -> Decimal:
    """How far a configuration is from the print, in units of its last place."""
    found = evidence_of(place.row.builds[i], place.row, place.column, workshop)
    return abs(amount_of(found) - place.printed.value) / place.printed.step


def amount_of(evidence: Evidence) -> int:
    """The amount of evidence that was computed."""
    assert evidence.amount is not None
    return evidence.amount
