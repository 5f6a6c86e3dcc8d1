"""What holds for every model: repeatable, the model unchanged, linear in the batch, published."""

import copy
import subprocess
import sys

import pytest
import torch
from torch import nn

import datbench
from datbench import Resolution, Setting
from datbench.memory import simulate
from datbench.memory.records import MemoryRow
from datbench.memory.simulation import memory_row
from datbench.models.resolve import resolve
from datbench.setting import MEMORY_MODES, MemoryMode
from tests.nets import short

NAMES = ["dat_t", "dat_t_49_49", "datpp_t", "dat_t_sra", "dat_t_ddetr_16_16"]
SMALL = Resolution(64, 96)


def _row(
    name: str, size: Resolution = SMALL, mode: MemoryMode = "forward", **setting: object
) -> MemoryRow:
    return memory_row(short(name), Setting(size, **setting), mode)


def _kept(name: str, batch: int, attention: str = "eager") -> int:
    return _row(name, batch=batch, attention=attention).line("kept").amount


@pytest.mark.parametrize("name", NAMES)
def test_kept_is_linear_in_the_batch(name: str) -> None:
    """From two images on: a dimension of one image needs no copy that others need."""
    attention = "sdpa" if name in ("dat_t_49_49", "datpp_t") else "eager"
    a, b, c = (_kept(name, batch, attention) for batch in (2, 9, 16))
    assert b - a == c - b
    assert b > a


@pytest.mark.parametrize("mode", MEMORY_MODES)
def test_second_call_and_model_unchanged(mode: MemoryMode) -> None:
    with torch.device("meta"):
        model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Flatten(), nn.LazyLinear(4))
        model(torch.empty(2, 3, 8, 8))
        mine = torch.empty(8)
    model[1].weight.grad = mine
    before = copy.deepcopy(model.state_dict())
    image = torch.empty(2, 3, 8, 8, device="meta")
    state = torch.random.get_rng_state()
    first, second = (simulate(model, image, mode=mode) for _ in range(2))
    assert first == second
    assert first.peak.amount > 0
    assert list(model.state_dict()) == list(before)
    assert [p.grad is mine for p in model.parameters()].count(True) == 1
    assert sum(p.grad is not None for p in model.parameters()) == 1
    assert torch.equal(torch.random.get_rng_state(), state)
    assert model.training
    assert image.grad is None
    assert not nn.modules.module._global_forward_hooks


def test_precision_halves_what_is_kept() -> None:
    full, half = (_row("dat_t", dtype=dtype) for dtype in ("float32", "bfloat16"))
    whole, part = full.line("kept").amount, half.line("kept").amount
    # Statistics of the norms stay float32.
    assert part == pytest.approx(whole / 2, rel=0.01)
    assert half.line("parameters").amount == (full.line("parameters").amount or 0) / 2


def test_fused_attention_keeps_no_weights_but_a_bias_of_their_size() -> None:
    def kept(name: str, attention: str) -> int:
        setting = Setting(Resolution(224, 224), batch=8, attention=attention)
        row = memory_row(resolve(name), setting, "forward")
        return row.line("kept").amount or 0

    # One bias for all images; a bias for each.
    assert kept("datpp_t", "sdpa") < 0.95 * kept("datpp_t", "eager")
    assert kept("dat_t", "sdpa") == pytest.approx(kept("dat_t", "eager"), rel=0.02)


@pytest.mark.parametrize("mode", MEMORY_MODES)
def test_parts_sum_to_the_ledger(mode: MemoryMode) -> None:
    row = _row("dat_t", mode=mode, batch=2)
    kept = row.line("kept").amount
    for place in ("stage", "module", "operator"):
        parts = row.parts_by(place)
        assert sum(part.kept or 0 for part in parts) == (kept or 0)
        there = sum(row.line(c).at_peak or 0 for c in ("parameters", "buffers", "inputs"))
        assert sum(part.at_peak for part in parts) == row.peak.amount - there
    if kept is not None:
        assert {part.stage for part in row.parts_by("stage")} >= {"stem", "stages.0", "stages.3"}
    assert row.after_forward <= row.peak.amount


def test_the_backward_belongs_to_modules_of_the_forward() -> None:
    with torch.device("meta"):
        model = datbench.create_model(short("datpp_t"))
    names = {name for name, _ in model.named_modules()}
    trace = simulate(model, torch.empty(2, 3, 64, 64, device="meta"), mode="backward")
    backward = [block for block in trace.blocks if block.phase == "backward"]
    assert {block.module for block in backward} <= names
    whole = sum(block.size for block in backward)
    assert sum(block.size for block in backward if not block.module) < whole / 100


COLD = """
import resource, sys, torch
torch.set_num_threads(1)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
from datbench.memory.simulation import memory_row
from datbench.models.resolve import resolve
from datbench.setting import Resolution, Setting
for name, size, mode in (
    ("dat_b", Resolution(1280, 800), "forward"),
    ("dat_t_ddetr_196_49", Resolution(224, 224), "backward"),
    ("datpp_t", Resolution(224, 224), "backward"),
):
    memory_row(resolve(name), Setting(size, batch=64), mode)
assert "torch._dynamo" not in sys.modules, "torch's meta kernels loaded the compiler"
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss has another unit elsewhere")
def test_a_large_simulation_takes_little_memory() -> None:
    done = subprocess.run([sys.executable, "-c", COLD], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 300 * 1024
