"""Results of the kernels that run under autograd, in a training forward and in a backward.

They are rules as those of `datbench.counting.shapes`. Some of torch's own meta kernels lay their
results out as no real kernel does. Tested against torch's CPU kernels and its profiler.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .shapes import are_dims, channels_last, contiguous, conv2d, elementwise, shape_rule


def _like(x: Tensor) -> Tensor:
    return contiguous(x.shape, x.dtype)


_Gradients = tuple[Tensor | None, ...]


def _wanted(gradients: _Gradients, wanted: Sequence[bool]) -> _Gradients:
    """Those that are asked for; a kernel makes no others."""
    return tuple(t if want else None for t, want in zip(gradients, wanted, strict=True))


# Products


@shape_rule("mm", "bmm")
def _mm(a: Tensor, b: Tensor) -> Tensor | None:
    if a.shape[:-2] != b.shape[:-2] or a.shape[-1] != b.shape[-2]:
        return None
    return contiguous((*a.shape[:-1], b.shape[-1]), a.dtype)


@shape_rule("addmm")
def _addmm(bias: Tensor, a: Tensor, b: Tensor, **scales: Any) -> Tensor | None:
    if a.shape[1] != b.shape[0]:
        return None
    return contiguous((a.shape[0], b.shape[1]), a.dtype)


@shape_rule("convolution")
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
    return conv2d(x, weight, bias, stride, padding, dilation, groups)


@shape_rule("convolution_backward")
def _convolution_backward(grad: Tensor, x: Tensor, weight: Tensor, *rest: Any) -> _Gradients:
    """The input's gradient has the input's layout, which torch's meta kernel forgets."""
    of_input = channels_last(x.shape, x.dtype) if is_last(x) else _like(x)
    of_bias = contiguous((grad.shape[1],), grad.dtype)
    return _wanted((of_input, _like(weight), of_bias), rest[-1])


def is_last(x: Tensor) -> bool:
    """Channels last, and not rows as well."""
    last = x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last)
    return last and not x.is_contiguous()


# Normalisation, softmax, activations


def _statistics(x: Tensor) -> torch.dtype:
    """Mean and deviation are float32 for half precision."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32


@shape_rule("native_layer_norm")
def _layer_norm(
    x: Tensor, shape: Sequence[int], weight: Tensor | None, bias: Tensor | None, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    rows = (*x.shape[: x.ndim - len(shape)], *(1,) * len(shape))
    return _like(x), contiguous(rows, _statistics(x)), contiguous(rows, _statistics(x))


@shape_rule("native_layer_norm_backward")
def _layer_norm_backward(grad: Tensor, x: Tensor, *rest: Any) -> _Gradients:
    _, _, _, weight, bias, wanted = rest  # after the shape, the mean and the deviation
    return _wanted((_like(x), *(None if t is None else _like(t) for t in (weight, bias))), wanted)


@shape_rule("_softmax", "_log_softmax")
def _softmax(x: Tensor, dim: int, to_float: bool) -> Tensor:
    return contiguous(x.shape, torch.float32 if to_float else x.dtype)


@shape_rule("_softmax_backward_data", "_log_softmax_backward_data")
def _softmax_backward(grad: Tensor, y: Tensor, dim: int, dtype: torch.dtype) -> Tensor:
    return contiguous(grad.shape, dtype)


@shape_rule("gelu_backward", "silu_backward", "tanh_backward", "threshold_backward")
def _activation_backward(grad: Tensor, x: Tensor, *rest: Any, **options: Any) -> Tensor:
    return elementwise(grad.dtype, grad, x)


@shape_rule("div.Scalar", "mul.Scalar")
def _scaled(x: Tensor, factor: float) -> Tensor | None:
    return elementwise(x.dtype, x) if x.is_floating_point() else None


@shape_rule("where.self")
def _where(condition: Tensor, a: Tensor, b: Tensor) -> Tensor | None:
    if condition.dtype != torch.bool:
        return None
    return elementwise(torch.result_type(a, b), condition, a, b)


@shape_rule("ones_like")
def _ones_like(x: Tensor, **options: Any) -> Tensor | None:
    given = [options.get(name) for name in ("dtype", "layout", "memory_format")]
    plain = all(option in (None, torch.preserve_format) for option in given)
    return elementwise(x.dtype, x) if plain else None


@shape_rule("mean.dim")
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


@shape_rule("grid_sampler_2d_backward")
def _grid_sampler_backward(
    grad: Tensor, x: Tensor, grid: Tensor, *rest: Any
) -> tuple[Tensor | None, Tensor]:
    wanted = rest[-1]
    return (_like(x) if wanted[0] else None), _like(grid)


# Fused attention: the memory-efficient kernel of CUDA, which takes any dtype and any bias.


@shape_rule("_scaled_dot_product_efficient_attention")
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


@shape_rule("_scaled_dot_product_efficient_attention_backward")
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
