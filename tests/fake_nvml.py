"""A module that stands for nvidia-ml-py's `pynvml`: one GPU, which says what a test writes down.

Constants and errors are the library's; `memory/test_gpu.py` compares the functions' signatures.
"""

# ruff: noqa: N802

import functools
import inspect
import types
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pynvml
from pynvml import NVMLError

UUID = "GPU-12345678-aaaa-bbbb-cccc-1234567890ab"


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
        functions = {name: self._function(getattr(self, name)) for name in FUNCTIONS}
        fake.__dict__.update(vars(pynvml) | functions)
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
        assert type == pynvml.NVML_CLOCK_SM
        return self.megahertz()

    def nvmlDeviceGetPowerUsage(self, handle: object) -> int:
        return self.milliwatts()

    def nvmlDeviceGetTemperature(self, handle: object, sensor: int) -> int:
        assert sensor == pynvml.NVML_TEMPERATURE_GPU
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
