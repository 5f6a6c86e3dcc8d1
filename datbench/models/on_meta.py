"""Where a model is built: on meta, without the work of initialising what holds no values."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor
from torch.nn import init
from torch.utils._device import DeviceContext

_FILLS = frozenset(
    {
        init.constant_,
        init.kaiming_uniform_,
        init.normal_,
        init.uniform_,
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
"""What initialisers call; the others of `torch.nn.init` call these."""


class _OnMeta(DeviceContext):
    """`torch.device("meta")` in which a tensor is not filled: that is a third of a build."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func in _FILLS:
            tensor = args[0] if args else kwargs["tensor"]
            # A vector has no fans, and another tensor may not fit.
            refused = func is init.kaiming_uniform_ and tensor.dim() < 2
            refused = refused or any(isinstance(a, Tensor) for a in args[1:])
            if tensor.is_meta and not refused:
                return tensor
        return super().__torch_function__(func, types, args, kwargs)  # type: ignore[no-untyped-call]


def on_device(device: torch.device | str) -> AbstractContextManager[Any]:
    """`with torch.device(device)`, quicker on meta."""
    device = torch.device(device)
    return _OnMeta(device) if device.type == "meta" else device
