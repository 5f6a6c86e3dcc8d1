"""CUDA's autocast, acting on meta tensors.

Torch's own takes CUDA tensors alone. Here a Python kernel stands at an autocast key that no backend
registers anything for, for every operator that torch registers one for at CUDA's. It casts as that
one does, above autograd, so casts are recorded and kept as in training. Tests compare operators
and types with torch's own autocast on fake CUDA tensors.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import FunctionType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch._ops import OpOverload
from torch.overrides import TorchFunctionMode

from ..counting.shapes import attends
from .backwards import FUNCTIONS

_NAME = "AutocastPrivateUse1"

# What each operator that is registered for CUDA's autocast does (ATen's autocast_mode.h). Those
# in none of these sets cast what they take to float32.
_LOW = frozenset(
    """
    _convolution _cudnn_rnn _scaled_dot_product_flash_attention _thnn_fused_gru_cell
    _thnn_fused_lstm_cell addbmm addmm addmv addr baddbmm bmm chain_matmul conv1d conv2d conv3d
    conv_tbc conv_transpose1d conv_transpose2d conv_transpose3d convolution cudnn_convolution
    cudnn_convolution_transpose einsum gru_cell linalg_multi_dot linalg_vecdot linear lstm_cell
    matmul mm mv prelu rnn_relu_cell rnn_tanh_cell scaled_dot_product_attention
    """.split()
)

_FLOAT_RESULT = frozenset(
    """
    prod softmax log_softmax cumprod cumsum linalg_vector_norm linalg_matrix_norm sum
    """.split()
)

_WIDEST = frozenset(
    """
    addcdiv addcmul atan2 bilinear cross dot vdot grid_sampler index_put tensordot scatter_add
    """.split()
)

_HALF_TO_FLOAT: dict[str, Callable[..., Tensor]] = {
    "softmax": torch._softmax,
    "log_softmax": torch._log_softmax,
}
"""CUDA's kernels of these read float16 and write float32."""


