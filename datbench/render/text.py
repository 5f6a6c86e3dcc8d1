"""Tables as text: CSV, markdown and LaTeX through pandas, the terminal through rich."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from io import StringIO
from typing import TYPE_CHECKING, TypeAlias

from ..units import printable
from .table import Column, Table
from .terminal import PLAIN_WIDTH

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table as RichTable
    from rich.text import Text as RichText

Cells: TypeAlias = tuple[Column, list[str]]
"""A column with its values as text."""

_GAP = 2
"""Spaces between two columns of a terminal's table."""

_PROSE = 16
"""A column of words is folded to no less than this many columns of the terminal."""

NOTE_LINES = 5
"""Lines of notes under a table in a terminal, where not all were asked for."""

_MARKDOWN = re.compile(
    r"[*`~]|\\(?=[!-/:-@\[-`{-~])|_(?![^\W_])|(?<![^\W_])_|(?<=\])[(\[]|^#(?=#* )"
)
"""What markdown may take for more than the character; an underscore inside a name is none."""

_LINE, _COLUMN = 66, 36
"""Characters in a line of a LaTeX article, in the normal size; and in a column where it has two.

A character of a table takes 5.2 to 5.6 pt there, the text 345 pt and a column 200 pt.
"""

_SMALL, _LEAST = 0.9, 0.7
"""The width of ``\\small``, and of ``\\scriptsize``, as parts of the normal size's."""

_SIGNS = {
    "ΓΔΘΛΞΠΣΦΨΩ": "Gamma Delta Theta Lambda Xi Pi Sigma Phi Psi Omega",
    "αβγδεζηθικλμ": "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu",
    "νξπρστυφχψω": "nu xi pi rho sigma tau upsilon phi chi psi omega",
    "µ±×÷·≤≥≠≈≡": "mu pm times div cdot le ge ne approx equiv",
    "→←↑↓∞∅∈√★✓✗": "rightarrow leftarrow uparrow downarrow infty emptyset in surd star surd times",
}
"""Characters that pdflatex knows under other names, in mathematics alone."""

_LATEX = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
        "²": r"\textsuperscript{2}",
        "−": "--",
        **{character: f"\\{character}" for character in "&%#_${}"},
        **{
            sign: rf"\ensuremath{{\{name}}}"
            for signs, names in _SIGNS.items()
            for sign, name in zip(signs, names.split(), strict=True)
        },
    }
)


def to_csv(tables: Sequence[Table]) -> str:
    """The first table with plain numbers and machine names; pandas writes it."""
    import pandas as pd

    table = tables[0]
    names = [column.name for column in table.columns]
    frame = pd.DataFrame(list(table.rows), columns=names, dtype=object)
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
    """One line in which no name makes a link, emphasis or a heading; code stays in backticks.

    Blanks that indent it become ones that are kept.
    """
    indent = len(text) - len(text.lstrip(" "))
    parts = ("\u00a0" * indent + printable(text[indent:])).split("`")
    if len(parts) % 2 == 0:  # a backtick that closes nothing
        return _MARKDOWN.sub(r"\\\g<0>", "`".join(parts))
    return "`".join(
        part if number % 2 else _MARKDOWN.sub(r"\\\g<0>", part) for number, part in enumerate(parts)
    )


def to_latex(tables: Sequence[Table], name: str = "") -> str:
    """Every table with booktabs rules, for a document that uses the booktabs package.

    A table that would be too small in a column of an article in two takes the page's width. One
    that is still too wide is made as wide as the text, for which the document needs graphicx too.

    Args:
        name: what the labels are made of: ``tab-models`` gives ``tab:models``.
    """
    plain = re.sub(r"^tab(le)?[-_.]+|[^\w.+-]+", "", name, flags=re.ASCII)
    labels = [f"tab:{plain}{f'-{n}' if n > 1 else ''}" for n in range(1, len(tables) + 1)]
    return "\n".join(map(_latex, tables, labels if plain else [""] * len(tables)))


