"""Keep what the program answers, and list what answers differently later.

A guard for changes that should change no answer. `keep` runs every entry of the tables below and
writes its exit code, output and files, one text file an entry; `compare` runs them again and prints
the differences. What belongs to a machine or to a day stands there as a word in angle brackets.

    python tools/golden_store.py keep DIR
    python tools/golden_store.py compare DIR --only 'gate-*'

With PYTHONPATH=CHECKOUT it is that checkout whose datbench is run.

Entries run in one directory, by the program alone or through `datbench`'s public names: nothing
here knows where a module is. An entry waits for the earlier ones whose files it names.
"""

from __future__ import annotations

import argparse
import difflib
import json
import os
import platform
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

HELP = """
models show flops explain params eq10 memory table throughput profile compare gate report plot
points env results results+show results+merge results+convert results+validate
"""
"""Every command; a + stands for a blank."""

FORMATS = ("table", "csv", "md", "json", "latex")

COMMANDS = """
version            | --version
models             | models
models-csv         | models ablation --format csv
models-json        | models --out models.json
show               | show datpp_t
show-json          | show dat_t_ddetr_196_49 --out show.json
show-config        | show config:dat_tiny.yaml
show-head          | show dat_t+mask_rcnn
weights            | @weights
show-checkpoint    | show dat_t --checkpoint weights.pth
params             | params dat_t datpp_t net:small --out params.json
params-stage       | params dat_t_ddetr_196_49 --by stage
params-part        | params dat_t+retinanet --by part --format csv
flops              | flops dat_t dat_s datpp_t
flops-sizes        | flops dat_t --res 64 --res 96x64 --batch 2 --format latex
flops-one          | flops dat_t
flops-module       | flops dat_t --by module --depth 3
flops-operator     | flops datpp_t --by operator --format csv
flops-torch        | flops dat_t --convention torch --by stage --format md
flops-strict       | flops dat_t --res 64 --convention strict --dtype bfloat16
flops-mmdet        | flops dat_t+retinanet --res 320x256 --convention mmdet --by part,stage
flops-timm         | flops timm:swin_tiny_patch4_window7_224 timm:davit_tiny
flops-json         | flops dat_t --res 64 --mode backward --out flops.json
flops-show         | results show flops.json --format FORMAT
flops-other        | flops dat_t_no_bias dat_t --res 64 --out other.json
flops-config       | flops config:dat_tiny.yaml --res 64 --attention sdpa --features
flops-factory      | flops net:Net,width=16 --res 64 --by module
flops-unknown      | flops net:odd --res 64 --by operator
explain-json       | explain datpp_t --res 64 --out explain.json
explain-show       | results show explain.json --format FORMAT
eq10               | eq10 --check
eq10-json          | eq10 dat_t --res 64 --out eq10.json
eq10-show          | results show eq10.json --format FORMAT
eq10-kinds         | eq10 kinds --res 224
eq10-fit           | eq10 fit height=7,14 width=7,14 --out fit.json
eq10-fit-show      | results show fit.json
eq10-paper         | eq10 example
memory             | memory dat_t --batch 64
memory-step        | memory dat_t --res 64 --mode step --optimizer sgd-momentum --by stage,operator
memory-autocast    | memory dat_t --res 64 --mode backward --dtype amp-bf16 --checkpointing block
memory-many        | memory dat_t datpp_t --res 64 --batch 1 --batch 2 --attention sdpa --format csv
memory-json        | memory dat_t --res 64 --mode inference --out memory.json
memory-show        | results show memory.json --format FORMAT
memory-largest     | memory largest dat_t --res 64 --memory 4GiB,context=300MiB
memory-timeline    | plot timeline dat_t --res 64 --batch 8 --mode backward
table-all          | table all --check --out tables.json
table-all-show     | results show tables.json --format FORMAT
table-all-lines    | results convert tables.json --to csv --by lines
table-7            | table 7 --notes
table-mine         | table mine.toml
table-mine-check   | table mine.toml --check
throughput-show    | results show a.json --format FORMAT
profile-show       | results show profile.json --format FORMAT
compare-same       | compare files a.json a.json
compare-slower     | compare files a.json b.json --out compare.json
compare-show       | results show compare.json --format FORMAT
compare-missing    | compare files a.json c.json --format csv
compare-benchmark  | compare files benchmark.json benchmark.json
gate-new           | gate update net:small --baseline base.json --res 64
gate-same          | gate --baseline base.json --out gate.json
gate-show          | results show gate.json
gate-copies        | @copies
gate-changed       | gate --baseline changed.json
gate-fewer         | gate --baseline changed.json --allow-fewer --format md
gate-more          | gate update dat_t --baseline more.json --from a.json --res 64 --mode inference
gate-times         | gate --baseline more.json --from a.json
gate-missing       | gate --baseline base.json --from a.json
gate-none          | gate --baseline none.json
report             | report dat_t --tables 7 --res 64 --plots none --out first
report-from        | report none --tables none --plots none --out second --from a.json \
 --from profile.json --from memory.json --from benchmark.json
report-baseline    | report net:small net:broken --tables none --res 64 \
 --plots none --baseline changed.json --out third
report-again       | report none --tables none --plots none --out last \
 --from first/report.json
report-valid       | results validate first/report.json
plot-accuracy      | plot accuracy --of params
plot-throughput    | plot accuracy --of throughput --from a.json
plot-timeline      | plot timeline dat_t --res 64 --mode backward
plot-eq10          | plot eq10 --from eq10.json
plot-icicle        | plot icicle dat_t --res 64
plot-icicle-time   | plot icicle --of time --from profile.json
plot-roofline      | plot roofline --of operator --from profile.json
points-groups      | points groups datpp_t image.ppm --res 64 --out groups.json
points-query       | points query dat_t image.ppm 9,5 --res 64 --top 3 --format csv
points-weights     | points groups dat_t image.ppm --res 64 --checkpoint weights.pth
env-json           | env --format json
results-merge      | results merge flops.json other.json --out merged.json
results-merged     | results show merged.json
results-differ     | results merge a.json b.json
results-first      | results merge a.json b.json --keep first
results-each       | results convert flops.json --to csv --by operators
results-md         | results convert params.json --out params.md
results-latex      | results convert models.json --to latex
results-valid      | results validate flops.json a.json profile.json show.json --format json
results-bad        | results validate flops.json broken.json cut.json
bad-none           |
bad-command        | flop dat_t
bad-model          | flops dat_ss
bad-resolution     | flops dat_t --res 12y0
bad-format         | flops dat_t --format xml
bad-convention     | flops dat_t --convention fvcor
bad-unknown        | flops net:odd --res 64 --max-unknown 0
bad-factory        | flops net:broken
bad-null           | show dat_t --checkpoint /dev/null
bad-null-out       | flops dat_t --res 64 --format json --out /dev/null
bad-checkpoint     | show dat_t --checkpoint damaged.pth
bad-other-model    | show datpp_t --checkpoint weights.pth
bad-config         | show config:broken.yaml
bad-out            | models --out missing/x.json
bad-json           | results show broken.json
bad-cut            | results show cut.json
bad-newer          | results show newer.json
bad-missing        | results show missing.json
bad-optimizer      | memory dat_t --mode backward --optimizer sgd
bad-fit            | eq10 fit --check x=1
bad-table          | table 12
bad-toml           | table broken.toml
bad-throughput     | throughput dat_t --mode backward
bad-compare        | compare files a.json
bad-compare-file   | compare files flops.json a.json
bad-plot           | plot pie dat_t
bad-points         | points timm:davit_tiny image.ppm
bad-image          | points dat_t missing.png
bad-report         | report dat_t
bad-gate           | gate
api-forward        | @forward
api-count          | @count
api-rule           | @rule
api-checkpoint     | @checkpoint
api-values         | @values
api-assert         | @assert
api-costs          | @costs
"""
"""Every entry: a name, and arguments of the program or an @ and one of `CODE`.

FORMAT stands for each of `FORMATS`: an entry of its own."""

