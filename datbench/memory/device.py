"""One run in a process of its own, and what it held: a configuration on a real device, or what a
simulation stands for on the CPU.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from ..counting.count import count_model, warn_of_sampling
from ..errors import DatbenchError, LibraryError, MeasurementError, UsageError
from ..inputs import Inputs
from ..machine import (
    GpuPlace,
    check_present,
    environment,
    forget_peak,
    nvml,
    nvml_words,
    peak_resident,
)
from ..models.resolve import Spec, resolve
from ..process import SHORT_OF_MEMORY, ask, short
from ..run import (
    as_written,
    build_model,
    failure,
    iterate,
    make_inputs,
    optimizer_state,
    quiet_kineto,
    stepped,
    tensors_in,
    unchanged,
)
from ..setting import PLAIN, MemoryMode, Recipe, Setting
from .records import (
    HELD,
    CpuPeak,
    GpuEnvironment,
    GpuPeaks,
    GpuRow,
    Held,
    HeldLine,
    MemoryRow,
    Outcome,
)
from .simulation import checkpointed, simulate_model

TIMEOUT = 300.0
"""Seconds that one run may take, the start of its process and `import torch` included."""


def measure_gpu(
    name: str | Spec,
    setting: Setting,
    mode: MemoryMode,
    recipe: Recipe | None = None,
    timeout: float = TIMEOUT,
    limit: int | None = None,
) -> GpuRow:
    """Run a model on the setting's device, ``cuda`` or ``cpu``, and tell what it held.

    One iteration warms up, so that libraries have their workspaces and the optimizer its state;
    the next is measured. What goes wrong in the process is a row with its outcome, not an error.

    Args:
        limit: bytes that tensors may take of a GPU; None for all of it.

    Raises:
        UnknownNameError: no such model.
        UsageError: the device is not here, or the recipe does not suit it, the mode or the dtype.
    """
    spec = resolve(name) if isinstance(name, str) else name
    recipe = (recipe or Recipe()).of(mode)
    check_recipe(setting, recipe)
    check_present(setting.device)
    if setting.device == "cpu" and setting.dtype != "float32":
        with suppress(DatbenchError):  # the run tells it
            warn_of_sampling(
                spec, setting, count_model(spec, replace(setting, device="meta")).calls
            )
    job = DeviceJob(spec.name, setting, mode, recipe, limit)
    began = time.perf_counter()
    reply = ask("datbench.memory.device:work", job, GpuRow, timeout)
    seconds = time.perf_counter() - began
    if reply.answer is not None:
        reason = reply.answer.reason and short(reply.answer.reason)
        return replace(reply.answer, reason=reason, seconds=seconds)
    assert reply.ending is not None
    return replace(job.row(*reply.ending.outcome(timeout, setting.device)), seconds=seconds)


@dataclass(frozen=True)
class DeviceJob:
    """A configuration that a process is to run."""

    model: str
    setting: Setting
    mode: MemoryMode
    recipe: Recipe
    limit: int | None = None  # bytes that tensors may take of a GPU

    def row(
        self, outcome: Outcome, reason: str | None = None, here: OnGpu | OnCpu | None = None
    ) -> GpuRow:
        """A row without figures, with what is known of the place."""
        return GpuRow(
            model=self.model,
            setting=self.setting,
            mode=self.mode,
            recipe=self.recipe,
            outcome=outcome,
            reason=reason,
            peaks=None,
            lines=(),
            environment=None if here is None else here.environment,
            others=None if here is None else here.others,
            seconds=0.0,
        )


def check_recipe(setting: Setting, recipe: Recipe) -> None:
    """Whether a device runs this recipe.

    Raises:
        UsageError: it does not.
    """
    if recipe.autocast is None:
        return
    if setting.dtype != "float32":
        raise UsageError(f"autocast casts float32; a model in {setting.dtype} takes no autocast.")
    if setting.device == "cpu":
        raise UsageError(NO_AUTOCAST)


# The memory of a process on a GPU, as the driver counts it: NVML, through nvidia-ml-py.


T = TypeVar("T")


@dataclass(frozen=True)
class GpuProcess:
    """What NVML says of a process on a GPU."""

    amount: int | None  # in bytes; None where `reason` says why
    reason: str | None
    others: int | None = None  # other processes there; None where they cannot be listed
    driver: str | None = None  # its version


def process_memory(place: GpuPlace, pid: int, known: frozenset[int] = frozenset()) -> GpuProcess:
    """The memory of process `pid` on a GPU. What NVML refuses is a reason, not an error.

    Args:
        known: processes that are not counted as others.
    """
    try:
        with nvml(place) as (library, handle):
            driver = _or_none(library, library.nvmlSystemGetDriverVersion)
            try:
                listed = _processes(library, handle)
            except library.NVMLError as error:
                said = nvml_words(error).replace("NVML:", "NVML does not list processes:", 1)
                return GpuProcess(None, said, None, driver)
    except LibraryError as error:
        return GpuProcess(None, str(error).rstrip("."))
    others = len(set(listed) - {pid} - known)
    if pid not in listed:
        among = f"{len(listed)} others" if listed else "nobody"
        said = (
            f"NVML lists {among} on this GPU and not process {pid}; "
            "a container that numbers its processes itself hides it"
        )
    elif not listed[pid]:
        said = "NVML lists the process without its memory; a container or the driver hides it"
    else:
        return GpuProcess(listed[pid], None, others, driver)
    return GpuProcess(None, said, others, driver)


def _processes(library: Any, handle: Any) -> dict[int, int | None]:
    """Bytes of every process; the larger figure of one that computes and draws."""
    # The library turns "not available" into None; its older releases did not everywhere.
    unknown = (None, library.NVML_VALUE_NOT_AVAILABLE_ulonglong.value)
    computing = library.nvmlDeviceGetComputeRunningProcesses(handle)
    drawing = _or_none(library, lambda: library.nvmlDeviceGetGraphicsRunningProcesses(handle))
    found: dict[int, int | None] = {}
    for process in (*computing, *(drawing or ())):
        amounts = (found.get(process.pid), process.usedGpuMemory)
        found[process.pid] = max((a for a in amounts if a not in unknown), default=None)
    return found


def _or_none(library: Any, ask: Callable[[], T]) -> T | None:
    """An answer that the rest can do without."""
    try:
        return ask()
    except library.NVMLError:
        return None


# What a process holds on a device, before, at and after a run: CUDA's figures and the CPU's.


_ALLOCATOR = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF")
"""Variables that set the caching allocator; torch before 2.9 knows the second alone."""


class OnGpu:
    """A GPU's figures; from here on the GPU is the current one.

    Args:
        cuda: `torch.cuda`, or what a test has in its place.
    """

    def __init__(self, device: str, cuda: Any) -> None:
        self.cuda = cuda
        where = torch.device(device)
        properties = cuda.get_device_properties(where)
        self.place = GpuPlace.of(properties)
        # Before this process has a context: whoever is listed now is somebody else.
        first = process_memory(self.place, os.getpid(), frozenset({os.getppid()}))
        self.others = first.others
        self.environment = GpuEnvironment(
            name=str(properties.name),
            memory=int(properties.total_memory),
            driver=first.driver,
            torch=str(torch.__version__),
            cuda=torch.version.cuda,
            allocator=_allocator(cuda),
        )
        if where.index is not None:
            cuda.set_device(where)
        # Made when memory is short, cuBLAS fails with a status that does not say so.
        cuda.current_blas_handle()

    def built(self) -> None:
        """Give back what building left in the cache."""
        self.cuda.synchronize()
        self.cuda.empty_cache()

    def begin(self) -> None:
        """Peaks from here."""
        self.cuda.synchronize()
        self.cuda.reset_peak_memory_stats()
        self.held = self.cuda.memory_allocated()
        self.retries = int(self.cuda.memory_stats().get("num_alloc_retries", 0))

    def end(self) -> None:
        """The run is over, and what it held is still there."""
        self.cuda.synchronize()
        self.stats = self.cuda.memory_stats()
        self.allocated = self.cuda.max_memory_allocated()
        self.reserved = self.cuda.max_memory_reserved()
        self.now = self.cuda.memory_reserved()
        self.process = _plausible(process_memory(self.place, os.getpid()), self.now)

    def figures(
        self, before: Mapping[Held, int], again: Callable[[], int]
    ) -> tuple[GpuPeaks, tuple[HeldLine, ...]]:
        """What was held; `before` are the tensors that were there at `begin`."""
        stats, process = self.stats, self.process
        peaks = GpuPeaks(
            allocated=self.allocated,
            requested=stats.get("requested_bytes.all.peak"),
            reserved=self.reserved,
            process=process.amount,
            retries=int(stats.get("num_alloc_retries", 0)) - self.retries,
        )
        amounts: dict[Held, int | None] = {
            **before,
            "workspaces": self.held - sum(before.values()),
            "run": self.allocated - self.held,
            "slack": self.reserved - self.allocated,
            "context": None if process.amount is None else process.amount - self.now,
        }
        return peaks, _lines(amounts, {"context": process.reason})


class OnCpu:
    """The CPU's figures: the resident set, and afterwards the profiler's peak."""

    def __init__(self) -> None:
        machine = environment()
        self.others = None
        self.environment = GpuEnvironment(
            name=machine["processor"],
            memory=machine["memory_bytes"],
            driver=None,
            torch=str(torch.__version__),
            cuda=None,
            allocator=None,
        )

    def built(self) -> None:
        """Nothing is cached."""

    def begin(self) -> None:
        """The largest resident set from here, where the system can forget the earlier one."""
        forget_peak()

    def end(self) -> None:
        """The largest resident set until here."""
        self.resident = peak_resident()

    def figures(
        self, before: Mapping[Held, int], again: Callable[[], int]
    ) -> tuple[GpuPeaks, tuple[HeldLine, ...]]:
        """What was held; `again` runs once more under the profiler for the peak of the tensors.

        The resident set has not seen the profiler's own memory.
        """
        resident, allocated = self.resident, again()
        none = "the CPU has no caching allocator"
        reasons: dict[Held, str | None] = {"workspaces": none, "slack": none}
        amounts: dict[Held, int | None] = {**before, "run": allocated - sum(before.values())}
        if resident is None:
            reasons["context"] = "this system does not tell a process's largest resident set"
        elif resident < allocated:
            reasons["context"] = "not all that was allocated was resident"
        else:
            amounts["context"] = resident - allocated
        return GpuPeaks(allocated, allocated, None, resident, None), _lines(amounts, reasons)


def _lines(
    amounts: Mapping[Held, int | None], reasons: Mapping[Held, str | None]
) -> tuple[HeldLine, ...]:
    """One for each part, in order; without an optimizer's step there is no state."""
    why = {"optimizer": None if "optimizer" in amounts else "no optimizer's step was made"}
    return tuple(HeldLine(p, amounts.get(p), reasons.get(p) or why.get(p)) for p in HELD)


