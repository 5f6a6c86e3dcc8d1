"""Backwards as they run on real tensors, where torch runs others under a dispatch mode.

Torch's formulas write into a tensor that they own, unless a mode is active or a tensor is on meta
(`areAnyTensorSubclassLike` in ATen's TensorSubclassLikeUtils.h). Here they do again.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..counting.operators import EagerMode, OperatorPlan

_OWNED = frozenset({"aten::scatter_add", "aten::scatter.src", "aten::put"})
"""What `gather_backward`, `cummaxmin_backward`, `value_selecting_reduction_backward` and
`take_backward` (torch's FunctionsManual.cpp) do to zeros that they have just made."""


def writes_into(name: str, args: Sequence[Any]) -> bool:
    """Whether the operator of a backward takes its result from its first argument's storage."""
    node = torch._C._current_autograd_node()
    if name in _OWNED:  # a formula of torch's, whose nodes are numbered; others' are not
        return node is not None and re.search(r"Backward\d+$", node.name()) is not None
    if name != "aten::add.Tensor" or torch.is_grad_enabled():
        return False
    old, new = args
    return (
        isinstance(new, Tensor)
        and (old.shape, old.dtype) == (new.shape, new.dtype)
        and references(old) == sole_references()
    )


def references(tensor: Tensor) -> tuple[int, int]:
    """How many hold a tensor, and its storage."""
    counted: Any = tensor  # torch does not type these two
    counts: Any = torch._C
    return counted._use_count(), counts._storage_Use_Count(tensor.untyped_storage()._cdata)


@cache
def sole_references() -> tuple[int, int]:
    """The references of a gradient that nobody but autograd holds, when it adds another to it.

    It then adds in place (`InputBuffer::accumulate` in torch's input_buffer.cpp). Found out by a
    small backward, once, outside of any mode.
    """
    found = [(0, 0)]

    class Sees(EagerMode):
        def dispatched(
            self, func: Any, plan: OperatorPlan, args: Sequence[Any], kwargs: Mapping[str, Any]
        ) -> Any:
            if plan.overload == "aten::add.Tensor" and not torch.is_grad_enabled():
                found.append(references(args[0]))
            return func(*args, **kwargs)

    with torch.inference_mode(False), torch.enable_grad(), Sees():
        x = torch.ones((), device="cpu", requires_grad=True) * 1
        torch.autograd.backward(x.relu() * x.tanh())  # for a given gradient torch loads sympy
    return found[-1]


# Formulas that take another way for tensors without zeros, which real ones hardly hold.


class _Prod(torch.autograd.Function):
    """`prod_backward`: the gradient times result over input."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, dim: int | None, keepdim: bool) -> Tensor:
        y = x.prod() if dim is None else x.prod(dim, True)
        ctx.save_for_backward(x, y)
        ctx.shape, ctx.dim = y.shape, dim
        return y if dim is None or keepdim else y.squeeze(dim)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        x, y = ctx.saved_tensors
        zeros = x == 0  # alive until the end, as locals of the formula
        counts = None if ctx.dim is None else zeros.sum(ctx.dim, True)
        if ctx.dim is None:
            del zeros
        found = grad.reshape(ctx.shape) * (y / x)
        del counts
        return found, None, None


class _Cumprod(torch.autograd.Function):
    """`cumprod_backward`: a cumulative sum from the end, divided by the input."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, dim: int) -> Tensor:
        y = x.cumprod(dim)
        ctx.save_for_backward(x, y)
        ctx.dim = dim
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        x, y = ctx.saved_tensors
        # All of these are alive until the formula returns.
        weighted, zeros = y * grad, x == 0
        turned = weighted.flip(ctx.dim)
        summed = turned.cumsum(ctx.dim)
        found = summed.flip(ctx.dim).div_(x)
        del zeros
        return found, None


class _Mish(torch.autograd.Function):
    """A kernel of one result, where meta has a formula of many."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return F.mish(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        found: Tensor = torch.ops.aten.silu_backward(grad, x)  # of the same size
        return found


def _prod(input: Tensor, dim: int | None = None, keepdim: bool = False, **options: Any) -> Tensor:
    if options or not _in_a_graph(input):
        return input.prod(**options) if dim is None else input.prod(dim, keepdim, **options)
    found: Tensor = _Prod.apply(input, dim, keepdim)
    return found


def _cumprod(input: Tensor, dim: int, **options: Any) -> Tensor:
    if options or not _in_a_graph(input):
        return input.cumprod(dim, **options)
    found: Tensor = _Cumprod.apply(input, dim)
    return found


def _mish(input: Tensor, inplace: bool = False) -> Tensor:
    if inplace or not _in_a_graph(input):
        return F.mish(input, inplace)
    found: Tensor = _Mish.apply(input)
    return found


def _in_a_graph(x: Tensor) -> bool:
    return torch.is_grad_enabled() and x.requires_grad and x.is_meta


FUNCTIONS: dict[Any, Callable[..., Tensor]] = {
    torch.prod: _prod,
    Tensor.prod: _prod,
    torch.cumprod: _cumprod,
    Tensor.cumprod: _cumprod,
    F.mish: _mish,
}
"""What is called in place of a function, so that its backward is the one on real tensors."""
