"""Ledgers of tiny models, worked out by hand."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from datbench.errors import MeasurementError, UsageError
from datbench.memory import simulate
from datbench.memory.records import Category
from datbench.memory.simulate import Trace, ledger
from datbench.setting import MEMORY_MODES, MemoryMode

WEIGHTS = 4 * (16 * 64 + 64 + 64 * 16 + 16)
INPUT, OUTPUT, HIDDEN = 4 * 8 * 16, 4 * 8 * 16, 4 * 8 * 64


def _mlp() -> nn.Module:
    with torch.device("meta"):
        return nn.Sequential(nn.Linear(16, 64), nn.GELU(), nn.Linear(64, 16))


def _image(*shape: int) -> Tensor:
    return torch.empty(shape, device="meta")


def _amounts(trace: Trace, mode: MemoryMode) -> dict[Category, int | None]:
    return {line.category: line.amount for line in ledger(trace, mode)}


def test_forward_in_training() -> None:
    trace = simulate(_mlp(), _image(8, 16), mode="train-forward")
    assert _amounts(trace, "train-forward") == {
        "parameters": WEIGHTS,
        "buffers": 0,
        "inputs": INPUT,
        "kept": 2 * HIDDEN,  # the GELU's input, the second layer's input
        "outputs": OUTPUT,
        "gradients": None,
        "optimizer": None,
        "temporary": 0,
    }
    assert trace.peak.amount == WEIGHTS + INPUT + 2 * HIDDEN + OUTPUT
    assert (trace.peak.operator, trace.peak.module) == ("aten::addmm", "2")


def test_inference() -> None:
    trace = simulate(_mlp().eval(), _image(8, 16), mode="inference")
    found = _amounts(trace, "inference")
    assert found["kept"] is None
    assert found["temporary"] == 2 * HIDDEN  # the GELU reads one and writes the other
    assert trace.peak.amount == WEIGHTS + INPUT + 2 * HIDDEN
    assert (trace.peak.operator, trace.peak.module) == ("aten::gelu", "1")
    assert sum(trace.live(trace.end).values()) == WEIGHTS + INPUT + OUTPUT


def test_backward() -> None:
    trace = simulate(_mlp(), _image(8, 16), mode="train")
    found = _amounts(trace, "train")
    assert found["gradients"] == WEIGHTS
    assert found["kept"] == 2 * HIDDEN
    assert sum(trace.live(trace.end).values()) == 2 * WEIGHTS + INPUT + OUTPUT
    # The first layer's gradients come last: all the others are there, and the gradient of its
    # output, and the ones that the backward started from.
    ones = OUTPUT
    assert trace.peak.amount == 2 * WEIGHTS + INPUT + OUTPUT + ones + HIDDEN
    assert (trace.peak.operator, trace.peak.module) == ("aten::sum", "0")
    assert trace.peak.phase == "backward"


@pytest.mark.parametrize("mode", MEMORY_MODES)
def test_the_peak_is_the_sum_of_its_parts(mode: MemoryMode) -> None:
    trace = simulate(_mlp(), _image(8, 16), mode=mode)
    parts = [line.at_peak or 0 for line in ledger(trace, mode)]
    assert sum(parts) == trace.peak.amount
    live = 0
    for event in trace.events:
        live += event.change
        assert live <= trace.peak.amount
    assert live == sum(trace.live(trace.end).values())


def test_views_and_writing_in_place_cost_nothing() -> None:
    class Shapes(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            y = x.view(4, 32).t() + 1  # 512
            y.mul_(2).relu_()
            return y[:8]

    trace = simulate(Shapes(), _image(8, 16), mode="inference")
    assert [block.size for block in trace.blocks] == [512, 512]
    assert [block.category for block in trace.blocks] == ["inputs", "outputs"]


def test_a_hidden_copy_is_seen() -> None:
    class Copies(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.t().reshape(128).sum()

    trace = simulate(Copies(), _image(8, 16), mode="inference")
    assert [(b.operator, b.size) for b in trace.blocks[1:]] == [
        ("aten::clone", 512),
        ("aten::sum", 4),
    ]


def test_layer_norm_keeps_its_statistics_in_float32() -> None:
    with torch.device("meta"):
        model = nn.LayerNorm(64, dtype=torch.bfloat16)
    x = torch.empty(2, 3, 64, dtype=torch.bfloat16, device="meta")
    trace = simulate(model, x, mode="train-forward")
    assert trace.whole("kept") == 2 * (2 * 3 * 4)
    assert trace.whole("outputs") == 2 * 3 * 64 * 2


class _Fused(nn.Module):
    def __init__(self, bias: bool) -> None:
        super().__init__()
        self.qkv = nn.Linear(32, 96, bias=False)
        self.bias = nn.Parameter(torch.zeros(1, 2, 49, 49)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).view(-1, 49, 3, 2, 16).permute(2, 0, 3, 1, 4).unbind(0)
        return F.scaled_dot_product_attention(q, k, v, self.bias).transpose(1, 2).sum()


def test_fused_attention_keeps_no_weights() -> None:
    with torch.device("meta"):
        model = _Fused(bias=False)
    trace = simulate(model, _image(3, 49, 32), mode="train-forward")
    kept = {(b.operator, b.size) for b in trace.blocks if b.category == "kept" and b.size > 8}
    fused = "aten::_scaled_dot_product_efficient_attention"
    assert kept == {
        ("aten::mm", 4 * 3 * 49 * 96),
        (fused, 4 * 3 * 49 * 32),  # the output
        (fused, 4 * 3 * 2 * 64),  # a logarithm for each query, 49 padded to 64
    }


def test_fused_attention_pads_the_rows_of_a_bias() -> None:
    with torch.device("meta"):
        model = _Fused(bias=True)
    trace = simulate(model, _image(3, 49, 32), mode="train")
    padded = [b.size for b in trace.blocks if b.operator == "aten::constant_pad_nd"]
    assert padded[0] == 4 * 2 * 49 * 64
    assert trace.whole("gradients") == trace.whole("parameters")


def test_multi_head_attention_is_fused_too() -> None:
    with torch.device("meta"):
        layer = nn.TransformerEncoderLayer(32, 2, 64, dropout=0.0, batch_first=True)
    for mode in MEMORY_MODES:
        trace = simulate(layer, _image(3, 49, 32), mode=mode)
        operators = {block.operator for block in trace.blocks}
        assert "aten::_scaled_dot_product_efficient_attention" in operators
        assert "aten::_softmax" not in operators


def test_what_cannot_be_simulated() -> None:
    with pytest.raises(UsageError, match="on meta"):
        simulate(nn.Linear(2, 2), torch.zeros(1, 2))
    with pytest.raises(MeasurementError, match="no gradient; use --mode inference"):
        simulate(nn.Identity(), _image(1, 2), mode="train-forward")
