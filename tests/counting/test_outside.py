"""Work that no dispatcher sees is named, and counted as unknown calls."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import datbench
from datbench.counting.rules import ABOUT, RULES
from datbench.setting import Kind
from tests.nets import Call


def _numpy(x: Tensor) -> Tensor:
    """Twice x by numpy, which stands for any compiled kernel."""
    return torch.from_numpy(x.detach().numpy() * 2)


def _fill(out: Tensor, x: Tensor) -> Tensor:
    out.numpy()[:] = x.detach().numpy() * 2
    return out


class Kernel(torch.autograd.Function):
    """Forward and backward both run elsewhere."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return _numpy(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return _fill(torch.empty_like(grad), grad)


class Allocated(Kernel):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return _fill(x.new_empty(x.shape), x)


class Zeroed(Kernel):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return _fill(torch.zeros_like(x), x)


class InPlace(Kernel):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.mark_dirty(x)
        return _fill(x, x)


class Reversed(torch.autograd.Function):
    """Computes with operators alone, as straight-through estimators and gradient reversal do."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return -grad


class Saved(torch.autograd.Function):
    """Its backward returns what its forward computed and saved."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(2 * x)
        return (x * x).sum()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (found,) = ctx.saved_tensors
        return found


def _around(function: Callable[[Tensor], Tensor]) -> Call:
    layer = nn.Linear(4, 4)
    return Call(lambda x: function(layer(x) * 1), layer)


def _unknown(count: Any) -> dict[str, int]:
    return {group.key: group.calls for group in count.with_status("unknown", "fvcore")}


@pytest.mark.parametrize("function", [Kernel, Allocated, Zeroed, InPlace, Reversed, Saved])
def test_a_function_that_computes_elsewhere_is_named(function: type[Any]) -> None:
    count = datbench.count(_around(function.apply), torch.zeros(2, 4), backward=True)
    name = f"prim::PythonOp.{function.__name__}"
    named = {"forward": name, "backward": f"{name}Backward"} if issubclass(function, Kernel) else {}
    unknown = [call for call in count.calls if call.status == "unknown"]
    assert [(call.phase, call.operator) for call in unknown] == list(named.items())
    assert {call.module for call in unknown} <= {""}  # not the linear layer's


@pytest.mark.parametrize(
    ("function", "unknown"),
    [
        (_numpy, 1),
        (lambda x: _numpy(x) + 1, 1),
        (lambda x: _fill(torch.empty_like(x), x) * 2, 1),
        (lambda x: torch.empty_like(x).copy_(x) * 2, 0),
        (lambda x: torch.baddbmm(torch.empty(1), x[None], x.mT[None], beta=0), 0),
        (lambda x: x + torch.empty_like(x).new_zeros(4), 0),
    ],
    ids=["returned", "used", "filled", "copied", "not read", "only a shape"],
)
def test_a_module_that_calls_a_kernel_itself_is_named(
    function: Callable[[Tensor], Tensor], unknown: int
) -> None:
    found = _unknown(datbench.count(_around(function), torch.zeros(2, 4)))
    assert found == ({"prim::PythonOp.Call": 1} if unknown else {})


def test_a_rule_for_such_a_function_counts_it() -> None:
    datbench.register_rule("prim::PythonOp.Kernel")(
        lambda args, kwargs, out: {Kind.MATMUL: args[0].numel() * out.shape[-1]}
    )
    try:
        count = datbench.count(_around(Kernel.apply), torch.zeros(2, 4))
    finally:
        del RULES["prim::PythonOp.Kernel"], ABOUT["prim::PythonOp.Kernel"]
    assert count.multiply_adds() == 2 * 4 * 4 + 8 * 4
    assert _unknown(count) == {}


def test_functions_are_torchs_own_again_afterwards() -> None:
    plain = Kernel.forward
    datbench.count(_around(Kernel.apply), torch.zeros(2, 4))
    assert Kernel.forward is plain
    assert "forward" not in vars(type(Kernel))
