"""Result files of every kind as tables, as the commands that write them show them."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from .. import units
from ..errors import UsageError
from ..machine import places_apart
from ..records import Environment, ResultFile, document, dumps, flat, flat_rows, parse, to_parquet
from ..render.table import Column, Table
from ..render.text import to_csv, to_latex, to_markdown

Rows = Sequence[Any]

SINGLE = frozenset({"profile", "eq10-measured", "compare-aa", "explain", "points", "env"})
"""Kinds of which every row has tables of its own."""

REPORTED = ("figure", "pytest-benchmark")
"""Kinds of a report's parts that no command shows."""


def tables_of(
    results: ResultFile, one: bool = False, others: Sequence[Environment] = ()
) -> list[Table]:
    """The tables of a result file; every row says whose machine it is of, where there are several.

    Args:
        one: the table comes first that a CSV file holds.
        others: where further rows were measured that the reader sees beside these.

    Raises:
        UsageError: it holds no rows.
    """
    if not results.rows:
        raise UsageError(f"{results.name} holds no rows.")
    if results.kind not in VIEWS:
        return [plain_table(results.document()["rows"], short=not one, title=results.kind)]
    return placed(results.kind, results.rows, results.measured_in, one, others)


def placed(
    kind: str,
    rows: Rows,
    measured_in: Sequence[Environment],
    one: bool = False,
    others: Sequence[Environment] = (),
) -> list[Table]:
    """The tables of rows of a kind, each row with its machine where there are several."""
    where = places_apart([*measured_in, *others])
    if len(set(where)) < 2:
        return tables(kind, rows, one)
    whose = dict(zip(map(id, rows), where[: len(rows)], strict=True))
    found = []
    for some in [[row] for row in rows] if kind in SINGLE else [rows]:
        first, *further = tables(kind, some, one)
        if kind in SINGLE:
            notes = (f"Measured on {whose[id(some[0])]}.", *first.notes)
            first = replace(first, notes=notes)
        found += [_with_places(table, whose) for table in (first, *further)]
    return found


def _with_places(table: Table, whose: Mapping[int, str]) -> Table:
    """The table with the machine of each row, where its rows are those of the file."""
    names = []
    for record in table.records:
        row = record.get("row") if isinstance(record, Mapping) else record
        names.append(whose.get(id(row)))
    if not names or None in names:
        return table
    return table.and_column(Column("measured_on", "measured on", label=True), names)


def converted(results: ResultFile, target: str, each: str | None, name: str) -> str | bytes:
    """A result file for another program.

    Args:
        each: of csv, md, latex and parquet: a row for each element of this list.
        name: of the file, for labels of LaTeX.

    Raises:
        UsageError: pytest-benchmark is asked for and it holds no times.
    """
    content = results.document()
    if target == "json":
        return dumps(content)
    if target == "parquet":
        return to_parquet(flat_rows(content["rows"], each))
    if target == "pytest-benchmark":
        from ..timing.pytest_benchmark import document

        if results.kind != "throughput":
            raise UsageError(f"{results.name} holds {results.kind}; times are of throughput.")
        return dumps(document(results.rows, results.environment))
    tables = tables_of(results, target == "csv")
    if each is not None:
        tables = [plain_table(content["rows"], each, short=target != "csv")]
    if target == "latex":
        return to_latex(tables, name)
    return (to_csv if target == "csv" else to_markdown)(tables)


def checks_table(checks: Rows) -> Table:
    """A line for each problem of a checked file, and for each whole file."""
    names = ("file", "kind", "rows", "verdict", "where", "problem")
    lines = [
        {**vars(check), "where": found and found.where, "problem": found and found.problem}
        for check in checks
        for found in check.problems or (None,)
    ]
    return Table.of([Column(n, n, str if n == "rows" else None) for n in names], lines)


def tables(kind: str, rows: Rows, one: bool = False) -> list[Table]:
    """The same of rows of a kind that has a view."""
    return VIEWS[kind](rows, one)


