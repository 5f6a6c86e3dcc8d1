"""A module that stands for nvidia-ml-py's `pynvml`: its driver says what it is told."""

import types
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

UUID = "GPU-12345678-aaaa-bbbb-cccc-1234567890ab"

FUNCTIONS = (
    "nvmlInit",
    "nvmlShutdown",
    "nvmlDeviceGetHandleByUUID",
    "nvmlDeviceGetHandleByPciBusId",
    "nvmlDeviceGetClockInfo",
    "nvmlDeviceGetPowerUsage",
    "nvmlDeviceGetTemperature",
    "nvmlDeviceGetCurrentClocksEventReasons",
    "nvmlDeviceGetCurrentClocksThrottleReasons",
    "nvmlDeviceGetTotalEnergyConsumption",
)


class NVMLError(Exception):
    """With NVML's words."""


@dataclass
class Driver:
    """What the driver says; each value is asked for anew.

    Args:
        megahertz, milliwatts, degrees, reasons, millijoules: in NVML's units.
        refused: what functions raise, by their names.
        calls: how often each was called.
    """

    megahertz: Callable[[], int] = lambda: 1410
    milliwatts: Callable[[], int] = lambda: 250_000
    degrees: Callable[[], int] = lambda: 60
    reasons: Callable[[], int] = lambda: 0
    millijoules: Callable[[], int] = lambda: 0
    refused: dict[str, Exception] = field(default_factory=dict)
    calls: dict[str, int] = field(default_factory=dict)
    started: int = 0

    def module(self) -> types.ModuleType:
        """What `import pynvml` is to give."""
        fake = types.ModuleType("pynvml")
        fake.__dict__.update(
            NVMLError=NVMLError,
            NVML_ERROR_NOT_FOUND=6,
            NVML_CLOCK_SM=1,
            NVML_TEMPERATURE_GPU=0,
            **{name: self._function(name) for name in FUNCTIONS},
        )
        return fake

    def _function(self, name: str) -> Callable[..., Any]:
        def called(*arguments: Any) -> Any:
            self.calls[name] = self.calls.get(name, 0) + 1
            if name in self.refused:
                raise self.refused[name]
            return getattr(self, f"_{name}")(*arguments)

        return called

    def _nvmlInit(self) -> None:  # noqa: N802
        self.started += 1

    def _nvmlShutdown(self) -> None:  # noqa: N802
        self.started -= 1

    def _nvmlDeviceGetHandleByUUID(self, uuid: str) -> "Driver":  # noqa: N802
        if uuid != UUID:
            raise NVMLError("Not Found")
        return self

    def _nvmlDeviceGetHandleByPciBusId(self, bus: str) -> "Driver":  # noqa: N802
        raise NVMLError("Not Found")

    def _nvmlDeviceGetClockInfo(self, handle: object, clock: int) -> int:  # noqa: N802
        assert (handle, clock) == (self, 1)
        return self.megahertz()

    def _nvmlDeviceGetPowerUsage(self, handle: object) -> int:  # noqa: N802
        assert handle is self
        return self.milliwatts()

    def _nvmlDeviceGetTemperature(self, handle: object, sensor: int) -> int:  # noqa: N802
        assert (handle, sensor) == (self, 0)
        return self.degrees()

    def _nvmlDeviceGetCurrentClocksEventReasons(self, handle: object) -> int:  # noqa: N802
        assert handle is self
        return self.reasons()

    def _nvmlDeviceGetCurrentClocksThrottleReasons(self, handle: object) -> int:  # noqa: N802
        assert handle is self
        return self.reasons()

    def _nvmlDeviceGetTotalEnergyConsumption(self, handle: object) -> int:  # noqa: N802
        assert handle is self
        return self.millijoules()
