"""One configuration in a process of its own: what it held, and how it may end."""

import inspect
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar

import pytest
import torch
from torch import Tensor, nn

from datbench import process
from datbench.errors import UsageError
from datbench.machine import GpuPlace
from datbench.memory import device
from datbench.memory.device import GpuProcess, measure_gpu, process_memory
from datbench.memory.records import GpuRow
from datbench.memory.view import many_runs, measured_tables
from datbench.process import Ending, Reply
from datbench.records import document, dumps
from datbench.render.text import to_csv, to_markdown
from datbench.setting import MemoryMode, Recipe, Resolution, Setting
from tests import fake_nvml
from tests.fake_nvml import Gpu

UUID = "12345678-aaaa-bbbb-cccc-1234567890ab"
SETTING = Setting(Resolution(32, 32), batch=2, device="cpu")
MIB, MINE = 1 << 20, os.getpid()
T = TypeVar("T")

POSIX = pytest.mark.skipif(os.name != "posix", reason="signals and process groups are POSIX")

MODELS = '''
import time
import torch
from torch import nn

class Does(nn.Module):
    """A classifier that does something first."""
    def __init__(self, what="nothing"):
        super().__init__()
        self.what = what
        self.conv = nn.Conv2d(3, 8, 3)
        self.register_buffer("scale", torch.ones(16))
        if what == "fails to be built":
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3 GiB. No.")

    def forward(self, x):
        print("noise")
        if self.what == "sleeps":
            time.sleep(60)
        if self.what == "raises":
            raise ValueError("no\\nsuch thing")
        if self.what == "fills the machine":
            torch.empty(1 << 60)
        if self.what == "fills the GPU":
            raise torch.OutOfMemoryError(
                "CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity of "
                "1.5 GiB of which 2.5 MiB is free. Including non-PyTorch memory, this process")
        if self.what == "fills cuBLAS":
            raise RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate")
        if self.what == "has no gradient":
            x = x.detach()
            return x.sum()
        return self.conv(x).mean((2, 3)).float()
'''


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """`models_that:Does,what=...` here and in processes."""
    (tmp_path / "models_that.py").write_text(MODELS)
    monkeypatch.chdir(tmp_path)
    before = list(sys.path)
    sys.modules.pop("models_that", None)
    yield
    sys.modules.pop("models_that", None)
    sys.path[:] = before


def does(what: str) -> str:
    return f"models_that:Does,what={what}"


# --- in this process, with a fake torch.cuda and a fake NVML ---


CUDA = {
    "set_device": None,
    "get_device_properties": SimpleNamespace(name="Fake 1", total_memory=80 << 30, uuid=UUID),
    "get_allocator_backend": "native",
    "current_blas_handle": 1,
    "synchronize": None,
    "empty_cache": None,
    "reset_peak_memory_stats": None,
    "memory_allocated": 10 * MIB,
    "memory_reserved": 30 * MIB,
    "max_memory_allocated": 20 * MIB,
    "max_memory_reserved": 32 * MIB,
    "memory_stats": {"requested_bytes.all.peak": 19 * MIB},
}
"""What the functions of `torch.cuda` answer."""


class FakeCuda:
    """It notes the calls in order; the cache is given back so often between two statistics."""

    def __init__(self, retries: int = 0) -> None:
        self.calls: list[str] = []
        self.retries = retries

    def __getattr__(self, name: str) -> Any:
        return partial(self._answer, name)

    def _answer(self, name: str, *given: object) -> Any:
        self.calls.append(name)
        retries = self.retries * self.calls.count("memory_stats")
        return CUDA[name] | {"num_alloc_retries": retries} if name == "memory_stats" else CUDA[name]


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gpu]:
    """The GPU behind `import pynvml`, with one process on it: ours.

    However a test ends, NVML was shut down as often as it was started.
    """
    found = Gpu(compute={MINE: 500 * MIB})
    monkeypatch.setitem(sys.modules, "pynvml", found.module())
    for name in ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"):
        monkeypatch.delenv(name, raising=False)
    yield found
    assert found.started == 0 or "nvmlShutdown" in found.refused