CODE = {
    "weights": """
torch.manual_seed(1)  # writes: weights.pth
torch.save({"model": datbench.create_model("dat_t").state_dict()}, "weights.pth")
""",
    "copies": """
import json, pathlib  # writes: changed.json more.json
text = pathlib.Path("base.json").read_text()
pathlib.Path("more.json").write_text(text)
content = json.loads(text)
content["rows"][0]["params"] -= 1
pathlib.Path("changed.json").write_text(json.dumps(content))
""",
    "forward": """
torch.manual_seed(1)
for name, more in ("dat_t", {}), ("datpp_t", {"features_only": True, "attention": "sdpa"}):
    found = datbench.create_model(name, **more).eval()(torch.rand(1, 3, 64, 96))
    for x in [found] if torch.is_tensor(found) else found:
        print(name, tuple(x.shape), f"{x.double().abs().mean():.4f}")
""",
    "count": """
count = datbench.count(net.small(), torch.empty(2, 3, 64, 64), backward=True)
print(type(count).__name__, *count.calls, sep="\\n")
count = datbench.count_model("dat_t", datbench.Setting(datbench.Resolution(96, 64), batch=2))
print(count.multiply_adds(), len(count.calls), count.calls[0])
print(datbench.parameters(datbench.create_model("dat_t_ddetr_196_49", device="meta")))
""",
    "rule": """
@datbench.register_rule("aten::linalg_qr", about="nothing")
def _(args, kwargs, out):
    return {}
datbench.testing.assert_macs(net.odd(), torch.rand(1, 3, 8, 8), 0)
datbench.register_rule("aten::linear")(_)
""",
    "checkpoint": """
model = datbench.create_model("dat_t", features_only=True)
print(datbench.load_checkpoint(model, "weights.pth"))
datbench.load_checkpoint(datbench.create_model("dat_s"), "weights.pth")
""",
    "values": """
print(*sorted({*datbench.__all__, *dir(datbench)}), *datbench.list_models(), sep="\\n")
print(datbench.Resolution.parse("1280x800"), datbench.DatbenchError("text"))
print(datbench.Setting(datbench.Resolution(64, 64), dtype="bfloat16", backward=True))
datbench.Setting(datbench.Resolution(64, 64), attention="flex")
""",
    "assert": """
datbench.testing.assert_macs(net.small(), torch.empty(1, 3, 64, 64), {"0": 1, "4": 320, "9": 2})
""",
    "costs": """
image = torch.empty(1, 3, 64, 64)
found = datbench.testing.flops(net.small(), image, convention="strict", backward=True)
print(int(found), found.unit, found.by_module(1), found.by_operator(), found.of("0"))
held = datbench.testing.memory(net.small(), image, mode="backward")
print(held.peak, held.module, held.operator, held.phase, held.kept, held["gradients"])
""",
}
"""Calls of the public names."""

