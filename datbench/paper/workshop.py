"""What the rows of tables are computed from: every model built and counted once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..errors import DatbenchError, MeasurementError, UsageError
from ..gpu_memory import GpuRow
from ..measure.conventions import CONVENTIONS
from ..measure.count import count_anywhere
from ..measure.memory.gpu import measure_gpu
from ..measure.memory.rows import memory_row
from ..measure.parameters import mask_elements, parameters
from ..models.config import Deformable, Window
from ..models.resolve import Spec, resolve
from ..models.spec import ModelSpec
from ..types import Resolution, Setting
from .tables import Build


@dataclass(frozen=True)
class Made:
    """What one build gives.

    Args:
        resolution: the input that was used.
        totals: by convention, each in its unit.
        elements: of parameters and masks, by the words of `COUNTING`.
    """

    resolution: Resolution
    totals: Mapping[str, int]
    elements: Mapping[str, int]


@dataclass(frozen=True)
class Held:
    """Bytes that a forward in training holds.

    Args:
        kept: what autograd keeps for the backward.
        after_forward: all that is alive when the forward has ended.
    """

    kept: int
    after_forward: int


class Workshop:
    """Builds and counts on meta, and remembers: tables share their models.

    Args:
        device: where memory is measured besides being simulated; None for nowhere.
    """

    def __init__(self, device: str | None = None) -> None:
        self.device = device
        self._made: dict[tuple[str, Resolution], Made | DatbenchError] = {}
        self._held: dict[tuple[str, Resolution, int], Held | DatbenchError] = {}
        self._specs: dict[str, Spec | DatbenchError] = {}

    def make(self, build: Build) -> Made:
        """The counts of what `build` names.

        Raises:
            DatbenchError: it cannot be built; the message says why.
        """
        spec = self.spec(build)
        if build.head is not None:
            raise NotBuiltError(f"datbench builds no {build.head} yet")
        key = (spec.name, build.res or spec.resolution)
        if key not in self._made:
            try:
                self._made[key] = _make(spec, key[1])
            except DatbenchError as error:
                self._made[key] = error
        found = self._made[key]
        if isinstance(found, DatbenchError):
            raise found
        return found

    def spec(self, build: Build) -> Spec:
        """What a build's name stands for.

        Raises:
            DatbenchError: it stands for nothing.
        """
        if build.model not in self._specs:
            try:
                self._specs[build.model] = resolve(build.model)
            except DatbenchError as error:
                self._specs[build.model] = error
        found = self._specs[build.model]
        if isinstance(found, DatbenchError):
            raise found
        return found

    def hold(self, build: Build, batch: int) -> Held:
        """The memory that the forward of `build` holds in training, simulated.

        Raises:
            DatbenchError: it cannot be built; the message says why.
        """
        spec = self.spec(build)
        if build.head is not None:
            raise NotBuiltError(f"datbench builds no {build.head} yet")
        key = (spec.name, build.res or spec.resolution, batch)
        if key not in self._held:
            try:
                self._held[key] = _hold(spec, key[1], batch)
            except DatbenchError as error:
                self._held[key] = error
        found = self._held[key]
        if isinstance(found, DatbenchError):
            raise found
        return found

    def measure(self, build: Build, batch: int) -> GpuRow:
        """The memory of the same run on the device, in a fresh process.

        Raises:
            UsageError: the device is not here.
        """
        assert self.device is not None
        spec = self.spec(build)
        setting = Setting(build.res or spec.resolution, batch=batch, device=self.device)
        return measure_gpu(spec, setting, "train-forward")

    def size(self, build: Build, quantity: str) -> int:
        """A size of the architecture of one of datbench's own models, by stage (Table 1).

        Raises:
            UsageError: the row names no stage, or the model is not datbench's.
        """
        spec = self.spec(build)
        if not isinstance(spec, ModelSpec) or build.stage is None:
            raise UsageError(f"{quantity} is of a stage of datbench's own models; give a stage.")
        stage = spec.config.stages[build.stage - 1]
        match quantity:
            case "dim":
                return stage.dim
            case "heads":
                return stage.heads
            case "pairs":
                return len(stage.blocks) // 2
        sizes = {m.size for m in stage.blocks if isinstance(m, Window)}
        groups = {m.groups for m in stage.blocks if isinstance(m, Deformable)}
        found = sizes if quantity == "window" else groups
        if len(found) != 1:
            raise UsageError(f"stage {build.stage} of {build.model} has no one {quantity}.")
        return found.pop()


class NotBuiltError(MeasurementError):
    """What the file asks for is not part of datbench yet: known, and no failure."""


def _hold(spec: Spec, resolution: Resolution, batch: int) -> Held:
    row = memory_row(spec, Setting(resolution, batch=batch), "train-forward")
    kept = next(line.amount for line in row.lines if line.category == "kept")
    assert kept is not None
    return Held(kept, row.after_forward)


def _make(spec: Spec, resolution: Resolution) -> Made:
    module, count = count_anywhere(spec, Setting(resolution))
    sizes = parameters(module)
    return Made(
        resolution,
        {name: count.total(convention) for name, convention in CONVENTIONS.items()},
        {"trainable": sizes.params, "frozen": sizes.frozen, "masks": mask_elements(module)},
    )