def _view(room: str) -> Any:
    """A room's view, imported on first use: showing one kind does not load the others."""
    return importlib.import_module(f"datbench.{room}.view")


def _each(view: Callable[[Any, bool], list[Table]]) -> Callable[[Rows, bool], list[Table]]:
    """The tables of every row, one after the other."""
    return lambda rows, one: [table for row in rows for table in view(row, one)]


def _profile(row: Any, one: bool) -> list[Table]:
    view = _view("profile")
    if one:
        return [view.parts_table(row, "stage")]
    found: list[Table] = view.tables(row, ["stage"], None, 10)
    return found


def _report(parts: Rows, one: bool) -> list[Table]:
    """A list of a report's parts, and each part as a file of its own would be shown."""
    columns = (
        Column("kind", "kind"),
        Column("role", "role"),
        Column("rows", "rows", units.integer, lambda part: len(part.rows)),
        Column("source", "source"),
    )
    listed = Table.of(columns, parts, "Parts of the report")
    files = [
        parse(document(part.kind, part.rows, part.environment), part.source)
        for part in parts
        if not one and part.rows and not part.role and part.kind not in REPORTED
    ]
    return [listed, *(table for file in files for table in tables_of(file))]


VIEWS: dict[str, Callable[[Rows, bool], list[Table]]] = {
    "flops": lambda rows, one: _view("counting").tables(rows, one=one),
    "explain": _each(lambda row, one: _view("counting").explain_tables(row, one)),
    "params": lambda rows, one: [_view("counting").params_table(rows)],
    "models": lambda rows, one: _view("models").models_tables(rows, one),
    "memory": lambda rows, one: _view("memory").tables(rows, one=one),
    "memory-measured": lambda rows, one: _view("memory").measured_tables(rows, one),
    "memory-largest": lambda rows, one: _view("memory").largest_tables(rows),
    "throughput": lambda rows, one: _view("timing").tables(rows, one),
    "compare": lambda rows, one: _view("compare").tables(rows),
    "compare-aa": _each(lambda row, one: [_view("compare").alarms_table(row)]),
    "profile": _each(_profile),
    "eq10": lambda rows, one: _view("eq10").tables(rows, one=one),
    "eq10-fit": _each(lambda row, one: [_view("eq10").fit_table(row)]),
    "eq10-paper": lambda rows, one: [_view("eq10").claims_table(rows)],
    "eq10-measured": _each(lambda row, one: _view("eq10").measured_tables(row)),
    "table": lambda rows, one: (
        [_view("paper").cell_table(rows)] if one else _view("paper").tables(rows)
    ),
    "summary": lambda rows, one: [_view("paper").summary_table(rows)],
    "points": _each(lambda row, one: _view("points").tables(row, one)),
    "gate": lambda rows, one: _view("gate").tables(rows, one=one),
    "baseline": lambda rows, one: [_view("gate").baseline_table(rows)],
    "selftest": lambda rows, one: _view("selftest").tables(rows, one),
    "report": _report,
    "env": _each(lambda row, one: [environment_table(row)]),
    "peaks": lambda rows, one: [_view("timing").peaks_table(rows)],
    "sweep": lambda rows, one: _view("sweep").tables(rows, one),
    "sweep-plan": lambda rows, one: _view("sweep").plan_tables(rows, one),
    "sweep-fit": lambda rows, one: _view("sweep").fit_tables(rows),
}
"""How rows of each kind are shown; of a kind that is not here, a column shows each field."""


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
    return Table(columns, tuple(tuple(row.values()) for row in found), title)


def _numeric(column: Sequence[Any]) -> bool:
    present = [value for value in column if value is not None]
    return bool(present) and all(
        isinstance(value, (int, float)) and not isinstance(value, bool) for value in present
    )


def _number(value: float) -> str:
    return units.integer(value) if isinstance(value, int) else f"{value:g}"
