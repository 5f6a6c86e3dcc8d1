"""Plots as values: what the drawing of terminals and of files takes. Units stand in the labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias


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
