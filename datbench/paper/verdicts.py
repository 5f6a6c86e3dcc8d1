"""From a published table to verdicts. Each rests on figures computed here; none is written down."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal

from .. import units
from ..cells import Cell, Comparison, Evidence, Heading, Line, Ratio, Verdict
from ..errors import DatbenchError
from .held import judge_memory, kept, memory_evidence
from .printed import Printed
from .tables import CARRIED, Build, ColumnData, RatioData, RowData, TableData
from .workshop import NotBuiltError, Workshop

_UNITS = {"macs": "MAC", "flops": "FLOP", "params": "element"}


@dataclass(frozen=True)
class _Place:
    """A figure of a table: its row and column."""

    table: TableData
    row: RowData
    column: ColumnData

    @property
    def printed(self) -> Printed:
        return self.row.printed[self.column.name]

    def __str__(self) -> str:
        return f"{_title(self.table)} ({self.table.label(self.row)})"


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
            column.name: _cell(_Place(table, row, column), [table, *others], workshop)
            for column in table.columns
            if column.quantity is not None and column.name in row.values
        }
        labels = {c.name: row.values.get(c.name, "") for c in table.columns if c.quantity is None}
        lines.append(Line(labels, cells))
    headings = tuple(Heading(c.name, c.title, c.quantity, c.unit) for c in table.columns)
    ratios = tuple(_ratio(ratio, table, workshop) for ratio in table.ratios)
    return Comparison(
        table.table, table.title, table.source, headings, tuple(lines), table.notes, ratios
    )


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
                _amount(_evidence(row.build, row, column, workshop)) for row in rows if row.build
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


def _cell(place: _Place, tables: Sequence[TableData], workshop: Workshop) -> Cell:
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
    builds = [row.build] if row.build is not None else list(row.tried)
    if not builds:
        return replace(blank, reason=row.unbuilt + _twin(place))
    blank = replace(blank, expected=row.expect.get(column.name, "agrees"))
    try:
        if column.batch is not None:
            return _memory_cell(blank, place, builds[0], column.batch, workshop)
        evidence = [_evidence(build, row, column, workshop) for build in builds]
    except NotBuiltError as error:
        return replace(blank, expected="published only", reason=str(error).rstrip("."))
    except DatbenchError as error:
        return replace(blank, reason=f"not computed: {error}", failed=True)
    nearest = min(evidence, key=lambda e: abs(_amount(e) - printed.value))
    verdict, reason = _judge(place, nearest, evidence, tables, workshop)
    return replace(
        blank,
        verdict=verdict,
        reason=reason,
        difference=printed.miss(_amount(nearest)),
        evidence=(nearest, *(e for e in evidence if e is not nearest)),
    )


def _memory_cell(blank: Cell, place: _Place, build: Build, batch: int, workshop: Workshop) -> Cell:
    evidence = memory_evidence(build, batch, workshop)
    verdict, reason = judge_memory(place.printed, batch, evidence)
    return replace(
        blank,
        verdict=verdict,
        reason=reason,
        difference=place.printed.miss(_amount(evidence[0])),
        evidence=tuple(evidence),
    )


def _evidence(build: Build, row: RowData, column: ColumnData, workshop: Workshop) -> Evidence:
    """What one configuration computes for a column."""
    if column.quantity in ("macs", "flops", "params"):
        made = workshop.make(build)
        res, rule = str(made.resolution), column.convention
        amount = made.totals[column.convention]
        if column.quantity == "params":
            rule = "+".join(row.counting)
            amount = sum(made.elements[what] for what in row.counting)
    else:
        assert column.quantity is not None
        amount = workshop.size(build, column.quantity)
        res, rule = "", f"stage {build.stage}"
    return Evidence(build.model, res, amount, _UNITS.get(column.quantity, ""), rule)


def _judge(
    place: _Place,
    nearest: Evidence,
    evidence: Sequence[Evidence],
    tables: Sequence[TableData],
    workshop: Workshop,
) -> tuple[Verdict, str]:
    """The verdict, and the figures that it rests on in words."""
    printed, amount = place.printed, _amount(nearest)
    if printed.agrees(amount):
        return "agrees", ""
    by = f"{_shown(place, amount)} is computed, {_by(place, amount)}"
    if place.row.build is None:
        tried = "; ".join(
            f"{e.model} at {e.resolution} gives {_shown(place, _amount(e))}" for e in evidence
        )
        return "not reproducible", f"{by} at the nearest of what was tried: {tried}"
    contradicting = _contradictions(place, amount, tables, workshop)
    if contradicting:
        return "wrong in print", f"{by}, and {' and '.join(contradicting)} for the same model"
    return "differs", "; ".join([by, *_hints(place, amount, workshop)])


def _contradictions(
    place: _Place, amount: int, tables: Sequence[TableData], workshop: Workshop
) -> list[str]:
    """Other prints of the same model that the computed figure rounds to, and this one does not."""
    found: dict[str, str] = {}
    for table in tables:
        for row in table.rows:
            for column in table.columns:
                other = _Place(table, row, column)
                if (
                    column.quantity == place.column.quantity
                    and column.convention == place.column.convention
                    and column.name in row.printed
                    and row.counting == place.row.counting
                    and other.printed.agrees(amount)
                    and other.printed.apart_from(place.printed)
                    and _same_build(row.build, place.row.build, workshop)
                ):
                    found.setdefault(other.printed.text, f"{other} prints {other.printed.text}")
    return list(found.values())


def _same_build(one: Build | None, other: Build | None, workshop: Workshop) -> bool:
    """Whether both are one model at one input, however it is written."""
    if one is None or other is None or (one.model, one.head) != (other.model, other.head):
        return False
    sizes = {build.res or workshop.spec(build).resolution for build in (one, other)}
    return len(sizes) == 1


def _hints(place: _Place, amount: int, workshop: Workshop) -> list[str]:
    """Other readings of the print that would explain it, each of them computed."""
    printed, row = place.printed, place.row
    assert row.build is not None
    made = workshop.make(row.build) if place.column.quantity in _UNITS else None
    readings: dict[str, int] = {}
    if made is not None and place.column.quantity == "macs":
        readings["its multiply-adds alone"] = made.totals["torch"] // 2
        readings["mmcv's hooks"] = made.totals["mmdet"]
    if made is not None and place.column.quantity == "params":
        readings["with frozen parameters and masks"] = sum(made.elements.values())
    hints = []
    if printed.cuts_off(amount):
        hints.append("the print is this figure cut off, not rounded")
    for reading, value in readings.items():
        if value != amount and printed.agrees(value):
            hints.append(f"{reading}, {_shown(place, value)}, would agree")
        elif value != amount and printed.cuts_off(value) and not printed.cuts_off(amount):
            hints.append(f"{reading}, {_shown(place, value)}, would be cut off to it")
    return hints


def _twin(place: _Place) -> str:
    """A row of another model that prints the same figures throughout, in words."""
    table, row = place.table, place.row
    first = table.columns[0].name
    for other in table.rows:
        if other.values.get(first) != row.values.get(first) and len(row.printed) > 1:
            ours = {name: printed.text for name, printed in row.printed.items()}
            if ours == {name: printed.text for name, printed in other.printed.items()}:
                return f"; it prints the same figures as the row of {table.label(other)}"
    return ""


def _amount(evidence: Evidence) -> int:
    assert evidence.amount is not None
    return evidence.amount


def _by(place: _Place, amount: int) -> str:
    """``+0.0830G (+0.5 %)``."""
    printed = place.printed
    sign = "+" if amount > printed.value else "-"
    distance = _shown(place, abs(amount - int(printed.value)))
    miss = printed.miss(amount)
    return f"{sign}{distance}" if miss is None else f"{sign}{distance} ({100 * miss:+.1f} %)"


def _shown(place: _Place, amount: int) -> str:
    """An amount with the prefix of the print and four decimals."""
    prefix = place.printed.prefix
    return f"{units.prefixed(amount, prefix)}{prefix}"


def _title(table: TableData) -> str:
    return f"Table {table.table}" if table.table.isdigit() else table.title or table.table
