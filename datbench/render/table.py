"""A table as values: what renderers take. Numbers stay numbers until a renderer writes them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal, TypeAlias

from .. import units
from ..setting import facts, varying
from ..units import printable

Value: TypeAlias = str | int | float | None


@dataclass(frozen=True)
class Column:
    """A column: its heading, how it reads its value from a record, and how people read it."""

    name: str  # for machines: the heading in CSV
    title: str  # for people, with the unit
    text: Callable[[Any], str] | None = None  # from value to text; a missing value is a dash
    value: str | Callable[[Any], Any] | None = None  # a field's path; default: the column's name
    hidden: bool = False  # for machines only: people read it in the title
    label: bool = False  # it tells rows apart: a table in pieces has it in each; default: the first
    # When a terminal shows it. ``wide``: where there is room; ``widest``: is left out before those;
    # ``asked``: only where everything was asked for.
    when: Literal["always", "wide", "widest", "asked"] = "always"
    style: Callable[[str], str] | None = None  # how a terminal draws a text; colour adds no meaning

    def of(self, record: Any) -> Value:
        """The column's value of a record: an object with fields, or a mapping."""
        if callable(self.value):
            found: Value = self.value(record)
            return found
        for name in (self.value or self.name).split("."):
            if record is None:
                return None
            record = record.get(name) if isinstance(record, Mapping) else getattr(record, name)
        return record  # type: ignore[no-any-return]

    @property
    def is_number(self) -> bool:
        """Whether the column is aligned as numbers are."""
        return self.text is not None

    def show(self, value: Value) -> str:
        """The value as people read it."""
        if value is None:
            return "-"
        if isinstance(value, bool):
            return "yes" if value else "no"
        if self.text is None or isinstance(value, str):
            return printable(str(value))
        return self.text(value)


@dataclass(frozen=True)
class Table:
    """Rows under columns, with a title above and notes below."""

    columns: tuple[Column, ...]
    rows: tuple[tuple[Value, ...], ...]
    title: str = ""
    notes: tuple[str, ...] = ()
    records: tuple[Any, ...] = field(default=(), compare=False, repr=False)  # one a row, if any

    @classmethod
    def of(
        cls,
        columns: Iterable[Column],
        records: Iterable[Any],
        title: str = "",
        notes: Iterable[str] = (),
    ) -> Table:
        """One row a record, each value as its column reads it."""
        columns, records = tuple(columns), tuple(records)
        rows = tuple(tuple(column.of(record) for column in columns) for record in records)
        return cls(columns, rows, title, tuple(notes), records)

    def and_column(self, column: Column, values: Iterable[Value]) -> Table:
        """The same with one column more, and its value in each row."""
        rows = tuple((*row, value) for row, value in zip(self.rows, values, strict=True))
        return replace(self, columns=(*self.columns, column), rows=rows)

    def visible(self) -> list[Column]:
        """The columns that people see."""
        return [column for column in self.columns if not column.hidden]

    def shown(self) -> list[list[str]]:
        """Every value as people read it, under `visible`."""
        return [
            [
                column.show(value)
                for column, value in zip(self.columns, row, strict=True)
                if not column.hidden
            ]
            for row in self.rows
        ]


_TITLES = {
    "resolution": "input",
    "features": "feature maps",
    "channels_last": "channels last",
    "flush": "cache flushed",
}


def fact_columns(
    rows: Sequence[Any], names: Iterable[str], shown: Iterable[str] | None = None
) -> list[Column]:
    """Columns of what records' figures belong to (`datbench.setting.FACTS`).

    Args:
        names: of the facts, in order.
        shown: those that people see; default: those in which the records differ.
    """
    seen = set(varying(rows) if shown is None else shown)
    numbers = {"batch", "gpus", "threads"}

    def read(name: str, row: Any) -> Any:
        value = facts(row).get(name)
        return value if isinstance(value, (bool, int, float, type(None))) else str(value)

    return [
        Column(
            name,
            _TITLES.get(name, name),
            units.integer if name in numbers else None,
            partial(read, name),
            hidden=name not in seen,
            label=True,
        )
        for name in names
    ]


def fixed(columns: Iterable[Column], record: Any) -> list[Column]:
    """The columns with the values of one record in every row, for machines only."""

    def reader(value: Value) -> Callable[[Any], Value]:
        return lambda _: value

    return [replace(column, value=reader(column.of(record)), hidden=True) for column in columns]
