"""The paper's formula as tables: modules, their terms, the fit, the worked example, times."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from .. import units
from ..counting.view import COUNTED
from ..render.figure import Bars, FigurePart
from ..render.table import Column, Table, fixed
from ..render.vega import Chart
from ..timing.records import CERTAIN
from ..timing.view import peaks
from ..units import factor, percent
from .records import (
    Claim,
    Coefficient,
    CostRatio,
    Fit,
    FormulaTerm,
    MeasuredModule,
    Measurements,
    ModuleTerms,
    ShareGroup,
)


def tables(modules: Sequence[ModuleTerms], every: bool = False, one: bool = False) -> list[Table]:
    """Formula, what it leaves out and what is counted; then the terms of modules that differ.

    Args:
        every: the terms of every module; default: of deformable ones, where there are some.
        one: a single table, with a row for each term of each module.
    """
    if one:
        return [_every_term(modules)]
    if not any(m.module for m in modules):  # they stand in no model
        title = "Kinds of attention on one map of stage 3, in multiply-adds"
        return [_overview(modules, title, alone=True)]
    title = "Attention modules: published formulas beside what is counted, in multiply-adds"
    detailed = _alike(modules if every else deformable(modules)).items()
    return [_overview(modules, title, alone=False), *(_terms(m, number) for m, number in detailed)]


def deformable(modules: Sequence[ModuleTerms]) -> Sequence[ModuleTerms]:
    """Those with deformable attention; all of them where none has it."""
    return [m for m in modules if m.kind in ("DMHA", "D-DETR")] or modules


def _alike(modules: Sequence[ModuleTerms]) -> dict[ModuleTerms, int]:
    """The first of the modules that are the same in everything but their place, and their number.

    Modules of several stages are never the same.
    """
    groups: dict[object, list[ModuleTerms]] = defaultdict(list)
    for m in modules:
        groups[m.model, m.resolution, m.stage, m.kind, m.sizes, m.terms].append(m)
    return {group[0]: len(group) for group in groups.values()}


def _overview(modules: Sequence[ModuleTerms], title: str, alone: bool) -> Table:
    """One row for modules that are alike; of those that stand alone, the model's name is theirs."""
    alike = _alike(modules)
    several = len({m.model for m in modules}) > 1
    columns = (
        Column("model", "module" if alone else "model", hidden=not several, label=True),
        Column("resolution", "input", hidden=alone, label=True),
        Column("stage", "stage", units.integer, hidden=alone, label=True),
        Column("kind", "attention", hidden=alone, label=True),
        Column("modules", "modules", units.integer, lambda m: alike[m], hidden=alone, when="wide"),
        Column("map", "map", value=lambda m: f"{m.sizes.height}x{m.sizes.width}", when="wide"),
        Column("keys", "Ns", units.integer, "sizes.keys", when="wide"),
        Column("dim", "C", units.integer, "sizes.dim", when="widest"),
        Column("heads", "M", units.integer, "sizes.heads", when="widest"),
        Column("kernel", "k", units.integer, "sizes.kernel", when="widest"),
        Column("stride", "r", units.integer, "sizes.stride", when="wide"),
        Column(
            "holds",
            "identity",
            value=lambda m: "exact" if m.holds else "FAILS",
            style=lambda text: "green" if text == "exact" else "bold red",
        ),
        Column("formula", "formula (M)", units.mega, "by_formula"),
        Column("counted", "counted (M)", units.mega),
        Column(
            "beyond",
            "over formula",
            units.signed_percent,
            lambda m: m.counted / m.by_formula - 1 if m.by_formula else 0.0,
        ),
    )
    formulas = {m.kind: m.formula for m in modules}
    notes = [f"{kind}: {formula}." for kind, formula in formulas.items()]
    notes.append(
        "k: kernel of the offset network, side of a window, points of D-DETR. Each figure is of "
        'one module; "exact": formula + causes = counted, term by term, as integers.'
    )
    return Table.of(columns, alike, title, notes)


