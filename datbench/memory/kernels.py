"""What kernels under autograd return, and what they allocate for themselves, from shapes alone.

Torch's own meta kernels for these are Python code that loads the compiler, and some lay their
results out as no real kernel does. A rule answers for the plain case and returns None for any
other, which torch then answers or refuses. Rules and scratch are tested against torch's profiler.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..counting.misfits import check
from ..counting.shapes import (
    are_dims,
    channels_last,
    contiguous,
    elementwise,
    predict,
    rules_of,
)

KERNELS: dict[str, Callable[..., Any]] = {}
"""Rule by operator name with overload; called with the operator's own arguments."""

kernel = rules_of(KERNELS)


def result(name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """What operator `name` returns for meta tensors; None if torch must be asked.

    Raises:
        RuntimeError, IndexError: what torch's CPU kernel raises for these operands.
    """
    rule = KERNELS.get(name)
    if rule is None or not all(x.is_meta for x in args if isinstance(x, Tensor)):
        return None
    check(name, args, kwargs)
    return rule(*args, **kwargs)


def _like(x: Tensor) -> Tensor:
    return contiguous(x.shape, x.dtype)


_Gradients = tuple[Tensor | None, ...]


def _wanted(gradients: _Gradients, wanted: Sequence[bool]) -> _Gradients:
    """Those that are asked for; a kernel makes no others."""
    return tuple(t if want else None for t, want in zip(gradients, wanted, strict=True))


# Products


@kernel("mm", "bmm")
def _mm(a: Tensor, b: Tensor) -> Tensor | None:
    if a.shape[:-2] != b.shape[:-2] or a.shape[-1] != b.shape[-2]:
        return None
    return contiguous((*a.shape[:-1], b.shape[-1]), a.dtype)


@kernel("addmm")
def _addmm(bias: Tensor, a: Tensor, b: Tensor, **scales: Any) -> Tensor | None:
    if a.shape[1] != b.shape[0]:
        return None
    return contiguous((a.shape[0], b.shape[1]), a.dtype)


@kernel("convolution")
def _convolution(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
) -> Tensor | None:
    if transposed or len(stride) != 2:
        return None
    return predict("aten::conv2d", (x, weight, bias, stride, padding, dilation, groups), {})


@kernel("convolution_backward")
def _convolution_backward(grad: Tensor, x: Tensor, weight: Tensor, *rest: Any) -> _Gradients:
    """The input's gradient has the input's layout, which torch's meta kernel forgets."""
    of_input = channels_last(x.shape, x.dtype) if _is_last(x) else _like(x)
    of_bias = contiguous((grad.shape[1],), grad.dtype)
    return _wanted((of_input, _like(weight), of_bias), rest[-1])


def _is_last(x: Tensor) -> bool:
    """Channels last, and not rows as well."""
    last = x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last)
    return last and not x.is_contiguous()


# Normalisation, softmax, activations


