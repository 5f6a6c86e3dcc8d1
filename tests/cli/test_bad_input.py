"""Wrong arguments: one line that helps, the documented exit code, and nothing else."""

import os
from pathlib import Path

import pytest
import torch

from datbench.cli import main

from .runner import Run

RESOLUTIONS = {
    "12y0": "write WIDTHxHEIGHT such as 1280x800, or one number for a square.",
    "0": "each side must lie between 1 and 32768 pixels.",
    "0x224": "resolution 0x224: each side",
    "-224": "is not understood",
    "224x-1": "is not understood",
    "16": "dat_t at 16x16: both sides need at least 32 pixels.",
    "31x224": "both sides need at least 32 pixels.",
    "99999x99999": "each side",
    "9" * 5000: "is not understood",
    "": "resolution '' is not understood",
    "64,": "resolution '' is not understood",
    "1280x": "is not understood",
    "x800": "is not understood",
    "224x224x3": "is not understood",
    "1e3": "is not understood",
    "224.0": "is not understood",
    "٢٢٤": "is not understood",
    "²²⁴": "is not understood",
    "224\n": "",
}
"""What is written for --res, and a part of the answer."""


@pytest.mark.parametrize("command", ["flops", "show"])
@pytest.mark.parametrize("text", [text for text, part in RESOLUTIONS.items() if part])
def test_a_resolution_that_is_none(run: Run, command: str, text: str) -> None:
    assert RESOLUTIONS[text] in run(command, "dat_t", "--res", text).complaint()


def test_blanks_around_a_resolution_do_no_harm(run: Run) -> None:
    assert "224x224" in run("show", "dat_t", "--res", " 224\n").text


WRONG: dict[str, tuple[tuple[str, ...], str]] = {
    "model": (("flops", "dat_ss"), "unknown model 'dat_ss'; did you mean dat_s or"),
    "model in show": (("show", "datpp"), "did you mean datpp_"),
    "model in params": (("params", "dat_t", "dat_tt"), "unknown model 'dat_tt'; did you"),
    "model far from all": (
        ("flops", "xyzzy"),
        "`datbench models` lists them all; timm:NAME names one of timm's.",
    ),
    "model without a name": (("flops", ""), "unknown model ''"),
    "model with an escape": (("flops", "\x1b[31m"), r"'\x1b[31m'"),
    "pattern": (("models", "zzz"), "no model's name or family contains 'zzz'; `datbench models`"),
    "convention": (
        ("flops", "dat_t", "--convention", "fvcor"),
        "unknown convention 'fvcor'; did you mean fvcore?",
    ),
    "format": (
        ("flops", "dat_t", "--format", "xml"),
        "'--format': 'xml' is not one of 'table', 'csv', 'md', 'json', 'latex'",
    ),
    "breakdown": (("flops", "dat_t", "--by", "stages"), "did you mean stage?"),
    "no breakdown": (
        ("flops", "dat_t", "--by", ""),
        "choose one of part, stage, operator, module.",
    ),
    "breakdown of params": (("params", "dat_t", "--by", "op"), "choose one of part, stage."),
    "breakdown of two": (
        ("flops", "dat_t", "dat_s", "--by", "stage"),
        "--by breaks down one model at one setting; name only one model, size and batch.",
    ),
    "breakdown of two sizes": (
        ("flops", "dat_t", "--res", "64", "--res", "96", "--by", "stage"),
        "name only one",
    ),
    "breakdown of params of two": (("params", "dat_t", "dat_s", "--by", "stage"), "only one"),
    "two breakdowns of params": (
        ("params", "dat_t", "--by", "part,stage"),
        "params takes one; name only one breakdown.",
    ),
    "two breakdowns in one CSV": (
        ("flops", "dat_t", "--by", "stage,operator", "--format", "csv"),
        "choose one of --by stage, operator.",
    ),
    "depth of nothing": (("flops", "dat_t", "--depth", "2"), "add --by module."),
    "depth of 0": (("flops", "dat_t", "--depth", "0"), "'--depth'"),
    "dtype": (("flops", "dat_t", "--dtype", "int8"), "choose one of float32, float64, "),
    "attention": (("flops", "dat_t", "--attention", "flex"), "choose one of eager, sdpa, chunked."),
    "batch of 0": (("flops", "dat_t", "--batch", "0"), "a number from 1 to 1048576, or several"),
    "batch below 0": (
        ("flops", "dat_t", "--batch", "-1"),
        "a number from 1 to 1048576, or several",
    ),
    "huge batch": (
        ("flops", "dat_t", "--batch", "9" * 30),
        "a number from 1 to 1048576, or several",
    ),
    "batch of text": (("flops", "dat_t", "--batch", "two"), "--batch 'two'"),
    "half a batch": (("flops", "dat_t", "--batch", "1.5"), "--batch '1.5'"),
    "max-unknown": (("flops", "dat_t", "--max-unknown", "-1"), "'--max-unknown'"),
    "device": (("flops", "dat_t", "--device", "quantum"), "device 'quantum' is not available"),
    "device number": (("flops", "dat_t", "--device", "cuda:99"), "use meta or cpu, or cuda"),
    "device without a name": (("flops", "dat_t", "--device", ""), "device '' is not available"),
    "option": (("flops", "dat_t", "--resolution", "64"), "No such option: --resolution"),
    "option without a value": (("flops", "dat_t", "--res"), "'--res' requires an argument"),
    "no argument": (("flops",), "name a model, such as dat_t; `datbench models` lists them all."),
    "no argument of show": (("show",), "name a model, such as dat_t;"),
    "too many arguments": (
        ("show", "dat_t", "dat_s"),
        "show takes one; name only one model and size.",
    ),
    "option given twice": (
        ("flops", "dat_t", "--dtype", "float16", "--dtype", "float32"),
        "--dtype is given twice; it takes one value",
    ),
    "flag given twice": (("memory", "dat_t", "--verify", "--verify"), "--verify is given twice"),
    "command": (("flop", "dat_t"), "No such command 'flop'"),
    "no command": ((), "see datbench --help."),
}


