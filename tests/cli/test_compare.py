"""`datbench compare`."""

import json
import os
import random
import re
import signal
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from datbench.compare.sides import side, split
from datbench.errors import UsageError
from datbench.setting import How, Setting
from datbench.timing import process
from datbench.timing.records import ComparedSide, ProcessTiming, Timing

from .runner import Result, Run, unwrapped

PAIR = ("compare", "dat_t", "dat_s", "--device", "cpu")
Timer = Callable[..., ProcessTiming]


def took(seconds: float) -> ProcessTiming:
    timing = Timing((seconds,) * 9, (), 1, "interval", seconds, seconds, seconds, 0.95)
    return ProcessTiming("measured", timing=timing, threads=1, seconds=0.1)


def in_place_of_processes(monkeypatch: pytest.MonkeyPatch, timer: Timer) -> None:
    """Let this time a side in place of a fresh process, of a pair too."""

    def one(side: ComparedSide, timeout: float) -> ProcessTiming:
        try:
            source = None if side.source is None else Path(side.source)
            others = {"timeout": timeout, "python": side.python, "source": source}
            return timer(side.model, side.setting, side.how, **others)
        except KeyboardInterrupt:
            return ProcessTiming("interrupted", "no sample was finished")

    def time_pair(
        first: ComparedSide, second: ComparedSide, timeout: float, number: int
    ) -> tuple[ProcessTiming, ProcessTiming]:
        return one(first, timeout), one(second, timeout)

    monkeypatch.setattr(process, "time_in_process", timer)
    monkeypatch.setattr(process, "time_pair", time_pair)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """A machine on which dat_s takes 10 % longer than dat_t; every process that it ran."""
    ran: list[dict[str, Any]] = []
    noise = random.Random(0)

    def time_in_process(name: str, setting: Setting, how: How, **others: Any) -> ProcessTiming:
        ran.append({"name": name, "setting": setting, "how": how, **others})
        return took((1.1 if name == "dat_s" else 1.0) * noise.uniform(0.999, 1.001))

    in_place_of_processes(monkeypatch, time_in_process)
    return ran


def parts(found: Result, code: int) -> dict[str, Any]:
    """The one row of a JSON document, whatever the exit code."""
    assert found.code == code, found.err
    (row,) = json.loads(found.out)["rows"]
    return row


def test_a_table_and_a_sentence_in_every_format(run: Run, machine: list[dict[str, Any]]) -> None:
    found = run(*PAIR, "--seed", "1")
    assert found.code == 1
    assert "B against A: 224x224, batch 1, float32, eager attention, inference, on cpu" in found.out
    text = unwrapped(found.out)
    assert re.search(r"slower: B is 9\.\d+ % slower; the speed of B over that of A is 0\.909", text)
    assert "--seed 1" in text
    price, verdict = found.err.splitlines()
    assert price.startswith("datbench: A and B in 20 processes (up to 40 while ambiguous): about")
    assert verdict.startswith("datbench: slower: B is 9.")
    assert len(machine) == 20
    assert "| slower" in run(*PAIR, "--format", "md").out
    assert run("compare", "dat_t", "dat_t", "--device", "cpu", "--out", "found.csv").code == 0
    heading, row = Path("found.csv").read_text().splitlines()
    assert heading.startswith("a,b,rate_a,rate_b,ratio,low,high,coverage,processes,verdict")
    assert ",same," in row


def test_json_holds_everything(run: Run, machine: list[dict[str, Any]]) -> None:
    words = ("compare", "dat_s", "dat_t", "--seed", "1", "--device", "cpu", "--format", "json")
    row = parts(run(*words), 0)
    assert row["decision"]["verdict"] == "faster"
    assert row["plan"]["seed"] == 1
    assert row["order"].replace(" ", "") == "".join(each["side"] for each in row["runs"])
    assert [each["name"] == "dat_s" for each in machine] == [
        each["side"] == "A" for each in row["runs"]
    ]
    assert all(len(each["timing"]["timing"]["samples"]) == 9 for each in row["runs"])
    assert row["a"]["setting"]["width"] == 224
    assert parts(run(*words), 0)["order"] == row["order"]


def test_options_of_a_side_count_before_the_common_ones(
    run: Run, machine: list[dict[str, Any]], tmp_path: Path
) -> None:
    (tmp_path / "datbench").mkdir()
    (tmp_path / "datbench" / "__init__.py").touch()
    b = f"dat_t@batch=4,attention=sdpa,channels-last,source={tmp_path}"
    common = ("--batch", "2", "--threads", "1", "--device", "cpu", "--res", "64")
    found = run("compare", "dat_t", b, *common, "--budget", "1", "--format", "md")
    assert found.code == 0  # the same seconds for twice the images: faster
    assert "dat_t, batch 2, eager attention, channels first, as installed" in found.out
    assert "dat_t, batch 4, sdpa attention, channels last, source" in found.out
    one, other = (
        next(each for each in machine if each["setting"].batch == batch) for batch in (2, 4)
    )
    assert (one["setting"].attention, other["setting"].attention) == ("eager", "sdpa")
    assert (one["source"], other["source"]) == (None, tmp_path)
    assert (one["how"].channels_last, other["how"].channels_last) == (False, True)
    assert one["how"].threads == other["how"].threads == 1
    assert one["how"].budget == 1
    assert str(other["setting"].resolution) == "64x64"


