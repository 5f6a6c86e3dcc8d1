"""Where results go: a format chosen, a terminal drawn on or a file written whole."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import DatbenchError, UsageError
from ..files import check_path, same_file, write_whole
from ..render import text as render_text
from ..render.table import Table
from ..render.terminal import console
from .command import OUTPUT, option
from .options import OutPath


class Format(str, Enum):
    """Output formats."""

    TABLE = "table"
    CSV = "csv"
    MD = "md"
    JSON = "json"
    LATEX = "latex"


_SUFFIXES = {
    ".txt": Format.TABLE,
    ".csv": Format.CSV,
    ".md": Format.MD,
    ".json": Format.JSON,
    ".tex": Format.LATEX,
}

READER_GONE = 141
"""Exit code of a program whose reader has left (`datbench ... | head`), as a shell reports it."""


FormatName = Annotated[
    Format | None,
    option(
        OUTPUT,
        "--format FORMAT",
        "How the result is written: table, csv, md (markdown), json or latex. Default: a "
        "table, or what the suffix of --out says.",
    ),
]

Notes = Annotated[
    bool,
    option(
        OUTPUT,
        "--notes",
        "Show everything that the table can say: all notes, and columns that the terminal "
        "leaves out.",
    ),
]


@dataclass(frozen=True)
class Destination:
    """Where the result is written; checked before any work.

    Raises:
        UsageError: the file cannot be written.
    """

    out: OutPath = None

    def __post_init__(self) -> None:
        if self.path is not None:
            check_path(self.path)

    @property
    def path(self) -> Path | None:
        """The file to write; None for the terminal."""
        return None if self.out is None else Path(self.out)

    def apart_from(self, read: Iterable[Path]) -> None:
        """Refuse to write over what is read.

        Raises:
            UsageError: it is the same file, by whatever name.
        """
        for path in read:
            if self.path is not None and same_file(self.path, path):
                raise UsageError(f"--out {self.out} is {path}, which is read; name another file.")

    def put(self, content: str | bytes) -> None:
        """Write it whole.

        Raises:
            DatbenchError: the file could not be written; nothing is left of it.
        """
        if self.path is not None:
            write_whole(self.path, content)
        else:
            write_text(content if isinstance(content, str) else content.decode())


@dataclass(frozen=True)
class Output(Destination):
    """How the result is written, and where.

    Raises:
        UsageError: the suffix of ``--out`` names no format, or the file cannot be written.
    """

    format: FormatName = None
    notes: Notes = False

    def __post_init__(self) -> None:
        super().__post_init__()
        self.wanted  # noqa: B018 (an unknown suffix is refused)

    @property
    def wanted(self) -> Format:
        """The format that was asked for, or the one of the file's suffix."""
        if self.format is not None or self.path is None:
            return self.format or Format.TABLE
        found = _SUFFIXES.get(self.path.suffix.lower())
        if found is None:
            raise UsageError(
                f"--out {self.out}: the suffix {self.path.suffix or '(none)'} names no format; use "
                f"one of {', '.join(_SUFFIXES)} or give --format."
            )
        return found

    @property
    def one(self) -> bool:
        """Whether the result is one table of plain values."""
        return self.wanted is Format.CSV

    def write(
        self,
        tables: Sequence[Table],
        kind: str,
        rows: Sequence[Any],
        environment: dict[str, Any] | None = None,
    ) -> None:
        """Write the result, as tables or as a JSON document of records.

        Args:
            environment: where it was measured; None where nothing was.

        Raises:
            DatbenchError: the file could not be written; nothing is left of it.
        """

        def content() -> dict[str, Any]:
            from ..machine import summary
            from ..records import document

            return document(kind, rows, environment or summary())

        self.write_document(tables, content)

    def write_document(
        self, tables: Sequence[Table], content: Callable[[], dict[str, Any]]
    ) -> None:
        """The same; `content` makes the document, where JSON is written."""
        if self.wanted is Format.JSON:
            from ..records import dumps

            self.put(dumps(content()))
        elif self.path is None and self.wanted is Format.TABLE:
            write_text(render_text.to_plain(tables, self.notes, console()))
        else:
            name = self.path.stem if self.path else ""
            self.put(as_text(tables, self.wanted, self.notes, name))


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


def as_text(tables: Sequence[Table], wanted: Format, notes: bool = False, name: str = "") -> str:
    """Tables as text in any format but JSON; `name`: of its file, which labels of LaTeX have."""
    match wanted:
        case Format.CSV:
            return render_text.to_csv(tables)
        case Format.MD:
            return render_text.to_markdown(tables)
        case Format.LATEX:
            return render_text.to_latex(tables, name)
        case _:
            return render_text.to_plain(tables, notes)
