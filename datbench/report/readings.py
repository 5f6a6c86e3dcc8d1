"""What several counters' rules give for printed FLOPs, and which of them the prints follow."""

from __future__ import annotations

from collections.abc import Sequence

from .. import units
from ..cells import Comparison, Heading
from .table import Column, Table, Value


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
