"""From a published table to verdicts. Each rests on figures computed here; none is written down."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from decimal import Decimal

from ..cells import Cell, Comparison, Evidence, Heading, Line, Ratio, Score, Verdict
from ..errors import DatbenchError
from .evidence import Place, amount_of, choose, evidence_of, readings
from .held import judge_memory, kept, memory_evidence
from .printed import Printed
from .reasons import by, contradictions, hints, owner, shown, twin
from .tables import CARRIED, READINGS, Build, ColumnData, RatioData, TableData
from .workshop import Workshop


def compare(
    table: TableData,
    others: Sequence[TableData],
    workshop: Workshop,
    step: Callable[[str], None] = lambda row: None,
) -> Comparison:
    """Compute every cell of `table` that can be computed.

    Args:
        others: tables in which a contradicting print of the same model is looked for.
        step: called with each row's label before it is computed.
    """
    lines: list[Line] = []
    for row in table.rows:
        step(table.label(row))
        cells = {
            column.name: _cell(Place(table, row, column), [table, *others], workshop)
            for column in table.columns
            if column.quantity is not None and column.name in row.values
        }
        labels = {c.name: row.values.get(c.name, "") for c in table.columns if c.quantity is None}
        lines.append(Line(labels, cells))
    headings = tuple(
        Heading(c.name, c.title, c.quantity, c.unit, _is_dense(table, c)) for c in table.columns
    )
    ratios = tuple(_ratio(ratio, table, workshop) for ratio in table.ratios)
    scores = tuple(
        _score(column, table, lines) for column in table.columns if column.quantity == "macs"
    )
    return Comparison(
        *(table.table, table.title, table.source, headings, tuple(lines), table.notes, ratios),
        scores,
    )


def _is_dense(table: TableData, column: ColumnData) -> bool:
    """Whether a column is of detectors or segmentors, whose totals come from several counters."""
    heads = (build.head for row in table.rows for build in row.builds)
    return column.quantity == "macs" and any(heads)


def _score(column: ColumnData, table: TableData, lines: Sequence[Line]) -> Score:
    """How many prints of known models each rule rounds to; the same print counts once."""
    found = {
        (cell.evidence[0].model, cell.evidence[0].resolution, cell.printed): cell
        for row, line in zip(table.rows, lines, strict=True)
        for cell in [line.cells.get(column.name)]
        if row.build is not None and cell is not None and cell.readings
    }
    rules = dict.fromkeys((column.convention, *READINGS))
    agreeing = {rule: sum(rule in cell.follows for cell in found.values()) for rule in rules}
    return Score(column.name, len(found), agreeing)


def _ratio(ratio: RatioData, table: TableData, workshop: Workshop) -> Ratio:
    """A quotient that the paper states, of what is computed for the two rows."""
    column = next(c for c in table.columns if c.name == ratio.column)
    rows = (table.row(ratio.row), table.row(ratio.over))
    above, below = (float(row.printed[ratio.column].value) for row in rows)
    rule = column.convention
    blank = Ratio(
        *(table.table, ratio.column, ratio.row, ratio.over, ratio.printed, above / below),
        *(None, rule, "published only", ratio.expect),
    )
    try:
        if column.batch is not None:
            rule = f"kept for backward, batch {column.batch}"
            one, other = (kept(row, column.batch, workshop) for row in rows)
        else:
            one, other = (
                amount_of(evidence_of(row.build, row, column, workshop))
                for row in rows
                if row.build
            )
    except DatbenchError as error:
        return replace(blank, reason=f"not computed: {error}")
    computed = one / other
    printed = Printed.parse(ratio.printed)
    agrees = printed.low <= Decimal(computed) <= printed.high
    of_prints = f"{100 * (computed * below / above - 1):+.1f} % from the quotient of the prints"
    return replace(
        blank,
        computed=computed,
        rule=rule,
        verdict="agrees" if agrees else "differs",
        reason=of_prints,
    )


def _cell(place: Place, tables: Sequence[TableData], workshop: Workshop) -> Cell:
    row, column = place.row, place.column
    assert column.quantity is not None
    blank = Cell(
        place.table.table,
        place.table.label(row),
        column.name,
        column.quantity,
        row.values[column.name],
        None,
        None,
        "published only",
        "published only",
    )
    if not column.is_computed:
        return replace(blank, reason=CARRIED[column.quantity])
    printed = place.printed
    blank = replace(blank, low=float(printed.low), high=float(printed.high))
    if not row.builds:
        return replace(blank, reason=row.unbuilt + twin(place, workshop))
    blank = replace(blank, expected=row.expect.get(column.name, "agrees"))
    try:
        if column.batch is not None:
            return _memory_cell(blank, place, row.builds[0], column.batch, workshop)
        return _counted_cell(blank, place, tables, workshop)
    except DatbenchError as error:
        return replace(blank, reason=f"not computed: {error}", failed=True)


def _counted_cell(
    blank: Cell, place: Place, tables: Sequence[TableData], workshop: Workshop
) -> Cell:
    row, column, printed = place.row, place.column, place.printed
    i = choose(place, workshop)
    evidence = [evidence_of(build, row, column, workshop) for build in row.builds]
    verdict, reason = _judge(place, i, evidence, tables, workshop)
    by_rules = readings(row.builds[i], place, workshop)
    return replace(
        blank,
        verdict=verdict,
        reason=reason,
        difference=printed.miss(amount_of(evidence[i])),
        evidence=(evidence[i], *evidence[:i], *evidence[i + 1 :]),
        readings=by_rules,
        follows=tuple(e.rule for e in by_rules if printed.agrees(amount_of(e))),
    )


def _memory_cell(blank: Cell, place: Place, build: Build, batch: int, workshop: Workshop) -> Cell:
    evidence = memory_evidence(build, batch, workshop)
    verdict, reason = judge_memory(place.printed, batch, evidence)
    return replace(
        blank,
        verdict=verdict,
        reason=reason,
        difference=place.printed.miss(amount_of(evidence[0])),
        evidence=tuple(evidence),
    )


def _judge(
    place: Place,
    i: int,
    evidence: Sequence[Evidence],
    tables: Sequence[TableData],
    workshop: Workshop,
) -> tuple[Verdict, str]:
    """The verdict by configuration `i`, and the figures that it rests on in words."""
    amount, build = amount_of(evidence[i]), place.row.builds[i]
    if place.printed.agrees(amount):
        return "agrees", ""
    differs = f"{shown(place, amount)} is computed, {by(place, amount)}"
    if len({amount_of(e) for e in evidence}) > 1:
        tried = "; ".join(
            f"{e.model} at {e.resolution} gives {shown(place, amount_of(e))}" for e in evidence
        )
        shared = " over all rows that share the choice" if place.row.together else ""
        return "not reproducible", f"{differs} by what misses least{shared}; tried: {tried}"
    # What is tried makes no difference here, so the print is as good as one of a known model.
    contradicting = contradictions(place, build, amount, tables, workshop)
    if contradicting:
        return "wrong in print", f"{differs}, and {' and '.join(contradicting)} for the same model"
    owned, is_copied = owner(place, workshop)
    if is_copied:
        return "wrong in print", f"{differs}, and {owned}"
    found = [differs, *hints(place, build, amount, workshop)]
    return "differs", "; ".join([*found, owned] if owned else found)
