"""One set of rows as a report: what markdown, CSV, LaTeX and the page all take."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from .. import units
from ..compare import view as compare_view
from ..counting import view
from ..eq10.records import ModuleTerms
from ..eq10.view import charts as eq10_charts
from ..machine import place_of
from ..memory import view as memory_view
from ..paper import view as paper_view
from ..paper.accuracy import charts as accuracy_charts
from ..paper.records import VERDICTS, Comparison, plural
from ..profile import view as profile_view
from ..records import ENVIRONMENT, document, parse
from ..render.table import Column, Table
from ..render.text import markdown_words, to_csv, to_latex, to_markdown
from ..render.vega import Chart
from ..timing import view as timing_view
from ..units import printable
from . import kinds
from .deltas import changed, delta_table, sentence
from .records import COMPUTED, Content, Delta, Entry, Fact, Missing, Rows, Section, Source, naming

# The sections of what is computed: models, their cost and terms, the papers' tables.


def _entry(
    key: str, kind: str, rows: Sequence[Any], measured_in: Sequence[dict[str, Any]] = ()
) -> Entry:
    """Rows as the command shows them, and as its CSV has them; each with its machine if told."""
    first, *further = kinds.placed(kind, rows, measured_in)
    machines = kinds.placed(kind, rows, measured_in, one=True)[0]
    return Entry(key, first, machines, tuple(further))


def against(deltas: Sequence[Delta], baseline: str) -> Section:
    """What changed, and what is on one side only."""
    shown = delta_table(changed(deltas), f"Changes against {baseline}")
    entry = Entry("changes", shown, delta_table(deltas, ""))
    return Section("changes", "Against the baseline", sentence(deltas, baseline), (), (entry,))


def models(rows: Rows) -> Section | None:
    """What was counted, and in which modules."""
    found = rows.of("flops")
    if not found:
        return None
    entries = tuple(
        Entry(f"models{f'-{n}' if n else ''}", table, table)
        for n, table in enumerate(view.tables(found, one=True))
    )
    icicle = view.icicle_chart(view.by_convention(found)[0])
    lead = (
        "A multiply-add is one MAC and two FLOPs. Papers of this field print MACs and call them "
        "FLOPs; here every heading says which."
    )
    return Section("models", "Models", lead, (icicle,) if icicle else (), entries)


def accuracy(rows: Rows) -> Section | None:
    """Published accuracy against cost, and against speed where models were timed."""
    timed = rows.places("throughput")
    drawn = tuple(_apart(accuracy_charts(rows.of("table"), timed)))
    if not drawn:
        return None
    missing: tuple[Missing, ...] = ()
    if not any(chart.key.startswith("accuracy-throughput") for chart in drawn):
        what = "accuracy against throughput: no timed model has a published top-1"
        missing = (Missing(what, _TIMING),)
    lead = (
        "Accuracy is the papers'. The cost is computed where the model could be built, and the "
        "papers' too where it could not; every point says which."
    )
    return Section("accuracy", "Accuracy against cost", lead, drawn, missing=missing)


_TIMING = "datbench throughput dat_t dat_s dat_b --batch 64 --device cuda --out times.json"


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
    chart = view.cost_chart(found)
    if chart is None:
        return None
    plain = view.many_models(found)
    entry = Entry("cost-resolution", chart.table, plain)
    lead = "What the same models cost at other sizes than the printed one."
    return Section("resolution", "Cost against resolution", lead, (chart,), (entry,))


def terms(rows: Rows) -> Section | None:
    """The published formulas beside what is counted."""
    modules: list[ModuleTerms] = rows.of("eq10")
    if not modules:
        return None
    entry = replace(_entry("attention", "eq10", modules), further=())
    title = "What Eq. 10 says, and what runs"
    lead = "Every attention module's count is the published formula plus named causes, as integers."
    return Section("attention", title, lead, tuple(eq10_charts(modules)), (entry,))


_HOME = frozenset(
    "flops figure eq10 memory memory-measured throughput pytest-benchmark profile table".split()
)
"""Kinds that have a section of their own."""


def others(rows: Rows) -> Section | None:
    """Whatever else the files hold, as the commands that wrote it show it."""
    entries: list[Entry] = []
    drawn: list[Chart] = []
    for where, compared in rows.places("compare"):
        for chart in compare_view.charts(compared, where):
            drawn.append(replace(chart, key=f"compare-{len(drawn) + 1}"))
    shown = [s.part for s in rows.sources if s.part.kind not in _HOME and s.part.rows]
    places = [row.get(ENVIRONMENT) or part.environment for part in shown for row in part.rows]
    for part in shown:
        results = parse(document(part.kind, part.rows, part.environment), part.source)
        first, *further = kinds.tables_of(results, others=places)
        machines = kinds.tables_of(results, one=True, others=places)[0]
        key = f"{part.kind}-{len(entries) + 1}"
        entries.append(Entry(key, first, machines, tuple(further)))
    if not entries:
        return None
    lead = "As the commands that wrote these results show them."
    return Section("results", "Other results", lead, tuple(drawn), tuple(entries))


def tables(rows: Rows) -> Section | None:
    """The papers' tables with their verdicts, an overview first."""
    compared: list[Comparison] = rows.of("table")
    if not compared:
        return None
    overview = paper_view.overview(compared)
    entries = [Entry("overview", overview, overview)] if len(compared) > 1 else []
    entries += [_entry(f"table-{one.table}", "table", [one]) for one in compared]
    lead = _tables_lead(compared)
    return Section("tables", "The papers' tables", lead, (), tuple(entries))


