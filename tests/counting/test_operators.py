"""What operators cost: those that counters are known to drop, and all that torch has."""

import importlib
import inspect
import itertools
import subprocess
import sys
import unittest
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

import datbench
from datbench.counting.conventions import convention
from datbench.counting.count import Count
from datbench.counting.operators import _plans
from datbench.counting.rules import RULES
from datbench.errors import MeasurementError
from datbench.run import tensors_in
from datbench.setting import Kind
from tests.nets import Call

Shape = tuple[int, ...]


def _unknown(count: Count) -> list[str]:
    return [group.key for group in count.with_status("unknown", "fvcore")]


def _known(function: Callable[..., Any], *inputs: Any, **options: Any) -> Count:
    """A count of a function or a module, all of whose operators are known."""
    model = function if isinstance(function, nn.Module) else Call(function)
    count = datbench.count(model, *inputs, **options)
    assert _unknown(count) == []
    return count


# function, shapes, multiply-adds worked out by hand
PRODUCTS: dict[str, tuple[Callable[..., Any], list[Shape], int]] = {
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
    "chain": (lambda *x: torch.linalg.multi_dot(x), [(2, 10), (10, 3), (3, 4)], 60 + 24),
    "einsum": (partial(torch.einsum, "bhmc,bhnc->bhmn"), [(2, 3, 5, 4), (2, 3, 7, 4)], 6 * 35 * 4),
    "einsum, transposed": (partial(torch.einsum, "bmn,bcn->bcm"), [(2, 5, 7), (2, 4, 7)], 2 * 140),
    "einsum, outer sum": (partial(torch.einsum, "bi,bj->ij"), [(6, 3), (6, 4)], 6 * 3 * 4),
    "bilinear": (F.bilinear, [(5, 3), (5, 4), (6, 3, 4), (6,)], 5 * 6 * 3 * 4),
    "linear": (F.linear, [(2, 3, 4), (5, 4), (5,)], 120),
    "conv1d": (F.conv1d, [(2, 4, 10), (6, 4, 3)], 2 * 6 * 8 * 12),
    "conv2d": (F.conv2d, [(2, 4, 8, 8), (6, 4, 3, 3)], 2 * 6 * 36 * 36),
    "conv3d": (F.conv3d, [(1, 2, 4, 4, 4), (3, 2, 2, 2, 2)], 3 * 27 * 16),
    "conv2d unbatched": (F.conv2d, [(4, 8, 8), (6, 4, 3, 3)], 6 * 36 * 36),
    "depthwise": (partial(F.conv2d, groups=4), [(2, 4, 8, 8), (4, 1, 3, 3)], 2 * 4 * 36 * 9),
    "grouped": (partial(F.conv2d, groups=2), [(2, 4, 8, 8), (6, 2, 3, 3)], 2 * 6 * 36 * 18),
    "same": (partial(F.conv2d, padding="same"), [(2, 4, 8, 8), (6, 4, 3, 3)], 2 * 6 * 64 * 36),
    "same, even": (partial(F.conv2d, padding="same"), [(1, 4, 8, 8), (6, 4, 4, 4)], 6 * 64 * 64),
    "transposed": (
        partial(F.conv_transpose2d, stride=2),
        [(2, 4, 5, 5), (4, 6, 3, 3)],
        2 * 4 * 25 * 54,
    ),
    "transposed, grouped": (
        partial(F.conv_transpose2d, stride=2, groups=2),
        [(2, 4, 5, 5), (4, 3, 3, 3)],
        2 * 4 * 25 * 27,
    ),
    "dilated": (partial(F.conv2d, dilation=2), [(1, 2, 9, 9), (3, 2, 3, 3)], 3 * 25 * 18),
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
        partial(F.scaled_dot_product_attention, enable_gqa=True),
        [(1, 4, 5, 8), (1, 2, 7, 8), (1, 2, 7, 8)],
        2 * 4 * 5 * 7 * 8,
    ),
}


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel:UserWarning")
@pytest.mark.parametrize("name", PRODUCTS)
def test_products(name: str) -> None:
    function, shapes, macs = PRODUCTS[name]
    for device in ("cpu", "meta"):
        count = _known(function, *(torch.randn(shape, device=device) for shape in shapes))
        assert count.multiply_adds() == macs
        assert count.total("torch") == 2 * macs
        assert count.total("fvcore") == macs


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
def test_recurrent(module: nn.Module, shape: Shape, macs: int) -> None:
    for device in ("cpu", "meta"):
        count = _known(module.eval().to(device), torch.zeros(shape, device=device))
        assert count.multiply_adds() == macs


