"""Operators that counters are known to drop: none counts as zero in silence."""

import importlib
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

import datbench
from datbench.counting.conventions import CONVENTIONS
from datbench.counting.count import Count
from datbench.run import tensors_in
from datbench.setting import Kind

TORCH = CONVENTIONS["torch"]
FVCORE = CONVENTIONS["fvcore"]


class Call(nn.Module):
    """A module around a function."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *inputs: Tensor) -> Any:
        return self.function(*inputs)


def _count(function: Callable[..., Any], *shapes: tuple[int, ...], device: str = "cpu") -> Count:
    inputs = [torch.randn(shape, device=device) for shape in shapes]
    return datbench.count(Call(function), *inputs)


# function, shapes, multiply-adds worked out by hand
PRODUCTS: dict[str, tuple[Callable[..., Any], list[tuple[int, ...]], int]] = {
    "mm": (torch.mm, [(3, 4), (4, 5)], 60),
    "bmm": (torch.bmm, [(2, 3, 4), (2, 4, 5)], 120),
    "mv": (torch.mv, [(3, 4), (4,)], 12),
    "dot": (torch.dot, [(7,), (7,)], 7),
    "vdot": (torch.vdot, [(7,), (7,)], 7),
    "inner": (torch.inner, [(2, 7), (3, 7)], 42),
    "addmm": (torch.addmm, [(3, 5), (3, 4), (4, 5)], 60),
    "addmv": (torch.addmv, [(3,), (3, 4), (4,)], 12),
    "baddbmm": (torch.baddbmm, [(2, 3, 5), (2, 3, 4), (2, 4, 5)], 120),
    "addbmm": (torch.addbmm, [(3, 5), (2, 3, 4), (2, 4, 5)], 120),
    "matmul 1-D, 2-D": (torch.matmul, [(4,), (4, 5)], 20),
    "matmul 2-D, 1-D": (torch.matmul, [(3, 4), (4,)], 12),
    "matmul broadcast": (torch.matmul, [(3, 4), (2, 6, 4, 5)], 720),
    "matmul operator": (lambda a, b: a @ b, [(2, 3, 4), (4, 5)], 120),
    "tensordot": (lambda a, b: torch.tensordot(a, b, 1), [(3, 4), (4, 5)], 60),
    "chain_matmul": (
        lambda a, b, c: torch.linalg.multi_dot([a, b, c]),
        [(2, 10), (10, 3), (3, 4)],
        60 + 24,
    ),
    "einsum": (
        lambda a, b: torch.einsum("bhmc,bhnc->bhmn", a, b),
        [(2, 3, 5, 4), (2, 3, 7, 4)],
        2 * 3 * 5 * 7 * 4,
    ),
    "einsum, transposed": (
        lambda a, b: torch.einsum("bmn,bcn->bcm", a, b),
        [(2, 5, 7), (2, 4, 7)],
        2 * 5 * 7 * 4,
    ),
    "einsum, outer sum": (
        lambda a, b: torch.einsum("bi,bj->ij", a, b),
        [(6, 3), (6, 4)],
        6 * 3 * 4,
    ),
    "bilinear": (F.bilinear, [(5, 3), (5, 4), (6, 3, 4), (6,)], 5 * 6 * 3 * 4),
    "linear": (F.linear, [(2, 3, 4), (5, 4), (5,)], 120),
    "conv1d": (F.conv1d, [(2, 4, 10), (6, 4, 3)], 2 * 6 * 8 * 12),
    "conv2d": (F.conv2d, [(2, 4, 8, 8), (6, 4, 3, 3)], 2 * 6 * 36 * 36),
    "conv3d": (F.conv3d, [(1, 2, 4, 4, 4), (3, 2, 2, 2, 2)], 3 * 27 * 16),
    "conv2d unbatched": (F.conv2d, [(4, 8, 8), (6, 4, 3, 3)], 6 * 36 * 36),
    "depthwise": (lambda x, w: F.conv2d(x, w, groups=4), [(2, 4, 8, 8), (4, 1, 3, 3)], 2592),
    "grouped": (lambda x, w: F.conv2d(x, w, groups=2), [(2, 4, 8, 8), (6, 2, 3, 3)], 7776),
    "padding same": (
        lambda x, w: F.conv2d(x, w, padding="same"),
        [(2, 4, 8, 8), (6, 4, 3, 3)],
        2 * 6 * 64 * 36,
    ),
    "padding same, even kernel": (
        lambda x, w: F.conv2d(x, w, padding="same"),
        [(1, 4, 8, 8), (6, 4, 4, 4)],
        6 * 64 * 64,
    ),
    "transposed": (
        lambda x, w: F.conv_transpose2d(x, w, stride=2),
        [(2, 4, 5, 5), (4, 6, 3, 3)],
        2 * 4 * 25 * 54,
    ),
    "transposed, grouped": (
        lambda x, w: F.conv_transpose2d(x, w, stride=2, groups=2),
        [(2, 4, 5, 5), (4, 3, 3, 3)],
        2 * 4 * 25 * 27,
    ),
    "dilated": (
        lambda x, w: F.conv2d(x, w, dilation=2),
        [(1, 2, 9, 9), (3, 2, 3, 3)],
        3 * 25 * 18,
    ),
    "sdpa": (
        F.scaled_dot_product_attention,
        [(2, 3, 5, 8), (2, 3, 7, 8), (2, 3, 7, 8)],
        2 * 2 * 3 * 5 * 7 * 8,
    ),
    "sdpa, other value width": (
        F.scaled_dot_product_attention,
        [(2, 3, 5, 8), (2, 3, 7, 8), (2, 3, 7, 4)],
        2 * 3 * 5 * 7 * 12,
    ),
    "sdpa, grouped queries": (
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, enable_gqa=True),
        [(1, 4, 5, 8), (1, 2, 7, 8), (1, 2, 7, 8)],
        2 * 4 * 5 * 7 * 8,
    ),
}


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel:UserWarning")
@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize("name", PRODUCTS)
def test_products(name: str, device: str) -> None:
    function, shapes, macs = PRODUCTS[name]
    count = _count(function, *shapes, device=device)
    assert count.multiply_adds() == macs
    assert count.total(TORCH) == 2 * macs
    assert count.total(FVCORE) == macs
    assert count.with_status("unknown", FVCORE) == []


@pytest.mark.parametrize(
    ("module", "shape", "macs"),
    [
        (nn.LSTM(4, 5, num_layers=2), (7, 3, 4), 21 * (20 * 4 + 20 * 5 + 20 * 5 + 20 * 5)),
        (nn.LSTM(4, 5, bidirectional=True, batch_first=True), (3, 7, 4), 21 * 2 * (80 + 100)),
        (nn.LSTM(4, 5, proj_size=2), (7, 3, 4), 21 * (20 * 4 + 20 * 2 + 5 * 2)),
        (nn.GRU(4, 5), (7, 3, 4), 21 * (15 * 4 + 15 * 5)),
        (nn.RNN(4, 5), (7, 3, 4), 21 * (5 * 4 + 5 * 5)),
        (nn.LSTMCell(4, 5), (3, 4), 3 * (20 * 4 + 20 * 5)),
    ],
    ids=["lstm", "bidirectional", "projected", "gru", "rnn", "cell"],
)
@pytest.mark.filterwarnings("ignore:LSTM with projections:UserWarning")
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_recurrent(module: nn.Module, shape: tuple[int, ...], macs: int, device: str) -> None:
    count = datbench.count(module.eval().to(device), torch.zeros(shape, device=device))
    module.to_empty(device="cpu")
    assert count.multiply_adds() == macs
    assert count.with_status("unknown", FVCORE) == []


class Packed(nn.Module):
    """Sequences of 3 and 2 steps."""

    def __init__(self, recurrent: nn.Module) -> None:
        super().__init__()
        self.recurrent = recurrent

    def forward(self, x: Tensor) -> Tensor:
        packed = nn.utils.rnn.pack_padded_sequence(x, torch.tensor([3, 2]))
        return nn.utils.rnn.pad_packed_sequence(self.recurrent(packed)[0])[0]


@pytest.mark.parametrize(
    ("recurrent", "gates"), [(nn.LSTM, 4), (nn.GRU, 3), (nn.RNN, 1)], ids=["lstm", "gru", "rnn"]
)
def test_packed_sequences(recurrent: type[nn.Module], gates: int) -> None:
    """Steps x gates x H x (C + H), by DeepSpeed's flops profiler (its issue 1268)."""
    count = datbench.count(Packed(recurrent(4, 5)), torch.zeros(3, 2, 4))
    assert count.multiply_adds() == 5 * gates * 5 * (4 + 5)
    assert count.with_status("unknown", FVCORE) == []