def _tables_lead(compared: Sequence[Comparison]) -> str:
    cells = [cell for comparison in compared for cell in comparison.cells()]
    others = [cell for cell in cells if not cell.evidence]
    said = (
        f"{len(cells) - len(others)} of {len(cells)} printed values are compared with a computed "
        "one: does it round to the printed value? Where it does not, a note says why."
    )
    if not others:
        return said
    accuracies = sum(cell.quantity == "accuracy" for cell in others)
    return f"{said} The other {len(others)} have none; {accuracies} of them are accuracies."


def environments(sources: Sequence[Source]) -> Section:
    """Where every part is from."""
    columns = (
        Column("what", "what", value=lambda s: ", ".join(filter(None, (s.part.kind, s.part.role)))),
        Column("rows", "rows", str, lambda s: len(s.part.rows)),
        Column("source", "source", value="part.source"),
        Column("where", "counted or measured on", value=lambda s: place_of(s.part.environment)),
    )
    table = Table.of(columns, sources)
    lead = f"Parts that are {COMPUTED} were counted or simulated and are the same on every machine."
    entries = (Entry("sources", table, table),)
    return Section("sources", "Where the figures are from", lead, (), entries)


# The sections of memory and time, which are measured too where there are results.


_TWO_MOMENTS = (
    "The table has each category's own amount over the run, the chart what is alive at one moment, "
    "the peak: what is made after it is in the table alone, and the columns do not add up to it."
)


def memory(rows: Rows) -> Section | None:
    """The simulated ledger, and what a GPU was seen to hold."""
    found = rows.of("memory")
    entries = []
    if found:
        table = memory_view.many_models(found)
        # The notes speak of what `datbench memory` shows below.
        notes = tuple(n for n in table.notes if "below" not in n)
        table = replace(table, notes=(*notes, _TWO_MOMENTS))
        entries.append(Entry("memory", table, table))
    kind = "memory-measured"
    missing: tuple[Missing, ...] = ()
    if measured := rows.of(kind):
        entries.append(_entry(kind, kind, measured, rows.environments(kind)))
    else:
        command = "datbench memory measure dat_t --batch 64 --device cuda --out memory.json"
        missing = (Missing("memory measured on a GPU", command),)
    if not entries:
        return None
    lead = "Every storage's birth and death is simulated; nothing is allocated for it."
    charts = tuple(memory_view.charts(found, rows.of("figure")))
    return Section("memory", "Memory", lead, charts, tuple(entries), missing)


