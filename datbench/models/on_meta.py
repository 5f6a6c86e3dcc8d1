"""Where a model is built: on meta, without the work of initialising what holds no values."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor
from torch.nn import init
from torch.utils._device import DeviceContext

_INITIALISERS = frozenset({init.constant_, init.kaiming_uniform_, init.normal_, init.uniform_})
"""The others of `torch.nn.init` call what stands below."""

_IN_PLACE = frozenset(
    {
        Tensor.add_,  # this and the next two: how a truncated normal is made
        Tensor.clamp_,
        Tensor.erfinv_,
        Tensor.fill_,
        Tensor.mul_,
        Tensor.normal_,
        Tensor.uniform_,
        Tensor.zero_,
    }
)
"""What initialisers are made of."""


class _OnMeta(DeviceContext):
    """`torch.device("meta")` in which a tensor is not filled: that is a third of a build."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        named: dict[str, Any] = kwargs or {}
        if func in _INITIALISERS:
            tensor = args[0] if args else named["tensor"]
            if tensor.is_meta and (tensor.dim() > 1 or func is not init.kaiming_uniform_):
                return tensor
        elif func in _IN_PLACE:
            tensor, *others = [*args, *named.values()]
            # Another tensor may not fit, and a parameter may not be written under autograd.
            fits = not any(isinstance(other, Tensor) for other in others)
            if tensor.is_meta and fits and not (tensor.requires_grad and torch.is_grad_enabled()):
                return tensor
        return super().__torch_function__(func, types, args, named)  # type: ignore[no-untyped-call]


def on_device(device: torch.device | str) -> AbstractContextManager[Any]:
    """`with torch.device(device)`, quicker on meta."""
    device = torch.device(device)
    return _OnMeta(device) if device.type == "meta" else device
