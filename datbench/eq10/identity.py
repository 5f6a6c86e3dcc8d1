"""Formula + causes = counted, for every attention module of a model, as integers.

What is counted comes from the operators that ran: each is attributed to a term by what it is and
where in the module it ran. Nothing is found by subtracting.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from ..counting.conventions import CONVENTIONS, Convention
from ..counting.count import build_for_count, count, count_built
from ..counting.operators import ShapesOnly
from ..counting.recorder import OperatorCall
from ..errors import UsageError
from ..models.config import Deformable
from ..models.mixers.attention import Mixer
from ..models.mixers.deformable import DeformableAttention
from ..models.resolve import Spec
from ..setting import MULTIPLY_ADDS, Attention, Kind, Resolution, Setting
from . import formulas
from .formulas import Expected, Formula, evaluate, formula_of, names_of
from .records import Coefficient, Fit, ModuleTerms, Term

FVCORE = CONVENTIONS["fvcore"]

Shape: TypeAlias = tuple[int, int, int]
"""Images, height and width of a map."""

UNATTRIBUTED = "unattributed"

# Where in a module an operator ran -> its term. Products outside these are attention's own.
_BY_PART = {
    "query": formulas.PROJECTIONS,
    "key": formulas.KEYS,
    "value": formulas.KEYS,
    "key_value": formulas.KEYS,
    "qkv": formulas.ALL_PROJECTIONS,
    "out": formulas.PROJECTIONS,
    "offset_network.dwconv": formulas.OFFSETS,
    "offset_network.out": formulas.OFFSETS,
    "offset_network.norm": formulas.OFFSET_NORM,
    "position_conv": formulas.POSITION_CONV,
    "reduce.0": formulas.REDUCTION,
    "reduce.1": formulas.REDUCTION_NORM,
    "offsets": formulas.PREDICTIONS,
    "weights": formulas.PREDICTIONS,
}


def identities(
    spec: Spec, resolution: Resolution, attention: Attention = "eager"
) -> list[ModuleTerms]:
    """Every attention module of a model with its formula and its count, in the model's order.

    Raises:
        UsageError: the model has no module of which a formula is known.
        MeasurementError: it does not run at this resolution.
    """
    setting = Setting(resolution, attention=attention)
    model = build_for_count(spec, setting)
    mixers = {path: m for path, m in model.named_modules() if isinstance(m, Mixer)}
    shapes: dict[str, list[Shape]] = {}
    handles = [
        mixer.register_forward_pre_hook(_note(shapes.setdefault(path, [])), with_kwargs=True)
        for path, mixer in mixers.items()
    ]
    try:
        count = count_built(spec.name, model, setting)
    finally:
        for handle in handles:
            handle.remove()
    found = []
    for path, mixer in mixers.items():
        calls = [c for c in count.calls if (c.module + ".").startswith(path + ".")]
        terms = _of_module(spec.name, str(resolution), path, mixer, shapes[path], calls)
        found += [terms] if terms is not None else []
    if not found:
        raise UsageError(
            f"{spec.name} has no attention module that a formula here describes; dat_t has "
            "deformable and window attention, datpp_t neighbourhood attention."
        )
    return found


def _note(shapes: list[Shape]) -> Any:
    def hook(module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
        b, h, w, _ = next(x for x in (*inputs, *named.values()) if isinstance(x, Tensor)).shape
        shapes.append((b, h, w))

    return hook


def _of_module(
    model: str,
    resolution: str,
    path: str,
    mixer: Mixer,
    shapes: Sequence[Shape],
    calls: Sequence[OperatorCall],
) -> ModuleTerms | None:
    """A module that ran on maps of one size; None if it did not run, or has no formula.

    Raises:
        UsageError: it ran on maps of several sizes.
    """
    sizes = {(h, w) for _, h, w in shapes}
    if not sizes:
        return None
    if len(sizes) > 1:
        raise UsageError(f"{model}: {path} runs on maps of several sizes; no one formula is its.")
    formula = formula_of(mixer, *sizes.pop())
    runs = sum(b for b, _, _ in shapes)
    if formula is None:
        return None
    return module_terms(model, resolution, path, mixer, formula, calls, runs)


def module_terms(
    model: str,
    resolution: str,
    path: str,
    mixer: Mixer,
    formula: Formula,
    calls: Sequence[OperatorCall],
    runs: int = 1,
) -> ModuleTerms:
    """A module's formula with what its operators were counted to cost, term by term.

    Args:
        runs: maps that it saw: the formula is of one.
    """
    counted = attribute(path, mixer, formula, calls)
    terms = [
        _term(e.name, e.expression, runs * e.formula, runs * e.predicted, counted.pop(e.name, 0), e)
        for e in formula.expected
    ]
    # What is left belongs to no term of the module's: the identity then fails, and says where.
    terms += [Term(name, "", 0, 0, amount, "not predicted") for name, amount in counted.items()]
    published = evaluate(_written(formula.formula), names_of(formula.sizes))
    return ModuleTerms(
        model,
        resolution,
        path,
        _stage(path),
        formula.kind,
        formula.formula,
        formula.sizes,
        tuple(terms),
        sum(FVCORE.weigh(call.cost, call.module_type) for call in calls),
        runs * published,
        runs,
    )


def _term(
    name: str, expression: str, formula: int, predicted: int, counted: int, expected: Expected
) -> Term:
    cause = expected.cause
    if counted != predicted:
        cause = f"{cause}; NOT EXPLAINED: {counted - predicted:+,}".removeprefix("; ")
    return Term(name, expression, formula, predicted, counted, cause)


def _written(formula: str) -> str:
    """The formula without its source, which stands last in brackets."""
    return formula[: formula.rindex(" (")]


def attribute(
    path: str, mixer: Mixer, formula: Formula, calls: Sequence[OperatorCall]
) -> dict[str, int]:
    """What was counted, by term."""
    known = {expected.name for expected in formula.expected}
    counted: dict[str, int] = {}
    for call in calls:
        amount = FVCORE.weigh(call.cost, call.module_type)
        if amount:
            name = term_of(call, call.module[len(path) :].lstrip("."), mixer)
            if name == formulas.PROJECTIONS and name not in known:
                name = formulas.ALL_PROJECTIONS  # where one term holds them all
            if name == formulas.KEYS and name not in known:
                name = formulas.ALL_PROJECTIONS
            counted[name] = counted.get(name, 0) + amount
    return counted


def term_of(call: OperatorCall, part: str, mixer: Mixer) -> str:
    """The term that a call belongs to; `part` is where in the module it ran."""
    if part in _BY_PART:
        return _BY_PART[part]
    kinds = _kinds(call.cost)
    if part == "" and kinds <= set(MULTIPLY_ADDS):
        return formulas.PRODUCTS
    if part == "" and kinds == {Kind.SAMPLE}:
        return formulas.SAMPLING if _samples_features(call, mixer) else formulas.BIAS
    if part == "" and kinds == {Kind.UPSAMPLE_BILINEAR}:
        return formulas.BIAS
    return f"{UNATTRIBUTED}: {call.operator} in {part or 'the module'}"


def _kinds(cost: Mapping[Kind, int]) -> set[Kind]:
    """The kinds of work to which fvcore gives a weight."""
    return {kind for kind, amount in cost.items() if amount and FVCORE.weights.get(kind)}


def _samples_features(call: OperatorCall, mixer: Mixer) -> bool:
    """Whether a sampler reads the map, C/G channels of it, and not the table, M/G of it."""
    if not isinstance(mixer, DeformableAttention):
        return True
    channels = call.shapes[0][1]
    groups = mixer.config.groups
    if mixer.head_dim > 1:
        return channels == mixer.dim // groups
    table = mixer.bias_table
    return table is None or call.shapes[0][2:] != table.shape[1:]


def _stage(path: str) -> int:
    """From 1, as the papers count; of a module on its own, 0."""
    parts = path.removeprefix("backbone.").split(".")  # a detector's backbone
    numbered = parts[0] == "stages" and len(parts) > 1 and parts[1].isdecimal()
    return int(parts[1]) + 1 if numbered else 0


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
