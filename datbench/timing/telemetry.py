"""What a GPU's driver says while it is timed: clocks, power, energy and reasons for slowing down.

A thread asks NVML every 20 ms. It holds no Python lock while a question is in the driver, and the
timed thread needs none while it waits for the GPU. A CPU's energy (RAPL) is out of scope.
"""

from __future__ import annotations

import contextlib
import threading
import time
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from statistics import fmean, median
from typing import Any, TypeAlias

import torch

from ..errors import LibraryError
from ..machine import GpuPlace, nvml, nvml_words
from .records import Telemetry, Timing

# From readings of a GPU's driver, and the moments of samples, to what is said of the samples.


Span: TypeAlias = tuple[float, float]
"""When a sample began and ended."""

Point: TypeAlias = tuple[float, float]
"""A moment, and the joules since some other."""

THROTTLING: Mapping[int, str] = {
    0x04: "SwPowerCap",
    0x08: "HwSlowdown",
    0x20: "SwThermalSlowdown",
    0x40: "HwThermalSlowdown",
    0x80: "HwPowerBrakeSlowdown",
}
"""Bits of nvml.h's nvmlClocksEventReasons, older nvmlClocksThrottleReasons. Left out is what slows
nothing down or was chosen: GpuIdle, ApplicationsClocksSetting, SyncBoost, DisplayClockSetting."""

QUESTIONS: Mapping[str, tuple[str, tuple[str, ...], Callable[[float], float]]] = {
    # Functions, the newer first, and a constant that some take; what their answer is in our units.
    "clock": ("nvmlDeviceGetClockInfo", ("NVML_CLOCK_SM",), lambda megahertz: megahertz * 1e6),
    "power": ("nvmlDeviceGetPowerUsage", (), lambda milliwatts: milliwatts / 1e3),
    "temperature": ("nvmlDeviceGetTemperature", ("NVML_TEMPERATURE_GPU",), float),
    # Newer libraries have the new name, older drivers the old.
    "reasons": (
        "nvmlDeviceGetCurrentClocksEventReasons nvmlDeviceGetCurrentClocksThrottleReasons",
        (),
        int,
    ),
    "energy": ("nvmlDeviceGetTotalEnergyConsumption", (), lambda millijoules: millijoules / 1e3),
}
"""What NVML is asked, by the name of the answer in a `Reading`."""


@dataclass(frozen=True)
class Reading:
    """What the driver said at one moment; None where it does not say."""

    at: float  # seconds, by `time.perf_counter`
    clock: float | None = None  # of the streaming multiprocessors, in Hz
    # Watts; from Ampere on (not GA100) the mean of the last second, says NVML's reference.
    power: float | None = None
    temperature: float | None = None
    reasons: int | None = None  # bits, among them `THROTTLING`
    energy: float | None = None  # joules since the driver was loaded


def spans_of(stamps: Sequence[float], timing: Timing) -> list[Span]:
    """The timing's samples, from the moments at which they ended and how long they took."""
    taken = len(timing.samples)
    if len(stamps) < taken:
        return []
    ends = stamps[len(stamps) - taken :]
    return [
        (end - sample * timing.calls, end) for sample, end in zip(timing.samples, ends, strict=True)
    ]


def summary(
    readings: Sequence[Reading],
    spans: Sequence[Span],
    calls: int,
    missing: Mapping[str, str] | None = None,
) -> Telemetry:
    """What the driver said during samples.

    Args:
        spans: of the samples, in order.
        calls: of a sample.
        missing: why a question has no answers.
    """
    if not readings:
        return Telemetry(reason="the driver was not read")
    during = _during(readings, spans)
    clocks = _told(reading.clock for reading in during)
    powers = _told(reading.power for reading in during)
    named, hit = throttled(readings, spans)
    energy, covered, notes = _energy(readings, spans)
    seconds = sum(end - begin for begin, end in covered)
    mean = fmean(powers) if powers else None
    counted = energy is not None and any(r.energy is not None for r in readings)
    why = missing or {}
    said = [f"{what}: {why[what]}" for what in QUESTIONS if what in why]
    return Telemetry(
        clock=median(clocks) if clocks else None,
        clock_low=min(clocks, default=None),
        power=energy / seconds if counted and energy and seconds else mean,
        energy=energy,
        calls=None if energy is None else calls * len(covered),
        throttled=named,
        throttled_samples=hit,
        temperature=max(_told(reading.temperature for reading in during), default=None),
        note="; ".join([*said, *notes]) or None,
    )