FILES = {
    "net.py": """
import torch
from torch import nn

class Net(nn.Sequential):
    def __init__(self, width=8):
        layers = nn.Conv2d(3, width, 4, 4), nn.Conv2d(width, 32, 1), nn.AdaptiveAvgPool2d(1)
        super().__init__(*layers, nn.Flatten(), nn.Linear(32, 10))

def small():
    return Net()

class Odd(nn.Module):
    def forward(self, x):
        return torch.linalg.qr(x).R

def odd():
    return Odd()

def broken():
    raise RuntimeError("no weights here")
""",
    "mine.toml": """
title = "Two models"
source = "My paper, Table 1"
rows = [
  { method = "DAT-T", flops = "4.6G", params = "28.3M", top1 = "82", build = { model = "dat_t" } },
  { method = "Net", flops = "9.9M", build = { model = "net:Net,width=16" } },
  { method = "Theirs", flops = "4.4G", unbuilt = "no code is published" },
]
[columns]
method = { title = "Method" }
flops = { title = "FLOPs", quantity = "macs", unit = "G" }
params = { title = "#Param", quantity = "params", unit = "M" }
top1 = { title = "Top-1", quantity = "accuracy" }
""",
    "dat_tiny.yaml": """
MODEL:
  TYPE: dat
  NAME: dat_tiny
  DAT:
    img_size: 224
    patch_size: 4
    num_classes: 1000
    expansion: 4
    dim_stem: 96
    dims: [96, 192, 384, 768]
    depths: [2, 2, 6, 2]
    heads: [3, 6, 12, 24]
    stage_spec: [[L, S], [L, S], [L, D, L, D, L, D], [L, D]]
    window_sizes: [7, 7, 7, 7]
    groups: [-1, -1, 3, 6]
    strides: [-1, -1, 1, 1]
    sr_ratios: [-1, -1, -1, -1]
    offset_range_factor: [-1, -1, 2, 2]
    use_pes: [False, False, True, True]
    dwc_pes: [False, False, False, False]
    fixed_pes: [False, False, False, False]
    no_offs: [False, False, False, False]
    use_dwc_mlps: [False, False, False, False]
    use_conv_patches: False
    drop_rate: 0.0
    attn_drop_rate: 0.0
    drop_path_rate: 0.2
""",
    "image.ppm": "P3 16 12 255\n" + " ".join(str(7 * i % 256) for i in range(576)),
    "broken.json": '{"benchmarks": []}',
    "cut.json": '{"format": "datbench", "ver',
    "newer.json": '{"format": "datbench", "version": 99, "kind": "flops", "rows": []}',
    "broken.yaml": "MODEL: {TYPE: dat, DAT: {dims: [1, 2]}}",
    "broken.toml": "rows = [{ flops = 4 }",
    "damaged.pth": "This is no checkpoint.",
}

