"""What tests of timings share: models that processes find, and other versions of datbench."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

MADE_UP = """
import json, sys
def serve(function):
    told = json.loads(sys.stdin.readline())
    open(told["result"], "w").write(json.dumps({answer!r}))
"""


@pytest.fixture
def _at_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(__file__).parents[2])


@pytest.fixture
def made_up(tmp_path: Path) -> Callable[..., Path]:
    """Makes a checkout of a datbench that gives this answer, whatever it is asked."""

    def make(name: str, **answer: Any) -> Path:
        package = tmp_path / name / "datbench"
        package.mkdir(parents=True)
        (package / "__init__.py").touch()
        (package / "process.py").write_text(MADE_UP.format(answer=answer))
        return tmp_path / name

    return make
