"""Plots as values: what the drawing of terminals and of files takes. Units stand in the labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from .. import units
from ..errors import UsageError


@dataclass(frozen=True)
class Series:
    """One set of points: a marker at every one, a line along them.

    Args:
        line: where the line runs instead, at the same x: what another account says, a published
            formula for example.
        marked: without, there is the line alone: a limit for example.
        size: of the markers in a file, from 0 to 1: a point's weight; a terminal shows none.
    """

    name: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    line: tuple[float, ...] = ()
    marked: bool = True
    size: float | None = None

    def __post_init__(self) -> None:
        if not self.x or len(self.x) != len(self.y) or len(self.line) not in (0, len(self.x)):
            raise ValueError(f"{self.name}: as many y as x, and at least one")

    @property
    def drawn_line(self) -> tuple[float, ...]:
        """Where the line runs."""
        return self.line or self.y


@dataclass(frozen=True)
class Figure:
    """Series over one pair of axes.

    Args:
        x_label, y_label: with the unit.
        notes: below the plot; what a reader must know to read it.
    """

    title: str
    x_label: str
    y_label: str
    series: tuple[Series, ...]
    log_x: bool = False
    log_y: bool = False
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.series:
            raise ValueError(f"{self.title}: nothing to draw")
        for series in self.series:
            for log, values in ((self.log_x, series.x), (self.log_y, series.y + series.line)):
                if log and min(values) <= 0:
                    raise ValueError(f"{series.name}: a logarithmic axis has no place for 0")


@dataclass(frozen=True)
class Part:
    """One part of every bar of a stack.

    Args:
        amounts: of each bar, in the stack's unit; 0 where a bar has no such part.
        extra: drawn as an addition to the others: what a formula leaves out.
    """

    name: str
    amounts: tuple[float, ...]
    extra: bool = False


@dataclass(frozen=True)
class Bars:
    """Stacked bars of equal length: each part's share of its bar, and the bar's total in words.

    Args:
        names: of the bars.
        unit: of the amounts, such as ``MAC``; a prefix may be put before it.
    """

    title: str
    names: tuple[str, ...]
    parts: tuple[Part, ...]
    unit: str
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.names or any(len(part.amounts) != len(self.names) for part in self.parts):
            raise ValueError(f"{self.title}: every part needs one amount for each bar")
        if min(self.totals, default=0) <= 0:
            raise ValueError(f"{self.title}: a bar without an amount has no shares")

    @property
    def totals(self) -> tuple[float, ...]:
        """Of each bar."""
        amounts = [part.amounts for part in self.parts]
        return tuple(sum(of_bar) for of_bar in zip(*amounts, strict=True))

    def shares(self, bar: int) -> tuple[float, ...]:
        """Of one bar's parts; together 1."""
        return tuple(part.amounts[bar] / self.totals[bar] for part in self.parts)


Plot: TypeAlias = Figure | Bars

# A model's modules as an icicle: every module's share of the whole, below the module it is in.

DEPTH = 5
"""Names of a path that are drawn."""

SMALLEST = 0.0015
"""Share below which a module is drawn together with its equally small neighbours."""

WHOLE = "(model)"


@dataclass(frozen=True)
class Rect:
    """One module: from `start` to `end` of the whole, 0 to 1, at `level` below the model.

    Args:
        branch: the module of the first level that it is in.
        amount: of the module and everything in it.
    """

    name: str
    path: str
    branch: str
    level: int
    start: float
    end: float
    amount: float


@dataclass
class _Node:
    amount: float = 0.0
    children: dict[str, _Node] = field(default_factory=dict)

    @property
    def whole(self) -> float:
        return self.amount + sum(child.whole for child in self.children.values())


def partition(amounts: Mapping[str, float], depth: int = DEPTH) -> list[Rect]:
    """Rectangles from what each module does itself, by its path.

    ``stages.0`` is one step: a number stands with the list that it counts.
    """
    root = _Node()
    for path, amount in amounts.items():
        node = root
        for name in _steps(path)[:depth]:
            node = node.children.setdefault(name, _Node())
        node.amount += amount
    total = root.whole
    if total <= 0:
        return []
    rects = [Rect(WHOLE, WHOLE, WHOLE, 0, 0.0, 1.0, total)]
    _below(root, "", "", 1, 0.0, total, rects)
    return rects


def _steps(path: str) -> list[str]:
    steps: list[str] = []
    for name in path.split(".") if path != WHOLE else []:
        if name.isdecimal() and steps:
            steps[-1] += f".{name}"
        else:
            steps.append(name)
    return steps


def _below(
    node: _Node, path: str, branch: str, level: int, start: float, total: float, rects: list[Rect]
) -> None:
    small: list[str] = []
    left = 0.0
    for name, child in node.children.items():
        share = child.whole / total
        if share < SMALLEST:
            small.append(name)
            left += child.whole
            continue
        below = f"{path}.{name}".lstrip(".")
        rects.append(Rect(name, below, branch or name, level, start, start + share, child.whole))
        _below(child, below, branch or name, level + 1, start, total, rects)
        start += share
    if left / total >= SMALLEST:
        name = f"{len(small)} small modules"
        below = f"{path or WHOLE}: {', '.join(small)}"
        rects.append(Rect(name, below, branch or name, level, start, start + left / total, left))


SUFFIXES = (".png", ".svg")


def check_suffix(suffix: str) -> None:
    """Refuse what no plot is written as, before any work.

    Raises:
        UsageError: it is neither .png nor .svg.
    """
    if suffix.lower() not in SUFFIXES:
        raise UsageError(
            f"a plot is written as {' or '.join(SUFFIXES)}; "
            f"the suffix {suffix or '(none)'} names neither."
        )


def total_of(bars: Bars, bar: int) -> str:
    """A bar's total in words, and how much of it no formula has."""
    amount = bars.totals[bar]
    total = units.size(amount) if bars.unit == "byte" else f"{units.amount(amount, bars.unit)}s"
    extra = sum(part.amounts[bar] for part in bars.parts if part.extra)
    return f"{total}, {units.share(extra, amount)} left out" if extra else total
