"""Ledgers and full steps of tiny models, worked out by hand."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from datbench.errors import MeasurementError, UsageError
from datbench.memory import simulate
from datbench.memory.device import profiled
from datbench.memory.records import Category, LedgerLine
from datbench.memory.simulation import Trace, ledger
from datbench.setting import MEMORY_MODES, OPTIMIZERS, MemoryMode, Optimizer, Recipe
from tests.nets import HIDDEN, INPUT, OUTPUT, WEIGHTS, image, mlp

COUNTS = 4 * 4  # a step count for each of four parameters


def _amounts(trace: Trace, mode: MemoryMode) -> dict[Category, int | None]:
    return {line.category: line.amount for line in ledger(trace, mode)}


def test_forward_in_training() -> None:
    trace = simulate(mlp(), image(8, 16), mode="forward")
    assert _amounts(trace, "forward") == {
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
    trace = simulate(mlp().eval(), image(8, 16), mode="inference")
    found = _amounts(trace, "inference")
    assert found["kept"] is None
    assert found["temporary"] == 2 * HIDDEN  # the GELU reads one and writes the other
    assert trace.peak.amount == WEIGHTS + INPUT + 2 * HIDDEN
    assert (trace.peak.operator, trace.peak.module) == ("aten::gelu", "1")
    assert sum(trace.live(trace.end).values()) == WEIGHTS + INPUT + OUTPUT


def test_backward() -> None:
    trace = simulate(mlp(), image(8, 16), mode="backward")
    found = _amounts(trace, "backward")
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
    trace = simulate(mlp(), image(8, 16), mode=mode)
    parts = [line.at_peak or 0 for line in ledger(trace, mode)]
    assert sum(parts) == trace.peak.amount
    live = 0
    for event in trace.events:
        live += event.change
        assert live <= trace.peak.amount
    assert live == sum(trace.live(trace.end).values())


class _Views(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        y = x.view(4, 32).t() + 1  # 512
        y.mul_(2).relu_()
        return y[:8]


class _Copies(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.t().reshape(128).sum()


def test_views_and_writing_in_place_cost_nothing_and_a_hidden_copy_is_seen() -> None:
    blocks = simulate(_Views(), image(8, 16), mode="inference").blocks
    assert [(b.category, b.size) for b in blocks] == [("inputs", 512), ("outputs", 512)]
    blocks = simulate(_Copies(), image(8, 16), mode="inference").blocks
    assert [(b.operator, b.size) for b in blocks[1:]] == [("aten::clone", 512), ("aten::sum", 4)]


def test_layer_norm_keeps_its_statistics_in_float32() -> None:
    with torch.device("meta"):
        model = nn.LayerNorm(64, dtype=torch.bfloat16)
    x = torch.empty(2, 3, 64, dtype=torch.bfloat16, device="meta")
    trace = simulate(model, x, mode="forward")
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


def test_fused_attention_keeps_no_weights_and_pads_the_rows_of_a_bias() -> None:
    with torch.device("meta"):
        plain, biased = _Fused(bias=False), _Fused(bias=True)
    trace = simulate(plain, image(3, 49, 32), mode="forward")
    kept = {(b.operator, b.size) for b in trace.blocks if b.category == "kept" and b.size > 8}
    fused = "aten::_scaled_dot_product_efficient_attention"
    assert kept == {
        ("aten::mm", 4 * 3 * 49 * 96),
        (fused, 4 * 3 * 49 * 32),  # the output
        (fused, 4 * 3 * 2 * 64),  # a logarithm for each query, 49 padded to 64
    }
    trace = simulate(biased, image(3, 49, 32), mode="backward")
    padded = [b.size for b in trace.blocks if b.operator == "aten::constant_pad_nd"]
    assert padded[0] == 4 * 2 * 49 * 64
    assert trace.whole("gradients") == trace.whole("parameters")


def test_multi_head_attention_is_fused_too() -> None:
    with torch.device("meta"):
        layer = nn.TransformerEncoderLayer(32, 2, 64, dropout=0.0, batch_first=True)
    for mode in MEMORY_MODES:
        trace = simulate(layer, image(3, 49, 32), mode=mode)
        operators = {block.operator for block in trace.blocks}
        assert "aten::_scaled_dot_product_efficient_attention" in operators
        assert "aten::_softmax" not in operators


# Full steps.


def _line(trace: Trace, optimizer: Optimizer) -> LedgerLine:
    lines = ledger(trace, "step", Recipe(optimizer))
    return next(line for line in lines if line.category == "optimizer")


@pytest.mark.parametrize(
    ("optimizer", "state"), [("adamw", 2 * WEIGHTS + COUNTS), ("sgd-momentum", WEIGHTS)]
)
def test_state(optimizer: Optimizer, state: int) -> None:
    trace = simulate(mlp(), image(8, 16), mode="step", recipe=Recipe(optimizer))
    assert _line(trace, optimizer) == LedgerLine("optimizer", state, state)
    at_end = 2 * WEIGHTS + INPUT + OUTPUT + state
    assert sum(trace.live(trace.end).values()) == at_end


def test_sgd_keeps_none_and_says_so() -> None:
    trace = simulate(mlp(), image(8, 16), mode="step", recipe=Recipe("sgd"))
    reason = "SGD without momentum keeps none"
    assert _line(trace, "sgd") == LedgerLine("optimizer", None, None, reason)
    assert trace.peak == simulate(mlp(), image(8, 16), mode="backward").peak


def test_the_peak_is_in_the_step_which_begins_without_gradients() -> None:
    """AdamW's square roots of all second moments at once."""
    trace = simulate(mlp(), image(8, 16), mode="step")
    assert trace.peak.amount == 5 * WEIGHTS + COUNTS + INPUT + OUTPUT
    assert (trace.peak.operator, trace.peak.phase) == ("aten::_foreach_sqrt", "step")
    assert trace.live(trace.peak_time)["temporary"] == WEIGHTS
    after_forward = trace.live(trace.forward_end)
    assert after_forward["gradients"] == 0
    assert after_forward["optimizer"] == 2 * WEIGHTS + COUNTS
    assert after_forward["kept"] == 2 * HIDDEN


