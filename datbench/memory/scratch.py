"""What kernels allocate for themselves and free before they return, from shapes alone.

Tested against torch's profiler.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor


def scratch(name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> int:
    """Bytes of it, where layouts tell; else 0 (workspaces of convolutions, of reductions)."""
    rule = _SCRATCH.get(name)
    return 0 if rule is None else rule(*args, **kwargs)


def _is_last(x: Tensor) -> bool:
    """Channels last, and not rows as well."""
    last = x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last)
    return last and not x.is_contiguous()


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
