"""A job in a fresh process: it answers, or its ending is told, and none is left behind."""

import json
import os
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest

from datbench import process
from tests.processes import ctrl_c, gone

POSIX = pytest.mark.skipif(os.name != "posix", reason="signals and process groups are POSIX")

WORKER = """
import os, pathlib, subprocess, sys, time
from datbench.process import write_answer

def work(job):
    print("noise")
    if job["do"] == "answers":
        return {"twice": job["number"] * 2}
    if job["do"] == "keeps":
        write_answer({"early": 1})
        time.sleep(60)
    if job["do"] == "talks":
        sys.stderr.write("x" * 80 + "\\n" * 40_000 + "the end\\n")
        sys.exit(3)
    if job["do"] == "waits":
        pathlib.Path(job["pids"]).write_text(str(os.getpid()))
        while not pathlib.Path(job["pids"] + ".go").exists():
            time.sleep(0.01)
        return {"asked by": os.getppid()}
    if job["do"] == "raises":
        raise ValueError("no")
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    part = pathlib.Path(job["pids"] + ".part")
    part.write_text(f"{os.getpid()} {child.pid}")
    part.rename(job["pids"])
    time.sleep(60)
"""


@pytest.fixture
def worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "a_worker.py").write_text(WORKER)
    monkeypatch.chdir(tmp_path)
    return "a_worker:work"


def test_a_process_answers_or_its_ending_is_told(worker: str, tmp_path: Path) -> None:
    # Another datbench in the working directory is not taken.
    (tmp_path / "datbench").mkdir()
    (tmp_path / "datbench" / "__init__.py").write_text("raise ImportError('the wrong one')")
    answered = process.ask(worker, {"do": "answers", "number": 21}, dict, 30)
    assert answered == process.Reply({"twice": 42})
    other = process.ask(worker, {"do": "answers", "number": 21}, process.Ending, 30)
    said = "its answer is of another version of datbench"
    assert other == process.Reply(None, process.Ending(0, said))
    ending = process.ask(worker, {"do": "raises"}, dict, 30).ending
    assert ending == process.Ending(1, "ValueError: no")
    assert str(ending) == "exit code 1: ValueError: no"
    missing = process.ask("no_such_worker:work", {}, dict, 30)
    assert missing.answer is None
    assert missing.ending.code == 1


@POSIX
def test_an_early_answer_is_kept_and_says_how_its_process_ended(worker: str) -> None:
    reply = process.ask(worker, {"do": "keeps"}, dict, 2)
    assert reply == process.Reply({"early": 1}, process.Ending(None, ""))
    assert str(reply.ending) == "out of time"


def test_endings_in_words() -> None:
    assert str(process.Ending(-9, "")) == "killed by signal 9 (SIGKILL)"
    assert str(process.Ending(-6, "abort")) == "killed by signal 6 (SIGABRT): abort"
    assert str(process.Ending(-99, "")) == "killed by signal 99"
    assert str(process.Ending(None, "")) == "out of time"


@POSIX
def test_a_time_limit_ends_a_process_and_its_children(worker: str, tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    reply = process.ask(worker, {"do": "sleeps", "pids": str(pids)}, dict, 2)
    assert reply == process.Reply(None, process.Ending(None, ""))
    assert all(gone(int(pid)) for pid in pids.read_text().split())


@POSIX
def test_an_interrupt_leaves_nothing_behind(worker: str, tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    with pytest.raises(KeyboardInterrupt), ctrl_c(pids.exists):
        process.ask(worker, {"do": "sleeps", "pids": str(pids)}, dict, 30)
    assert all(gone(int(pid)) for pid in pids.read_text().split())


def test_a_process_ends_with_its_standard_input(worker: str, tmp_path: Path) -> None:
    """Whoever started it may have been killed: then nobody waits for the answer."""
    job = {"do": "sleeps", "pids": str(tmp_path / "pids")}
    message = json.dumps({"job": job, "result": str(tmp_path / "r.json")})
    program = process.command(f"from datbench.process import serve; serve({worker!r})")
    started = subprocess.Popen(program, stdin=subprocess.PIPE, text=True)
    started.communicate(message + "\n", timeout=20)  # closes it
    assert started.returncode == 1
    assert not (tmp_path / "r.json").exists()
    if (tmp_path / "pids").exists():  # its child, which nobody asked for
        os.kill(int((tmp_path / "pids").read_text().split()[1]), signal.SIGKILL)


def test_what_a_process_writes_to_standard_error_is_bounded(
    worker: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process.Tail, "MOST", 1000)
    kept: list[str] = []
    text = process.Tail.text

    def noted(tail: process.Tail) -> str:
        kept.append(text(tail))
        return kept[-1]

    monkeypatch.setattr(process.Tail, "text", noted)
    reply = process.ask(worker, {"do": "talks"}, dict, 30)
    assert reply == process.Reply(None, process.Ending(3, "the end"))
    assert len(kept[0]) == 1000


@POSIX
def test_a_signal_to_everybody_does_not_take_the_process_at_work(
    worker: str, tmp_path: Path
) -> None:
    """As when a job's whole group is told to end: this process asks, and the other one answers."""
    pids = tmp_path / "pids"

    def tell() -> None:
        while not pids.exists() or not pids.read_text():
            time.sleep(0.01)
        for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
            os.killpg(int(pids.read_text()), number)
        Path(f"{pids}.go").touch()

    thread = threading.Thread(target=tell)
    thread.start()
    reply = process.ask(worker, {"do": "waits", "pids": str(pids)}, dict, 30)
    thread.join()
    assert reply.answer == {"asked by": os.getpid()}