@pytest.mark.filterwarnings("ignore:LSTM with projections:UserWarning")
@pytest.mark.parametrize("options", [{}, {"bidirectional": True, "num_layers": 2}, {"bias": False}])
@pytest.mark.parametrize("recurrent", [nn.LSTM, nn.GRU, nn.RNN])
def test_the_backward_of_recurrent_layers(
    recurrent: type[nn.Module], options: dict[str, Any]
) -> None:
    """Devices agree, and torch's counter on meta, which sees each cell's products."""
    totals = set()
    for device in ("cpu", "meta"):
        model = nn.Sequential(nn.Linear(3, 4), recurrent(4, 5, **options)).to(device)
        x = torch.zeros(7, 2, 3, device=device)
        count = datbench.count(model, x, backward=True)
        totals.add((count.total(TORCH), count.total(CONVENTIONS["strict"])))
    assert len(totals) == 1
    with FlopCounterMode(display=False) as counter:
        sum(out.sum() for out in tensors_in(model(x))).backward()
    assert count.total(TORCH) == counter.get_total_flops()


FLEX = """
import datbench, torch
from torch import nn
from torch.nn.attention.flex_attention import flex_attention

class Model(nn.Module):
    def forward(self, x):
        x = torch.cond(x.sum() > 0, lambda y: y, lambda y: y @ y.mT @ y, (x,))
        return flex_attention(x, x, x)

count = datbench.count(Model(), torch.zeros(1, 2, 128, 16))
assert not [call for call in count.calls if call.status == "unknown"]
print(count.multiply_adds())
"""

