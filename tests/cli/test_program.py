"""The program as a process: its exit codes, what it loads, completion, broken pipes."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import datbench
from datbench.cli import main
from datbench.cli.command import COMMANDS
from datbench.cli.main import NAMES, Commands
from datbench.errors import MeasurementError, MissingError
from datbench.models.aliases import ALIASES
from datbench.models.comparison import COMPARISONS
from datbench.models.detectors.heads import HEADS
from datbench.models.resolve import complete_models
from datbench.models.spec import LIBRARIES

from .runner import Result, Run, unwrapped


def program(*arguments: str, **environment: str) -> Result:
    done = subprocess.run(
        [sys.executable, "-m", "datbench", *arguments],
        capture_output=True,
        encoding="utf-8",
        errors="surrogateescape",
        env={**os.environ, **environment},
        timeout=60,
    )
    return Result(done.returncode, done.stdout, quiet(done.stderr))


def quiet(errors: str) -> str:
    """Standard error without what tests beside this one do to the machine."""
    return re.sub(r"datbench: warning: the machine is loaded: .*\n", "", errors)


def shell(command: str) -> tuple[int, str]:
    """The exit code of `datbench` in a shell's pipeline or redirection, and all standard errors."""
    run = f"set -o pipefail; {shlex.quote(sys.executable)} -m datbench {command}"
    done = subprocess.run(["bash", "-c", run], capture_output=True, encoding="utf-8", timeout=60)
    return done.returncode, quiet(done.stderr)


def test_the_program_counts_and_refuses() -> None:
    (row,) = program("flops", "dat_s", "--res", "1280x800", "--format", "json").rows
    assert (row["macs"], row["params"]) == (301_959_091_200, 49_700_402)
    assert program("flops", "dat_t", "--foo").complaint().endswith("see datbench flops --help.")
    refused, debugged = program("flops", "dat_ss"), program("--debug", "flops", "dat_ss")
    assert refused.complaint().startswith("unknown model 'dat_ss'; did you mean")
    assert debugged.code == 2  # as without --debug: a gate's 1 would say "changed"
    assert "Traceback" in debugged.err
    assert "UnknownNameError: unknown model 'dat_ss'" in debugged.err


BROKEN = """
class Odd(BaseException):
    pass


def make(kind):
    raise kind("all wrong")


def odd():
    make(Odd)


def leaves():
    make(GeneratorExit)
"""


@pytest.mark.parametrize(("kind", "name"), [("odd", "Odd"), ("leaves", "GeneratorExit")])
def test_what_nobody_expects_is_a_line_and_no_failed_check(kind: str, name: str, run: Run) -> None:
    Path("broken.py").write_text(BROKEN)
    said = run("flops", f"broken.py:{kind}").complaint(5)
    assert said == f"unexpected {name}: all wrong; --debug shows where."
    with pytest.raises(BaseException, match="all wrong"):
        run("flops", f"broken.py:{kind}", "--debug")


@pytest.mark.parametrize("wrapped", [False, True])
def test_an_interrupt_that_became_another_error(
    wrapped: bool, monkeypatch: pytest.MonkeyPatch, run: Run
) -> None:
    """torch's dispatch sometimes recurses without end when Ctrl-C comes in the middle of it."""

    def pressed(**options: object) -> None:
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            error = RecursionError("maximum recursion depth exceeded")
            if wrapped:
                raise MeasurementError("dat_t: maximum recursion depth exceeded") from error
            raise error from None

    def quiet(**options: object) -> None:
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            raise MissingError("half of it is there.") from None

    before = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(main, "app", pressed)
    assert run("models").complaint(130) == "interrupted."
    monkeypatch.setattr(main, "app", quiet)
    assert run("models").complaint(3) == "half of it is there."
    assert signal.getsignal(signal.SIGINT) is before


HEAVY = ("torch", "pandas", "numpy", "timm")


