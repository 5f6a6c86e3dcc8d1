"""Where results go: a format chosen, a terminal drawn on or a file written whole."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import DatbenchError, UsageError
from ..report import render
from ..report.table import Table
from .options import Format

if TYPE_CHECKING:
    from rich.console import Console

_SUFFIXES = {
    ".txt": Format.TABLE,
    ".csv": Format.CSV,
    ".md": Format.MD,
    ".json": Format.JSON,
    ".tex": Format.LATEX,
}

PLAIN_WIDTH = 120
"""Columns of a table that no terminal bounds."""


def choose_format(wanted: Format | None, out: Path | None) -> Format:
    """The format asked for, or the one of the file's suffix. Checks the path before any work.

    Raises:
        UsageError: the suffix says nothing, or the file cannot be written there.
    """
    if out is not None:
        if out.is_dir():
            raise UsageError(f"--out {out} is a directory; name a file.")
        if not out.parent.is_dir():
            raise UsageError(f"--out {out}: there is no directory {out.parent}.")
        if not os.access(out.parent, os.W_OK):
            raise UsageError(f"--out {out}: no permission to write in {out.parent}.")
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


def console(stderr: bool = False) -> Console:
    """A rich console: colours on a terminal only; wide where nothing bounds the width."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    bounded = stream.isatty() or "COLUMNS" in os.environ
    return Console(
        stderr=stderr, width=None if bounded else PLAIN_WIDTH, highlight=False, soft_wrap=False
    )


def emit(
    tables: Sequence[Table], content: dict[str, Any], wanted: Format, out: Path | None
) -> None:
    """Write the result, as tables or as the JSON document `content`.

    Raises:
        DatbenchError: the file could not be written; nothing is left of it.
    """
    if wanted is Format.TABLE and out is None:
        render.print_tables(tables, console())
        return
    text = as_text(tables, content, wanted)
    if out is None:
        sys.stdout.write(text)
        sys.stdout.flush()
    else:
        write_whole(out, text)


def as_text(tables: Sequence[Table], content: dict[str, Any], wanted: Format) -> str:
    """The result as text in any format."""
    match wanted:
        case Format.CSV:
            return render.to_csv(tables)
        case Format.MD:
            return render.to_markdown(tables)
        case Format.LATEX:
            return render.to_latex(tables)
        case Format.JSON:
            from ..results import dumps

            return dumps(content)
        case Format.TABLE:
            from io import StringIO

            from rich.console import Console

            drawn = StringIO()
            render.print_tables(tables, Console(file=drawn, width=PLAIN_WIDTH, highlight=False))
            return drawn.getvalue()


def write_whole(path: Path, text: str) -> None:
    """Write beside and rename, so that the file is whole or as it was."""
    temporary = None
    try:
        with tempfile.NamedTemporaryFile(
            "w", encoding="utf-8", dir=path.parent, prefix=f".{path.name}.", delete=False
        ) as file:
            temporary = Path(file.name)
            file.write(text)
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    except OSError as error:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        raise DatbenchError(f"could not write {path}: {error.strerror}.") from error


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
