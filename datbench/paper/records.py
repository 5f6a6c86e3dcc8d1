"""A published table beside what was computed, as plain values.

A cell's verdict is one of

- ``agrees``: the computed figure rounds to the printed one;
- ``differs``: it does not;
- ``wrong in print``: it does not, and the papers print a figure for the same model elsewhere that
  the computed one does round to;
- ``not reproducible``: what was published does not fix the configuration, and the one of those
  tried that misses least in all the rows that share the choice does not round to the printed
  figure;
- ``published only``: nothing was computed; the reason says why.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Literal, get_args

from ..setting import Count, MemoryMode, Setting
from ..units import Brief

Verdict = Literal["agrees", "differs", "wrong in print", "not reproducible", "published only"]

VERDICTS: tuple[Verdict, ...] = get_args(Verdict)


def plural(verdict: str, number: int) -> str:
    """``2 agree``, ``1 wrong in print``."""
    word = verdict[:-1] if verdict in ("agrees", "differs") and number != 1 else verdict
    return f"{number} {word}"


@dataclass(frozen=True)
class Evidence:
    """What a verdict rests on."""

    model: str
    resolution: str  # of the input
    amount: Count | None  # exact, in `unit`; None where it could not be computed
    unit: str  # MAC, FLOP, element (of parameters), byte; empty: a size of the architecture
    # The convention of a count, what was counted as a parameter, what memory is held at which
    # batch, or the property.
    rule: str


@dataclass(frozen=True)
class Cell:
    """One figure of a table."""

    table: str
    row: str
    column: str
    quantity: str
    printed: str  # as printed
    low: float | None  # the least figure that rounds to the printed one, in units of one
    high: float | None  # the largest
    verdict: Verdict  # see above
    expected: Verdict  # what the table's file says that the verdict should be
    difference: float | None = None  # computed minus printed, relative to the printed figure
    reason: str = ""  # why the verdict is not ``agrees``, with the figures that say so
    evidence: tuple[Evidence, ...] = ()  # the model itself first, then whatever else was tried
    failed: bool = False  # it should have been computed and could not be
    # For multiply-adds: what every rule counts on the first model, the column's own rule first.
    readings: tuple[Evidence, ...] = ()
    follows: tuple[str, ...] = ()  # the rules of these whose total rounds to the printed figure

    @property
    def made(self) -> Evidence | None:
        """What was computed for the model itself, if anything was."""
        return self.evidence[0] if self.evidence else None

    @property
    def amount(self) -> int | None:
        """The computed figure, if there is one."""
        return self.made.amount if self.made else None

    @property
    def amounts(self) -> dict[str, int | None]:
        """All that was computed, by rule."""
        return {each.rule: each.amount for each in self.evidence}

    @property
    def totals(self) -> dict[str, int | None]:
        """What every rule counts."""
        return {each.rule: each.amount for each in self.readings}

    @property
    def is_expected(self) -> bool:
        """Whether the verdict is the one that the file expects."""
        return self.verdict == self.expected and not self.failed


@dataclass(frozen=True)
class Ratio:
    """A quotient of two rows that a paper states in words, such as "2.6x the memory"."""

    table: str
    column: str
    row: str
    over: str  # the row that it is divided by
    printed: str  # as printed
    of_prints: float  # the quotient of the two printed cells
    computed: float | None  # the quotient of what was computed; None if it could not be
    rule: str  # what was computed
    verdict: Verdict
    expected: Verdict
    reason: str = ""

    @property
    def is_expected(self) -> bool:
        """Whether the verdict is the one that the file expects."""
        return self.verdict == self.expected and self.computed is not None


@dataclass(frozen=True)
class Heading:
    """A column of the table."""

    name: str  # for machines
    title: str  # as printed
    quantity: str | None = None  # None: a label
    unit: str = ""
    by_rules: bool = False  # people are shown what every rule counts, not only the column's own


@dataclass(frozen=True)
class Score:
    """How many figures of a column each rule rounds to."""

    column: str
    cells: Count  # different figures of models whose configuration is known
    agreeing: dict[str, int]  # how many of them, by rule


@dataclass(frozen=True, repr=False)
class Line(Brief):
    """A row: its labels as printed, and its cells by column; a column may have none."""

    labels: dict[str, str]
    cells: dict[str, Cell]

    @property
    def prints(self) -> dict[str, str]:
        """What is printed in each column."""
        labels = {name: label for name, label in self.labels.items() if label}
        return {**{name: cell.printed for name, cell in self.cells.items()}, **labels}


@dataclass(frozen=True, repr=False)
class Comparison(Brief):
    """A whole table, compared."""

    table: str
    title: str
    source: str
    headings: tuple[Heading, ...]
    lines: tuple[Line, ...]
    notes: tuple[str, ...]
    ratios: tuple[Ratio, ...] = ()
    scores: tuple[Score, ...] = ()

    def cells(self) -> list[Cell]:
        """Every figure, row by row."""
        return [cell for line in self.lines for cell in line.cells.values()]

    def column(self, name: str) -> list[Cell]:
        """The figures of one column; a row may have none."""
        return [line.cells[name] for line in self.lines if name in line.cells]

    def verdicts(self) -> dict[Verdict, int]:
        """How many cells have each verdict."""
        found = Counter(cell.verdict for cell in self.cells())
        return {verdict: found[verdict] for verdict in VERDICTS}


@dataclass(frozen=True)
class Miss:
    """What a configuration gives for one cell, and how far that is from the printed figure."""

    row: str
    printed: str
    amount: Count
    relative: float
    agrees: bool


@dataclass(frozen=True)
class Candidate:
    """A configuration of a search, by its choices, with its miss for every cell."""

    choices: dict[str, str]
    misses: tuple[Miss, ...]

    @property
    def worst(self) -> float:
        """The largest miss of a cell, relative to the printed figure."""
        return max(abs(miss.relative) for miss in self.misses)


@dataclass(frozen=True, repr=False)
class Search(Brief):
    """A search over configurations that are the same for every cell of a head."""

    table: str
    head: str
    tried: Count  # configurations
    reproducing: Count  # how many of them round to every printed figure
    best: tuple[Candidate, ...]  # those that miss least in their worst cell, the best first
    nearest: tuple[Candidate, ...]  # for each cell, the nearest one, whatever it gives elsewhere


@dataclass(frozen=True)
class SummaryRow:
    """One model in a paper's table of models; what was not asked for, or is not known, is None."""

    model: str
    name: str  # as papers print it
    setting: Setting
    memory_mode: MemoryMode
    params: Count | None = None  # trainable parameters
    macs: Count | None = None  # of one image, as fvcore counts
    memory: Count | None = None  # bytes: the simulated peak of the setting's batch
    measured_memory: Count | None = None  # bytes of tensors, from a file
    images_per_second: float | None = None  # from a file
    seconds: float | None = None  # of one call, from the same row
    top1: float | None = None  # in percent, as printed
    printed: str = ""  # where the accuracy is printed
    timed: str = ""  # the setting and place of the time
    measured: str = ""  # of the memory
