"""`--out`: the suffix decides the format, and a file is whole or as it was."""

import errno
import os
import stat
import tempfile
import threading
from pathlib import Path
from typing import Any

import pytest

from .runner import Run

FLOPS = ("flops", "dat_t", "dat_s", "--res", "64")


@pytest.mark.parametrize(
    ("name", "kind", "start"),
    [
        ("result.txt", "table", "MACs under"),
        ("result.csv", "csv", "model,resolution,"),
        ("result.md", "md", "### MACs under"),
        ("result.json", "json", "{\n"),
        ("result.tex", "latex", r"\begin{table"),
        ("result.JSON", "json", "{\n"),
    ],
)
def test_the_suffix_decides_the_format_unless_it_is_told(
    run: Run, name: str, kind: str, start: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No colour in a file, whatever the terminal."""
    told = run(*FLOPS, "--format", kind).text
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert run(*FLOPS, "--out", name).text == ""
    written = Path(name).read_text()
    assert written.startswith(start)
    assert written.replace("\\label{tab:result}\n", "") == told  # LaTeX has the file's name
    assert [path.name for path in Path().iterdir()] == [name]
    assert run(*FLOPS, "--out", "odd.txt", "--format", kind).text == ""
    assert Path("odd.txt").read_text().startswith(start)


def test_a_new_file_has_the_usual_permissions_and_an_old_one_keeps_its_own(run: Run) -> None:
    Path("like").touch()
    run("models", "--out", "new.md")
    assert Path("new.md").stat().st_mode == Path("like").stat().st_mode
    old = Path("old.md")
    old.touch()
    old.chmod(0o640)
    run("models", "--out", "old.md")
    assert stat.S_IMODE(old.stat().st_mode) == 0o640
    assert "datpp_t" in old.read_text()


def test_a_link_keeps_pointing_where_it_did(run: Run) -> None:
    Path("there").mkdir()
    Path("link.csv").symlink_to("there/real.csv")
    for _ in range(2):  # the first time it dangles
        assert run("models", "--out", "link.csv").text == ""
        assert Path("link.csv").is_symlink()
        assert Path("there/real.csv").read_text().startswith("model,")
    assert sorted(p.name for p in Path("there").iterdir()) == ["real.csv"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes")
def test_a_pipe_is_written_to_and_stays_a_pipe(run: Run) -> None:
    os.mkfifo("pipe")
    read: list[str] = []
    reader = threading.Thread(target=lambda: read.append(Path("pipe").read_text()))
    reader.start()
    assert run("models", "--out", "pipe", "--format", "csv").text == ""
    reader.join(10)
    assert read[0].startswith("model,")
    assert Path("pipe").is_fifo()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_a_device_that_is_full(run: Run) -> None:
    message = run("models", "--out", "/dev/full", "--format", "csv").complaint(5)
    assert message == "could not write /dev/full: No space left on device."
    assert Path("/dev/full").is_char_device()


@pytest.mark.parametrize("step", ["write", "replace", "chmod"])
@pytest.mark.parametrize("old", [None, "as it was"])
def test_a_full_disk_leaves_the_file_as_it_was(
    run: Run, monkeypatch: pytest.MonkeyPatch, step: str, old: str | None
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    if old is not None:
        Path("result.json").write_text(old)
    if step == "write":
        monkeypatch.setattr(tempfile, "mkstemp", _on_a_full_disk(tempfile.mkstemp))
    else:
        monkeypatch.setattr(Path, step, full)
    failed = run("models", "--out", "result.json")
    assert failed.complaint(5) == "could not write result.json: No space left on device."
    left = {p.name: p.read_text() for p in Path().iterdir()}
    assert left == ({} if old is None else {"result.json": old})


def _on_a_full_disk(mkstemp: Any) -> Any:
    """A temporary file with a name beside the result, and /dev/full to write to."""

    def make(*arguments: Any, **options: Any) -> tuple[int, str]:
        handle, name = mkstemp(*arguments, **options)
        os.close(handle)
        return os.open("/dev/full", os.O_WRONLY), name

    return make


def test_an_interrupt_while_writing_leaves_nothing(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", interrupted)
    assert run("models", "--out", "result.json").code == 130
    assert list(Path().iterdir()) == []
