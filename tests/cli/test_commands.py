"""`datbench models`, `show`, `params` and `env`."""

import inspect
import re
import shlex
import sys
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Optional

import pytest
import torch

import datbench
from datbench.models.dat import REGISTRY
from datbench.models.spec import ModelSpec

from .runner import Run


def test_models_lists_every_model_under_its_family(run: Run) -> None:
    rows = run("models", "--format", "json").rows
    ours = [row["model"] for row in rows if row["family"] != "comparison"]
    assert ours == list(datbench.list_models())
    assert {"pvt_s", "dpt_m", "ceit_s", "regionvit_s"} < {row["model"] for row in rows} - {*ours}
    assert all(row["source"] and row["summary"] for row in rows)
    text = run("models").text
    assert [text.index(f"{row['model']} ") for row in rows]
    for family in ("dat", "dat++", "ablation", "deformable-detr", "comparison"):
        assert f"\n{family}\nmodel" in f"\n{text}"


def test_models_are_filtered_by_text_and_family(run: Run) -> None:
    def names(*arguments: str) -> list[str]:
        return [row["model"] for row in run("models", *arguments, "--format", "json").rows]

    assert names("PP_") == ["datpp_t", "datpp_s", "datpp_b", "datpp_b_384"]
    assert {"datpp_t", "datpp_b_384"} <= set(names("dat++")) <= set(names("dat"))
    assert "pvt_s" in names("comparison")
    assert "dat_s" not in run("models", "ddetr").text


@pytest.mark.parametrize("spec", list(REGISTRY.values()), ids=lambda spec: spec.name)
def test_show_describes_every_model(run: Run, spec: ModelSpec) -> None:
    (found,) = run("show", spec.name, "--format", "json").rows
    assert found["model"] == spec.name
    assert found["resolution"] == str(spec.resolution)
    config = spec.config
    assert [s["dim"] for s in found["stages"]] == [s.dim for s in config.stages]
    assert [s["heads"] for s in found["stages"]] == [s.heads for s in config.stages]
    text = run("show", spec.name).text
    assert f"{spec.name}: {spec.summary} ({spec.source}), input {spec.resolution}" in text
    assert "[" not in text  # no value in Python's spelling


def test_show_repeats_a_pattern_of_blocks_once(run: Run) -> None:
    text = run("show", "dat_s").text
    assert "(window 7, deformable (G 3, k 5, r 1)) x 9" in text
    assert "window 7, window 7 shifted 4" in text
    assert "deformable (G 8, k 3, r 1) x 2" in run("show", "datpp_t").text
    assert "no offsets, fixed bias" not in text
    assert "fixed bias" in run("show", "dat_t_fixed_bias").text
    assert "Deformable-DETR, 196 keys" in run("show", "dat_t_ddetr_196_49").text


@pytest.mark.parametrize("model", ["dat_t", "dat_t_star", "datpp_t"])
def test_show_gives_the_maps_that_the_model_makes(run: Run, model: str) -> None:
    backbone = datbench.create_model(model, features_only=True, device="meta").eval()
    for width, height in ((333, 200), (225, 227), (33, 47)):
        (found,) = run("show", model, "--res", f"{width}x{height}", "--format", "json").rows
        maps = backbone(torch.empty(1, 3, height, width, device="meta"))
        assert [stage["map"] for stage in found["stages"]] == [
            f"{m.shape[3]}x{m.shape[2]}" for m in maps
        ]


def test_params_are_what_torch_counts(run: Run) -> None:
    (row,) = run("params", "dat_t_ddetr_16_16", "--format", "json").rows
    with torch.device("meta"):
        module = datbench.create_model("dat_t_ddetr_16_16")
    trainable = sum(p.numel() for p in module.parameters() if p.requires_grad)
    frozen = sum(p.numel() for p in module.parameters() if not p.requires_grad)
    assert (row["params"], row["frozen"]) == (trainable, frozen)
    assert frozen > 0
    assert row["buffers"] == sum(b.numel() for b in module.buffers())
    assert "28,319,138" in run("params", "dat_t", "datpp_t").text


@pytest.mark.parametrize("extra", [(), ("--features",)])
def test_params_by_stage_sum_to_the_total(run: Run, extra: tuple[str, ...]) -> None:
    *stages, total = run("params", "dat_s", "--by", "stage", *extra, "--format", "json").rows
    (whole,) = run("params", "dat_s", *extra, "--format", "json").rows
    assert total["stage"] == "total"
    assert total["features"] == whole["features"] == bool(extra)
    for kind in ("params", "frozen", "buffers"):
        assert sum(stage[kind] for stage in stages) == total[kind] == whole[kind]


