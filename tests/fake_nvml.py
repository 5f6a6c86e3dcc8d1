"""A module that stands for nvidia-ml-py's `pynvml`: one GPU, which says what a test writes down.

Names, parameters and what is returned are the library's; `memory/test_nvml.py` compares the
signatures where the library is installed.
"""

# ruff: noqa: N802

import functools
import inspect
import types
from collections.abc import Callable
from ctypes import c_ulonglong
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

ERRORS = {
    1: ("Uninitialized", "Uninitialized"),
    3: ("NotSupported", "Not Supported"),
    4: ("NoPermission", "Insufficient Permissions"),
    6: ("NotFound", "Not Found"),
    9: ("DriverNotLoaded", "Driver Not Loaded"),
    12: ("LibraryNotFound", "NVML Shared Library Not Found"),
    13: ("FunctionNotFound", "Function Not Found"),
    15: ("GpuIsLost", "GPU is lost"),
    999: ("Unknown", "Unknown Error"),
}
CONSTANTS = {"NVML_ERROR_NOT_FOUND": 6, "NVML_CLOCK_SM": 1, "NVML_TEMPERATURE_GPU": 0}
UUID = "GPU-12345678-aaaa-bbbb-cccc-1234567890ab"


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


@dataclass(eq=False)
class Gpu:
    """The GPU that the module speaks of; it is its own handle."""

    uuid: str = UUID
    bus: str = "00000000:17:00.0"
    driver: str = "570.86.15"
    compute: dict[int, int | None] = field(default_factory=dict)
    """Bytes by process; None is how the library says "not available"."""
    graphics: dict[int, int | None] = field(default_factory=dict)
    megahertz: Callable[[], int] = lambda: 1410
    milliwatts: Callable[[], int] = lambda: 250_000
    degrees: Callable[[], int] = lambda: 60
    reasons: Callable[[], int] = lambda: 0
    millijoules: Callable[[], int] = lambda: 0
    refused: dict[str, int | Exception] = field(default_factory=dict)
    """Errors, or their codes, that functions raise, by the functions' names."""
    started: int = 0
    calls: list[str] = field(default_factory=list)

    def module(self) -> types.ModuleType:
        """What `import pynvml` is to give."""
        fake = types.ModuleType("pynvml")
        fake.__dict__.update(
            NVMLError=NVMLError,
            NVML_VALUE_NOT_AVAILABLE_ulonglong=c_ulonglong(-1),
            **CONSTANTS,
            **{cls.__name__: cls for cls in NVMLError.classes.values()},
            **{name: self._function(getattr(self, name)) for name in FUNCTIONS},
        )
        return fake

    def _function(self, answer: Callable[..., Any]) -> Callable[..., Any]:
        name, takes_a_handle = answer.__name__, "handle" in inspect.signature(answer).parameters

        @functools.wraps(answer)
        def called(*arguments: Any) -> Any:
            self.calls.append(name)
            refusal = self.refused.get(name)
            if refusal is not None:
                raise NVMLError(refusal) if isinstance(refusal, int) else refusal
            if name != "nvmlInit" and not self.started:
                raise NVMLError(1)
            assert not takes_a_handle or arguments[0] is self
            return answer(*arguments)

        return called

    def nvmlInit(self) -> None:
        self.started += 1

    def nvmlShutdown(self) -> None:
        self.started -= 1

    def nvmlSystemGetDriverVersion(self) -> str:
        return self.driver

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> "Gpu":
        return self._found(uuid == self.uuid)

    def nvmlDeviceGetHandleByPciBusId(self, pciBusId: str) -> "Gpu":
        return self._found(pciBusId == self.bus)

    def _found(self, known: bool) -> "Gpu":
        if not known:
            raise NVMLError(6)
        return self

    def nvmlDeviceGetComputeRunningProcesses(self, handle: object) -> list[Any]:
        return _listed(self.compute)

    def nvmlDeviceGetGraphicsRunningProcesses(self, handle: object) -> list[Any]:
        return _listed(self.graphics)

    def nvmlDeviceGetClockInfo(self, handle: object, type: int) -> int:
        assert type == CONSTANTS["NVML_CLOCK_SM"]
        return self.megahertz()

    def nvmlDeviceGetPowerUsage(self, handle: object) -> int:
        return self.milliwatts()

    def nvmlDeviceGetTemperature(self, handle: object, sensor: int) -> int:
        assert sensor == CONSTANTS["NVML_TEMPERATURE_GPU"]
        return self.degrees()

    def nvmlDeviceGetCurrentClocksEventReasons(self, handle: object) -> int:
        return self.reasons()

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, handle: object) -> int:
        return self.reasons()

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: object) -> int:
        return self.millijoules()


FUNCTIONS = tuple(name for name in vars(Gpu) if name.startswith("nvml"))


def _listed(processes: dict[int, int | None]) -> list[Any]:
    return [SimpleNamespace(pid=p, usedGpuMemory=m) for p, m in processes.items()]
