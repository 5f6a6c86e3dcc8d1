"""Fused attention on meta, as CUDA's memory-efficient kernel does it.

On meta tensors torch takes the plain fallback, which keeps the attention weights. Here the call
goes to the fused operator, prepared as `scaled_dot_product_attention` prepares it on CUDA (ATen's
`transformers/attention.cpp`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import FunctionType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

ALIGNMENT = 16
"""Elements that a row of the bias is padded to (`mem_eff_alignment` there)."""


class FusedAttention(TorchFunctionMode):
    """Sends `scaled_dot_product_attention` on meta tensors to the fused operator.

    Args:
        lowered: what autocast makes of an operand; as it is without.
    """

    def __init__(self, lowered: Callable[[Any], Any] | None = None) -> None:
        super().__init__()
        self._lowered = lowered

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention:
            if self._lowered is not None:
                args = [self._lowered(x) for x in args]
                kwargs = {name: self._lowered(x) for name, x in kwargs.items()}
            return _attention(*args, **kwargs)
        if func in _ENTERED:
            with self:
                return _unasked(func)(*args, **kwargs)
        return func(*args, **kwargs)


def _attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Any:
    if enable_gqa or not _has_kernel(query, key, value):
        return F.scaled_dot_product_attention(
            query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa
        )
    bias = None if attn_mask is None else _bias(attn_mask, query, key)
    with_gradient = torch.is_grad_enabled() and any(
        x.requires_grad for x in (query, key, value, bias) if x is not None
    )
    fused = torch.ops.aten._scaled_dot_product_efficient_attention
    return fused(query, key, value, bias, with_gradient, dropout_p, is_causal, scale=scale)[0]


def _has_kernel(query: Tensor, key: Tensor, value: Tensor) -> bool:
    """Whether the kernel takes them: else CUDA falls back too (ATen's `cuda/sdp_utils.cpp`)."""
    return (
        query.is_meta
        and query.ndim == 4
        and query.shape[:2] == key.shape[:2]
        and query.dtype in (torch.float32, torch.bfloat16, torch.float16)
        and all(x.stride(-1) == 1 for x in (query, key, value))
        # Rows of 16 bytes, as its matrix products load them.
        and all(x.shape[-1] * x.element_size() % 16 == 0 for x in (query, value))
    )


def _bias(mask: Tensor, query: Tensor, key: Tensor) -> Tensor:
    """The mask as the kernel takes it: of the query's dtype, aligned rows, expanded."""
    if mask.dtype == torch.bool:
        mask = torch.zeros_like(mask, dtype=query.dtype).masked_fill_(~mask, float("-inf"))
    if mask.stride(-1) != 1 or any(stride % ALIGNMENT for stride in mask.stride()[:-1]):
        keys = mask.shape[-1]
        mask = F.pad(mask, (0, ALIGNMENT - keys % ALIGNMENT))[..., :keys]
    b, heads, n, _ = query.shape
    return mask.expand(b, heads, n, key.shape[2])


_ENTERED = (F.multi_head_attention_forward, torch.autograd.backward)
"""Python functions of torch's that call attention: the backward runs checkpointed modules again.
A function mode is off inside a function that it was asked about.
"""


def _unasked(function: Any) -> Any:
    """A copy of the function that asks no mode about itself."""
    names = {**function.__globals__, "has_torch_function": lambda _: False}
    copy = FunctionType(function.__code__, names, function.__name__, function.__defaults__)
    copy.__kwdefaults__ = function.__kwdefaults__
    return copy
