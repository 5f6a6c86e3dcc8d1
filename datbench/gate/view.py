"""Verdicts of a gate, and the difference between two baselines, as tables."""

from __future__ import annotations

from collections.abc import Sequence

from .. import units
from ..render.table import Column, Table, Value
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


def gate_tables(rows: Sequence[GateRow], baseline: str, notes: Sequence[str] = ()) -> list[Table]:
    """How many rows have which verdict, those that are not the same, and what changed in them."""
    tables = [_summary(rows, baseline, tuple(notes))]
    other = [row for row in rows if row.verdict != "same"]
    if other:
        tables.append(_verdicts(other))
    return [*tables, *(_changes(row) for row in other if row.changes)]


def _summary(rows: Sequence[GateRow], baseline: str, notes: tuple[str, ...]) -> Table:
    plural = {"count": "counts", "memory": "ledgers", "time": "times"}
    whats = [what for what in plural if any(row.what == what for row in rows)]
    seen = [v for v in _STYLES if v == "same" or any(row.verdict == v for row in rows)]
    columns = (
        Column("what", "compared"),
        *(Column(verdict, verdict, units.integer) for verdict in seen),
    )
    values: list[tuple[Value, ...]] = [
        (
            plural[what],
            *(sum(row.what == what and row.verdict == verdict for row in rows) for verdict in seen),
        )
        for what in whats
    ]
    return Table(columns, tuple(values), f"{baseline}: {_said_of(rows)}", notes)


def _said_of(rows: Sequence[GateRow]) -> str:
    if not rows:
        return "nothing was compared"
    counts = {verdict: sum(row.verdict == verdict for row in rows) for verdict in _STYLES}
    if counts["same"] == len(rows):
        return "nothing has changed"
    return ", ".join(f"{count} {verdict}" for verdict, count in counts.items() if count)


def _verdicts(rows: Sequence[GateRow]) -> Table:
    columns = (
        Column("model", "model"),
        Column("resolution", "input"),
        Column("what", "what"),
        Column("detail", "of"),
        Column("verdict", "verdict", style=lambda text: _STYLES.get(text, "")),
        Column("direction", "direction", hidden=not any(row.direction for row in rows)),
        Column("changes", "changes", units.integer, hidden=not any(row.changes for row in rows)),
        Column("headline", "most of all", hidden=not any(_headline(row) for row in rows)),
        Column("reason", "reason", hidden=not any(row.reason for row in rows)),
    )
    return Table(columns, tuple(map(_values, rows)), "What is not the same")


def for_machines(rows: Sequence[GateRow]) -> Table:
    """One line a row of the gate, those that are the same too."""
    names = ("model", "resolution", "what", "detail", "verdict", "direction")
    numbers = ("changes", "headline", "reason", "ratio", "low", "high")
    columns = tuple(Column(name, name) for name in (*names, *numbers))
    values = tuple((*_values(row), row.ratio, row.low, row.high) for row in rows)
    return Table(columns, values)


def _values(row: GateRow) -> tuple[Value, ...]:
    return (
        row.model,
        str(row.setting.resolution),
        row.what,
        row.detail,
        row.verdict,
        row.direction or None,
        len(row.changes),
        _headline(row),
        row.reason or None,
    )


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
        Column("place", "module and operator"),
        Column("quantity", "figure"),
        Column("before", "was"),
        Column("after", "is"),
        Column("difference", "difference"),
    )
    totals = [change for change in row.changes if not change.place]
    places = [change for change in row.changes if change.place]
    shown = [*totals, *places[:PLACES]]
    values = tuple(
        (
            _short(change.place) or "(whole)",
            change.quantity,
            _said(change.before),
            _said(change.after),
            _difference(change),
        )
        for change in shown
    )
    more = len(row.changes) - len(shown)
    notes = (f"And {more} more places; --format json has them all.",) if more else ()
    title = f"{row.model} at {row.setting.resolution}, {row.what} ({row.detail}): what changed"
    return Table(columns, values, title, notes)


def sentence(change: Change) -> str:
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
    difference = new - old
    share = f" ({100 * difference / old:+.3g} %)" if old else ""
    return f"{difference:+,}{share}"


def update_tables(
    rows: Sequence[GateRow], came: Sequence[Baseline], gone: Sequence[Baseline], name: str
) -> list[Table]:
    """What writing a baseline changes in it: old beside new, rows that came and that went."""
    moved = [row for row in rows if row.changes or row.verdict not in ("same", "faster")]
    lines: list[tuple[Value, ...]] = [
        (word, row.model, str(row.setting.resolution), row.what, detail_of(row))
        for word, listed in (("new", came), ("removed", gone))
        for row in listed
    ]
    lines += [
        ("changed", row.model, str(row.setting.resolution), row.what, row.detail) for row in moved
    ]
    columns = tuple(
        Column(key, title)
        for key, title in (
            ("change", "change"),
            ("model", "model"),
            ("resolution", "input"),
            ("what", "what"),
            ("detail", "of"),
        )
    )
    same = len(rows) - len(moved)
    title = f"{name}: {len(came)} new, {len(moved)} changed, {len(gone)} removed, {same} the same"
    return [Table(columns, tuple(lines), title), *(_changes(row) for row in moved if row.changes)]
