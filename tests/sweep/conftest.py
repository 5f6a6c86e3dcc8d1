"""The program inside the test's process, as the tests of commands run it."""

from tests.cli.conftest import _nowhere_special, run

__all__ = ["_nowhere_special", "run"]
