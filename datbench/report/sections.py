"""The sections of what is computed: models, their cost and terms, the papers' tables."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from ..cells import Comparison
from ..reports import COMPUTED, Delta, Source, place_of
from ..results import document
from ..terms import ModuleTerms
from . import charts, comparisons, counts
from .document import Entry, Missing, Section
from .rows import Rows
from .stacks import stacks
from .table import Column, Table
from .terms import DEFORMABLE, modules_csv, modules_table
from .vega import Chart, of_bars


def against(deltas: Sequence[Delta], baseline: str) -> Section:
    """What changed, and what is on one side only."""
    from .deltas import changed, delta_table, sentence

    shown = delta_table(changed(deltas), f"Changes against {baseline}")
    entry = Entry("changes", shown, delta_table(deltas, ""))
    return Section("changes", "Against the baseline", sentence(deltas, baseline), (), (entry,))


def models(rows: Rows) -> Section | None:
    """What was counted, and in which modules."""
    found = rows.of("flops")
    if not found:
        return None
    groups: dict[tuple[str, str], list[Any]] = {}
    for row in found:  # one heading cannot stand over MACs and FLOPs
        groups.setdefault((row.convention, row.unit), []).append(row)
    entries = [
        Entry(f"models{f'-{n}' if n else ''}", table, table)
        for n, group in enumerate(groups.values())
        for table in [counts.many_models(group)]
    ]
    icicle = charts.icicle_of_counts(next(iter(groups.values())))
    return Section(
        "models",
        "Models",
        "A multiply-add is one MAC and two FLOPs. Papers of this field print MACs and call them "
        "FLOPs; here every heading says which.",
        (icicle,) if icicle else (),
        tuple(entries),
    )


def accuracy(rows: Rows) -> Section | None:
    """Published accuracy against cost, and against speed where models were timed."""
    timed = rows.places("throughput")
    drawn = tuple(_apart(charts.accuracy(rows.of("table"), timed)))
    if not drawn:
        return None
    missing = []
    if not any(chart.key.startswith("accuracy-throughput") for chart in drawn):
        missing.append(
            Missing(
                "accuracy against throughput: no timed model has a published top-1",
                "datbench throughput dat_t dat_s dat_b --batch 64 --device cuda --out times.json",
            )
        )
    return Section(
        "accuracy",
        "Accuracy against cost",
        "Accuracy is the papers'. The cost is computed where the model could be built, and the "
        "papers' too where it could not; every point says which.",
        drawn,
        missing=tuple(missing),
    )


def _apart(drawn: Iterable[Chart]) -> Iterator[Chart]:
    """Charts of several machines or settings under a heading each."""
    every = list(drawn)
    titles = [chart.title for chart in every]
    for place, title in enumerate(titles):
        several = titles.count(title)
        number = titles[: place + 1].count(title)
        named = f"{title}, {number} of {several}" if several > 1 else title
        yield replace(every[place], title=named)


def sizes(rows: Rows) -> Section | None:
    """Cost over sizes of the input."""
    found = rows.of("flops", "resolutions")
    chart = charts.resolutions(found)
    if chart is None:
        return None
    plain = counts.many_models(found)
    entry = Entry("cost-resolution", chart.table, plain)
    return Section(
        "resolution",
        "Cost against resolution",
        "What the same models cost at other sizes than the print's.",
        (chart,),
        (entry,),
    )


def terms(rows: Rows) -> Section | None:
    """The published formulas beside what is counted."""
    modules: list[ModuleTerms] = rows.of("eq10")
    if not modules:
        return None
    named = list(dict.fromkeys(m.model for m in modules))
    bars = {}
    for name in named:
        own = [m for m in modules if m.model == name]
        bars[name] = stacks([m for m in own if m.kind in DEFORMABLE] or own)
    chart = of_bars(
        bars,
        "eq10-terms",
        "Terms of an attention module",
        "model",
        f"Terms of the attention modules of {', '.join(named)} as shares of what was counted.",
        charts.COUNTED,
        "fvcore convention, forward",
    )
    entry = Entry("attention", modules_table(modules), modules_csv(modules))
    return Section(
        "attention",
        "What Eq. 10 says, and what runs",
        "Every attention module's count is the published formula plus named causes, as integers.",
        (chart,),
        (entry,),
    )


_HOME = frozenset(
    {
        "flops",
        "figure",
        "eq10",
        "memory",
        "memory-measured",
        "throughput",
        "pytest-benchmark",
        "profile",
        "table",
    }
)
"""Kinds that have a section of their own."""


def others(rows: Rows) -> Section | None:
    """Whatever else the files hold, as the commands that wrote it show it."""
    from .results import tables_of

    entries: list[Entry] = []
    for source in rows.sources:
        part = source.part
        if part.kind in _HOME or not part.rows:
            continue
        content = document(part.kind, part.rows, part.environment)
        first, *further = tables_of(content, part.source)
        machines = tables_of(content, part.source, one=True)[0]
        key = f"{part.kind}-{len(entries) + 1}"
        entries.append(Entry(key, first, machines, tuple(further)))
    if not entries:
        return None
    lead = "As the commands that wrote these results show them."
    return Section("results", "Other results", lead, (), tuple(entries))


def tables(rows: Rows) -> Section | None:
    """The papers' tables with their verdicts, an overview first."""
    compared: list[Comparison] = rows.of("table")
    if not compared:
        return None
    overview = comparisons.overview(compared)
    entries = [Entry("overview", overview, overview)] if len(compared) > 1 else []
    entries += [
        Entry(
            f"table-{comparison.table}",
            comparisons.for_people(comparison),
            comparisons.for_machines([comparison]),
            tuple(comparisons.further(comparison)),
        )
        for comparison in compared
    ]
    return Section(
        "tables",
        "The papers' tables",
        _tables_lead(compared),
        (),
        tuple(entries),
    )


def _tables_lead(compared: Sequence[Comparison]) -> str:
    cells = [cell for comparison in compared for cell in comparison.cells()]
    others = [cell for cell in cells if not cell.evidence]
    said = (
        f"{len(cells) - len(others)} of {len(cells)} printed figures stand beside a computed one, "
        "with whether it rounds to the print; where it does not, a note says why."
    )
    if not others:
        return said
    accuracies = sum(cell.quantity == "accuracy" for cell in others)
    return f"{said} The other {len(others)} have none; {accuracies} of them are accuracies."


def environments(sources: Sequence[Source]) -> Section:
    """Where every part is from."""
    columns = (
        Column("what", "what"),
        Column("rows", "rows", str),
        Column("source", "source"),
        Column("where", "counted or measured on"),
    )
    lines = tuple(
        (
            f"{part.kind}, {part.role}" if part.role else part.kind,
            len(part.rows),
            part.source,
            place_of(part.environment),
        )
        for part in (source.part for source in sources)
    )
    table = Table(columns, lines)
    return Section(
        "sources",
        "Where the figures are from",
        f"Parts that are {COMPUTED} were counted or simulated and are the same on every machine.",
        (),
        (Entry("sources", table, table),),
    )