def test_env_describes_this_machine(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from datbench import machine

    (found,) = run("env", "--format", "json").rows
    assert found["datbench"] == datbench.__version__
    assert found["torch"] == torch.__version__
    assert found["packages"]["torch"].partition("+")[0] == torch.__version__.partition("+")[0]
    assert found["memory_bytes"] > 0
    assert len(found["gpus"]) == torch.cuda.device_count()
    text = run("env").text
    assert "GiB" in text
    assert "{" not in text
    gpu = {"name": "NVIDIA H200", "memory_bytes": 150_754_820_096, "capability": "9.0"}
    monkeypatch.setattr(machine, "environment", lambda: {"cpus": None, "gpus": [gpu]})
    text = run("env").text
    assert "name NVIDIA H200; memory_bytes 140.4 GiB; capability 9.0" in text
    assert "cpus    -" in text
    assert run("env", "--format", "json").rows == [{"cpus": None, "gpus": [gpu]}]


def test_version_and_help(run: Run) -> None:
    assert run("--version").text == f"datbench {datbench.__version__}\n"
    assert run("-h").text == run("--help").text


def _below(text: str, section: str) -> list[str]:
    return text.partition(f"\n{section}:\n")[2].partition("\n\n")[0].splitlines()


def _commands(run: Run, *above: str) -> list[tuple[str, ...]]:
    """Every command, and those below it, as the help lists them."""
    names = [
        line.split()[0]
        for line in _below(run(*above, "--help").text, "Commands")
        if not line.startswith("   ")
    ]
    return [found for name in names for found in ((*above, name), *_commands(run, *above, name))]


def test_help_is_whole(run: Run) -> None:
    """Every command has a whole sentence, every option words about it, and examples end it."""
    commands = _commands(run)
    first = """models show params flops explain memory throughput profile compare eq10 table gate
    sweep summary report plot points results env selftest"""
    assert [c[0] for c in commands if len(c) == 1] == first.split()
    assert len([c for c in commands if len(c) == 2]) == 35
    for words in commands:
        text = run(*words, "--help").text
        if "\nCommands:\n" in text:
            continue
        assert "--out PATH" in text
        examples = text.partition("\nExamples:\n")[2].splitlines()
        assert any(line.startswith(f"  datbench {words[0]}") for line in examples), words
        for section in ("What is run", "How it is measured", "Result", "Output", "Options"):
            lines = _below(text, section)
            for option, below in pairwise([*lines, ""]):
                if option.startswith("  -"):
                    assert "  " in option.strip() or below.startswith(" " * 10), option


def test_examples_are_understood(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The examples of the help are read as they stand; what they would run is not run here."""
    from datbench.cli import command

    seen = []
    monkeypatch.setattr(command.Command, "invoke", lambda self, ctx: seen.append(ctx.params))
    for words in _commands(run):
        examples = run(*words, "--help").text.partition("\nExamples:\n")[2].splitlines()
        for line in examples:
            assert run(*shlex.split(line)[1:]).code == 0, line
        assert len(seen) == len(examples) or not examples
        seen.clear()


def test_help_on_a_terminal_has_panels(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    text = re.sub(r"\x1b\[[0-9;]*m", "", run("flops", "--help").out)
    assert "╭─ What is run" in text
    assert "datbench flops dat_s --res 1280x800" in text


TREE = """
import torch
from torch import nn

class Two(nn.Module):
    def forward(self, x):
        return x, {"mean": x.mean()}

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU())
        self.twice = nn.Conv2d(8, 8, 1, bias=False)
        self.two = Two()
        self.unused = nn.Linear(5, 7)
        self.head = nn.Linear(8, 10)

    def forward(self, image):
        x, _ = self.two(self.twice(self.twice(self.stem(image))))
        x = x.flatten(2)
        scores = x.transpose(1, 2) @ x  # no module of its own
        return self.head(x.mean(2)) + scores.mean()
"""


@pytest.mark.parametrize("width", [80, 120])
def test_a_tree_has_shapes_parameters_and_macs(
    run: Run, monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    """Of a model whose figures are a closed form, as torchinfo would show it."""
    monkeypatch.setenv("COLUMNS", str(width))
    Path("tree_net.py").write_text(TREE)
    command = ("show", "tree_net:Net", "--res", "64", "--by", "module")
    (found,) = run(*command, "--format", "json").rows
    once, pixels = 8 * 8 * 32 * 32, 32 * 32
    rows = {row["path"]: (row["output"], row["params"], row["macs"]) for row in found["modules"]}
    stem, scores = 27 * 8 * pixels, pixels * 8 * pixels
    assert rows == {
        "": ("1x10", 224 + 64 + 42 + 90, stem + 2 * once + scores + 80),
        "stem": ("1x8x32x32", 224, stem),
        "stem.0": ("1x8x32x32", 224, stem),
        "stem.1": ("1x8x32x32", 0, 0),
        "twice": ("1x8x32x32", 64, 2 * once),
        "two": ("1x8x32x32 (+1)", 0, 0),
        "unused": (None, 42, 0),
        "head": ("1x10", 90, 80),
    }
    lines = run(*command).text.splitlines()
    assert max(map(len, lines)) <= width
    assert [line.split("  ")[0] for line in lines[3:4]] == ["tree_net:Net"]
    assert any(line.startswith("    1 ") for line in lines)
    one = run(*command, "--depth", "1").text
    assert "  stem" in one
    assert "\n    0" not in one
    assert "    0" in run(*command, "--format", "md").text.replace("\u00a0", " ")


def test_an_option_is_what_it_says_where_python_adds_none_to_its_type() -> None:
    """As Python 3.10 does of a parameter whose default is None."""
    from datbench.cli.command import WHAT, expanded, option

    def command(from_=None):  # type: ignore[no-untyped-def]
        pass

    declared = Annotated[str | None, option(WHAT, "--from FILE", "A file.")]
    command.__annotations__["from_"] = Optional[declared]  # noqa: UP045 (what 3.10 makes of it)
    (parameter,) = inspect.signature(expanded(command)).parameters.values()
    assert parameter.annotation == declared