def merged(told: Sequence[Telemetry]) -> Telemetry:
    """Several GPUs that took part in the same samples, as one: power and energy are their sum."""
    for rank, one in enumerate(told):
        if one.reason is not None:
            alike = all(other.reason == one.reason for other in told)
            return Telemetry(reason=one.reason if alike else f"rank {rank}: {one.reason}")
    clocks = _told(one.clock for one in told)
    powers = _told(one.power for one in told)
    a_call = [one.energy / one.calls for one in told if one.energy is not None and one.calls]
    calls = told[0].calls if len(a_call) == len(told) else None
    return Telemetry(
        clock=median(clocks) if clocks else None,
        clock_low=min(_told(one.clock_low for one in told), default=None),
        power=sum(powers) if len(powers) == len(told) else None,
        energy=None if calls is None else sum(a_call) * calls,
        calls=calls,
        throttled=tuple(n for n in THROTTLING.values() if any(n in one.throttled for one in told)),
        throttled_samples=tuple(sorted({i for one in told for i in one.throttled_samples})),
        temperature=max(_told(one.temperature for one in told), default=None),
        note="; ".join(f"rank {r}: {one.note}" for r, one in enumerate(told) if one.note) or None,
    )


def by_turns(told: Telemetry) -> Telemetry:
    """Leave out what the driver counts over more than a turn: another process has a part in it."""
    if told.power is None and told.energy is None:
        return told
    return replace(
        told, power=None, energy=None, calls=None, note="power and energy: two processes took turns"
    )


