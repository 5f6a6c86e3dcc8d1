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
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload

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
