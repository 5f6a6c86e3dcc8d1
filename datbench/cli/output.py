"""Where results go: a format chosen, a terminal drawn on or a file written whole."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, TypeVar

import typer

from ..errors import DatbenchError, UsageError
from ..render import text as render_text
from ..render.table import Table
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
    folder = _target(out).parent
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


def console(stderr: bool = False) -> Console:
    """A rich console: colours on a terminal only; wide where nothing bounds the width."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    bounded = (stream is not None and stream.isatty()) or "COLUMNS" in os.environ
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


def write_whole(path: Path, content: str | bytes) -> None:
    """Write beside and rename, so that the file is whole or as it was.

    A link keeps pointing where it does; a device or a pipe is written to as it stands.

    Raises:
        DatbenchError: the system refused, for example because the disk is full.
    """
    # Names of files need not be UTF-8.
    data = content if isinstance(content, bytes) else content.encode("utf-8", "backslashreplace")
    try:
        if path.exists() and not path.is_file():
            path.write_bytes(data)
        else:
            _replace(_target(path), data)
    except OSError as error:
        raise DatbenchError(f"could not write {path}: {error.strerror}.") from error


def _replace(path: Path, data: bytes) -> None:
    mode = path.stat().st_mode & 0o777 if path.exists() else 0o666 & ~_umask()
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with open(handle, "wb") as file:
            file.write(data)
        temporary.chmod(mode)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _target(path: Path) -> Path:
    """Where a link points to in the end; the path itself if it is none."""
    return Path(os.path.realpath(path))


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


# A progress bar on standard error, where there is something to wait for and somebody to see.


Job = TypeVar("Job")


def progress(jobs: Sequence[Job], name: Callable[[Job], str]) -> Iterable[Job]:
    """Yield every job, showing the name of the one at work."""
    if len(jobs) < 2 or sys.stderr is None or not sys.stderr.isatty():
        return jobs
    return _shown(jobs, name)


def _shown(jobs: Sequence[Job], name: Callable[[Job], str]) -> Iterator[Job]:
    from rich.progress import Progress

    with Progress(console=console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=len(jobs))
        for job in jobs:
            bar.update(task, description=name(job))
            yield job
            bar.advance(task)


@contextmanager
def status() -> Iterator[Callable[[str], None]]:
    """A function that shows what is at work, where somebody watches."""
    if sys.stderr is None or not sys.stderr.isatty():
        yield lambda text: None
        return

    with console(stderr=True).status("") as shown:
        yield shown.update


# What a signal means to a command that has something to keep.


@contextmanager
def terminated_as_interrupt() -> Iterator[None]:
    """Let SIGTERM, with which a CI job is cancelled, do what Ctrl-C does: KeyboardInterrupt.

    What handled it before does so again afterwards. Outside of the main thread, where Python lets
    nobody handle signals, nothing is changed.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield
    finally:
        # None: it was not Python that set it
        signal.signal(signal.SIGTERM, signal.SIG_DFL if before is None else before)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
