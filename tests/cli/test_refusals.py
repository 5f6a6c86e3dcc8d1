"""Wrong arguments: one line that helps, the documented exit code, and nothing else."""

import os
import re
import shlex
from pathlib import Path

import pytest
import torch

from datbench.cli import main

from .runner import Run, refused

RESOLUTIONS = {
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
}
"""What is written for --res, and a part of the answer."""


@pytest.mark.parametrize("text", RESOLUTIONS)
def test_a_resolution_that_is_none(run: Run, text: str) -> None:
    for command in ("flops", "show"):
        assert RESOLUTIONS[text] in run(command, "dat_t", "--res", text).complaint()


def test_blanks_around_a_resolution_do_no_harm(run: Run) -> None:
    assert "224x224" in run("show", "dat_t", "--res", " 224\n").text


SHARED = {
    "--res 12y0": "resolution '12y0' is not understood",
    "--batch 0": "batch '0': write a number from 1 to 1048576",
    "--dtype int8": "unknown dtype 'int8'; choose one of float32, float64, ",
    "--attention flash": "unknown attention 'flash'; choose one of eager, sdpa, chunked.",
    "--mode stap": "unknown mode 'stap'; ",
    "--device cuda:99": "cuda:99",
    "--threads 0": "'--threads'",
    "--processes 0": "'--processes'",
    "--budget 0": "--budget 0: write a number of seconds above 0",
    "--budget nan": "--budget nan: write a number of seconds",
    "--timeout nan": "--timeout nan: write a number of seconds",
    "--convention fvcor": "'fvcor'; did you mean fvcore?",
    "--by layer": "unknown breakdown 'layer'; choose one of ",
    "--depth 2": "add --by module",
    "--stage 5": "'--stage'",
    "--top 0": "'--top'",
    "--format xml": "'--format': 'xml' is not one of 'table', 'csv', 'md', 'json', 'latex'",
    "--from none.json": "there is no file none.json",
    "--out no/x.json": "there is no directory ",
    "--checkpoint no.pth": "checkpoint no.pth does not exist",
}
"""Wrong values of options that several commands have."""

TAKERS = """
flops dat_t
explain --third-party dat_t
memory simulate dat_t
memory measure dat_t
memory largest --memory 8GiB dat_t
throughput dat_t
profile dat_t
compare run dat_t dat_t
eq10 terms dat_t
eq10 fit
eq10 time dat_t
plot timeline dat_t
show dat_t
params dat_t
summary dat_t
gate update --baseline b.json dat_t
"""
"""Commands with models, and with what else each needs."""


