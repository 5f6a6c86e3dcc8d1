"""Files that are written whole: beside their place, then renamed into it."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from .errors import DatbenchError


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
            _replace(target(path), data)
    except OSError as error:
        raise DatbenchError(f"could not write {path}: {error.strerror}.") from error


def _replace(path: Path, data: bytes) -> None:
    mode = path.stat().st_mode & 0o777 if path.exists() else 0o666 & ~umask()
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


def target(path: Path) -> Path:
    """Where a link points to in the end; the path itself if it is none."""
    return Path(os.path.realpath(path))


def umask() -> int:
    """The permissions that new files of this process do not have."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
