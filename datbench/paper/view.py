"""Published tables beside what was computed, and searches for a configuration, as tables."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial

from .. import units
from ..errors import UsageError
from ..render.table import Column, Table, fact_columns
from ..setting import describe, one_of, varying
from .records import (
    VERDICTS,
    Candidate,
    Cell,
    Comparison,
    Heading,
    Line,
    Miss,
    Ratio,
    Search,
    SummaryRow,
    plural,
)

_STYLES = {
    "agrees": "green",
    "differs": "yellow",
    "wrong in print": "magenta",
    "not reproducible": "cyan",
    "published only": "dim",
}


def tables(comparisons: Sequence[Comparison], rules: bool = False) -> list[Table]:
    """Every comparison with its further tables; then scores by rule, and an overview of several.

    Args:
        rules: show what every rule counts for any column of multiply-adds.
    """
    found = [t for c in comparisons for t in (comparison_table(c), *further_tables(c, rules))]
    found += score_tables(comparisons, rules)
    return [*found, overview(comparisons)] if len(comparisons) > 1 else found


def comparison_table(comparison: Comparison) -> Table:
    """The printed rows, with our figure and the verdict beside each computed column."""
    columns: list[Column] = []
    for heading in comparison.headings:
        name, unit = heading.name, heading.unit
        text: Callable[[float], str] = partial(units.prefixed, prefix=unit)
        if heading.quantity == "memory":
            unit, text = "GiB", units.gib
        cells = comparison.column(name)
        computed = any(cell.evidence or cell.failed for cell in cells)
        label = heading.quantity is None
        printed = Column(name, heading.title, value=f"prints.{name}", label=label)
        columns.append(printed if computed or label else replace(printed, when="asked"))
        if computed:
            title = f"computed ({unit})" if unit else "computed"
            columns += [
                Column(f"{name}_computed", title, text, f"cells.{name}.amount", when="widest"),
                Column(
                    *(f"{name}_verdict", "verdict"),
                    value=partial(_verdict_in, name),
                    style=_style,
                    # Where all agree, the title says it.
                    when="wide" if all(c.verdict == "agrees" for c in cells) else "always",
                ),
            ]
    table = f"Table {comparison.table}" if comparison.table.isdigit() else comparison.table
    title = f"{table}: {comparison.title}" if comparison.title else table
    summary = _summary(comparison)
    title = f"{title} ({summary})" if summary else title
    return Table.of(columns, comparison.lines, title, (comparison.source, *_notes(comparison)))


def _verdict_in(name: str, line: Line) -> str | None:
    return _said(line.cells[name]) if name in line.cells else None


def _said(judged: Cell | Ratio) -> str:
    """A verdict with the difference, marked where the table's file expects another verdict."""
    found: str = judged.verdict
    difference = judged.difference if isinstance(judged, Cell) else None
    if difference is not None and found in ("differs", "not reproducible"):
        found += f" {units.signed_percent(difference)}"
    return found if judged.is_expected else f"{found} (unexpected)"


def _style(text: str) -> str:
    if "unexpected" in text:
        return "bold red"
    return next((style for verdict, style in _STYLES.items() if text.startswith(verdict)), "")


def _notes(comparison: Comparison) -> list[str]:
    """The file's notes, then the reasons, equal ones together."""
    titles = {heading.name: heading.title for heading in comparison.headings}
    reasons: dict[str, list[Cell]] = {}
    for cell in comparison.cells():
        if cell.reason:
            reasons.setdefault(f"{cell.verdict}: {cell.reason}.", []).append(cell)
    notes = list(comparison.notes)
    order = ("wrong in print", "not reproducible", "differs", "published only")
    for reason, cells in sorted(reasons.items(), key=lambda pair: order.index(pair[1][0].verdict)):
        columns = list(dict.fromkeys(titles[cell.column] for cell in cells))
        rows = list(dict.fromkeys(cell.row for cell in cells))
        whole = len(cells) > 1 and len(rows) == len(comparison.lines)
        where = "" if whole else f"{'; '.join(rows)}: "
        notes.append(f"{where}{', '.join(columns)} {reason}".replace("..", "."))
    return notes


