"""Where results go: a format chosen, a terminal drawn on or a file written whole."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from ..errors import DatbenchError, UsageError
from ..files import target, write_whole
from ..render import text as render_text
from ..render.table import Table
from ..render.terminal import PLAIN_WIDTH, console
from .options import Format

if TYPE_CHECKING:
    from ..render.figure import Plot

_SUFFIXES = {
    ".txt": Format.TABLE,
    ".csv": Format.CSV,
    ".md": Format.MD,
    ".json": Format.JSON,
    ".tex": Format.LATEX,
}

PLOT_WIDTH = 110
"""Columns that a plot takes at most."""

READER_GONE = 141
"""Exit code of a program whose reader has left (`datbench ... | head`), as a shell reports it."""


def choose_format(wanted: Format | None, out: Path | None) -> Format:
    """The format asked for, or the one of the file's suffix. Checks the path before any work.

    Raises:
        UsageError: the suffix says nothing, or the file cannot be written there.
    """
    if out is not None:
        check_path(out)
    if wanted is not None:
        return wanted
    if out is None:
        return Format.TABLE
    found = _SUFFIXES.get(out.suffix.lower())
    if found is None:
        raise UsageError(
            f"--out {out}: the suffix {out.suffix or '(none)'} names no format; use one of "
            f"{', '.join(_SUFFIXES)} or give --format."
        )
    return found


def check_path(out: Path, option: str = "--out") -> None:
    """Refuse a file that cannot be written, before any work.

    Raises:
        UsageError: it is a directory, is in none, or may not be written.
    """
    try:
        _check_path(out, option)
    except OSError as error:
        raise UsageError(f"{option} {out}: {error.strerror}.") from error


def _check_path(out: Path, option: str) -> None:
    if out.is_dir():
        raise UsageError(f"{option} {out} is a directory; name a file.")
    if out.exists() and not os.access(out, os.W_OK):
        raise UsageError(f"{option} {out}: no permission to write to it.")
    if out.exists() and not out.is_file():
        return  # a device or a pipe: nothing is made beside it
    folder = target(out).parent
    if not folder.is_dir():
        raise UsageError(f"{option} {out}: there is no directory {folder}.")
    if not os.access(folder, os.W_OK):
        raise UsageError(f"{option} {out}: no permission to write in {folder}.")


def check_apart(out: Path | None, read: Iterable[Path]) -> None:
    """Refuse to write over what is read.

    Raises:
        UsageError: it is the same file, by whatever name.
    """
    for path in read if out is not None else ():
        assert out is not None
        same = os.path.realpath(out) == os.path.realpath(path)
        if same or (out.exists() and path.exists() and out.samefile(path)):
            raise UsageError(f"--out {out} is {path}, which is read; name another file.")


def emit(
    tables: Sequence[Table], content: dict[str, Any], wanted: Format, out: Path | None
) -> None:
    """Write the result, as tables or as the JSON document `content`.

    Raises:
        DatbenchError: the file could not be written; nothing is left of it.
    """
    if out is not None:
        write_whole(out, as_text(tables, content, wanted))
        return
    if wanted is Format.TABLE:
        terminal = console()
        with terminal.capture() as drawn:
            render_text.print_tables(tables, terminal)
        text = _trimmed(drawn.get())
    else:
        text = as_text(tables, content, wanted)
    write_text(text)


def draw(plots: Sequence[Plot], terminal: bool, out: Path | None) -> None:
    """Write plots to a file, draw them on the terminal, or both.

    Raises:
        LibraryError: vl-convert, which draws files, is not installed.
        DatbenchError: the file could not be written.
    """
    from ..render.terminal import to_terminal

    if out is not None:
        from ..render.vega import to_bytes

        write_whole(out, to_bytes(plots, out.suffix))
    if terminal:
        width = min(console().width, PLOT_WIDTH)
        write_text("\n".join(to_terminal(plot, width) for plot in plots))


def check_plots(terminal: bool, plot_out: Path | None, wanted: Format, out: Path | None) -> None:
    """Refuse plots that cannot be drawn, before any work.

    Raises:
        UsageError: one in the terminal beside a result in another format or file, or a file that
            is not a plot's or cannot be written.
    """
    if terminal and (wanted is not Format.TABLE or out is not None):
        raise UsageError("--plot draws in the terminal; a file is --plot-out FILE.")
    if plot_out is not None:
        from ..render.vega import check_suffix

        check_suffix(plot_out.suffix)
        check_path(plot_out, "--plot-out")


def write_text(text: str) -> None:
    """Write to standard output; a reader who leaves ends the program quietly.

    Raises:
        DatbenchError: it is closed.
    """
    if sys.stdout is None:
        raise DatbenchError("standard output is closed; write to a file with --out FILE.")
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        # Keep Python from complaining at exit about what it could not flush.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(READER_GONE) from None


def as_text(tables: Sequence[Table], content: dict[str, Any], wanted: Format) -> str:
    """The result as text in any format."""
    match wanted:
        case Format.CSV:
            return render_text.to_csv(tables)
        case Format.MD:
            return render_text.to_markdown(tables)
        case Format.LATEX:
            return render_text.to_latex(tables)
        case Format.JSON:
            from ..records import dumps

            return dumps(content)
        case Format.TABLE:
            from io import StringIO

            from rich.console import Console

            drawn = StringIO()
            plain = Console(file=drawn, width=PLAIN_WIDTH, highlight=False, color_system=None)
            render_text.print_tables(tables, plain)
            return _trimmed(drawn.getvalue())


def _trimmed(text: str) -> str:
    """Lines without the blanks that fill a table's last column."""
    return "".join(f"{line.rstrip()}\n" for line in text.splitlines())
