"""Attention modules on their own, over sizes: what is counted beside what the formulas give.

Curves for plots, the paper's worked example, and Eq. 10's coefficients recovered from counts.

A module is built once on meta and run on maps of any size, so a whole sweep takes a second.
"""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TypeAlias

import torch

from ..counting.conventions import Convention
from ..counting.count import count
from ..counting.operators import ShapesOnly
from ..counting.peers.solve import eliminate
from ..errors import UsageError
from ..models import config
from ..models.mixers import make_mixer
from ..models.mixers.attention import Mixer
from ..models.mixers.deformable import DeformableAttention
from ..paper.tables import Printed
from ..render.figure import Figure, Plot, Series
from . import formulas
from .formulas import formula_of
from .identity import module_terms, term_of
from .records import Claim, Coefficient, Fit, ModuleTerms
from .view import deformable, stacks

SIDES = (7, 14, 21, 28, 42, 56, 84, 112)
"""Multiples of a window of 7: stage 3 of inputs from 112 to 1792 pixels a side."""

STRIDES = (1, 2, 3, 4, 5, 6, 7, 8)

MAP_SIDE = 14
"""Stage 3 at 224: the size that the modules' tables are made for."""


@dataclass(frozen=True)
class ComparedModules:
    """The modules that are compared; default: of stage 3 of DAT-T."""

    dim: int = 384  # C
    heads: int = 12  # M
    groups: int = 3  # G of the deformable attention
    kernel: int = 5  # k of it
    strides: tuple[int, ...] = (1,)  # every r of it
    window: int = 7  # side s of a window and of a neighbourhood
    points: int = 4  # K of Deformable DETR
    ratio: int = 2  # of the spatial reduction

    def configs(self) -> Iterator[tuple[str, config.Mixer]]:
        """Every module under the name that it has in a plot."""
        for r in self.strides:
            yield f"DMHA r={r}", config.Deformable(self.groups, self.kernel, r)
        yield "MSA", config.SpatialReduction(1)
        yield f"SRA R={self.ratio}", config.SpatialReduction(self.ratio)
        yield f"W-MSA s={self.window}", config.Window(self.window)
        yield f"NA s={self.window}", config.Neighborhood(self.window)
        yield f"D-DETR K={self.points}", config.DeformableDetr(self.points)


STAGE_3 = ComparedModules()


def point_of(mixer: Mixer, height: int, width: int, name: str = "") -> ModuleTerms:
    """Count a module on an H x W map, term by term."""
    formula = formula_of(mixer, height, width)
    if formula is None:
        raise UsageError(f"no formula of {type(mixer).__name__} is known.")
    calls = count(mixer, torch.empty(1, height, width, mixer.dim, device="meta")).calls
    return module_terms((name, f"map {width}x{height}", ""), mixer, formula, calls)


def sweep(
    compared: ComparedModules, sides: Sequence[int] = SIDES
) -> dict[str, tuple[ModuleTerms, ...]]:
    """Every module on square maps of these sides, by the name that it has in a plot."""
    if not sides or min(sides) < compared.ratio:
        raise UsageError(f"sides {list(sides)}: give one or more, none below {compared.ratio}.")
    mixers = {name: _on_meta(mixer, compared) for name, mixer in compared.configs()}
    return {n: tuple(point_of(mixer, side, side) for side in sides) for n, mixer in mixers.items()}


def kinds_on(height: int, width: int) -> list[ModuleTerms]:
    """Every kind of attention on one map, under the names that they have in plots."""
    compared = replace(STAGE_3, strides=(1, 2))
    return [
        point_of(_on_meta(mixer, compared), height, width, name)
        for name, mixer in compared.configs()
    ]


def _on_meta(mixer: config.Mixer, compared: ComparedModules) -> Mixer:
    with ShapesOnly(), torch.device("meta"):
        return make_mixer(mixer, compared.dim, compared.heads, MAP_SIDE).eval()


def plots(modules: Sequence[ModuleTerms]) -> list[Plot]:
    """Cost and shares of stage 3, then the terms of modules as bars."""
    return [*cost_against_side(), share_against_stride(), stacks(deformable(modules))]


def cost_against_side(
    compared: ComparedModules = STAGE_3, sides: Sequence[int] = SIDES
) -> tuple[Figure, Figure, Figure]:
    """What the modules cost: the whole, a pixel's part of it, and what the formulas leave out.

    Global attention grows with the fourth power of a side, the others with its square: the first
    figure shows that and hides the rest, which the second shows.
    """
    curves, x = sweep(compared, sides), tuple(map(float, sides))
    where = f"(C={compared.dim}, M={compared.heads})"
    along = "side of the map (pixels; in stage 3 a 16th of the input's)"

    def cost(title: str, label: str, scale: Callable[[ModuleTerms], float]) -> Figure:
        series = tuple(
            Series(
                *(name, x, tuple(point.counted / scale(point) for point in points)),
                tuple(point.by_formula / scale(point) for point in points),
            )
            for name, points in curves.items()
        )
        notes = ("Markers: counted. Lines: the published formula.",)
        return Figure(f"{title} {where}", along, label, series, True, True, notes)

    whole = cost("Cost of one module against the side of its map", "cost (GMACs)", lambda _: 1e9)
    pixel = cost(
        "The same for one pixel of the map",
        "cost for one pixel (MMACs)",
        lambda point: 1e6 * point.sizes.height * point.sizes.width,
    )
    over = tuple(
        Series(name, x, tuple(100 * p.residual / p.by_formula for p in points))
        for name, points in curves.items()
    )
    notes = (
        "Above 0: what the formula leaves out. Below 0: what it counts and fvcore gives no weight.",
    )
    title, label = f"Counted less published formula {where}", "difference (% of the formula)"
    return whole, pixel, Figure(title, along, label, over, log_x=True, notes=notes)


