"""Any result file as tables: as the command that wrote it shows it, where that can be told."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .. import units
from ..errors import UsageError
from ..records import Results, document, flat, flat_rows, parse
from ..render.table import Column, Table, Value

Tables = list[Table]

REPORTED = ("figure", "pytest-benchmark")
"""Kinds of a report's parts that no command shows."""


def tables_of(results: Results, one: bool = False) -> Tables:
    """The tables of a result file.

    Args:
        one: a single table, as a CSV file holds.

    Raises:
        UsageError: it holds no rows.
    """
    if not results.rows:
        raise UsageError(f"{results.name} holds no rows.")
    return _SHOWN.get(results.kind, _plain)(results.rows, results, one)


def _flops(rows: Sequence[Any], results: Results, one: bool) -> Tables:
    from ..counting.view import tables

    return tables(rows, one=one)


def _memory(rows: Sequence[Any], results: Results, one: bool) -> Tables:
    from ..memory.view import tables

    return tables(rows, one=one)


def _memory_measured(rows: Sequence[Any], results: Results, one: bool) -> Tables:
    from ..memory.view import measured_tables

    return measured_tables(rows, one)


def _memory_largest(rows: Sequence[Any], results: Results, one: bool) -> Tables:
    from ..memory.view import largest_tables

    return largest_tables(rows)


def _throughput(rows: Sequence[Any], results: Results, one: bool) -> Tables:
    from ..timing.view import many, tables

    return [many(rows)] if one else tables(rows)


def _compare(rows: Sequence[Any], results: Results, one: bool) -> Tables:
    from ..compare.view import tables

    return tables(rows)


def _alarms(rows: Sequence[Any], results: Results, one: bool) -> Tables:
    from ..compare.view import alarms_table

    return [alarms_table(row) for row in rows]


def _profile(rows: Sequence[Any], results: Results, one: bool) -> Tables:
    from ..profile.view import parts_table, tables

    if one:
        return [parts_table(row, "stage", None, len(row.groups)) for row in rows]
    return [table for row in rows for table in tables(row, ["stage"], None, 10)]


def _explain(rows: Sequence[Any], results: Results, one: bool) -> Tables:
    from ..counting.view import explain_tables

    return [table for row in rows for table in explain_tables(row, one)]


def _eq10(rows: Sequence[Any], results: Results, one: bool) -> Tables:
    from ..eq10.view import tables

    return tables(rows, one=one)


def _fit(rows: Sequence[Any], results: Results, one: bool) -> Tables:
    from ..eq10.view import fit_table

    return [fit_table(row) for row in rows]


def _claims(rows: Sequence[Any], results: Results, one: bool) -> Tables:
    from ..eq10.view import claims_table

    return [claims_table(rows)]


def _measured(rows: Sequence[Any], results: Results, one: bool) -> Tables:
    from ..eq10.view import measured_tables

    return [table for row in rows for table in measured_tables(row)]


def _table(rows: Sequence[Any], results: Results, one: bool) -> Tables:
    from ..paper.view import cell_table, tables

    return [cell_table(rows)] if one else tables(rows)


def _points(rows: Sequence[Any], results: Results, one: bool) -> Tables:
    from ..points.view import points_table, summary_table

    return [points_table(row) if one else summary_table(row) for row in rows]


def _gate(rows: Sequence[Any], results: Results, one: bool) -> Tables:
    from ..gate.view import tables, verdicts_table

    return [verdicts_table(rows)] if one else tables(rows, "gate")


def _baseline(rows: Sequence[Any], results: Results, one: bool) -> Tables:
    from ..gate.view import baseline_table

    return [baseline_table(rows)]


def _report(rows: Sequence[Any], results: Results, one: bool) -> Tables:
    """The parts of a report, each as a file of its own would be shown; one table lists them."""
    columns = (
        Column("kind", "kind"),
        Column("role", "role"),
        Column("rows", "rows", units.integer),
        Column("source", "source"),
    )
    lines = tuple((part.kind, part.role, len(part.rows), part.source) for part in rows)
    listed = Table(columns, lines, "Parts of the report")
    if one:
        return [listed]
    parts = [
        parse(document(part.kind, part.rows, part.environment), part.source)
        for part in rows
        if part.rows and not part.role and part.kind not in REPORTED
    ]
    return [listed, *(table for part in parts for table in tables_of(part))]


def _env(rows: Sequence[Any], results: Results, one: bool) -> Tables:
    return [environment_table(row) for row in rows]


def environment_table(row: Mapping[str, Any]) -> Table:
    """A line for each thing that is known of a machine, and one for each GPU."""
    lines = [(name, _word(name, value)) for name, value in flat(row).items() if name != "gpus"]
    gpus = [
        "; ".join(f"{k} {_word(k, v)}" for k, v in gpu.items()) for gpu in row.get("gpus") or ()
    ]
    lines += [(f"gpus.{n}", said) for n, said in enumerate(gpus)] or [("gpus", "none")]
    return Table((Column("what", "what"), Column("value", "value")), tuple(lines))


def _word(name: str, value: object) -> str | None:
    if name.endswith("_bytes") and isinstance(value, int):
        return units.size(value)
    return None if value is None else str(value)


def _plain(rows: Sequence[Any], results: Results, one: bool) -> Tables:
    """One column a field."""
    return [plain_table(results.document()["rows"], short=not one, title=results.kind)]


_SHOWN: dict[str, Callable[[Sequence[Any], Results, bool], Tables]] = {
    "flops": _flops,
    "memory": _memory,
    "memory-measured": _memory_measured,
    "memory-largest": _memory_largest,
    "throughput": _throughput,
    "compare": _compare,
    "compare-aa": _alarms,
    "profile": _profile,
    "explain": _explain,
    "eq10": _eq10,
    "eq10-fit": _fit,
    "eq10-paper": _claims,
    "eq10-measured": _measured,
    "table": _table,
    "gate": _gate,
    "points": _points,
    "baseline": _baseline,
    "report": _report,
    "env": _env,
}


def plain_table(
    rows: Sequence[Mapping[str, Any]],
    field: str | None = None,
    short: bool = False,
    title: str = "",
) -> Table:
    """One column a field; what all numbers are is aligned as numbers."""
    found = flat_rows(rows, field, short)
    names = list(found[0]) if found else []
    columns = tuple(
        Column(name, name, _number if _numeric([row[name] for row in found]) else None)
        for name in names
    )
    return Table(columns, tuple(tuple(map(_value, row.values())) for row in found), title)


def _numeric(column: Sequence[Any]) -> bool:
    present = [value for value in column if value is not None]
    return bool(present) and all(
        isinstance(value, (int, float)) and not isinstance(value, bool) for value in present
    )


def _number(value: float) -> str:
    return units.integer(value) if isinstance(value, int) else f"{value:g}"


def _value(value: Any) -> Value:
    return str(value).lower() if isinstance(value, bool) else value
