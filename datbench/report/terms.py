"""Eq. 10 and its kin as tables: modules, their terms, the fit, the worked example."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from .. import units
from ..terms import Claim, Fit, ModuleTerms
from .table import Column, Table

DEFORMABLE = ("DMHA", "D-DETR")


def _groups(modules: Iterable[ModuleTerms]) -> list[list[ModuleTerms]]:
    """Modules of one model and stage that are the same in everything but their place."""
    groups: dict[tuple[object, ...], list[ModuleTerms]] = {}
    for m in modules:
        key = (m.model, m.resolution, m.stage, m.kind, m.sizes, m.terms)
        groups.setdefault(key, []).append(m)
    return list(groups.values())


def kinds_table(modules: Sequence[ModuleTerms]) -> Table:
    """Kinds of attention on the same maps."""
    title = "Kinds of attention on one map of stage 3, in multiply-adds"
    return _table(modules, title, alone=True)


def modules_table(modules: Sequence[ModuleTerms]) -> Table:
    """One row for modules that are alike: formula, left out, counted, and whether it is exact."""
    title = "Attention modules: published formulas beside what is counted, in multiply-adds"
    return _table(modules, title, alone=False)


def _table(modules: Sequence[ModuleTerms], title: str, alone: bool) -> Table:
    several = len({m.model for m in modules}) > 1
    columns = (
        Column("model", "module" if alone else "model", hidden=not several),
        Column("resolution", "input", hidden=alone),
        Column("stage", "stage", units.integer, hidden=alone),
        Column("kind", "attention", hidden=alone),
        Column("modules", "modules", units.integer, hidden=alone),
        Column("map", "map"),
        Column("keys", "Ns", units.integer),
        Column("dim", "C", units.integer),
        Column("heads", "M", units.integer),
        Column("kernel", "k", units.integer),
        Column("stride", "r", units.integer),
        Column("holds", "identity", style=lambda text: "green" if text == "exact" else "bold red"),
        Column("formula", "formula (M)", units.mega),
        Column("counted", "counted (M)", units.mega),
        Column("beyond", "over formula", lambda value: f"{100 * value:+.1f} %"),
    )
    rows = []
    for group in _groups(modules):
        m, s = group[0], group[0].sizes
        rows.append(
            (
                m.model,
                m.resolution,
                m.stage,
                m.kind,
                len(group),
                f"{s.height}x{s.width}",
                s.keys,
                s.dim,
                s.heads,
                s.kernel,
                s.stride,
                "exact" if m.holds else "FAILS",
                m.by_formula,
                m.counted,
                m.counted / m.by_formula - 1 if m.by_formula else 0.0,
            )
        )
    named = {m.kind: m.formula for m in modules}
    notes = [f"{kind}: {formula}." for kind, formula in named.items()]
    notes.append(
        "k: kernel of the offset network, side of a window, points of D-DETR. Each figure is of "
        'one module; "exact": formula + causes = counted, term by term, as integers.'
    )
    return Table(columns, tuple(rows), title, tuple(notes))


def terms_tables(modules: Sequence[ModuleTerms], every: bool = False) -> list[Table]:
    """The terms of each module that differs from the others; deformable ones unless told."""
    deformable = [m for m in modules if m.kind in DEFORMABLE]
    chosen = modules if every or not deformable else deformable
    return [_terms_table(group) for group in _groups(chosen)]


def _terms_table(group: Sequence[ModuleTerms]) -> Table:
    m, s = group[0], group[0].sizes
    columns = (
        *(Column(name, name, hidden=True) for name in ("model", "resolution", "stage", "module")),
        Column("term", "term"),
        Column("expression", "expression"),
        Column("formula", "formula", units.integer),
        Column("counted", "counted", units.integer),
        Column("residual", "residual", units.integer),
        Column("cause", "cause of the residual"),
    )
    place = (m.model, m.resolution, m.stage, m.module)
    rows = [
        (*place, t.name, t.expression, t.formula, t.counted, t.residual, t.cause) for t in m.terms
    ]
    rows.append((*place, "total", "", m.by_formula, m.counted, m.counted - m.by_formula, ""))
    alike = f" and {len(group) - 1} more like it" if len(group) > 1 else ""
    kernel = f", k={s.kernel}" if s.kernel else ""
    title = (
        f"{m.model} at {m.resolution}, stage {m.stage}, {m.kind} ({m.module}{alike}): "
        f"HW={s.height}x{s.width}, Ns={s.keys}, C={s.dim}, M={s.heads}{kernel}, r={s.stride}"
    )
    return Table(columns, tuple(rows), title)


def modules_csv(modules: Sequence[ModuleTerms]) -> Table:
    """One row a term of every module."""
    names = (
        "model resolution stage module kind height width keys dim heads kernel stride groups "
        "term expression formula predicted counted residual cause"
    )
    rows = []
    for m in modules:
        s = m.sizes
        sizes = (s.height, s.width, s.keys, s.dim, s.heads, s.kernel, s.stride, s.groups)
        for t in m.terms:
            term = (t.name, t.expression, t.formula, t.predicted, t.counted, t.residual, t.cause)
            rows.append((m.model, m.resolution, m.stage, m.module, m.kind, *sizes, *term))
    return Table(tuple(Column(name, name) for name in names.split()), tuple(rows))


def fit_table(fit: Fit) -> Table:
    """The recovered coefficients beside the paper's."""
    columns = (
        Column("monomial", "monomial"),
        Column("fitted", "fitted"),
        Column("own", "of Eq. 10's work"),
        Column("paper", "Eq. 10", units.integer),
        Column("parts", "made of"),
    )
    rows = tuple(
        (
            c.monomial,
            c.fitted,
            c.own,
            c.paper,
            " + ".join(f"{amount} {name}" for name, amount in c.parts.items()),
        )
        for c in fit.coefficients
    )
    exact = "exactly" if fit.worst == 0 else f"with a residual of up to {units.integer(fit.worst)}"
    weights = "fvcore" if fit.convention == "fvcore" else "multiply-adds alone"
    return Table(
        columns,
        rows,
        f"Eq. 10 recovered from counts alone ({fit.convention} convention)",
        (
            f"Solved on {fit.solved_on} modules; {fit.held_out} held-out modules are met {exact}.",
            f"Weights: {weights}. The fit is told the monomials, and no coefficient.",
        ),
    )


def claims_table(claims: Sequence[Claim]) -> Table:
    """The worked example."""
    columns = (
        Column("what", "figure"),
        Column("expression", "expression"),
        Column("printed", "printed"),
        Column("amount", "counted (M)", units.mega),
        Column("verdict", "verdict"),
    )
    rows = tuple(
        (c.what, c.expression, c.printed or None, c.amount, c.verdict or None) for c in claims
    )
    notes = [f"{c.what}: {c.reason}." for c in claims if c.reason]
    title = "The worked example of Section 3.2 (H = W = 14, C = 384), recomputed"
    return Table(columns, rows, title, tuple(notes))