def _summary(comparison: Comparison) -> str:
    """``16 agree, 2 wrong in print, ...``: the verdicts that some cell has."""
    counts = comparison.verdicts().items()
    return ", ".join(plural(verdict, number) for verdict, number in counts if number)


def further_tables(comparison: Comparison, rules: bool = False) -> list[Table]:
    """What a table has besides its cells: readings of printed memory and FLOPs, stated quotients.

    Args:
        rules: show what every rule counts for any column of multiply-adds.
    """
    found = []
    for heading in comparison.headings:
        cells = comparison.column(heading.name)
        if heading.quantity == "memory" and any(cell.evidence for cell in cells):
            found.append(_memory_table(heading, cells))
    for heading in comparison.headings:
        cells = [cell for cell in comparison.column(heading.name) if cell.readings]
        if cells and (heading.by_rules or rules):
            found.append(_rules_table(heading, cells))
    return [*found, _quotient_table(comparison)] if comparison.ratios else found


def _memory_table(heading: Heading, cells: Sequence[Cell]) -> Table:
    """Every reading in GiB, and in parts of the last row's."""
    rules = max((list(cell.amounts) for cell in cells), key=len)

    def over_last(read: Callable[[Cell], float | None]) -> Callable[[Cell], float | None]:
        last = read(cells[-1])

        def value(cell: Cell) -> float | None:
            here = read(cell)
            return here / last if here and last else None

        return value

    printed = over_last(lambda c: None if c.low is None or c.high is None else c.low + c.high)
    ratio = over_last(lambda cell: cell.amounts.get(rules[1]))
    columns = (
        Column("row", "row"),
        Column("printed", "printed"),
        *(
            Column(
                *(rule, f"{rule} (GiB)", units.gib, f"amounts.{rule}"),
                when="widest" if number else "always",
            )
            for number, rule in enumerate(rules)
        ),
        Column("printed_ratio", "printed / last", units.ratio, printed),
        Column("ratio", f"{rules[1]} / last", units.ratio, ratio),
    )
    return Table.of(columns, cells, f"{heading.title}: readings of the printed value")


def _rules_table(heading: Heading, cells: Sequence[Cell]) -> Table:
    """Totals by several counters' rules, and those that round to the printed figure."""
    unit = heading.unit
    columns = (
        Column("row", "row"),
        Column("printed", "printed"),
        *(
            Column(
                *(rule, f"{rule} ({unit})", partial(units.prefixed, prefix=unit), f"totals.{rule}"),
                when="wide" if number else "always",
            )
            for number, rule in enumerate(cells[0].totals)
        ),
        Column("follows", "the printed value follows", value=_follows),
    )
    note = (
        "The first rule is the column's own. A value follows every rule whose total rounds to it. "
        "mmdet: mmcv's hooks on modules, which see no product of attention and no resizing."
    )
    return Table.of(columns, cells, f"{heading.title}: by whose rules", (note,))


def _follows(cell: Cell) -> str | None:
    return (", ".join(cell.follows) or "none") if cell.readings else None


def _quotient_table(comparison: Comparison) -> Table:
    titles = {heading.name: heading.title for heading in comparison.headings}
    columns = (
        Column(
            "quotient",
            "quotient that the text states",
            value=lambda r: f"{titles[r.column]}: {r.row} over {r.over}",
        ),
        Column("printed", "printed", value=lambda r: f"{r.printed}x"),
        Column("of_prints", "of printed values", "{:.3f}".format),
        Column("computed", "computed", "{:.3f}".format),
        Column("rule", "of", when="wide"),
        Column("verdict", "verdict", value=_said, style=_style),
        Column("reason", "difference", when="wide"),
    )
    return Table.of(columns, comparison.ratios, "Quotients")


def score_tables(comparisons: Sequence[Comparison], rules: bool = False) -> list[Table]:
    """How many printed values of each table every rule rounds to; none where no table asks for it.

    Args:
        rules: of any column of multiply-adds.
    """
    found = [
        (comparison.table, {"cells": score.cells, **score.agreeing})
        for comparison in comparisons
        for heading in comparison.headings
        for score in comparison.scores
        if score.column == heading.name and (heading.by_rules or rules) and score.cells
    ]
    if not found:
        return []
    titles = {name: "printed" if name == "cells" else name for name in found[0][1]}
    note = (
        "Only rows whose configuration is known; a value that several rows repeat counts once. "
        "Which counter a table was made with is inferred from this; no paper says it."
    )
    title = "Printed values that the total by each rule rounds to"
    return [replace(_count_table(found, titles, title), notes=(note,))]


