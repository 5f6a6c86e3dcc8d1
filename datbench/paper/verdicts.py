"""From a published table to verdicts. Each rests on figures computed here; none is written down."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal

from .. import units
from ..errors import CheckFailed, DatbenchError, MissingError, UnknownNameError, UsageError
from ..machine import check_present
from .records import Cell, Comparison, Evidence, Heading, Line, Ratio, Score, Verdict
from .tables import (
    ALONE,
    CARRIED,
    FILES,
    HOOKS_AND_PRODUCTS,
    READINGS,
    WITHOUT_RESIZING,
    Build,
    ColumnData,
    Printed,
    RatioData,
    RowData,
    TableData,
    paper_tables,
)
from .workshop import UNITS, Workshop


@dataclass(frozen=True)
class CellPlace:
    """A figure of a table: its row and column."""

    table: TableData
    row: RowData
    column: ColumnData

    @property
    def printed(self) -> Printed:
        """The figure as printed."""
        return self.row.printed[self.column.name]

    @property
    def label(self) -> str:
        """The row in words."""
        return self.table.label(self.row)

    def __str__(self) -> str:
        return f"{self.table.source} ({self.label})"

    def others(self) -> Iterator[CellPlace]:
        """The figures of this column whose rows have the same configuration of those tried."""
        for row in self.table.rows:
            alike = row.together == self.row.together if self.row.together else row is self.row
            if alike and self.column.name in row.printed:
                yield replace(self, row=row)


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


def readings(build: Build, place: CellPlace, workshop: Workshop) -> tuple[Evidence, ...]:
    """What every rule counts, for a number of multiply-adds; the column's own rule first."""
    if place.column.quantity != "macs":
        return ()
    rules = dict.fromkeys((place.column.convention, *READINGS))
    columns = [replace(place.column, convention=rule) for rule in rules]
    return tuple(evidence_of(build, place.row, column, workshop) for column in columns)


def choose(place: CellPlace, workshop: Workshop) -> int:
    """Which of the configurations tried misses least in the worst row of those that share it.

    A single row would find a configuration of its own in any list that is long enough.
    """
    places = list(place.others())

    def worst(i: int) -> Decimal:
        return max(_distance(other, i, workshop) for other in places)

    return min(range(len(place.row.builds)), key=worst)


def _distance(place: CellPlace, i: int, workshop: Workshop) -> Decimal:
    """How far a configuration is from the printed figure, in units of its last place."""
    found = evidence_of(place.row.builds[i], place.row, place.column, workshop)
    return abs(amount_of(found) - place.printed.value) / place.printed.step


def amount_of(evidence: Evidence) -> int:
    """The amount of evidence that was computed."""
    assert evidence.amount is not None
    return evidence.amount


# Printed memory beside what is simulated, at the stated batch and at twice that.


def memory_evidence(build: Build, batch: int, workshop: Workshop) -> list[Evidence]:
    """What a forward in training holds, both readings at both batches; then on a device."""
    res = str(build.res or workshop.spec(build).resolution)
    found = []
    for images in (batch, 2 * batch):
        held = workshop.hold(build, images)
        for amount, rule in (
            (held.after_forward, "after the forward"),
            (held.kept, "saved for backward"),
        ):
            found.append(Evidence(build.model, res, amount, "byte", f"{rule}, batch {images}"))
    for images in (batch, 2 * batch) if workshop.device is not None else ():
        row = workshop.measure(build, images)
        for peak in ("allocated", "reserved"):
            rule = f"{peak} on {workshop.device}, batch {images}"
            if row.peaks is None:
                rule, measured = f"{rule}: {row.outcome}", None
            else:
                measured = getattr(row.peaks, peak)
            found.append(Evidence(build.model, res, measured, "byte", rule))
    return found


def judge_memory(printed: Printed, batch: int, evidence: list[Evidence]) -> tuple[Verdict, str]:
    """A printed figure that no reading at the stated batch rounds to is not reproduced; with the
    difference in words.
    """
    after, kept, twice = (amount_of(each) for each in evidence[:3])
    if any(printed.agrees(amount) for amount in (after, kept)):
        return "agrees", ""
    value = float(printed.value)
    return "not reproducible", (
        f"at batch {batch} {units.gib(after)} GiB are alive after the forward ({units.gib(kept)} "
        f"saved for backward); the printed value is {value / after:.2f} times that. At batch "
        f"{2 * batch} it would be {units.gib(twice)}, {units.signed_percent(twice / value - 1)} "
        "from the printed value"
    )


# Why a computed figure may not be the printed one: every reason rests on figures computed here.