LIGHT = (
    "--help",
    "--version",
    "flops --help",
    "models",
    "show dat_t",
    "flops dat_ss",
    "flops dat_t --res 12y0",
    "flops dat_t --convention foo",
    "flops dat_t --out nowhere/x.json",
)


def test_the_list_of_commands_says_what_each_says() -> None:
    said = {name: command.short_help for name, command in Commands().items()}
    assert said == COMMANDS


def test_nothing_heavy_is_loaded_for_help_lists_and_mistakes() -> None:
    code = (
        "import sys\n"
        "from datbench.cli.main import main\n"
        f"for words in {LIGHT!r}:\n"
        "    main(words.split())\n"
        f"    print('loaded', *set({HEAVY!r}) & set(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0
    said = [line for line in done.stderr.splitlines() if line.startswith("loaded")]
    assert said == ["loaded"] * len(LIGHT)


CLOSED = "datbench: standard output is closed; write to a file with --out FILE.\n"
FULL = "datbench: No space left on device.\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
@pytest.mark.parametrize(
    ("command", "codes", "said"),
    [
        # A reader that leaves is no failed check; 0 where the pipe took it all before.
        ("models | true", (0, 141), ""),
        ("models --format csv | true", (0, 141), ""),
        ("models > /dev/full", (5,), FULL),
        ("models --format json > /dev/full", (5,), FULL),
        ("--version > /dev/full", (5,), FULL),
        ("models >&-", (5,), CLOSED),
    ],
)
def test_standard_output_that_takes_nothing(
    command: str, codes: tuple[int, ...], said: str
) -> None:
    code, err = shell(command)
    assert code in codes
    assert err == said


def test_a_name_that_is_no_text(tmp_path: Path) -> None:
    """A file name of arbitrary bytes, and a stream that knows ASCII alone."""
    try:
        (tmp_path / "\udcff.txt").touch()
    except (OSError, UnicodeError):
        pytest.skip("this file system's names are text")
    assert r"\udcff.json" in program("results", "show", "\udcff.json").complaint()
    assert program("models", "--out", "\udcff.txt").text == ""
    found = program("flops", "dat_té", PYTHONIOENCODING="ascii")
    assert found.complaint().startswith(r"unknown model 'dat_t\xe9'")


def test_bash_completes_commands_models_and_options(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def completed(words: str) -> list[str]:
        monkeypatch.setenv("_DATBENCH_COMPLETE", "complete_bash")
        monkeypatch.setenv("COMP_WORDS", words)
        monkeypatch.setenv("COMP_CWORD", str(len(words.split(" ")) - 1))
        with pytest.raises(SystemExit):
            main.main([])
        return capsys.readouterr().out.split()

    assert completed("datbench ") == NAMES
    assert program().out.split() == NAMES  # of the same environment
    assert completed("datbench flops dat_s_") == ["dat_s_49_49"]
    assert completed("datbench show datpp_") == ["datpp_t", "datpp_s", "datpp_b", "datpp_b_384"]
    assert completed("datbench flops dat_t+re") == ["dat_t+retinanet"]
    assert completed("datbench memory si") == ["simulate"]
    assert completed("datbench memory dat_s_") == ["dat_s_49_49"]
    assert completed("datbench memory largest dat_t+sem") == ["dat_t+semantic_fpn"]
    assert completed("datbench plot icicle --of ti") == ["time"]
    assert completed("datbench table dat") == ["datpp"]
    assert completed("datbench flops dat_t --conv") == ["--convention"]
    assert completed("datbench flops dat_t --convention ") == ["fvcore", "torch", "mmdet", "strict"]
    assert completed("datbench flops dat_t --format j") == ["json"]
    assert completed("datbench flops dat_t --attention s") == ["sdpa"]
    for shell in ("bash", "zsh", "fish"):
        monkeypatch.setenv("_DATBENCH_COMPLETE", f"source_{shell}")
        with pytest.raises(SystemExit):
            main.main([])
        script = capsys.readouterr().out
        assert "_DATBENCH_COMPLETE" in script
        assert "datbench" in script


def test_every_model_can_be_completed_with_a_word_about_it() -> None:
    names = [*datbench.list_models(), *COMPARISONS, *ALIASES, *LIBRARIES]
    assert [name for name, _ in complete_models("")] == names
    assert all(about for _, about in complete_models(""))
    assert complete_models("nothing") == []


def test_heads_are_completed_on_any_model_with_a_word_about_each() -> None:
    assert [name for name, _ in complete_models("pvt_s+")] == [f"pvt_s+{head}" for head in HEADS]
    assert [name for name, _ in complete_models("timm:x,a=1+up")] == ["timm:x,a=1+upernet"]
    assert all(about for _, about in complete_models("dat_t+"))
    assert complete_models("dat_t+nothing") == []


def test_the_help_of_a_model_names_every_sort(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    for command in ("flops", "params", "show", "profile", "explain"):
        said = unwrapped(run(command, "--help").text)
        for sort in ("timm:NAME", "transformers:NAME", "config:FILE", "MODEL+HEAD"):
            assert sort in said


def test_show_completion() -> None:
    done = program("--show-completion")
    assert done.code in (0, 1)  # 1 where the shell around the tests is not known
    assert "Traceback" not in done.err


STUCK = """
import os, time
from pathlib import Path
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer, self.calls = nn.Conv2d(3, 4, 3), 0

    def forward(self, x):
        self.calls += 1
        if self.calls == 20 and not x.is_meta:
            Path("begun").touch()
            time.sleep(60)
        return self.layer(x)


def stuck():
    Path("begun").touch()
    time.sleep(60)
"""


def signalled(number: int, folder: Path, *arguments: str) -> tuple[int, str]:
    """Exit code and standard error of a program whose group gets a signal when it is at work."""
    (folder / "stuck_net.py").write_text(STUCK)
    (folder / "temporary").mkdir()
    started = subprocess.Popen(
        [sys.executable, "-m", "datbench", *arguments],
        stderr=subprocess.PIPE,
        encoding="utf-8",
        cwd=folder,
        env={
            **os.environ,
            "TMPDIR": str(folder / "temporary"),
            "PYTHONPATH": str(Path(datbench.__file__).parents[1]),
        },
        start_new_session=True,
    )
    try:
        while not (folder / "begun").exists():
            assert started.poll() is None
            time.sleep(0.02)
        os.killpg(started.pid, number)
        _, err = started.communicate(timeout=60)
    finally:
        started.kill()
    assert not list((folder / "temporary").iterdir())
    return started.returncode, err


@pytest.mark.skipif(os.name != "posix", reason="signals are POSIX")
def test_a_signal_keeps_what_was_timed(tmp_path: Path) -> None:
    timing = ("--res", "32", "--budget", "30", "--threads", "1", "--device", "cpu")
    code, err = signalled(
        signal.SIGHUP, tmp_path, "throughput", "stuck_net:Net", *timing, "--out", "found.json"
    )
    assert (code, err.splitlines()[-1]) == (130, "datbench: interrupted.")
    (row,) = json.loads((tmp_path / "found.json").read_text())["rows"]
    assert row["outcome"] == "interrupted"
    assert row["samples"] > 0


@pytest.mark.skipif(os.name != "posix", reason="signals are POSIX")
def test_a_report_that_is_terminated_says_so_and_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "report.md").write_text("old")
    options = ("--tables", "none", "--plots", "none", "--out", "out")
    code, err = signalled(signal.SIGTERM, tmp_path, "report", "stuck_net:stuck", *options)
    assert (code, err.splitlines()[-1]) == (130, "datbench: interrupted.")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["report.md"]
    assert (tmp_path / "out" / "report.md").read_text() == "old"
