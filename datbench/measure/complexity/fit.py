"""The coefficients of Eq. 10 from counts alone, which are never told what they should be."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TypeAlias

import torch

from ...errors import UsageError
from ...models.config import Deformable
from ...models.mixers.deformable import DeformableAttention
from ...terms import Coefficient, Fit
from ..conventions import Convention
from ..count import count
from ..operators import ShapesOnly
from . import formulas
from .identity import term_of

Row: TypeAlias = list[Fraction]

MONOMIALS = ("HW Ns C", "HW C²", "Ns C²", "k² Ns C", "Ns C", "M HW Ns")

PAPER = (2, 2, 2, 1, 2, 0)
"""Eq. 10, in the same order; the fit does not read it."""

OWN = (formulas.PROJECTIONS, formulas.KEYS, formulas.PRODUCTS, formulas.OFFSETS)
"""The work that Eq. 10 has a term for."""

GRID: Mapping[str, tuple[int, ...]] = {
    "height": (5, 8, 14),
    "width": (6, 11),
    "stride": (1, 2),
    "dim": (24, 48),
    "kernel": (3, 5),
    "groups": (1, 3),
    "heads": (3, 6),
}
"""Modules to count: every combination."""


@dataclass(frozen=True)
class _Point:
    """A counted module: its monomials, its total and what each term has of it."""

    monomials: tuple[int, ...]
    total: int
    parts: Mapping[str, int]


def fit(grid: Mapping[str, Sequence[int]], convention: Convention) -> Fit:
    """Solve for the coefficients on as few modules as determine them, and hold out the others.

    Args:
        grid: values by the names of `GRID`; a name that is missing keeps that grid's values.

    Raises:
        UsageError: a value cannot be built, or the grid cannot tell the monomials apart.
    """
    points = [_count(sizes, convention) for sizes in _combinations(grid)]
    chosen = _independent([[Fraction(m) for m in point.monomials] for point in points])
    solved_on = [points[i] for i in chosen]
    coefficients = _solve(solved_on, [point.total for point in solved_on])
    names = list(dict.fromkeys(name for point in points for name in point.parts))
    parts = {name: _solve(solved_on, [p.parts.get(name, 0) for p in solved_on]) for name in names}
    held_out = [point for i, point in enumerate(points) if i not in chosen]
    if not held_out:
        raise UsageError("this grid leaves no module to hold out; give more values to --grid.")
    worst = max(abs(_value(coefficients, point) - point.total) for point in held_out)
    rows = tuple(
        Coefficient(
            monomial,
            str(coefficients[i]),
            str(sum((parts[name][i] for name in OWN if name in parts), start=Fraction(0))),
            PAPER[i],
            {name: str(found[i]) for name, found in parts.items() if found[i]},
        )
        for i, monomial in enumerate(MONOMIALS)
    )
    return Fit(convention.name, rows, len(solved_on), len(held_out), int(-(-worst // 1)))


def parse_grid(text: str) -> dict[str, tuple[int, ...]]:
    """``height=7,14 stride=1,2`` -> values by name.

    Raises:
        UsageError: it is not written so.
    """
    found: dict[str, tuple[int, ...]] = {}
    for part in text.split():
        name, _, values = part.partition("=")
        numbers = values.split(",")
        if name not in GRID or not all(n.isdecimal() and 0 < int(n) <= 4096 for n in numbers):
            raise UsageError(
                f"--grid {part!r} is not understood; write NAME=N,N,... with a name of "
                f"{', '.join(GRID)} and numbers from 1 to 4096."
            )
        if name in found:
            raise UsageError(f"--grid: {name} is given twice; write its numbers with commas.")
        found[name] = tuple(dict.fromkeys(int(number) for number in numbers))
    return found


def _combinations(grid: Mapping[str, Sequence[int]]) -> list[dict[str, int]]:
    values = {name: grid.get(name, default) for name, default in GRID.items()}
    made = [
        dict(zip(values, chosen, strict=True)) for chosen in itertools.product(*values.values())
    ]
    for sizes in made:
        dim, heads, groups = sizes["dim"], sizes["heads"], sizes["groups"]
        if dim % heads or heads % groups:
            raise UsageError(
                f"--grid: width {dim} must be a multiple of {heads} heads, and these of "
                f"{groups} groups."
            )
    return made


def _count(sizes: Mapping[str, int], convention: Convention) -> _Point:
    height, width, dim, heads = (sizes[n] for n in ("height", "width", "dim", "heads"))
    config = Deformable(sizes["groups"], sizes["kernel"], sizes["stride"])
    with ShapesOnly(), torch.device("meta"):
        module = DeformableAttention(dim, heads, config, map_side=height).eval()
        x = torch.empty(1, height, width, dim)
    counted = count(module, x)
    grid = module.offset_network.dwconv
    keys = next(c for c in counted.calls if c.module == "key").shapes[0][-2]  # of (B, Ns, C)
    hw, k = height * width, grid.kernel_size[0]
    parts: dict[str, int] = {}
    for call in counted.calls:
        amount = convention.weigh(call.cost, call.module_type)
        if amount:
            name = term_of(call, call.module, module)
            parts[name] = parts.get(name, 0) + amount // _unit(convention)
    total = counted.total(convention) // _unit(convention)
    monomials = (
        hw * keys * dim,
        hw * dim * dim,
        keys * dim * dim,
        k * k * keys * dim,
        keys * dim,
        heads * hw * keys,
    )
    return _Point(monomials, total, parts)


def _unit(convention: Convention) -> int:
    """FLOPs are halved, so that a multiply-add is one."""
    return 2 if convention.unit == "FLOP" else 1


def _independent(rows: list[Row]) -> list[int]:
    """The first rows that determine every column, by elimination in exact fractions."""
    chosen: list[int] = []
    basis: list[tuple[int, Row]] = []
    for index, row in enumerate(rows):
        rest = list(row)
        for pivot, reduced in basis:
            factor = rest[pivot]
            rest = [a - factor * b for a, b in zip(rest, reduced, strict=True)]
        free = [i for i, value in enumerate(rest) if value]
        if free:
            lead = rest[free[0]]
            basis.append((free[0], [value / lead for value in rest]))
            chosen.append(index)
        if len(chosen) == len(MONOMIALS):
            return chosen
    raise UsageError(
        f"this grid cannot tell {_confused(basis)} apart: give --grid more values of height, "
        "width, stride, dim, kernel or heads."
    )


def _confused(basis: list[tuple[int, Row]]) -> str:
    """Monomials that some combination of the others equals on every row."""
    reduced = [list(row) for _, row in basis]
    pivots = [pivot for pivot, _ in basis]
    for i, pivot in enumerate(pivots):
        for j, row in enumerate(reduced):
            if j != i:
                factor = row[pivot]
                reduced[j] = [a - factor * b for a, b in zip(row, reduced[i], strict=True)]
    free = next(i for i in range(len(MONOMIALS)) if i not in pivots)
    involved = [pivots[j] for j, row in enumerate(reduced) if row[free]]
    return ", ".join(MONOMIALS[i] for i in sorted([free, *involved]))


def _solve(points: Sequence[_Point], totals: Sequence[int]) -> list[Fraction]:
    """Gauss-Jordan in fractions; the points are independent."""
    size = len(points)
    rows = [
        [*(Fraction(m) for m in point.monomials), Fraction(total)]
        for point, total in zip(points, totals, strict=True)
    ]
    for column in range(size):
        pivot = next(i for i in range(column, size) if rows[i][column])
        rows[column], rows[pivot] = rows[pivot], rows[column]
        lead = rows[column][column]
        rows[column] = [value / lead for value in rows[column]]
        for i in range(size):
            if i != column and rows[i][column]:
                factor = rows[i][column]
                rows[i] = [a - factor * b for a, b in zip(rows[i], rows[column], strict=True)]
    return [row[-1] for row in rows]


def _value(coefficients: Sequence[Fraction], point: _Point) -> Fraction:
    return sum(
        (c * m for c, m in zip(coefficients, point.monomials, strict=True)), start=Fraction(0)
    )