def _terms(module: ModuleTerms, number: int) -> Table:
    """The terms of one module, which stands for `number` that are alike."""
    place = ("model", "resolution", "stage", "module")
    columns = (
        *fixed([Column(name, name) for name in place], module),
        Column("term", "term", value="name", label=True),
        Column("expression", "expression", when="wide"),
        Column("formula", "formula", units.integer),
        Column("counted", "counted", units.integer),
        Column("residual", "residual", units.integer),
        Column("cause", "cause of the residual"),
    )
    total = FormulaTerm("total", "", module.by_formula, module.counted, module.counted)
    s = module.sizes
    alike = f" and {number - 1} more like it" if number > 1 else ""
    kernel = f", k={s.kernel}" if s.kernel else ""
    title = (
        f"{module.model} at {module.resolution}, stage {module.stage}, {module.kind} "
        f"({module.module}{alike}): HW={s.height}x{s.width}, Ns={s.keys}, C={s.dim}, "
        f"M={s.heads}{kernel}, r={s.stride}"
    )
    return Table.of(columns, [*module.terms, total], title)


def _every_term(modules: Sequence[ModuleTerms]) -> Table:
    sizes = "height width keys dim heads kernel stride groups".split()
    term = "expression formula predicted counted residual cause".split()
    columns = (
        *(Column(n, n, value=f"module.{n}") for n in "model resolution stage module kind".split()),
        *(Column(name, name, value=f"module.sizes.{name}") for name in sizes),
        Column("term", "term", value="term.name"),
        *(Column(name, name, value=f"term.{name}") for name in term),
    )
    return Table.of(columns, ({"module": m, "term": t} for m in modules for t in m.terms))


def fit_table(fit: Fit) -> Table:
    """The recovered coefficients beside the paper's."""

    def parts(of: Coefficient) -> str:
        return " + ".join(f"{amount} {name}" for name, amount in of.parts.items())

    columns = (
        Column("monomial", "monomial"),
        Column("fitted", "fitted"),
        Column("own", "of Eq. 10's work"),
        Column("paper", "Eq. 10", units.integer),
        Column("parts", "made of", value=parts),
    )
    exact = "exactly" if fit.worst == 0 else f"with a residual of up to {units.integer(fit.worst)}"
    weights = "fvcore" if fit.convention == "fvcore" else "multiply-adds alone"
    return Table.of(
        columns,
        fit.coefficients,
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
        Column("printed", "printed", value=lambda claim: claim.printed or None),
        Column("amount", "counted (M)", units.mega),
        Column("verdict", "verdict", value=lambda claim: claim.verdict or None),
    )
    notes = [f"{claim.what}: {claim.reason}." for claim in claims if claim.reason]
    title = "The worked example of Section 3.2 (H = W = 14, C = 384), recomputed"
    return Table.of(columns, claims, title, notes)


# Times of attention modules, and what they answer in sentences.


def measured_tables(measurements: Measurements) -> list[Table]:
    """The points, then what follows from them, each with its answer in words."""
    found = [_points(measurements)]
    if measurements.exponents:
        found.append(_exponents(measurements))
    if measurements.ratios:
        found.append(_ratios(measurements))
    profiled = [point for point in measurements.points if point.shares]
    if profiled:
        found += [_parts(profiled), _groups(profiled, measurements)]
    return found


def _same_cost(ratios: Sequence[CostRatio]) -> str:
    last = ratios[-1]
    sure = [r for r in ratios if r.low is not None and r.high is not None]
    more = sum(r.low is not None and r.low > 1 for r in sure)
    less = sum(r.high is not None and r.high < 1 for r in sure)
    counts = (("more", more), ("less", less), ("no difference shown", len(sure) - more - less))
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


def _why(found: Measurements) -> Iterator[str]:
    """Why DAT is slower than its MACs say, on the largest map."""
    if not found.left_out:
        return
    of = found.left_out[-1]
    slower = any(r.side == of.side and r.low is not None and r.low > 1 for r in found.ratios)
    asked = "Why is DAT slower than its MACs say?" if slower else "Where does DAT's time go?"
    text = (
        f"{asked} On {of.side}x{of.side} at r = 1 the formula leaves "
        f"out {percent(of.macs)} of the counted MACs, and they take {percent(of.terms)} of the "
        f"time; softmax, elementwise operators and copies, no MACs at all, take "
        f"{percent(of.rest)}. It reaches {percent(of.mac_fraction)} of the matrix product's MAC/s"
    )
    if of.global_mac_fraction is not None and of.global_rest is not None:
        text += (
            f"; global attention {percent(of.global_mac_fraction)}, with "
            f"{percent(of.global_rest)} of its time in no MACs"
        )
    yield f"{text}."


