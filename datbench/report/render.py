"""Tables as text: CSV, markdown and LaTeX through pandas, the terminal through rich."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from .table import Table

if TYPE_CHECKING:
    from rich.console import Console


def to_csv(tables: Sequence[Table]) -> str:
    """The first table with plain numbers and machine names; pandas writes it."""
    import pandas as pd

    table = tables[0]
    frame = pd.DataFrame(
        list(table.rows), columns=[column.name for column in table.columns], dtype=object
    )
    return str(frame.to_csv(index=False, lineterminator="\n"))


def to_markdown(tables: Sequence[Table]) -> str:
    """Every table under its title, with its notes as a list."""
    import pandas as pd

    parts: list[str] = []
    for table in tables:
        frame = pd.DataFrame(table.shown(), columns=[column.title for column in table.columns])
        align = ["right" if column.is_number else "left" for column in table.columns]
        if table.title:
            parts.append(f"### {table.title}")
        parts.append(str(frame.to_markdown(index=False, colalign=align, disable_numparse=True)))
        if table.notes:
            parts.append("\n".join(f"- {note}" for note in table.notes))
    return "\n\n".join(parts) + "\n"


def to_latex(tables: Sequence[Table]) -> str:
    """The first table with booktabs rules, for a document that uses the booktabs package."""
    import pandas as pd

    table = tables[0]
    frame = pd.DataFrame(
        [[_escape(text) for text in row] for row in table.shown()],
        columns=[_escape(column.title) for column in table.columns],
    )
    layout = "".join("r" if column.is_number else "l" for column in table.columns)
    caption = _escape(table.title) or None
    return str(
        frame.style.hide(axis="index").to_latex(
            hrules=True, column_format=layout, caption=caption, position="t" if caption else None
        )
    )


def _escape(text: str) -> str:
    """Text with LaTeX's special characters made harmless."""
    for plain, safe in (
        ("\\", r"\textbackslash "),
        ("&", r"\&"),
        ("%", r"\%"),
        ("#", r"\#"),
        ("_", r"\_"),
        ("$", r"\$"),
    ):
        text = text.replace(plain, safe)
    return text


def print_tables(tables: Sequence[Table], console: Console) -> None:
    """Draw tables on a terminal, or as plain text where there is none."""
    from rich import box
    from rich.table import Table as RichTable
    from rich.text import Text

    for number, table in enumerate(tables):
        if number:
            console.print()
        if table.title:
            console.print(Text(table.title, style="bold"))
        drawn = RichTable(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
        for column in table.columns:
            drawn.add_column(
                column.title,
                justify="right" if column.is_number else "left",
                overflow="fold",
                no_wrap=column.is_number,
            )
        for row in table.shown():
            drawn.add_row(*(Text(text) for text in row))
        console.print(drawn)
        for note in table.notes:
            console.print(Text(note, style="dim"))