def row(
    model: str,
    cuda: FakeCuda,
    mode: MemoryMode = "backward",
    recipe: Recipe | None = None,
    setting: Setting = SETTING,
) -> GpuRow:
    """What the parent makes of the worker's answer, which has been JSON in between."""
    job = device.DeviceJob(model, setting, mode, (recipe or Recipe()).of(mode))
    answer = sent(device.work(sent(job), cuda))
    return replace(answer, setting=replace(setting, device="cuda"), seconds=1.5)


def sent(value: T) -> T:
    """As it arrives in the other process."""
    found: T = process.unpacked(type(value), json.loads(json.dumps(process.packed(value))))
    return found


def amounts(of: GpuRow) -> dict[str, int | None]:
    return {line.part: line.amount for line in of.lines}


def test_a_ledger_of_a_gpu(models: None, driver: Gpu) -> None:
    driver.compute |= {os.getppid(): 300 * MIB}  # the process that asked is no stranger
    found = row(does("nothing"), FakeCuda())
    assert found.outcome == "measured"
    assert asdict(found.peaks) == {
        "allocated": 20 * MIB,
        "requested": 19 * MIB,
        "reserved": 32 * MIB,
        "process": 500 * MIB,
        "retries": 0,
    }
    held = (8 * 27 + 8) * 4 + 16 * 4 + 2 * 3 * 32 * 32 * 4
    assert amounts(found) == {
        "parameters": (8 * 27 + 8) * 4,
        "buffers": 16 * 4,
        "inputs": 2 * 3 * 32 * 32 * 4,
        "optimizer": None,
        "workspaces": 10 * MIB - held,
        "run": 10 * MIB,
        "slack": 12 * MIB,
        "context": 470 * MIB,  # what is reserved when NVML is asked, not at the peak
    }
    optimizer = found.line("optimizer")
    assert optimizer.reason == "no optimizer's step was made"
    assert asdict(found.environment) == {
        "name": "Fake 1",
        "memory": 80 << 30,
        "driver": driver.driver,
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "allocator": "native",
    }
    assert found.others == 0
    plain = json.loads(dumps(document("memory", [found], {})))["rows"][0]
    assert plain["lines"][7] == {"part": "context", "amount": 470 * MIB, "reason": None}
    assert (plain["setting"]["width"], plain["environment"]["name"]) == (32, "Fake 1")


def test_torch_has_what_is_used_of_it() -> None:
    for name in CUDA:
        given = [None] if name in ("set_device", "get_device_properties") else []
        inspect.signature(getattr(torch.cuda, name)).bind(*given)


class Logs(nn.Module):
    """Writes its runs among the calls of the fake."""

    log: list[str] = []  # noqa: RUF012

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(32, 4)

    def forward(self, x: Tensor) -> Tensor:
        self.log.append("training" if self.training else "inference")
        assert self.layer.weight.grad is None
        return self.layer(x)


