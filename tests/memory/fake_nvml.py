"""A module that stands for nvidia-ml-py's `pynvml`: one GPU, whose processes a test writes down.

Names, parameters and what is returned are the library's; `test_nvml.py` compares the signatures
where the library is installed.
"""

import types
from ctypes import c_ulonglong
from dataclasses import dataclass, field
from typing import Any, NoReturn

ERRORS = {
    1: ("Uninitialized", "Uninitialized"),
    3: ("NotSupported", "Not Supported"),
    4: ("NoPermission", "Insufficient Permissions"),
    6: ("NotFound", "Not Found"),
    9: ("DriverNotLoaded", "Driver Not Loaded"),
    12: ("LibraryNotFound", "NVML Shared Library Not Found"),
    15: ("GpuIsLost", "GPU is lost"),
    999: ("Unknown", "Unknown Error"),
}

FUNCTIONS = (
    "nvmlInit",
    "nvmlShutdown",
    "nvmlSystemGetDriverVersion",
    "nvmlDeviceGetHandleByUUID",
    "nvmlDeviceGetHandleByPciBusId",
    "nvmlDeviceGetComputeRunningProcesses",
    "nvmlDeviceGetGraphicsRunningProcesses",
)


class NVMLError(Exception):
    """As the library's: made from a code, it becomes that code's subclass."""

    classes: dict[int, type] = {}  # noqa: RUF012

    def __new__(typ, value: int) -> "NVMLError":
        made = Exception.__new__(NVMLError.classes.get(value, typ) if typ is NVMLError else typ)
        made.value = value
        return made

    value: int

    def __str__(self) -> str:
        return ERRORS.get(self.value, ("", f"NVML Error with code {self.value}"))[1]


def _subclass(name: str, code: int) -> type:
    def new(typ: type) -> NVMLError:
        return NVMLError.__new__(typ, code)

    return type(f"NVMLError_{name}", (NVMLError,), {"__new__": new})


NVMLError.classes = {code: _subclass(name, code) for code, (name, _) in ERRORS.items()}


@dataclass
class Gpu:
    """The machine that the module speaks of.

    Args:
        compute, graphics: bytes by process; None is how the library says "not available".
        refused: codes of the errors that functions raise, by their names.
        calls: the functions that were called.
    """

    uuid: str = "GPU-12345678-aaaa-bbbb-cccc-1234567890ab"
    bus: str = "00000000:17:00.0"
    driver: str = "570.86.15"
    compute: dict[int, int | None] = field(default_factory=dict)
    graphics: dict[int, int | None] = field(default_factory=dict)
    refused: dict[str, int] = field(default_factory=dict)
    started: int = 0
    calls: list[str] = field(default_factory=list)


def module(gpu: Gpu) -> types.ModuleType:
    """What `import pynvml` is to give."""
    fake = types.ModuleType("pynvml")
    fake.__dict__.update(
        NVMLError=NVMLError,
        NVML_ERROR_NOT_FOUND=6,
        NVML_VALUE_NOT_AVAILABLE_ulonglong=c_ulonglong(-1),
        **{cls.__name__: cls for cls in NVMLError.classes.values()},
        **_functions(gpu),
    )
    return fake


def _functions(gpu: Gpu) -> dict[str, Any]:
    handle = object()

    def refuse(code: int) -> NoReturn:
        raise NVMLError(code)

    def called(name: str, device: object = handle) -> None:
        gpu.calls.append(name)
        if name in gpu.refused:
            refuse(gpu.refused[name])
        if name != "nvmlInit" and not gpu.started:
            refuse(1)
        assert device is handle

    def nvmlInit() -> None:  # noqa: N802
        called("nvmlInit")
        gpu.started += 1

    def nvmlShutdown() -> None:  # noqa: N802
        called("nvmlShutdown")
        gpu.started -= 1

    def nvmlSystemGetDriverVersion() -> str:  # noqa: N802
        called("nvmlSystemGetDriverVersion")
        return gpu.driver

    def nvmlDeviceGetHandleByUUID(uuid: str) -> object:  # noqa: N802
        called("nvmlDeviceGetHandleByUUID")
        return handle if uuid == gpu.uuid else refuse(6)

    def nvmlDeviceGetHandleByPciBusId(pciBusId: str) -> object:  # noqa: N802
        called("nvmlDeviceGetHandleByPciBusId")
        return handle if pciBusId == gpu.bus else refuse(6)

    def listed(processes: dict[int, int | None]) -> list[Any]:
        return [types.SimpleNamespace(pid=p, usedGpuMemory=m) for p, m in processes.items()]

    def nvmlDeviceGetComputeRunningProcesses(handle: object) -> list[Any]:  # noqa: N802
        called("nvmlDeviceGetComputeRunningProcesses", handle)
        return listed(gpu.compute)

    def nvmlDeviceGetGraphicsRunningProcesses(handle: object) -> list[Any]:  # noqa: N802
        called("nvmlDeviceGetGraphicsRunningProcesses", handle)
        return listed(gpu.graphics)

    here = locals()
    return {name: here[name] for name in FUNCTIONS}
