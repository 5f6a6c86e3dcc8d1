"""The memory of a process on a GPU, from nvidia-ml-py or from what stands for it."""

import importlib.util
import inspect
import os
import sys
from collections.abc import Iterator
from types import SimpleNamespace

import fake_nvml
import pytest
import torch

from datbench.machine import Place
from datbench.memory.device import GpuProcess, process_memory

UUID = "12345678-aaaa-bbbb-cccc-1234567890ab"
BUS = "00000000:17:00.0"
HERE = Place(UUID, BUS)
MINE = 4242


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[fake_nvml.Gpu]:
    """The GPU behind `import pynvml`, with one process on it: ours.

    However a test ends, NVML was shut down as often as it was started.
    """
    found = fake_nvml.Gpu(uuid=f"GPU-{UUID}", bus=BUS, compute={MINE: 5 << 30})
    monkeypatch.setitem(sys.modules, "pynvml", fake_nvml.module(found))
    yield found
    assert found.started == 0 or "nvmlShutdown" in found.refused


def test_our_process_and_its_gpu(gpu: fake_nvml.Gpu) -> None:
    gpu.compute = {MINE: 5 << 30, 7: 1 << 30, 8: None}
    assert process_memory(HERE, MINE) == GpuProcess(5 << 30, None, 2, gpu.driver)
    assert process_memory(HERE, MINE, known=frozenset({7, 99})).others == 1


@pytest.mark.parametrize(
    ("there", "place", "asked"),
    [
        (f"GPU-{UUID}", HERE, ["UUID"]),
        (f"GPU-{UUID}", Place(f"GPU-{UUID}", None), ["UUID"]),
        (f"MIG-{UUID}", HERE, ["UUID", "UUID"]),
        ("GPU-another", HERE, ["UUID", "UUID", "PciBusId"]),
        (f"GPU-{UUID}", Place(None, BUS), ["PciBusId"]),
    ],
)
def test_the_device_is_found_by_its_own_names(
    gpu: fake_nvml.Gpu, there: str, place: Place, asked: list[str]
) -> None:
    gpu.uuid = there
    assert process_memory(place, MINE).amount == 5 << 30
    handles = [c for c in gpu.calls if "GetHandle" in c]
    assert handles == [f"nvmlDeviceGetHandleBy{name}" for name in asked]


@pytest.mark.parametrize("place", [Place("another", None), Place(None, None)])
def test_a_device_that_nvml_does_not_know(gpu: fake_nvml.Gpu, place: Place) -> None:
    assert process_memory(place, MINE) == GpuProcess(None, "NVML: Not Found")


def test_torch_tells_the_place() -> None:
    known = SimpleNamespace(uuid=UUID, pci_domain_id=0, pci_bus_id=0x17, pci_device_id=0)
    assert Place.of(known) == HERE
    assert Place.of(SimpleNamespace(uuid=UUID)) == Place(UUID, None)  # torch 2.6
    assert Place.of(SimpleNamespace()) == Place(None, None)


@pytest.mark.parametrize(
    ("compute", "reason"),
    [
        ({}, "NVML lists nobody on this GPU and not process 4242; a container"),
        ({7: 1, 8: 2}, "NVML lists 2 others on this GPU and not process 4242; a container"),
        ({MINE: None}, "NVML lists the process without its memory"),
        ({MINE: 2**64 - 1}, "NVML lists the process without its memory"),
        ({MINE: 0}, "NVML lists the process without its memory"),
    ],
)
def test_a_container_that_hides_the_process(
    gpu: fake_nvml.Gpu, compute: dict[int, int | None], reason: str
) -> None:
    gpu.compute = compute
    found = process_memory(HERE, MINE)
    assert found.amount is None
    assert found.reason is not None
    assert found.reason.startswith(reason)
    assert found.driver == gpu.driver
    assert found.others == len(set(compute) - {MINE})


def test_a_process_that_computes_and_draws_is_counted_once(gpu: fake_nvml.Gpu) -> None:
    gpu.graphics = {MINE: 6 << 30, 9: None}
    found = process_memory(HERE, MINE)
    assert (found.amount, found.others) == (6 << 30, 1)
    gpu.graphics = {MINE: None}
    assert process_memory(HERE, MINE).amount == 5 << 30


@pytest.mark.parametrize(
    ("function", "code", "reason"),
    [
        ("nvmlInit", 12, "NVML: NVML Shared Library Not Found"),
        ("nvmlInit", 9, "NVML: Driver Not Loaded"),
        ("nvmlDeviceGetHandleByUUID", 15, None),  # the bus finds it
        ("nvmlSystemGetDriverVersion", 999, None),
        ("nvmlDeviceGetGraphicsRunningProcesses", 3, None),
        ("nvmlDeviceGetComputeRunningProcesses", 4, "NVML does not list processes: Insufficient"),
        ("nvmlShutdown", 1, None),
    ],
)
def test_what_nvml_refuses_is_a_reason_or_does_not_matter(
    gpu: fake_nvml.Gpu, function: str, code: int, reason: str | None
) -> None:
    gpu.refused = {function: code}
    found = process_memory(HERE, MINE)
    if reason is None:
        assert (found.amount, found.reason) == (5 << 30, None)
    else:
        assert found.amount is None
        assert (found.reason or "").startswith(reason)


def test_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)  # as if it was not installed
    missing = process_memory(HERE, MINE)
    assert missing.amount is None
    assert missing.reason == "nvidia-ml-py is not installed; pip install 'datbench[gpu]'"
    monkeypatch.setitem(sys.modules, "pynvml", SimpleNamespace(nvmlInit=None))
    assert "not nvidia-ml-py's" in (process_memory(HERE, MINE).reason or "")


def test_what_stands_for_the_library_is_like_it() -> None:
    if importlib.util.find_spec("pynvml") is None:
        pytest.skip("needs nvidia-ml-py")
    import pynvml

    fake = fake_nvml.module(fake_nvml.Gpu())
    for name in fake_nvml.FUNCTIONS:
        real = inspect.signature(getattr(pynvml, name)).parameters
        ours = inspect.signature(getattr(fake, name)).parameters
        assert list(ours) == list(real), name
        defaults = [p.default is p.empty for p in ours.values()]
        assert defaults == [p.default is p.empty for p in real.values()]
    assert pynvml.NVML_VALUE_NOT_AVAILABLE_ulonglong.value == 2**64 - 1
    assert fake.NVML_VALUE_NOT_AVAILABLE_ulonglong.value == 2**64 - 1
    assert pynvml.NVML_ERROR_NOT_FOUND == fake.NVML_ERROR_NOT_FOUND
    for code, (name, text) in fake_nvml.ERRORS.items():
        for library in (pynvml, fake):
            error = library.NVMLError(code)
            assert type(error).__name__ == f"NVMLError_{name}"
            assert isinstance(error, library.NVMLError)
            assert (error.value, str(error)) == (code, text)
            assert getattr(library, f"NVMLError_{name}")().value == code


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_this_process_on_a_gpu() -> None:
    pytest.importorskip("pynvml", reason="needs datbench[gpu]")
    held = torch.zeros(64 << 20, dtype=torch.uint8, device="cuda")
    properties = torch.cuda.get_device_properties(held.device)
    found = process_memory(Place.of(properties), os.getpid())
    assert found.driver
    if found.amount is None:
        pytest.skip(found.reason or "")
    assert found.amount > torch.cuda.memory_reserved()
