"""A published table beside what was computed, as plain values.

A cell's verdict is one of

- ``agrees``: the computed figure rounds to the print;
- ``differs``: it does not;
- ``wrong in print``: it does not, and the papers print a figure for the same model elsewhere that
  the computed one does round to;
- ``not reproducible``: what was published does not fix the configuration, and the one of those
  tried that misses least in all the rows that share the choice does not round to the print;
- ``published only``: nothing was computed; the reason says why.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Literal, get_args

from ..setting import Count

Verdict = Literal["agrees", "differs", "wrong in print", "not reproducible", "published only"]

VERDICTS: tuple[Verdict, ...] = get_args(Verdict)


@dataclass(frozen=True)
class Evidence:
    """What a verdict rests on."""

    model: str  # model, resolution: what was built, and for which input
    resolution: str
    amount: Count | None  # exact, in `unit`; None where it could not be computed
    # ``MAC``, ``FLOP``, ``element`` (of parameters), ``byte`` or empty (a size of the architecture)
    unit: str
    # the convention of a count, what was counted as a parameter, what memory is held at which
    # batch, or the property
    rule: str


@dataclass(frozen=True)
class Cell:
    """One figure of a table."""

    table: str  # table, row, column: where it stands
    row: str
    column: str
    quantity: str
    printed: str  # as printed
    low: float | None  # low, high: the figures that round to the print, in units of one
    high: float | None
    verdict: Verdict  # see above; `expected` is what the table's file says it should be
    expected: Verdict
    difference: float | None = None  # computed minus printed, relative to the print
    reason: str = ""  # why the verdict is not ``agrees``, with the figures that say so
    # what was computed; first the model itself, then whatever else was tried
    evidence: tuple[Evidence, ...] = ()
    failed: bool = False  # it should have been computed and could not be
    # of a number of multiply-adds, what every rule counts on the model of the first piece of
    # evidence; the column's own rule first
    readings: tuple[Evidence, ...] = ()
    follows: tuple[str, ...] = ()  # the rules of these whose total rounds to the print

    @property
    def amount(self) -> int | None:
        """What was computed, if anything was."""
        return self.evidence[0].amount if self.evidence else None

    @property
    def is_expected(self) -> bool:
        """Whether the verdict is the one that the file expects."""
        return self.verdict == self.expected and not self.failed


@dataclass(frozen=True)
class Ratio:
    """A quotient of two rows that a paper states in words, such as "2.6x the memory"."""

    table: str
    column: str  # column, row, over: of which column, which row over which
    row: str
    over: str
    printed: str  # as printed
    of_prints: float  # the quotient of the two printed cells
    computed: float | None  # of what was computed; None if it could not be
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
    """A column: its machine name, the print's heading, and the quantity (None for a label)."""

    name: str
    title: str
    quantity: str | None = None
    unit: str = ""
    by_rules: bool = False  # people are shown what every rule counts, not the column's own alone


@dataclass(frozen=True)
class Score:
    """How many figures of a column each rule rounds to."""

    column: str
    cells: Count  # different figures of models whose configuration is known
    agreeing: dict[str, int]  # how many of them, by rule


@dataclass(frozen=True)
class Line:
    """A row: its labels as printed, and its cells by column; a column may have none."""

    labels: dict[str, str]
    cells: dict[str, Cell]


@dataclass(frozen=True)
class Comparison:
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

    def verdicts(self) -> Counter[Verdict]:
        """How many cells have each verdict."""
        return Counter(cell.verdict for cell in self.cells())


@dataclass(frozen=True)
class Miss:
    """What a configuration gives for one cell, and how far that is from the print."""

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
        """The largest miss of a cell, relative to the print."""
        return max(abs(miss.relative) for miss in self.misses)


@dataclass(frozen=True)
class Search:
    """A search over configurations that are the same for every cell of a head."""

    table: str
    head: str
    tried: Count  # how many
    reproducing: Count  # how many of them round to every print
    best: tuple[Candidate, ...]  # those that miss least in their worst cell, the best first
    # for each cell, the one that is nearest to it, whatever it gives elsewhere
    nearest: tuple[Candidate, ...]
