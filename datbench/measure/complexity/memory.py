"""How much memory a tensor may still take, before the system ends the process that asks."""

from __future__ import annotations

import torch


def available_bytes(device: torch.device) -> int | None:
    """Free memory where asking for more would not fail but kill; None on a GPU, which says no."""
    if device.type != "cpu":
        return None
    try:
        with open("/proc/meminfo", encoding="ascii") as lines:
            for line in lines:
                name, _, value = line.partition(":")
                if name == "MemAvailable":
                    return int(value.split()[0]) * 1024
    except (OSError, ValueError):
        pass
    return None