def _latex(table: Table, label: str) -> str:
    columns, shown = table.visible(), table.shown()
    head, *rows = (
        " & ".join(map(_escape, row)) + r" \\" for row in [[c.title for c in columns], *shown]
    )
    layout = "".join("r" if column.is_number else "l" for column in columns)
    tabular = [rf"\begin{{tabular}}{{{layout}}}", r"\toprule", head, r"\midrule", *rows]
    tabular += [r"\bottomrule", r"\end{tabular}"]
    titles = [column.title for column in columns]
    width = sum(max(map(len, texts)) + _GAP for texts in zip(titles, *shown, strict=True))
    wide = "*" if width * _LEAST > _COLUMN else ""
    room = _LINE if wide else _COLUMN
    if width * _SMALL > room:
        tabular = [r"\resizebox{\linewidth}{!}{%", *tabular, "}"]
    elif width > room:
        tabular = [r"\small", *tabular]
    caption = [rf"\caption{{{_escape(table.title)}}}"] if table.title else []
    caption += [rf"\label{{{label}}}"] if caption and label else []
    begin = [rf"\begin{{table{wide}}}[t]", r"\centering", *caption]
    notes = [f"% {printable(note)}" for note in table.notes]
    return "\n".join([*begin, *tabular, rf"\end{{table{wide}}}", *notes, ""])


def _escape(text: str) -> str:
    """Text with LaTeX's special characters made harmless."""
    found = printable(text).translate(_LATEX)
    # Behind a line's end a bracket or star would belong to it; blanks that indent are kept.
    words = found.lstrip(" ")
    return "~" * (len(found) - len(words)) + ("{}" if words[:1] in ("[", "*") else "") + words


def to_plain(
    tables: Sequence[Table], everything: bool = False, console: Console | None = None
) -> str:
    """Tables as a terminal shows them: `console`, or one of `PLAIN_WIDTH` columns, no colour."""
    from rich.console import Console

    where = console or Console(
        file=StringIO(), width=PLAIN_WIDTH, highlight=False, color_system=None
    )
    with where.capture() as drawn:
        print_tables(tables, where, everything)
    # Without the blanks that fill a table's last column.
    return "".join(f"{line.rstrip()}\n" for line in drawn.get().splitlines())


def to_html(tables: Sequence[Table]) -> str:
    """Every table under its title, with its notes below, as a notebook shows them."""
    import pandas as pd
    from markupsafe import escape

    parts = []
    for table in tables:
        frame = pd.DataFrame(table.shown(), columns=[each.title for each in table.visible()])
        with pd.option_context("display.max_colwidth", None):
            drawn = frame.to_html(index=False, border=0, max_rows=None)
        notes = "".join(f"<p><small>{escape(note)}</small></p>" for note in table.notes)
        parts.append(f"<p><b>{escape(table.title)}</b></p>\n{drawn}\n{notes}")
    return "\n".join(parts)


def print_tables(tables: Sequence[Table], console: Console, everything: bool = False) -> None:
    """Draw tables on a terminal, or as plain text where there is none.

    Args:
        everything: all notes and all columns. Default: `NOTE_LINES` lines of notes for each
            table, and no spare column where without it the table need not come in parts.
    """
    from rich.text import Text

    for number, table in enumerate(tables):
        if number:
            console.print()
        if table.title:
            console.print(Text(printable(table.title), style="bold"))
        columns, left_out = _chosen(table, console.width, everything)
        for part, some in enumerate(_parts(columns, console.width)):
            if part:
                console.print()
            console.print(_drawn(some, console.width))
        for line in _note_lines(table.notes, left_out, console, everything):
            console.print(line)


def _chosen(table: Table, width: int, everything: bool) -> tuple[list[Cells], str]:
    """The columns that are drawn, and in a line which are not."""
    rows = table.shown()
    columns = [(c, [row[i] for row in rows]) for i, c in enumerate(table.visible())]
    if everything:
        return columns, ""
    whole = [cells for cells in columns if cells[0].when != "asked"]
    spare = [[c for c in reversed(whole) if c[0].when == when] for when in ("widest", "wide")]
    chosen = list(whole)
    for cells in itertools.chain(*spare):
        if not _fit(chosen, width):
            chosen.remove(cells)
    if not _fit(chosen, width):  # it comes in parts anyhow
        chosen = whole
    missing = [cells[0] for cells in columns if cells not in chosen]
    where = "" if any(column.when == "asked" for column in missing) else " at this width"
    titles = list(dict.fromkeys(column.title for column in missing))
    return chosen, _left_out(titles, where, width) if titles else ""


