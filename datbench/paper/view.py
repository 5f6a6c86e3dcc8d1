"""Published tables beside what was computed, as tables for people and as one for machines."""

from __future__ import annotations

from collections.abc import Sequence

from .. import units
from ..render.table import Column, Table, Value
from ..units import giga
from .records import VERDICTS, Candidate, Cell, Comparison, Heading, Miss, Search

# What several counters' rules give for printed FLOPs, and which of them the prints follow.


def by_rule(comparison: Comparison, heading: Heading) -> Table:
    """Totals by several counters' rules, and those of them that round to the print."""
    cells = [
        line.cells[heading.name]
        for line in comparison.lines
        if heading.name in line.cells and line.cells[heading.name].readings
    ]
    rules = [e.rule for e in cells[0].readings] if cells else []
    columns = [Column("row", "row"), Column("printed", "printed")]
    columns += [
        Column(rule, f"{rule} ({heading.unit})", lambda v: units.prefixed(v, heading.unit))
        for rule in rules
    ]
    columns.append(Column("follows", "the print follows"))
    rows = tuple(
        (
            *(cell.row, cell.printed, *(e.amount for e in cell.readings)),
            ", ".join(cell.follows) or "none",
        )
        for cell in cells
    )
    note = (
        "The first rule is the column's own. A print follows every rule whose total rounds to it. "
        "mmdet: mmcv's hooks on modules, which see no product of attention and no resizing."
    )
    return Table(tuple(columns), rows, f"{heading.title}: by whose rules", (note,))


def scores(comparisons: Sequence[Comparison], rules: bool = False) -> Table | None:
    """How many prints of each table every rule rounds to; None where no table asks for it.

    Args:
        rules: of any column of multiply-adds.
    """
    found = [
        (comparison.table, score)
        for comparison in comparisons
        for heading in comparison.headings
        for score in comparison.scores
        if score.column == heading.name and (heading.by_rules or rules) and score.cells
    ]
    if not found:
        return None
    names = list(found[0][1].agreeing)  # of every table, in an order of its own
    counts = [[s.cells, *(s.agreeing.get(name, 0) for name in names)] for _, s in found]
    rows: list[tuple[Value, ...]] = [
        (table, *row) for (table, _), row in zip(found, counts, strict=True)
    ]
    if len(rows) > 1:
        rows.append(("all", *map(sum, zip(*counts, strict=True))))
    columns = (
        Column("table", "table"),
        Column("cells", "prints", units.integer),
        *(Column(name, name, units.integer) for name in names),
    )
    note = (
        "Of rows whose configuration is known, a print that several rows repeat counted once. "
        "Which counter a table was made with is inferred from this; no paper says."
    )
    return Table(columns, tuple(rows), "Prints that the total by each rule rounds to", (note,))


_GIB = 1 << 30

_STYLES = {
    "agrees": "green",
    "differs": "yellow",
    "wrong in print": "magenta",
    "not reproducible": "cyan",
    "published only": "dim",
}


def for_people(comparison: Comparison) -> Table:
    """The print's rows, with our figure and the verdict beside each computed column."""
    columns: list[Column] = []
    for heading in comparison.headings:
        columns.append(Column(heading.name, heading.title))
        if _is_compared(comparison, heading):
            unit = f" ({heading.unit})" if heading.unit else ""
            if heading.quantity == "memory":
                unit = " (GiB)"
            columns.append(Column(f"{heading.name}_computed", f"computed{unit}", units.integer))
            columns.append(Column(f"{heading.name}_verdict", "verdict", style=_style))
    rows = []
    for line in comparison.lines:
        values: list[Value] = []
        for heading in comparison.headings:
            cell = line.cells.get(heading.name)
            values.append(line.labels.get(heading.name) or (cell.printed if cell else None))
            if _is_compared(comparison, heading):
                values += [_computed(cell, heading), _verdict(cell)]
        rows.append(tuple(values))
    named = f"Table {comparison.table}" if comparison.table.isdigit() else comparison.table
    summary = _summary([comparison])
    named = f"{named}: {comparison.title}" if comparison.title else named
    title = f"{named} ({summary})" if summary else named
    return Table(tuple(columns), tuple(rows), title, (comparison.source, *_notes(comparison)))


def _is_compared(comparison: Comparison, heading: Heading) -> bool:
    """Whether anything of the column was computed, or should have been."""
    found = [line.cells[heading.name] for line in comparison.lines if heading.name in line.cells]
    return any(cell.evidence or cell.failed for cell in found)


