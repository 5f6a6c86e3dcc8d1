"""What figures were measured on."""

from __future__ import annotations

import contextlib
import os
import platform
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module, metadata
from typing import Any

import torch

from . import __version__
from .errors import LibraryError, UsageError

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


HARDWARE = ("processor", "cpus", "usable_cpus", "cpu_capability", "gpus")
"""What makes a machine; memory is left out, since kernels disagree about what they keep of it."""

SOFTWARE = ("torch", "datbench", "python", "platform", "cuda")
"""What may differ on one machine, and is what people compare: noted, not refused."""


def software(a: Sequence[Mapping[str, Any]], b: Sequence[Mapping[str, Any]]) -> list[str]:
    """What differs in versions between the environments of two sides, or within one, in words."""
    said = []
    for name in SOFTWARE:
        one, other = (distinct(each[name] for each in side if name in each) for side in (a, b))
        if one and other and (one != other or len(one) > 1):
            said.append(f"{name} {joined(one)} for A, {joined(other)} for B")
    return said


def distinct(values: Iterable[Any]) -> list[Any]:
    """Each value once, in one order; they need not be hashable."""
    found: list[Any] = []
    for value in values:
        if value not in found:
            found.append(value)
    return sorted(found, key=repr)


def joined(values: Sequence[Any]) -> str:
    """Values in words, with commas between them."""
    return ", ".join(map(short, values))


def short(value: Any) -> str:
    """A value of an environment in words; GPUs by their names."""
    if isinstance(value, list):
        names = [str(v.get("name") if isinstance(v, dict) else v) for v in value]
        return ", ".join(names) or "none"
    return str(value)


# Whether a device is there.


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


# NVML through nvidia-ml-py: starting it, and finding a GPU.
#
# The device is found by its UUID or its place on the bus. An index would not do: CUDA counts the
# devices that CUDA_VISIBLE_DEVICES shows it, NVML counts them all.


REMEDY = "pip install 'datbench[gpu]'"


@dataclass(frozen=True)
class Place:
    """Which GPU.

    Args:
        uuid: as torch gives it, with or without a prefix.
        bus: ``domain:bus:device.function``, in hexadecimal.
    """

    uuid: str | None
    bus: str | None

    @classmethod
    def of(cls, properties: Any) -> Place:
        """From torch's properties of a device; torch 2.6 has no place on the bus."""
        uuid = getattr(properties, "uuid", None)
        parts = [
            getattr(properties, f"pci_{name}_id", None) for name in ("domain", "bus", "device")
        ]
        bus = None
        if None not in parts:
            domain, number, device = parts
            bus = f"{domain:08x}:{number:02x}:{device:02x}.0"
        return cls(None if uuid is None else str(uuid), bus)


def library() -> Any:
    """The module pynvml.

    Raises:
        LibraryError: nvidia-ml-py is not installed, or is not what it should be.
    """
    try:
        found = import_module("pynvml")
    except ImportError as error:
        raise LibraryError(f"nvidia-ml-py is not installed; {REMEDY}.") from error
    needed = ("NVMLError", "nvmlInit", "nvmlDeviceGetHandleByUUID")
    if not all(hasattr(found, name) for name in needed):
        raise LibraryError(f"the module pynvml is not nvidia-ml-py's; {REMEDY}.")
    return found


@contextlib.contextmanager
def started(library: Any) -> Iterator[None]:
    """NVML at work; what it refuses when it is shut down does not matter."""
    library.nvmlInit()
    try:
        yield
    finally:
        with contextlib.suppress(library.NVMLError):
            library.nvmlShutdown()


def handle(library: Any, place: Place) -> Any:
    """The device, by whichever of its names NVML knows.

    Torch's UUID has no prefix, and is the instance's where the GPU is divided (MIG).
    """
    lookups: list[tuple[Callable[[str], Any], str]] = []
    if place.uuid is not None:
        bare = place.uuid.removeprefix("GPU-").removeprefix("MIG-")
        lookups += [(library.nvmlDeviceGetHandleByUUID, f"{p}-{bare}") for p in ("GPU", "MIG")]
    if place.bus is not None:
        lookups.append((library.nvmlDeviceGetHandleByPciBusId, place.bus))
    refusal: Exception | None = None
    for look_up, name in lookups:
        try:
            return look_up(name)
        except library.NVMLError as error:
            refusal = error
    raise refusal if refusal is not None else library.NVMLError(library.NVML_ERROR_NOT_FOUND)


def words(error: Exception) -> str:
    """What NVML says, on one line."""
    return " ".join(str(error).split()) or type(error).__name__


def place_of(environment: Mapping[str, Any]) -> str:
    """Where something was measured, in words: the processor or GPU, and the versions."""
    gpus = environment.get("gpus") or []
    names = list(dict.fromkeys(str(gpu.get("name")) for gpu in gpus if isinstance(gpu, Mapping)))
    parts = [*names]
    if environment.get("processor"):
        cores = environment.get("usable_cpus")
        parts.append(f"{environment['processor']}{f', {cores} cores' if cores else ''}")
    for package in ("torch", "cuda", "datbench"):
        if environment.get(package):
            parts.append(f"{package} {environment[package]}")
    return ", ".join(parts) or "unknown"


def same_place(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether times from both may be put beside each other."""
    names = ("processor", "usable_cpus", "torch", "cuda", "gpus")
    return all(one.get(name) == other.get(name) for name in names)
