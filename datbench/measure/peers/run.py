"""Start a counter in a process of its own, wait for it, and never leave it behind."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ...results import PeerRow
from ...types import Setting
from .adapters import PEERS, Peer, Tally
from .columns import Observed
from .explain import explain, macs, number

TIMEOUT = 300.0
"""Seconds that one counter may take, unless told."""

LONGEST = 200
"""Characters of a reason that are shown."""


def peer_row(
    peer: Peer,
    model: str,
    setting: Setting,
    observed: Sequence[Observed],
    timeout: float = TIMEOUT,
) -> PeerRow:
    """Run one counter and explain what it said. What goes wrong is a reason, not an error."""
    version = _version(peer)
    if not _importable(peer.module):
        return _without(peer, version, f"not installed; pip install {peer.package}")
    try:
        answer = ask(_job(peer, model, setting), timeout)
    except subprocess.TimeoutExpired:
        return _without(peer, version, f"did not finish in {timeout:g} s (--timeout)")
    if "reason" in answer:
        return _without(peer, version, answer["reason"][:LONGEST])
    tally = Tally(answer["total"], answer["modules"])
    ours = sum(module.multiply_adds for module in observed)
    theirs = macs(tally.total, peer.unit)
    return PeerRow(
        name=peer.name,
        version=answer["version"],
        unit=peer.unit,
        amount=tally.total,
        macs=number(theirs),
        difference=number(theirs - ours),
        seconds=answer["seconds"],
        peak_bytes=answer["peak_bytes"],
        extra_bytes=answer["extra_bytes"],
        terms=explain(observed, tally, peer.unit),
        reason=None,
    )


def peer_rows(
    model: str,
    setting: Setting,
    observed: Sequence[Observed],
    timeout: float = TIMEOUT,
    shown: Callable[[Sequence[Peer]], Iterable[Peer]] = iter,
) -> tuple[PeerRow, ...]:
    """Every counter in turn; `shown` may draw a progress bar."""
    return tuple(
        peer_row(peer, model, setting, observed, timeout) for peer in shown(list(PEERS.values()))
    )


def _job(peer: Peer, model: str, setting: Setting) -> dict[str, Any]:
    return {
        "peer": peer.name,
        "model": model,
        "width": setting.resolution.width,
        "height": setting.resolution.height,
        "attention": setting.attention,
        "features": setting.features,
    }


def ask(job: dict[str, Any], timeout: float) -> dict[str, Any]:
    """Do a job in a fresh process.

    Raises:
        subprocess.TimeoutExpired: it took longer; the process is gone.
    """
    with tempfile.TemporaryDirectory(prefix="datbench-") as folder:
        result = Path(folder, "result.json")
        with Path(folder, "errors").open("w+b") as errors:
            code = _run(json.dumps({**job, "result": str(result)}), errors, timeout)
            if result.exists():
                answer: dict[str, Any] = json.loads(result.read_text(encoding="utf-8"))
                return answer
            errors.seek(0)
            lines = errors.read().decode(errors="replace").split("\n")
        last = next((line.strip() for line in reversed(lines) if line.strip()), "no message")
        return {"reason": f"{_ending(code)}: {last}"}


def _run(job: str, errors: Any, timeout: float) -> int:
    """The process's exit code. However this function is left, the process has ended."""
    process = subprocess.Popen(
        [sys.executable, "-m", "datbench.measure.peers.worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=errors,
        text=True,
        start_new_session=os.name == "posix",  # Ctrl-C is ours alone
    )
    try:
        assert process.stdin is not None
        process.stdin.write(f"{job}\n")
        process.stdin.flush()  # left open: the process ends with its standard input
        return process.wait(timeout)
    except BrokenPipeError:
        return process.wait()
    finally:
        _end(process)


def _end(process: subprocess.Popen[str]) -> None:
    """Kill what is left of it and of what it started."""
    if process.poll() is None:
        if os.name == "posix":
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
        process.wait()
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError):
        process.stdin.close()


def _ending(code: int) -> str:
    return f"killed by signal {-code}" if code < 0 else f"exit code {code}"


def _version(peer: Peer) -> str | None:
    try:
        return metadata.version(peer.package)
    except metadata.PackageNotFoundError:
        return None


def _importable(module: str) -> bool:
    """Whether it is there; nothing of it is run."""
    return find_spec(module.partition(".")[0]) is not None


def _without(peer: Peer, version: str | None, reason: str) -> PeerRow:
    return PeerRow(peer.name, version, peer.unit, *(None,) * 7, reason=reason)