@pytest.mark.parametrize(("arguments", "part"), WRONG.values(), ids=WRONG)
def test_an_argument_that_is_wrong(run: Run, arguments: tuple[str, ...], part: str) -> None:
    assert part in run(*arguments).complaint()
    assert list(Path().iterdir()) == []


OLD = {
    "flops --config x.yaml": "--config is now config:FILE as the name of a model.",
    "throughput dat_t --with upernet": "--with is now MODEL+HEAD as the name of a model.",
    "flops dat_t --backward": "--backward is now --mode backward.",
    "memory dat_t --mode train": "the mode train is now called backward or step.",
    "throughput dat_t --mode infer": "the mode infer is now called inference.",
    "memory dat_t --largest 16GiB": "is now datbench memory largest MODEL --memory AMOUNT.",
    "memory dat_t --timeline": "is now datbench plot timeline MODEL, with --out FILE for a file.",
    "eq10 --measure": "--measure is now datbench eq10 time.",
    "eq10 dat_t --plot": "--plot is now datbench plot eq10, with --out FILE for a file.",
    "gate --baseline b.json --update": "--update is now datbench gate update.",
    "gate --baseline b.json t.json": "RESULTS is now --from FILE.",
    "report --models dat_t --out o": "--models is now datbench report MODEL...",
    "table 5 --search": "--search is now datbench table search TABLE.",
    "compare a b --floor 3": "--floor is now --threshold PERCENT.",
    "points dat_t --figure 5": "--figure is now datbench points propagated (5), groups (6)",
    "throughput dat_t --format pytest-benchmark": "convert FILE.json --to pytest-benchmark`.",
}
"""What used to be written, and what is written now."""


@pytest.mark.parametrize("words", OLD)
def test_an_old_spelling_names_the_new_one(run: Run, words: str) -> None:
    assert OLD[words] in run(*words.split()).complaint()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_no_such_device_here(run: Run) -> None:
    message = run("flops", "dat_t", "--device", "cuda", "--out", "x.json").complaint()
    assert (
        message == "device 'cuda' is not available here; use meta or cpu, or cuda where a GPU is."
    )
    assert list(Path().iterdir()) == []


def test_the_first_mistake_is_found_before_any_work(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    from datbench.counting import count

    monkeypatch.setattr(count, "count_row", lambda *_: pytest.fail("counted"))
    for wrong in (("dat_ss",), ("--res", "1"), ("--out", "x.foo"), ("--device", "quantum")):
        assert run("flops", "dat_t", *wrong).complaint()


def test_a_measurement_that_fails_has_an_exit_code_of_its_own(run: Run) -> None:
    failed = run("flops", "dat_t", "--res", "32768", "--batch", "1048576", "--out", "x.json")
    assert failed.complaint(5).startswith("dat_t at 32768x32768, batch 1048576 on meta: ")
    assert list(Path().iterdir()) == []


OUTS = {
    ".": "is a directory; name a file.",
    "": "is a directory; name a file.",
    "missing/x.json": "there is no directory ",
    "x.foo": "the suffix .foo names no format; use one of .txt, .csv, .md, .json, .tex or give",
    "x": "the suffix (none) names no format",
    ".json": "the suffix (none) names no format",
    "file.txt/x.json": "there is no directory ",
    f"{'x' * 300}.json": "File name too long.",
}


@pytest.mark.parametrize("out", OUTS, ids=lambda out: out[:20])
@pytest.mark.parametrize("command", [("flops", "dat_t"), ("models",), ("env",)])
def test_a_file_that_cannot_be_written(run: Run, command: tuple[str, ...], out: str) -> None:
    Path("file.txt").write_text("kept")
    assert OUTS[out] in run(*command, "--out", out).complaint()
    assert [(p.name, p.read_text()) for p in Path().iterdir()] == [("file.txt", "kept")]


def test_a_file_without_permission(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root may write anywhere, so the system's answer is made up."""
    Path("kept.json").write_text("kept")
    access = os.access

    def refuse(path: Path, mode: int) -> bool:
        return str(path) not in ("kept.json", str(tmp)) and access(path, mode)

    tmp = Path().resolve()
    monkeypatch.setattr(os, "access", refuse)
    assert run("models", "--out", "kept.json").complaint().endswith("no permission to write to it.")
    message = run("models", "--out", "new.json").complaint()
    assert message == f"--out new.json: no permission to write in {tmp}."
    assert [(p.name, p.read_text()) for p in Path().iterdir()] == [("kept.json", "kept")]


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="there is no /proc")
def test_a_place_where_nobody_writes(run: Run) -> None:
    message = run("models", "--out", "/proc/x.json").complaint(5)
    assert message.startswith("could not write /proc/x.json: ")


def test_debug_shows_the_traceback(run: Run) -> None:
    with pytest.raises(main.DatbenchError, match="unknown model"):
        run("--debug", "flops", "dat_ss")


def test_an_interrupt_is_no_traceback(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from datbench.counting import count

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(count, "count_row", interrupted)
    stopped = run("flops", "dat_t", "--out", "x.json")
    assert (stopped.code, stopped.out) == (130, "")
    assert "Traceback" not in stopped.err
    assert list(Path().iterdir()) == []
