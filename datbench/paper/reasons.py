"""Why a computed figure may not be the printed one: every reason rests on figures computed here."""

from __future__ import annotations

from collections.abc import Sequence

from .. import units
from ..errors import DatbenchError
from .evidence import UNITS, Place, amount_of, evidence_of
from .tables import ALONE, HOOKS_AND_PRODUCTS, WITHOUT_RESIZING, Build, RowData, TableData
from .workshop import Workshop


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