def share_against_stride(
    compared: ComparedModules = STAGE_3,
    strides: Sequence[int] = STRIDES,
    height: int = MAP_SIDE,
    width: int = MAP_SIDE,
) -> Figure:
    """The offset network's share of DMHA, and the shares of what Eq. 10 leaves out."""
    mixers = [config.Deformable(compared.groups, compared.kernel, r) for r in strides]
    points = [point_of(_on_meta(mixer, compared), height, width) for mixer in mixers]
    names = [
        term.name
        for term in points[0].terms
        if term.name == formulas.OFFSETS or term.cause == formulas.LEFT_OUT
    ]
    counted = [{term.name: term.counted for term in point.terms} for point in points]
    shares = {
        name: tuple(100 * c[name] / p.counted for c, p in zip(counted, points, strict=True))
        for name in names
    }
    left_out = [shares[name] for name in names if name != formulas.OFFSETS]
    shares["all that is left out"] = tuple(map(sum, zip(*left_out, strict=True)))
    return Figure(
        f"Small terms of DMHA against the stride on a map of {width}x{height} "
        f"(C={compared.dim}, M={compared.heads}, k={compared.kernel})",
        "stride r of the grid of keys (pixels)",
        "share of the module's MACs (%)",
        tuple(Series(name, tuple(map(float, strides)), y) for name, y in shares.items()),
        log_x=True,
        log_y=True,
        notes=("Eq. 10 has the offset network and none of the others.",),
    )


# The worked example of Section 3.2, recomputed by counting the modules that it speaks of: those of
# stage 3 of Swin-T at 224x224, with DAT-T's heads and groups there (Table 1).


_VANILLA = "2 HW Ns C + 2 HW C² + 2 Ns C²"

_NETWORK = "(k² + 2) Ns C"

_SWIN = "4 HW C² + 2 s² HW C"

_EVERYTHING = "Eq. 10 + 5 Ns C + 4 Ns C + 4 M HW Ns"


def claims() -> list[Claim]:
    """What the example prints, and what is to be said beside it."""
    groups, kernel = STAGE_3.groups, STAGE_3.kernel
    example = _terms(config.Deformable(groups, kernel, stride=2))  # Ns = 49
    released = _terms(config.Deformable(groups, kernel))  # Ns = 196
    swin = sum(_terms(config.Window(STAGE_3.window)).values())
    there, offsets = "in DAT-T's stage 3, Ns = 196", formulas.OFFSETS
    slip = float(Printed.parse("5.08M").value) / example[offsets]
    slipped = (
        f"the printed value is {slip:.2f} times this, a slipped decimal; its share of Eq. 10 is "
        f"{_share(example)}, not 6.0 %"
    )
    own = "the example's figure is of 49 keys; Swin-T projects a key and a value a pixel"
    share = f"{_share(released)} of Eq. 10"
    more = "the released model has r = 1 there: four times the keys of the example"
    return [
        _claim("attention without offsets, Ns = 49", _VANILLA, _vanilla(example), "79.63M"),
        _claim("offset network, Ns = 49, k = 5", _NETWORK, example[offsets], "5.08M", slipped),
        _claim("attention of a block of Swin-T's stage 3", _SWIN, swin, "79.63M", own),
        _claim(f"attention without offsets {there}", _VANILLA, _vanilla(released), reason=more),
        _claim(f"offset network {there}", _NETWORK, released[offsets], reason=share),
        _claim("all that is counted, Ns = 49", _EVERYTHING, sum(example.values())),
        _claim(f"all that is counted {there}", _EVERYTHING, sum(released.values())),
    ]


def _claim(what: str, expression: str, amount: int, printed: str = "", reason: str = "") -> Claim:
    """A figure with its verdict, if the paper prints one; a reason only where it does not agree."""
    verdict = ""
    if printed:
        verdict = "agrees" if Printed.parse(printed).agrees(amount) else "wrong in print"
    return Claim(what, expression, printed, amount, verdict, reason)


def _vanilla(terms: dict[str, int]) -> int:
    return sum(terms[name] for name in (formulas.PROJECTIONS, formulas.KEYS, formulas.PRODUCTS))


def _share(terms: dict[str, int]) -> str:
    """The offset network's share of Eq. 10."""
    network = terms[formulas.OFFSETS]
    return f"{100 * network / (_vanilla(terms) + network):.2f} %"


def _terms(mixer: config.Mixer) -> dict[str, int]:
    """What is counted in a module, by term."""
    terms = point_of(_on_meta(mixer, STAGE_3), MAP_SIDE, MAP_SIDE).terms
    return {term.name: term.counted for term in terms if term.counted}


# The coefficients of Eq. 10 from counts alone, which are never told what they should be.


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
    mixer = config.Deformable(sizes["groups"], sizes["kernel"], sizes["stride"])
    with ShapesOnly(), torch.device("meta"):
        module = DeformableAttention(dim, heads, mixer, map_side=height).eval()
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
        *(hw * keys * dim, hw * dim * dim, keys * dim * dim),
        *(k * k * keys * dim, keys * dim, heads * hw * keys),
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