def _plausible(process: GpuProcess, reserved: int) -> GpuProcess:
    """A figure below what the allocator reserves is another process's of the same number."""
    if process.amount is None or process.amount >= reserved:
        return process
    reason = (
        f"NVML's figure for process {os.getpid()} is below what torch reserves: "
        "in this container it is another process's"
    )
    return replace(process, amount=None, reason=reason)


def _allocator(cuda: Any) -> str:
    told = next((os.environ[name] for name in _ALLOCATOR if os.environ.get(name)), None)
    backend = cuda.get_allocator_backend()
    return f"{backend}, {told}" if told else backend


# The process in which one configuration runs.


def work(job: DeviceJob, cuda: Any = None) -> GpuRow:
    """Run one configuration. Whatever it raises is an outcome.

    Args:
        cuda: torch's, unless a test brings its own.
    """
    device = job.setting.device
    on_gpu = torch.device(device).type == "cuda" or cuda is not None
    here: OnGpu | OnCpu | None = None
    try:
        if job.limit is not None and cuda is None:
            _limit(device, job.limit)
        here = OnGpu(device, cuda or torch.cuda) if on_gpu else OnCpu()
        peaks, lines = _measured(job, here)
    except (Exception, SystemExit) as error:
        return job.row(*failure(error, on_gpu), here)
    return replace(job.row("measured", None, here), peaks=peaks, lines=lines)


