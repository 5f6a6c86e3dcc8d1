"""What tests of sweeps share: tiny models, a plan, the program as a process, and what must hold."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from datbench.process import PACKAGES
from datbench.records import load
from datbench.sweep.plan import key_of

MODELS = """
import os, signal, time
import torch
from torch import nn

def net(width):
    return nn.Sequential(
        nn.Conv2d(3, width, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(width, 10),
    )

def a():
    return net(4)

def b():
    return net(8)

class Odd(nn.Module):
    def __init__(self, what):
        super().__init__()
        self.what = what
        self.layer = nn.Linear(1, 1)

    def forward(self, image):
        if image.device.type != "meta":
            self.what()
        return self.layer(image.mean().reshape(1, 1))

def killed():
    return Odd(lambda: os.kill(os.getpid(), signal.SIGKILL))

def crashes():
    return Odd(lambda: os.kill(os.getpid(), signal.SIGSEGV))

def leaves():
    return Odd(lambda: os._exit(7))

def raises():
    def wrong():
        raise ValueError("no such luck")
    return Odd(wrong)

def hangs():
    return Odd(lambda: time.sleep(1000))

def large():
    return Odd(lambda: torch.empty(1 << 60))
"""


def models(folder: Path, *names: str) -> list[str]:
    """Names of tiny models, as the command line takes them."""
    path = folder / "tiny.py"
    if not path.exists():
        path.write_text(MODELS, encoding="utf-8")
    return [f"{path}:{name}" for name in names]


def plan(folder: Path, text: str) -> Path:
    """A sweep's directory with this plan."""
    folder.mkdir(exist_ok=True)
    (folder / "sweep.toml").write_text(text, encoding="utf-8")
    return folder


def program(
    *arguments: str | Path, env: Mapping[str, str] | None = None, **more: Any
) -> subprocess.Popen[str]:
    """The program as a process, its output in pipes."""
    return subprocess.Popen(
        [sys.executable, "-m", "datbench", *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(PACKAGES), **(env or {})},
        **more,
    )


def finished(*arguments: str | Path, **more: Any) -> tuple[int, str, str]:
    """The same to its end: exit code, output, standard error."""
    process = program(*arguments, **more)
    out, err = process.communicate(timeout=300)
    assert "Traceback" not in err, err
    return process.returncode, out, err


def run_to_end(folder: Path, *more: str) -> str:
    """Do all that is pending, and say what was said."""
    code, out, err = finished("sweep", "run", folder, *more)
    assert code == 0, err
    return out


def records(folder: Path) -> dict[str, Path]:
    """The record of each unit, by key: all are whole, and none is there twice."""
    found: dict[str, Path] = {}
    for path in folder.glob("*/??/*"):
        key, outcome, suffix = path.name.split(".")
        assert suffix == "json"
        assert key not in found
        content = json.loads(path.read_text(encoding="utf-8"))
        assert key_of(content["unit"]["specification"]) == key
        assert content["unit"]["outcome"] == outcome
        load(path)
        found[key] = path
    return found


def keys(folder: Path) -> list[str]:
    """The keys of all units, in their order."""
    _, *lines = (folder / "units.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["key"] for line in lines]


def children(pid: int) -> list[int]:
    """The processes that a process has started."""
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*"):
        try:
            found += [int(child) for child in (task / "children").read_text().split()]
        except OSError:
            continue
    return found


def kill(pid: int) -> None:
    """SIGKILL, if it is still there."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