def test_only_what_has_a_gradient_has_state() -> None:
    model = mlp()
    model[0].requires_grad_(False)
    trace = simulate(model, image(8, 16), mode="step", recipe=Recipe("sgd-momentum"))
    trained = 4 * (64 * 16 + 16)
    assert trace.whole("optimizer") == trace.whole("gradients") == trained


def test_half_precision_halves_the_state() -> None:
    trace = simulate(mlp().to(torch.bfloat16), image(8, 16).to(torch.bfloat16), mode="step")
    assert trace.whole("optimizer") == WEIGHTS + COUNTS


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_the_model_is_unchanged(optimizer: Optimizer) -> None:
    model = mlp("cpu")
    mine = torch.ones(64)
    model[0].bias.grad = mine
    before = {name: value.clone() for name, value in model.state_dict().items()}
    profiled(model, torch.ones(8, 16), mode="step", recipe=Recipe(optimizer))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model[0].bias.grad is mine
    assert model[0].weight.grad is None


def test_what_cannot_be_simulated() -> None:
    with pytest.raises(UsageError, match="on meta"):
        simulate(nn.Linear(2, 2), image(1, 2))
    with pytest.raises(UsageError, match="mode backward makes no optimizer's step"):
        simulate(mlp(), image(8, 16), mode="backward", recipe=Recipe("adamw"))
    for mode, words in (("forward", "no gradient; use --mode inference"), ("step", "no gradient")):
        with pytest.raises(MeasurementError, match=words):
            simulate(nn.Identity(), image(8, 16), mode=mode)
    with pytest.raises(MeasurementError, match="no parameter of the model has a gradient"):
        simulate(nn.Identity(), image(8, 16).requires_grad_(), mode="step")