@pytest.mark.parametrize(("recurrent", "gates"), [(nn.LSTM, 4), (nn.GRU, 3), (nn.RNN, 1)])
def test_packed_sequences(recurrent: type[nn.Module], gates: int) -> None:
    """Steps x gates x H x (C + H), by DeepSpeed's flops profiler (its issue 1268).

    Sequences of 3 and 2 steps.
    """
    layer = recurrent(4, 5)

    def run(x: Tensor) -> Tensor:
        packed = nn.utils.rnn.pack_padded_sequence(x, torch.tensor([3, 2]))
        return nn.utils.rnn.pad_packed_sequence(layer(packed)[0])[0]

    count = _known(Call(run, layer), torch.zeros(3, 2, 4))
    assert count.multiply_adds() == 5 * gates * 5 * (4 + 5)


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
        totals.add((count.total("torch"), count.total("strict")))
    assert len(totals) == 1
    with FlopCounterMode(display=False) as counter:
        sum(out.sum() for out in tensors_in(model(x))).backward()
    assert count.total("torch") == counter.get_total_flops()


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


@pytest.mark.filterwarnings("ignore")
def test_flex_attention_and_cond(capsys: pytest.CaptureFixture[str]) -> None:
    """In a fresh process, and where the compiler is loaded."""
    command = [sys.executable, "-W", "ignore", "-c", FLEX]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.stdout.split() == [str(FLEX_MACS)], ran.stderr
    importlib.import_module("torch._dynamo")
    exec(FLEX, {})
    assert capsys.readouterr().out.split() == [str(FLEX_MACS)]


def test_the_backward_of_a_branch() -> None:
    def run(x: Tensor, weight: Tensor) -> Tensor:
        return torch.cond(x.sum() > 0, lambda y: y, lambda y: y @ weight, (x,))

    weight = torch.ones(4, 5).requires_grad_()
    count = datbench.count(Call(run), torch.zeros(3, 4), weight, backward=True)
    assert count.multiply_adds() == 2 * 3 * 4 * 5


# Gradients inside a forward.


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
    layer = nn.Linear(8, 16, bias=False, device=device)
    model = Call(lambda x: gradient(layer, x), layer)
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
    x, layer = torch.zeros(3, 8, requires_grad=True), nn.Linear(8, 16, bias=False)
    model = Call(lambda value: wrap(layer(value if name is None else value[name])), layer)
    model.forward = lambda value: model.function(value)
    if name is None:
        count = datbench.count(model, backward=True, kwargs={"value": x})
    else:
        count = datbench.count(model, {"x": {"x": x}, 0: [x]}[name], backward=True)
    assert count.multiply_adds() == 3 * 3 * 8 * 16


# Layers with a fast path, samplers, custom operators.


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("need_weights", [False, True, None])
def test_attention_in_its_fast_path_too(training: bool, need_weights: bool | None) -> None:
    if need_weights is None:
        attend: nn.Module = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)
    else:
        inner = nn.MultiheadAttention(16, 4, batch_first=True)
        attend = Call(lambda x: inner(x, x, x, need_weights=need_weights), inner)
    count = datbench.count(attend.train(training), torch.randn(1, 9, 16))
    macs = 9 * 16 * 3 * 16 + 2 * 9 * 9 * 16 + 9 * 16 * 16
    assert count.multiply_adds() == macs + (2 * 9 * 16 * 32 if need_weights is None else 0)
    assert torch.backends.mha.get_fastpath_enabled()


def test_deform_conv2d() -> None:
    ops = pytest.importorskip("torchvision.ops", exc_type=ImportError)
    layer = ops.DeformConv2d(4, 6, 3, padding=1)
    count = _known(Call(layer, layer), torch.randn(2, 4, 8, 8), torch.zeros(2, 18, 8, 8))
    assert count.multiply_adds() == 2 * 6 * 64 * 4 * 9
    assert count.total("fvcore") == 2 * 6 * 64 * 4 * 9 + 4 * (2 * 4 * 9 * 64)


