"""What a GPU's driver says while it is timed: clocks, power, energy and reasons for slowing down.

A thread asks NVML every 20 ms. It holds no Python lock while a question is in the driver, and the
timed thread needs none while it waits for the GPU. A CPU's energy (RAPL) is out of scope.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch

from ... import units
from ...errors import LibraryError
from ...measurements import Timing
from ...timings import Telemetry
from .. import nvml
from ..timing import Clock
from .readings import Reading, Span, spans_of, summary

INTERVAL = 0.02
"""Seconds between two rounds of questions."""

PATIENCE = 0.3
"""Seconds that the counter of energy has to move once more after the last sample."""

NOT_A_GPU = "only NVIDIA's driver is asked; a CPU has no telemetry"


class Watch:
    """Collects while samples are taken; made by `watching`.

    Each sample's end is told by `stamp` (`time_calls(..., between=watch.stamp)`), or both ends by
    `sample`.
    """

    def __init__(self, clock: Clock = time.perf_counter) -> None:
        self.readings: list[Reading] = []
        self.missing: dict[str, str] = {}
        self.reason: str | None = None
        self._clock = clock
        self._stamps: list[float] = []
        self._spans: list[Span] = []
        self._asks = False

    def stamp(self) -> None:
        """A sample has just ended."""
        self._stamps.append(self._clock())

    def sample(self, begin: float, end: float) -> None:
        """A sample was taken; both times are `time.perf_counter`'s."""
        self._spans.append((begin, end))

    def telemetry(self, timing: Timing) -> Telemetry:
        """What was seen during a timing's samples, its warm-up left out.

        The last samples that the watch was told of are the timing's.
        """
        if self.reason is not None:
            return Telemetry(reason=self.reason)
        taken = len(timing.samples)
        spans = self._spans or spans_of(self._stamps, timing)
        if len(spans) < taken:
            return Telemetry(reason="the driver was watched for some of the samples only")
        spans = spans[-taken:]
        self._wait_for_counter(spans[-1][1])
        return summary(list(self.readings), spans, timing.calls, self.missing)

    def _wait_for_counter(self, end: float) -> None:
        """Until the counter of energy has moved after `end`, as long as the thread asks."""
        deadline = self._clock() + PATIENCE
        while self._asks and self._clock() < deadline:
            late = [reading.energy for reading in self.readings if reading.at >= end]
            if late and ("energy" in self.missing or len(set(late)) > 1):
                return
            time.sleep(INTERVAL / 4)

    @contextlib.contextmanager
    def _asking(self, ask: Callable[[], Reading], interval: float) -> Iterator[None]:
        """Readings from a thread of its own, until the block is left."""
        done = threading.Event()

        def collect() -> None:
            while not done.wait(interval):
                self.readings.append(ask())

        self.readings.append(ask())
        thread = threading.Thread(target=collect, name="datbench-nvml", daemon=True)
        thread.start()
        self._asks = True
        try:
            yield
        finally:
            self._asks = False
            done.set()
            thread.join(1.0)


@contextlib.contextmanager
def watching(
    device: torch.device,
    interval: float = INTERVAL,
    *,
    place: nvml.Place | None = None,
    clock: Clock = time.perf_counter,
) -> Iterator[Watch]:
    """Ask the driver while the block runs. What it refuses is a reason, never an error.

    Args:
        place: of the GPU; torch's properties of it unless told.
    """
    watch = Watch(clock)
    if place is None and device.type != "cuda":
        watch.reason = NOT_A_GPU
        yield watch
        return
    with contextlib.ExitStack() as stack:
        try:
            where = place or nvml.Place.of(torch.cuda.get_device_properties(device))
            library = nvml.library()
            stack.enter_context(nvml.started(library))
            handle = nvml.handle(library, where)
        except LibraryError as error:
            watch.reason = str(error).rstrip(".")
        except (
            Exception
        ) as error:  # NVML's own class of error is the library's, which may be absent
            watch.reason = _said(error)
        else:
            questions = Questions(library, handle, watch.missing, clock)
            stack.enter_context(watch._asking(questions.ask, interval))
        yield watch


class Questions:
    """What NVML is asked each time; a question that it refuses is not asked again."""

    def __init__(
        self, library: Any, handle: Any, missing: dict[str, str], clock: Clock = time.perf_counter
    ) -> None:
        self._handle = handle
        self._missing = missing
        self._clock = clock
        self._ways: dict[str, tuple[Callable[[Any], Any], ...]] = {
            "clock": (_of(library, "nvmlDeviceGetClockInfo", "NVML_CLOCK_SM"),),
            "power": (_of(library, "nvmlDeviceGetPowerUsage"),),
            "temperature": (_of(library, "nvmlDeviceGetTemperature", "NVML_TEMPERATURE_GPU"),),
            # Newer libraries have the new name, older drivers the old.
            "reasons": (
                _of(library, "nvmlDeviceGetCurrentClocksEventReasons"),
                _of(library, "nvmlDeviceGetCurrentClocksThrottleReasons"),
            ),
            "energy": (_of(library, "nvmlDeviceGetTotalEnergyConsumption"),),
        }

    def ask(self) -> Reading:
        """One reading; its moment is the middle of the questions."""
        begin = self._clock()
        clock, power, temperature, reasons, energy = (self._answer(what) for what in self._ways)
        return Reading(
            at=(begin + self._clock()) / 2,
            clock=None if clock is None else clock * 1e6,  # MHz
            power=None if power is None else power / 1e3,  # mW
            temperature=temperature,
            reasons=None if reasons is None else int(reasons),
            energy=None if energy is None else energy / 1e3,  # mJ
        )

    def _answer(self, what: str) -> float | None:
        while self._ways[what]:
            try:
                return float(self._ways[what][0](self._handle))
            except Exception as error:  # whatever it is, it must not end the measurement
                self._ways[what] = self._ways[what][1:]
                if not self._ways[what]:
                    self._missing[what] = _said(error)
        return None


def _of(library: Any, function: str, constant: str | None = None) -> Callable[[Any], Any]:
    """A question that fails when it is asked if the library does not know it."""

    def ask(handle: Any) -> Any:
        if not hasattr(library, function):
            raise LibraryError(f"nvidia-ml-py has no {function}")
        arguments = () if constant is None else (getattr(library, constant),)
        return getattr(library, function)(handle, *arguments)

    return ask


def _said(error: Exception) -> str:
    text = nvml.words(error)
    return units.printable(text if isinstance(error, LibraryError) else f"NVML: {text}")