def _points(of: Measurements) -> Table:
    def macs(value: float) -> str:
        return units.amount(value, "MAC", 2)

    def bound(name: str) -> Callable[[MeasuredModule], float | None]:
        def read(point: MeasuredModule) -> float | None:
            sure = point.timing is not None and point.timing.coverage >= CERTAIN
            return getattr(point.timing, name) if sure else None

        return read

    columns = (
        Column("point", "module", value="name"),
        Column("kind", "kind", hidden=True),
        Column("height", "H", hidden=True),
        Column("width", "W", hidden=True),
        Column("stride", "r", hidden=True),
        Column("keys", "Ns", units.integer, when="wide"),
        Column("formula", "formula", macs, when="wide"),
        Column("macs", "counted", macs),
        Column("bytes", "bytes", units.size, when="wide"),
        Column("median", "median", units.seconds, "timing.median"),
        Column("low", "95 % from", units.seconds, bound("low")),
        Column("high", "to", units.seconds, bound("high")),
        Column("coverage", "coverage", value="timing.coverage", hidden=True),
        Column(
            *("samples", "samples", units.integer),
            lambda p: p.timing and len(p.timing.samples),
            when="widest",
        ),
        Column("warmup", "warm-up", value=lambda p: p.timing and len(p.timing.warmup), hidden=True),
        Column("calls", "calls a sample", value="timing.calls", hidden=True),
        Column("stopped", "ended by", value="timing.stopped", hidden=True),
        Column("mac_rate", "MAC/s", hidden=True),
        Column("mac_fraction", "of product", percent, when="wide"),
        Column("byte_rate", "bytes/s", hidden=True),
        Column("byte_fraction", "of copy", percent, when="wide"),
        Column("peak_bytes", "peak", units.size, hidden=not _has_peaks(of), when="wide"),
        Column("reason", "reason", hidden=True),
    )
    threads = of.ceilings.threads if of.ceilings else None
    on = of.device if threads is None or of.device != "cpu" else f"cpu, threads: {threads}"
    title = (
        f"Attention alone: C {of.dim}, {of.heads} heads, {of.groups} groups, k {of.kernel}, "
        f"batch {of.batch}, {of.dtype}, {of.attention} attention, {on}"
    )
    return Table.of(columns, of.points, title, _notes(of))


def _has_peaks(of: Measurements) -> bool:
    return any(point.peak_bytes is not None for point in of.points)


def _notes(of: Measurements) -> list[str]:
    notes = [f"{point.name}: {point.reason}." for point in of.points if point.reason]
    if of.interrupted:
        notes.append("Interrupted: the points above are whole, the others were not measured.")
    if of.ceilings:
        notes.append(
            f"Machine peak: {peaks(of.ceilings)}. Above 100 %: a small map is in a cache, or a "
            "kernel is faster than that of the product."
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
        Column("line", "cost over size", value=lambda line: f"{line.kind} over {line.over}"),
        Column("kind", "kind", hidden=True),
        Column("over", "size", hidden=True),
        Column("held", "held"),
        Column("points", "points", units.integer),
        Column("time", "time ^", units.ratio),
        Column("low", "95 % from", units.ratio),
        Column("high", "to", units.ratio),
        Column("formula", "formula ^", units.ratio),
        Column("macs", "counted ^", units.ratio),
        Column("bytes", "bytes ^", units.ratio, when="widest"),
    )
    note = (
        "Least squares of logarithms over the same points; where a cost is a sum of powers, the "
        "exponent lies between them."
    )
    return Table.of(columns, of.exponents, "Exponents: time, formula, counted MACs, bytes", [note])