SETTING: dict[str, Any] = {
    "width": 224,
    "height": 224,
    "batch": 8,
    "dtype": "float32",
    "device": "cpu",
}
SETTING |= {"attention": "eager", "backward": False, "features": False}
CEILINGS: dict[str, Any] = {
    "device": "cpu",
    "dtype": "float32",
    "threads": 1,
    "macs": 1e11,
    "side": 1024,
}
CEILINGS |= {"bytes": 1e10, "copied": 1 << 28, "product": None, "copy": None}
MACHINE: dict[str, Any] = {
    "processor": "One CPU",
    "cpus": 2,
    "gpus": [],
    "torch": "2.8.0",
    "python": "3.11.2",
}
MACHINE |= {"datbench": "0.1.0", "usable_cpus": 2}


def timing(seconds: float) -> dict[str, Any]:
    """One process's samples, as a result file has them."""
    found: dict[str, Any] = {
        "samples": [seconds] * 9,
        "warmup": [2 * seconds],
        "calls": 1,
        "stopped": "interval",
    }
    limits: dict[str, Any] = {"median": seconds, "low": seconds, "high": seconds, "coverage": 0.96}
    return {**found, **limits, "settled": True, "drift": None}


def throughput(model: str, seconds: float) -> dict[str, Any]:
    """A row of eight processes, as `datbench throughput` writes it."""
    rate = 8 / seconds
    process: dict[str, Any] = {
        "outcome": "measured",
        "reason": None,
        "threads": 1,
        "ceilings": CEILINGS,
    }
    process |= {"telemetry": None, "protocols": [], "environment": MACHINE, "seconds": 9.0}
    process |= {"compiling": None, "ranks": [], "refused": {}, "turns": None, "processors": []}
    process |= {"restless": False}
    scattered = [{**process, "timing": timing(seconds * (1 + i / 1000))} for i in range(-4, 4)]
    how: dict[str, Any] = {
        "mode": "inference",
        "threads": 1,
        "compile": False,
        "channels_last": False,
    }
    row: dict[str, Any] = {
        "model": model,
        "setting": SETTING,
        "how": {**how, "flush": False, "budget": 5.0},
    }
    row["how"]["width"] = 0.02
    row |= {"outcome": "measured", "reason": None, "requested_batch": 8, "asked": 8, "gpus": 1}
    row |= {"processes": scattered, "seconds": seconds, "low": seconds * 0.99}
    row |= {"high": seconds * 1.01, "coverage": 0.96, "interval_of": "processes", "spread": 0.007}
    row |= {"images_per_second": rate, "images_low": rate * 0.99, "images_high": rate * 1.01}
    row |= {"latency": [{"percent": 50, "seconds": seconds, "reason": None}], "samples": 72}
    row |= {"warmup": 8, "stopped": ["interval"] * 8, "macs": 36 * 10**9, "bytes": 10**9}
    row |= {"counted": None, "unknown": [], "ceilings": CEILINGS, "mac_rate": 36e9 / seconds}
    row |= {"byte_rate": 1e9 / seconds, "mac_fraction": 0.36 / seconds, "byte_fraction": 0.1}
    return row | {"energy": None, "energy_reason": "no GPU", "protocols": [], "doubts": ["One."]}