def overview(comparisons: Sequence[Comparison]) -> Table:
    """How many cells of each table have which verdict."""
    counts: list[tuple[str, Mapping[str, int]]] = []
    for comparison in comparisons:
        unexpected = sum(not cell.is_expected for cell in comparison.cells())
        verdicts = {v.replace(" ", "_"): n for v, n in comparison.verdicts().items()}
        counts.append((comparison.table, {**verdicts, "unexpected": unexpected}))
    titles = {v.replace(" ", "_"): v for v in (*VERDICTS, "unexpected")}
    return _count_table(counts, titles, "Cells by verdict")


def _count_table(
    counts: Sequence[tuple[str, Mapping[str, int]]], titles: Mapping[str, str], title: str
) -> Table:
    """Numbers by name for each of the papers' tables, and their sums where there are several."""
    rows = [{"table": table, **{n: some.get(n, 0) for n in titles}} for table, some in counts]
    if len(rows) > 1:
        rows.append({"table": "all", **{n: sum(s.get(n, 0) for _, s in counts) for n in titles}})
    columns = (Column(name, text, units.integer) for name, text in titles.items())
    return Table.of((Column("table", "table"), *columns), rows, title)


def cell_table(comparisons: Sequence[Comparison]) -> Table:
    """One row a cell, in plain numbers; at the end what every rule counts."""
    cells = [cell for comparison in comparisons for cell in comparison.cells()]
    rules = sorted({rule for cell in cells for rule in cell.totals})
    paths = {
        **dict.fromkeys(("table", "row", "column", "quantity", "printed", "low", "high")),
        "computed": "amount",
        **{name: f"made.{name}" for name in ("unit", "rule", "model", "resolution")},
        **dict.fromkeys(("difference", "verdict", "expected", "failed", "reason")),
    }
    columns = (
        *(Column(name, name, value=path) for name, path in paths.items()),
        Column("follows", "follows", value=_follows),
        *(Column(rule, rule, value=f"totals.{rule}") for rule in rules),
    )
    return Table.of(columns, cells)


# Searches for a configuration.


def search_tables(searches: Sequence[Search]) -> list[Table]:
    """For each head, the configurations that miss least over all cells; then those nearest to one
    cell each, whatever they give for the others.
    """
    return [table for one in searches for table in (_best_table(one), _nearest_table(one))]


def _best_table(search: Search) -> Table:
    def missed(i: int) -> Callable[[Candidate], str]:
        return lambda candidate: _missed(candidate.misses[i])

    first = search.best[0]
    columns = [Column(name, name, value=f"choices.{name}") for name in first.choices]
    for i, miss in enumerate(first.misses):
        columns.append(Column(miss.row, f"{miss.row} ({miss.printed})", value=missed(i)))
    title = (
        f"{search.head}: {search.tried:,} configurations, each the same for every row; "
        f"{search.reproducing} of them round to every printed value"
    )
    note = "In units of 1e9, with the difference from the printed value; least in the worst row."
    return Table.of(
        (*columns, Column("worst", "worst", units.percent)), search.best, title, (note,)
    )


def _nearest_table(search: Search) -> Table:
    columns = (
        Column("row", "row", value="miss.row"),
        Column("printed", "printed", value="miss.printed"),
        *_choice_columns(search),
        Column("computed", "computed", value=lambda row: _missed(row["miss"])),
        Column("worst", "worst", units.percent, "candidate.worst"),
    )
    rows = [{"candidate": c, "miss": c.misses[i]} for i, c in enumerate(search.nearest)]
    note = "The nearest of each row, whatever it gives for the others; worst: over all rows."
    return Table.of(columns, rows, f"{search.head}: row by row", (note,))