def _left_out(titles: Sequence[str], where: str, width: int) -> str:
    """A line that names columns, the last ones by their number where it would be too long."""
    for named in range(len(titles), -1, -1):
        more = [f"{len(titles) - named} more"] if named < len(titles) else []
        line = f"not shown{where}: {', '.join([*titles[:named], *more])}; --notes shows them"
        if len(line) <= width:
            break
    return line


def _note_lines(
    notes: Sequence[str], left_out: str, console: Console, everything: bool
) -> list[RichText]:
    """Notes as wide as the console: a few lines, of which the last says how many notes are left."""
    from rich.text import Text

    def wrapped(note: str) -> list[RichText]:
        return list(Text(printable(note), style="dim").wrap(console, console.width))

    head = wrapped(left_out) if left_out else []
    found = [wrapped(note) for note in notes]
    if everything or len(head) + sum(map(len, found)) <= NOTE_LINES:
        return [*head, *(line for lines in found for line in lines)]
    room = NOTE_LINES - 1 - len(head)
    shown = 0
    while sum(map(len, found[: shown + 1])) <= room:
        shown += 1
    # The first note matters most: it begins here even where it is too long.
    lines = [line for lines in found[:shown] for line in lines] or found[0][:room]
    left = len(found) - shown
    more = f"... {left} more notes; --notes shows them"
    return [*head, *lines, *wrapped(more if left > 1 else "... 1 more note; --notes shows it")]


def _fit(columns: Sequence[Cells], width: int) -> bool:
    """Whether columns can stand beside each other."""
    return sum(_least(cells, width) for cells in columns) + _GAP * (len(columns) - 1) <= width


def _parts(columns: list[Cells], width: int) -> list[list[Cells]]:
    """The columns in as many parts as the width asks for, each led by those that tell rows apart.

    No number and no name is ever cut: where a table is too wide, it goes on below.
    """
    if _fit(columns, width):
        return [columns]
    labels = [cells for cells in columns if cells[0].label] or columns[:1]
    parts = [labels]
    for cells in columns:
        if cells in labels:
            continue
        if not _fit([*parts[-1], cells], width) and len(parts[-1]) > len(labels):
            parts.append(labels)
        parts[-1] = [*parts[-1], cells]
    return parts


def _length(text: str) -> int:
    from rich.cells import cell_len

    return cell_len(text)


def _unfolded(cells: Cells) -> int:
    """The width below which more than the heading is folded."""
    return max(map(_length, (*cells[0].title.split(), *cells[1])), default=1)


def _least(cells: Cells, width: int) -> int:
    """The width below which a column is not folded: whole numbers, whole words.

    A word that takes more than three quarters of the terminal, such as a file's path, is broken.
    """
    column, texts = cells
    if column.is_number:
        return _unfolded(cells)
    words = [word for text in (column.title, *texts) for word in text.split()]
    longest = min(max(map(_length, words), default=0), 3 * width // 4)
    return min(_unfolded(cells), max(_PROSE, longest))


def _widths(columns: Sequence[Cells], width: int) -> list[int]:
    """The columns' widths: headings are folded first, then words, the widest column first.

    Where one part of a table is still too wide, its words and numbers are broken.
    """
    widths = [max(map(_length, (column.title, *texts))) for column, texts in columns]
    room = width - _GAP * (len(columns) - 1)
    for least in (_unfolded, lambda cells: _least(cells, width), lambda cells: 1):
        floor = list(map(least, columns))
        while sum(widths) > room:
            able = [n for n, each in enumerate(widths) if each > floor[n]]
            if not able:
                break
            widths[max(able, key=widths.__getitem__)] -= 1
    return widths


def _drawn(columns: Sequence[Cells], width: int) -> RichTable:
    from rich import box
    from rich.table import Table as RichTable
    from rich.text import Text

    drawn = RichTable(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    for (column, _), wide in zip(columns, _widths(columns, width), strict=True):
        drawn.add_column(
            Text(column.title),
            justify="right" if column.is_number else "left",
            overflow="fold",
            width=wide,
        )
    cells = [
        [Text(t, column.style(t) if column.style else "") for t in ts] for column, ts in columns
    ]
    for row in zip(*cells, strict=True):
        drawn.add_row(*row)
    return drawn
