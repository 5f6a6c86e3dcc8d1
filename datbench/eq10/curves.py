"""Attention modules on their own, over sizes: what is counted beside what the formulas give.

A module is built once on meta and run on maps of any size, so a whole sweep takes a second.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch

from ..counting.count import count
from ..counting.operators import ShapesOnly
from ..errors import UsageError
from ..models import config
from ..models.mixers import make_mixer
from ..models.mixers.attention import Mixer
from ..render.figure import Figure, Plot, Series
from . import formulas
from .formulas import formula_of
from .identity import module_terms
from .records import ModuleTerms
from .view import DEFORMABLE, stacks

SIDES = (7, 14, 21, 28, 42, 56, 84, 112)
"""Multiples of a window of 7: stage 3 of inputs from 112 to 1792 pixels a side."""

STRIDES = (1, 2, 3, 4, 5, 6, 7, 8)

MAP_SIDE = 14
"""Stage 3 at 224: the size that the modules' tables are made for."""


@dataclass(frozen=True)
class Curve:
    """One module over several maps."""

    name: str
    points: tuple[ModuleTerms, ...]


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


def sweep(compared: ComparedModules, sides: Sequence[int] = SIDES) -> tuple[Curve, ...]:
    """Every module on square maps of these sides."""
    if not sides or min(sides) < compared.ratio:
        raise UsageError(f"sides {list(sides)}: give one or more, none below {compared.ratio}.")
    return tuple(
        Curve(name, tuple(point_of(mixer, side, side) for side in sides))
        for name, mixer in ((name, _on_meta(mixer, compared)) for name, mixer in compared.configs())
    )


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
    bars = stacks([m for m in modules if m.kind in DEFORMABLE] or modules)
    return [*cost_against_side(), share_against_stride(), bars]


def cost_against_side(
    compared: ComparedModules = STAGE_3, sides: Sequence[int] = SIDES
) -> tuple[Figure, Figure, Figure]:
    """What the modules cost: the whole, a pixel's part of it, and what the formulas leave out.

    Global attention grows with the fourth power of a side, the others with its square: the first
    figure shows that and hides the rest, which the second shows.
    """
    curves = sweep(compared, sides)
    where = f"(C={compared.dim}, M={compared.heads})"
    along = "side of the map (pixels; in stage 3 a 16th of the input's)"
    x = {curve: tuple(float(point.sizes.height) for point in curve.points) for curve in curves}

    def cost(title: str, label: str, scale: Callable[[ModuleTerms], float]) -> Figure:
        series = tuple(
            Series(
                curve.name,
                x[curve],
                tuple(point.counted / scale(point) for point in curve.points),
                tuple(point.by_formula / scale(point) for point in curve.points),
            )
            for curve in curves
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
        Series(curve.name, x[curve], tuple(100 * p.residual / p.by_formula for p in curve.points))
        for curve in curves
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