def part(name: str, seconds: float, macs: int, moved: int, bound: str) -> dict[str, Any]:
    """A part of a profile whose whole takes 0.8 s, 4 G MACs and 2 GB."""
    found: dict[str, Any] = {
        "name": name,
        "calls": 2,
        "seconds": seconds,
        "share": seconds / 0.8,
        "macs": macs,
    }
    found |= {"mac_share": macs / 4e9, "bytes": moved, "byte_share": moved / 2e9, "bound": bound}
    found |= {"mac_fraction": macs / seconds / 1e11 if macs else None, "ideal": seconds / 2}
    found |= {"byte_fraction": moved / seconds / 1e10, "intensity": macs / moved}
    return found | {"gap": seconds / 0.8 / (macs / 4e9) if macs else None}


def profile(model: str) -> dict[str, Any]:
    """A row of three operators, as `datbench profile` writes it."""
    calls: tuple[tuple[Any, ...], ...] = (
        ("aten::mm", "stages.0.blocks.0.mixer", "counted", 0.5, 3 * 10**9, 10**9, "compute"),
        ("aten::convolution", "stem.conv", "counted", 0.2, 10**9, 5 * 10**8, "memory"),
        ("aten::add", "stages.0", "uncounted", 0.1, 0, 5 * 10**8, "neither"),
    )
    groups: list[dict[str, Any]] = [
        {"operator": operator, "module": module, "stage": "stage 1", "phase": "forward"}
        | {"work": work, "shapes": [[8, 3]], "part": part(operator, *figures)}
        for operator, module, work, *figures in calls
    ]
    row: dict[str, Any] = {
        "model": model,
        "setting": SETTING,
        "mode": "inference",
        "threads": 1,
        "ceilings": CEILINGS,
    }
    row |= {"channels_last": False, "timing": timing(0.8), "runs": 5, "profiled": 0.9}
    row |= {"overhead": 0.125, "busy": 0.7, "between": 0.1, "launch": 1e-6, "ideal": 0.4}
    row |= {"macs": 4 * 10**9, "bytes": 2 * 10**9, "matching": "calls", "matched": 3, "expected": 3}
    row |= {"reason": None, "unseen": {}, "groups": groups}
    row["answer"] = {"counted": 0.9, "uncounted": 0.1, "moves": 0.0, "dispatch": 0.0, "above": 0.0}
    row["answer"] |= {"compute": 0.6, "memory": 0.3, "neither": 0.1, "launching": 0.1}
    row["stages"] = [part("stage 1", 0.8, 4 * 10**9, 2 * 10**9, "compute")]
    row["modules"] = [part(module, *figures) for _, module, _, *figures in calls]
    return row | {"operators": [part(operator, *figures) for operator, _, _, *figures in calls]}


def benchmark() -> dict[str, Any]:
    """What pytest-benchmark writes, of one test."""
    stats: dict[str, Any] = {
        "min": 0.01,
        "max": 0.03,
        "mean": 0.02,
        "median": 0.02,
        "stddev": 0.005,
        "rounds": 3,
    }
    stats |= {"iterations": 1, "data": [0.01, 0.02, 0.03]}
    test: dict[str, Any] = {
        "name": "test_it",
        "fullname": "test_it.py::test_it",
        "group": None,
        "params": None,
    }
    machine: dict[str, Any] = {
        "cpu": {"brand_raw": "One CPU", "count": 2},
        "python_version": "3.11",
    }
    content = {"machine_info": machine, "commit_info": {}, "datetime": "2026-01-01T00:00:00"}
    tests = [{**test, "extra_info": {}, "options": {}, "stats": stats}]
    return {**content, "version": "5.0.0", "benchmarks": tests}