def _computed(cell: Cell | None, heading: Heading) -> str | None:
    if cell is None or cell.amount is None:
        return None
    if cell.quantity == "memory":
        return f"{cell.amount / _GIB:.2f}"
    return units.prefixed(cell.amount, heading.unit)


def _verdict(cell: Cell | None) -> str | None:
    if cell is None:
        return None
    by = cell.verdict in ("differs", "not reproducible") and cell.difference is not None
    percent = f" {100 * cell.difference:+.1f} %" if by and cell.difference is not None else ""
    return f"{cell.verdict}{percent}" + ("" if cell.is_expected else " (unexpected)")


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
    for reason, cells in reasons.items():
        columns = list(dict.fromkeys(titles[cell.column] for cell in cells))
        rows = list(dict.fromkeys(cell.row for cell in cells))
        whole = len(cells) > 1 and len(rows) == len(comparison.lines)
        where = "" if whole else f"{'; '.join(rows)}: "
        notes.append(f"{where}{', '.join(columns)} {reason}".replace("..", "."))
    return notes


def _summary(comparisons: Sequence[Comparison]) -> str:
    """``16 agree, 2 wrong in print, ...``: the verdicts that some cell has."""
    found = []
    for verdict in VERDICTS:
        cells = sum(c.verdicts()[verdict] for c in comparisons)
        word = verdict[:-1] if verdict in ("agrees", "differs") and cells > 1 else verdict
        found += [f"{cells} {word}"] if cells else []
    return ", ".join(found)


def further(comparison: Comparison, rules: bool = False) -> list[Table]:
    """What a table has besides its cells: readings of printed memory and FLOPs, stated quotients.

    Args:
        rules: show what every rule counts for any column of multiply-adds.
    """
    found = [
        _memory(comparison, heading)
        for heading in comparison.headings
        if heading.quantity == "memory" and _has_evidence(comparison, heading)
    ]
    found += [by_rule(comparison, h) for h in comparison.headings if h.by_rules or rules]
    found = [table for table in found if table.rows]
    return [*found, _ratios(comparison)] if comparison.ratios else found


def _has_evidence(comparison: Comparison, heading: Heading) -> bool:
    return any(cell.evidence for cell in comparison.cells() if cell.column == heading.name)


def _memory(comparison: Comparison, heading: Heading) -> Table:
    """Every reading in GiB, and in parts of the last row's."""
    cells = [line.cells[heading.name] for line in comparison.lines if heading.name in line.cells]
    rules = [e.rule for e in max((cell.evidence for cell in cells), key=len)]
    columns = [Column("row", "row"), Column("printed", "printed")]
    columns += [Column(rule, f"{rule} (GiB)", lambda v: f"{v / _GIB:.2f}") for rule in rules]
    columns += [Column("printed_ratio", "printed / last", units.ratio)]
    columns += [Column("ratio", f"{rules[1]} / last", units.ratio)]
    last = cells[-1]

    def amounts(cell: Cell) -> list[int | None]:
        found = [evidence.amount for evidence in cell.evidence]
        return found + [None] * (len(rules) - len(found))

    rows = []
    for cell in cells:
        print_, last_print = (_middle(c) for c in (cell, last))
        one, other = amounts(cell)[1], amounts(last)[1]
        rows.append(
            (
                cell.row,
                cell.printed,
                *amounts(cell),
                print_ / last_print if print_ and last_print else None,
                one / other if one and other else None,
            )
        )
    return Table(tuple(columns), tuple(rows), f"{heading.title}: readings of the print")


def _middle(cell: Cell) -> float | None:
    return None if cell.low is None or cell.high is None else (cell.low + cell.high) / 2


def _ratios(comparison: Comparison) -> Table:
    titles = {heading.name: heading.title for heading in comparison.headings}
    columns = (
        Column("quotient", "quotient that the text states"),
        Column("printed", "printed"),
        Column("of_prints", "of the prints", lambda value: f"{value:.3f}"),
        Column("computed", "computed", lambda value: f"{value:.3f}"),
        Column("rule", "of"),
        Column("verdict", "verdict", style=_style),
        Column("reason", "difference"),
    )
    rows = tuple(
        (
            f"{titles[r.column]}: {r.row} over {r.over}",
            f"{r.printed}x",
            r.of_prints,
            r.computed,
            r.rule,
            r.verdict + ("" if r.is_expected else " (unexpected)"),
            r.reason,
        )
        for r in comparison.ratios
    )
    return Table(columns, rows, "Quotients")


