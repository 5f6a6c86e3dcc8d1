"""The coefficients of Eq. 10 from counts alone, which are never told what they should be."""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TypeAlias

import torch

from ..counting.conventions import Convention
from ..counting.count import count
from ..counting.operators import ShapesOnly
from ..counting.peers.solve import eliminate
from ..errors import UsageError
from ..models.config import Deformable
from ..models.mixers.deformable import DeformableAttention
from . import formulas
from .identity import term_of
from .records import Coefficient, Fit

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
class _Module:
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
    points = [_counted(sizes, convention) for sizes in _combinations(grid)]
    chosen = _independent([point.monomials for point in points])
    solved_on = [points[i] for i in chosen]
    held_out = [point for i, point in enumerate(points) if i not in chosen]
    if not held_out:
        raise UsageError("this grid leaves no module to hold out; give more values.")
    coefficients = _solve(solved_on, [point.total for point in solved_on])
    worst = max(
        abs(sum(map(operator.mul, coefficients, point.monomials)) - point.total)
        for point in held_out
    )
    names = dict.fromkeys(name for point in points for name in point.parts)
    parts = {name: _solve(solved_on, [p.parts.get(name, 0) for p in solved_on]) for name in names}
    rows = tuple(
        Coefficient(
            monomial,
            str(coefficients[i]),
            str(sum(parts[name][i] for name in OWN if name in parts)),
            PAPER[i],
            {name: str(found[i]) for name, found in parts.items() if found[i]},
        )
        for i, monomial in enumerate(MONOMIALS)
    )
    return Fit(convention.name, rows, len(solved_on), len(held_out), math.ceil(worst))


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
                f"{part!r} is not understood; write NAME=N,N,... with a name of "
                f"{', '.join(GRID)} and numbers from 1 to 4096."
            )
        if name in found:
            raise UsageError(f"{name} is given twice; write its numbers with commas.")
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
                f"width {dim} must be a multiple of {heads} heads, and these of {groups} groups."
            )
    return made


def _counted(sizes: Mapping[str, int], convention: Convention) -> _Module:
    height, width, dim, heads = (sizes[n] for n in ("height", "width", "dim", "heads"))
    config = Deformable(sizes["groups"], sizes["kernel"], sizes["stride"])
    with ShapesOnly(), torch.device("meta"):
        module = DeformableAttention(dim, heads, config, map_side=height).eval()
        x = torch.empty(1, height, width, dim)
    counted = count(module, x)
    unit = 2 if convention.unit == "FLOP" else 1  # FLOPs are halved: a multiply-add is one
    keys = next(c for c in counted.calls if c.module == "key").shapes[0][-2]  # of (B, Ns, C)
    hw, k = height * width, module.offset_network.dwconv.kernel_size[0]
    parts: dict[str, int] = {}
    for call in counted.calls:
        amount = convention.weigh(call.cost, call.module_type)
        if amount:
            name = term_of(call, call.module, module)
            parts[name] = parts.get(name, 0) + amount // unit
    monomials = (
        hw * keys * dim,
        hw * dim * dim,
        keys * dim * dim,
        k * k * keys * dim,
        keys * dim,
        heads * hw * keys,
    )
    return _Module(monomials, counted.total(convention) // unit, parts)


def _independent(rows: Sequence[Sequence[int]]) -> list[int]:
    """The first rows that determine every column, by elimination in exact fractions."""
    chosen: list[int] = []
    basis: list[Row] = []
    for index, row in enumerate(rows):
        more = eliminate([*map(tuple, basis), tuple(map(Fraction, row))], len(MONOMIALS))
        assert more is not None
        if len(more) > len(basis):
            basis = more
            chosen.append(index)
        if len(chosen) == len(MONOMIALS):
            return chosen
    raise UsageError(
        f"this grid cannot tell {_confused(basis)} apart: give more values of height, "
        "width, stride, dim, kernel or heads."
    )


def _confused(basis: Sequence[Row]) -> str:
    """Monomials that some combination of the others equals on every row."""
    pivots = [_pivot(row) for row in basis]
    free = next(i for i in range(len(MONOMIALS)) if i not in pivots)
    involved = [pivot for pivot, row in zip(pivots, basis, strict=True) if row[free]]
    return ", ".join(MONOMIALS[i] for i in sorted([free, *involved]))


def _pivot(row: Row) -> int:
    """The first column that a reduced row has."""
    return next(i for i, value in enumerate(row) if value)


def _solve(points: Sequence[_Module], totals: Sequence[int]) -> Row:
    """The coefficients that give these totals; the points are independent."""
    rows = [
        tuple(map(Fraction, (*point.monomials, total)))
        for point, total in zip(points, totals, strict=True)
    ]
    return [row[-1] for row in sorted(eliminate(rows, len(rows)) or (), key=_pivot)]