def write_inputs(work: Path, document: dict[str, Any]) -> None:
    """Every file that entries read; results are documents of the version that `document` has."""
    for name, text in FILES.items():
        (work / name).write_text(text, encoding="utf-8")
    one = throughput("dat_t", 0.8)
    results = {
        "a.json": ("throughput", [one]),
        "b.json": ("throughput", [throughput("dat_t", 0.9)]),
        "c.json": ("throughput", [one, throughput("dat_s", 1.6)]),
        "profile.json": ("profile", [profile("dat_t")]),
    }
    for name, (kind, rows) in results.items():
        content = {**document, "kind": kind, "environment": MACHINE, "rows": rows}
        (work / name).write_text(json.dumps(content), encoding="utf-8")
    (work / "benchmark.json").write_text(json.dumps(benchmark()), encoding="utf-8")


def entries() -> dict[str, str]:
    """Every entry in order: its name, and its command."""
    lines = (line.partition("|") for line in COMMANDS.strip().splitlines())
    found: dict[str, str] = {}
    for name, _, command in lines:
        for suffix in FORMATS if "FORMAT" in command else ("",):
            key = "-".join(filter(None, (name.strip(), suffix)))
            found[key] = command.strip().replace("FORMAT", suffix)
    for command in HELP.split():
        found[f"help-{command}"] = f"{command.replace('+', ' ')} --help"
    return {**found, "help": "--help"}


def written(command: str) -> list[str]:
    """The files that an entry writes, by its options or as its code says."""
    text = CODE[command[1:]] if command.startswith("@") else command
    said = re.search(r"# writes: (.*)", text)
    found = re.findall(r"--(?:out|pr-comment) (\S+)", text) + (said[1].split() if said else [])
    return found + (re.findall(r"--baseline (\S+)", text) if "gate update" in text else [])


def awaited(command: str, earlier: dict[str, str]) -> list[str]:
    """The earlier entries whose files this one names."""
    text = CODE[command[1:]] if command.startswith("@") else command
    named = {word.partition("/")[0] for word in re.findall(r"[\w./-]+", text)}
    return [name for name, other in earlier.items() if named & set(written(other))]


class Runner:
    """Runs entries in a directory of its own, with one interpreter."""

    def __init__(self, python: str, work: Path) -> None:
        self.python, self.work = python, work
        kept = {k: v for k, v in os.environ.items() if k not in ("FORCE_COLOR", "PYTHONHASHSEED")}
        kept.pop("GITHUB_STEP_SUMMARY", None)
        threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        terminal = {"COLUMNS": "120", "NO_COLOR": "1", "TERM": "dumb", "LC_ALL": "C.UTF-8"}
        path = os.pathsep.join(filter(None, (str(work), kept.get("PYTHONPATH"))))
        self.environment = {**kept, **threads, **terminal, "PYTHONPATH": path}
        self.words: dict[str, str] = {}
        document = json.loads(self.call("env --format json").stdout)
        (machine,) = document["rows"]
        write_inputs(work, document)
        parts = {**machine, **machine["packages"], "host": platform.node()}
        strings = {v: f"<{k}>" for k, v in parts.items() if isinstance(v, str)}
        own = {v: k for v, k in strings.items() if v.count(".") > 1 or v.isalpha() or len(v) > 9}
        self.words = {**own, str(work): "<work>", str(Path(python).parent): "<python>"}

    def call(self, command: str) -> subprocess.CompletedProcess[str]:
        """Run one entry's command."""
        words = ["-m", "datbench", *shlex.split(command)]
        if command.startswith("@"):
            words = ["-c", "import torch, datbench, datbench.testing, net\n" + CODE[command[1:]]]
        return subprocess.run(
            [self.python, *words],
            cwd=self.work,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            timeout=300,
        )

    def answer(self, command: str) -> str:
        """All that an entry answers, without what belongs to this machine and this day."""
        done = self.call(command)
        if command.startswith("@") and "Traceback" in done.stderr:  # its paths are no answer
            done.stderr = done.stderr[done.stderr.rindex('\n  File "') :].partition("\n")[2]
            done.stderr = re.sub(r"(?m)^ +.*\n|^datbench\.[\w.]*\.", "", done.stderr)
        parts = {f"exit code {done.returncode}": "", "output": done.stdout, "errors": done.stderr}
        for path in self.files(command):
            parts[f"file {path.relative_to(self.work)}"] = path.read_text(encoding="utf-8")
        return "".join(f"==== {title}\n{self.plain(text)}\n" for title, text in parts.items())

    def files(self, command: str) -> Iterator[Path]:
        """The text files that an entry has written."""
        for name in written(command):
            path = self.work / name
            for each in sorted(path.rglob("*")) if path.is_dir() else [path]:
                if each.is_file() and each.suffix != ".pth":
                    yield each

    def plain(self, text: str) -> str:
        """Text with words in place of versions, paths, dates and addresses; JSON in one order."""
        with suppress(ValueError):
            text = json.dumps(settled(json.loads(text)), indent=1, sort_keys=True)
        for word in sorted(self.words, key=len, reverse=True):
            text = re.sub(rf"(?<![\w.]){re.escape(word)}(?!\w)", self.words[word], text)
        text = re.sub(r"\b20\d\d-\d\d-\d\d(T[\d:.+]+)?", "<date>", text)
        return re.sub(r"\b0x[0-9a-f]{6,}", "<address>", text)