def _told(values: Iterable[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def _during(readings: Sequence[Reading], spans: Sequence[Span]) -> list[Reading]:
    """Readings within a sample; where none is, those next to the samples' first and last moment."""
    moments = [reading.at for reading in readings]
    begins, ends = [begin for begin, _ in spans], [end for _, end in spans]
    within = [
        reading
        for reading in readings
        if (sample := bisect_right(begins, reading.at) - 1) >= 0 and reading.at <= ends[sample]
    ]
    if within:
        return within
    first = max(bisect_right(moments, begins[0]) - 1, 0)
    last = min(bisect_left(moments, ends[-1]), len(readings) - 1)
    return [readings[first], readings[last]]


def throttled(
    readings: Sequence[Reading], spans: Sequence[Span]
) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Reasons seen, and the samples that they may have touched.

    A reading speaks for the time from the one before it to the one after it: a sample between two
    readings, one of them slowed down, may have been slowed down.
    """
    told = [reading for reading in readings if reading.reasons is not None]
    moments = [reading.at for reading in told]
    bits = 0
    hit = []
    for index, (begin, end) in enumerate(spans):
        first = max(bisect_right(moments, begin) - 1, 0)
        last = bisect_left(moments, end)
        found = 0
        for reading in told[first : last + 1]:
            found |= (reading.reasons or 0) & sum(THROTTLING)
        bits |= found
        if found:
            hit.append(index)
    return tuple(name for bit, name in THROTTLING.items() if bits & bit), tuple(hit)


def _energy(
    readings: Sequence[Reading], spans: Sequence[Span]
) -> tuple[float | None, Sequence[Span], list[str]]:
    """Joules, the samples that they were used in, and what is to be said about it."""
    counted = counter(readings)
    if counted is not None:
        points, short = counted, "the counter of energy moved too rarely for so short a timing"
        notes: list[str] = []
    else:
        points = integral(readings)
        short = "too few readings of the power for an energy"
        notes = ["energy: the integral of the power that was read"]
    if not points:
        return None, (), [short] if readings[0].power is not None or counted is not None else []
    covered = [span for span in spans if points[0][0] <= span[0] and span[1] <= points[-1][0]]
    steps = [moment for moment, _ in points if covered and moment > covered[0][0]]
    if len(steps) < 2:
        return None, (), [short]
    joules = sum(at(points, end) - at(points, begin) for begin, end in covered)
    if len(covered) < len(spans):
        notes.append(f"energy: of {len(covered)} of {len(spans)} samples")
    return joules, covered, notes


def counter(readings: Sequence[Reading]) -> list[Point] | None:
    """The counter where it moved; None where there is none.

    Between two of its moves it stands still, so only they are moments at which it is right.
    """
    told = [(reading.at, reading.energy) for reading in readings if reading.energy is not None]
    if not told:
        return None
    return [(moment, joules) for (_, before), (moment, joules) in pairwise(told) if joules > before]


def integral(readings: Sequence[Reading]) -> list[Point]:
    """Joules since the first reading of the power, by trapezoids."""
    told = [(reading.at, reading.power) for reading in readings if reading.power is not None]
    if len(told) < 2:
        return []
    points = [(told[0][0], 0.0)]
    for (before, low), (moment, high) in pairwise(told):
        points.append((moment, points[-1][1] + (moment - before) * (low + high) / 2))
    return points


def at(points: Sequence[Point], moment: float) -> float:
    """Joules at a moment between two points, on the line between them."""
    right = min(max(bisect_left(points, (moment, float("-inf"))), 1), len(points) - 1)
    (before, low), (after, high) = points[right - 1], points[right]
    return low + (high - low) * (moment - before) / (after - before)


INTERVAL = 0.02
"""Seconds between two rounds of questions."""

PATIENCE = 0.3
"""Seconds that the counter of energy has to move once more after the last sample."""

NOT_A_GPU = "only NVIDIA's driver is asked; a CPU has no telemetry"


class Watch:
    """Collects while samples are taken; made by `watching`.

    Each sample's end is told by `stamp` (`time_calls(..., between=watch.stamp)`).
    """

    def __init__(self) -> None:
        self.readings: list[Reading] = []
        self.missing: dict[str, str] = {}
        self.reason: str | None = None
        self._stamps: list[float] = []
        self._asks = False

    def stamp(self) -> None:
        """A sample has just ended."""
        self._stamps.append(time.perf_counter())

    def telemetry(self, timing: Timing) -> Telemetry:
        """What was seen during a timing's samples, its warm-up left out.

        The last samples that the watch was told of are the timing's.
        """
        if self.reason is not None:
            return Telemetry(reason=self.reason)
        spans = spans_of(self._stamps, timing)
        if not spans:
            return Telemetry(reason="the driver was watched for some of the samples only")
        self._wait_for_counter(spans[-1][1])
        return summary(list(self.readings), spans, timing.calls, self.missing)

    def _wait_for_counter(self, end: float) -> None:
        """Until the counter of energy has moved after `end`, as long as the thread asks."""
        deadline = time.perf_counter() + PATIENCE
        while self._asks and time.perf_counter() < deadline:
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
    device: torch.device, interval: float = INTERVAL, *, place: GpuPlace | None = None
) -> Iterator[Watch]:
    """Ask the driver while the block runs. What it refuses is a reason, never an error.

    Args:
        place: which GPU. Default: as torch's properties of the device say.
    """
    watch = Watch()
    if place is None and device.type != "cuda":
        watch.reason = NOT_A_GPU
        yield watch
        return
    with contextlib.ExitStack() as stack:
        try:
            where = place or GpuPlace.of(torch.cuda.get_device_properties(device))
            library, handle = stack.enter_context(nvml(where))
        except LibraryError as error:
            watch.reason = str(error).rstrip(".")
        else:
            questions = Questions(library, handle, watch.missing)
            stack.enter_context(watch._asking(questions.ask, interval))
        yield watch


class Questions:
    """What NVML is asked each time; a question that it refuses is not asked again."""

    def __init__(self, library: Any, handle: Any, missing: dict[str, str]) -> None:
        self._library, self._handle, self._missing = library, handle, missing
        self._ways = {what: functions.split() for what, (functions, _, _) in QUESTIONS.items()}

    def ask(self) -> Reading:
        """One reading; its moment is the middle of the questions."""
        begin = time.perf_counter()
        answers: dict[str, Any] = {what: self._answer(what) for what in QUESTIONS}
        return Reading(at=(begin + time.perf_counter()) / 2, **answers)

    def _answer(self, what: str) -> float | None:
        _, constants, in_our_units = QUESTIONS[what]
        ways = self._ways[what]
        while ways:
            try:
                if not hasattr(self._library, ways[0]):
                    raise LibraryError(f"nvidia-ml-py has no {ways[0]}")
                more = [getattr(self._library, name) for name in constants]
                answer = getattr(self._library, ways[0])(self._handle, *more)
                return in_our_units(float(answer))
            except Exception as error:  # whatever it is, it must not end the measurement
                del ways[0]
                if not ways:
                    self._missing[what] = nvml_words(error)
        return None
