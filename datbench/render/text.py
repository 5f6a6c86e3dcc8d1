"""Tables as text: CSV, markdown and LaTeX through pandas, the terminal through rich."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeAlias

from ..units import printable
from .table import Column, Table

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table as RichTable
    from rich.text import Text as RichText

Cells: TypeAlias = tuple[Column, list[str]]
"""A column with its values as text."""

_GAP = 2
"""Spaces between two columns of a terminal's table."""

_PROSE = 24
"""A column of words is folded to no less than this many columns of the terminal."""

_MARKDOWN = re.compile(
    r"[*`~]|\\(?=[!-/:-@\[-`{-~])|_(?![^\W_])|(?<![^\W_])_|(?<=\])[(\[]|^#(?=#* )"
)
"""What markdown may take for more than the character; an underscore inside a name is none."""

_TEXT_WIDTH = 85
"""Characters of a LaTeX article's line in its normal size."""

_SMALL = 0.9
"""Of the normal size's width, the width of ``\\small``."""

_LATEX = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
        "²": r"\textsuperscript{2}",
        "✓": r"$\surd$",
        "✗": r"$\times$",
        **{character: f"\\{character}" for character in "&%#_${}"},
    }
)


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
        columns = table.visible()
        frame = pd.DataFrame(
            [[markdown_words(text).replace("|", r"\|") for text in row] for row in table.shown()],
            columns=[markdown_words(column.title) for column in columns],
        )
        align = ["right" if column.is_number else "left" for column in columns]
        if table.title:
            parts.append(f"### {markdown_words(table.title)}")
        parts.append(str(frame.to_markdown(index=False, colalign=align, disable_numparse=True)))
        if table.notes:
            parts.append("\n".join(f"- {markdown_words(note)}" for note in table.notes))
    return "\n\n".join(parts) + "\n"


def markdown_words(text: str) -> str:
    """One line in which no name makes a link, emphasis or a heading; code stays in backticks."""
    parts = printable(text).split("`")
    if len(parts) % 2 == 0:  # a backtick that closes nothing
        return _MARKDOWN.sub(r"\\\g<0>", "`".join(parts))
    return "`".join(
        part if number % 2 else _MARKDOWN.sub(r"\\\g<0>", part) for number, part in enumerate(parts)
    )


def to_latex(tables: Sequence[Table]) -> str:
    """Every table with booktabs rules, for a document that uses the booktabs package.

    A table that is wider than a page is small, or is made as wide as the text, for which the
    document needs graphicx too.
    """
    return "\n".join(map(_latex, tables))


def _latex(table: Table) -> str:
    import pandas as pd

    columns = table.visible()
    frame = pd.DataFrame(
        [[_escape(text) for text in row] for row in table.shown()],
        columns=[_escape(column.title) for column in columns],
    )
    layout = "".join("r" if column.is_number else "l" for column in columns)
    caption = _escape(table.title) or None
    drawn = frame.style.hide(axis="index").to_latex(
        hrules=True, column_format=layout, caption=caption, position="t" if caption else None
    )
    text = _fitted(str(drawn), table)
    return text + "".join(f"% {printable(note)}\n" for note in table.notes)


def _fitted(drawn: str, table: Table) -> str:
    """The same no wider than a page, as the number of its characters tells."""
    shown = [[column.title for column in table.visible()], *table.shown()]
    width = sum(max(map(len, texts)) + _GAP for texts in zip(*shown, strict=True))
    if width <= _TEXT_WIDTH:
        return drawn
    begin, end = drawn.index(r"\begin{tabular}"), drawn.index(r"\end{tabular}")
    end += len("\\end{tabular}\n")
    before, tabular, after = drawn[:begin], drawn[begin:end], drawn[end:]
    if width * _SMALL <= _TEXT_WIDTH:
        return f"{before}{{\\small\n{tabular}}}\n{after}"
    return f"{before}\\resizebox{{\\textwidth}}{{!}}{{%\n{tabular}}}\n{after}"


def _escape(text: str) -> str:
    """Text with LaTeX's special characters made harmless."""
    return printable(text).translate(_LATEX)


def print_tables(tables: Sequence[Table], console: Console, everything: bool = False) -> None:
    """Draw tables on a terminal, or as plain text where there is none."""
    from rich.text import Text

    for number, table in enumerate(tables):
        if number:
            console.print()
        if table.title:
            console.print(Text(printable(table.title), style="bold"))
        for part, columns in enumerate(_parts(table, console.width)):
            if part:
                console.print()
            console.print(_drawn(columns))
        for note in table.notes:
            console.print(Text(printable(note), style="dim"))


def _parts(table: Table, width: int) -> list[list[Cells]]:
    """The columns in as many parts as the width asks for, each led by the first column.

    No number and no name is ever cut: where a table is too wide, it goes on below.
    """
    rows = table.shown()
    first, *others = [(c, [row[i] for row in rows]) for i, c in enumerate(table.visible())]
    parts, used = [[first]], _natural(first)
    for column in others:
        needed = _GAP + _least(column)
        if used + needed > width and len(parts[-1]) > 1:
            parts.append([first])
            used = _natural(first)
        parts[-1].append(column)
        used += needed
    return parts


def _natural(cells: Cells) -> int:
    """The width of a column of which nothing is folded."""
    from rich.cells import cell_len

    column, texts = cells
    return max(map(cell_len, (column.title, *texts)))


def _least(cells: Cells) -> int:
    """The width below which a column is not folded: whole numbers, whole words."""
    from rich.cells import cell_len

    column, texts = cells
    if column.is_number:
        return _natural(cells)
    words = [word for text in (column.title, *texts) for word in text.split()]
    return min(_natural(cells), max([_PROSE, *map(cell_len, words)]))


def _styled(cells: Cells, text: str) -> RichText:
    from rich.text import Text

    style = cells[0].style
    return Text(text, style=style(text) if style else "")


def _drawn(columns: Sequence[Cells]) -> RichTable:
    from rich import box
    from rich.table import Table as RichTable
    from rich.text import Text

    drawn = RichTable(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    for number, cells in enumerate(columns):
        column = cells[0]
        drawn.add_column(
            Text(column.title),
            justify="right" if column.is_number else "left",
            overflow="fold",
            no_wrap=column.is_number or number == 0,
            min_width=_least(cells) if number else None,
        )
    for row in zip(*(texts for _, texts in columns), strict=True):
        drawn.add_row(*map(_styled, columns, row))
    return drawn