def time(rows: Rows) -> Section:
    """Throughput and profiles, and the commands that measure what is not there."""
    drawn: list[Chart] = []
    entries: list[Entry] = []
    missing: list[Missing] = []
    places = rows.places("throughput")
    for number, (where, found) in enumerate(places, 1):
        drawn += [_at(chart, number, places, where) for chart in timing_view.charts(found, where)]
        entry = _entry(f"throughput-{number}", "throughput", found)
        first, *others = (
            replace(table, title=_title(table.title, places, where))
            for table in (entry.people, *entry.further)
        )
        entries.append(replace(entry, people=first, further=tuple(others)))
    if len(places) > 1:
        table = timing_view.by_machine(places)
        entries.insert(0, Entry("machines", table, table))
    if not drawn:
        missing.append(Missing("throughput", _TIMING))
    for number, (where, found) in enumerate(rows.places("pytest-benchmark"), 1):
        table = _benchmarks_table(found, where)
        entries.append(Entry(f"pytest-benchmark-{number}", table, table))
    places = rows.places("profile")
    profiled = [(where, row) for where, found in places for row in found]
    for number, (where, row) in enumerate(profiled, 1):
        charts = profile_view.charts([row], where)
        drawn += [_at(chart, number, places, where) for chart in charts]
        alone = not any(chart.key == "roofline" for chart in charts)
        entries.append(_profile(row, number, places, where, alone))
    if not profiled:
        command = "datbench profile dat_t --batch 8 --out profile.json"
        missing.append(Missing("roofline, and time by module", command))
    lead = (
        "Times belong to the machine that they were measured on; each plot shows one machine."
        if entries
        else "Nothing was timed. What is above was counted, simulated or printed by the papers, "
        "which no machine changes."
    )
    return Section("time", "Time", lead, tuple(drawn), tuple(entries), tuple(missing))


def _title(title: str, places: Sequence[Any], where: str) -> str:
    """A title, and the machine where there are several: no two headings are the same."""
    return f"{title}; on {where}" if title and len(places) > 1 else title


def _at(chart: Chart, number: int, places: Sequence[Any], where: str) -> Chart:
    """The chart under a key and a title of its own."""
    title = _title(chart.title, places, where)
    return replace(chart, key=f"{chart.key}-{number}", title=title)


def _profile(row: Any, number: int, places: Sequence[Any], where: str, alone: bool) -> Entry:
    """A profile's tables, each under the model's name.

    Args:
        alone: no chart says the answer in words.
    """
    model = f"{row.model} at {row.setting.resolution}"
    first, *others = profile_view.tables(row, ["stage", "operator"], None, 20)
    answer = replace(
        first,
        title=_title(f"{model}: the operators' time", places, where),
        notes=(first.title, *first.notes) if alone else first.notes,
    )
    named = [
        replace(table, title=_title(f"{model}: time by {by}", places, where))
        for table, by in zip(others, ("stage", "operator"), strict=True)
    ]
    machines = profile_view.parts_table(row, "module")
    return Entry(f"profile-{number}", answer, machines, tuple(named))


def _benchmarks_table(rows: Sequence[Any], where: str) -> Table:
    """pytest-benchmark's rows, in its order."""
    columns = (
        Column("name", "benchmark"),
        Column("median", "median", units.seconds),
        Column("minimum", "least", units.seconds),
        Column("maximum", "most", units.seconds),
        Column("stddev", "standard deviation", units.seconds),
        Column("rounds", "rounds", units.integer),
    )
    return Table.of(columns, rows, "Measured by pytest-benchmark", [f"Measured on {where}."])


