"""Where the memory of a model goes, as plain values. Every amount is in bytes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from .errors import UsageError
from .types import Setting

MemoryMode = Literal["inference", "train-forward", "train", "step"]
"""Without gradients; the forward with what autograd keeps; the backward after it; a full step,
which ends with the optimizer's.
"""

MEMORY_MODES: tuple[MemoryMode, ...] = ("inference", "train-forward", "train", "step")

WITH_BACKWARD: tuple[MemoryMode, ...] = ("train", "step")

Optimizer = Literal["sgd", "sgd-momentum", "adamw"]

OPTIMIZERS: tuple[Optimizer, ...] = ("sgd", "sgd-momentum", "adamw")

Autocast = Literal["bfloat16", "float16"]

AUTOCASTS: tuple[Autocast, ...] = ("bfloat16", "float16")

Checkpointing = Literal["block"]

CHECKPOINTINGS: tuple[Checkpointing, ...] = ("block",)

Category = Literal[
    "parameters", "buffers", "inputs", "kept", "outputs", "gradients", "optimizer", "temporary"
]
"""What a storage is. The first of these that fits; `kept` is kept for the backward."""

CATEGORIES: tuple[Category, ...] = (
    "parameters",
    "buffers",
    "inputs",
    "kept",
    "outputs",
    "gradients",
    "optimizer",
    "temporary",
)


@dataclass(frozen=True)
class Recipe:
    """How a model is trained besides its mode and setting; None is without.

    Args:
        optimizer: of a full step; there None is AdamW.
        autocast: operators that CUDA's autocast runs in this type are run in it.
        checkpointing: what is run again in the backward instead of being kept.
    """

    optimizer: Optimizer | None = None
    autocast: Autocast | None = None
    checkpointing: Checkpointing | None = None

    def of(self, mode: MemoryMode) -> Recipe:
        """The recipe with the optimizer that this mode has.

        Raises:
            UsageError: the mode has no use for a part of it.
        """
        if mode == "step":
            return replace(self, optimizer=self.optimizer or "adamw")
        if self.optimizer is not None:
            raise UsageError(f"the mode {mode} makes no optimizer's step; use the mode step.")
        if self.checkpointing is not None and mode == "inference":
            raise UsageError("checkpointing saves what training keeps; inference keeps nothing.")
        return self


PLAIN = Recipe()
"""Without any of it."""


@dataclass(frozen=True)
class LedgerLine:
    """One category of memory.

    Args:
        amount: the whole of it; of temporaries the most at any one time. None where the mode has
            no such thing, and `reason` says why.
        at_peak: the part that is alive when the total is largest; None with `amount`.
    """

    category: Category
    amount: int | None
    at_peak: int | None
    reason: str | None = None


@dataclass(frozen=True)
class MemoryPart:
    """What the operators of one place make.

    Args:
        stage, module, operator: the place; None where parts are not told apart by it.
        tensors: how many storages of it are kept for the backward.
        kept: their bytes; None where nothing is kept.
        at_peak: bytes made here that are alive when the total is largest.
    """

    stage: str | None
    module: str | None
    operator: str | None
    tensors: int
    kept: int | None
    at_peak: int


@dataclass(frozen=True)
class Peak:
    """Where the total is largest: the operator that was running, its module, and the phase."""

    amount: int
    operator: str
    module: str
    phase: str


@dataclass(frozen=True)
class CpuPeak:
    """The same run on the CPU, replayed from what torch's profiler saw allocated.

    Args:
        peak: with what was there before: parameters, buffers, inputs.
        at_end: alive when the run has ended.
        operator: the outermost operator that was running at the peak.
        difference: the simulated peak less this one, as a share of this one.
    """

    peak: int
    at_end: int
    operator: str
    difference: float


@dataclass(frozen=True)
class MemoryRow:
    """The ledger of one model at one setting.

    Args:
        lines: one for each category; what they say of the peak sums to the peak.
        after_forward: alive when the forward has ended.
        at_end: alive when the run has ended.
        parts: by stage, module and operator; parameters, buffers and inputs belong to none.
        measured: None where `--verify` was not asked for.
        recipe: with the optimizer named in a full step.
    """

    model: str
    setting: Setting
    mode: MemoryMode
    lines: tuple[LedgerLine, ...]
    after_forward: int
    at_end: int
    peak: Peak
    parts: tuple[MemoryPart, ...]
    measured: CpuPeak | None = None
    recipe: Recipe = PLAIN

    def line(self, category: Category) -> LedgerLine:
        """The line of one category."""
        return next(line for line in self.lines if line.category == category)

    def parts_by(self, *places: Literal["stage", "module", "operator"]) -> list[MemoryPart]:
        """Parts summed to these places, those that keep most first, then those at the peak."""
        sums: dict[tuple[str | None, ...], MemoryPart] = {}
        for part in self.parts:
            stage, module, operator = (
                value if place in places else None
                for place, value in (
                    ("stage", part.stage),
                    ("module", part.module),
                    ("operator", part.operator),
                )
            )
            before = sums.get((stage, module, operator))
            kept = part.kept
            if before is not None and kept is not None:
                kept += before.kept or 0
            sums[stage, module, operator] = MemoryPart(
                stage,
                module,
                operator,
                part.tensors + (before.tensors if before else 0),
                kept,
                part.at_peak + (before.at_peak if before else 0),
            )
        return sorted(sums.values(), key=lambda part: (-(part.kept or 0), -part.at_peak))