def _limit(device: str, limit: int) -> None:
    """Let the allocator have so much of the GPU, as if it were a smaller one.

    Raises:
        UsageError: the GPU has less.
    """
    total = torch.cuda.get_device_properties(device).total_memory
    if limit > total:
        raise UsageError(f"this GPU has {total} bytes; {limit} cannot be tried on it.")
    torch.cuda.set_per_process_memory_fraction(limit / total, device)


def _measured(job: DeviceJob, here: OnGpu | OnCpu) -> tuple[GpuPeaks, tuple[HeldLine, ...]]:
    mode, recipe = job.mode, job.recipe
    # The simulation runs without the fast path too.
    with as_written():
        # The run that warms up makes late weights, too.
        model = build_model(job.model, job.setting, training=mode != "inference", late=False)
        given = make_inputs(job.setting, model)
        here.built()
        with checkpointed(model, recipe.checkpointing):
            iterate(model, given, mode, _casting(job))  # what it returns dies here
            optimizer = stepped(recipe.optimizer, model) if recipe.optimizer else None
            model.zero_grad(set_to_none=True)
            before = held_before(model, given, optimizer, torch.device(job.setting.device).type)
            here.begin()
            held = iterate(model, given, mode, _casting(job))
            if optimizer is not None:
                optimizer.step()
            here.end()
            del held  # alive until here, as a caller's are

        def again() -> int:
            return profiled(model, *given.args, mode=mode, recipe=recipe, kwargs=given.named).peak

        return here.figures(before, again)


def _casting(job: DeviceJob) -> AbstractContextManager[Any]:
    if job.recipe.autocast is None:
        return nullcontext()
    kind = torch.device(job.setting.device).type
    return torch.autocast(kind, getattr(torch, job.recipe.autocast))


