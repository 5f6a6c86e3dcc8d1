"""Rows of a baseline as plain values: what each holds, what it is of, and where it stands."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from typing import Any, Literal, TypeAlias, TypeVar, get_args

from ..compare.records import ERRORS as COMPARE_ERRORS
from ..errors import CheckFailed, DatbenchError, FieldError
from ..setting import PLAIN, Count, MemoryMode, Recipe, Setting, describe
from ..units import Brief

V = TypeVar("V")

_NUMBER = re.compile(r"(?<![^.])(?:0|[1-9][0-9]*)(?=[. ]|$)")
"""A number that is a whole component of a dotted path."""

_FOLDED = re.compile(r"\{([0-9]+(?:-[0-9]+)?(?:,[0-9]+(?:-[0-9]+)?)*)\}")


def fold(entries: Mapping[str, V]) -> dict[str, V]:
    """Entries with equal values whose names differ in one number, as one.

    ``blocks.0.proj`` and ``blocks.2.proj`` become ``blocks.{0,2}.proj``, three in a row
    ``blocks.{0-2}.proj``: a file of many blocks is short, and a difference is seen. The number that
    is folded is the first, second or third in the name, whichever leaves the fewest entries.
    """
    tried = [_folded_at(entries, position) for position in range(3)]
    return min(tried, key=len)


def _folded_at(entries: Mapping[str, V], position: int) -> dict[str, V]:
    groups: dict[tuple[str, str, str], tuple[list[int], V]] = {}
    for name, value in entries.items():
        numbers = list(_NUMBER.finditer(name))
        if len(numbers) <= position:
            groups[name, "", ""] = ([], value)
            continue
        match = numbers[position]
        where = (name[: match.start()], name[match.end() :], repr(value))
        groups.setdefault(where, ([], value))[0].append(int(match[0]))
    return {
        f"{before}{_written(numbers)}{after}": value
        for (before, after, _), (numbers, value) in groups.items()
    }


def _written(numbers: list[int]) -> str:
    """``[0, 1, 2, 5]`` -> ``{0-2,5}``."""
    if len(numbers) < 2:
        return "".join(map(str, numbers))
    runs: list[list[Count]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    words = [",".join(map(str, run)) if len(run) < 3 else f"{run[0]}-{run[-1]}" for run in runs]
    return f"{{{','.join(words)}}}"


MOST = 100_000
"""Entries that one name may stand for."""


def unfold(entries: Mapping[str, V]) -> dict[str, V]:
    """Every entry by itself again.

    Raises:
        UsageError: numbers are not written as `fold` does, or two names stand for one entry.
    """
    found: dict[str, V] = {}
    for name, value in entries.items():
        match = _FOLDED.search(name)
        if match is None:
            names = [name]
        else:
            before, after = name[: match.start()], name[match.end() :]
            names = [f"{before}{number}{after}" for number in _numbers(match[1], name)]
        for each in names:
            if each in found:
                raise FieldError(f"{name}: {each} stands there twice.")
            found[each] = value
    return found


def _numbers(text: str, name: str) -> list[int]:
    found: list[int] = []
    for word in text.split(","):
        first, _, last = word.partition("-")
        start, stop = int(first[:18]), int((last or first)[:18]) + 1
        if stop <= start or (found and start <= found[-1]):
            raise FieldError(f"{name}: the numbers in braces do not ascend.")
        if len(found) + stop - start > MOST:
            raise FieldError(f"{name}: stands for more than {MOST} entries.")
        found += range(start, stop)
    return found


What = Literal["count", "memory", "time"]

WHATS: tuple[What, ...] = get_args(What)

Phase = Literal["forward", "backward"]

PHASES: tuple[Phase, ...] = get_args(Phase)

Work = dict[Phase, dict[str, Count]]
"""By phase, the amounts of each kind of work unweighted, and the calls: ``{"forward": {...}}``."""

DECISIVE = ("torch", "cuda")
"""Software whose times are those of another program; the rest may differ, and is said."""

_DEVICE = re.compile(r"(meta|cpu|cuda|mps|xpu)(:[0-9]+)?")

_SHAPE = re.compile(r"[0-9]+(x[0-9]+)*( frozen| buffer)?")


@dataclass(frozen=True, repr=False)
class CountBaseline(Brief):
    """What one model computes at one setting, operator by operator."""

    model: str
    setting: Setting
    params: Count
    frozen: Count
    buffers: Count
    totals: dict[str, dict[Phase, Count]]  # by convention and phase, in the convention's unit
    # shapes of parameters and buffers by name, such as ``96x3x4x4``; a parameter without gradient
    # is ``frozen``, and a buffer says so. Names are folded (`fold`).
    tensors: dict[str, str]
    # what each operator of each module does, as ``module operator``; those that compute nothing are
    # left out. Names are folded.
    operators: dict[str, Work]
    unknown: dict[str, Count]  # calls of operators without a rule
    what: Literal["count"] = "count"

    def __post_init__(self) -> None:
        _check_device(self.setting)
        if not self.totals:
            raise FieldError("totals: no convention is there.")
        for name, shape in unfold(self.tensors).items():
            if not _SHAPE.fullmatch(shape):
                raise FieldError(f"tensors.{name}: {shape!r:.40} is not a shape such as 96x3x4x4.")
        unfold(self.operators)


@dataclass(frozen=True, repr=False)
class MemoryBaseline(Brief):
    """The simulated ledger of one model at one setting, in bytes."""

    model: str
    setting: Setting
    mode: MemoryMode
    # each category's whole and its part at the peak; None where the mode has none
    lines: dict[str, dict[str, Count | None]]
    after_forward: Count
    at_end: Count
    peak: Count
    # what each operator of each module makes: tensors kept, bytes kept, bytes at the peak. Names
    # are folded.
    parts: dict[str, dict[str, Count]]
    recipe: Recipe = PLAIN
    what: Literal["memory"] = "memory"

    def __post_init__(self) -> None:
        _check_device(self.setting)
        if not self.lines:
            raise FieldError("lines: no category is there.")
        unfold(self.parts)


@dataclass(frozen=True, repr=False)
class TimeBaseline(Brief):
    """How long one call took in each of several fresh processes."""

    model: str
    setting: Setting
    how: dict[str, Any]  # everything besides the setting that the time depends on
    seconds: tuple[float, ...]  # the median of each process that ended well
    environment: dict[str, Any]  # what identifies the machine and its software
    reason: str | None = None  # why there is no process, in results; a baseline holds no such row
    what: Literal["time"] = "time"

    def __post_init__(self) -> None:
        _check_device(self.setting)
        if not self.seconds and self.reason is None:
            raise FieldError("seconds: no process is there.")
        for seconds in self.seconds:
            if not (seconds > 0 and math.isfinite(seconds)):
                raise FieldError(f"seconds: a call takes more than 0, not {seconds:g}.")


def _check_device(setting: Setting) -> None:
    if not _DEVICE.fullmatch(setting.device):
        raise FieldError(f"setting.device: {setting.device!r:.40} is none, such as cpu or cuda:0.")


Baseline: TypeAlias = CountBaseline | MemoryBaseline | TimeBaseline


def key(row: Baseline) -> tuple[Any, ...]:
    """What a row is of. An exact row is the same on every device."""
    s = row.setting
    size = (s.resolution.width, s.resolution.height)
    common = (row.what, row.model, *size, s.batch, s.dtype, s.attention, s.features, s.inputs)
    if isinstance(row, CountBaseline):
        return common
    if isinstance(row, MemoryBaseline):
        return (*common, row.mode, *astuple(row.recipe))
    return (*common, s.device, tuple(sorted((name, str(how)) for name, how in row.how.items())))


def order(row: Baseline) -> tuple[Any, ...]:
    """Where a row stands in a file: by model, then what it is, then its setting."""
    return (row.model, WHATS.index(row.what), tuple(map(str, key(row))))


def detail_of(row: Baseline) -> str:
    """What a row is of besides its model and input, in words; what is usual is not said."""
    left_out = ["resolution"]
    left_out += [name for name, value in _USUAL if getattr(row.setting, name) == value]
    # Exact rows are the same on every device.
    left_out += [] if isinstance(row, TimeBaseline) else ["device"]
    return describe(row, *left_out)


_USUAL = (("dtype", "float32"), ("attention", "eager"))


# The verdicts of a gate, as plain values.
#
# A row of a gate has one of these verdicts:
#
# - ``same``: nothing that the baseline holds has changed; times, not by more than the threshold;
# - ``changed``: an exact figure has; `direction` says which way, `changes` says where;
# - ``slower``, ``faster``: for times only, see `datbench.compare.records`;
# - ``missing``: it is in the baseline or in the results, and not in both;
# - ``ambiguous``: for times only: the processes do not settle it;
# - ``failed``: it could not be counted, simulated or measured, which is not a regression.
#
# ================================  =========
# what there is among the rows      exit code
# ================================  =========
# changed or slower                 1
# otherwise: failed                 5
# otherwise: missing                3
# otherwise: ambiguous              4
# none of these                     0
# ================================  =========


Verdict = Literal["same", "changed", "slower", "faster", "missing", "ambiguous", "failed"]

Direction = Literal["", "fewer", "more", "fewer and more", "moved"]
"""Whether totals fell, rose, or both; moved: totals are the same, work is in another place."""


@dataclass(frozen=True)
class Change:
    """One figure that is not what it was; None where it was or is not there."""

    place: str  # the module and the operator, or the tensor; empty for the whole
    quantity: str  # what of it: a kind of work, a convention's total, a line of the ledger
    before: int | float | str | None
    after: int | float | str | None


@dataclass(frozen=True, repr=False)
class GateRow(Brief):
    """One row of the baseline or of the results, and what became of it."""

    what: What
    model: str
    setting: Setting
    verdict: Verdict
    detail: str = ""
    direction: Direction = ""  # of exact figures that changed
    changes: tuple[Change, ...] = ()  # totals first, then places
    reason: str = ""  # why there is no comparison, or what is doubtful about it
    # ratio, low, high: of speeds, now over the baseline, and its interval; of time alone
    ratio: float | None = None
    low: float | None = None
    high: float | None = None


ERRORS: dict[str, type[DatbenchError]] = {"changed": CheckFailed, **COMPARE_ERRORS}
"""The error of each verdict, in the order in which they decide."""


def deciding(rows: Sequence[GateRow], allow_fewer: bool = False) -> list[GateRow]:
    """The rows whose exit code decides; none where all is well. See the module's table.

    Args:
        allow_fewer: what only fell, in total and at every place, is not a failure.
    """
    left = [row for row in rows if not (allow_fewer and only_fell(row))]
    for error in dict.fromkeys(ERRORS.values()):
        found = [row for row in left if ERRORS.get(row.verdict) is error]
        if found:
            return found
    return []


def only_fell(row: GateRow) -> bool:
    """Whether everything that changed is less than it was, and was counted both times."""
    return row.verdict == "changed" and row.direction == "fewer" and all(map(_fell, row.changes))


def _fell(change: Change) -> bool:
    before, after = change.before, change.after
    if not change.place and (before is None or after is None):
        return False  # a total that one side lacks
    if change.quantity == RENAMED or after is None:
        return True
    if before is None:
        return False
    if isinstance(before, str) or isinstance(after, str):
        one, other = str(before).partition(" "), str(after).partition(" ")
        return one[2] == other[2] and _elements(other[0]) <= _elements(one[0])
    return after <= before


def _elements(shape: str) -> int:
    return math.prod(map(int, shape.split("x")))


RENAMED = "name"
"""The quantity of a change of a name alone."""
