"""What torch's CPU kernels refuse, in their words, where a count on meta would let it pass.

A model that cannot run must not be counted. The rules in `shapes` and `kernels` answer only where
the operands fit. Torch's own meta kernels, which answer elsewhere, check less than its CPU kernels:
what they miss is checked here. Found, and tested, by running changed operands on both.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NoReturn, TypeVar

import torch
from torch import Tensor

from ..errors import Misfit, first_line

ShapeRule = Callable[..., Any]
"""Called with the operator's own arguments, all on meta: refuses what does not fit, and returns the
result, or None if torch must be asked for it."""

SHAPES: dict[str, ShapeRule] = {}
"""Rule by operator name with overload, such as ``aten::add.Tensor``."""

Function = TypeVar("Function", bound=ShapeRule)


def shape_rule(*operators: str) -> Callable[[Function], Function]:
    """Make the decorated function the rule of these `aten` operators, such as ``add.Tensor``."""

    def decorate(rule: Function) -> Function:
        SHAPES.update(dict.fromkeys((f"aten::{name}" for name in operators), rule))
        return rule

    return decorate


_REFUSED: dict[type[Exception], type[Exception]] = {
    kind: type(kind.__name__, (kind, Misfit), {})
    for kind in (RuntimeError, IndexError, NotImplementedError)
}


def refuse(sentence: str, error: type[Exception] = RuntimeError) -> NoReturn:
    """Raise what torch raises, as a `Misfit` too."""
    raise _REFUSED[error](sentence)


# Sizes that operands share.


def broadcast(*shapes: Sequence[int]) -> tuple[int, ...]:
    """The shape that these broadcast to; `torch.broadcast_shapes` loads sympy.

    Raises:
        RuntimeError: they do not.
    """
    whole = tuple(shapes[0])
    for shape in shapes[1:]:
        if shape == whole:
            continue
        rank = max(len(whole), len(shape))
        a, b = ((1,) * (rank - len(sizes)) + tuple(sizes) for sizes in (whole, shape))
        for dim in reversed(range(rank)):
            if a[dim] != b[dim] and 1 not in (a[dim], b[dim]):
                refuse(
                    f"The size of tensor a ({a[dim]}) must match the size of tensor b ({b[dim]}) "
                    f"at non-singleton dimension {dim}"
                )
        whole = tuple(two if one == 1 else one for one, two in zip(a, b, strict=True))
    return whole


def stays(shape: tuple[int, ...], *others: Sequence[int]) -> None:
    """Refuse shapes that would make this one larger."""
    whole = broadcast(shape, *others)
    if whole != shape:
        refuse(f"output with shape {list(shape)} doesn't match the broadcast shape {list(whole)}")


def written(x: Tensor, *operands: Tensor) -> None:
    """Refuse operands that would make `x` larger."""
    stays(x.shape, *(operand.shape for operand in operands))


def apart(x: Tensor) -> None:
    """Refuse to write into elements that share their memory, those of an expanded tensor."""
    strides = zip(x.shape, x.stride(), strict=True)
    if x.numel() and any(size > 1 and not stride for size, stride in strides):
        refuse(
            "unsupported operation: more than one element of the written-to tensor refers to a "
            "single memory location. Please clone() the tensor before performing the operation."
        )


def castable(x: Tensor, operands: Sequence[Any]) -> None:
    """Refuse operands whose type does not fit into that of `x`: fractions into whole numbers."""
    for operand in operands:
        made = torch.result_type(x, operand)
        if not torch.can_cast(made, x.dtype):
            refuse(f"result type {made} can't be cast to the desired output type {x.dtype}")


def same_dtype(*operands: Tensor | None) -> None:
    """Refuse operands of several types."""
    types = {x.dtype for x in operands if x is not None}
    if len(types) > 1:
        refuse(f"expected the same dtype, but got {' and '.join(map(str, types))}")


def is_index(index: Tensor) -> None:
    """Refuse an index that is not of whole numbers."""
    if index.dtype not in (torch.int64, torch.int32):
        refuse(f"Expected dtype int32 or int64 for index, but got {index.dtype}", IndexError)


FLOATING = "gelu silu hardswish hardsigmoid leaky_relu mish".split()
"""Elementwise operators that refuse whole numbers."""


@shape_rule(*(f"{name}_" for name in FLOATING))
def floating(x: Tensor, *rest: Any, **options: Any) -> None:
    """Refuse whole numbers."""
    if not x.is_floating_point():
        refuse(f"the operator is not implemented for {x.dtype}", NotImplementedError)


def expands(shape: Sequence[int], to: Sequence[int]) -> None:
    """Refuse a shape that does not expand to another."""
    fits = len(shape) <= len(to) and all(
        one in (1, two) for one, two in zip(reversed(shape), reversed(to), strict=False)
    )
    if not fits:
        refuse(f"The expanded size {list(to)} must match the existing size {list(shape)}")


def dimension(dim: int, rank: int) -> int:
    """A dimension from the front.

    Raises:
        IndexError: a tensor of this rank does not have it.
    """
    rank = max(rank, 1)
    if not -rank <= dim < rank:
        refuse(
            f"Dimension out of range (expected to be in range of [{-rank}, {rank - 1}], "
            f"but got {dim})",
            IndexError,
        )
    return dim % rank


@shape_rule("sort", "argsort", "sort.stable", "argsort.stable", "index_fill_.int_Scalar")
def _dim(x: Tensor, dim: int = -1, *rest: Any, **options: Any) -> None:
    dimension(dim, x.ndim)


# Products


def _product(x: Tensor, a: Tensor, b: Tensor) -> tuple[int, ...]:
    """The shape of (n, k) @ (k, m), of (n, k) @ (k,), or of (n,) and (m,), that is added to `x`."""
    if a.ndim > 1:
        same_dtype(x, a, b)
    return a.shape[:1] + (b.shape if a.ndim == 1 else b.shape[1:])


@shape_rule("addmv")
def add_product(x: Tensor, a: Tensor, b: Tensor, **scales: Any) -> None:
    """Refuse what does not expand to the product."""
    expands(x.shape, _product(x, a, b))


@shape_rule("addmm_", "addmv_", "addr_")
def _add_product_in_place(x: Tensor, a: Tensor, b: Tensor, **scales: Any) -> None:
    product = _product(x, a, b)
    if x.shape != product:
        sizes = f"{list(x.shape)} and output tensor size {list(product)}"
        refuse(f"Bad in-place call: input tensor size {sizes} should match")


# Convolutions


def convolves(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
) -> None:
    """Refuse a convolution by torch's own check, which its meta kernel leaves out.

    The check is ATen's `check_shape_forward`; what asks for a backend goes through it first.
    """
    same_dtype(x, weight)
    if groups <= 0:  # torch 2.6 divides by it
        refuse("non-positive groups is not supported")
    if min(dilation) <= 0:
        refuse("dilation should be greater than zero")
    if min(output_padding) < 0:
        refuse("negative output_padding is not supported")
    options = (stride, padding, dilation, transposed, output_padding, groups, None)
    try:
        torch._C._select_conv_backend(x, weight, bias, *options)
    except RuntimeError as error:
        refuse(first_line(error))
    if transposed:
        _fits_transposed(x, weight, stride, padding, dilation, output_padding)


def _fits_transposed(x: Tensor, weight: Tensor, *options: Sequence[int]) -> None:
    each = [list(option) * (weight.ndim - 2 if len(option) == 1 else 1) for option in options]
    made = []
    for size, kernel, step, pad, gap, extra in zip(
        x.shape[2:], weight.shape[2:], *each, strict=True
    ):
        if extra >= max(step, gap):
            refuse(
                f"output padding must be smaller than either stride or dilation, but got {extra}"
            )
        made.append((size - 1) * step - 2 * pad + gap * (kernel - 1) + extra + 1)
    if min(made) <= 0:
        refuse(
            f"Given input size per channel: {list(x.shape[2:])}. Calculated output size per "
            f"channel: {made}. Output size is too small"
        )


def batched(rank: int, x: Tensor, weight: Tensor) -> Tensor:
    """With a batch of one where there is none."""
    if weight.ndim != rank + 2:
        refuse(
            f"Expected {rank + 2}-dimensional weight, but got weight of size {list(weight.shape)}"
        )
    return x[None] if x.ndim == rank + 1 else x


# Indexing and scattering


@shape_rule("index_select")
def _index_select(x: Tensor, dim: int, index: Tensor) -> None:
    dimension(dim, x.ndim)
    if index.ndim > 1:
        refuse("index_select(): Index is supposed to be a vector", IndexError)


@shape_rule("index_add", "index_add_", "index_reduce", "index_reduce_")
def _index_add(
    x: Tensor, dim: int, index: Tensor, source: Tensor, *rest: Any, **options: Any
) -> None:
    at = dimension(dim, x.ndim)
    is_index(index)
    same_dtype(x, source)
    if index.ndim > 1:
        refuse("index_add_(): Index is supposed to be a vector", IndexError)
    found, wanted = list(source.shape), list(x.shape)
    if len(found) != len(wanted) or found[:at] + found[at + 1 :] != wanted[:at] + wanted[at + 1 :]:
        refuse(
            "source tensor shape must match self tensor shape, excluding the specified dimension. "
            f"Got self.shape = {list(x.shape)} source.shape = {list(source.shape)}"
        )
    if index.numel() != (found[at] if found else 1):
        refuse(
            f"Number of indices ({index.numel()}) should be equal to source.size(dim): "
            f"({(found or [1])[at]}), for dim: {at}"
        )


@shape_rule("index_put", "index_put_", "_index_put_impl_")
def _index_put(
    x: Tensor, indices: Sequence[Tensor | None], values: Tensor, *rest: Any, **options: Any
) -> None:
    same_dtype(x, values)
    at = 0
    for index in indices:
        if index is not None and index.dtype in (torch.bool, torch.uint8):
            for dim, size in enumerate(index.shape, at):
                if dim >= x.ndim or size != x.shape[dim]:
                    refuse(
                        f"The shape of the mask {list(index.shape)} at index {dim - at} does not "
                        f"match the shape of the indexed tensor {list(x.shape)} at index {dim}",
                        IndexError,
                    )
            at += index.ndim
        else:
            at += 1
    if at == len(indices) <= x.ndim:  # a mask's elements are not known
        expands(values.shape, torch.ops.aten.index.Tensor(x, indices).shape)


@shape_rule("put", "put_")
def _put(x: Tensor, index: Tensor, source: Tensor, accumulate: bool = False) -> None:
    is_index(index)
    same_dtype(x, source)
    if index.numel() != source.numel():
        refuse(
            "put_(): Expected source and index to have the same number of elements, but got "
            f"source.numel() = {source.numel()}, index.numel() = {index.numel()}",
            IndexError,
        )


@shape_rule("masked_scatter")
def masked(x: Tensor, mask: Tensor, source: Any) -> None:
    """Refuse a mask that does not fit.

    Raises:
        RuntimeError: it does not broadcast, or holds no truth values.
    """
    if mask.dtype != torch.bool:
        refuse(f"expected a boolean mask, but got {mask.dtype}")
    broadcast(x.shape, mask.shape)


@shape_rule("masked_scatter_", "masked_fill_.Scalar")
def _masked_in_place(x: Tensor, mask: Tensor, source: Any) -> None:
    masked(x, mask, source)
    written(x, mask)


@shape_rule("masked_fill.Tensor", "masked_fill_.Tensor")
def _masked_fill(x: Tensor, mask: Tensor, value: Tensor) -> None:
    masked(x, mask, value)
    if value.ndim != 0:
        refuse(
            "masked_fill only supports a 0-dimensional value tensor, but got tensor with "
            f"{value.ndim} dimension(s)."
        )


@shape_rule("index_copy_")
def _index_copy(x: Tensor, dim: int, index: Tensor, source: Tensor) -> None:
    is_index(index)
    same_dtype(x, source)
    at, found, wanted = dimension(dim, x.ndim), list(source.shape), list(x.shape)
    apart = found[:at] + found[at + 1 :] != wanted[:at] + wanted[at + 1 :]
    if found and wanted and apart:  # torch 2.6 does not look on meta
        refuse(
            "index_copy_(): Source/destination tensor must have same slice shapes. "
            f"Destination shape {wanted}, source shape {found}, at dimension {at}"
        )


def _scatter(view: Callable[..., Tensor], x: Tensor, source: Tensor, *where: Any) -> None:
    part = view(x, *where)
    if part.shape != source.shape:
        refuse(
            "expected src to have a size equal to the slice of self. "
            f"src size = {list(source.shape)}, slice size = {list(part.shape)}"
        )


for _name, _view in (
    ("slice_scatter", torch.ops.aten.slice.Tensor),
    ("select_scatter", torch.ops.aten.select.int),
    ("diagonal_scatter", torch.ops.aten.diagonal.default),
):
    shape_rule(_name)(partial(_scatter, _view))


# Losses, norms


@shape_rule("nll_loss2d_forward")
def _nll_loss(x: Tensor, target: Tensor, weight: Tensor | None, *rest: Any) -> None:
    if x.ndim != 4 or target.shape != (x.shape[0], *x.shape[2:]):
        refuse(f"size mismatch (got input: {list(x.shape)} , target: {list(target.shape)}")
    if weight is not None and weight.numel() != x.shape[1]:
        refuse("weight tensor should be defined either for all or no classes")


@shape_rule("soft_margin_loss")
def _soft_margin_loss(x: Tensor, target: Tensor, *rest: Any) -> None:
    written(torch.empty_like(x), target)


@shape_rule("binary_cross_entropy_with_logits")
def _with_logits(x: Tensor, target: Tensor, weight: Tensor | None = None, *rest: Any) -> None:
    """Its sum is made in a tensor like the target."""
    written(torch.empty_like(target), x, *(() if weight is None else (weight,)))


@shape_rule("bucketize.Tensor")
def _bucketize(x: Tensor, boundaries: Tensor, **options: Any) -> None:
    if boundaries.ndim != 1:
        refuse(f"boundaries tensor must be 1 dimension, but got dim({boundaries.ndim})")


def weights(x: Tensor, *given: Tensor | None) -> list[Tensor]:
    """Weights and statistics of a norm; those of another type than `x` are refused."""
    found = [each for each in given if each is not None]
    types = {each.dtype for each in found}
    half = x.dtype in (torch.float16, torch.bfloat16)  # it may have float32 weights
    if not (types <= {x.dtype} or (half and types == {torch.float32})):
        refuse("mixed dtype (CPU): all inputs must share same datatype.")
    return found