def content(
    sources: Sequence[Source],
    title: str,
    failed: Sequence[Missing] = (),
    deltas: Sequence[Delta] | None = None,
    baseline: str = "",
    made: str = "",
) -> Content:
    """The report of some rows.

    Args:
        failed: what could not be computed, and why.
        made: when, where, by which command and versions.
    """
    rows = Rows(sources)
    chapters: list[Section] = []
    if deltas is not None:
        chapters.append(against(deltas, baseline))
    for build in (models, accuracy, sizes, terms, memory, time, others):
        section = build(rows)
        chapters += [section] if section is not None else []
    if failed:
        chapters.append(Section("failed", "What could not be computed", "", missing=tuple(failed)))
    chapters += [s for s in (tables(rows), environments(sources)) if s is not None]
    # Two tables of one name, of a former report for example, are two files and two anchors.
    apart = naming("{}-{}")
    chapters = [
        replace(each, entries=tuple(replace(e, key=apart(e.key)) for e in each.entries))
        for each in chapters
    ]
    compared: list[Comparison] = rows.of("table")
    cells = [cell for comparison in compared for cell in comparison.cells()]
    counted = [(str(v), sum(cell.verdict == v for cell in cells)) for v in VERDICTS]
    verdicts = tuple((verdict, number) for verdict, number in counted if number)
    unexpected = sum(not cell.is_expected for cell in cells)
    notes = (*_left_out(rows), *_warnings(rows))
    changes = None if deltas is None else tuple(deltas)
    return Content(
        *(title, tuple(_facts(rows)), verdicts, unexpected, tuple(chapters), changes, baseline),
        *(notes, made, tuple(failed)),
    )


def _facts(rows: Rows) -> Iterator[Fact]:
    compared: list[Comparison] = rows.of("table")
    cells = [cell for comparison in compared for cell in comparison.cells() if cell.evidence]
    if cells:
        agree = sum(cell.verdict == "agrees" for cell in cells)
        yield Fact(f"{agree} of {len(cells)}", "computed cells of the tables agree with the paper")
    models = rows.of("flops")
    if models:
        names = {row.model for row in models}
        yield Fact(str(len(names)), "models counted" if len(names) > 1 else "model counted")
    modules: list[ModuleTerms] = rows.of("eq10")
    if modules:
        holding = sum(module.holds for module in modules)
        yield Fact(f"{holding} of {len(modules)}", "attention modules: formula + causes = counted")
    timed = rows.places("throughput") + rows.places("profile")
    number = sum(len(found) for _, found in timed)
    if number:
        places = len({place for place, _ in timed})
        said = f"timed runs, on {places} {'machines' if places > 1 else 'machine'}"
        yield Fact(str(number), said)
    else:
        given = shlex.join(dict.fromkeys(row.model for row in models)) or "dat_t"
        command = f"datbench throughput {given} --batch 64 --device cuda --out times.json"
        yield Fact("0", "timed runs: see Time for the command", command)


def _left_out(rows: Rows) -> Iterator[str]:
    """What is not of every size that was counted here."""
    counted = _sizes(rows, "flops")
    for kind, what in (("memory", "Memory was simulated"), ("eq10", "Terms of attention are")):
        there = _sizes(rows, kind)
        groups: dict[tuple[str, str], list[str]] = {}
        for model, sizes in counted.items():
            left = [size for size in sizes if size not in there.get(model, sizes)]
            if left:
                group = (", ".join(there[model]), ", ".join(left))
                groups.setdefault(group, []).append(model)
        for (sizes_there, left_out), models in groups.items():
            yield f"{what} at {sizes_there} and not at {left_out}: {', '.join(models)}."


def _sizes(rows: Rows, kind: str) -> dict[str, list[str]]:
    """By model, the sizes of what was computed here."""
    found: dict[str, list[str]] = {}
    for source in rows.sources:
        if source.part.kind == kind and source.part.source == COMPUTED and not source.part.role:
            for value in source.values:
                size = value.resolution if kind == "eq10" else value.setting.resolution
                sizes = found.setdefault(value.model, [])
                sizes += [str(size)] if str(size) not in sizes else []
    return found


def _warnings(rows: Rows) -> Iterator[str]:
    for kind in ("throughput", "profile", "memory-measured", "compare"):
        places = rows.places(kind)
        if len(places) > 1:
            yield (
                f"Rows of {kind} were measured in {len(places)} environments, which stand apart "
                f"and are not to be compared: {'; '.join(place for place, _ in places)}."
            )


# A report as files: markdown, compact markdown, CSV, LaTeX.


ROWS = 30
"""Rows of a table in compact markdown."""


