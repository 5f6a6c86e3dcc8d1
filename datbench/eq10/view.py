"""Eq. 10 and its kin as tables: modules, their terms, the fit, the worked example."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from .. import units
from ..render.figure import Bars, Part
from ..render.table import Column, Table, Value
from ..timing.records import LeftOut, Measurements, Point, Ratio
from ..units import factor, percent
from .records import Claim, Fit, ModuleTerms


def answers(of: Measurements) -> list[str]:
    """Whether r = 1 costs what global attention costs, and why DAT is slower than its MACs say."""
    found = []
    if of.ratios:
        found.append(_same_cost(of.ratios))
    if of.left_out:
        slower = [r for r in of.ratios if r.side == of.left_out[-1].side]
        shown = any(r.low is not None and r.low > 1 for r in slower)
        found.append(_why(of.left_out[-1], shown))
    return found


def _same_cost(ratios: Sequence[Ratio]) -> str:
    last = ratios[-1]
    sure = [r for r in ratios if r.low is not None and r.high is not None]
    more = sum(r.low is not None and r.low > 1 for r in sure)
    less = sum(r.high is not None and r.high < 1 for r in sure)
    open_ = len(sure) - more - less
    counts = (("more", more), ("less", less), ("no difference shown", open_))
    verdict = f"{', '.join(f'{word} on {n}' for word, n in counts if n)} of {len(sure)} maps"
    if not sure:
        verdict = "too few samples for an interval on any map; a larger budget gives them"
    if last.low is not None and last.high is not None:
        verdict += f"; {last.time:.2f} times ({last.low:.2f} to {last.high:.2f}) on the largest"
    return (
        "Does r = 1 cost the same as global attention? By the formula nearly: "
        f"{factor(last.formula)} times as much on {last.side}x{last.side}, with "
        f"{factor(last.bytes)} times the bytes. In time: {verdict}."
    )


def _why(of: LeftOut, slower: bool) -> str:
    asked = "Why is DAT slower than its MACs say?" if slower else "Where does DAT's time go?"
    text = (
        f"{asked} On {of.side}x{of.side} at r = 1 the formula leaves "
        f"out {percent(of.macs)} of the counted MACs, and they take {percent(of.terms)} of the "
        f"time; softmax, elementwise operators and copies, no MACs at all, take "
        f"{percent(of.rest)}. It reaches {percent(of.mac_fraction)} of the matrix product's MAC/s"
    )
    if of.global_mac_fraction is None or of.global_rest is None:
        return f"{text}."
    return (
        f"{text}; global attention {percent(of.global_mac_fraction)}, with "
        f"{percent(of.global_rest)} of its time in no MACs."
    )


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


# Measured attention modules as tables, and what they answer in sentences.


CERTAIN = 0.95
"""Coverage below which an interval is not shown: too few samples to have one."""


def tables(measurements: Measurements) -> list[Table]:
    """The points, then what follows from them; the answers in words stand last."""
    found = [_points(measurements)]
    if measurements.exponents:
        found.append(_exponents(measurements))
    if measurements.ratios:
        found.append(_ratios(measurements))
    profiled = [point for point in measurements.points if point.shares]
    if profiled:
        found += [_parts(profiled), _measured_groups(profiled)]
    last = found[-1]
    notes = (*last.notes, *answers(measurements))
    found[-1] = Table(last.columns, last.rows, last.title, notes)
    return found


def name(point: Point) -> str:
    """``DMHA 32x32 r 4``; r where the grid of keys has one."""
    coarser = f" r {point.stride}" if point.kind in ("DMHA", "SRA") else ""
    return f"{point.kind} {point.height}x{point.width}{coarser}"


def _power(value: float) -> str:
    return f"{value:.2f}"


def _macs(value: float) -> str:
    return units.amount(value, "MAC", 2)


def _points(of: Measurements) -> Table:
    columns = (
        Column("point", "module"),
        Column("kind", "kind", hidden=True),
        Column("height", "H", hidden=True),
        Column("width", "W", hidden=True),
        Column("stride", "r", hidden=True),
        Column("keys", "Ns", units.integer),
        Column("formula", "formula", _macs),
        Column("macs", "counted", _macs),
        Column("bytes", "bytes", units.size),
        Column("median", "median", units.seconds),
        Column("low", "95 % from", units.seconds),
        Column("high", "to", units.seconds),
        Column("coverage", "coverage", hidden=True),
        Column("samples", "samples", units.integer),
        Column("warmup", "warm-up", hidden=True),
        Column("calls", "calls a sample", hidden=True),
        Column("stopped", "ended by", hidden=True),
        Column("mac_rate", "MAC/s", hidden=True),
        Column("mac_fraction", "of product", percent),
        Column("byte_rate", "bytes/s", hidden=True),
        Column("byte_fraction", "of copy", percent),
        Column("peak_bytes", "peak", units.size, hidden=not _has_peaks(of)),
        Column("reason", "reason", hidden=True),
    )
    return Table(columns, tuple(map(_point, of.points)), _title(of), tuple(_notes(of)))


def _has_peaks(of: Measurements) -> bool:
    return any(point.peak_bytes is not None for point in of.points)


def _point(point: Point) -> tuple[Value, ...]:
    timing = point.timing
    sure = timing is not None and timing.coverage >= CERTAIN
    return (
        name(point),
        point.kind,
        point.height,
        point.width,
        point.stride,
        point.keys,
        point.formula,
        point.macs,
        point.bytes,
        timing.median if timing else None,
        timing.low if timing and sure else None,
        timing.high if timing and sure else None,
        timing.coverage if timing else None,
        len(timing.samples) if timing else None,
        len(timing.warmup) if timing else None,
        timing.calls if timing else None,
        timing.stopped if timing else None,
        point.mac_rate,
        point.mac_fraction,
        point.byte_rate,
        point.byte_fraction,
        point.peak_bytes,
        point.reason,
    )


def _title(of: Measurements) -> str:
    threads = of.ceilings.threads if of.ceilings else None
    on = of.device if threads is None or of.device != "cpu" else f"cpu, threads: {threads}"
    return (
        f"Attention alone: C {of.dim}, {of.heads} heads, {of.groups} groups, k {of.kernel}, "
        f"batch {of.batch}, {of.dtype}, {of.attention} attention, {on}"
    )


def _notes(of: Measurements) -> list[str]:
    notes = [f"{name(point)}: {point.reason}." for point in of.points if point.reason]
    if of.interrupted:
        notes.append("Interrupted: the points above are whole, the others were not measured.")
    if of.ceilings:
        product, copied = of.ceilings.macs, of.ceilings.bytes
        notes.append(
            f"Ceilings: {units.amount(product, 'MAC/s', 1)} in a matrix product of side "
            f"{of.ceilings.side}, {units.size(copied)}/s in a copy that moves "
            f"{units.size(of.ceilings.copied)}; above 100 % it was no ceiling (a small "
            "map in a cache, a kernel that the product did not have)."
        )
    timed = [point.timing for point in of.points if point.timing]
    short = sum(timing.stopped != "interval" for timing in timed)
    if short:
        notes.append(
            f"{short} of {len(timed)} points ended before their interval was within 5 % of the "
            "median: a larger budget or a quieter machine narrows them."
        )
    return notes


def _exponents(of: Measurements) -> Table:
    columns = (
        Column("line", "cost over size"),
        Column("kind", "kind", hidden=True),
        Column("over", "size", hidden=True),
        Column("held", "held"),
        Column("points", "points", units.integer),
        Column("time", "time ^", _power),
        Column("low", "95 % from", _power),
        Column("high", "to", _power),
        Column("formula", "formula ^", _power),
        Column("macs", "counted ^", _power),
        Column("bytes", "bytes ^", _power),
    )
    rows = tuple(
        (
            f"{line.kind} over {line.over}",
            line.kind,
            line.over,
            line.held,
            line.points,
            line.time,
            line.low,
            line.high,
            line.formula,
            line.macs,
            line.bytes,
        )
        for line in of.exponents
    )
    note = (
        "Least squares of logarithms over the same points; where a cost is a sum of powers, the "
        "exponent lies between them."
    )
    return Table(columns, rows, "Exponents: time, formula, counted MACs, bytes", (note,))


def _ratios(of: Measurements) -> Table:
    columns = (
        Column("map", "map"),
        Column("time", "time", factor),
        Column("low", "95 % from", factor),
        Column("high", "to", factor),
        Column("formula", "formula", factor),
        Column("macs", "counted", factor),
        Column("bytes", "bytes", factor),
        Column("memory", "memory", factor, hidden=not _has_peaks(of)),
    )
    rows = tuple(
        (f"{r.side}x{r.side}", r.time, r.low, r.high, r.formula, r.macs, r.bytes, r.memory)
        for r in of.ratios
    )
    return Table(columns, rows, "DMHA at r = 1 over global attention, how many times")


def _shown(profiled: Sequence[Point]) -> Point:
    """The point whose parts are shown one by one: DMHA at the largest map, all keys."""
    deformable = [point for point in profiled if point.kind == "DMHA"] or profiled
    return max(deformable, key=lambda point: (point.height, point.keys))


def _parts(profiled: Sequence[Point]) -> Table:
    point = _shown(profiled)
    columns = (
        Column("part", "part"),
        Column("group", "in the formula"),
        Column("share", "time", percent),
        Column("mac_share", "MACs", percent),
        Column("operators", "operators", units.integer),
    )
    said = {"formula": "yes", "left out": "left out", "rest": "no MACs"}
    rows = tuple(
        (share.name, said[share.group], share.share, share.mac_share, share.operators)
        for share in point.shares
    )
    note = "Operators' own time under the profiler, which costs small maps more than large ones."
    return Table(columns, rows, f"{name(point)}: where its time goes", (note,))


def _measured_groups(profiled: Sequence[Point]) -> Table:
    """Every module on the largest map, and DMHA and SRA at every stride."""
    columns = (
        Column("point", "module"),
        Column("formula", "in the formula", percent),
        Column("left_out", "left out", percent),
        Column("rest", "no MACs", percent),
        Column("macs_left_out", "MACs left out", percent),
    )
    sides = {max(point.height for point in profiled)}
    sides |= {p.height for p in profiled if p.kind == "DMHA" and p.stride > 1}
    rows = tuple(
        (
            name(point),
            *(
                sum(share.share for share in point.shares if share.group == group)
                for group in ("formula", "left out", "rest")
            ),
            sum(share.mac_share for share in point.shares if share.group == "left out"),
        )
        for point in profiled
        if point.height in sides
    )
    note = "No MACs: softmax, elementwise operators, copies, views and dispatch."
    return Table(columns, rows, "Shares of the time, by what the formula says of the work", (note,))


# Terms of attention modules as stacked bars.


def stacks(modules: Sequence[ModuleTerms]) -> Bars:
    """One bar for each sort of module in each stage at each resolution: its terms as counted.

    Modules of a stage whose terms are equal share a bar.
    """
    if not modules:
        raise ValueError("there is no module to draw")
    groups: dict[tuple[object, ...], list[ModuleTerms]] = {}
    for module in modules:
        key = (module.model, module.stage, module.resolution, module.terms)
        groups.setdefault(key, []).append(module)
    # The same module at several resolutions is what a reader compares: they stand together.
    places = list(dict.fromkeys((m.model, m.stage, m.kind) for m in modules))
    ordered = sorted(
        groups.values(), key=lambda g: places.index((g[0].model, g[0].stage, g[0].kind))
    )
    bars = [group[0] for group in ordered]
    several = len({bar.model for bar in bars}) > 1
    names = [_name(group, with_model=several) for group in ordered]
    names_of_terms = dict.fromkeys(term.name for bar in bars for term in bar.terms)
    parts = []
    for name in names_of_terms:
        # A term that one formula has and another leaves out is two parts.
        for extra in (False, True):
            amounts = tuple(_counted(bar, name, extra) for bar in bars)
            parts.append(Part(name, amounts, extra))
    # What a formula has comes first, and of that the projections, then the products.
    parts.sort(key=lambda part: (part.extra, _position(part.name, bars)))
    model = "" if several else f"{bars[0].model}: "
    return Bars(
        f"{model}the terms of one attention module, as counted",
        tuple(names),
        tuple(part for part in parts if any(part.amounts)),
        "MAC",
        ("What the published formula leaves out stands last in a bar.",),
    )


def _name(group: Sequence[ModuleTerms], with_model: bool) -> str:
    module = group[0]
    model = f"{module.model}, " if with_model else ""
    kinds = Counter(each.kind for each in group)
    sorts = " + ".join(f"{n} x {kind}" if n > 1 else kind for kind, n in kinds.items())
    return f"{model}stage {module.stage}, {sorts}, {module.resolution}"


def _position(name: str, modules: Sequence[ModuleTerms]) -> int:
    """How far from the front a term stands, where it stands last."""
    found = [[term.name for term in module.terms] for module in modules]
    return max(names.index(name) for names in found if name in names)


def _counted(module: ModuleTerms, name: str, left_out: bool) -> int:
    return sum(
        term.counted
        for term in module.terms
        if term.name == name and (term.formula == 0) is left_out
    )