def test_a_against_itself_first(run: Run, machine: list[dict[str, Any]]) -> None:
    found = run(*PAIR, "--aa", "5")
    assert found.code == 1
    assert len(machine) == 20 + 4 * 4 + 20
    assert all(each["name"] == "dat_t" for each in machine[:36])
    assert "A against itself" in found.out
    assert "False verdicts: 0 of 5. A difference of 2" in found.out
    assert "A against itself in 36 processes, then A and B in 20" in found.err
    alone = run("compare", "dat_t", "--device", "cpu", "--aa", "5", "--format", "json")
    row = parts(alone, 0)
    assert json.loads(alone.out)["kind"] == "compare-aa"
    assert row["verdicts"]["same"] == 5
    assert row["plan"]["by_turns"]
    assert len(row["runs"]) == 36


def test_a_set_up_that_sees_what_is_not_there(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every process of A that plays B takes longer: the seed gives the order away."""
    from datbench.compare.run import sides

    order = sides(7)
    in_place_of_processes(monkeypatch, lambda *_, **__: took(1.1 if next(order) == "B" else 1.0))
    found = run("compare", "dat_t", "--device", "cpu", "--aa", "3", "--seed", "7")
    assert found.code == 1
    assert "differed from itself in 3 of 3 comparisons, more than 5 %" in found.err
    assert "no verdict of this set-up is to be trusted" in found.out


def unsound(
    run: Run, monkeypatch: pytest.MonkeyPatch, b: float, ends: ProcessTiming | None = None
) -> Result:
    """A and B where A, playing B against itself, takes longer; B itself takes `b`."""
    from datbench.compare.run import sides

    order = sides(7)

    def time_in_process(name: str, *_: Any, **__: Any) -> ProcessTiming:
        if name == "dat_s":
            return ends or took(b)
        return took(1.1 if next(order) == "B" else 1.0)

    in_place_of_processes(monkeypatch, time_in_process)
    few = ("--aa", "3", "--processes", "8", "--seed", "7")
    return run(*PAIR, *few, "--format", "json")


@pytest.mark.parametrize(("b", "alone"), [(2.0, "slower"), (0.5, "faster")])
def test_no_verdict_of_an_unsound_set_up_counts(
    run: Run, monkeypatch: pytest.MonkeyPatch, b: float, alone: str
) -> None:
    found = unsound(run, monkeypatch, b)
    row = parts(found, 4)
    assert (row["decision"]["verdict"], row["decision"]["withdrawn"]) == ("ambiguous", alone)
    assert "A differed from itself in 3 of 3 comparisons" in found.err
    assert f"the processes alone would say {alone}." in found.err
    assert "would settle it" not in found.err
    # It does not hide a failure.
    failed = unsound(run, monkeypatch, 1.0, ProcessTiming("crashed", "a reason"))
    assert parts(failed, 5)["decision"]["verdict"] == "failed"


def test_ambiguous_says_how_many(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    noise = random.Random(0)
    in_place_of_processes(monkeypatch, lambda *_, **__: took(noise.lognormvariate(0, 0.05)))
    found = run(*PAIR, "--processes", "8")
    assert found.code == 4
    assert "processes of each side would settle it" in found.err


@pytest.mark.parametrize("outcome", ["out of memory", "crashed", "timed out", "failed"])
def test_a_failed_process_is_exit_code_5(
    run: Run, monkeypatch: pytest.MonkeyPatch, outcome: Any
) -> None:
    def time_in_process(name: str, *_: Any, **__: Any) -> ProcessTiming:
        return ProcessTiming(outcome, "a reason") if name == "dat_s" else took(1)

    in_place_of_processes(monkeypatch, time_in_process)
    found = run(*PAIR, "--seed", "0", "--format", "json")
    assert parts(found, 5)["decision"]["verdict"] == "failed"
    assert f"of B, {outcome}: a reason" in found.err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_and_a_cancelled_job_keep_what_was_finished(
    run: Run, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    numbers = count(1)

    def time_in_process(name: str, *_: Any, **__: Any) -> ProcessTiming:
        if next(numbers) == 19:
            os.kill(os.getpid(), number)
        return took(2.0 if name == "dat_s" else 1)

    def not_ours(*_: Any) -> None:
        raise AssertionError("nobody listened to SIGTERM")

    in_place_of_processes(monkeypatch, time_in_process)
    before = signal.signal(signal.SIGTERM, not_ours)
    try:
        found = run(*PAIR, "--format", "json")
        assert signal.getsignal(signal.SIGTERM) is not_ours
    finally:
        signal.signal(signal.SIGTERM, before)
    row = parts(found, 130)
    assert row["interrupted"]
    assert row["decision"]["processes"] == 9
    assert row["decision"]["verdict"] == "slower"


@pytest.mark.parametrize("b", [(), ("dat_s",)])
def test_a_against_itself_keeps_what_was_finished(
    run: Run, monkeypatch: pytest.MonkeyPatch, b: tuple[str, ...]
) -> None:
    """Ctrl-C, or a process that fails, before a single comparison is whole."""
    for ends, code, said in (
        (None, 130, "interrupted"),
        (ProcessTiming("crashed", "a reason"), 5, "A against itself: process 6, of"),
    ):
        numbers = count(1)

        def time_in_process(
            *_: Any, ends: ProcessTiming | None = ends, numbers: Any = numbers, **__: Any
        ) -> ProcessTiming:
            if next(numbers) < 6:
                return took(1.0)
            if ends is None:
                raise KeyboardInterrupt
            return ends

        in_place_of_processes(monkeypatch, time_in_process)
        found = run("compare", "dat_t", *b, "--device", "cpu", "--aa", "3", "--format", "json")
        row = parts(found, code)
        assert said in found.err
        assert row["decisions"] == []
        assert sum(each["rate"] is not None for each in row["runs"]) == 5
        assert (row["interrupted"], row["failed"] is None) == (code == 130, code == 130)


def test_two_at_once_or_one_at_a_time(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    noise = random.Random(0)
    alone: list[str] = []
    together: list[tuple[str, str, int]] = []

    def one(name: str, *_: Any, **__: Any) -> ProcessTiming:
        alone.append(name)
        return took(noise.uniform(0.999, 1.001))

    def pair(first: ComparedSide, second: ComparedSide, timeout: float, number: int) -> Any:
        together.append((first.model, second.model, number))
        return tuple(took(noise.uniform(0.999, 1.001)) for _ in range(2))

    monkeypatch.setattr(process, "time_in_process", one)
    monkeypatch.setattr(process, "time_pair", pair)
    arguments = (*PAIR, "--seed", "1", "--format", "json")
    row = parts(run(*arguments), 0)
    assert row["plan"]["by_turns"]
    assert (len(together), alone) == (10, [])
    assert [number for *_, number in together] == list(range(10))
    order = row["order"].replace(" ", "")
    assert [first == "dat_t" for first, *_ in together] == [side == "A" for side in order[::2]]
    together.clear()
    row = parts(run(*arguments, "--one-at-a-time"), 0)
    assert not row["plan"]["by_turns"]
    assert (len(alone), together) == (20, [])
    assert row["order"].replace(" ", "") == order


def test_compiling_gets_its_time(
    run: Run, machine: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "check_compiler", lambda *_: None)
    run("compare", "dat_t", "dat_t", "--device", "cpu")
    assert {each["timeout"] for each in machine} == {300}
    machine.clear()
    run("compare", "dat_t", "dat_t@compile", "--device", "cpu")
    assert {each["timeout"] for each in machine} == {1800}
    machine.clear()
    run("compare", "dat_t", "dat_t@compile", "--device", "cpu", "--timeout", "60")
    assert {each["timeout"] for each in machine} == {60}


def test_a_real_process_that_fails(run: Run, tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("def net():\n    raise ValueError('not today')\n")
    found = run("compare", "broken:net", "broken:net", "--device", "cpu", "--budget", "0.1")
    assert found.code == 5
    assert "process 1, of" in found.err
    assert "not today" in found.err


@pytest.mark.parametrize(
    ("text", "model", "options"),
    [
        ("dat_t", "dat_t", {}),
        ("dat_t@batch=8,res=1280x800", "dat_t", {"batch": "8", "res": "1280x800"}),
        ("dat_t@compile", "dat_t", {"compile": ""}),
        ("timm:swin,img_size=256@batch=8", "timm:swin,img_size=256", {"batch": "8"}),
        ("timm:hf-hub:me/net@main", "timm:hf-hub:me/net@main", {}),
        ("config:a@b/dat.yaml", "config:a@b/dat.yaml", {}),
        ("config:a@b/dat.yaml@mode=step", "config:a@b/dat.yaml", {"mode": "step"}),
        ("dat_t@python=/opt/a@b/python", "dat_t", {"python": "/opt/a@b/python"}),
        ("dat_t@python=/a=b/python", "dat_t", {"python": "/a=b/python"}),
    ],
)
def test_sides(text: str, model: str, options: dict[str, str]) -> None:
    assert split(text) == (model, options)


def test_a_model_of_another_version_need_not_exist_here(tmp_path: Path) -> None:
    (tmp_path / "datbench").mkdir()
    (tmp_path / "datbench" / "__init__.py").touch()
    found = side(f"dat_next@res=64,source={tmp_path}", {"device": "cpu"}, How())
    assert (found.model, str(found.setting.resolution)) == ("dat_next", "64x64")
    with pytest.raises(UsageError, match="dat_next is not known here; give its --res"):
        side(f"dat_next@source={tmp_path}", {"device": "cpu"}, How())