class Autocast:
    """Autocast to `dtype` while `casting()`; elsewhere under `installed()` it only watches.

    Whether it is on is told by torch's own flag for the CPU, which acts on no meta tensor: a
    checkpointed module that runs again in the backward finds it as it was in the forward.
    """

    def __init__(self, dtype: torch.dtype) -> None:
        self._dtype = dtype
        # Leaves by identity, alive as long as their casts are.
        self._casts: dict[int, tuple[weakref.ref[Tensor], Tensor]] = {}
        self._key: Any = torch._C._dispatch_key_parse(_NAME)
        self._keys = torch._C.DispatchKeySet(self._key)

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Kernels in place, for this thread."""
        make: Any = torch.library.Library
        libraries = {name: make(name, "IMPL") for name in ("_", "aten")}
        excluded = torch._C._dispatch_tls_is_dispatch_key_excluded(self._key)
        try:
            libraries["_"].fallback(torch.library.fallthrough_kernel, _NAME)
            for name in torch._C._dispatch_get_registrations_for_dispatch_key("AutocastCUDA"):
                if name.startswith("aten::"):  # torchvision's are of detectors
                    operator = _operator(name)
                    libraries["aten"].impl(operator, self._kernel(operator), _NAME)
            torch._C._dispatch_tls_set_dispatch_key_excluded(self._key, False)
            with torch._C._IncludeDispatchKeyGuard(self._key):
                yield
        finally:
            torch._C._dispatch_tls_set_dispatch_key_excluded(self._key, excluded)
            for library in libraries.values():
                library._destroy()
            self._casts.clear()

    @contextmanager
    def casting(self) -> Iterator[None]:
        """Casts inside; the weights' casts are forgotten at the end."""
        with torch.autocast("cpu", dtype=self._dtype):
            yield
        self._casts.clear()

    def lowered(self, x: Any) -> Any:
        """A tensor as operators in low precision take it, where casting is on."""
        return self._cast(x, self._dtype) if torch.is_autocast_enabled("cpu") else x

    def _kernel(self, operator: OpOverload) -> Callable[..., Any]:
        prepare = self._preparation(operator)

        def kernel(*args: Any, **kwargs: Any) -> Any:
            with torch._C._ExcludeDispatchKeyGuard(self._keys):
                if not torch.is_autocast_enabled("cpu"):
                    self._casts.clear()  # what ran again in the backward has ended
                    return operator(*args, **kwargs)
                return prepare(args, kwargs)

        return kernel

    def _preparation(self, operator: OpOverload) -> Callable[..., Any]:
        """From the operator's arguments to its result."""
        name = operator._schema.name.removeprefix("aten::")

        def cast(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
            to = torch.float32
            if name in _LOW:
                to = self._dtype
            elif name in _WIDEST:
                to = self._widest([*args, *kwargs.values()])
            return operator(
                *(self._cast(x, to) for x in args),
                **{key: self._cast(x, to) for key, x in kwargs.items()},
            )

        if name not in _FLOAT_RESULT:
            return cast
        at = [argument.name for argument in operator._schema.arguments].index("dtype")

        def set_result(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
            x, given = args[0], args[at] if len(args) > at else kwargs.get("dtype")
            if given is not None or not _is_eligible(x):
                return operator(*args, **kwargs)
            if name in _HALF_TO_FLOAT and x.dtype == torch.float16:
                return _HALF_TO_FLOAT[name](x, args[1], True)
            return operator(*args[:at], **{**kwargs, "dtype": torch.float32})

        return set_result

    def _widest(self, args: Sequence[Any]) -> torch.dtype:
        floats = any(_is_eligible(x) and x.dtype == torch.float32 for x in args)
        return torch.float32 if floats else self._dtype

    def _cast(self, x: Any, to: torch.dtype) -> Any:
        if isinstance(x, (list, tuple)):
            return [self._cast(element, to) for element in x]
        if not _is_eligible(x) or x.dtype == to:
            return x
        leaf = to == self._dtype and x.dtype == torch.float32 and x.is_leaf and x.requires_grad
        if not leaf or x._is_view():
            return x.to(to)
        found = self._casts.get(id(x))
        if found is None or found[0]() is not x:
            found = self._casts[id(x)] = (weakref.ref(x), x.to(to))
        return found[1]


def _operator(name: str) -> OpOverload:
    """`aten::softmax.int` as torch's Python has it."""
    base, _, overload = name.removeprefix("aten::").partition(".")
    found: OpOverload = getattr(getattr(torch.ops.aten, base), overload or "default")
    return found


def _is_eligible(x: Any) -> bool:
    """Whether autocast touches it: floating, and not float64."""
    return (
        isinstance(x, Tensor) and x.is_meta and x.is_floating_point() and x.dtype != torch.float64
    )


# Fused attention on meta, as CUDA's memory-efficient kernel does it.
#
# On meta tensors torch takes the plain fallback, which keeps the attention weights. Here the call
# goes to the fused operator, prepared as `scaled_dot_product_attention` prepares it on CUDA (ATen's
# `transformers/attention.cpp`).


ALIGNMENT = 16
"""Elements that a row of the bias is padded to (`mem_eff_alignment` there)."""


class FusedAttention(TorchFunctionMode):
    """Sends `scaled_dot_product_attention` on meta tensors to the fused operator, and functions
    with another backward on real tensors to that one.

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
        if func in FUNCTIONS:
            return FUNCTIONS[func](*args, **kwargs)
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
    odd = attn_mask is not None and (
        is_causal or attn_mask.dtype not in (torch.bool, query.dtype) or attn_mask.ndim > 4
    )
    if enable_gqa or odd or not _has_kernel(query, key, value):
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
        and attends(query, key, value)
        and query.dtype in (torch.float32, torch.bfloat16, torch.float16)
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
