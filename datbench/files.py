"""Files that a user names: read within bounds; written beside their place, then renamed into it."""

from __future__ import annotations

import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

from . import units
from .errors import DatbenchError, UsageError
from .signals import held_back

LARGEST_FILE = 1 << 28
"""Bytes of a file that is read; a report of every model has a tenth of it."""


def read_text(path: Path, most: int = LARGEST_FILE) -> str:
    """The text of a regular file or a pipe.

    Raises:
        UsageError: it cannot be read, is not text, or is larger than `most` bytes.
    """
    try:
        mode = path.stat().st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISFIFO(mode)):
            kind = "directory" if stat.S_ISDIR(mode) else "device"
            raise UsageError(f"{path} is a {kind}; name a file.")
        with path.open("rb") as file:
            data = file.read(most + 1)
    except FileNotFoundError as error:
        raise UsageError(f"there is no file {path}.") from error
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}.") from error
    if len(data) > most:
        raise UsageError(f"{path} is larger than {units.size(most)}, the most that is read.")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8 text (byte {error.start}).") from error


def write_whole(path: Path, content: str | bytes) -> None:
    """Write to a new file and rename it, so that the file is either whole or as it was.

    A link keeps its target; a device or a pipe is written to directly.

    Raises:
        DatbenchError: the system refused, for example because the disk is full.
    """
    # Names of files need not be UTF-8.
    data = content if isinstance(content, bytes) else content.encode("utf-8", "backslashreplace")
    try:
        if path.exists() and not path.is_file():
            path.write_bytes(data)
        else:
            _replace(target(path), data)
    except OSError as error:
        raise DatbenchError(f"could not write {path}: {error.strerror}.") from error


def _replace(path: Path, data: bytes) -> None:
    mode = path.stat().st_mode & 0o777 if path.exists() else 0o666 & ~umask()
    with held_back():
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        temporary = Path(name)
        try:
            with open(handle, "wb") as file:
                _write_through(file, data)
            temporary.chmod(mode)
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def _write_through(file: BinaryIO, data: bytes) -> None:
    """Write to the disk: a rename may reach it before the content that it names does."""
    file.write(data)
    file.flush()
    os.fsync(file.fileno())


def write_all(folder: Path, files: Mapping[str, bytes], own: Sequence[str]) -> None:
    """Write the files of a directory in place of those that a former run wrote there.

    All are written to a new directory beside first. It takes the old one's name where that holds
    nothing else; else its files are moved there, while signals wait.

    Args:
        files: by their path in the directory.
        own: patterns such as ``csv/*.csv`` of the files that a run may write.

    Raises:
        DatbenchError: the system refused, for example because the disk is full.
    """
    place = target(folder)
    try:
        new = Path(tempfile.mkdtemp(dir=place.parent, prefix=f".{place.name}."))
        try:
            for name, data in files.items():
                (new / name).parent.mkdir(parents=True, exist_ok=True)
                with (new / name).open("wb") as file:
                    _write_through(file, data)
            new.chmod(place.stat().st_mode & 0o777 if place.exists() else 0o777 & ~umask())
            with held_back():
                _take_the_place(place, new, files, own)
        finally:
            shutil.rmtree(new, ignore_errors=True)
    except OSError as error:
        raise DatbenchError(f"could not write {folder}: {error.strerror}.") from error


def _take_the_place(place: Path, new: Path, files: Collection[str], own: Sequence[str]) -> None:
    if not place.exists():
        new.rename(place)
        return
    there = [path.relative_to(place) for path in place.rglob("*") if not path.is_dir()]
    former = [path for path in there if any(path.match(pattern) for pattern in own)]
    if len(former) == len(there) and not Path.cwd().is_relative_to(place):  # a shell may be there
        old = new.with_name(f"{new.name}.old")
        place.rename(old)
        new.rename(place)
        shutil.rmtree(old, ignore_errors=True)
        return
    for name in files:
        (place / name).parent.mkdir(exist_ok=True)
        (new / name).replace(place / name)
    for path in former:
        if path.as_posix() not in files:
            (place / path).unlink()


def target(path: Path) -> Path:
    """Where a link points to in the end; the path itself if it is none."""
    return Path(os.path.realpath(path))


def umask() -> int:
    """The permissions that new files of this process do not have."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


SUMMARY = "GITHUB_STEP_SUMMARY"
"""The variable with which GitHub Actions says which file a step's summary goes to."""


def append_summary(text: str) -> None:
    """Append to the job summary of GitHub Actions, where there is one.

    Where that fails, standard error says so: it must not decide the exit code.
    """
    path = os.environ.get(SUMMARY)
    if not path:
        return
    try:
        with open(path, "a", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text + "\n")
    except OSError as error:
        said = f"datbench: could not write the job summary {path}: {error.strerror}."
        sys.stderr.write(f"{units.printable(said)}\n")


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


def same_file(one: Path, other: Path) -> bool:
    """Whether two paths are one file, by whatever names."""
    same = os.path.realpath(one) == os.path.realpath(other)
    return same or (one.exists() and other.exists() and one.samefile(other))


def complete_files(incomplete: str) -> list[str]:
    """Files and directories for shell completion."""
    folder, slash, begun = incomplete.rpartition("/")
    try:
        found = sorted(Path(folder + slash or ".").iterdir())
    except OSError:
        return []
    return [
        f"{folder}{slash}{path.name}{'/' if path.is_dir() else ''}"
        for path in found
        if path.name.startswith(begun) and (begun or not path.name.startswith("."))
    ]
