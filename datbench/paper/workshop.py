"""What the rows of tables are computed from: every model built and counted once."""

from __future__ import annotations

import os
import signal
import sys
from collections import deque
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any, TypeAlias, TypeVar

import torch
from torch import nn

from ..counting.conventions import CONVENTIONS, Convention
from ..counting.count import Count, count_anywhere, count_built, mask_elements, parameters
from ..errors import DatbenchError, UsageError
from ..machine import usable_cores
from ..memory.device import measure_gpu
from ..memory.records import GpuRow
from ..memory.simulation import memory_row
from ..models.config import Deformable, Window
from ..models.detectors.dense import MODULES, FourMaps
from ..models.detectors.heads import HEADS, join
from ..models.detectors.spec import DetectorSpec
from ..models.on_meta import on_device
from ..models.resolve import Spec, resolve
from ..models.spec import ModelSpec
from ..process import Branch, packed, unpacked, wait_for
from ..setting import MULTIPLY_ADDS, Kind, Resolution, Setting
from .tables import ALONE, HOOKS_AND_PRODUCTS, WITHOUT_RESIZING, Build, TableData

_RESIZING = (Kind.UPSAMPLE_BILINEAR, Kind.UPSAMPLE_NEAREST)

_PRODUCTS = (Kind.MATMUL, Kind.ATTENTION)


class _WithProducts(Convention):
    """Hooks on modules, and every product of two activations besides, wherever it runs."""

    def weigh(self, cost: Mapping[Kind, int], module_type: str) -> int:
        return super().weigh(cost, module_type) + sum(cost.get(kind, 0) for kind in _PRODUCTS)


RULES: Mapping[str, Convention] = {
    **CONVENTIONS,
    WITHOUT_RESIZING: replace(
        CONVENTIONS["fvcore"],
        name=WITHOUT_RESIZING,
        weights={k: w for k, w in CONVENTIONS["fvcore"].weights.items() if k not in _RESIZING},
    ),
    HOOKS_AND_PRODUCTS: _WithProducts(
        HOOKS_AND_PRODUCTS,
        "MAC",
        "mmcv's hooks, and the products of attention",
        {},
        CONVENTIONS["mmdet"].by_module,
    ),
    ALONE: Convention(ALONE, "MAC", "one for a multiply-add", dict.fromkeys(MULTIPLY_ADDS, 1)),
}
"""What a column may be counted by, by name."""

UNITS = {"macs": "MAC", "flops": "FLOP", "params": "element"}
"""What is counted, and in which unit."""

T = TypeVar("T")

Shapes = tuple[tuple[int, ...], ...]
"""The shapes of a backbone's four maps, each (B, C, H, W)."""


@dataclass(frozen=True)
class Made:
    """What one build gives."""

    resolution: Resolution  # of the input
    totals: Mapping[str, int]  # by convention, each in its unit
    elements: Mapping[str, int]  # of parameters and masks, by the words of `COUNTING`
    maps: Shapes = ()  # of a backbone's four maps, where it was made for a head

    def __add__(self, other: Made) -> Made:
        """A whole of two parts."""
        totals = {name: amount + other.totals[name] for name, amount in self.totals.items()}
        elements = {what: n + other.elements[what] for what, n in self.elements.items()}
        return Made(self.resolution, totals, elements)


@dataclass(frozen=True)
class Held:
    """Bytes that a forward in training holds."""

    kept: int  # saved for backward by autograd
    after_forward: int  # all that is alive when the forward has ended


