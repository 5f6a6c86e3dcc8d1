"""What a model of others consists of, as a table."""

from __future__ import annotations

from collections.abc import Sequence

from .. import units
from ..results import PartRow
from .table import Column, Table


def parts_table(name: str, size: str, kind: str, rows: Sequence[PartRow]) -> Table:
    """One row for each part of the model, in its order, and the whole."""
    columns = (
        Column("part", "part"),
        Column("kind", "class"),
        Column("params", "params (M)", units.mega),
        Column("frozen", "frozen", units.integer),
        Column("buffers", "buffers", units.integer),
    )
    shown = [*rows, _whole(kind, rows)]
    values = tuple((r.part, r.kind, r.params, r.frozen, r.buffers) for r in shown)
    return Table(columns, values, f"{name} at {size}")


def _whole(kind: str, rows: Sequence[PartRow]) -> PartRow:
    return PartRow(
        "total",
        kind,
        sum(row.params for row in rows),
        sum(row.frozen for row in rows),
        sum(row.buffers for row in rows),
    )