@pytest.fixture
def nothing_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is wrong is found before."""
    from datbench.timing import process, rows

    monkeypatch.setattr(process, "time_in_process", None)
    monkeypatch.setattr(process, "time_pair", None)
    monkeypatch.setattr(rows, "measure_rows", None)


@pytest.mark.usefixtures("nothing_is_measured")
@pytest.mark.parametrize("command", TAKERS.strip().splitlines())
def test_options_are_refused_alike_by_all_commands(run: Run, command: str) -> None:
    words = command.split()
    known = set(re.findall(r"^  (--[a-z-]+)", run(*words, "--help").text, re.MULTILINE))
    asked = {wrong: said for wrong, said in SHARED.items() if wrong.split()[0] in known}
    assert len(asked) > 2
    for wrong, said in asked.items():
        assert said in run(*words, *wrong.split()).complaint()
    if "dat_t" in words:
        assert "did you mean dat_t" in run(*words[:-1], "dat_tt").complaint()
    assert list(Path().iterdir()) == []


REFUSED = {
    "": "see datbench --help.",
    "flop dat_t": "No such command 'flop'",
    "flops": "name a model, such as dat_t; `datbench models` lists them all.",
    "flops dat_ss": "unknown model 'dat_ss'; did you mean dat_s or",
    "flops ''": "unknown model ''",
    "flops '\x1b[31m'": r"'\x1b[31m'",
    "flops xyzzy": "`datbench models` lists them all; timm:NAME names one of timm's.",
    "flops dat_t+retinanot": "unknown head 'retinanot'; did you mean retin",
    "flops dat_t+upernet+retinanet": "has two heads; name one",
    "flops dat_t+retinanet --res 63": "at least 64 pixels",
    "flops dat_t+retinanet --features": "--features is for backbones",
    "flops dat_t --by stages": "did you mean stage?",
    "flops dat_t --by ''": "choose one of part, stage, operator, module.",
    "flops dat_t dat_s --by stage": "--by breaks down one model at one setting; name only one",
    "flops dat_t --res 64 --res 96 --by stage": "name only one model, size and batch.",
    "flops dat_t --by stage,operator --format csv": "choose one of --by stage, operator.",
    "flops dat_t --depth 0": "'--depth'",
    "flops dat_t --batch -1": "a number from 1 to 1048576, or several",
    f"flops dat_t --batch {'9' * 30}": "a number from 1 to 1048576, or several",
    "flops dat_t --batch two": "--batch 'two'",
    "flops dat_t --batch 1.5": "--batch '1.5'",
    "flops dat_t --max-unknown -1": "'--max-unknown'",
    "flops dat_t --device quantum": "device 'quantum' is not available",
    "flops dat_t --device cuda:99": "use meta or cpu, or cuda",
    "flops dat_t --device ''": "device '' is not available",
    "flops dat_t --resolution 64": "No such option: --resolution",
    "flops dat_t --res": "'--res' requires an argument",
    "flops dat_t --dtype float16 --dtype float32": "--dtype is given twice; it takes one value",
    "explain dat_t --timeout 3": "--timeout limits the other counters; add --third-party.",
    "show": "name a model, such as dat_t;",
    "show datpp": "did you mean datpp_",
    "show dat_t dat_s": "show takes one; name only one model and size.",
    "show dat_t --by stage": "unknown breakdown 'stage'",
    "show dat_t --by module --checkpoint x.pth": "one at a time",
    "show dat_t --weights model": "--checkpoint FILE",
    "params dat_t dat_tt": "unknown model 'dat_tt'; did you",
    "params dat_t --by op": "choose one of part, stage.",
    "params dat_t dat_s --by stage": "--by breaks down one model; name only one",
    "params dat_t --by part,stage": "params takes one; name only one breakdown.",
    "models zzz": "no model's name or family contains 'zzz'; `datbench models`",
    "memory": "name a model",
    "memory dat_t --verify --verify": "--verify is given twice",
    "memory dat_t --batch 1,-3": "--batch '-3': write a number from 1",
    "memory dat_t --mode train-forward": "the mode train-forward is now called forward",
    "memory dat_t --mode xyz": "choose one of inference, forward, backward, step",
    "memory dat_t --mode backward --optimizer sgd": "use the mode step",
    "memory dat_t --optimizer adamw": "forward makes no optimizer's step",
    "memory dat_t --mode step --optimizer adam": "did you mean adamw",
    "memory dat_t --dtype amp-int8": "unknown dtype 'amp-int8'",
    "memory dat_t --dtype amp-half --verify": "leave one of --verify and --dtype",
    "memory dat_t --checkpointing layer": "unknown checkpointing 'layer'; choose one of block",
    "memory dat_t --mode inference --checkpointing block": "inference keeps nothing",
    "memory dat_t dat_s --by stage": "name only one",
    "memory dat_t --by stage,module --format csv": "a CSV file holds one table",
    "memory dat_t+upernet --res 64": "use a batch of 2 or more",
    "memory largest dat_t": "say what it has to fit into, such as --memory 16GiB",
    "memory largest dat_t --memory big": "unknown GPU 'big'",
    "memory largest dat_t --memory 16": "'16' is not understood; write an amount such as 16GiB",
    "memory largest dat_t --memory a100-40": "did you mean a100-40gb",
    "memory largest dat_t --memory 8GiB,context=x": "context 'x' is not understood",
    "memory largest dat_t --memory -5GiB": "--memory '-5GiB' is not understood",
    "memory largest dat_t --memory 0GiB": "write an amount above 0",
    "memory largest dat_t --memory 400MiB": "takes 500.0 MiB and leaves nothing of 400.0 MiB",
    "memory largest dat_t --memory 8GiB --batch 3": "No such option: --batch",
    "memory largest dat_t --memory 8GiB --device cpu": "is confirmed on cuda, not on cpu",
    "throughput": "name a model",
    "throughput dat_t --batch ''": "--batch '': write a number from 1",
    "throughput dat_t --batch 1,": "--batch '': write a number from 1",
    "throughput dat_t --batch ²": "write a number from 1",
    "throughput dat_t --device meta": "time is measured on cuda or on cpu, not on 'meta'",
    "throughput dat_t --device nowhere": "not on 'nowhere'",
    "throughput dat_t --mode stpe": "did you mean step?",
    "throughput dat_t --budget inf": "--budget inf: write a number of seconds",
    "throughput dat_t --width -1": "--width -1: write a percentage above 0",
    "throughput dat_t --width inf": "--width inf: write a percentage",
    "throughput dat_t --timeout 0": "--timeout 0: write a number of seconds",
    "throughput dat_t --timeout inf": "--timeout inf: write a number of seconds",
    "throughput dat_t --budget 10 --timeout 6": "write a longer --timeout or a shorter --budget",
    "throughput dat_t --timeout 1e300": "of a day at most",
    "throughput dat_t --device cpu --flush-l2": "flushed on a GPU only",
    "throughput dat_t --protocol swn": "did you mean swin?",
    "throughput dat_t --protocol swin --batch 8": "swin takes batches of 64; give --batch 64",
    "throughput dat_t --protocol swin --mode step": "swin times inference; give another --mode",
    "throughput dat_t --protocol dat --gpus 2": "leave out --gpus",
    "throughput dat_t --device cpu --gpus 1000": "--gpus 1000: this machine has",
    "profile": "name a model",
    "profile dat_t --device meta": "meta runs nothing",
    "profile dat_t --mode stap": "did you mean step?",
    "profile dat_t --batch 1,2": "name only one model, size and batch",
    "profile dat_t --res 12": "both sides need at least 32 pixels",
    "profile dat_t --trace nowhere/run.json": "there is no directory",
    "profile dat_t --trace run.txt": "written as .json or .json.gz",
    "profile dat_t --trace x.json --out x.json": "are one file; name two",
    "profile dat_t --trace ./x.json --out x.json": "are one file; name two",
    "profile dat_t --by stage,operator --format csv": "a CSV file holds one table",
    "compare dat_t": "name B too",
    "compare dat_t dat_t@bacth=8": "did you mean batch",
    "compare dat_t dat_t@batch=x": "batch 'x'",
    "compare dat_t dat_t@batch=1,batch=2": "gives batch twice",
    "compare dat_t dat_t@res=12y0": "resolution '12y0'",
    "compare dat_t dat_t@mode=eval": "unknown mode 'eval'",
    "compare dat_t dat_t@attention=flash": "unknown attention 'flash'",
    "compare dat_t dat_t@dtype=int8": "unknown dtype 'int8'",
    "compare dat_t dat_t@compile=maybe": "write yes or no",
    "compare dat_t dat_t@device=meta": "time is measured on cuda or on cpu",
    "compare dat_t dat_t@device=cuda:97": "cuda:97",
    "compare dat_t dat_t@python=/nowhere/python": "there is no such program",
    "compare dat_t dat_t@source=/nowhere": "there is no datbench/__init__.py in it",
    "compare dat_t @batch=8": "names no model",
    "compare dat_t dat_t@": "has nothing behind its @",
    "compare dat_t dat_t@batch=8,": "leaves an option out between its commas",
    "compare dat_t dat_t@batch=8,,res=64": "leaves an option out between its commas",
    "compare dat_t dat_t@threads=4097": "threads '4097': write a number from 1 to 4096",
    "compare dat_t dat_t --threads 100000": "'--threads'",
    "compare dat_t dat_t@batch=9999999": "'9999999': write a number from 1 to 1048576",
    "compare dat_t dat_t --processes 9": "write even numbers",
    "compare dat_t dat_t --processes 4": "cannot settle anything",
    "compare dat_t dat_t --threshold 0": "--threshold 0",
    "compare dat_t dat_t --threshold nan": "--threshold nan",
    "compare dat_t dat_t --confidence 0.98": "--confidence 0.98: write a percentage",
    "compare dat_t dat_t --budget 301": "write a longer --timeout or a shorter --budget",
    "compare dat_t dat_t --budget 200": "two sides that take turns need 400 s",
    "compare dat_t dat_t --res 64,96": "a comparison is at one; name only one size",
    "compare dat_t dat_t --batch 1 --batch 2": "name only one batch",
    "compare dat_t gone.json": "gone.json is a file; `datbench compare files A B`",
    "compare files gone.json gone.json": "there is no file gone.json",
    "compare files gone.json gone.json --batch 2": "No such option: --batch",
    "eq10 torch.nn:Identity": "dat_t has deformable and window attention",
    "eq10 time datpp_t dat_t": "name only one",
    "eq10 time dat_t --stage 1": "no deformable attention in stage 1",
    "eq10 time timm:resnet18": "timm:resnet18 has no deformable attention",
    "eq10 time --res 128,x": "resolution 'x' is not understood",
    "eq10 time --res 128,100": "--res 100x100: square maps are timed; write multiples of 16",
    "eq10 time --res 1280x800": "square maps are timed",
    "eq10 time --res 128,256": "sides",
    "eq10 time --device cuda:99": "is not available here",
    "eq10 time --batch 1,2": "name only one batch",
    "eq10 fit kernel=3": "cannot tell k² Ns C, Ns C apart",
    "eq10 fit side=3": "is not understood",
    "eq10 fit --convention mmdet": "choose one of fvcore, torch",
    "table": "name a table: 1, 2, 3",
    "table 10": "unknown table '10'; there are 1, 2, 3",
    "table 2b": "datpp, davit, davit_dense, nat and all",
    "table none.toml": "there is no file none.toml",
    "table ./": "is a directory; name a file",
    "table other.toml": "table template",
    "table 8 --out no/dir.md": "there is no directory",
    "table 8 --format xml": "--format",
    "table 8 --device cuda:99": "is not available here",
    "table 6 --device cuda": "table 8 prints some",
    "table 8 --device cpu": "printed memory is measured on cuda",
    "table search 3 5": "name only one table",
    "gate": "name the file: --baseline FILE.",
    "gate update --baseline . dat_t": "is a directory",
    "gate update --baseline b.json --res 64": "are of models; name one",
    "gate update --baseline b.json": "there is nothing to write",
    "gate update --baseline b.json dat_ss": "did you mean dat_s",
    "gate update --baseline b.json dat_t --mode step": "inference, backward",
    "gate update --baseline b.json --remove x": "unknown model of the baseline",
    "summary": "name a model",
    "summary dat_t --columns macs,speed": "unknown column 'speed'",
    "summary dat_t --columns macs:two": "write the decimals behind the colon",
    "summary none.toml": "none.toml",
    "summary dat_t --columns images/s": "--from FILE of `datbench throughput`",
    "selftest --device meta": "not on meta",
    "sweep run x dat_t --shard 3/2": "'3/2': write the part and the number of parts",
    "sweep run x dat_t --shard 0/2": "--shard '0/2'",
    "sweep run x --res 64": "the options say what is measured of models: name some.",
    "sweep run x --kind flops": "the options say what is measured of models: name some.",
    "sweep run x --memory 16GiB": "the options say what is measured of models: name some.",
    "sweep run x dat_t --device meta": "device: nothing is measured on meta; write cpu or cuda.",
    "sweep run x dat_t --timeout -1": "--timeout -1: write a number of seconds above 0.",
    "sweep run x dat_t --budget inf": "--budget inf: write a number of seconds above 0.",
    "sweep run x dat_t --engine pbs": "unknown engine 'pbs'",
    "sweep run x dat_t --slurm partition=x": "--slurm is for --engine slurm.",
    "sweep run x dat_t --kind memory-largest": "memory: say what the largest batch has to fit",
    # What used to be written, and what is written now.
    "flops --config x.yaml": "--config is now config:FILE as the name of a model.",
    "throughput dat_t --with upernet": "--with is now MODEL+HEAD as the name of a model.",
    "flops dat_t --backward": "--backward is now --mode backward.",
    "memory dat_t --mode train": "the mode train is now called backward or step.",
    "throughput dat_t --mode infer": "the mode infer is now called inference.",
    "memory dat_t --largest 16GiB": "is now datbench memory largest MODEL --memory AMOUNT.",
    "memory dat_t --timeline": "is now datbench plot timeline MODEL, with --out FILE for a file.",
    "memory dat_t --autocast float16": "--autocast is now --dtype amp-bfloat16",
    "profile dat_t --plot": "is now datbench plot roofline --from FILE",
    "eq10 --measure": "--measure is now datbench eq10 time.",
    "eq10 dat_t --plot": "--plot is now datbench plot eq10, with --out FILE for a file.",
    "gate --baseline b.json --update": "--update is now datbench gate update.",
    "gate --baseline b.json --models dat_t": "is now datbench gate update MODEL...",
    "gate --baseline b.json t.json": "RESULTS is now --from FILE.",
    "report --models dat_t --out o": "--models is now datbench report MODEL...",
    "table 5 --search": "--search is now datbench table search TABLE.",
    "compare a b --floor 3": "--floor is now --threshold PERCENT.",
    "compare dat_t dat_t --max-processes 8": "--max-processes is now --processes N",
    "compare dat_t dat_t --across-machines": "datbench compare files A.json B.json",
    "points dat_t --figure 5": "--figure is now datbench points propagated (5), groups (6)",
    "throughput dat_t --format pytest-benchmark": "convert FILE.json --to pytest-benchmark`.",
}
"""What else is written, and a part of the answer."""


@pytest.mark.usefixtures("nothing_is_measured")
@refused(REFUSED)
def test_an_argument_that_is_wrong(run: Run, words: str, said: str) -> None:
    assert said in run(*shlex.split(words)).complaint()
    assert list(Path().iterdir()) == []


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
