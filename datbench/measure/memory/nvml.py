"""The memory of a process on a GPU, as the driver counts it: NVML, through nvidia-ml-py."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from .. import nvml
from ..nvml import Place, words

T = TypeVar("T")


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
    library = nvml.library()
    try:
        with nvml.started(library):
            return _read(library, place, pid, known)
    except library.NVMLError as error:
        return Process(None, f"NVML: {words(error)}")


def _read(library: Any, place: Place, pid: int, known: frozenset[int]) -> Process:
    driver = _or_none(library, library.nvmlSystemGetDriverVersion)
    handle = nvml.handle(library, place)
    memory = _or_none(library, lambda: library.nvmlDeviceGetMemoryInfo(handle))
    total, used = (None, None) if memory is None else (memory.total, memory.used)
    try:
        listed = _processes(library, handle)
    except library.NVMLError as error:
        said = f"NVML does not list processes: {words(error)}"
        return Process(None, said, None, driver, total, used)
    amount, reason = _own(listed, pid)
    others = len(set(listed) - {pid} - known)
    return Process(amount, reason, others, driver, total, used)


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