def _ratios(of: Measurements) -> Table:
    columns = (
        Column("map", "map", value=lambda r: f"{r.side}x{r.side}"),
        Column("time", "time", factor),
        Column("low", "95 % from", factor),
        Column("high", "to", factor),
        Column("formula", "formula", factor),
        Column("macs", "counted", factor),
        Column("bytes", "bytes", factor),
        Column("memory", "memory", factor, hidden=not _has_peaks(of)),
    )
    title = "DMHA at r = 1 over global attention, how many times"
    return Table.of(columns, of.ratios, title, [_same_cost(of.ratios)])


def _parts(profiled: Sequence[MeasuredModule]) -> Table:
    """The parts of one point: DMHA on the largest map, all keys."""
    deformable = [point for point in profiled if point.kind == "DMHA"] or profiled
    point = max(deformable, key=lambda point: (point.height, point.keys))
    said = {"formula": "yes", "left out": "left out", "rest": "no MACs"}
    columns = (
        Column("part", "part", value="name"),
        Column("group", "in the formula", value=lambda share: said[share.group]),
        Column("share", "time", percent),
        Column("mac_share", "MACs", percent),
        Column("operators", "operators", units.integer),
    )
    note = "Operators' own time under the profiler, which costs small maps more than large ones."
    return Table.of(columns, point.shares, f"{point.name}: where its time goes", [note])


def _groups(profiled: Sequence[MeasuredModule], of: Measurements) -> Table:
    """Every module on the largest map, and DMHA and SRA at every stride."""

    def total(group: ShareGroup, field: str = "share") -> Callable[[MeasuredModule], float]:
        return lambda p: sum(getattr(share, field) for share in p.shares if share.group == group)

    columns = (
        Column("point", "module", value="name"),
        Column("formula", "in the formula", percent, total("formula")),
        Column("left_out", "left out", percent, total("left out")),
        Column("rest", "no MACs", percent, total("rest")),
        Column("macs_left_out", "MACs left out", percent, total("left out", "mac_share")),
    )
    sides = {max(point.height for point in profiled)}
    sides |= {p.height for p in profiled if p.kind == "DMHA" and p.stride > 1}
    return Table.of(
        columns,
        [point for point in profiled if point.height in sides],
        "Shares of the time, by what the formula says of the work",
        [*_why(of), "No MACs: softmax, elementwise operators, copies, views and dispatch."],
    )


# Terms of attention modules as stacked bars.


def stacks(modules: Sequence[ModuleTerms]) -> Bars:
    """One bar for each sort of module in each stage at each resolution: its terms as counted.

    Modules of a stage whose terms are equal share a bar.
    """
    if not modules:
        raise ValueError("there is no module to draw")
    groups: dict[tuple[object, ...], list[ModuleTerms]] = defaultdict(list)
    for module in modules:
        groups[module.model, module.stage, module.resolution, module.terms].append(module)
    # The same module at several resolutions is what a reader compares: they stand together.
    places = list(dict.fromkeys((m.model, m.stage, m.kind) for m in modules))
    ordered = sorted(
        groups.values(), key=lambda g: places.index((g[0].model, g[0].stage, g[0].kind))
    )
    bars = [group[0] for group in ordered]
    several = len({bar.model for bar in bars}) > 1
    names = [_name(group, with_model=several) for group in ordered]
    # A term that one formula has and another leaves out is two parts.
    parts = [
        FigurePart(name, tuple(_counted(bar, name, extra) for bar in bars), extra)
        for name in dict.fromkeys(term.name for bar in bars for term in bar.terms)
        for extra in (False, True)
    ]
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


def charts(modules: Sequence[ModuleTerms]) -> list[Chart]:
    """The terms of each model's modules: of the deformable ones where it has some."""
    named = list(dict.fromkeys(m.model for m in modules))
    bars = {n: stacks(deformable([m for m in modules if m.model == n])) for n in named}
    chart = Chart.of(
        bars,
        "eq10-terms",
        f"Terms of the attention modules of {', '.join(named)} as shares of what was counted.",
        COUNTED,
        title="Terms of an attention module",
        by="fvcore convention, forward",
    )
    return [replace(chart, caption=f"{chart.caption} It is drawn paler.")]
