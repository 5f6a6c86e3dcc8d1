"""Skipped tests: in CI (the variable CI is set) one needs a reason that the machine gives."""

import os
import re
from collections import Counter
from typing import Any, NoReturn

import pytest

ALLOWED = {
    r"needs (Chromium|pdflatex): apt-get installs none here": "no package can be installed",
    r"needs Slurm: .*": "not root, or no package can be installed",
    r"this Pillow writes no \w+": "wheels of Pillow differ in formats",
    r"this file system's names are text": "as on macOS and Windows",
    r"needs two cores": "the machine has one",
    r"only root can mount .*": "a container may not either",
    r"reads /proc": "not Linux",
    r"(needs a machine without CUDA|there is a CUDA device).*": "the machine has one",
    r"torch 2.6 asks the driver about a fake CUDA parameter.*": "an older torch, no GPU",
    r"torch's autocast takes CUDA tensors.*": "a torch that was built without CUDA",
}
"""By its reason, why a skip is the machine's."""


def lacks(program: str) -> NoReturn:
    """Skip a test for lack of a program; `.ci/run` says if it cannot be had."""
    pytest.skip(f"needs {program}: {os.environ.get('NO_PACKAGES', 'install it')}")


def _skipped(config: pytest.Config) -> Counter[tuple[str, str | None]]:
    """The number of skips by their reason, each with why it is allowed; None where it is not."""
    reporter: Any = config.pluginmanager.get_plugin("terminalreporter")
    found: Counter[tuple[str, str | None]] = Counter()
    for report in reporter.stats.get("skipped", []) if reporter else ():
        reason = str(report.longrepr[2]).removeprefix("Skipped: ")
        why = (words for allowed, words in ALLOWED.items() if re.fullmatch(allowed, reason))
        found[reason, next(why, None)] += 1
    return found


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A run with a skip that is not allowed has failed."""
    wrong = os.environ.get("CI") and any(why is None for _, why in _skipped(session.config))
    if wrong and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """List skips with their number, those that fail the run among them."""
    if not os.environ.get("CI"):
        return
    skipped = _skipped(config)
    terminalreporter.section(f"{skipped.total()} skipped")
    for (reason, why), number in skipped.most_common():
        said = f"allowed: {why}" if why else "NOT ALLOWED, see tests/skips.py"
        terminalreporter.write_line(f"{number} {reason} ({said})")
