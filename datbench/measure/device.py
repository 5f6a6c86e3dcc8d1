"""Whether a device is there."""

from __future__ import annotations

import torch

from ..errors import UsageError


def check_device(name: str) -> torch.device:
    """The device called `name`.

    Raises:
        UsageError: torch knows no such device, or this machine has none.
    """
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, ValueError, NotImplementedError) as error:
        raise UsageError(
            f"device {name!r} is not available here; use meta or cpu, or cuda where a GPU is."
        ) from error
    return device
