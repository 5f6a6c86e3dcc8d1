"""NVML through nvidia-ml-py: starting it, and finding a GPU.

The device is found by its UUID or its place on the bus. An index would not do: CUDA counts the
devices that CUDA_VISIBLE_DEVICES shows it, NVML counts them all.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from ..errors import LibraryError

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
