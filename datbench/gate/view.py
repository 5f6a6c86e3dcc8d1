"""Verdicts of a gate, and the difference between two baselines, as tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from .. import units
from ..render.table import Column, Table
from ..setting import facts
from .records import Baseline, Change, GateRow, detail_of

PLACES = 12
"""Changes of one row that people see; JSON has them all."""

_STYLES = {
    "same": "green",
    "faster": "green",
    "changed": "red",
    "slower": "red",
    "failed": "red",
    "missing": "yellow",
    "ambiguous": "yellow",
}

_PLACE = (
    Column("model", "model", label=True),
    Column("resolution", "input", value=lambda row: facts(row).get("resolution"), label=True),
    Column("what", "what", label=True),
    Column(
        "detail",
        "of",
        value=lambda row: row.detail if isinstance(row, GateRow) else detail_of(row),
        label=True,
    ),
)
"""Which row it is: of a gate, or of a baseline."""

_PLURALS = {"count": "counts", "memory": "ledgers", "time": "times"}


def tables(
    rows: Sequence[GateRow], baseline: str = "gate", notes: Sequence[str] = (), one: bool = False
) -> list[Table]:
    """How many rows have which verdict, those that are not the same, and what changed in them.

    Args:
        one: a line for every row, and nothing else, as a CSV file holds.
    """
    if one:
        return [_verdicts(rows)]
    other = [row for row in rows if row.verdict != "same"]
    found = [_summary(rows, baseline, notes)]
    if other:
        found.append(_verdicts(other, "What is not the same"))
    return [*found, *(_changes(row) for row in other if row.changes)]


def _summary(rows: Sequence[GateRow], baseline: str, notes: Sequence[str]) -> Table:
    counts = {verdict: sum(row.verdict == verdict for row in rows) for verdict in _STYLES}
    said = ", ".join(f"{count} {verdict}" for verdict, count in counts.items() if count)
    if counts["same"] == len(rows):
        said = "nothing has changed" if rows else "nothing was compared"

    def number(verdict: str) -> Column:
        def count(what: str) -> int:
            return sum(row.what == what and row.verdict == verdict for row in rows)

        return Column(verdict, verdict, units.integer, count)

    columns = (
        Column("what", "compared", value=_PLURALS.get),
        *(number(verdict) for verdict, count in counts.items() if verdict == "same" or count),
    )
    whats = [what for what in _PLURALS if any(row.what == what for row in rows)]
    return Table.of(columns, whats, f"{baseline}: {said}", notes)


def _verdicts(rows: Sequence[GateRow], title: str = "") -> Table:
    """One line a row of the gate."""

    def optional(name: str, title: str, text: Any, value: Any, when: Any = "always") -> Column:
        column = Column(name, title, text, value, when=when)
        return replace(column, hidden=not any(map(column.of, rows)))

    columns = (
        *_PLACE,
        Column("verdict", "verdict", style=lambda text: _STYLES.get(text, "")),
        optional("direction", "direction", None, lambda row: row.direction or None, "wide"),
        optional("changes", "changes", units.integer, lambda row: len(row.changes), "wide"),
        optional("headline", "most of all", None, _headline),
        optional("reason", "reason", None, lambda row: row.reason or None),
        *(Column(name, name, hidden=True) for name in ("ratio", "low", "high")),
    )
    return Table.of(columns, rows, title)


def _headline(row: GateRow) -> str | None:
    """The one figure to read first."""
    if row.ratio is not None and row.low is not None and row.high is not None:
        return f"speed x{row.ratio:.3f} ({row.low:.3f} to {row.high:.3f})"
    for change in row.changes:
        if not change.place and isinstance(change.before, int) and isinstance(change.after, int):
            return f"{change.quantity} {_difference(change)}"
    return None


def _changes(row: GateRow) -> Table:
    columns = (
        Column(
            "place",
            "module and operator",
            value=lambda each: _short(each.place) or "(whole)",
            label=True,
        ),
        Column("quantity", "figure", label=True),
        Column("before", "was", value=lambda each: _said(each.before)),
        Column("after", "is", value=lambda each: _said(each.after)),
        Column("difference", "difference", value=_difference),
    )
    totals = [change for change in row.changes if not change.place]
    shown = [*totals, *[change for change in row.changes if change.place][:PLACES]]
    more = len(row.changes) - len(shown)
    notes = [f"And {more} more places; --format json has them all."] if more else []
    title = f"{row.model} at {row.setting.resolution}, {row.what} ({row.detail}): what changed"
    return Table.of(columns, shown, title, notes)


def complaint(bad: Sequence[GateRow]) -> str:
    """The rows that decide, in a sentence: the first, and what changed in it."""
    first = bad[0]
    more = f", and {len(bad) - 1} more" if len(bad) > 1 else ""
    changes = sorted(first.changes, key=lambda change: not change.place)  # places tell most
    why = first.reason or (_sentence(changes[0]) if changes else "")
    said = (
        f"{first.model} at {first.setting.resolution} ({first.what}, {first.detail}) is "
        f"{first.verdict}{more}"
    )
    return f"{': '.join(filter(None, (said, why))).rstrip('.')}."


def _sentence(change: Change) -> str:
    """A change in words: where, what, was and is."""
    where = f"{_short(change.place)}: " if change.place else ""
    was, now = (_said(value) or "-" for value in (change.before, change.after))
    return f"{where}{change.quantity} {was} -> {now}"


def _short(place: str) -> str:
    return place.replace(" aten::", " ").replace(" datbench::", " ")


def _said(value: float | str | None) -> str | None:
    return value if value is None or isinstance(value, str) else units.integer(value)


def _difference(change: Change) -> str:
    old, new = change.before, change.after
    if old is None:
        return "new"
    if new is None:
        return "gone"
    if isinstance(old, str) or isinstance(new, str):
        return f"{old} -> {new}"
    return units.change(old, new)


def update_tables(
    rows: Sequence[GateRow], came: Sequence[Baseline], gone: Sequence[Baseline], name: str
) -> list[Table]:
    """What writing a baseline changes in it: old beside new, rows that came and that went."""
    moved = [row for row in rows if row.changes or row.verdict not in ("same", "faster")]
    listed = (("new", came), ("removed", gone), ("changed", moved))
    lines = tuple(
        (word, *(column.of(row) for column in _PLACE)) for word, group in listed for row in group
    )
    same = len(rows) - len(moved)
    title = f"{name}: {len(came)} new, {len(moved)} changed, {len(gone)} removed, {same} the same"
    table = Table((Column("change", "change"), *_PLACE), lines, title)
    return [table, *(_changes(row) for row in moved if row.changes)]


def baseline_table(rows: Sequence[Baseline]) -> Table:
    """What a baseline holds, in figures that people know."""

    def forward(row: Baseline) -> int | None:
        return row.totals.get("fvcore", {}).get("forward") if row.what == "count" else None

    columns = (
        *_PLACE,
        Column("params", "params (M)", units.mega, lambda row: getattr(row, "params", None)),
        Column("macs", "GMACs forward (fvcore)", units.giga, forward),
        Column("peak_bytes", "peak", units.size, lambda row: getattr(row, "peak", None)),
        Column(
            "processes",
            "processes",
            units.integer,
            lambda row: len(row.seconds) if row.what == "time" else None,
        ),
    )
    return Table.of(columns, rows, "Baseline")
