"""What a process holds on a device, before, at and after a run: CUDA's figures and the CPU's."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn

from ...errors import LibraryError
from ...gpu_memory import HELD, GpuEnvironment, GpuPeaks, Held, HeldLine
from ...ledger import MemoryMode, Recipe
from ..environment import environment
from ..nvml import Place
from .measured import profiled
from .nvml import Process, process_memory
from .resident import peak_resident, reset_resident

_ALLOCATOR = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF")
"""Variables that set the caching allocator; torch before 2.9 knows the second alone."""


class Cuda(Protocol):
    """What is used of `torch.cuda`."""

    def set_device(self, device: Any) -> None: ...  # noqa: D102
    def get_device_properties(self, device: Any) -> Any: ...  # noqa: D102
    def get_allocator_backend(self) -> str: ...  # noqa: D102
    def current_blas_handle(self) -> Any: ...  # noqa: D102
    def synchronize(self) -> None: ...  # noqa: D102
    def empty_cache(self) -> None: ...  # noqa: D102
    def reset_peak_memory_stats(self) -> None: ...  # noqa: D102
    def memory_allocated(self) -> int: ...  # noqa: D102
    def memory_reserved(self) -> int: ...  # noqa: D102
    def max_memory_allocated(self) -> int: ...  # noqa: D102
    def max_memory_reserved(self) -> int: ...  # noqa: D102
    def memory_stats(self) -> Mapping[str, Any]: ...  # noqa: D102


@dataclass(frozen=True)
class Answer:
    """What a run that went well is told by."""

    peaks: GpuPeaks
    lines: tuple[HeldLine, ...]
    environment: GpuEnvironment
    others: int | None

    def as_json(self) -> dict[str, Any]:
        """For the process that asked."""
        return {"outcome": "measured", **asdict(self)}


class OnGpu:
    """A GPU's figures."""

    def __init__(self, device: str, cuda: Cuda) -> None:
        self.cuda = cuda
        properties = cuda.get_device_properties(torch.device(device))
        self.place = Place.of(properties)
        # Before this process has a context: whoever is listed now is somebody else.
        first = self._process(known=frozenset({os.getppid()}))
        self.others = first.others
        self.environment = GpuEnvironment(
            name=str(properties.name),
            memory=int(properties.total_memory),
            driver=first.driver,
            torch=str(torch.__version__),
            cuda=torch.version.cuda,
            allocator=_allocator(cuda),
        )
        self.held = self.retries = 0

    @classmethod
    def at(cls, device: str, cuda: Cuda | None = None) -> OnGpu:
        """The device that torch calls so, from here on the current one."""
        layer = cuda if cuda is not None else cast(Cuda, torch.cuda)
        here = cls(device, layer)
        if torch.device(device).index is not None:
            layer.set_device(torch.device(device))
        # Made when memory is short, cuBLAS fails with a status that does not say so.
        layer.current_blas_handle()
        return here

    def _process(self, known: frozenset[int] = frozenset()) -> Process:
        try:
            return process_memory(self.place, os.getpid(), known)
        except LibraryError as error:
            return Process(None, str(error).rstrip("."))

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

    def end(self, before: Mapping[Held, int]) -> Answer:
        """What was held; `before` are the tensors that were there at `begin`."""
        self.cuda.synchronize()
        stats = self.cuda.memory_stats()
        allocated, reserved = self.cuda.max_memory_allocated(), self.cuda.max_memory_reserved()
        now = self.cuda.memory_reserved()
        process = _plausible(self._process(), now)
        peaks = GpuPeaks(
            allocated=allocated,
            requested=stats.get("requested_bytes.all.peak"),
            reserved=reserved,
            process=process.amount,
            retries=int(stats.get("num_alloc_retries", 0)) - self.retries,
        )
        amounts: dict[Held, int | None] = {
            **before,
            "workspaces": self.held - sum(before.values()),
            "run": allocated - self.held,
            "slack": reserved - allocated,
            "context": None if process.amount is None else process.amount - now,
        }
        reasons: dict[Held, str | None] = {"context": process.reason}
        return Answer(peaks, _lines(amounts, reasons), self.environment, self.others)

    def completed(
        self, found: Answer, model: nn.Module, image: Tensor, mode: MemoryMode, recipe: Recipe
    ) -> Answer:
        """Everything is known already."""
        return found


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
        self.before: Mapping[Held, int] = {}

    def built(self) -> None:
        """Nothing is cached."""

    def begin(self) -> None:
        """The largest resident set from here, where the system can forget the earlier one."""
        reset_resident()

    def end(self, before: Mapping[Held, int]) -> Answer:
        """The resident set; the rest is found by `completed`."""
        self.before = before
        peaks = GpuPeaks(None, None, None, peak_resident(), None)
        return Answer(peaks, (), self.environment, self.others)

    def completed(
        self, found: Answer, model: nn.Module, image: Tensor, mode: MemoryMode, recipe: Recipe
    ) -> Answer:
        """Run once more under the profiler, whose own memory the resident set has not seen."""
        resident = found.peaks.process
        allocated = profiled(model, image, mode=mode, recipe=recipe)[0]
        none = "the CPU has no caching allocator"
        reasons: dict[Held, str | None] = {"workspaces": none, "slack": none}
        amounts: dict[Held, int | None] = {**self.before, "workspaces": None, "slack": None}
        amounts["run"] = allocated - sum(self.before.values())
        amounts["context"] = None
        if resident is None:
            reasons["context"] = "this system does not tell a process's largest resident set"
        elif resident < allocated:
            reasons["context"] = "not all that was allocated was resident"
        else:
            amounts["context"] = resident - allocated
        return replace(
            found,
            peaks=replace(found.peaks, allocated=allocated, requested=allocated),
            lines=_lines(amounts, reasons),
        )


def _lines(
    amounts: Mapping[Held, int | None], reasons: Mapping[Held, str | None]
) -> tuple[HeldLine, ...]:
    """One for each part, in order; without an optimizer's step there is no state."""
    why = {"optimizer": None if "optimizer" in amounts else "no optimizer's step was made"}
    return tuple(HeldLine(p, amounts.get(p), reasons.get(p) or why.get(p)) for p in HELD)


def _plausible(process: Process, reserved: int) -> Process:
    """A figure below what the allocator reserves is another process's of the same number."""
    if process.amount is None or process.amount >= reserved:
        return process
    reason = (
        f"NVML's figure for process {os.getpid()} is below what torch reserves: "
        "in this container it is another process's"
    )
    return replace(process, amount=None, reason=reason)


def _allocator(cuda: Cuda) -> str:
    told = next((os.environ[name] for name in _ALLOCATOR if os.environ.get(name)), None)
    backend = cuda.get_allocator_backend()
    return f"{backend}, {told}" if told else backend
