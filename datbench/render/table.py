"""A table as values: what renderers take. Numbers stay numbers until a renderer writes them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

from ..units import printable

Value: TypeAlias = str | int | float | None


@dataclass(frozen=True)
class Column:
    """A column: its heading for people, and how its values become text for them.

    Args:
        name: the machine's name, the heading in CSV.
        title: the heading for people, with the unit.
        text: from value to text; a missing value is a dash.
        hidden: for machines only: people read it in the title.
        style: from text to how a terminal draws it; colour never says what the text does not.
    """

    name: str
    title: str
    text: Callable[[float], str] | None = None
    hidden: bool = False
    style: Callable[[str], str] | None = None

    @property
    def is_number(self) -> bool:
        """Whether the column is aligned as numbers are."""
        return self.text is not None

    def show(self, value: Value) -> str:
        """The value as people read it."""
        if value is None:
            return "-"
        if self.text is None or isinstance(value, str):
            return printable(str(value))
        return self.text(value)


@dataclass(frozen=True)
class Table:
    """Rows under columns, with a title above and notes below."""

    columns: tuple[Column, ...]
    rows: tuple[tuple[Value, ...], ...]
    title: str = ""
    notes: tuple[str, ...] = field(default=())

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
