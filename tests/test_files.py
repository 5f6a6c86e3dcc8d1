"""Directories that are replaced as a whole, whenever a signal comes."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from datbench import files
from datbench.errors import DatbenchError
from datbench.files import write_all, write_whole
from datbench.signals import as_interrupts

OWN = ("report.*", "csv/*.csv")
OLD = {"report.md": b"old", "report.html": b"old", "csv/a.csv": b"old"}
NEW = {"report.md": b"new", "csv/b.csv": b"new"}


def content(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """A directory with the files of a former run."""
    write_all(tmp_path / "out", OLD, OWN)
    return tmp_path / "out"


@pytest.mark.parametrize("others", [{}, {"mine.txt": b"mine", "csv/mine.txt": b"mine"}])
@pytest.mark.parametrize("here", [False, True])
def test_a_former_run_is_replaced_as_a_whole(
    out: Path, here: bool, others: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is somebody else's stays; also the directory itself, where a shell may be in it."""
    for name, data in others.items():
        (out / name).write_bytes(data)
    if here:
        monkeypatch.chdir(out / "csv")
    out.chmod(0o750)
    before = out.stat().st_ino
    write_all(out, NEW, OWN)
    assert content(out) == {**NEW, **others}
    assert out.stat().st_mode & 0o777 == 0o750
    assert (out.stat().st_ino == before) == bool(here or others)
    assert list(out.parent.iterdir()) == [out]


@pytest.mark.skipif(os.name != "posix", reason="signals are POSIX")
@pytest.mark.parametrize("others", [{}, {"mine.txt": b"mine"}])
@pytest.mark.parametrize("moment", [1, 2, 3])
def test_an_interrupt_never_leaves_files_of_two_runs(
    out: Path, others: dict[str, bytes], moment: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_all(out, {**OLD, **others}, OWN)
    calls = []

    def interrupted(inner: Any) -> Any:
        def move(path: Path, to: Path) -> Path:
            calls.append(path)
            if len(calls) == moment:
                signal.raise_signal(signal.SIGTERM)
            moved: Path = inner(path, to)
            return moved

        return move

    for name in ("rename", "replace", "chmod"):
        monkeypatch.setattr(Path, name, interrupted(getattr(Path, name)))

    def writes() -> None:
        with as_interrupts():
            write_all(out, NEW, OWN)
            signal.raise_signal(signal.SIGTERM)  # at the latest

    with pytest.raises(KeyboardInterrupt):
        writes()
    assert content(out) in ({**OLD, **others}, {**NEW, **others})
    assert list(out.parent.iterdir()) == [out]


def test_what_cannot_be_written_changes_nothing(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DatbenchError, match="out: No space left on device"):
        write_all(out, NEW, OWN)
    assert content(out) == OLD
    assert list(out.parent.iterdir()) == [out]


def test_content_is_on_the_disk_before_the_name_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = []
    sync, replace = os.fsync, Path.replace
    monkeypatch.setattr(files.os, "fsync", lambda d: (order.append("fsync"), sync(d))[1])
    monkeypatch.setattr(Path, "replace", lambda *a: (order.append("replace"), replace(*a))[1])
    write_whole(tmp_path / "x.json", "{}")
    assert order == ["fsync", "replace"]
