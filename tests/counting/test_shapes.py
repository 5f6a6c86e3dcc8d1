"""What is predicted on meta equals what real kernels return: shapes, strides and dtypes."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from datbench import Resolution, Setting
from datbench.counting import recorder
from datbench.counting.count import build_for_count, count_built
from datbench.counting.operators import OperatorPlan, execute
from datbench.counting.shapes import elementwise, predict
from tests.nets import short

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


@pytest.mark.parametrize("size", [(), (0,), (3, 1, 2)])
@pytest.mark.parametrize("dtype", [None, torch.int64, torch.bfloat16])
def test_zeros(size: tuple[int, ...], dtype: torch.dtype | None) -> None:
    options = {"dtype": dtype, "layout": None, "pin_memory": False}
    predicted = predict("aten::zeros", (size,), {**options, "device": torch.device("meta")})
    real = torch.zeros(size, dtype=dtype)
    assert predicted.is_meta
    assert (predicted.shape, predicted.stride(), predicted.dtype) == (
        real.shape,
        real.stride(),
        real.dtype,
    )
    assert predict("aten::zeros", (size,), {**options, "device": torch.device("cpu")}) is None


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
