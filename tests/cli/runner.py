"""Running the program inside the test's process, and reading what it wrote."""

import csv
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import pytest


@dataclass(frozen=True)
class Result:
    """What a run left: the exit code and what was written."""

    code: int
    out: str
    err: str

    @property
    def text(self) -> str:
        """Standard output of a run that went well and had nothing to complain of."""
        assert self.code == 0, self.err
        assert self.err == ""
        assert "\x1b" not in self.out
        return self.out

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The rows of a JSON document."""
        document = json.loads(self.text)
        assert (document["format"], document["version"]) == ("datbench", 3)
        return document["rows"]

    @property
    def lines(self) -> list[dict[str, str]]:
        """The rows of a CSV document."""
        return list(csv.DictReader(io.StringIO(self.text)))

    def complaint(self, code: int = 2) -> str:
        """The one line of a run that was refused."""
        assert self.code == code, self.err
        assert self.out == ""
        line, rest = self.err.split("\n", 1)
        assert rest == "", self.err
        assert line.startswith("datbench: ")
        assert line.isprintable()
        assert "Traceback" not in line
        return line.removeprefix("datbench: ")


class Run(Protocol):
    """`run("flops", "dat_t")` is `datbench flops dat_t`."""

    def __call__(self, *arguments: str) -> Result: ...


def refused(answers: Mapping[str, str]) -> pytest.MarkDecorator:
    """Runs a test for each command line (`words`) and a part of its refusal (`said`)."""
    return pytest.mark.parametrize(("words", "said"), answers.items(), ids=list(answers))


def unwrapped(text: str) -> str:
    """Text with single blanks in place of its line ends and gaps."""
    return " ".join(text.split())
