"""Full steps of tiny models, worked out by hand."""

import pytest
import torch
from torch import Tensor, nn

from datbench.errors import MeasurementError, UsageError
from datbench.memory import simulate
from datbench.memory.records import LedgerLine
from datbench.memory.simulate import Trace, ledger
from datbench.memory.verify import profiled
from datbench.setting import OPTIMIZERS, Optimizer, Recipe

WEIGHTS = 4 * (16 * 64 + 64 + 64 * 16 + 16)
INPUT, OUTPUT, HIDDEN = 4 * 8 * 16, 4 * 8 * 16, 4 * 8 * 64
COUNTS = 4 * 4  # a step count for each of four parameters


def _mlp() -> nn.Module:
    with torch.device("meta"):
        return nn.Sequential(nn.Linear(16, 64), nn.GELU(), nn.Linear(64, 16))


def _image(*shape: int) -> Tensor:
    return torch.empty(shape, device="meta")


def _line(trace: Trace, optimizer: Optimizer) -> LedgerLine:
    lines = ledger(trace, "step", Recipe(optimizer))
    return next(line for line in lines if line.category == "optimizer")


@pytest.mark.parametrize(
    ("optimizer", "state"),
    [("adamw", 2 * WEIGHTS + COUNTS), ("sgd-momentum", WEIGHTS)],
)
def test_state(optimizer: Optimizer, state: int) -> None:
    trace = simulate(_mlp(), _image(8, 16), mode="step", recipe=Recipe(optimizer))
    assert _line(trace, optimizer) == LedgerLine("optimizer", state, state)
    at_end = 2 * WEIGHTS + INPUT + OUTPUT + state
    assert sum(trace.live(trace.end).values()) == at_end


def test_sgd_keeps_none_and_says_so() -> None:
    trace = simulate(_mlp(), _image(8, 16), mode="step", recipe=Recipe("sgd"))
    line = _line(trace, "sgd")
    assert (line.amount, line.at_peak) == (None, None)
    assert line.reason == "SGD without momentum keeps none"
    assert trace.peak == simulate(_mlp(), _image(8, 16), mode="train").peak


def test_the_peak_is_in_the_step() -> None:
    """AdamW's square roots of all second moments at once."""
    trace = simulate(_mlp(), _image(8, 16), mode="step")
    assert trace.peak.amount == 5 * WEIGHTS + COUNTS + INPUT + OUTPUT
    assert (trace.peak.operator, trace.peak.phase) == ("aten::_foreach_sqrt", "step")
    assert trace.live(trace.peak_time)["temporary"] == WEIGHTS


def test_the_second_step_begins_without_gradients() -> None:
    trace = simulate(_mlp(), _image(8, 16), mode="step")
    after_forward = trace.live(trace.forward_end)
    assert after_forward["gradients"] == 0
    assert after_forward["optimizer"] == 2 * WEIGHTS + COUNTS
    assert after_forward["kept"] == 2 * HIDDEN


def test_only_what_has_a_gradient_has_state() -> None:
    model = _mlp()
    model[0].requires_grad_(False)
    trace = simulate(model, _image(8, 16), mode="step", recipe=Recipe("sgd-momentum"))
    trained = 4 * (64 * 16 + 16)
    assert trace.whole("optimizer") == trace.whole("gradients") == trained


def test_half_precision_halves_the_state() -> None:
    trace = simulate(_mlp().to(torch.bfloat16), _image(8, 16).to(torch.bfloat16), mode="step")
    assert trace.whole("optimizer") == WEIGHTS + COUNTS


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_the_model_is_unchanged(optimizer: Optimizer) -> None:
    model = nn.Sequential(nn.Linear(16, 64), nn.GELU(), nn.Linear(64, 16))
    mine = torch.ones(64)
    model[0].bias.grad = mine
    before = {name: value.clone() for name, value in model.state_dict().items()}
    profiled(model, torch.ones(8, 16), mode="step", recipe=Recipe(optimizer))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model[0].bias.grad is mine
    assert model[0].weight.grad is None


def test_what_has_no_step() -> None:
    with pytest.raises(UsageError, match="mode train makes no optimizer's step"):
        simulate(_mlp(), _image(8, 16), mode="train", recipe=Recipe("adamw"))
    with pytest.raises(MeasurementError, match="no gradient"):
        simulate(nn.Identity(), _image(8, 16), mode="step")
    with pytest.raises(MeasurementError, match="no parameter of the model has a gradient"):
        simulate(nn.Identity(), _image(8, 16).requires_grad_(), mode="step")
