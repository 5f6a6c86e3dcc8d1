"""The sections of memory and time, which are measured too where there are results."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from .. import units
from . import charts
from .document import Entry, Missing, Section
from .rows import Rows
from .table import Column, Table
from .vega import Chart, of_figure

_TWO_MOMENTS = (
    "The table has each category's own amount over the run, the chart what is alive at one moment, "
    "the peak: what is made after it is in the table alone, and the columns do not add up to it."
)

_ROOFLINE = "time under the profiler, MACs by fvcore, bytes of tensors"


def memory(rows: Rows) -> Section | None:
    """The simulated ledger, and what a GPU was seen to hold."""
    from . import gpu_memory, memory

    found = rows.of("memory")
    drawn = [charts.ledgers(found), charts.timelines(rows.of("figure"))]
    entries = []
    if found:
        table = memory.many_models(found)
        # The notes speak of what `datbench memory` shows below.
        notes = tuple(n for n in table.notes if "below" not in n)
        table = replace(table, notes=(*notes, _TWO_MOMENTS))
        entries.append(Entry("memory", table, table))
    measured = rows.of("memory-measured")
    missing = []
    if measured:
        tables = gpu_memory.tables(measured)
        entries.append(
            Entry("memory-measured", tables[0], gpu_memory.many(measured), tuple(tables[1:]))
        )
    else:
        missing.append(
            Missing(
                "memory measured on a GPU",
                "datbench memory dat_t --batch 64 --device cuda --out memory.json",
            )
        )
    if not entries:
        return None
    return Section(
        "memory",
        "Memory",
        "Every storage's birth and death is simulated; nothing is allocated for it.",
        tuple(chart for chart in drawn if chart is not None),
        tuple(entries),
        tuple(missing),
    )


def time(rows: Rows) -> Section:
    """Throughput and profiles, and the commands that measure what is not there."""
    from . import profile, throughput
    from .roofline import roofline, setting_line

    drawn: list[Chart | None] = []
    entries: list[Entry] = []
    missing: list[Missing] = []
    places = rows.places("throughput")
    for number, (where, found) in enumerate(places, 1):
        drawn.append(_at(charts.throughput(found, number, where), places, where))
        first, *others = throughput.tables(found)
        machines = throughput.many(found)
        shown = [
            replace(table, title=_title(table.title, places, where)) for table in (first, *others)
        ]
        entries.append(Entry(f"throughput-{number}", shown[0], machines, tuple(shown[1:])))
    if not drawn:
        missing.append(
            Missing(
                "throughput",
                "datbench throughput dat_t dat_s dat_b --batch 64 --device cuda --out times.json",
            )
        )
    for number, (where, found) in enumerate(rows.places("pytest-benchmark"), 1):
        table = _benchmarks_table(found, where)
        entries.append(Entry(f"pytest-benchmark-{number}", table, table))
    number = 0
    profiled = rows.places("profile")
    for where, found in profiled:
        for row in found:
            number += 1
            figure = roofline(row, profile.parts(row, "operator"), "operators")
            if figure is not None:
                by = f"{_ROOFLINE}; {setting_line(row)}"
                told = profile.sentence(row)  # the figure's own note has the setting
                said = f"{figure.title}: what each operator reaches of what the machine can."
                chart = of_figure(figure, f"roofline-{number}", said, where, told, by)
                drawn.append(_at(chart, profiled, where))
            drawn.append(_at(charts.icicle_of_times(row, number, where), profiled, where))
            entries.append(_profile(row, number, profiled, where, alone=figure is None))
    if not number:
        missing.append(
            Missing(
                "roofline, and time by module",
                "datbench profile dat_t --batch 8 --out profile.json",
            )
        )
    charts_ = tuple(chart for chart in drawn if chart is not None)
    lead = (
        "Times belong to the machine that they were measured on; each plot shows one machine."
        if entries
        else "Nothing was timed. What is above was counted, simulated or printed by the papers, "
        "which no machine changes."
    )
    return Section("time", "Time", lead, charts_, tuple(entries), tuple(missing))


def _title(title: str, places: Sequence[Any], where: str) -> str:
    """A title, and the machine where there are several: no two headings are the same."""
    return f"{title}; on {where}" if title and len(places) > 1 else title


def _at(chart: Chart | None, places: Sequence[Any], where: str) -> Chart | None:
    return None if chart is None else replace(chart, title=_title(chart.title, places, where))


def _profile(row: Any, number: int, places: Sequence[Any], where: str, alone: bool) -> Entry:
    """A profile's tables, each under the model's name.

    Args:
        alone: no chart says the answer in words.
    """
    from . import profile

    model = f"{row.model} at {row.setting.resolution}"
    first, *others = profile.tables(row, ["stage", "operator"], None, 20)
    answer = replace(
        first,
        title=_title(f"{model}: the operators' time", places, where),
        notes=(first.title, *first.notes) if alone else first.notes,
    )
    named = [
        replace(table, title=_title(f"{model}: time by {by}", places, where))
        for table, by in zip(others, ("stage", "operator"), strict=True)
    ]
    machines = profile.parts_table(row, "module", None, len(row.modules))
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
    lines = tuple(tuple(getattr(row, column.name) for column in columns) for row in rows)
    return Table(columns, lines, "Measured by pytest-benchmark", (f"Measured on {where}.",))