def contradictions(
    place: CellPlace, build: Build, amount: int, tables: Sequence[TableData], workshop: Workshop
) -> list[str]:
    """Other printed values of the same model that the computed figure rounds to, unlike this."""
    alike = place.column.quantity, place.column.convention, place.row.counting
    found: dict[str, str] = {}
    for table in tables:
        for row in table.rows:
            for column in table.columns:
                other = CellPlace(table, row, column)
                if (
                    (column.quantity, column.convention, row.counting) == alike
                    and column.name in row.printed
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
    return workshop.resolution(one) == workshop.resolution(other)


_READING_WORDS = {
    ALONE: "its multiply-adds alone",
    "mmdet": "mmcv's hooks",
    # Only for detectors and segmentors:
    HOOKS_AND_PRODUCTS: "mmcv's hooks and attention's products",
    "fvcore": "fvcore's rules",
    WITHOUT_RESIZING: "fvcore's rules without resizing",
}


def hints(place: CellPlace, build: Build, amount: int, workshop: Workshop) -> list[str]:
    """Other readings of the printed figure that would explain it, each of them computed."""
    printed = place.printed
    other: dict[str, int] = {}
    if place.column.quantity == "macs":
        totals = workshop.make(build).totals
        rules = (ALONE, "mmdet") if build.head is None else _READING_WORDS
        other = {_READING_WORDS[rule]: totals[rule] for rule in rules}
    elif place.column.quantity == "params":
        elements = workshop.make(build).elements
        other = {"with frozen parameters and masks": sum(elements.values())}
    found = []
    if printed.cuts_off(amount):
        found.append("the printed value is this figure cut off, not rounded")
    elif printed.is_rounded_twice(amount):
        found.append("the printed value is this figure rounded twice")
    for reading, value in other.items():
        if value != amount and printed.agrees(value):
            found.append(f"{reading}, {shown(place, value)}, would agree")
        elif value != amount and printed.cuts_off(value) and not printed.cuts_off(amount):
            found.append(f"{reading}, {shown(place, value)}, would be cut off to it")
    return found


def owner(place: CellPlace, workshop: Workshop) -> tuple[str, bool]:
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


def _figures(table: TableData, row: RowData, workshop: Workshop) -> list[tuple[CellPlace, int]]:
    """Every printed figure of a row, with what its model computes to; none if one has nothing."""
    places = [CellPlace(table, row, c) for c in table.columns if c.name in row.printed]
    if row.build is None or any(p.column.batch is not None for p in places):
        return []
    try:
        found = [evidence_of(row.build, row, p.column, workshop) for p in places]
    except DatbenchError:
        return []
    return list(zip(places, map(amount_of, found), strict=True))


def twin(place: CellPlace, workshop: Workshop) -> str:
    """A row of another model that prints the same figures throughout, in words."""
    for other in _twins(place, workshop):
        return f"; it prints the same figures as the row of {place.table.label(other)}"
    return ""


def _twins(place: CellPlace, workshop: Workshop) -> list[RowData]:
    """Rows of other models that print the same figures throughout, two or more."""

    def prints(row: RowData) -> dict[str, str]:
        return {name: printed.text for name, printed in row.printed.items()}

    ours = prints(place.row)
    return [
        other
        for other in place.table.rows
        if len(ours) > 1
        and ours == prints(other)
        and other.builds
        and not _shares_a_model(place.row, other, workshop)
    ]


def _shares_a_model(one: RowData, other: RowData, workshop: Workshop) -> bool:
    try:
        return any(_same(a, b, workshop) for a in one.builds for b in other.builds)
    except DatbenchError:
        return True


def by(place: CellPlace, amount: int) -> str:
    """``+0.0830G (+0.5 %)``."""
    printed = place.printed
    sign = "+" if amount > printed.value else "-"
    distance = shown(place, abs(amount - int(printed.value)))
    miss = printed.miss(amount)
    return f"{sign}{distance}" + ("" if miss is None else f" ({units.signed_percent(miss)})")


def shown(place: CellPlace, amount: int) -> str:
    """An amount with the prefix of the printed figure and four decimals."""
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
        others: tables that may print a contradicting value for the same model.
        step: called with each row's label before it is computed.
    """
    lines: list[Line] = []
    for row in table.rows:
        step(table.label(row))
        cells = {
            column.name: _cell(CellPlace(table, row, column), [table, *others], workshop)
            for column in table.columns
            if column.quantity is not None and column.name in row.values
        }
        labels = {c.name: row.values.get(c.name, "") for c in table.columns if c.quantity is None}
        lines.append(Line(labels, cells))
    # Totals of detectors and segmentors come from several counters.
    is_dense = any(build.head for row in table.rows for build in row.builds)
    headings = tuple(
        Heading(c.name, c.title, c.quantity, c.unit, is_dense and c.quantity == "macs")
        for c in table.columns
    )
    ratios = tuple(_ratio(ratio, table, workshop) for ratio in table.ratios)
    scores = tuple(
        _score(column, table, lines) for column in table.columns if column.quantity == "macs"
    )
    return Comparison(
        *(table.table, table.title, table.source, headings, tuple(lines), table.notes, ratios),
        scores,
    )


def _score(column: ColumnData, table: TableData, lines: Sequence[Line]) -> Score:
    """How many printed values of known models each rule rounds to; equal values count once."""
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
            rule = f"saved for backward, batch {column.batch}"
            one, other = (workshop.hold(row.build, column.batch).kept for row in rows if row.build)
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
    change = units.signed_percent(computed * below / above - 1)
    return replace(
        blank,
        computed=computed,
        rule=rule,
        verdict="agrees" if agrees else "differs",
        reason=f"{change} from that of printed values",
    )


def _cell(place: CellPlace, tables: Sequence[TableData], workshop: Workshop) -> Cell:
    row, column = place.row, place.column
    assert column.quantity is not None
    blank = Cell(
        *(place.table.table, place.label, column.name, column.quantity, row.values[column.name]),
        *(None, None, "published only", "published only"),
    )
    if not column.is_computed:
        return replace(blank, reason=CARRIED[column.quantity])
    printed = place.printed
    blank = replace(blank, low=float(printed.low), high=float(printed.high))
    if not row.builds:
        return replace(blank, reason=row.unbuilt + twin(place, workshop))
    blank = replace(blank, expected=row.expect.get(column.name, "agrees"))
    by_rules: tuple[Evidence, ...] = ()
    try:
        if column.batch is not None:
            evidence = memory_evidence(row.builds[0], column.batch, workshop)
            verdict, reason = judge_memory(printed, column.batch, evidence)
        else:
            i = choose(place, workshop)
            evidence = [evidence_of(build, row, column, workshop) for build in row.builds]
            verdict, reason = _judge(place, i, evidence, tables, workshop)
            by_rules = readings(row.builds[i], place, workshop)
            evidence.insert(0, evidence.pop(i))
    except DatbenchError as error:
        if isinstance(error, UnknownNameError) and place.table.table not in FILES:
            # A name misspelt in a user's file; the papers' rows may be of a newer timm.
            raise UsageError(
                f"{place.table.path}: row {row.number} ({place.label}): {error}"
            ) from error
        return replace(blank, reason=f"not computed: {error}", failed=True)
    return replace(
        blank,
        verdict=verdict,
        reason=reason,
        difference=printed.miss(amount_of(evidence[0])),
        evidence=tuple(evidence),
        readings=by_rules,
        follows=tuple(e.rule for e in by_rules if printed.agrees(amount_of(e))),
    )


def _judge(
    place: CellPlace,
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
    # What is tried makes no difference here, so the row is as good as one of a known model.
    contradicting = contradictions(place, build, amount, tables, workshop)
    if contradicting:
        return "wrong in print", f"{differs}, and {' and '.join(contradicting)} for the same model"
    owned, is_copied = owner(place, workshop)
    if is_copied:
        return "wrong in print", f"{differs}, and {owned}"
    found = [differs, *hints(place, build, amount, workshop)]
    return "differs", "; ".join([*found, owned] if owned else found)


def compare_tables(
    tables: Iterable[TableData], device: str | None = None, workshop: Workshop | None = None
) -> list[Comparison]:
    """Compute every table; models that they share are counted once.

    A paper's verdicts rest on the papers alone; those of a user's table, on its own rows too.

    Args:
        device: where printed memory is measured besides being simulated.
        workshop: where they are counted; the default is a new one.

    Raises:
        UsageError: a row of a user's table names a model that does not exist.
    """
    workshop, known = workshop or Workshop(device), paper_tables()
    return [
        compare(table, [other for other in known if other is not table], workshop)
        for table in tables
    ]


def check_device(tables: Sequence[TableData], device: str) -> None:
    """Refuse a device for tables without printed memory, or one that is not here.

    Raises:
        UsageError: the message says why.
    """
    if not any(column.batch for table in tables for column in table.columns):
        raise UsageError("--device measures printed memory; table 8 prints some.")
    if not device.startswith("cuda"):
        raise UsageError(f"--device {device}: printed memory is measured on cuda.")
    check_present(device)


def check_verdicts(comparisons: Sequence[Comparison]) -> None:
    """Hold cells and quotients to the verdicts that the tables' files expect.

    Raises:
        CheckFailed: a verdict is another one.
        MissingError: a figure could not be computed.
    """
    cells = [cell for comparison in comparisons for cell in comparison.cells()]
    wrong = [cell for cell in cells if cell.verdict != cell.expected and not cell.failed]
    if wrong:
        named = "; ".join(
            f"table {c.table}, {c.row}, {c.column}: {c.verdict}, expected {c.expected}"
            for c in wrong
        )
        raise CheckFailed(f"{len(wrong)} of {len(cells)} cells are not as expected: {named}.")
    failed = [cell for cell in cells if cell.failed]
    if failed:
        rows = dict.fromkeys(f"table {c.table}, {c.row}" for c in failed)
        raise MissingError(
            f"{len(failed)} of {len(cells)} cells could not be computed: {'; '.join(rows)}; "
            f"{failed[0].reason}"
        )
    for r in (ratio for comparison in comparisons for ratio in comparison.ratios):
        where = f"table {r.table}, {r.column}, {r.row} over {r.over}"
        if r.computed is None:
            raise MissingError(f"{where}: {r.reason}")
        if not r.is_expected:
            raise CheckFailed(
                f"{where}: {r.computed:.3f} {r.verdict} from the printed {r.printed}."
            )
