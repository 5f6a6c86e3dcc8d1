"""What is said of a GPU's clocks and energy, from readings by hand and from a driver by hand."""

import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch

from datbench.machine import GpuPlace
from datbench.timing import telemetry
from datbench.timing.records import Telemetry, Timing
from datbench.timing.sample import time_calls
from datbench.timing.telemetry import (
    THROTTLING,
    Questions,
    Reading,
    integral,
    merged,
    spans_of,
    summary,
    throttled,
    watching,
)
from tests.fake_nvml import FUNCTIONS, UUID, Gpu, NVMLError

CPU = torch.device("cpu")
HERE = GpuPlace(UUID, None)


def timing_of(*samples: float, calls: int = 1) -> Timing:
    return Timing(samples, (), calls, "budget", samples[0], samples[0], samples[0], 0.0)


# Readings by hand


def ramp(power: float, step: float, until: float, interval: float = 0.5) -> list[Reading]:
    """A counter of energy that moves every `step` seconds, at a constant power."""
    moments = [i * interval for i in range(round(until / interval) + 1)]
    return [Reading(t, energy=power * step * (t // step)) for t in moments]


def test_energy_is_that_of_the_samples_alone() -> None:
    """200 W in the samples and 50 W between them; the counter moves at every reading."""
    # 0..1 idle, 1..2 a sample, 2..3 idle, 3..4 a sample, 4..5 idle
    joules = [0.0, 50.0, 250.0, 300.0, 500.0, 550.0]
    readings = [Reading(float(t), energy=7.0 + j) for t, j in enumerate(joules)]
    found = summary(readings, [(1.0, 2.0), (3.0, 4.0)], calls=5)
    assert found.energy == pytest.approx(400.0)
    assert found.calls == 10
    assert found.power == pytest.approx(200.0)
    assert found.note is None


@pytest.mark.parametrize(
    ("until", "spans", "calls", "energy", "counted", "note"),
    [
        (20.0, [(3.0 + i, 3.6 + i) for i in range(12)], 1, 12 * 0.6 * 100.0, 12, None),
        # it moves at 2, 4, 6 and 8
        (
            9.0,
            [(0.5, 1.5), (2.5, 3.5), (4.5, 5.5), (7.0, 9.0)],
            3,
            200.0,
            6,
            "energy: of 2 of 4 samples",
        ),
    ],
)
def test_a_coarse_counter_is_read_where_it_moves(
    until: float, spans: list, calls: int, energy: float, counted: int, note: str | None
) -> None:
    """At 100 W the counter moves every 2 s; a line between its moves is right at all moments."""
    found = summary(ramp(100.0, step=2.0, until=until), spans, calls)
    assert found.energy == pytest.approx(energy)
    assert (found.calls, found.note) == (counted, note)


@pytest.mark.parametrize("until", [1.5, 3.5, 4.5])
def test_too_short_for_the_counter(until: float) -> None:
    readings = [replace(r, power=90.0) for r in ramp(100.0, step=2.0, until=until)]
    found = summary(readings, [(0.5, 1.0), (2.2, 2.7)], calls=1)
    assert (found.energy, found.calls) == (None, None)
    assert found.power == 90.0
    assert found.note == "the counter of energy moved too rarely for so short a timing"


def test_without_a_counter_power_is_integrated() -> None:
    readings = [Reading(float(t), power=100.0 + 10 * t) for t in range(6)]
    assert integral(readings)[-1] == (5.0, 625.0)
    found = summary(readings, [(1.0, 2.0), (2.5, 3.5)], 1, {"energy": "NVML: Not Supported"})
    assert found.energy == pytest.approx(115 + 130)
    assert found.power == pytest.approx((110 + 120 + 130) / 3)
    assert found.note == (
        "energy: NVML: Not Supported; energy: the integral of the power that was read"
    )


def test_clocks_and_temperatures_are_those_during_samples() -> None:
    megahertz = [300, 1400, 1500, 1200, 300]
    readings = [
        Reading(float(t), clock=f * 1e6, temperature=50.0 + t) for t, f in enumerate(megahertz)
    ]
    found = summary(readings, [(0.5, 2.2), (2.8, 3.5)], calls=1)
    assert (found.clock, found.clock_low) == (1.4e9, 1.2e9)
    assert found.temperature == 53.0
    between = summary(readings, [(1.2, 1.4), (1.5, 1.6)], calls=1)  # no reading falls into one
    assert (between.clock, between.clock_low) == (1.45e9, 1.4e9)


def test_samples_that_a_throttled_moment_may_have_touched() -> None:
    bits = [0, 0, 0x04, 0x48, 0, 0]
    readings = [Reading(float(t), reasons=b) for t, b in enumerate(bits)]
    spans = [(0.2, 0.4), (0.9, 1.0), (1.2, 1.4), (2.4, 2.6), (3.2, 3.4), (4.2, 4.4)]
    assert throttled(readings, spans) == (
        ("SwPowerCap", "HwSlowdown", "HwThermalSlowdown"),
        (2, 3, 4),
    )


def test_the_bits_are_the_librarys_and_what_is_chosen_or_idle_is_no_throttling() -> None:
    import pynvml

    for bit, name in THROTTLING.items():
        assert getattr(pynvml, f"nvmlClocksThrottleReason{name}") == bit
    for name in ("GpuIdle", "ApplicationsClocksSetting", "SyncBoost", "DisplayClockSetting"):
        bit = getattr(pynvml, f"nvmlClocksThrottleReason{name}")
        assert throttled([Reading(0.0, reasons=bit)], [(0.0, 1.0)]) == ((), ())
    assert throttled([Reading(0.0, reasons=1 << 40)], [(0.0, 1.0)]) == ((), ())


def test_samples_are_the_last_that_were_stamped() -> None:
    stamps = [1.0, 2.0, 3.0, 4.0]
    assert spans_of(stamps, timing_of(0.25, 0.125, calls=2)) == [(2.5, 3.0), (3.75, 4.0)]
    assert spans_of([1.0], timing_of(0.5, 0.5)) == []


def test_several_gpus_are_one() -> None:
    one = Telemetry(1.4e9, 1.3e9, 300.0, 60.0, 20, ("SwPowerCap",), (1, 4), 50.0, None, "x")
    two = Telemetry(1.2e9, 1.0e9, 200.0, 20.0, 10, ("HwSlowdown",), (0, 4), 70.0)
    # by hand: a call takes 3 J on the one and 2 J on the other, 20 calls 100 J
    assert merged([one, two]) == Telemetry(
        1.3e9,
        1.0e9,
        500.0,
        100.0,
        20,
        ("SwPowerCap", "HwSlowdown"),
        (0, 1, 4),
        70.0,
        None,
        "rank 0: x",
    )
    silent = merged([one, Telemetry(clock=1.2e9)])
    assert (silent.power, silent.energy, silent.calls, silent.clock) == (None, None, None, 1.3e9)
    assert merged([one, Telemetry(reason="no")]) == Telemetry(reason="rank 1: no")
    assert merged([Telemetry(reason="no")] * 2) == Telemetry(reason="no")
    assert merged([one]) == replace(one, note="rank 0: x")


# A driver by hand


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gpu]:
    """The driver behind `import pynvml`; NVML is shut down and its thread has ended."""
    found = Gpu()
    monkeypatch.setitem(sys.modules, "pynvml", found.module())
    yield found
    assert found.started == 0
    assert not [t for t in threading.enumerate() if t.name == "datbench-nvml"]


def test_watching_a_gpu(driver: Gpu) -> None:
    """A counter at 300 W on the real clock, which never stands still."""
    driver.millijoules = lambda: round(time.perf_counter() * 300_000)
    with watching(CPU, 0.002, place=HERE) as watch:
        timing = time_calls(lambda: time.sleep(0.003), budget=0.15, width=0.0, between=watch.stamp)
        found = watch.telemetry(timing)
    assert (found.clock, found.clock_low, found.temperature) == (1.41e9, 1.41e9, 60.0)
    assert found.power == pytest.approx(300.0, rel=0.5)
    assert 0 < found.calls <= len(timing.samples)
    assert found.energy >= found.calls * 300 * min(timing.samples) * 0.5
    assert (found.throttled, found.throttled_samples) == ((), ())
    assert found.reason is None


def test_throttling_is_mapped_to_samples(driver: Gpu) -> None:
    driver.reasons = lambda: 0x01 | (0x08 if time.perf_counter() < switched else 0)
    switched = float("inf")
    with watching(CPU, 0.001, place=HERE) as watch:
        time.sleep(0.02)
        watch.stamp()
        switched = time.perf_counter()
        while watch.readings[-1].reasons != 0x01:
            time.sleep(0.001)
        time.sleep(0.02)
        watch.stamp()
        found = watch.telemetry(timing_of(0.02, 0.02))
    assert found.throttled == ("HwSlowdown",)
    assert found.throttled_samples == (0,)


def test_old_drivers_have_the_old_name(driver: Gpu) -> None:
    new = "nvmlDeviceGetCurrentClocksEventReasons"
    driver.refused, driver.started = {new: 13}, 1
    driver.reasons = lambda: 0x20
    missing: dict[str, str] = {}
    questions = Questions(driver.module(), driver, missing)
    assert [questions.ask().reasons for _ in range(3)] == [0x20] * 3
    assert driver.calls.count(new) == 1
    assert missing == {}
    driver.started = 0


def test_what_the_driver_refuses_is_none_with_a_reason(driver: Gpu) -> None:
    class TwoLines(NVMLError):
        def __str__(self) -> str:
            return "Not\nSupported"

    no = TwoLines(3)
    driver.refused = {name: no for name in FUNCTIONS if name.startswith("nvmlDeviceGet")}
    del driver.refused["nvmlDeviceGetHandleByUUID"]
    with watching(CPU, 0.001, place=HERE) as watch:
        time.sleep(0.01)
        watch.stamp()
        found = watch.telemetry(timing_of(0.01))
    said = "; ".join(
        f"{what}: NVML: Not Supported"
        for what in ("clock", "power", "temperature", "reasons", "energy")
    )
    assert found == Telemetry(note=said)
    assert driver.calls.count("nvmlDeviceGetClockInfo") == 1


@pytest.mark.parametrize(
    ("function", "error", "reason"),
    [
        ("nvmlInit", 9, "NVML: Driver Not Loaded"),
        ("nvmlDeviceGetHandleByUUID", 4, "NVML: Insufficient Permissions"),
        ("nvmlInit", OSError("libnvidia-ml.so.1"), "NVML: libnvidia-ml.so.1"),
        (None, 0, "nvidia-ml-py is not installed; pip install nvidia-ml-py"),
    ],
)
def test_no_telemetry_is_no_error(
    driver: Gpu,
    monkeypatch: pytest.MonkeyPatch,
    function: str | None,
    error: int | Exception,
    reason: str,
) -> None:
    if function is None:
        monkeypatch.setitem(sys.modules, "pynvml", None)
    else:
        driver.refused = {function: error}
    with watching(CPU, place=HERE) as watch:
        timing = time_calls(lambda: None, budget=0.01, between=watch.stamp)
    assert watch.telemetry(timing) == Telemetry(reason=reason)


def test_a_cpu_has_no_telemetry() -> None:
    with watching(CPU) as watch:
        watch.stamp()
    assert watch.telemetry(timing_of(1.0)) == Telemetry(reason=telemetry.NOT_A_GPU)


def test_samples_that_the_watch_was_not_told_of(driver: Gpu) -> None:
    with watching(CPU, place=HERE) as watch:
        watch.stamp()
    assert watch.telemetry(timing_of(1.0, 1.0)).reason is not None


def test_an_error_in_the_block_ends_the_thread(driver: Gpu) -> None:
    with pytest.raises(RuntimeError, match="mine"), watching(CPU, place=HERE):
        raise RuntimeError("mine")