class Workshop:
    """Builds and counts on meta, and remembers: tables share their models.

    What cannot be built or measured raises a DatbenchError; its message says why.

    Args:
        device: where memory is measured besides being simulated; None: nowhere.
    """

    def __init__(self, device: str | None = None) -> None:
        self.device = device
        self._known: dict[Hashable, Any] = {}
        self._beside: Beside | None = None
        self._own: deque[Job] = deque()  # what this process can do while it waits for that

    @contextmanager
    def ahead(self, tables: Sequence[TableData]) -> Iterator[None]:
        """Share what these tables need with a process of its own: models of other libraries, whose
        imports take seconds, are made there alone, and then the others from the last to the first.
        None is begun for a few rows, on one core, or without forks.
        """
        jobs = dict.fromkeys(job for table in tables for job in _jobs(table))
        others = [job for job in jobs if _is_foreign(job)]
        if len(others) < SEVERAL or usable_cores() < 2 or sys.platform != "linux":
            yield
            return
        self._own = deque(job for job in jobs if not _is_foreign(job))
        self._beside = Beside([*others, *reversed(self._own)])
        try:
            yield
        finally:
            self._beside.end()
            self._beside = None

    def do(self, job: Job) -> Made | Held:
        """What a job asks for."""
        build, batch = job
        return self.hold(build, batch) if batch else self.make(build)

    def _found(self, job: Job, make: Callable[[], T]) -> T:
        """What another process found, else what is made here."""
        beside = self._beside
        if beside is None or job not in beside.jobs:
            return make()
        while _is_foreign(job) and self._own and not beside.has_done(job):
            with suppress(DatbenchError):  # it is raised again where it is needed
                self.do(self._own.popleft())
        if not (_is_foreign(job) or beside.has_done(job)):
            return make()
        found = beside.answer(job)
        return make() if found is None else found

    def _once(self, key: Hashable, make: Callable[[], T]) -> T:
        """What `make` gives, made once; what it raises is raised every time."""
        if key not in self._known:
            try:
                self._known[key] = make()
            except DatbenchError as error:
                self._known[key] = error
        found: T | DatbenchError = self._known[key]
        if isinstance(found, DatbenchError):
            raise found
        return found

    def spec(self, build: Build) -> Spec:
        """The spec of a build's name."""
        name = build.model if build.head is None else join(build.model, build.head)
        return self._once(name, lambda: resolve(name))

    def make(self, build: Build) -> Made:
        """The counts of what `build` names."""
        job = (build, 0)
        return self._once(job, lambda: self._found(job, lambda: self._made(build)))

    def resolution(self, build: Build) -> Resolution | None:
        """The input of a build; None where it cannot be made."""
        with suppress(DatbenchError):
            return build.res or self.make(build).resolution
        return None

    def _made(self, build: Build) -> Made:
        spec = self.spec(build)
        res = build.res or spec.resolution
        if build.inputs or not isinstance(spec, DetectorSpec):
            setting = Setting(res, inputs=build.inputs)
            return self._once((spec.name, setting), lambda: _make(spec, setting))
        # Backbones and heads come in few sorts and many pairs: each is counted once.
        maps = spec.maps
        setting = Setting(res)
        backbone = self._once((maps.name, setting), lambda: _make(maps, setting))
        head = (spec.head, backbone.maps, res)
        return backbone + self._once(head, lambda: _make_head(*head))

    def hold(self, build: Build, batch: int) -> Held:
        """The memory that the forward of `build` holds in training, simulated."""
        job = (build, batch)
        return self._once(job, lambda: self._found(job, lambda: self._held(build, batch)))

    def _held(self, build: Build, batch: int) -> Held:
        spec = self.spec(build)
        setting = Setting(build.res or spec.resolution, batch=batch, inputs=build.inputs)
        return self._once((spec.name, setting), lambda: _hold(spec, setting))

    def measure(self, build: Build, batch: int) -> GpuRow:
        """The memory of the same run on the device, in a fresh process."""
        assert self.device is not None
        spec = self.spec(build)
        setting = Setting(build.res or spec.resolution, batch=batch, device=self.device)
        return measure_gpu(spec, setting, "forward")

    def size(self, build: Build, quantity: str) -> int:
        """A size of the architecture of one of datbench's own models, by stage (Table 1).

        Raises:
            UsageError: the row names no stage, or the model is not datbench's.
        """
        spec = self.spec(build)
        if not isinstance(spec, ModelSpec) or build.stage is None:
            raise UsageError(f"{quantity} is of a stage of datbench's own models; give a stage.")
        stage = spec.config.stages[build.stage - 1]
        found = {
            "dim": {stage.dim},
            "heads": {stage.heads},
            "pairs": {len(stage.blocks) // 2},
            "window": {m.size for m in stage.blocks if isinstance(m, Window)},
            "groups": {m.groups for m in stage.blocks if isinstance(m, Deformable)},
        }[quantity]
        if len(found) != 1:
            raise UsageError(f"stage {build.stage} of {build.model} has no one {quantity}.")
        return found.pop()


# A process beside this one, which was forked from it, so that it need not import torch again.


Job: TypeAlias = tuple[Build, int]
"""A build to count, or with a number of images one whose forward's memory is simulated."""


def _is_foreign(job: Job) -> bool:
    return ":" in job[0].model


SEVERAL = 4
"""Jobs from which a process of their own is worth its start."""


def _jobs(table: TableData) -> Iterator[Job]:
    """What the cells of a table are computed from."""
    counted = any(column.quantity in UNITS for column in table.columns)
    batches = [column.batch for column in table.columns if column.batch]
    for row in table.rows:
        for build in row.builds:
            if counted:
                yield build, 0
            yield from ((build, times * batch) for batch in batches for times in (1, 2))


class Beside:
    """Another process, which does these jobs one after the other."""

    def __init__(self, jobs: Sequence[Job]) -> None:
        self.jobs = {job: number for number, job in enumerate(jobs)}
        self._branch = Branch("datbench.paper.workshop:work_beside", tuple(jobs))
        self._answers: list[Any] = []

    def has_done(self, job: Job) -> bool:
        """Whether the answer is there."""
        self._answers += self._branch.hear()
        return len(self._answers) > self.jobs[job]

    def answer(self, job: Job) -> Any:
        """What the job gives, as soon as it is done; None where it failed."""
        while not self.has_done(job):
            if self._branch.said not in self._branch.open:  # it has ended
                return None
            wait_for([self._branch], 60.0)
        found = self._answers[self.jobs[job]]
        return None if found is None else unpacked(Held if job[1] else Made, found)

    def end(self) -> None:
        """Stop it."""
        with suppress(ProcessLookupError):
            os.kill(self._branch.pid, signal.SIGKILL)  # it may not lead its group yet
        os.waitpid(self._branch.pid, 0)
        self._branch.kill()
        self._branch.close()


def work_beside(jobs: Sequence[Job], say: Callable[[Any], None]) -> None:
    """Do jobs, and say what each gives; null where it fails, which is met again by who asked."""
    torch.set_num_threads(1)  # threads of the process before the fork are not in this one
    workshop = Workshop()
    for job in jobs:
        try:
            say(packed(workshop.do(job)))
        except DatbenchError:
            say(None)


def _hold(spec: Spec, setting: Setting) -> Held:
    row = memory_row(spec, setting, "forward")
    kept = row.line("kept").amount
    assert kept is not None
    return Held(kept, row.after_forward)


class _Given(nn.Module):
    """A backbone without cost, which gives maps of these shapes."""

    def __init__(self, shapes: Shapes) -> None:
        super().__init__()
        self.given = shapes

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        return [x.new_empty(shape) for shape in self.given]


def _make(spec: Spec, setting: Setting) -> Made:
    built, count = count_anywhere(spec, setting)
    return _made(built.module, count, setting.resolution)


def _make_head(head: str, shapes: Shapes, resolution: Resolution) -> Made:
    """A head without a backbone, on maps of these shapes."""
    channels = tuple(shape[1] for shape in shapes)
    with on_device("meta"):
        module = MODULES[head](head, _Given(shapes), channels, start=HEADS[head].start).eval()
    return _made(module, count_built(head, module, Setting(resolution)), resolution)


def _made(module: nn.Module, count: Count, resolution: Resolution) -> Made:
    sizes = parameters(module)
    return Made(
        resolution,
        {name: count.total(rule) for name, rule in RULES.items()},
        {"trainable": sizes.params, "frozen": sizes.frozen, "masks": mask_elements(module)},
        module.shapes if isinstance(module, FourMaps) else (),
    )
