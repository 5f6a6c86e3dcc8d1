"""The papers' tables in a process of their own, while the report's models are counted."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..measure.processes import command
from ..measure.serving import serve
from .report_rows import OBJECTS


class TablesElsewhere:
    """A process that compares tables; however the block is left, it has ended."""

    def __init__(self, names: Sequence[str]) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="datbench-")
        self._result = Path(self._folder.name, "result.json")
        self._process = subprocess.Popen(
            command(__name__),  # whatever the working directory holds
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=os.name == "posix",  # Ctrl-C is ours alone
        )
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # then there is no answer either
            self._process.stdin.write(json.dumps({"tables": names, "result": str(self._result)}))
            self._process.stdin.write("\n")
            self._process.stdin.flush()

    def __enter__(self) -> TablesElsewhere:
        return self

    def __exit__(self, *ignored: object) -> None:
        assert self._process.stdin is not None
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        self._folder.cleanup()

    def rows(self) -> list[dict[str, Any]] | None:
        """One row a table, as JSON has it; None where the process ended without an answer."""
        self._process.wait()
        if not self._result.exists():
            return None
        answer: dict[str, Any] = json.loads(self._result.read_text(encoding="utf-8"))
        return list(answer["rows"])


def work(job: dict[str, Any]) -> dict[str, Any]:
    """Compare the job's tables."""
    from ..paper.library import paper_table, paper_tables
    from ..paper.verdicts import compare
    from ..paper.workshop import Workshop
    from ..results import document

    workshop, every = Workshop(), paper_tables()
    tables = [paper_table(name) for name in job["tables"]]
    rows = [
        compare(table, [other for other in every if other is not table], workshop)
        for table in tables
    ]
    return {"rows": document("table", rows, {})["rows"]}


if __name__ == "__main__":
    gc.set_threshold(OBJECTS)
    sys.exit(serve(work))