FLEX_MACS = 2 * 2 * 2 * 128 * 128 * 16
"""Two products in the branch that is taken, and two in flex_attention, to which torch gives the
formula of `sdpa_flop`; 2 heads.
"""


def test_flex_attention_and_cond_in_a_fresh_process() -> None:
    command = [sys.executable, "-W", "ignore", "-c", FLEX]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.stdout.split() == [str(FLEX_MACS)], ran.stderr


@pytest.mark.filterwarnings("ignore")
def test_flex_attention_and_cond_where_the_compiler_is_loaded(
    capsys: pytest.CaptureFixture[str],
) -> None:
    importlib.import_module("torch._dynamo")
    exec(FLEX, {})
    assert capsys.readouterr().out.split() == [str(FLEX_MACS)]


def test_the_backward_of_a_branch() -> None:
    def run(x: Tensor, weight: Tensor) -> Tensor:
        return torch.cond(x.sum() > 0, lambda y: y, lambda y: y @ weight, (x,))

    count = datbench.count(
        Call(run), torch.zeros(3, 4), torch.ones(4, 5).requires_grad_(), backward=True
    )
    assert count.multiply_adds() == 2 * 3 * 4 * 5


def _energy(layer: nn.Module, x: Tensor) -> Tensor:
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(F.silu(layer(x)).sum(), x)
    return gradient


def _filled(layer: nn.Module, x: Tensor) -> Tensor:
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        F.silu(layer(x)).sum().backward(inputs=[x])
    assert x.grad is not None
    return x.grad


def _vjp(layer: nn.Module, x: Tensor) -> Tensor:
    run, ones = lambda y: F.silu(layer(y)), torch.ones(3, 16, device=x.device)
    return torch.autograd.functional.vjp(run, x, ones)[1]


def _func(layer: nn.Module, x: Tensor) -> Tensor:
    return torch.func.grad(lambda y: F.silu(layer(y)).sum())(x)


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize("gradient", [_energy, _filled, _vjp, _func])
def test_a_gradient_inside_the_forward(
    gradient: Callable[[nn.Module, Tensor], Tensor], device: str
) -> None:
    model = Call(lambda x: gradient(model.layer, x))
    model.layer = nn.Linear(8, 16, bias=False, device=device)
    count = datbench.count(model, torch.zeros(3, 8, device=device))
    assert count.multiply_adds() == 2 * 3 * 8 * 16  # its forward, and the input's gradient