def test_what_no_product_is_has_a_cost_and_is_named() -> None:
    count = _known(partial(F.grid_sample, align_corners=True), torch.ones(2, 3, 8, 8), GRID)
    assert count.total("fvcore") == 4 * 2 * 3 * 5 * 7
    count = _known(torch.cdist, torch.ones(30, 4), torch.ones(40, 4))
    assert count.total("strict") == 30 * 40 * 4 * 3
    assert [group.key for group in count.ignored("fvcore")] == ["aten::_euclidean_dist"]
    count = _known(lambda x: torch.fft.ifft2(torch.fft.rfft2(x)).real, torch.ones(2, 8, 8))
    assert count.total("strict") > 0
    fft = sum(call.cost.get(Kind.FFT, 0) for call in count.calls)
    # rfft2 of two 8x8 maps is half of 5 N log2 N; ifft2 runs on 8x5 complex points.
    assert fft == round(2 * 5 * 64 * 6 / 2) + round(2 * 5 * 40 * 5.321928)
    assert any("_fft_" in group.key for group in count.ignored("fvcore"))


GRID = torch.zeros(2, 5, 7, 2)


def test_a_custom_operator_is_unknown_until_it_has_a_rule() -> None:
    @torch.library.custom_op("datbench_tests::mystery", mutates_args=())
    def mystery(x: Tensor) -> Tensor:
        return x @ x

    mystery.register_fake(torch.empty_like)
    model, x = Call(lambda x: mystery(x) + 1), torch.ones(4, 4)
    (unknown,) = datbench.count(model, x).with_status("unknown", "fvcore")
    assert (unknown.key, unknown.calls) == ("datbench_tests::mystery", 1)
    datbench.register_rule("datbench_tests::mystery")(
        lambda args, kwargs, out: {Kind.MATMUL: out.numel() * args[0].shape[-1]}
    )
    try:
        assert _known(model, x).total("fvcore") == 64
        with pytest.raises(ValueError, match="has a rule already"):
            datbench.register_rule("datbench_tests::mystery")(lambda args, kwargs, out: {})
    finally:
        del RULES["datbench_tests::mystery"]
        _plans.clear()


# How a model is run.


class Square(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x @ x

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return grad @ x.t() + x.t() @ grad


def test_autograd_functions_are_looked_into() -> None:
    weight = torch.randn(4, 4, requires_grad=True)
    run = Call(lambda x, weight: Square.apply(weight @ x))
    count = datbench.count(run, torch.randn(4, 4), weight, backward=True)
    assert count.total("torch", "forward") == 2 * 2 * 64
    assert count.total("torch", "backward") == 2 * 3 * 64


def test_checkpointed_modules_run_their_forward_twice() -> None:
    inner = nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 4))
    layers, x = nn.ModuleList([nn.Linear(4, 4), inner]), torch.randn(3, 4)

    def counted(run: Callable[..., Tensor], **options: Any) -> Count:
        model = Call(lambda x: run(inner, layers[0](x), **options), layers)
        return datbench.count(model, x, backward=True)

    plain = counted(lambda layer, x: layer(x))
    for use_reentrant in (False, True):
        twice = counted(checkpoint, use_reentrant=use_reentrant)
        assert twice.total("torch", "forward") == plain.total("torch", "forward")
        # Recomputation without re-entry stops at the last tensor that the backward needs: the
        # second layer's input, not its output.
        again = 2 * 3 * (32 + 32 if use_reentrant else 32)
        assert twice.total("torch", "backward") == plain.total("torch", "backward") + again


def test_compiled_modules_count_as_they_are_written() -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 4))
    x = torch.randn(3, 4)
    plain, compiled = datbench.count(model, x), datbench.count(torch.compile(model), x)
    assert compiled.total("strict") == plain.total("strict")
    assert {call.module for call in compiled.calls} == {call.module for call in plain.calls}


def test_a_model_that_raises_leaves_nothing_behind() -> None:
    with pytest.raises(KeyError, match="broken"):
        datbench.count(Call(lambda x: {}["broken"]), torch.ones(2, 2))
    assert not nn.modules.module._global_forward_hooks
    assert torch.backends.mha.get_fastpath_enabled()


