"""Plots as values, which a terminal and Vega draw. Units stand in the labels."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from .. import units
from ..setting import Resolution


@dataclass(frozen=True)
class Series:
    """One set of points: a marker at every one, a line along them."""

    name: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    line: tuple[float, ...] = ()  # where the line runs instead, at the same x: another account
    marked: bool = True  # without: the line alone, a limit for example
    size: float | None = None  # a point's weight, 0 to 1, which its marker's area shows in a file

    def __post_init__(self) -> None:
        if not self.x or len(self.x) != len(self.y) or len(self.line) not in (0, len(self.x)):
            raise ValueError(f"{self.name}: as many y as x, and at least one")


@dataclass(frozen=True)
class Figure:
    """Series over one pair of axes, whose labels have the unit."""

    title: str
    x_label: str
    y_label: str
    series: tuple[Series, ...]
    log_x: bool = False
    log_y: bool = False
    notes: tuple[str, ...] = ()  # what a reader must know to read it
    stacked: bool = False  # the series after the first are parts of it: a file stacks them
    known: tuple[str, ...] = ()  # all series that there may be: each has its colour, here or not

    def __post_init__(self) -> None:
        if not self.series:
            raise ValueError(f"{self.title}: nothing to draw")
        for series in self.series:
            for log, values in ((self.log_x, series.x), (self.log_y, series.y + series.line)):
                if log and min(values) <= 0:
                    raise ValueError(f"{series.name}: a logarithmic axis has no place for 0")


MOST = 14
"""Series that a plot tells apart by colour and marker."""


def against_side(
    points: Iterable[tuple[str, Resolution, float]], title: str, unit: str, note: str
) -> Figure:
    """Amounts against the side of the input, a line for each model that they are of."""
    lines: dict[str, set[tuple[float, float]]] = {}
    for model, size, amount in points:
        side = round(math.sqrt(size.width * size.height), 1)
        lines.setdefault(model, set()).add((side, amount))
    return Figure(
        title,
        "side of the input (pixels; of others, of the square with their area)",
        unit,
        tuple(_line(name, points) for name, points in lines.items()),
        log_x=True,
        log_y=True,
        notes=(note,),
    )


def _line(name: str, points: Iterable[tuple[float, float]]) -> Series:
    x, y = zip(*sorted(points), strict=True)
    return Series(name, x, y)


@dataclass(frozen=True)
class FigurePart:
    """One part of every bar of a stack."""

    name: str
    amounts: tuple[float, ...]  # of each bar, in the stack's unit; 0 where a bar has no such part
    extra: bool = False  # drawn as an addition to the others: what a formula leaves out


@dataclass(frozen=True)
class Bars:
    """Stacked bars: each part's share of its bar, and the bar's total in words."""

    title: str
    names: tuple[str, ...]  # of the bars
    parts: tuple[FigurePart, ...]
    unit: str  # of the amounts: MAC, or byte
    notes: tuple[str, ...] = ()
    equal: bool = True  # bars of equal length; without, a file draws them as long as their totals
    about: tuple[str, ...] = ()  # more about each bar, which a page tells: its setting
    known: tuple[str, ...] = ()  # all parts that there may be: each has its colour, here or not

    def __post_init__(self) -> None:
        if not self.names or any(len(part.amounts) != len(self.names) for part in self.parts):
            raise ValueError(f"{self.title}: every part needs one amount for each bar")
        if min(self.totals, default=0) <= 0:
            raise ValueError(f"{self.title}: a bar without an amount has no shares")

    @property
    def totals(self) -> tuple[float, ...]:
        """The amount of each bar."""
        amounts = [part.amounts for part in self.parts]
        return tuple(sum(of_bar) for of_bar in zip(*amounts, strict=True))

    def shares(self, bar: int) -> tuple[float, ...]:
        """The shares of one bar's parts; together 1."""
        return tuple(part.amounts[bar] / self.totals[bar] for part in self.parts)

    def say(self, amount: float) -> str:
        """An amount in words."""
        return units.size(amount) if self.unit == "byte" else f"{units.amount(amount, self.unit)}s"

    def label(self, bar: int) -> str:
        """A bar's name and its total, and how much of it no formula has."""
        amount = self.totals[bar]
        extra = sum(part.amounts[bar] for part in self.parts if part.extra)
        left_out = f", {units.share(extra, amount)} left out" if extra else ""
        return f"{units.printable(self.names[bar])}: {self.say(amount)}{left_out}"


DEPTH = 5
"""Names of a path that an icicle draws."""

SMALLEST = 0.0015
"""Share below which a module is drawn together with its equally small neighbours."""

WHOLE = "(model)"


@dataclass(frozen=True)
class Rect:
    """One module: from `start` to `end` of the whole, 0 to 1, at `level` below the model."""

    name: str
    path: str
    branch: str  # the module of the first level that it is in
    level: int
    start: float
    end: float
    amount: float  # of the module and everything in it

    @property
    def share(self) -> float:
        """Its part of the whole."""
        return self.end - self.start


@dataclass(frozen=True)
class Icicle:
    """A model's modules: each as wide as its share of the whole, below the module it is in."""

    title: str
    rects: tuple[Rect, ...]
    say: Callable[[float], str]  # an amount in words, with its unit
    notes: tuple[str, ...] = ()

    @classmethod
    def of(
        cls, title: str, amounts: Mapping[str, float], say: Callable[[float], str]
    ) -> Icicle | None:
        """From what each module does itself, by its path; None where that is nothing."""
        rects = partition(amounts)
        return cls(title, tuple(rects), say) if rects else None


def largest_of(icicles: Mapping[str, Icicle]) -> str:
    """A sentence that says which module has the largest share."""
    name, rect = max(
        ((name, rect) for name, icicle in icicles.items() for rect in icicle.rects[1:]),
        key=lambda pair: pair[1].share * (pair[1].level == 1),
        default=next((name, icicle.rects[0]) for name, icicle in icicles.items()),
    )
    return f"The largest is {rect.path} of {name} with {units.percent(rect.share)}."


Plot: TypeAlias = Figure | Bars | Icicle


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
