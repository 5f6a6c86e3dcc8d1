"""`--out`: the suffix decides the format, and a file is whole or as it was."""

import errno
import json
import os
import stat
import tempfile
import threading
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from .runner import Run

FLOPS = ("flops", "dat_t", "dat_s", "--res", "64")


@pytest.mark.parametrize(
    ("suffix", "format", "start"),
    [
        (".txt", "table", "MACs under"),
        (".csv", "csv", "model,resolution,"),
        (".md", "md", "### MACs under"),
        (".json", "json", "{\n"),
        (".tex", "latex", r"\begin{table"),
        (".JSON", "json", "{\n"),
    ],
)
def test_the_suffix_decides_the_format(run: Run, suffix: str, format: str, start: str) -> None:
    out = Path(f"result{suffix}")
    assert run(*FLOPS, "--out", str(out)).text == ""
    assert out.read_text().startswith(start)
    named = out.read_text().replace("\\label{tab:result}\n", "")  # LaTeX has the file's name
    assert named == run(*FLOPS, "--format", format).text
    assert list(Path().iterdir()) == [out]


def test_the_format_may_be_told(run: Run) -> None:
    assert run(*FLOPS, "--out", "result.txt", "--format", "csv").text == ""
    assert pd.read_csv("result.txt")["model"].tolist() == ["dat_t", "dat_s"]
    assert run(*FLOPS, "--out", "no_suffix", "--format", "json").text == ""
    assert json.loads(Path("no_suffix").read_text())["rows"]


def test_no_colour_in_a_file_whatever_the_terminal(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert run(*FLOPS, "--out", "result.txt").text == ""
    assert "\x1b" not in Path("result.txt").read_text()


def test_a_new_file_has_the_permissions_of_any_new_file(run: Run) -> None:
    Path("like").touch()
    run("models", "--out", "new.md")
    assert Path("new.md").stat().st_mode == Path("like").stat().st_mode


def test_an_old_file_keeps_its_permissions(run: Run) -> None:
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