def test_inference_mode_and_shared_modules() -> None:
    """A model may turn inference mode on; what it calls twice counts twice."""
    infer = torch.inference_mode()(F.linear)
    assert _known(lambda x: infer(x, x), torch.ones(4, 4)).multiply_adds() == 64
    layer = nn.Linear(4, 4)
    shared = nn.Sequential(layer, layer)
    assert _known(shared, torch.randn(2, 4)).multiply_adds() == 2 * 2 * 16
    assert datbench.parameters(shared).params == 20


# Activations


def _activations() -> Iterator[tuple[str, dict[str, Any]]]:
    for name in nn.modules.activation.__all__:
        if name != "MultiheadAttention":
            parameters = inspect.signature(getattr(nn, name)).parameters
            needed = {"threshold": 0.0, "value": 0.0} if name == "Threshold" else {}
            for inplace in (False, True) if "inplace" in parameters else (False,):
                yield name, {**needed, **({"inplace": True} if inplace else {})}


@pytest.mark.parametrize(("name", "options"), list(_activations()), ids=str)
def test_every_activation_of_torch_costs_something(name: str, options: dict[str, Any]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # softmax without a dimension
        model = nn.Sequential(nn.Linear(8, 8, bias=False), getattr(nn, name)(**options)).eval()
        count = _known(model, torch.zeros(1, 2, 1, 8), backward=True)
    products = 2 * 2 * 8 * 8  # of the linear layer; its input has no gradient
    for phase in ("forward", "backward"):
        assert count.total("strict", phase) >= products + 8, phase
        own = [call for call in count.calls if call.module == "1" and call.phase == phase]
        assert sum(convention("strict").weigh(call.cost, "") for call in own) >= 8, phase


# function, inputs, real operations under `strict` with their derivation

Case = tuple[Callable[..., Any], list[Tensor], int]

X, COMPLEX = torch.zeros(6, 4), torch.zeros(6, 4, dtype=torch.cfloat)
INDEX, Y, Y0 = torch.zeros(10, dtype=torch.long), torch.zeros(10, 4), torch.zeros(10, 4).long()


def _grid(size: list[int]) -> Callable[[Tensor], Tensor]:
    return lambda theta: F.affine_grid(theta, size, False)


COSTS: dict[str, Case] = {
    # Complex: a product 6, a sum 2, a quotient 11; a multiply-add 8.
    "complex mul": (torch.mul, [COMPLEX, COMPLEX], 6 * 24),
    "complex mul in place": (lambda a, b: a.clone().mul_(b), [COMPLEX, COMPLEX], 6 * 24),
    "complex times real": (torch.mul, [COMPLEX, X], 2 * 24),
    "complex add": (torch.add, [COMPLEX, COMPLEX], 2 * 24),
    "complex div": (torch.div, [COMPLEX, COMPLEX], 11 * 24),
    "complex sum": (torch.sum, [COMPLEX], 2 * 24),
    "complex matmul": (torch.matmul, [COMPLEX, COMPLEX.mT], 8 * 6 * 6 * 4),
    "complex linear": (F.linear, [COMPLEX, COMPLEX, COMPLEX[:, 0]], 8 * 6 * 6 * 4 + 2 * 36),
    "complex conv": (F.conv1d, [COMPLEX[None], COMPLEX[None, :, :3]], 8 * 2 * 6 * 3),
    "complex": (torch.complex, [X, X], 0),
    "polar": (torch.polar, [X, X], 4 * 24),
    # What is added up inside one operator.
    "embedding_bag": (lambda i, w: F.embedding_bag(i.view(2, 5), w), [INDEX, X], 10 * 4),
    "index_add": (lambda x, i, y: x.index_add(0, i, y), [X, INDEX, Y], 10 * 4),
    "scatter_add": (lambda x, i, y: x.scatter_add(0, i, y), [X, INDEX[:, None] + Y0, Y], 10 * 4),
    "scatter": (lambda x, i, y: x.scatter(0, i[:, None], y), [X, INDEX, Y], 0),
    "index_put": (lambda x, i: x.index_put((i,), x[i]), [X, INDEX], 0),
    "mse_loss": (F.mse_loss, [X, X], 2 * 24),
    "mse_loss of each": (lambda a, b: F.mse_loss(a, b, reduction="none"), [X, X], 24),
    "bce": (F.binary_cross_entropy_with_logits, [X, X], 2 * 24),
    # log_softmax 5 an element, and the sum over 6 targets.
    "cross_entropy": (lambda x, i: F.cross_entropy(x, i[:6]), [X, INDEX], 5 * 24 + 6),
    # Two norms, a clamp and a quotient for each; a product and its sum.
    "cosine_similarity": (F.cosine_similarity, [X, X], 2 * (24 + 6 + 24) + 24 + 24),
    "dist": (torch.dist, [X, X], 3 * 24),
    "pdist": (F.pdist, [X], 3 * 15 * 4),
    "bucketize": (lambda x: torch.bucketize(x, torch.zeros(7)), [X], 3 * 24),
    "searchsorted": (lambda x: torch.searchsorted(torch.zeros(7), x), [X], 3 * 24),
    "weight_norm": (lambda v: torch._weight_norm(v, v[:, :1]), [X], 2 * 24),
    # LAPACK Working Note 41: n^3 / 3 for a Cholesky factor, 2 n^3 for an inverse.
    "cholesky": (torch.linalg.cholesky, [torch.eye(6)], 6**3 // 3),
    "inverse": (torch.linalg.inv, [torch.eye(6)], 2 * 6**3),
    # Selections and views in place.
    "masked_fill_": (lambda x: x.clone().masked_fill_(x > 0, 0.0), [X], 2 * 24),
    "views in place": (lambda x: x.clone().t_().unsqueeze_(0).squeeze_().transpose_(0, 1), [X], 0),
    "max_unpool2d": (
        lambda x, i: F.max_unpool2d(x.view(1, 1, 6, 4), i[None, None], 2),
        [X, torch.arange(24).view(6, 4)],
        0,
    ),
    # Two multiply-adds of 3 terms for each point of a grid of 5 x 7.
    "affine_grid": (
        lambda t: F.affine_grid(t, [2, 1, 5, 7], False),
        [Y0.new_zeros(2, 2, 3).float()],
        840,
    ),
    "affine_grid 3-D": (
        lambda t: F.affine_grid(t, [1, 1, 2, 5, 7], False),
        [torch.zeros(1, 3, 4)],
        1680,
    ),
}


@pytest.mark.parametrize("name", COSTS)
def test_operations_under_strict(name: str) -> None:
    function, inputs, operations = COSTS[name]
    assert _known(function, *inputs).total("strict") == operations


def test_a_complex_product_is_one_to_the_counters_that_take_it_for_one() -> None:
    """FlopCounterMode and fvcore look at shapes; `multiply_adds` are real ones."""
    with FlopCounterMode(display=False) as counter:
        torch.matmul(COMPLEX, COMPLEX.mT)
    count = datbench.count(Call(torch.matmul), COMPLEX, COMPLEX.mT)
    assert count.total("torch") == counter.get_total_flops()
    assert count.total("fvcore") == 6 * 6 * 4
    assert count.multiply_adds() == 4 * 6 * 6 * 4


# Sparse and nested tensors


def _graph(layout: str, product: Callable[[Tensor, Tensor], Tensor]) -> Call:
    """A layer over a graph of 50 nodes and 70 edges."""
    edges = torch.arange(70)
    ends = torch.stack([edges % 50, edges * 7 % 11])
    matrix = torch.sparse_coo_tensor(ends, torch.ones(70), (50, 50)).coalesce()
    mix = nn.Linear(8, 4, bias=False)
    mix.register_buffer("adjacency", matrix if layout == "coo" else matrix.to_sparse_csr())
    return Call(lambda x: product(mix.adjacency, mix(x)), mix)


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta")
@pytest.mark.filterwarnings("ignore:Sparse invariant checks are implicitly disabled")
@pytest.mark.parametrize(
    ("layout", "product"),
    [
        ("coo", lambda a, x: a @ x),
        ("csr", lambda a, x: a @ x),
        ("coo", torch.sparse.mm),
        ("csr", torch.sparse.mm),
        ("coo", lambda a, x: torch.sparse.addmm(x, a, x)),
        ("coo", lambda a, x: (x.T @ a.transpose(0, 1)).T),
    ],
    ids=["coo @", "csr @", "coo mm", "csr mm", "addmm", "on the right"],
)
def test_sparse_operands_count_by_their_stored_elements(
    layout: str, product: Callable[[Tensor, Tensor], Tensor]
) -> None:
    model = _graph(layout, product)
    count = _known(model, torch.zeros(50, 8))
    stored = 70 if layout == "csr" else model.layer.adjacency._nnz()
    assert count.multiply_adds() == 50 * 8 * 4 + stored * 4
    assert datbench.parameters(model).buffers == stored


def test_a_batch_of_sparse_products() -> None:
    sparse = torch.eye(5).expand(3, 5, 5).to_sparse()  # 15 stored elements
    assert _known(torch.bmm, sparse, torch.zeros(3, 5, 4)).multiply_adds() == 15 * 4


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta")
def test_a_product_of_two_sparse_matrices_is_unknown() -> None:
    count = datbench.count(_graph("coo", lambda a, x: (a @ a).to_dense()), torch.zeros(50, 8))
    assert _unknown(count) != []
    assert count.multiply_adds() == 50 * 8 * 4


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize("layout", [torch.strided, torch.jagged])
@pytest.mark.parametrize("inside", [False, True])
def test_nested_tensors_are_refused(layout: torch.layout, inside: bool) -> None:
    parts = [torch.zeros(3, 8), torch.zeros(5, 8)]
    layer = nn.Linear(8, 8)
    model, inputs = Call(layer), [torch.nested.nested_tensor(parts, layout=layout)]
    if inside:
        model = Call(lambda a, b: layer(torch.nested.nested_tensor([a, b], layout=layout)))
        inputs = parts
    with pytest.raises(MeasurementError, match="nested tensors cannot be counted"):
        datbench.count(model, *inputs)


# Torch's own list of its operators, with arguments for each

WITHOUT = {
    f"aten::{name}"
    for name in (
        "_linalg_eigh _linalg_svd linalg_eig linalg_lstsq linalg_matrix_exp linalg_matrix_sqrth "
        "linalg_pinv linalg_polar linalg_qr geqrf linalg_householder_product ormqr"
    ).split()
}
"""Orthogonal factors and what iterates: their cost depends on the method, or on values."""

MADE_OF_OTHERS = "torch_nn::_linear_cross_entropy_batch_chunked"
"""Computes the gradients in its forward: a count of both would leave them out."""


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_all_other_operators_of_torch_have_a_cost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stub = SimpleNamespace(TestCase=unittest.TestCase, assert_expected_inline=None)
    monkeypatch.setitem(sys.modules, "expecttest", stub)
    from torch.testing._internal.common_methods_invocations import op_db

    unknown: dict[str, set[str]] = {}
    counted = 0
    for operator in op_db:
        floating = torch.float32 in operator.dtypes
        dtype = torch.float32 if floating else next(iter(operator.dtypes), None)
        if dtype is None:
            continue
        backward = operator.supports_autograd and floating
        for given in itertools.islice(operator.sample_inputs("cpu", dtype), 3):
            for form in filter(None, (operator.op, operator.inplace_variant)):
                count = _counted(form, given, backward) or _counted(form, given, False)
                counted += count is not None
                for name in _unknown(count) if count is not None else ():
                    unknown.setdefault(name, set()).add(operator.name)
    assert counted > 1500
    left = {name for name in unknown if not name.startswith(MADE_OF_OTHERS)}
    assert left <= WITHOUT, unknown


def _counted(form: Callable[..., Any], given: Any, backward: bool) -> Any:
    """A count of a call on copies of the arguments; None where torch refuses them."""

    def run(*tensors: Tensor) -> Any:
        values = (given.input, given.args, given.kwargs)
        first, args, kwargs = tree_map_only(Tensor, lambda tensor: tensor.clone(), values)
        return form(first, *args, **kwargs)

    tensors = [t for t in tree_leaves((given.input, given.args, given.kwargs)) if _is(t)]
    for tensor in tensors if backward else ():
        if tensor.is_floating_point() and tensor.is_leaf:
            tensor.requires_grad_(True)
    try:
        return datbench.count(Call(run), *tensors, backward=backward)
    except (RuntimeError, MeasurementError, AssertionError, ValueError):
        return None


def _is(value: object) -> bool:
    return isinstance(value, Tensor)