@pytest.mark.parametrize(
    ("mode", "word"), [("inference", "inference"), ("backward", "training"), ("step", "training")]
)
def test_a_run_warms_up_before_the_peaks_are_reset(
    mode: MemoryMode, word: str, driver: Gpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    cuda = FakeCuda()
    monkeypatch.setattr(Logs, "log", cuda.calls)
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    found = row(f"{__name__}:Logs", cuda, mode)
    assert found.reason is None
    order = ["get_device_properties", "current_blas_handle", "empty_cache", word]
    order += ["reset_peak_memory_stats", word, "max_memory_allocated"]
    assert [call for call in cuda.calls if call in order] == order


@pytest.mark.parametrize(("optimizer", "copies"), [("sgd", 0), ("sgd-momentum", 1), ("adamw", 2)])
def test_a_step_has_an_optimizers_state(
    optimizer: Any, copies: int, models: None, driver: Gpu
) -> None:
    found = row(does("nothing"), FakeCuda(), "step", Recipe(optimizer))
    weights = (8 * 27 + 8) * 4
    steps = 2 * 4 if optimizer == "adamw" else 0  # a count for each parameter; here on one device
    assert amounts(found)["optimizer"] == copies * weights + steps


def test_nvml_may_have_no_figure(
    models: None, driver: Gpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver.compute = {1: 9 << 30}
    found = row(does("nothing"), FakeCuda())
    context = found.line("context")
    assert context.amount is None
    assert context.reason.startswith("NVML lists 1 others on this GPU and not process")
    assert found.others == 1
    assert "Warning: 1 other process was on the GPU already" in to_markdown(
        measured_tables([found])
    )

    driver.compute = {MINE: 29 * MIB}  # less than torch has: it cannot be this process
    found = row(does("nothing"), FakeCuda())
    assert found.peaks.process is None
    assert "it is another process's" in to_markdown(measured_tables([found]))

    monkeypatch.setitem(sys.modules, "pynvml", None)
    found = row(does("nothing"), FakeCuda())
    context = found.line("context")
    assert found.outcome == "measured"
    assert context.reason == "nvidia-ml-py is not installed; pip install nvidia-ml-py"
    assert found.others is None
    monkeypatch.setitem(sys.modules, "pynvml", SimpleNamespace(nvmlInit=None))
    assert "not nvidia-ml-py's" in process_memory(PLACE, MINE).reason


def test_a_cache_that_was_given_back_is_told(
    models: None, driver: Gpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")
    found = row(does("nothing"), FakeCuda(retries=2))
    assert found.peaks.retries == 2
    text = to_markdown(measured_tables([found]))
    assert "gave its cache back 2 times" in text
    assert "allocator native, expandable_segments:True" in text


@pytest.mark.parametrize("what", ["fills the GPU", "fills cuBLAS", "fails to be built"])
def test_out_of_memory_on_a_gpu(what: str, models: None, driver: Gpu) -> None:
    found = row(does(what), FakeCuda())
    assert found.outcome == "out of memory"
    assert found.peaks is None
    assert "\n" not in found.reason
    whole = (
        "CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity of 1.5 GiB of "
        "which 2.5 MiB is free"
    )
    assert what != "fills the GPU" or found.reason == whole
    assert found.environment is not None  # known before it failed
    assert "| out of memory | CUDA" in to_markdown(measured_tables([found]))


def test_other_failures(models: None, driver: Gpu) -> None:
    for what, reason in {
        "fills the machine": "",  # its memory is not the GPU's
        "raises": "ValueError: no such thing (in Does)",
        "has no gradient": "the model's output has no gradient",
    }.items():
        found = row(does(what), FakeCuda())
        assert found.outcome == "failed"
        assert found.reason.startswith(reason)
    assert row(does("has no gradient"), FakeCuda(), "inference").outcome == "measured"
    on_cpu = {"fills the GPU": "failed", "fills the machine": "out of memory"}
    for what, outcome in on_cpu.items():
        job = device.DeviceJob(does(what), SETTING, "backward", Recipe())
        assert device.work(job).outcome == outcome


def test_autocast_and_checkpointing_take_effect(
    models: None, driver: Gpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    class Sees(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            y = super().forward(x)
            seen.append(y.dtype)
            return y

    @contextmanager
    def noted(model: nn.Module, how: str) -> Iterator[None]:
        seen.append(how)
        yield

    monkeypatch.setattr(device, "checkpointed", noted)
    monkeypatch.setattr(nn, "Conv2d", Sees)
    recipe = Recipe(autocast="bfloat16", checkpointing="block")
    assert row(does("nothing"), FakeCuda(), "backward", recipe).outcome == "measured"
    assert seen == ["block", torch.bfloat16, torch.bfloat16]


# --- in a process of its own ---


def test_a_ledger_of_the_cpu(models: None) -> None:
    found = measure_gpu(does("nothing"), SETTING, "step", Recipe("adamw"), timeout=120)
    assert (found.outcome, found.reason) == ("measured", None)
    held = amounts(found)
    assert held["inputs"] == 2 * 3 * 32 * 32 * 4
    assert held["optimizer"] >= 2 * held["parameters"]
    assert (held["workspaces"], held["slack"]) == (None, None)
    known = [held[part] for part in ("parameters", "buffers", "inputs", "optimizer", "run")]
    assert sum(amount or 0 for amount in known) == found.peaks.allocated
    assert held["context"] == found.peaks.process - found.peaks.allocated
    assert 0 < held["context"] < 8 << 30
    assert found.environment.torch == torch.__version__
    text = to_markdown(measured_tables([found]))
    assert "- workspaces, allocator slack: the CPU has no caching allocator.\n" in text
    assert 0 < found.seconds < 120


@POSIX
@pytest.mark.parametrize(
    ("code", "outcome", "reason"),
    [
        (-11, "crashed", "killed by signal 11 (SIGSEGV)"),
        (-9, "crashed", "probably for lack of the machine's own memory; try a smaller"),
        (3, "crashed", "exit code 3"),
        (None, "out of memory", "memory"),
    ],
)
def test_how_a_process_may_end(
    code: int | None, outcome: str, reason: str, models: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ends(worker: str, job: device.DeviceJob, *rest: Any) -> Reply[GpuRow]:
        return Reply(device.work(job)) if code is None else Reply(None, Ending(code, ""))

    monkeypatch.setattr(device, "ask", ends)
    found = measure_gpu(does("fills the machine"), SETTING, "inference", timeout=120)
    assert found.outcome == outcome
    assert reason in found.reason
    assert "\n" not in found.reason
    assert (found.peaks, found.lines) == (None, ())
    table = many_runs([found, found])
    assert found.reason in to_csv([table])
    assert to_markdown(measured_tables([found, found])).count(found.reason) == 1
    title, *rest = to_markdown(measured_tables([found])).splitlines()
    said = "32x32, batch 2, float32, inference, on cpu"
    assert f": {outcome} ({said})" in title
    assert found.reason in "".join(rest)


def test_a_process_that_takes_too_long(models: None) -> None:
    found = measure_gpu(does("sleeps"), SETTING, "inference", timeout=0.5)
    assert (found.outcome, found.reason) == ("timed out", "did not finish in 0.5 s")
    assert found.seconds < 20


def test_what_is_refused_before_a_process_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "ask", None)
    cast = Recipe(autocast="bfloat16")
    for name, setting, recipe, words in (
        ("dat_q", SETTING, None, "unknown model 'dat_q'"),
        ("dat_t", replace(SETTING, device="meta"), None, "on cuda or on cpu, not on meta"),
        ("dat_t", SETTING, Recipe("adamw"), "no optimizer's step"),
        ("dat_t", SETTING, cast, "cannot be verified there"),
        ("dat_t", replace(SETTING, dtype="float16", device="cuda"), cast, "takes no autocast"),
    ):
        with pytest.raises(UsageError, match=words):
            measure_gpu(name, setting, "backward", recipe)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(UsageError, match="device 'cuda:99' is not available here"):
        measure_gpu("dat_t", replace(SETTING, device="cuda:99"), "backward")


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_a_machine_without_a_gpu() -> None:
    for name in ("cuda", "cuda:0", "cuda:x"):
        with pytest.raises(UsageError, match=f"'{name}' is not available here; use meta or cpu"):
            measure_gpu("dat_t", replace(SETTING, device=name), "backward")


# --- on a GPU ---


@pytest.mark.gpu
def test_a_gpu_that_is_too_small() -> None:
    found = measure_gpu("dat_b", Setting(Resolution(1024, 1024), 4096, device="cuda"), "inference")
    assert found.outcome == "out of memory"
    assert "out of memory" in found.reason


# The memory of a process, from nvidia-ml-py or from what stands for it.


BUS = "00000000:17:00.0"
PLACE = GpuPlace(UUID, BUS)


def test_our_process_and_its_gpu(driver: Gpu) -> None:
    driver.compute |= {7: 1 << 30, 8: None}
    assert process_memory(PLACE, MINE) == GpuProcess(500 * MIB, None, 2, driver.driver)
    assert process_memory(PLACE, MINE, known=frozenset({7, 99})).others == 1
    # One that computes and draws is counted once.
    driver.compute = {MINE: 500 * MIB}
    driver.graphics = {MINE: 600 * MIB, 9: None}
    found = process_memory(PLACE, MINE)
    assert (found.amount, found.others) == (600 * MIB, 1)
    driver.graphics = {MINE: None}
    assert process_memory(PLACE, MINE).amount == 500 * MIB
    for other in (GpuPlace("another", None), GpuPlace(None, None)):
        assert process_memory(other, MINE) == GpuProcess(None, "NVML: Not Found")


@pytest.mark.parametrize(
    ("there", "place", "asked"),
    [
        (f"GPU-{UUID}", PLACE, ["UUID"]),
        (f"GPU-{UUID}", GpuPlace(f"GPU-{UUID}", None), ["UUID"]),
        (f"MIG-{UUID}", PLACE, ["UUID", "UUID"]),
        ("GPU-another", PLACE, ["UUID", "UUID", "PciBusId"]),
        (f"GPU-{UUID}", GpuPlace(None, BUS), ["PciBusId"]),
    ],
)
def test_the_device_is_found_by_its_own_names(
    driver: Gpu, there: str, place: GpuPlace, asked: list[str]
) -> None:
    driver.uuid = there
    assert process_memory(place, MINE).amount == 500 * MIB
    handles = [c for c in driver.calls if "GetHandle" in c]
    assert handles == [f"nvmlDeviceGetHandleBy{name}" for name in asked]


def test_torch_tells_the_place() -> None:
    known = SimpleNamespace(uuid=UUID, pci_domain_id=0, pci_bus_id=0x17, pci_device_id=0)
    assert GpuPlace.of(known) == PLACE
    assert GpuPlace.of(SimpleNamespace(uuid=UUID)) == GpuPlace(UUID, None)  # torch 2.6
    assert GpuPlace.of(SimpleNamespace()) == GpuPlace(None, None)


@pytest.mark.parametrize(
    ("compute", "reason"),
    [
        ({}, "NVML lists nobody on this GPU and not process"),
        ({7: 1, 8: 2}, "NVML lists 2 others on this GPU and not process"),
        ({MINE: None}, "NVML lists the process without its memory"),
        ({MINE: 2**64 - 1}, "NVML lists the process without its memory"),
        ({MINE: 0}, "NVML lists the process without its memory"),
    ],
)
def test_a_container_that_hides_the_process(
    driver: Gpu, compute: dict[int, int | None], reason: str
) -> None:
    driver.compute = compute
    found = process_memory(PLACE, MINE)
    assert found.amount is None
    assert found.reason.startswith(reason)
    assert "a container" in found.reason
    assert found.driver == driver.driver
    assert found.others == len(set(compute) - {MINE})


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
    driver: Gpu, function: str, code: int, reason: str | None
) -> None:
    driver.refused = {function: code}
    found = process_memory(PLACE, MINE)
    assert found.amount == (500 * MIB if reason is None else None)
    assert (found.reason or "").startswith(reason or "")
    assert (found.reason is None) is (reason is None)


def test_what_stands_for_the_library_is_like_it() -> None:
    import pynvml

    fake = Gpu().module()
    for name in fake_nvml.FUNCTIONS:
        real = inspect.signature(getattr(pynvml, name)).parameters
        ours = inspect.signature(getattr(fake, name)).parameters
        assert list(ours) == list(real), name
        defaults = [p.default is p.empty for p in ours.values()]
        assert defaults == [p.default is p.empty for p in real.values()]
    assert pynvml.NVML_VALUE_NOT_AVAILABLE_ulonglong.value == 2**64 - 1