def settled(value: Any) -> Any:
    """A JSON value whose environments are the names of their fields."""
    if isinstance(value, list):
        return [settled(each) for each in value]
    if not isinstance(value, dict):
        return value
    if value.get("kind") == "env":
        value = {**value, "rows": [sorted(row) for row in value["rows"]]}
    masked = ("environment", "measured_in")
    return {k: sorted(v) if k in masked and v else settled(v) for k, v in value.items()}


def run_all(python: str, only: str, jobs: int) -> dict[str, str]:
    """The answers of the entries whose names match, and of those that they wait for run first."""
    table = entries()
    order = list(table)
    before = {
        name: awaited(table[name], {n: table[n] for n in order[:i]}) for i, name in enumerate(order)
    }
    wanted = [name for name in order if fnmatch(name, only)]
    needed = set(wanted)
    for name in reversed(order):
        needed |= set(before[name]) if name in needed else set()
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(jobs) as pool:
        runner = Runner(python, Path(folder).resolve())
        futures: dict[str, Future[str]] = {}

        def run(name: str) -> str:
            for other in before[name]:
                futures[other].result()
            return runner.answer(table[name])

        for name in (n for n in order if n in needed):
            futures[name] = pool.submit(run, name)
        return {name: futures[name].result() for name in wanted}


def difference(old: str, new: str, name: str, most: int | None) -> str:
    """A unified difference of so many lines at most, none of them too long to read."""
    split = old.splitlines(), new.splitlines()
    lines = list(difflib.unified_diff(*split, f"{name} (kept)", f"{name} (now)", lineterm="", n=1))
    left_out = (
        [f"... and {len(lines) - most} lines more (--full)"] if most and most < len(lines) else []
    )
    wide = 300 if most else None
    return "\n".join([*(line[:wide] for line in lines[:most]), *left_out, ""])


def main() -> int:
    """Keep, or compare: 1 where anything differs."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("action", choices=["keep", "compare"])
    parser.add_argument("folder", type=Path, metavar="DIR")
    parser.add_argument("--python", default=sys.executable, help="whose datbench is run")
    parser.add_argument("--only", default="*", metavar="GLOB", help="entries of these names")
    parser.add_argument("--jobs", type=int, default=2, help="processes at once")
    parser.add_argument(
        "--full", action="store_true", help="differences whole, not 40 lines of each"
    )
    told = parser.parse_args()
    told.folder.mkdir(parents=True, exist_ok=True)
    kept = {p.stem: p for p in told.folder.glob("*.txt") if fnmatch(p.stem, told.only)}
    found = run_all(told.python, told.only, told.jobs)
    if told.action == "keep":
        for path in kept.values():
            path.unlink()
        for name, text in found.items():
            (told.folder / f"{name}.txt").write_text(text, encoding="utf-8")
        sys.stdout.write(f"{len(found)} entries kept in {told.folder}\n")
        return 0
    differing = 0
    for name in {**found, **kept}:
        old = kept[name].read_text(encoding="utf-8") if name in kept else ""
        new = found.get(name, "")
        if old != new:
            differing += 1
            state = "differs" if old and new else "is new" if new else "is gone"
            most = None if told.full else 40
            sys.stdout.write(f"{name} {state}\n{difference(old, new, name, most)}\n")
    sys.stdout.write(f"{differing} of {len(found)} entries differ\n")
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main())