def _statistics(x: Tensor) -> torch.dtype:
    """Mean and deviation are float32 for half precision."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32


@kernel("native_layer_norm")
def _layer_norm(
    x: Tensor, shape: Sequence[int], weight: Tensor | None, bias: Tensor | None, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    rows = (*x.shape[: x.ndim - len(shape)], *(1,) * len(shape))
    return _like(x), contiguous(rows, _statistics(x)), contiguous(rows, _statistics(x))


@kernel("native_layer_norm_backward")
def _layer_norm_backward(grad: Tensor, x: Tensor, *rest: Any) -> _Gradients:
    _, _, _, weight, bias, wanted = rest  # after the shape, the mean and the deviation
    return _wanted((_like(x), *(None if t is None else _like(t) for t in (weight, bias))), wanted)


@kernel("_softmax", "_log_softmax")
def _softmax(x: Tensor, dim: int, to_float: bool) -> Tensor:
    return contiguous(x.shape, torch.float32 if to_float else x.dtype)


@kernel("_softmax_backward_data", "_log_softmax_backward_data")
def _softmax_backward(grad: Tensor, y: Tensor, dim: int, dtype: torch.dtype) -> Tensor:
    return contiguous(grad.shape, dtype)


@kernel("gelu_backward", "silu_backward", "tanh_backward", "threshold_backward")
def _activation_backward(grad: Tensor, x: Tensor, *rest: Any, **options: Any) -> Tensor:
    return elementwise(grad.dtype, grad, x)


@kernel("div.Scalar", "mul.Scalar")
def _scaled(x: Tensor, factor: float) -> Tensor | None:
    return elementwise(x.dtype, x) if x.is_floating_point() else None


@kernel("where.self")
def _where(condition: Tensor, a: Tensor, b: Tensor) -> Tensor | None:
    if condition.dtype != torch.bool:
        return None
    return elementwise(torch.result_type(a, b), condition, a, b)


@kernel("index.Tensor")
def _index(x: Tensor, indices: Sequence[Tensor | None]) -> Tensor | None:
    """One index tensor, after any number of whole dimensions."""
    at = [i for i, index in enumerate(indices) if index is not None]
    if len(at) != 1 or len(indices) > x.ndim or not x.is_contiguous():
        return None
    index = indices[at[0]]
    if index is None or index.dtype != torch.int64 or not index.is_contiguous():
        return None
    return contiguous((*x.shape[: at[0]], *index.shape, *x.shape[at[0] + 1 :]), x.dtype)


@kernel("ones_like")
def _ones_like(x: Tensor, **options: Any) -> Tensor | None:
    given = [options.get(name) for name in ("dtype", "layout", "memory_format")]
    plain = all(option in (None, torch.preserve_format) for option in given)
    return elementwise(x.dtype, x) if plain else None


@kernel("mean.dim")
def _mean(
    x: Tensor, dims: Sequence[int], keep: bool = False, *, dtype: torch.dtype | None = None
) -> Tensor | None:
    """The mean of whole maps, for pooling to one pixel."""
    if x.ndim != 4 or not are_dims(dims, x) or {dim % 4 for dim in dims} != {2, 3}:
        return None
    if dtype is not None or not x.is_floating_point():
        return None
    return contiguous((*x.shape[:2], *((1, 1) if keep else ())), x.dtype)


# Sampling


@kernel("grid_sampler_2d")
def _grid_sampler(x: Tensor, grid: Tensor, *modes: Any) -> Tensor | None:
    return predict("aten::grid_sampler", (x, grid), {})


@kernel("grid_sampler_2d_backward")
def _grid_sampler_backward(
    grad: Tensor, x: Tensor, grid: Tensor, *rest: Any
) -> tuple[Tensor | None, Tensor]:
    wanted = rest[-1]
    return (_like(x) if wanted[0] else None), _like(grid)


# Fused attention: the memory-efficient kernel of CUDA, which takes any dtype and any bias.


@kernel("_scaled_dot_product_efficient_attention")
def _attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: Tensor | None,
    with_logsumexp: bool,
    *rest: Any,
    **options: Any,
) -> tuple[Tensor, ...]:
    b, heads, n, _ = q.shape
    y = contiguous((b, n, heads, v.shape[-1]), q.dtype).transpose(1, 2)
    # Padded to 32 queries (kAlignLSE in ATen's mem_eff_attention/kernel_forward.h).
    padded = -(-n // 32) * 32 if with_logsumexp else 0
    seed, offset = contiguous((), torch.int64), contiguous((), torch.int64)
    return y, contiguous((b, heads, padded), torch.float32), seed, offset


@kernel("_scaled_dot_product_efficient_attention_backward")
def _attention_backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, *rest: Any, **options: Any
) -> _Gradients:
    def transposed(x: Tensor) -> Tensor:
        b, heads, n, d = x.shape
        return contiguous((b, n, heads, d), x.dtype).transpose(1, 2)

    wanted = rest[5]  # after out, logsumexp, seed, offset, dropout
    of_bias = None
    if bias is not None and wanted[3]:
        *lead, keys = bias.shape
        # Rows padded to 16 elements, as the kernel stores them (ATen's attention_backward.cu).
        of_bias = contiguous((*lead, -(-keys // 16) * 16), bias.dtype)[..., :keys]
    return _wanted((transposed(q), transposed(k), transposed(v), of_bias), wanted)


# Scratch: what a kernel allocates for itself and frees before it returns.


def scratch(name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> int:
    """Bytes of it, where layouts tell; else 0 (workspaces of convolutions, of reductions)."""
    rule = _SCRATCH.get(name)
    return 0 if rule is None else rule(*args, **kwargs)


def _size(x: Tensor) -> int:
    return x.numel() * x.element_size()


def _copied(*tensors: Tensor | None) -> int:
    """Kernels that want rows copy what has another layout."""
    return sum(_size(x) for x in tensors if x is not None and not x.is_contiguous())


def _safe_softmax_scratch(x: Tensor, dim: int, dtype: torch.dtype | None = None) -> int:
    """Which logits are minus infinity, and in which rows all are: a byte for each."""
    return x.numel() + x.numel() // max(x.shape[dim], 1)


def _roll_scratch(x: Tensor, shifts: Sequence[int], dims: Sequence[int] = ()) -> int:
    """One dimension after another, each into a tensor of its own."""
    return _size(x) * max(len(dims) - 1, 0)


def _selecting_scratch(x: Tensor, *rest: Any) -> int:
    """The dimension is sorted in a copy, with an index for each element."""
    return _size(x) + 8 * x.numel()


def _logsumexp_scratch(x: Tensor, dims: Sequence[int], keep: bool = False) -> int:
    """The exponentials, and the maxima."""
    kept = math.prod(side for i, side in enumerate(x.shape) if i not in [d % x.ndim for d in dims])
    return _size(x) + kept * x.element_size()


def _fft_scratch(x: Tensor, dims: Sequence[int], *rest: Any) -> int:
    """A copy in which the transformed dimensions are the last ones (`_exec_fft` in ATen's
    SpectralOps.cpp).
    """
    last = {d % x.ndim for d in dims}
    order = [*(d for d in range(x.ndim) if d not in last), *sorted(last)]
    return _copied(x.permute(order))


def _fft_c2r_scratch(x: Tensor, dims: Sequence[int], *rest: Any) -> int:
    """All dimensions but the last are transformed first, into a tensor of their own."""
    return _size(x) + _fft_scratch(x, dims[:-1]) if len(dims) > 1 else _fft_scratch(x, dims)


def _group_norm_scratch(*tensors: Tensor) -> int:
    return sum(_copied(x) for x in tensors if not _is_last(x))


def _loss_scratch(x: Tensor, target: Tensor, *rest: Any) -> int:
    """Its elements twice before they are reduced to a mean (ATen's Loss.cpp)."""
    plain = torch.result_type(x, target).itemsize * x.numel()
    return 2 * plain if not rest or rest[0] else 0


def _antialias_scratch(x: Tensor, size: Sequence[int], *rest: Any) -> int:
    """Rows are resized first, then columns."""
    return _size(x) // max(x.shape[-1], 1) * size[-1]


def _convolution_scratch(x: Tensor, weight: Tensor, *rest: Any) -> int:
    """A copy of what is in neither layout; weights put into the input's, then into blocks."""
    return _relaid(weight) + _size(weight) if _is_last(x) else _copied(x)


def _convolution_backward_scratch(grad: Tensor, x: Tensor, weight: Tensor, *rest: Any) -> int:
    """The weights in the input's layout, and their gradient in two more than the returned one."""
    if _is_last(x):
        copied = 0 if grad.is_contiguous(memory_format=torch.channels_last) else _size(grad)
        return copied + _relaid(weight) + 2 * _size(weight)
    return _copied(x, grad)


def _relaid(weight: Tensor) -> int:
    return 0 if weight.is_contiguous(memory_format=torch.channels_last) else _size(weight)


_SCRATCH: dict[str, Callable[..., int]] = {
    "aten::native_group_norm": lambda x, *rest: _group_norm_scratch(x),
    "aten::native_group_norm_backward": lambda grad, x, *rest: _group_norm_scratch(grad, x),
    "aten::_upsample_bilinear2d_aa": _antialias_scratch,
    "aten::_upsample_bicubic2d_aa": _antialias_scratch,
    # Without a weight the gradient is made twice.
    "aten::native_batch_norm_backward": lambda grad, x, weight, *rest: (
        _size(x) if weight is None else 0
    ),
    "aten::mse_loss": _loss_scratch,
    "aten::smooth_l1_loss": _loss_scratch,
    "aten::median.dim": lambda x, *rest: _size(x),
    "aten::kthvalue": _selecting_scratch,
    "aten::logsumexp": _logsumexp_scratch,
    "aten::abs": lambda x: _size(x) if x.is_complex() else 0,
    "aten::_fft_c2r": _fft_c2r_scratch,
    "aten::_fft_c2c": _fft_scratch,
    "aten::_fft_r2c": lambda x, dims, *rest: _fft_scratch(x, dims[-1:]),
    "aten::native_layer_norm": lambda x, *rest: _copied(x),
    "aten::native_layer_norm_backward": lambda grad, x, *rest: _copied(grad, x),
    "aten::_softmax": lambda x, *rest: _copied(x),
    "aten::_log_softmax": lambda x, *rest: _copied(x),
    "aten::_safe_softmax": _safe_softmax_scratch,
    "aten::roll": _roll_scratch,
    "aten::convolution": _convolution_scratch,
    "aten::convolution_backward": _convolution_backward_scratch,
}