def miss_table(searches: Sequence[Search]) -> Table:
    """One row for each cell of each configuration that is shown, in plain numbers."""
    columns = (
        *(Column(name, name) for name in ("head", "list", "rank")),
        *_choice_columns(searches[0]),
        *(Column(name, name, value=f"miss.{name}") for name in ("row", "printed")),
        Column("computed", "computed", value="miss.amount"),
        Column("difference", "difference", value="miss.relative"),
        Column("agrees", "agrees", value="miss.agrees"),
    )
    rows = (
        {"head": search.head, "list": name, "rank": rank, "candidate": candidate, "miss": miss}
        for search in searches
        for name in ("best", "nearest")  # over all cells, or to one
        for rank, candidate in enumerate(getattr(search, name), start=1)
        for miss in candidate.misses
    )
    return Table.of(columns, rows)


def _choice_columns(search: Search) -> list[Column]:
    names = search.best[0].choices
    return [Column(name, name, value=f"candidate.choices.{name}") for name in names]


def _missed(miss: Miss) -> str:
    return f"{units.giga(miss.amount)} ({units.signed_percent(miss.relative)})"


# One row a model, for a paper.


def _scaled(scale: float, digits: int, value: float) -> str:
    return f"{value / scale:,.{digits}f}"


SUMMARY: dict[str, tuple[str, str, float, int]] = {
    "params": ("params (M)", "params", 1e6, 1),
    "macs": ("GMACs", "macs", 1e9, 2),
    "memory": ("memory (GiB)", "memory", 2**30, 2),
    "measured-memory": ("measured (GiB)", "measured_memory", 2**30, 2),
    "images/s": ("images/s", "images_per_second", 1, 0),
    "latency": ("latency (ms)", "seconds", 1e-3, 2),
    "top1": ("top-1 (%)", "top1", 1, 1),
}
"""Columns by name: the heading, the field, what it is divided by, and its decimals."""


def summary_columns(asked: Sequence[str]) -> dict[str, int]:
    """The columns that are asked for, as ``macs`` or ``macs:2``, with their decimals.

    Raises:
        UsageError: there is no such column.
    """
    found = {}
    for text in asked:
        name, colon, digits = text.partition(":")
        one_of("column", name, list(SUMMARY))
        if colon and not re.fullmatch("[0-9]", digits):
            raise UsageError(f"column {text!r}: write the decimals behind the colon, as macs:2.")
        found[name] = int(digits) if colon else SUMMARY[name][-1]
    return found


def summary_table(rows: Sequence[SummaryRow], columns: Mapping[str, int] | None = None) -> Table:
    """One row a model; without `columns`, those of which something is known."""
    chosen = columns or {
        name: digits
        for name, (_, field, _, digits) in SUMMARY.items()
        if any(getattr(row, field) is not None for row in rows) and name != "latency"
    }
    # One --attention is of all rows; some models have attention of their own, or none.
    differ = [name for name in varying(rows) if name != "attention"]
    facts = ["resolution", "batch", "dtype", "attention", "features"]
    alike = len({row.name for row in rows}) < len({row.model for row in rows})
    found = [
        Column("name", "model", label=True),
        Column("model", "name", hidden=not alike, label=True),
        *fact_columns(rows, facts, differ),
    ]
    for name, digits in chosen.items():
        heading, field, scale, _ = SUMMARY[name]
        found.append(Column(name, heading, partial(_scaled, scale, digits), field))
    title = f"Models compared: {describe(rows[0], *differ, 'backward', 'device')}"
    return Table.of(found, rows, title, _summary_notes(rows, chosen))


def _summary_notes(rows: Sequence[SummaryRow], chosen: Collection[str]) -> Iterator[str]:
    first = rows[0]
    if "macs" in chosen:
        yield "MACs of one image, by fvcore's rules; papers print them as FLOPs."
    if "memory" in chosen:
        yield f"Memory: simulated peak of {first.memory_mode}, of the whole batch."
    for field, what in (("timed", "images/s and latency"), ("measured", "measured memory")):
        groups: dict[str, list[str]] = {}
        for row in rows:
            if said := getattr(row, field):
                groups.setdefault(said, []).append(row.name)
        for said, names in groups.items():
            whose = f" of {', '.join(names)}" if len(groups) > 1 else ""
            yield f"{what.capitalize()}{whose}: {said}."
    if "top1" in chosen:
        tables = dict.fromkeys(row.printed for row in rows if row.top1 is not None)
        where = f"as printed ({', '.join(tables)})" if tables else "printed of none of these models"
        yield f"Top-1 on ImageNet-1K: {where}."