def markdown(content: Content, images: Mapping[str, str]) -> str:
    """The whole report.

    Args:
        images: of charts, by their key: paths from where the file will be.
    """
    parts = [f"# {_text(content.title)}", _text(content.made), _summary(content)]
    parts += [*map(_text, content.notes), *(_section(each, images) for each in content.sections)]
    return "\n\n".join(part.strip("\n") for part in parts if part) + "\n"


def _section(section: Section, images: Mapping[str, str]) -> str:
    parts = [f"## {section.title}", _text(section.lead)]
    for chart in section.charts:
        if chart.key in images:
            parts.append(f"![{_alt(chart.title)}]({images[chart.key]})")
            where = f"{chart.caption} {chart.where[:1].upper()}{chart.where[1:]}."
            if len(chart.choices) > 1:
                where += f" Drawn for {chart.choices[0]}; the page has a menu of all."
            parts.append(f"*{_text(chart.title)}.* {_text(where)}")
    for entry in section.entries:
        parts.append(_tables([entry.people, *entry.further]))
    for missing in section.missing:
        command = f": {_code(missing.command)}" if missing.command else ""
        parts.append(f"- Not here: {_text(missing.what)}{command}")
    return "\n\n".join(part.strip("\n") for part in parts if part)


def _summary(content: Content, alone: bool = False) -> str:
    """The counts as a list; `alone` where no section below says which command gives one."""
    lines = []
    for fact in content.facts:
        label = _text(fact.label)
        if alone and fact.command:
            label = f"{_text(fact.label.partition(':')[0])}: {_code(fact.command)} gives some"
        lines.append(f"- **{_text(fact.figure)}** {label}")
    if content.verdicts:
        cells = ", ".join(plural(verdict, number) for verdict, number in content.verdicts)
        lines.append(f"- Cells by verdict: {cells}; {content.unexpected} unexpected")
    return "\n".join(lines)


def compact(content: Content) -> str:
    """For a job's summary or a comment: the counts, what failed or changed, and the models."""
    parts = [f"### {_text(content.title)}", _summary(content, alone=True)]
    if content.failed:
        failed = [f"- Could not be computed: {_text(missing.what)}" for missing in content.failed]
        parts.append("\n".join(failed))
    if content.deltas is not None:
        parts.append(_text(sentence(content.deltas, content.baseline)))
        listed = [delta for delta in changed(content.deltas) if delta.now is not None]
        if listed:
            parts.append(_tables([_short(delta_table(listed, ""))]))
    parts += [f"- {_text(note)}" for note in content.notes]
    wanted = [
        e.people for e in content.entries() if e.key in ("models", "overview", "throughput-1")
    ]
    for table in wanted:
        title = table.title or "Models"
        body = _tables([_short(replace(table, title="", notes=()))])
        parts.append(f"<details><summary>{_text(title)}</summary>\n\n{body.strip()}\n\n</details>")
    return "\n\n".join(part.strip("\n") for part in parts if part) + "\n"


def _short(table: Table) -> Table:
    left = len(table.rows) - ROWS
    if left <= 0:
        return table
    return replace(table, rows=table.rows[:ROWS], notes=(*table.notes, f"{left} more rows."))


def _tables(tables: Sequence[Table]) -> str:
    return to_markdown(tables).replace("<", "&lt;")


def _text(text: str) -> str:
    """Words that no markdown renderer takes for HTML, or for anything but words and code."""
    return markdown_words(text.replace("&", "&amp;").replace("<", "&lt;"))


def _code(command: str) -> str:
    return f"`{printable(command).replace('`', '')}`"


def _alt(text: str) -> str:
    return _text(text).replace("[", "(").replace("]", ")")


def csv_files(content: Content) -> dict[str, str]:
    """One file a table, by its name."""
    return {f"{entry.key}.csv": to_csv([entry.machines]) for entry in content.entries()}


def latex_files(content: Content) -> dict[str, str]:
    """One file a table, with those that belong to it; they need the booktabs package."""
    return {
        f"{entry.key}.tex": to_latex([entry.people, *entry.further], entry.key)
        for entry in content.entries()
    }