def overview(comparisons: Sequence[Comparison]) -> Table:
    """How many cells of each table have which verdict."""
    columns = (
        Column("table", "table"),
        *(Column(v.replace(" ", "_"), v, units.integer) for v in VERDICTS),
        Column("unexpected", "unexpected", units.integer),
    )

    def row(name: str, some: Sequence[Comparison]) -> tuple[Value, ...]:
        unexpected = sum(not cell.is_expected for c in some for cell in c.cells())
        return (name, *(sum(c.verdicts()[v] for c in some) for v in VERDICTS), unexpected)

    rows = [row(c.table, [c]) for c in comparisons]
    return Table(columns, (*rows, row("all", comparisons)), "Cells by verdict")


_NAMES = (
    "table row column quantity printed low high computed unit rule model resolution "
    "difference verdict expected failed reason follows"
).split()


def for_machines(comparisons: Sequence[Comparison]) -> Table:
    """One row a cell, in plain numbers; at the end what every rule counts."""
    cells = [cell for comparison in comparisons for cell in comparison.cells()]
    rules = sorted({e.rule for cell in cells for e in cell.readings})
    rows = []
    for cell in cells:
        made = cell.evidence[0] if cell.evidence else None
        by_rule = {e.rule: e.amount for e in cell.readings}
        rows.append(
            (
                cell.table,
                cell.row,
                cell.column,
                cell.quantity,
                cell.printed,
                cell.low,
                cell.high,
                cell.amount,
                made.unit if made else None,
                made.rule if made else None,
                made.model if made else None,
                made.resolution if made else None,
                cell.difference,
                cell.verdict,
                cell.expected,
                cell.failed,
                cell.reason,
                (", ".join(cell.follows) or "none") if cell.readings else None,
                *(by_rule.get(rule) for rule in rules),
            )
        )
    return Table(tuple(Column(name, name) for name in [*_NAMES, *rules]), tuple(rows))


# Searches for a configuration as tables.


def search_tables(found: Search) -> list[Table]:
    """The configurations that miss least over all cells, and the nearest one of each cell."""
    choices = [Column(name, name) for name in found.best[0].choices]
    cells = [Column(m.row, f"{m.row} ({m.printed})") for m in found.best[0].misses]
    worst = Column("worst", "worst", lambda value: f"{100 * value:.1f} %")
    title = (
        f"{found.head}: {found.tried:,} configurations, each the same for every row; "
        f"{found.reproducing} of them round to every print"
    )
    best = Table(
        (*choices, *cells, worst),
        tuple((*c.choices.values(), *map(_said, c.misses), c.worst) for c in found.best),
        title,
        ("Computed in units of 1e9, and the difference from the print; least in the worst row.",),
    )
    rows: list[tuple[Value, ...]] = [
        (miss.row, miss.printed, *candidate.choices.values(), *_own(miss, candidate))
        for i, candidate in enumerate(found.nearest)
        for miss in [candidate.misses[i]]
    ]
    columns = (
        Column("row", "row"),
        Column("printed", "printed"),
        *choices,
        Column("computed", "computed"),
        worst,
    )
    note = "The nearest of each row, whatever it gives for the others; worst: over all rows."
    return [best, Table(columns, tuple(rows), f"{found.head}: row by row", (note,))]


def searches_for_machines(searches: Sequence[Search]) -> Table:
    """One row for each cell of each configuration that is shown, in plain numbers."""
    choices = list(searches[0].best[0].choices)
    names = ["head", "list", "rank", *choices, "row", "printed", "computed", "difference", "agrees"]
    rows: list[tuple[Value, ...]] = [
        (
            *(one.head, kind, rank),
            *candidate.choices.values(),
            *(miss.row, miss.printed, miss.amount, miss.relative, miss.agrees),
        )
        for one in searches
        for kind, candidates in (("best", one.best), ("nearest", one.nearest))
        for rank, candidate in enumerate(candidates, start=1)
        for miss in candidate.misses
    ]
    return Table(tuple(Column(name, name) for name in names), tuple(rows))


def _said(miss: Miss) -> str:
    return f"{giga(miss.amount)} ({100 * miss.relative:+.1f} %)"


def _own(miss: Miss, candidate: Candidate) -> tuple[Value, ...]:
    return _said(miss), candidate.worst
