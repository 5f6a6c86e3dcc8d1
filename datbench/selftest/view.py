"""Checks of a machine as a table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from .. import units
from ..render.table import Column, Table
from .records import CheckRow, CheckUnit

_TEXTS: dict[CheckUnit | None, Callable[[float], str]] = {
    "MACs": units.integer,
    "bytes": units.size,
    "s": units.seconds,
    "Hz": lambda value: units.amount(value, "Hz"),
    "W": lambda value: f"{value:.0f} W",
    "ratio": "{:.3f}".format,
}
"""How figures of a unit are written; of others with the unit behind them."""


def tables(rows: Sequence[CheckRow], one: bool = False) -> list[Table]:
    """One line a check.

    Args:
        one: for machines, with plain figures.
    """

    def figure(name: str) -> Callable[[CheckRow], float | str | None]:
        def read(row: CheckRow) -> float | str | None:
            value: float | None = getattr(row, name)
            if value is None or one:
                return value
            text = _TEXTS.get(row.unit)
            return text(value) if text else f"{value:,.0f} {row.unit}"

        return read

    columns = (
        Column("subject", "subject", label=True),
        Column("check", "check", label=True),
        Column("device", "device", label=True),
        Column("unit", "unit", hidden=True),
        Column("expected", "expected", str, figure("expected")),
        Column("measured", "measured", str, figure("measured")),
        Column("difference", "difference", _difference),
        Column("allowed", "allowed", units.short_percent, when="wide"),
        Column("verdict", "verdict", value=None if one else _verdict),
        Column("reason", "reason", hidden=True),
    )
    found = Counter(row.verdict for row in rows)
    title = ", ".join(f"{number} {verdict}" for verdict, number in found.items())
    notes = [
        f"{row.subject}, {row.check}: {row.reason}."
        for row in rows
        if row.verdict == "failed" and row.reason
    ]
    return [Table.of(columns, rows, f"Checks of this machine: {title}", notes)]


def _difference(value: float) -> str:
    return f"{100 * value:+.2g} %" if value else "0"


def _verdict(row: CheckRow) -> str:
    return f"not run: {row.reason}" if row.verdict == "not run" else row.verdict
