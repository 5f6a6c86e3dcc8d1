"""The fewest columns, with plain weights, that make up a difference exactly in every row.

A row is a module: its amounts by column, and how much more another counter gives it than we do.
One row proves little (any column explains one number), so a weight must be plain: a whole number
or a half (counters of FLOPs are halved), and small unless several different rows agree on it.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import combinations
from math import comb
from typing import Generic, TypeAlias, TypeVar

C = TypeVar("C", bound=Hashable)

MOST = 3
"""Columns that one explanation may have."""

SUBSETS = 20_000
"""Choices of columns that are tried before a search is given up."""

SMALL = 16
"""The largest weight that a single row is believed for."""

LARGE = 1000
"""The largest weight that several rows are believed for."""

PLAIN: tuple[Fraction, ...] = tuple(
    Fraction(n, d) for d in (1, 2) for n in (-1, 1, -2, 2, 3, 4, 5, -3, -4, -5) if d == 1 or n % 2
)
"""Weights that are tried where rows are too few to solve for two of them."""


@dataclass(frozen=True)
class EquationRow(Generic[C]):
    """One equation: the sum of weights times amounts shall be the target."""

    amounts: Mapping[C, int]
    target: Fraction


@dataclass(frozen=True)
class Solution(Generic[C]):
    """Weights by column, and for each column those that would do as simply in its place."""

    weights: Mapping[C, Fraction]
    others: Mapping[C, tuple[C, ...]]


def solve(
    rows: Sequence[EquationRow[C]],
    order: Sequence[C],
    poor: Callable[[C], bool] = lambda column: False,
    guess: bool = True,
) -> Solution[C] | None:
    """The simplest exact explanation, or None.

    Args:
        order: the columns; of equally simple explanations the one of the earliest columns wins.
        poor: columns that are used where nothing else explains the rows, with small weights.
        guess: whether one row may be explained by two columns with plain weights.
    """
    if not any(row.target for row in rows):
        return Solution({}, {})
    columns, same = _distinct_columns(rows, order)
    table = list(
        dict.fromkeys((tuple(row.amounts.get(c, 0) for c in columns), row.target) for row in rows)
    )
    poorly = [poor(column) for column in columns]
    for size in range(1, MOST + 1):
        if comb(len(columns), size) > SUBSETS:
            break
        found = [
            (sum(poorly[i] for i in subset), sum(map(_complexity, weights)), subset, weights)
            for subset in combinations(range(len(columns)), size)
            for weights in _weights(table, subset, guess)
            if all(abs(w) <= SMALL for i, w in zip(subset, weights, strict=True) if poorly[i])
        ]
        if found:
            *_, subset, weights = min(found, key=lambda item: item[:3])
            best = {columns[i]: weight for i, weight in zip(subset, weights, strict=True)}
            return Solution(best, {column: same[column] for column in best if same[column]})
    return None


def _distinct_columns(
    rows: Sequence[EquationRow[C]], order: Sequence[C]
) -> tuple[list[C], dict[C, tuple[C, ...]]]:
    """Columns that are not all zero, each once, with the others of the same amounts."""
    groups: dict[tuple[int, ...], list[C]] = {}
    for column in order:
        values = tuple(row.amounts.get(column, 0) for row in rows)
        if any(values):
            groups.setdefault(values, []).append(column)
    return [group[0] for group in groups.values()], {
        group[0]: tuple(group[1:]) for group in groups.values()
    }


Equation: TypeAlias = tuple[Fraction, ...]
"""Amounts of some columns, and the target."""


def _weights(
    table: Sequence[tuple[tuple[int, ...], Fraction]], subset: Sequence[int], guess: bool
) -> Iterator[list[Fraction]]:
    """Every plain choice of weights for these columns that holds in all rows."""
    rows: list[Equation] = [
        (*(Fraction(amounts[i]) for i in subset), target) for amounts, target in table
    ]
    rows = [row for row in dict.fromkeys(rows) if any(row)]
    if any(row[-1] and not any(row[:-1]) for row in rows):
        return
    size = len(subset)
    basis = eliminate(rows, size)
    if basis is None:
        return
    if len(basis) == size:
        weights = [Fraction(0)] * size
        for row in basis:
            weights[next(i for i in range(size) if row[i])] = row[-1]
        limit = LARGE if len(rows) > size else SMALL
        if all(w and w.denominator <= 2 and abs(w) <= limit for w in weights):
            yield weights
    elif guess and size == 2 and basis[0][1]:  # one row, or rows that are multiples of one
        left, right, target = basis[0]
        for weight in PLAIN:
            other = (target - weight * left) / right
            if other in PLAIN:
                yield [weight, other]


def eliminate(rows: Sequence[Equation], size: int) -> list[list[Fraction]] | None:
    """Rows in reduced echelon form; None where they contradict each other."""
    basis: list[list[Fraction]] = []
    for values in rows:
        row = list(values)
        for known in basis:
            pivot = next(i for i in range(size) if known[i])
            row = [a - row[pivot] * b for a, b in zip(row, known, strict=True)]
        pivot = next((i for i in range(size) if row[i]), -1)
        if pivot < 0:
            if row[-1]:
                return None
            continue
        row = [a / row[pivot] for a in row]
        basis = [[a - known[pivot] * b for a, b in zip(known, row, strict=True)] for known in basis]
        basis.append(row)
    return basis


def _complexity(weight: Fraction) -> int:
    """How much there is to say: -1 and 1 least, then larger numbers, then halves."""
    return abs(weight.numerator) + 4 * (weight.denominator - 1)
