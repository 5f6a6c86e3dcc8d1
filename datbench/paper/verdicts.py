"""From a published table to verdicts. Each rests on figures computed here; none is written down."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal

from .. import units
from ..errors import DatbenchError
from .records import Cell, Comparison, Evidence, Heading, Line, Ratio, Score, Verdict
from .tables import (
    ALONE,
    CARRIED,
    HOOKS_AND_PRODUCTS,
    READINGS,
    WITHOUT_RESIZING,
    Build,
    ColumnData,
    Printed,
    RatioData,
    RowData,
    TableData,
)
from .workshop import Held, Workshop

# What the configurations of a row compute for a column, by whose rules.


UNITS = {"macs": "MAC", "flops": "FLOP", "params": "element"}


@dataclass(frozen=True)
class Place:
    """A figure of a table: its row and column."""

    table: TableData
    row: RowData
    column: ColumnData

    @property
    def printed(self) -> Printed:
        """The figure as printed."""
        return self.row.printed[self.column.name]

    def __str__(self) -> str:
        return f"{_title(self.table)} ({self.table.label(self.row)})"

    def others(self) -> Iterator[Place]:
        """The figures of this column whose rows have the same configuration of those tried."""
        for row in self.table.rows:
            alike = row.together == self.row.together if self.row.together else row is self.row
            if alike and self.column.name in row.printed:
                yield replace(self, row=row)


def _title(table: TableData) -> str:
    return f"Table {table.table}" if table.table.isdigit() else table.title or table.table


def evidence_of(build: Build, row: RowData, column: ColumnData, workshop: Workshop) -> Evidence:
    """What one configuration computes for a column.

    Raises:
        DatbenchError: it cannot be computed.
    """
    if column.quantity in UNITS:
        made = workshop.make(build)
        res, rule = str(made.resolution), column.convention
        if column.quantity == "params":
            rule = "+".join(row.counting)
            amount = sum(made.elements[what] for what in row.counting)
        else:
            amount = made.totals[rule]
    else:
        assert column.quantity is not None
        amount = workshop.size(build, column.quantity)
        res, rule = "", f"stage {build.stage}"
    name = build.model if build.head is None else workshop.spec(build).name
    return Evidence(name, res, amount, UNITS.get(column.quantity or "", ""), rule)


def readings(build: Build, place: Place, workshop: Workshop) -> tuple[Evidence, ...]:
    """Of a number of multiply-adds, what every rule counts, the column's own first."""
    if place.column.quantity != "macs":
        return ()
    rules = dict.fromkeys((place.column.convention, *READINGS))
    columns = [replace(place.column, convention=rule) for rule in rules]
    return tuple(evidence_of(build, place.row, column, workshop) for column in columns)


def choose(place: Place, workshop: Workshop) -> int:
    """Which of the configurations tried misses least in the worst row of those that share it.

    A row alone would find a configuration of its own in any list that is long enough.
    """
    places = list(place.others())

    def worst(i: int) -> Decimal:
        return max(_distance(other, i, workshop) for other in places)

    return min(range(len(place.row.builds)), key=worst)


def _distance(place: Place, i: int, workshop: Workshop) -> Decimal:
    """How far a configuration is from the print, in units of its last place."""
    found = evidence_of(place.row.builds[i], place.row, place.column, workshop)
    return abs(amount_of(found) - place.printed.value) / place.printed.step


def amount_of(evidence: Evidence) -> int:
    """The amount of evidence that was computed."""
    assert evidence.amount is not None
    return evidence.amount


# Printed memory beside what is simulated, at the stated batch and at twice that.


GIB = 1 << 30

_RULES = ("after the forward", "kept for backward")


def memory_evidence(build: Build, batch: int, workshop: Workshop) -> list[Evidence]:
    """What a forward in training holds, both readings at both batches; then on a device."""
    return list(_evidence(build, batch, workshop))


def _evidence(build: Build, batch: int, workshop: Workshop) -> Iterator[Evidence]:
    res = build.res or workshop.spec(build).resolution
    for images in (batch, 2 * batch):
        held = workshop.hold(build, images)
        for rule, amount in zip(_RULES, (held.after_forward, held.kept), strict=True):
            yield Evidence(build.model, str(res), amount, "byte", f"{rule}, batch {images}")
    if workshop.device is None:
        return
    for images in (batch, 2 * batch):
        row = workshop.measure(build, images)
        for rule in ("allocated", "reserved"):
            found: int | None = None if row.peaks is None else getattr(row.peaks, rule)
            on = f"{rule} on {workshop.device}, batch {images}"
            said = on if found is not None else f"{on}: {row.outcome}"
            yield Evidence(build.model, str(res), found, "byte", said)


def judge_memory(printed: Printed, batch: int, evidence: list[Evidence]) -> tuple[Verdict, str]:
    """A print that no reading at the stated batch rounds to is not reproduced; and by how much."""
    here, there = evidence[:2], evidence[2:4]
    if any(e.amount is not None and printed.agrees(e.amount) for e in here):
        return "agrees", ""
    after, kept = (_gib(e) for e in here)
    twice = _gib(there[0])
    value = float(printed.value) / GIB
    return "not reproducible", (
        f"at batch {batch} {after:.2f} GiB are alive after the forward ({kept:.2f} kept for the "
        f"backward) and the print is {value / after:.2f} times that; at batch {2 * batch} it would "
        f"be {twice:.2f}, {100 * (twice / value - 1):+.1f} % from the print"
    )


def _gib(evidence: Evidence) -> float:
    assert evidence.amount is not None
    return evidence.amount / GIB


