"""The memory of a process on a GPU, as the driver counts it: NVML, through nvidia-ml-py.

The device is found by its UUID or its place on the bus. An index would not do: CUDA counts the
devices that CUDA_VISIBLE_DEVICES shows it, NVML counts them all.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from typing import Any, TypeVar

from ...errors import LibraryError

REMEDY = "pip install 'datbench[gpu]'"

T = TypeVar("T")


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


@dataclass(frozen=True)
class Process:
    """What NVML says of a process and its GPU.

    Args:
        amount: bytes of the process; None where `reason` says why.
        others: other processes on the GPU; None where they cannot be listed.
        driver: its version.
        total, used: of the whole device (of the MIG instance), by everyone.
    """

    amount: int | None
    reason: str | None
    others: int | None = None
    driver: str | None = None
    total: int | None = None
    used: int | None = None


def process_memory(place: Place, pid: int, known: frozenset[int] = frozenset()) -> Process:
    """The memory of process `pid` on a GPU. What NVML refuses is a reason, not an error.

    Args:
        known: processes that are not counted as others.

    Raises:
        LibraryError: nvidia-ml-py is not installed, or is not what it should be.
    """
    library = _library()
    try:
        with _started(library):
            return _read(library, place, pid, known)
    except library.NVMLError as error:
        return Process(None, f"NVML: {_words(error)}")


def _library() -> Any:
    try:
        library = import_module("pynvml")
    except ImportError as error:
        raise LibraryError(f"nvidia-ml-py is not installed; {REMEDY}.") from error
    needed = ("NVMLError", "nvmlInit", "nvmlDeviceGetHandleByUUID")
    if not all(hasattr(library, name) for name in needed):
        raise LibraryError(f"the module pynvml is not nvidia-ml-py's; {REMEDY}.")
    return library


@contextlib.contextmanager
def _started(library: Any) -> Iterator[None]:
    library.nvmlInit()
    try:
        yield
    finally:
        with contextlib.suppress(library.NVMLError):
            library.nvmlShutdown()


def _read(library: Any, place: Place, pid: int, known: frozenset[int]) -> Process:
    driver = _or_none(library, library.nvmlSystemGetDriverVersion)
    handle = _handle(library, place)
    memory = _or_none(library, lambda: library.nvmlDeviceGetMemoryInfo(handle))
    total, used = (None, None) if memory is None else (memory.total, memory.used)
    try:
        listed = _processes(library, handle)
    except library.NVMLError as error:
        said = f"NVML does not list processes: {_words(error)}"
        return Process(None, said, None, driver, total, used)
    amount, reason = _own(listed, pid)
    others = len(set(listed) - {pid} - known)
    return Process(amount, reason, others, driver, total, used)


def _handle(library: Any, place: Place) -> Any:
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


def _processes(library: Any, handle: Any) -> dict[int, int | None]:
    """Bytes of every process; the larger figure of one that computes and draws."""
    found: dict[int, int | None] = {}
    for process in library.nvmlDeviceGetComputeRunningProcesses(handle):
        found[process.pid] = _amount(library, process.usedGpuMemory)
    drawing = _or_none(library, lambda: library.nvmlDeviceGetGraphicsRunningProcesses(handle))
    for process in drawing or ():
        amounts = (found.get(process.pid), _amount(library, process.usedGpuMemory))
        found[process.pid] = max((a for a in amounts if a is not None), default=None)
    return found


def _amount(library: Any, amount: int | None) -> int | None:
    """The library turns "not available" into None; its older releases did not everywhere."""
    return None if amount == library.NVML_VALUE_NOT_AVAILABLE_ulonglong.value else amount


def _own(listed: dict[int, int | None], pid: int) -> tuple[int | None, str | None]:
    if pid not in listed:
        among = f"{len(listed)} others" if listed else "nobody"
        return None, (
            f"NVML lists {among} on this GPU and not process {pid}; "
            "a container that numbers its processes itself hides it"
        )
    amount = listed[pid]
    if not amount:
        return None, "NVML lists the process without its memory; a container or the driver hides it"
    return amount, None


def _or_none(library: Any, ask: Callable[[], T]) -> T | None:
    """An answer that the rest can do without."""
    try:
        return ask()
    except library.NVMLError:
        return None


def _words(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
