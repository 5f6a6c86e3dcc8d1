"""What figures were measured on."""

from __future__ import annotations

import os
import platform
import sys
from importlib import metadata
from typing import Any

from .. import __version__

PACKAGES = ("torch", "torchvision", "timm", "fvcore", "numpy", "pandas", "nvidia-ml-py")


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def summary() -> dict[str, Any]:
    """Versions alone: enough for a count, and quick (torch is not imported for it)."""
    torch = sys.modules.get("torch")
    return {
        "datbench": __version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__) if torch is not None else _version("torch"),
        "platform": platform.platform(terse=True),
    }


def environment() -> dict[str, Any]:
    """Versions, processor, memory and GPUs. A value that cannot be had is None."""
    found = summary()
    found["packages"] = {package: _version(package) for package in PACKAGES}
    found["processor"] = _processor()
    found["cpus"] = os.cpu_count()
    found["usable_cpus"] = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
    )
    found["memory_bytes"] = _memory()
    found |= _torch_settings()
    return found


def _processor() -> str | None:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            for line in lines:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or None


def _memory() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return None


def _torch_settings() -> dict[str, Any]:
    """What torch itself says of the machine."""
    import torch

    gpus = []
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(index)
            gpus.append(
                {
                    "name": properties.name,
                    "memory_bytes": properties.total_memory,
                    "capability": f"{properties.major}.{properties.minor}",
                }
            )
    return {
        "torch_threads": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "cuda": torch.version.cuda,
        "gpus": gpus,
    }