@dataclass
class Found:
    maps: list[Tensor]
    classes: Any = None


@pytest.mark.parametrize("name", ["x", 0, None])
@pytest.mark.parametrize(
    "wrap",
    [lambda y: {"y": y}, lambda y: Found([y]), lambda y: (1, Found([], SimpleNamespace(y=y)))],
    ids=["dict", "dataclass", "inside others"],
)
def test_inputs_and_outputs_in_containers(name: Any, wrap: Callable[[Tensor], Any]) -> None:
    """The gradients of the weight and of the input, wherever they stand."""
    x = torch.zeros(3, 8, requires_grad=True)
    given = {"x": {"x": x}, 0: [x], None: x}[name]
    model = Call(lambda value: wrap(model.layer(value if name is None else value[name])))
    model.layer = nn.Linear(8, 16, bias=False)
    by_name = {"kwargs": {"value": given}} if name is None else {}
    model.forward = lambda value: model.function(value)
    count = datbench.count(model, *([] if by_name else [given]), backward=True, **by_name)
    assert count.multiply_adds() == 3 * 3 * 8 * 16


def _attention_macs(n: int, e: int) -> int:
    return n * e * 3 * e + 2 * n * n * e + n * e * e


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("need_weights", [False, True])
def test_multihead_attention_in_its_fast_path_too(training: bool, need_weights: bool) -> None:
    module = nn.MultiheadAttention(16, 4, batch_first=True).train(training)
    attend = Call(lambda x: module(x, x, x, need_weights=need_weights))
    attend.inner = module
    count = datbench.count(attend, torch.randn(1, 9, 16))
    assert count.multiply_adds() == _attention_macs(9, 16)


def test_transformer_encoder_layer_in_its_fast_path_too() -> None:
    module = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True).eval()
    count = datbench.count(module, torch.randn(1, 9, 16))
    assert count.multiply_adds() == _attention_macs(9, 16) + 2 * 9 * 16 * 32
    assert torch.backends.mha.get_fastpath_enabled()


def test_grid_sample() -> None:
    def sample(x: Tensor, grid: Tensor) -> Tensor:
        return F.grid_sample(x, grid, align_corners=True)

    count = _count(sample, (2, 3, 8, 8), (2, 5, 7, 2))
    assert count.total(FVCORE) == 4 * 2 * 3 * 5 * 7


def test_deform_conv2d() -> None:
    ops = pytest.importorskip("torchvision.ops", exc_type=ImportError)
    module = ops.DeformConv2d(4, 6, 3, padding=1)
    attend = Call(lambda x, o: module(x, o))
    count = datbench.count(attend, torch.randn(2, 4, 8, 8), torch.zeros(2, 18, 8, 8))
    assert count.multiply_adds() == 2 * 6 * 64 * 4 * 9
    assert count.total(FVCORE) == 2 * 6 * 64 * 4 * 9 + 4 * (2 * 4 * 9 * 64)
    assert count.with_status("unknown", FVCORE) == []


def test_distances_are_counted_though_they_are_no_products() -> None:
    count = _count(torch.cdist, (30, 4), (40, 4))
    assert count.total(CONVENTIONS["strict"]) == 30 * 40 * 4 * 3
    assert [group.key for group in count.ignored(FVCORE)] == ["aten::_euclidean_dist"]


def test_fft_has_a_cost_and_is_named_where_the_convention_has_none() -> None:
    count = _count(lambda x: torch.fft.ifft2(torch.fft.rfft2(x)).real, (2, 8, 8))
    assert count.total(CONVENTIONS["strict"]) > 0
    fft = sum(call.cost.get(Kind.FFT, 0) for call in count.calls)
    # rfft2 of two 8x8 maps is half of 5 N log2 N; ifft2 runs on 8x5 complex points.
    assert fft == round(2 * 5 * 64 * 6 / 2) + round(2 * 5 * 40 * 5.321928)
    assert any("_fft_" in group.key for group in count.ignored(FVCORE))
    assert count.with_status("unknown", FVCORE) == []


