"""Results of the kernels that run under autograd, in a training forward and in a backward.

They are rules as those of `datbench.counting.shapes`. Some of torch's own meta kernels lay their
results out as no real kernel does. Tested against torch's CPU kernels and its profiler.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from .misfits import add_product, convolves, same_dtype, shape_rule
from .shapes import (
    channels_fastest,
    channels_last,
    contiguous,
    convolved,
    elementwise,
    like_map,
    max_pool2d,
    normalises_batch,
    normalises_rows,
    softmax,
)


def _like(x: Tensor) -> Tensor:
    return contiguous(x.shape, x.dtype)


_Gradients = tuple[Tensor | None, ...]


def _wanted(gradients: _Gradients, wanted: Sequence[bool]) -> _Gradients:
    """Those that are asked for; a kernel makes no others."""
    return tuple(t if want else None for t, want in zip(gradients, wanted, strict=True))


# Products


def _product(rank: int, a: Tensor, b: Tensor) -> Tensor | None:
    same_dtype(a, b)
    if not a.ndim == b.ndim == rank or a.shape[:-2] != b.shape[:-2] or a.shape[-1] != b.shape[-2]:
        return None
    return contiguous((*a.shape[:-1], b.shape[-1]), a.dtype)


shape_rule("mm")(partial(_product, 2))
shape_rule("bmm")(partial(_product, 3))


@shape_rule("addmm")
def _addmm(bias: Tensor, a: Tensor, b: Tensor, **scales: Any) -> Tensor | None:
    add_product(bias, a, b)
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[0]:
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
    options = (stride, padding, dilation, transposed, output_padding, groups)
    convolves(x, weight, bias, *options)
    return None if transposed else convolved(x, weight, stride, padding, dilation)


@shape_rule("convolution_backward")
def _convolution_backward(grad: Tensor, x: Tensor, weight: Tensor, *rest: Any) -> _Gradients:
    """The input's gradient has the input's layout, which torch's meta kernel forgets."""
    last = channels_fastest(x) or channels_fastest(weight)
    of_input = (channels_last if last else contiguous)(x.shape, x.dtype)
    of_bias = contiguous((grad.shape[1],), grad.dtype)
    return _wanted((of_input, _like(weight), of_bias), rest[-1])


# Normalisation, softmax, activations


def _statistics(x: Tensor) -> torch.dtype:
    """Mean and deviation are float32 for half precision."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32


@shape_rule("native_layer_norm")
def _layer_norm(
    x: Tensor, shape: Sequence[int], weight: Tensor | None, bias: Tensor | None, eps: float
) -> tuple[Tensor, Tensor, Tensor] | None:
    if not normalises_rows(x, shape, weight, bias):
        return None
    rows = (*x.shape[: x.ndim - len(shape)], *(1,) * len(shape))
    return _like(x), contiguous(rows, _statistics(x)), contiguous(rows, _statistics(x))


@shape_rule("native_layer_norm_backward")
def _layer_norm_backward(grad: Tensor, x: Tensor, *rest: Any) -> _Gradients:
    _, _, _, weight, bias, wanted = rest  # after the shape, the mean and the deviation
    return _wanted((_like(x), *(None if t is None else _like(t) for t in (weight, bias))), wanted)


@shape_rule("native_batch_norm")
def _batch_norm(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor | None,
    variance: Tensor | None,
    training: bool,
    *rest: Any,
) -> tuple[Tensor, Tensor, Tensor] | None:
    """Statistics are returned in training alone, as a CPU's kernel does."""
    if not normalises_batch(x, weight, bias, mean, variance, training):
        return None
    kept = x.dtype if weight is None else weight.dtype
    size = x.shape[1:2] if training else (0,)
    return like_map(x), contiguous(size, kept), contiguous(size, kept)


@shape_rule("native_batch_norm_backward")
def _batch_norm_backward(grad: Tensor, x: Tensor, weight: Tensor | None, *rest: Any) -> _Gradients:
    dtype = x.dtype if weight is None else weight.dtype
    of_channels = (contiguous(x.shape[1:2], dtype), contiguous(x.shape[1:2], dtype))
    return _wanted((like_map(x), *of_channels), rest[-1])


@shape_rule("native_group_norm")
def _group_norm(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    n: int,
    c: int,
    area: int,
    groups: int,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor] | None:
    if (
        x.ndim > 4
        or 0 in x.shape
        or any(t is not None and t.dtype != x.dtype for t in (weight, bias))
    ):
        return None
    return like_map(x), contiguous((n, groups), x.dtype), contiguous((n, groups), x.dtype)


@shape_rule("native_group_norm_backward")
def _group_norm_backward(grad: Tensor, x: Tensor, mean: Tensor, *rest: Any) -> _Gradients | None:
    if x.ndim > 4 or x.dtype != mean.dtype:
        return None
    channels = x.shape[1:2]
    return _wanted(
        (like_map(x), contiguous(channels, x.dtype), contiguous(channels, x.dtype)), rest[-1]
    )


@shape_rule("_softmax", "_log_softmax")
def _softmax(x: Tensor, dim: int, to_float: bool) -> Tensor:
    return softmax(x, dim, torch.float32 if to_float else None)


@shape_rule("_softmax_backward_data", "_log_softmax_backward_data")
def _softmax_backward(grad: Tensor, y: Tensor, dim: int, dtype: torch.dtype) -> Tensor:
    return contiguous(grad.shape, dtype)


_GRADIENT_FIRST = "gelu silu tanh sigmoid hardsigmoid hardswish hardtanh".split()


@shape_rule(*(f"{name}_backward" for name in _GRADIENT_FIRST))
def _activation_backward(grad: Tensor, x: Tensor, *rest: Any, **options: Any) -> Tensor | None:
    plain = grad.dtype == x.dtype and x.is_floating_point()
    return elementwise(x.dtype, grad, x) if plain else None


@shape_rule("threshold_backward", "leaky_relu_backward")
def _threshold_backward(grad: Tensor, x: Tensor, *rest: Any) -> Tensor | None:
    return _activation_backward(x, grad)


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


@shape_rule("slice_backward", "select_backward")
def _slice_backward(grad: Tensor, shape: Sequence[int], *rest: Any) -> Tensor:
    return contiguous(shape, grad.dtype)


# Sampling, pooling


@shape_rule("max_pool2d_with_indices")
def _max_pool2d(x: Tensor, *options: Any) -> tuple[Tensor, Tensor] | None:
    y = max_pool2d(x, *options)
    return None if y is None else (y, torch.empty_like(y, dtype=torch.int64))


@shape_rule("max_pool2d_with_indices_backward", "avg_pool2d_backward")
def _pool_backward(grad: Tensor, x: Tensor, *rest: Any) -> Tensor:
    return like_map(x)


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
