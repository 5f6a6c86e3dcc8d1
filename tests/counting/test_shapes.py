"""What is predicted on meta equals what real kernels return: shapes, strides and dtypes."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import datbench
from datbench import Resolution, Setting
from datbench.counting import recorder
from datbench.counting.count import build_for_count, count_built
from datbench.counting.operators import OperatorPlan, execute
from datbench.counting.shapes import elementwise, predict
from tests.nets import Call, short

Result = tuple[str, list[tuple[tuple[int, ...], tuple[int, ...], torch.dtype]]]


# How torch wraps a constant differs between its versions and devices.
BOOKKEEPING = ("aten::lift_fresh", "aten::detach_", "aten::alias")


def _strides(t: Tensor) -> tuple[int, ...]:
    """Those that mean something: not of a dimension of one element."""
    return tuple(stride for stride, size in zip(t.stride(), t.shape, strict=True) if size != 1)


def _log(results: list[Result]) -> Callable[..., Any]:
    def logged(
        func: Any, plan: OperatorPlan, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> Any:
        out = execute(func, plan, args, kwargs)
        tensors = out if isinstance(out, (tuple, list)) else [out]
        described = [
            (tuple(t.shape), _strides(t), t.dtype) for t in tensors if isinstance(t, Tensor)
        ]
        if plan.overload not in BOOKKEEPING:
            results.append((plan.overload, described))
        return out

    return logged


@pytest.mark.parametrize("size", [Resolution(224, 224), Resolution(164, 100)], ids=str)
@pytest.mark.parametrize(
    "name",
    ["dat_t", "datpp_t", "dat_t_star", "dat_t_sra", "dat_t_dwconv_bias", "dat_t_ddetr_16_16"],
)
def test_every_operator_of_our_models(
    name: str, size: Resolution, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: dict[str, list[Result]] = {"cpu": [], "meta": []}
    for device, results in found.items():
        monkeypatch.setattr(recorder, "execute", _log(results))
        setting = Setting(size, batch=2, device=device)
        # Every block runs.
        count_built(name, build_for_count(short(name), setting), setting)
    assert len(found["cpu"]) > 150
    for predicted, real in zip(found["meta"], found["cpu"], strict=True):
        assert predicted == real


def _meta(*options: tuple[str, Any]) -> dict[str, Any]:
    return {"layout": None, "pin_memory": False, "device": torch.device("meta"), **dict(options)}


@pytest.mark.parametrize("dtype", [None, torch.float64, torch.bfloat16])
@pytest.mark.parametrize(
    ("name", "args"),
    [
        *(("zeros", (size,)) for size in ((), (0,), (3, 1, 2))),
        *(("linspace", (0.0, 1, steps)) for steps in (0, 1, 5)),
    ],
)
def test_creation(name: str, args: tuple[Any, ...], dtype: torch.dtype | None) -> None:
    predicted = predict(f"aten::{name}", args, _meta(("dtype", dtype)))
    real = getattr(torch, name)(*args, dtype=dtype)
    assert predicted.is_meta
    assert (predicted.shape, predicted.stride(), predicted.dtype) == (
        real.shape,
        real.stride(),
        real.dtype,
    )
    assert predict(f"aten::{name}", args, _meta(("device", torch.device("cpu")))) is None


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("ways", [1, 2])
@pytest.mark.parametrize("biased", [True, False])
def test_lstm(first: bool, ways: int, biased: bool) -> None:
    layers = torch.nn.LSTM(5, 4, 2, biased, first, bidirectional=ways == 2)
    x, states = torch.zeros(3, 7, 5), [torch.zeros(2 * ways, 3 if first else 7, 4)] * 2
    options = (biased, 2, 0.0, False, ways == 2, first)
    weights = [weight.detach() for weight in layers.parameters()]
    real = torch.lstm(x, states, weights, *options)
    args = [[t.to("meta") for t in each] for each in (states, weights)]
    predicted = predict("aten::lstm.input", (x.to("meta"), *args, *options), {})
    assert [(t.shape, t.stride()) for t in predicted] == [(t.shape, t.stride()) for t in real]
    args[1].pop()
    assert predict("aten::lstm.input", (x.to("meta"), *args, *options), {}) is None


@pytest.mark.parametrize("channels", [(1, 1), (4, 1), (4, 6)])
@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize("batch", [1, 2])
def test_convolutions_of_rows(channels: tuple[int, int], kernel: int, batch: int) -> None:
    weight = torch.zeros(channels[1], channels[0], kernel)
    x = torch.zeros(batch, channels[0], 7)
    predicted = predict("aten::conv1d", (x.to("meta"), weight.to("meta")), {})
    real = F.conv1d(x, weight)
    assert (predicted.shape, _strides(predicted)) == (real.shape, _strides(real))


def test_regions_put_together() -> None:
    """Of regions of interest: (1, N, C, H, W) of each map, as slices of one tensor."""
    whole = torch.zeros(1, 2, 9, 5, 4).transpose(1, 2)  # (1, 9, 2, 5, 4)
    parts = whole.split([4, 3, 2], 1)
    predicted = predict("aten::cat", ([part.to("meta") for part in parts], 1), {})
    real = torch.cat(parts, 1)
    assert (predicted.shape, predicted.stride()) == (real.shape, real.stride())
    last = [part.to("meta", memory_format=torch.channels_last_3d) for part in parts]
    assert predict("aten::cat", (last, 1), {}) is None


@st.composite
def _operands(draw: st.DrawFn) -> list[Tensor]:
    """One or two tensors that broadcast, each a permuted or sliced view."""
    rank = draw(st.integers(1, 4))
    shape = draw(st.lists(st.integers(1, 4), min_size=rank, max_size=rank))
    operands = []
    for _ in range(draw(st.integers(1, 2))):
        own = [1 if draw(st.booleans()) and draw(st.booleans()) else n for n in shape]
        order = draw(st.permutations(range(rank)))
        gap = draw(st.integers(0, 1))
        base = torch.zeros([own[d] + (gap if i == 0 else 0) for i, d in enumerate(order)])
        base = base[: own[order[0]]]
        operands.append(base.permute([order.index(d) for d in range(rank)]))
    return operands


@settings(max_examples=300, deadline=None)
@given(_operands())
def test_layout_of_elementwise_results(operands: list[Tensor]) -> None:
    real = operands[0] + (operands[1] if len(operands) > 1 else 1.0)
    predicted = elementwise(torch.float32, *(x.to("meta") for x in operands))
    assert predicted.shape == real.shape
    assert _strides(predicted) == _strides(real)


# Under autograd: the graph's forward and its backward.

MAPS: dict[str, Callable[[Tensor], Tensor]] = {  # of an image (N, 4, H, W)
    "batch norm": lambda x: F.batch_norm(x, *_each(x, 2), *_each(x, 2), training=True),
    "batch norm, evaluation": lambda x: F.batch_norm(x, *_each(x, 2), None, x.new_ones(4)),
    "batch norm, plain": lambda x: F.batch_norm(x, None, None, training=True),
    "group norm": lambda x: F.group_norm(x, 2, *_each(x, 2)),
    "layer norm": lambda x: F.layer_norm(x, x.shape[-1:]),
    "rms norm": lambda x: F.rms_norm(x, x.shape[-1:]),
    "convolution": lambda x: F.conv2d(x, x.new_ones(6, 2, 2, 1), x.new_ones(6), groups=2),
    "channels-last weights": lambda x: F.conv2d(x, _last(x.new_ones(6, 4, 2, 2)), padding=1),
    "same size": lambda x: F.conv2d(x, x.new_ones(6, 4, 3, 1), padding="same", dilation=2),
    "row": lambda x: F.conv1d(x.flatten(2), x.new_ones(6, 4, 1)),
    "max pool": lambda x: F.max_pool2d(x, (2, 1), 2, ceil_mode=True),
    "average pool": lambda x: F.avg_pool2d(x, (2, 1), padding=(1, 0)),
    "one pixel": lambda x: x * F.hardsigmoid(F.adaptive_avg_pool2d(x, 1)),
    "means": lambda x: x.mean((2, 3), keepdim=True) * x.sum(1, keepdim=True) + x.amax(3, True),
    "bilinear": lambda x: F.interpolate(x, scale_factor=(1.5, 2), mode="bilinear"),
    "bicubic": lambda x: F.interpolate(x, (3, 5), mode="bicubic"),
    "nearest": lambda x: F.interpolate(x, scale_factor=2),
    "concatenation": lambda x: torch.cat([x, x * 2, x[:, 1:]], 1),
    "parts": lambda x: x[:, 1:].relu() + x[:, :1] * x[:, 2:3],
    "softmax": lambda x: x.softmax(1) + x.log_softmax(-1),
    "activations": lambda x: F.silu(x) + F.hardswish(x) + F.hardtanh(x) * F.leaky_relu(x).tanh(),
    "more activations": lambda x: F.gelu(x).sigmoid() * F.relu(x) + F.hardsigmoid(x).clamp_min(0.1),
    "powers": lambda x: x.square().add(1).rsqrt() + x.exp().sqrt() / x.abs().add(1).log(),
    "norm": lambda x: F.normalize(x, dim=1),
    "dropout": lambda x: F.dropout(x, 0.0) + F.dropout(x, 0.5, False),
    "sampling": lambda x: F.grid_sample(x, x.new_zeros(x.shape[0], 3, 2, 2), align_corners=True),
}


def _each(x: Tensor, times: int) -> list[Tensor]:
    return [x.new_ones(x.shape[1]) for _ in range(times)]


def _last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("name", MAPS)
def test_forward_and_backward_of_maps(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows, channels last, slices and permuted maps."""
    # CUDA's layer norm keeps float32 for half precision, which is what is simulated.
    types = [torch.float32, torch.float64, *([torch.bfloat16] if name != "layer norm" else [])]

    @settings(max_examples=12, deadline=None, database=None)
    @given(
        st.tuples(st.integers(1, 2), st.just(4), st.integers(2, 5), st.integers(1, 5)),
        st.sampled_from([(0, 1, 2, 3), (0, 2, 3, 1), (0, 1, 3, 2), (3, 0, 1, 2)]),
        st.booleans(),
        st.sampled_from(types),
    )
    def compared(shape: tuple[int, ...], order: Sequence[int], cut: bool, dtype: Any) -> None:
        found: dict[str, list[Result]] = {"cpu": [], "meta": []}
        for device, results in found.items():
            monkeypatch.setattr(recorder, "execute", _log(results))
            sizes = [shape[d] * (1 + cut * (d == 1)) for d in order]
            base = torch.ones(sizes, dtype=dtype, device=device)
            image = base.permute([order.index(d) for d in range(4)])[:, : shape[1]]
            image.requires_grad_()
            datbench.count(Call(MAPS[name]), image, backward=True)
        for predicted, real in zip(found["meta"], found["cpu"], strict=True):
            assert predicted == real

    compared()
