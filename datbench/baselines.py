"""Rows of a baseline as plain values: what each holds, what it is of, and where it stands."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from .errors import UsageError
from .folding import unfold
from .ledger import PLAIN, MemoryMode, Recipe
from .types import Setting

What = Literal["count", "memory", "time"]

WHATS: tuple[What, ...] = ("count", "memory", "time")

Work = dict[str, dict[str, int]]
"""By phase, the amounts of each kind of work unweighted, and the calls: ``{"forward": {...}}``."""

PHASES = ("forward", "backward")

_DEVICE = re.compile(r"(meta|cpu|cuda|mps|xpu)(:[0-9]+)?")

_SHAPE = re.compile(r"[0-9]+(x[0-9]+)*( frozen| buffer)?")


@dataclass(frozen=True)
class CountBaseline:
    """What one model computes at one setting, operator by operator.

    Args:
        totals: by convention and phase, in the convention's unit.
        tensors: shapes of parameters and buffers by name, such as ``96x3x4x4``; a parameter
            without gradient is ``frozen``, and a buffer says so. Names are folded (`fold`).
        operators: what each operator of each module does, as ``module operator``; those that
            compute nothing are left out. Names are folded.
        unknown: calls of operators without a rule.
    """

    model: str
    setting: Setting
    params: int
    frozen: int
    buffers: int
    totals: dict[str, dict[str, int]]
    tensors: dict[str, str]
    operators: dict[str, Work]
    unknown: dict[str, int]
    what: Literal["count"] = "count"

    def __post_init__(self) -> None:
        _check_device(self.setting)
        _check_whole("", {name: getattr(self, name) for name in ("params", "frozen", "buffers")})
        if not self.totals:
            raise UsageError("totals: no convention is there.")
        for name, total in self.totals.items():
            _check_phases(f"totals.{name}", total)
            _check_whole(f"totals.{name}", total)
        for name, shape in unfold(self.tensors).items():
            if not _SHAPE.fullmatch(shape):
                raise UsageError(f"tensors.{name}: {shape!r:.40} is no shape, such as 96x3x4x4.")
        for place, work in unfold(self.operators).items():
            _check_phases(f"operators.{place}", work)
            for amounts in work.values():
                _check_whole(f"operators.{place}", amounts)
        _check_whole("unknown", self.unknown)


@dataclass(frozen=True)
class MemoryBaseline:
    """The simulated ledger of one model at one setting, in bytes.

    Args:
        lines: each category's whole and its part at the peak; None where the mode has none.
        parts: what each operator of each module makes: tensors kept, bytes kept, bytes at the
            peak. Names are folded.
    """

    model: str
    setting: Setting
    mode: MemoryMode
    lines: dict[str, dict[str, int | None]]
    after_forward: int
    at_end: int
    peak: int
    parts: dict[str, dict[str, int]]
    recipe: Recipe = PLAIN
    what: Literal["memory"] = "memory"

    def __post_init__(self) -> None:
        _check_device(self.setting)
        names = ("after_forward", "at_end", "peak")
        _check_whole("", {name: getattr(self, name) for name in names})
        if not self.lines:
            raise UsageError("lines: no category is there.")
        for category, line in self.lines.items():
            _check_whole(f"lines.{category}", line)
        for place, part in unfold(self.parts).items():
            _check_whole(f"parts.{place}", part)


@dataclass(frozen=True)
class TimeBaseline:
    """How long one call took in each of several fresh processes.

    Args:
        how: everything besides the setting that the time depends on.
        seconds: the median of each process that ended well.
        environment: what identifies the machine and its software.
        reason: why there is no process, in results; a baseline holds no such row.
    """

    model: str
    setting: Setting
    how: dict[str, Any]
    seconds: tuple[float, ...]
    environment: dict[str, Any]
    reason: str | None = None
    what: Literal["time"] = "time"

    def __post_init__(self) -> None:
        _check_device(self.setting)
        if not self.seconds and self.reason is None:
            raise UsageError("seconds: no process is there.")
        for seconds in self.seconds:
            if not (seconds > 0 and math.isfinite(seconds)):
                raise UsageError(f"seconds: a call takes more than 0, not {seconds:g}.")


def _check_device(setting: Setting) -> None:
    if not _DEVICE.fullmatch(setting.device):
        raise UsageError(f"setting.device: {setting.device!r:.40} is none, such as cpu or cuda:0.")


def _check_whole(path: str, values: Mapping[str, int | None]) -> None:
    for name, value in values.items():
        if value is not None and value < 0:
            raise UsageError(f"{path}{'.' if path else ''}{name}: must not be negative.")


def _check_phases(path: str, phases: Iterable[str]) -> None:
    for phase in phases:
        if phase not in PHASES:
            raise UsageError(f"{path}: {phase!r:.40} is no phase; there are {', '.join(PHASES)}.")


Baseline: TypeAlias = CountBaseline | MemoryBaseline | TimeBaseline

Key: TypeAlias = tuple[Any, ...]


def key(row: Baseline) -> Key:
    """What a row is of. An exact row is the same on every device."""
    s = row.setting
    common = (row.model, s.resolution.width, s.resolution.height, s.batch, s.dtype, s.attention)
    if isinstance(row, CountBaseline):
        return ("count", *common, s.features)
    if isinstance(row, MemoryBaseline):
        recipe = (row.recipe.optimizer, row.recipe.autocast, row.recipe.checkpointing)
        return ("memory", *common, s.features, row.mode, *recipe)
    how = tuple(sorted((name, str(value)) for name, value in row.how.items()))
    return ("time", *common, s.features, s.device, how)


def order(row: Baseline) -> tuple[Any, ...]:
    """Where a row stands in a file: by model, then what it is, then its setting."""
    return (row.model, WHATS.index(row.what), tuple(map(str, key(row))))


def detail_of(row: Baseline) -> str:
    """What a row is of besides its model and input, in words."""
    s = row.setting
    parts = [f"batch {s.batch}"]
    if isinstance(row, CountBaseline):
        parts.append("forward and backward" if s.backward else "forward")
    elif isinstance(row, MemoryBaseline):
        parts += [row.mode, row.recipe.optimizer or "", row.recipe.autocast or ""]
        parts.append(
            f"{row.recipe.checkpointing} checkpointing" if row.recipe.checkpointing else ""
        )
    else:
        parts += [s.device, str(row.how.get("mode", ""))]
    parts += [
        s.dtype if s.dtype != "float32" else "",
        f"{s.attention} attention" if s.attention != "eager" else "",
        "features" if s.features else "",
    ]
    return ", ".join(part for part in parts if part)