def held_before(
    model: nn.Module, given: Inputs, optimizer: torch.optim.Optimizer | None, device: str
) -> dict[Held, int]:
    """Bytes of the storages that are there before the run, each once and on the run's device."""
    groups: dict[Held, Iterable[Tensor]] = {
        "parameters": model.parameters(),
        "buffers": model.buffers(),
        "inputs": tensors_in(given),
    }
    if optimizer is not None:
        groups["optimizer"] = optimizer_state(optimizer)
    seen: set[int] = set()
    found = dict.fromkeys(groups, 0)
    for part, members in groups.items():
        for tensor in members:
            if tensor.device.type != device:
                continue  # AdamW counts its steps on the host
            storage = tensor.untyped_storage()
            if storage._cdata not in seen:
                seen.add(storage._cdata)
                found[part] += storage.nbytes()
    return found


# The same run on the CPU, in a process of its own, under torch's profiler.
#
# The profiler reports every allocation and release of the CPU allocator; replayed in order, on top
# of what was there before, they give the peak. What oneDNN and others allocate past the allocator
# is not seen.


NO_AUTOCAST = (
    "autocast is simulated as CUDA's, which runs other operators in low precision than the CPU's; "
    "it cannot be verified there."
)


def with_simulated(row: GpuRow) -> GpuRow:
    """The row, and the peak that the simulation gives for the same run."""
    setting = replace(row.setting, device="meta")
    _, trace = simulate_model(row.model, setting, row.mode, row.recipe)
    return replace(row, simulated_peak=trace.peak.amount)


def measured_on_cpu(row: MemoryRow) -> CpuPeak:
    """Run what a simulated row stands for.

    Raises:
        UsageError: the CPU has no equal of this run.
        MeasurementError: the run failed, or was killed for the memory that it took.
    """
    if row.recipe.autocast is not None:
        raise UsageError(NO_AUTOCAST)
    setting = replace(row.setting, device="cpu")
    job = DeviceJob(row.model, setting, row.mode, row.recipe)
    reply = ask("datbench.memory.device:verify", job, Profiled)
    found, ending = reply.answer, reply.ending
    if found is None:
        assert ending is not None
        if ending.signalled:
            raise MeasurementError(
                f"{row.model}: the run on the CPU was {ending}, probably {SHORT_OF_MEMORY}; verify "
                "a smaller batch."
            )
        if "allocate memory" in ending.last or "not enough memory" in ending.last:
            raise MeasurementError(
                f"{row.model}: out of memory on the CPU; verify a smaller batch."
            )
        raise MeasurementError(f"{row.model}: the run on the CPU failed: {ending.last or ending}")
    difference = row.peak.amount / found.peak - 1
    return CpuPeak(found.peak, found.at_end, found.operator, difference)


@dataclass(frozen=True)
class Profiled:
    """What the profiler saw of a run, in bytes."""

    peak: int
    at_end: int  # what is alive then
    operator: str  # at the peak


def verify(job: DeviceJob) -> Profiled:
    """Do one run."""
    model = build_model(job.model, job.setting, training=job.mode != "inference")
    given = make_inputs(job.setting, model)
    return profiled(model, *given.args, mode=job.mode, recipe=job.recipe, kwargs=given.named)


def profiled(
    model: nn.Module,
    *inputs: Any,
    mode: MemoryMode,
    recipe: Recipe = PLAIN,
    kwargs: Mapping[str, Any] | None = None,
) -> Profiled:
    """Run a model on the CPU under the profiler.

    Args:
        kwargs: what its forward takes by name.

    Raises:
        UsageError: the recipe does not suit the mode or the model, or has autocast.
        MeasurementError: a training mode, and nothing that the model returns has a gradient.
    """
    recipe = recipe.of(mode)
    if recipe.autocast is not None:
        raise UsageError(NO_AUTOCAST)
    given = Inputs(inputs, kwargs or {})
    with unchanged(model, given), as_written(), checkpointed(model, recipe.checkpointing):
        optimizer = None
        if recipe.optimizer is not None:
            iterate(model, given, "backward")
            optimizer = stepped(recipe.optimizer, model)
        before = held_before(model, given, optimizer, "cpu")
        activities = [ProfilerActivity.CPU]
        with quiet_kineto(), profile(activities=activities, profile_memory=True) as profiler:
            # Held until the profiler has stopped, so that they are alive at the end.
            held = iterate(model, given, mode)
            if optimizer is not None:
                optimizer.step()
        del held
    return _replayed(profiler.profiler.kineto_results.events(), sum(before.values()))


def _replayed(events: Any, before: int) -> Profiled:
    changes = sorted(
        ((e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]"),
        key=lambda change: change[0],
    )
    live = peak = before
    at = 0
    for when, change in changes:
        live += change
        if live > peak:
            peak, at = live, when
    running = sorted(
        (e.start_ns(), e.name())
        for e in events
        if e.name().startswith("aten::") and e.start_ns() <= at <= e.start_ns() + e.duration_ns()
    )
    return Profiled(peak, live, running[0][1] if running else "")
