"""A sweep as plain values: its plan (`sweep.toml`), its units, and its state."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, get_args

from ..setting import Count, How, MemoryMode, Positive, Recipe, Setting

UnitKind = Literal["flops", "memory", "memory-largest", "peaks", "throughput", "memory-measured"]
"""Kinds of result files that a unit may make; ``peaks`` are the machine's own."""

KINDS: tuple[UnitKind, ...] = get_args(UnitKind)

Outcome = Literal["ok", "oom", "timeout", "failed", "unsupported", "crashed"]

OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)
"""How a unit ended. oom: out of memory. unsupported: the model cannot be run so at all. crashed:
its process was killed, or vanished, each time that it was tried."""

RESULTS: tuple[Outcome, ...] = ("ok", "oom", "unsupported")
"""Outcomes that say something of the model, and that `sweep retry` leaves as they are."""

Texts: TypeAlias = str | tuple[str, ...]
Sides: TypeAlias = int | str | tuple[int | str, ...]
Numbers: TypeAlias = Positive | tuple[Positive, ...]
Flags: TypeAlias = bool | tuple[bool, ...]


@dataclass(frozen=True)
class Grid:
    """A table ``[[grid]]``: every combination of its values is a unit, for each kind that has them.

    A list has several values. A field means what the option of that name means.
    """

    kind: Texts  # flops, memory, memory-largest, peaks, throughput, memory-measured
    model: Texts | None = None  # every kind but peaks has models
    res: Sides | None = None  # default: the model's own size
    batch: Numbers = 1
    dtype: Texts = "float32"  # also amp-bfloat16 and amp-float16
    attention: Texts = "eager"
    features: Flags = False
    input: Texts = ()  # one model input, or several: not an axis
    mode: Texts | None = None
    optimizer: Texts | None = None
    checkpointing: Texts | None = None
    memory: Texts | None = None  # of memory-largest
    device: str | None = None  # default: cuda where a GPU is, otherwise cpu
    threads: Numbers | None = None
    compile: Flags = False
    channels_last: Flags = False
    flush_l2: bool = False
    budget: float = 5.0  # seconds
    width: float = 2.0  # percent
    timeout: float | None = None  # seconds of one unit; default: that of the sweep


@dataclass(frozen=True)
class Plan:
    """What ``sweep.toml`` says."""

    grid: tuple[Grid, ...]
    processes: Positive = 1  # how often each measured unit is done, in rounds
    seed: Count = 0  # of the order within a round
    timeout: float | None = None  # seconds of one unit; default: 300, compiled 1800
    slurm: dict[str, Any] = field(default_factory=dict)  # options of sbatch, and `setup`


@dataclass(frozen=True)
class Unit:
    """The specification of one record: what is measured, how, and in which round."""

    kind: UnitKind
    setting: Setting
    model: str | None = None  # machine peaks have none
    how: How | None = None  # of a time, and of machine peaks
    mode: MemoryMode | None = None  # of memory
    recipe: Recipe | None = None  # of memory
    memory: str | None = None  # what the largest batch has to fit into
    round: int = 0

    @property
    def static(self) -> bool:
        """Whether it is computed: no device is measured, and nothing can disturb it."""
        return self.kind in ("flops", "memory") or (
            self.kind == "memory-largest" and self.setting.device == "meta"
        )


@dataclass(frozen=True)
class SweepUnit:
    """A unit in words, as `--dry-run` lists it."""

    kind: UnitKind
    model: str | None
    res: str
    batch: Positive
    dtype: str  # also ``amp-bfloat16``
    attention: str
    device: str
    mode: str | None
    round: Positive
    timeout: float  # seconds
    key: str


@dataclass(frozen=True)
class SweepCount:
    """The units of one kind."""

    kind: UnitKind
    units: Count
    pending: Count  # at work among them
    ok: Count = 0
    oom: Count = 0
    timeout: Count = 0
    failed: Count = 0
    unsupported: Count = 0
    crashed: Count = 0


@dataclass(frozen=True)
class SweepState:
    """How far a sweep is."""

    folder: str
    counts: tuple[SweepCount, ...]
    at_work: tuple[str, ...] = ()  # units, each with its host and process
    jobs: dict[str, str] = field(default_factory=dict)  # of the scheduler: name and state

    @property
    def pending(self) -> int:
        """Units without a record."""
        return sum(each.pending for each in self.counts)


@dataclass(frozen=True)
class RunPlan:
    """How a sweep is run."""

    shard: int = 1  # of `shards`, from 1
    shards: int = 1
    jobs: int = 1  # processes at once of units that are computed
    prune: bool = True
    timeout: float | None = None  # seconds of a unit, in place of its own
    end: float = float("inf")  # of the time that there is, in seconds since the epoch
    helps: bool = False  # whether it works beside another process at the same shard

    @property
    def name(self) -> str:
        """Such as ``2/8``."""
        return f"{self.shard}/{self.shards}"


@dataclass(frozen=True)
class AgentJob:
    """What an agent is to do."""

    folder: str
    keys: tuple[str, ...]  # of the units, in their order
    code: dict[str, str]
    plan: RunPlan
    gpu: str = ""  # that it measures on, as CUDA_VISIBLE_DEVICES names it


@dataclass(frozen=True)
class SweepFit:
    """Whether a unit is expected to fit into memory."""

    words: str
    peak: Count | None  # bytes; None where it could not be simulated
    capacity: Count
    reason: str | None = None  # why not

    @property
    def fits(self) -> bool | None:
        """None where that is not known."""
        return None if self.peak is None else self.peak <= self.capacity

    @property
    def verdict(self) -> str:
        """In a word."""
        return {True: "yes", False: "NO", None: self.reason or "unknown"}[self.fits]
