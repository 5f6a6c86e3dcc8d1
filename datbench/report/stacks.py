"""Terms of attention modules as stacked bars."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from .. import units
from ..figures import Bars, Part
from ..terms import ModuleTerms


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


def total_of(bars: Bars, bar: int) -> str:
    """A bar's total in words, and how much of it no formula has."""
    amount = bars.totals[bar]
    total = units.size(amount) if bars.unit == "byte" else f"{units.amount(amount, bars.unit)}s"
    extra = sum(part.amounts[bar] for part in bars.parts if part.extra)
    return f"{total}, {units.share(extra, amount)} left out" if extra else total


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