def kept(row: RowData, batch: int, workshop: Workshop) -> int:
    """What a ratio of memories is taken of: kept for the backward, at the stated batch."""
    assert row.build is not None
    held: Held = workshop.hold(row.build, batch)
    return held.kept


# Why a computed figure may not be the printed one: every reason rests on figures computed here.


def contradictions(
    place: Place, build: Build, amount: int, tables: Sequence[TableData], workshop: Workshop
) -> list[str]:
    """Other prints of the same model that the computed figure rounds to, and this one does not."""
    found: dict[str, str] = {}
    for table in tables:
        for row in table.rows:
            for column in table.columns:
                other = Place(table, row, column)
                if (
                    column.quantity == place.column.quantity
                    and column.convention == place.column.convention
                    and column.name in row.printed
                    and row.counting == place.row.counting
                    and other.printed.agrees(amount)
                    and other.printed.apart_from(place.printed)
                    and row.build is not None
                    and _same(row.build, build, workshop)
                ):
                    found.setdefault(other.printed.text, f"{other} prints {other.printed.text}")
    return list(found.values())


def _same(one: Build, other: Build, workshop: Workshop) -> bool:
    """Whether both are one model at one input, however it is written."""
    if (one.model, one.head) != (other.model, other.head):
        return False
    sizes = {build.res or workshop.spec(build).resolution for build in (one, other)}
    return len(sizes) == 1


_WORDS = {ALONE: "its multiply-adds alone", "mmdet": "mmcv's hooks"}

_DENSE_WORDS = {
    **_WORDS,
    HOOKS_AND_PRODUCTS: "mmcv's hooks and attention's products",
    "fvcore": "fvcore's rules",
    WITHOUT_RESIZING: "fvcore's rules without resizing",
}


def hints(place: Place, build: Build, amount: int, workshop: Workshop) -> list[str]:
    """Other readings of the print that would explain it, each of them computed."""
    printed = place.printed
    made = workshop.make(build) if place.column.quantity in UNITS else None
    readings: dict[str, int] = {}
    if made is not None and place.column.quantity == "macs":
        words = _WORDS if build.head is None else _DENSE_WORDS
        readings = {word: made.totals[rule] for rule, word in words.items()}
    if made is not None and place.column.quantity == "params":
        readings["with frozen parameters and masks"] = sum(made.elements.values())
    found = []
    if printed.cuts_off(amount):
        found.append("the print is this figure cut off, not rounded")
    elif printed.is_rounded_twice(amount):
        found.append("the print is this figure rounded twice")
    for reading, value in readings.items():
        if value != amount and printed.agrees(value):
            found.append(f"{reading}, {shown(place, value)}, would agree")
        elif value != amount and printed.cuts_off(value) and not printed.cuts_off(amount):
            found.append(f"{reading}, {shown(place, value)}, would be cut off to it")
    return found


def owner(place: Place, workshop: Workshop) -> tuple[str, bool]:
    """The row whose figures this row prints throughout, if its model computes to them, in words.

    And whether they were copied from it: two figures or more, none of which is within one in the
    last place of what the row's own model computes to. A nearer one may be its own, badly rounded.
    """
    for other in _twins(place, workshop):
        theirs = _figures(place.table, other, workshop)
        if theirs and all(p.printed.agrees(amount) for p, amount in theirs):
            figures = " and ".join(f"{shown(p, a)} for {p.printed.text}" for p, a in theirs)
            label = place.table.label(other)
            words = f"the row prints the figures of {label}, which computes to them: {figures}"
            ours = _figures(place.table, place.row, workshop)
            near = (abs(a - p.printed.value) <= p.printed.step for p, a in ours)
            return words, len(ours) > 1 and not any(near)
    return "", False


def _figures(table: TableData, row: RowData, workshop: Workshop) -> list[tuple[Place, int]]:
    """Every printed figure of a row, with what its model computes to; none if one has nothing."""
    places = [Place(table, row, c) for c in table.columns if c.name in row.printed]
    if row.build is None or any(p.column.batch is not None for p in places):
        return []
    try:
        found = [evidence_of(row.build, row, p.column, workshop) for p in places]
    except DatbenchError:
        return []
    return list(zip(places, map(amount_of, found), strict=True))


def twin(place: Place, workshop: Workshop) -> str:
    """A row of another model that prints the same figures throughout, in words."""
    for other in _twins(place, workshop):
        return f"; it prints the same figures as the row of {place.table.label(other)}"
    return ""


def _twins(place: Place, workshop: Workshop) -> list[RowData]:
    """Rows of other models that print the same figures throughout, two or more."""
    ours = _prints(place.row)
    return [
        other
        for other in place.table.rows
        if len(ours) > 1
        and ours == _prints(other)
        and other.builds
        and not _shares_a_model(place.row, other, workshop)
    ]


def _prints(row: RowData) -> dict[str, str]:
    return {name: printed.text for name, printed in row.printed.items()}


def _shares_a_model(one: RowData, other: RowData, workshop: Workshop) -> bool:
    try:
        return any(_same(a, b, workshop) for a in one.builds for b in other.builds)
    except DatbenchError:
        return True


def by(place: Place, amount: int) -> str:
    """``+0.0830G (+0.5 %)``."""
    printed = place.printed
    sign = "+" if amount > printed.value else "-"
    distance = shown(place, abs(amount - int(printed.value)))
    miss = printed.miss(amount)
    return f"{sign}{distance}" if miss is None else f"{sign}{distance} ({100 * miss:+.1f} %)"


def shown(place: Place, amount: int) -> str:
    """An amount with the prefix of the print and four decimals."""
    prefix = place.printed.prefix
    return f"{units.prefixed(amount, prefix)}{prefix}"


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