@pytest.fixture(scope="module")
def custom_op() -> Callable[[Tensor], Tensor]:
    @torch.library.custom_op("datbench_tests::mystery", mutates_args=())
    def mystery(x: Tensor) -> Tensor:
        return x @ x

    @mystery.register_fake
    def _(x: Tensor) -> Tensor:
        return torch.empty_like(x)

    return mystery


def test_a_custom_operator_is_unknown_until_it_has_a_rule(
    custom_op: Callable[[Tensor], Tensor],
) -> None:
    from datbench.counting import operators, rules

    count = _count(lambda x: custom_op(x) + 1, (4, 4))
    (unknown,) = count.with_status("unknown", FVCORE)
    assert unknown.key == "datbench_tests::mystery"
    assert unknown.calls == 1

    datbench.register_rule("datbench_tests::mystery")(
        lambda args, kwargs, out: {Kind.MATMUL: out.numel() * args[0].shape[-1]}
    )
    try:
        count = _count(lambda x: custom_op(x) + 1, (4, 4))
        assert count.total(FVCORE) == 64
        assert count.with_status("unknown", FVCORE) == []
        with pytest.raises(ValueError, match="has a rule already"):
            datbench.register_rule("datbench_tests::mystery")(lambda args, kwargs, out: {})
    finally:
        del rules.RULES["datbench_tests::mystery"]
        operators._plans.clear()


class Square(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x @ x

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return grad @ x.t() + x.t() @ grad


class UsesFunction(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 4))

    def forward(self, x: Tensor) -> Tensor:
        return Square.apply(self.weight @ x)


def test_autograd_functions_are_looked_into() -> None:
    count = datbench.count(UsesFunction(), torch.randn(4, 4), backward=True)
    assert count.total(TORCH, "forward") == 2 * 2 * 64
    assert count.total(TORCH, "backward") == 2 * 3 * 64


class Checkpointed(nn.Module):
    def __init__(self, use_reentrant: bool | None) -> None:
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.inner = nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 4))
        self.use_reentrant = use_reentrant

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        if self.use_reentrant is None:
            return self.inner(x)
        return checkpoint(self.inner, x, use_reentrant=self.use_reentrant)


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_checkpointed_modules_run_their_forward_twice(use_reentrant: bool) -> None:
    x = torch.randn(3, 4)
    plain = datbench.count(Checkpointed(None), x, backward=True)
    twice = datbench.count(Checkpointed(use_reentrant), x, backward=True)
    assert twice.total(TORCH, "forward") == plain.total(TORCH, "forward")
    # Recomputation without re-entry stops at the last tensor that the backward needs: the
    # second layer's input, not its output.
    again = 2 * 3 * (32 + 32 if use_reentrant else 32)
    assert twice.total(TORCH, "backward") == plain.total(TORCH, "backward") + again


def test_compiled_modules_count_as_they_are_written() -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 4))
    x = torch.randn(3, 4)
    plain = datbench.count(model, x)
    compiled = datbench.count(torch.compile(model), x)
    assert compiled.total(CONVENTIONS["strict"]) == plain.total(CONVENTIONS["strict"])
    assert {call.module for call in compiled.calls} == {call.module for call in plain.calls}


def test_a_model_that_raises_leaves_nothing_behind() -> None:
    def fail(x: Tensor) -> Tensor:
        raise KeyError("broken")

    with pytest.raises(KeyError, match="broken"):
        _count(fail, (2, 2))
    assert not nn.modules.module._global_forward_hooks
    assert torch.backends.mha.get_fastpath_enabled()


def test_inference_mode_inside_the_model() -> None:
    @torch.inference_mode()
    def infer(x: Tensor) -> Tensor:
        return F.linear(x, x)

    assert _count(infer, (4, 4)).multiply_adds() == 64


def test_shared_modules_count_at_every_call() -> None:
    layer = nn.Linear(4, 4)
    count = datbench.count(nn.Sequential(layer, layer), torch.randn(2, 4))
    assert count.multiply_adds() == 2 * 2 * 16
    assert datbench.parameters(nn.Sequential(layer, layer)).params == 20
