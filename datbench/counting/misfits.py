"""What torch's CPU kernels refuse, in their words, where a count on meta would let it pass.

A model that cannot run must not be counted. The rules in `shapes` answer only where the operands
fit. Torch's own meta kernels, which answer elsewhere, check less than its CPU kernels: what they
miss is checked here. Found, and tested, by running changed operands on both.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NoReturn

import torch
from torch import Tensor

from ..errors import Misfit

MISFITS: dict[str, Callable[..., None]] = {}
"""Check by operator name with overload; called with the operator's own arguments, all on meta."""


def check(name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    """Refuse operands of operator `name` that its CPU kernel refuses.

    Raises:
        RuntimeError, IndexError: what torch raises.
    """
    found = MISFITS.get(name)
    if found is not None:
        found(*args, **kwargs)


def _checks(*operators: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    def decorate(found: Callable[..., None]) -> Callable[..., None]:
        MISFITS.update(dict.fromkeys((f"aten::{name}" for name in operators), found))
        return found

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


def written(x: Tensor, *operands: Tensor) -> None:
    """Refuse operands that would make `x` larger."""
    whole = broadcast(x.shape, *(operand.shape for operand in operands))
    if whole != x.shape:
        refuse(f"output with shape {list(x.shape)} doesn't match the broadcast shape {list(whole)}")


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


def _same_dtype(*operands: Tensor | None) -> None:
    types = {x.dtype for x in operands if x is not None}
    if len(types) > 1:
        refuse(f"expected the same dtype, but got {' and '.join(map(str, types))}")


def _is_index(index: Tensor) -> None:
    if index.dtype not in (torch.int64, torch.int32):
        refuse(f"Expected dtype int32 or int64 for index, but got {index.dtype}", IndexError)


_FLOATING = "gelu silu hardswish hardsigmoid leaky_relu mish".split()


@_checks(*_FLOATING, *(f"{name}_" for name in _FLOATING), "softplus", "adaptive_avg_pool2d")
def _floating(x: Tensor, *rest: Any, **options: Any) -> None:
    if not x.is_floating_point():
        refuse(f"the operator is not implemented for {x.dtype}", NotImplementedError)


def _expands(shape: Sequence[int], to: Sequence[int]) -> None:
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


@_checks("softmax.int")
def _softmax(x: Tensor, dim: int, dtype: torch.dtype | None = None) -> None:
    dimension(dim, x.ndim)
    _floating(x if dtype is None else torch.empty(0, dtype=dtype))


@_checks("_softmax", "_log_softmax")
def _softmax_kernel(x: Tensor, dim: int, to_float: bool) -> None:
    _softmax(x, dim)


@_checks("sort", "argsort")
def _dim(x: Tensor, dim: int = -1, descending: bool = False) -> None:
    dimension(dim, x.ndim)


@_checks("sort.stable", "argsort.stable")
def _stable_dim(x: Tensor, *, dim: int = -1, **options: Any) -> None:
    dimension(dim, x.ndim)


# Products


@_checks("matmul")
def _matmul(a: Tensor, b: Tensor) -> None:
    _same_dtype(a, b)


@_checks("mm")
def _mm(a: Tensor, b: Tensor) -> None:
    _same_dtype(a, b)
    if not a.ndim == b.ndim == 2:
        refuse("self and mat2 must be matrices")


@_checks("bmm")
def _bmm(a: Tensor, b: Tensor) -> None:
    _same_dtype(a, b)
    if not a.ndim == b.ndim == 3:
        refuse("batch1 and batch2 must be 3D tensors")


def _multiplied(a: Tensor, b: Tensor) -> None:
    """Rows by a matrix."""
    if a.shape[-1] != b.shape[0]:
        refuse(
            f"mat1 and mat2 shapes cannot be multiplied ({a.numel() // max(a.shape[-1], 1)}x"
            f"{a.shape[-1]} and {b.shape[0]}x{b.shape[1]})"
        )


@_checks("linear")
def _linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> None:
    _same_dtype(x, weight, bias)
    if x.ndim < 1 or weight.ndim != 2:
        return
    if x.shape[-1] != weight.shape[1]:
        _multiplied(x, weight.t())
    if bias is not None:
        _expands(bias.shape, (*x.shape[:-1], weight.shape[0]))


@_checks("addmm", "addmv", "addr")
def _add_product(x: Tensor, a: Tensor, b: Tensor, **scales: Any) -> None:
    """`x` expands to the product of (n, k) and (k, m), of (n, k) and (k,), or of (n,) and (m,)."""
    if a.ndim > 1:
        _same_dtype(x, a, b)
    _expands(x.shape, a.shape[:1] + (b.shape if a.ndim == 1 else b.shape[1:]))


@_checks("addmm_", "addmv_", "addr_")
def _add_product_in_place(x: Tensor, a: Tensor, b: Tensor, **scales: Any) -> None:
    if a.ndim > 1:
        _same_dtype(x, a, b)
    product = a.shape[:1] + (b.shape if a.ndim == 1 else b.shape[1:])
    sizes = f"{list(x.shape)} and output tensor size {list(product)}"
    if x.shape != product:
        refuse(f"Bad in-place call: input tensor size {sizes} should match")


# Convolutions


def _convolution(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Sequence[int] = (1,),
    padding: Sequence[int] = (0,),
    dilation: Sequence[int] = (1,),
    transposed: bool = False,
    output_padding: Sequence[int] = (0,),
    groups: int = 1,
) -> None:
    sizes, given, rank = list(weight.shape), list(x.shape), weight.ndim
    _same_dtype(x, weight)
    if groups <= 0:
        refuse("non-positive groups is not supported")
    if min(stride) <= 0:
        refuse("non-positive stride is not supported")
    if min(dilation) <= 0:
        refuse("dilation should be greater than zero")
    if min(padding) < 0:
        refuse("negative padding is not supported")
    if min(output_padding) < 0:
        refuse("negative output_padding is not supported")
    if rank != x.ndim:
        refuse(
            f"Expected {rank}-dimensional input for {rank}-dimensional weight {sizes}, "
            f"but got {x.ndim}-dimensional input of size {given} instead"
        )
    if sizes[0] < groups or sizes[0] % groups != 0:
        refuse(
            f"Given groups={groups}, expected weight to be divisible by {groups} at dimension 0, "
            f"but got weight of size {sizes} instead"
        )
    how = "transposed=1" if transposed else f"groups={groups}"
    channels = sizes[0] if transposed else sizes[1] * groups
    if given[1] != channels:
        refuse(
            f"Given {how}, weight of size {sizes}, expected input{given} to have {channels} "
            f"channels, but got {given[1]} channels instead"
        )
    made = sizes[1] * groups if transposed else sizes[0]
    if bias is not None and bias.shape != (made,):
        refuse(
            f"Given {how}, weight of size {sizes}, expected bias to be 1-dimensional with {made} "
            f"elements, but got bias of size {[] if bias is None else list(bias.shape)} instead"
        )
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


@_checks("convolution")
def _any_convolution(x: Tensor, weight: Tensor, *rest: Any) -> None:
    _convolution(x, weight, *rest)


def _batched(rank: int, x: Tensor, weight: Tensor) -> Tensor:
    """With a batch of one where there is none."""
    if weight.ndim != rank + 2:
        refuse(
            f"Expected {rank + 2}-dimensional weight, but got weight of size {list(weight.shape)}"
        )
    return x[None] if x.ndim == rank + 1 else x


def _conv(
    rank: int,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Sequence[int] = (1,),
    padding: Sequence[int] | str = (0,),
    dilation: Sequence[int] = (1,),
    groups: int = 1,
) -> None:
    named = isinstance(padding, str)  # "same" and "valid" always fit, with a bias of any dtype
    _same_dtype(x, weight, None if named else bias)
    given = (0,) if isinstance(padding, str) else padding
    _convolution(_batched(rank, x, weight), weight, bias, stride, given, dilation, groups=groups)


def _conv_transpose(
    rank: int,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Sequence[int] = (1,),
    padding: Sequence[int] = (0,),
    output_padding: Sequence[int] = (0,),
    groups: int = 1,
    dilation: Sequence[int] = (1,),
) -> None:
    x = _batched(rank, x, weight)
    _convolution(x, weight, bias, stride, padding, dilation, True, output_padding, groups)


for _rank, _transpose in enumerate(("1d", "2d.input", "3d.input"), 1):
    _checks(f"conv{_rank}d", f"conv{_rank}d.padding")(partial(_conv, _rank))
    _checks(f"conv_transpose{_transpose}")(partial(_conv_transpose, _rank))


# Indexing and scattering


@_checks("index_select")
def _index_select(x: Tensor, dim: int, index: Tensor) -> None:
    dimension(dim, x.ndim)
    _is_index(index)
    if index.ndim > 1:
        refuse("index_select(): Index is supposed to be a vector", IndexError)
    if x.ndim == 0 and index.numel() != 1:
        refuse(
            f"index_select(): Index to scalar can have only 1 value, got {index.numel()} value(s)"
        )


@_checks("index_add", "index_add_", "index_reduce", "index_reduce_")
def _index_add(
    x: Tensor, dim: int, index: Tensor, source: Tensor, *rest: Any, **options: Any
) -> None:
    at = dimension(dim, x.ndim)
    _is_index(index)
    _same_dtype(x, source)
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


@_checks("index_put", "index_put_", "_index_put_impl_")
def _index_put(
    x: Tensor, indices: Sequence[Tensor | None], values: Tensor, *rest: Any, **options: Any
) -> None:
    _same_dtype(x, values)
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
        _expands(values.shape, torch.ops.aten.index.Tensor(x, indices).shape)


@_checks("put", "put_")
def _put(x: Tensor, index: Tensor, source: Tensor, accumulate: bool = False) -> None:
    _is_index(index)
    _same_dtype(x, source)
    if index.numel() != source.numel():
        refuse(
            "put_(): Expected source and index to have the same number of elements, but got "
            f"source.numel() = {source.numel()}, index.numel() = {index.numel()}",
            IndexError,
        )


@_checks("masked_scatter", "masked_fill.Scalar")
def _masked(x: Tensor, mask: Tensor, source: Any) -> None:
    if mask.dtype != torch.bool:
        refuse(f"expected a boolean mask, but got {mask.dtype}")
    broadcast(x.shape, mask.shape)


@_checks("masked_scatter_", "masked_fill_.Scalar")
def _masked_in_place(x: Tensor, mask: Tensor, source: Any) -> None:
    _masked(x, mask, source)
    written(x, mask)


@_checks("masked_fill.Tensor", "masked_fill_.Tensor")
def _masked_fill(x: Tensor, mask: Tensor, value: Tensor) -> None:
    _masked(x, mask, value)
    if value.ndim != 0:
        refuse(
            "masked_fill only supports a 0-dimensional value tensor, but got tensor with "
            f"{value.ndim} dimension(s)."
        )


@_checks("index_copy_")
def _index_copy(x: Tensor, dim: int, index: Tensor, source: Tensor) -> None:
    _is_index(index)
    _same_dtype(x, source)
    at, found, wanted = dimension(dim, x.ndim), list(source.shape), list(x.shape)
    apart = found[:at] + found[at + 1 :] != wanted[:at] + wanted[at + 1 :]
    if found and wanted and apart:  # torch 2.6 does not look on meta
        refuse(
            "index_copy_(): Source/destination tensor must have same slice shapes. "
            f"Destination shape {wanted}, source shape {found}, at dimension {at}"
        )


@_checks("index_fill_.int_Scalar")
def _index_fill(x: Tensor, dim: int, index: Tensor, value: Any) -> None:
    dimension(dim, x.ndim)
    _is_index(index)


def _slice_is(part: Tensor, source: Tensor) -> None:
    if part.shape != source.shape:
        refuse(
            "expected src to have a size equal to the slice of self. "
            f"src size = {list(source.shape)}, slice size = {list(part.shape)}"
        )


@_checks("slice_scatter")
def _slice_scatter(
    x: Tensor,
    source: Tensor,
    dim: int = 0,
    start: int | None = None,
    end: int | None = None,
    step: int = 1,
) -> None:
    _slice_is(torch.ops.aten.slice.Tensor(x, dim, start, end, step), source)


@_checks("select_scatter")
def _select_scatter(x: Tensor, source: Tensor, dim: int, index: int) -> None:
    _slice_is(x.select(dim, index), source)


@_checks("diagonal_scatter")
def _diagonal_scatter(
    x: Tensor, source: Tensor, offset: int = 0, dim1: int = 0, dim2: int = 1
) -> None:
    _slice_is(x.diagonal(offset, dim1, dim2), source)


# Losses, norms, resizing


@_checks("nll_loss2d_forward")
def _nll_loss(x: Tensor, target: Tensor, weight: Tensor | None, *rest: Any) -> None:
    if x.ndim != 4 or target.shape != (x.shape[0], *x.shape[2:]):
        refuse(f"size mismatch (got input: {list(x.shape)} , target: {list(target.shape)}")
    if weight is not None and weight.numel() != x.shape[1]:
        refuse("weight tensor should be defined either for all or no classes")


def _upsample(rank: int, x: Tensor, size: Sequence[int], *rest: Any) -> None:
    if x.ndim != rank:
        refuse(f"It is expected input_size equals to {rank}, but got size {x.ndim}")
    if min(size) <= 0 or 0 in x.shape[2:]:
        refuse(
            f"Input and output sizes should be greater than 0, but got input {list(x.shape[2:])} "
            f"output {list(size)}"
        )
    _floating(x)


def _scaled(
    rank: int,
    x: Tensor,
    size: Sequence[int] | None,
    corners: bool,
    scales: Sequence[float] | None,
) -> None:
    by_scale = [int(n * scale) for n, scale in zip(x.shape[2:], scales or (), strict=False)]
    _upsample(rank, x, size or by_scale or (1,))


for _rank, _names in enumerate(("linear1d", "bilinear2d bicubic2d", "trilinear3d"), 3):
    _checks(*(f"upsample_{name}" for name in _names.split()))(partial(_upsample, _rank))
    _checks(*(f"upsample_{name}.vec" for name in _names.split()))(partial(_scaled, _rank))


@_checks("upsample_nearest2d", "upsample_nearest2d.vec")
def _upsample_nearest(x: Tensor, *rest: Any) -> None:
    if x.dtype != torch.uint8:
        _floating(x)


@_checks("soft_margin_loss")
def _soft_margin_loss(x: Tensor, target: Tensor, *rest: Any) -> None:
    written(torch.empty_like(x), target)


@_checks("binary_cross_entropy_with_logits")
def _with_logits(x: Tensor, target: Tensor, weight: Tensor | None = None, *rest: Any) -> None:
    """Its sum is made in a tensor like the target."""
    written(torch.empty_like(target), x, *(() if weight is None else (weight,)))


@_checks("bucketize.Tensor")
def _bucketize(x: Tensor, boundaries: Tensor, **options: Any) -> None:
    if boundaries.ndim != 1:
        refuse(f"boundaries tensor must be 1 dimension, but got dim({boundaries.ndim})")


@_checks("batch_norm", "native_batch_norm")
def _batch_norm(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor | None,
    variance: Tensor | None,
    training: bool,
    *rest: Any,
) -> None:
    dimension(1, x.ndim)
    _floating(x)
    given = {"weight": weight, "bias": bias, "running_mean": mean, "running_var": variance}
    for name, each in given.items():
        if each is None:
            if name.startswith("running") and not training:
                refuse(f"{name} must be defined in evaluation mode")
        elif each.numel() != x.shape[1]:
            refuse(f"{name} should contain {x.shape[1]} elements not {each.numel()}")
    _mixed_types(x, *given.values())


def _mixed_types(x: Tensor, *given: Tensor | None) -> None:
    types = {each.dtype for each in given if each is not None}
    half = x.dtype in (torch.float16, torch.bfloat16)  # it may have float32 weights
    if not (types <= {x.dtype} or (half and types == {torch.float32})):
        refuse("mixed dtype (CPU): all inputs must share same datatype.")


@_checks("group_norm")
def _group_norm(
    x: Tensor, groups: int, weight: Tensor | None = None, bias: Tensor | None = None, *rest: Any
) -> None:
    _mixed_types(x, weight, bias)


@_checks("layer_norm", "native_layer_norm")
def _layer_norm(
    x: Tensor,
    shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    *rest: Any,
) -> None:
    sizes = list(shape)
    if not sizes or sizes != list(x.shape[-len(sizes) :]):
        refuse(
            f"Given normalized_shape={sizes}, expected input with shape [*, {str(sizes)[1:]}, "
            f"but got input of size{list(x.shape)}"
        )
    for name, given in (("weight", weight), ("bias", bias)):
        if given is None:
            continue
        if list(given.shape) != sizes:
            refuse(
                f"Expected {name} to be of same shape as normalized_shape, but got {name} of shape "
                f"{list(given.shape)} and normalized_shape = {sizes}"
            )
        # Half precision may have float32 weights.
        if x.dtype not in (torch.float16, torch.bfloat16) or given.dtype != torch.float32:
            _same_dtype(x, given)
    _floating(x)


@_checks("grid_sampler", "grid_sampler_2d")
def _grid_sampler(x: Tensor, grid: Tensor, *modes: Any) -> None:
    _same_dtype(x, grid)
    _floating(x)
    sizes = f"but got input with sizes {list(x.shape)} and grid with sizes {list(grid.shape)}"
    if x.ndim != grid.ndim:
        refuse(
            f"grid_sampler(): expected {x.ndim}D input and grid with same number of dimensions, "
            + sizes
        )
    if x.shape[:1] != grid.shape[:1]:
        refuse(f"grid_sampler(): expected grid and input to have same batch size, {sizes}")
    if grid.shape[-1:] != (x.ndim - 2,):
        refuse(
            f"grid_sampler(): expected grid to have size {x.ndim - 2} in last dimension, {sizes}"
        )


@_checks("scaled_dot_product_attention")
def _attention(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, *rest: Any, **options: Any
) -> None:
    _same_dtype(q, k, v)
    if mask is not None:
        if q.ndim == k.ndim == v.ndim == 4:  # the fused kernel's; others take one row for all
            dimension(-2, mask.ndim)
        whole = broadcast((q.shape[-2], k.shape[-2]), mask.shape[-2:])
        if whole != (q.shape[-2], k.shape[-2]):
            refuse(
                f"output with shape {[*q.shape[:-1], k.shape[-2]]} doesn't match the broadcast "
                f"shape {[*q.shape[:-2], *whole]}"
            )
