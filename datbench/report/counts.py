"""Counts and parameters as tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from .. import units
from ..results import CountRow, GroupRow
from .table import Column, Table

By = Literal["stage", "operator", "module"]

_PARAMS = Column("params", "params (M)", units.mega)


def _amount(row: CountRow) -> Column:
    name = "macs" if row.unit == "MAC" else "flops"
    return Column(name, f"G{row.unit}s ({row.convention})", units.giga)


def setting_line(row: CountRow) -> str:
    """What the figures belong to, in words."""
    setting = row.setting
    parts = [
        str(setting.resolution),
        f"batch {setting.batch}",
        setting.dtype,
        f"{setting.attention} attention",
        "forward and backward" if setting.backward else "forward",
    ]
    if setting.features:
        parts.append("four feature maps, no head")
    return ", ".join(parts)


def one_model(row: CountRow, by: Sequence[By], depth: int | None = None) -> list[Table]:
    """A model's total, then its breakdowns."""
    total = f"{units.amount(row.amount, row.unit)}s, {units.amount(row.params)} parameters"
    title = f"{row.model}: {total} ({row.convention} convention; {setting_line(row)})"
    tables: list[Table] = []
    for part in by:
        tables.append(_breakdown(row, part, title if not tables else "", depth))
    last = tables[-1]
    tables[-1] = Table(last.columns, last.rows, last.title, notes([row]))
    return tables


def _breakdown(row: CountRow, by: By, title: str, depth: int | None) -> Table:
    groups = {
        "stage": row.stages,
        "operator": tuple(g for g in row.operators if g.amount),
        "module": _cut(row.modules, depth),
    }[by]
    columns = [
        Column(by, by),
        Column("calls", "calls", units.integer),
        _amount(row),
        Column("share", "share", lambda value: units.share(value, 1)),
        Column("bytes_read", "read", units.size),
        Column("bytes_written", "written", units.size),
        Column("intensity", f"{row.unit}/byte", units.ratio),
    ]
    rows = [
        (g.name, g.calls, g.amount, g.share, g.bytes_read, g.bytes_written, g.intensity)
        for g in groups
    ]
    if by != "stage":
        return Table(tuple(columns), tuple(rows), title)
    columns.insert(4, _PARAMS)
    staged = [(*r[:4], row.stage_params.get(str(r[0])), *r[4:]) for r in rows]
    moved = row.bytes_read + row.bytes_written
    calls = sum(g.calls for g in groups)
    staged.append(
        (
            "total",
            calls,
            row.amount,
            1.0,
            row.params,
            row.bytes_read,
            row.bytes_written,
            row.amount / moved if moved else None,
        )
    )
    return Table(tuple(columns), tuple(staged), title)


def _cut(groups: Sequence[GroupRow], depth: int | None) -> tuple[GroupRow, ...]:
    """Modules summed to `depth` components of their path, in the order in which they ran."""
    if depth is None:
        return tuple(groups)
    sums: dict[str, GroupRow] = {}
    for group in groups:
        key = ".".join(group.name.split(".")[:depth])
        old = sums.get(key)
        if old is None:
            sums[key] = GroupRow(
                key,
                group.calls,
                group.amount,
                group.share,
                group.bytes_read,
                group.bytes_written,
                group.intensity,
            )
            continue
        amount = old.amount + group.amount
        read = old.bytes_read + group.bytes_read
        written = old.bytes_written + group.bytes_written
        moved = read + written
        sums[key] = GroupRow(
            key,
            old.calls + group.calls,
            amount,
            old.share + group.share,
            read,
            written,
            amount / moved if moved else None,
        )
    return tuple(sums.values())


def many_models(rows: Sequence[CountRow]) -> Table:
    """One row a model and resolution."""
    first = rows[0]
    columns = [
        Column("model", "model"),
        Column("resolution", "resolution"),
        _amount(first),
        _PARAMS,
        Column("bytes_read", "read", units.size),
        Column("bytes_written", "written", units.size),
        Column("unknown", "unknown operators", units.integer),
    ]
    values = [
        (
            row.model,
            str(row.setting.resolution),
            row.amount,
            row.params,
            row.bytes_read,
            row.bytes_written,
            sum(row.unknown.values()),
        )
        for row in rows
    ]
    setting = setting_line(first).partition(", ")[2]
    title = f"{first.unit}s under the {first.convention} convention; {setting}"
    return Table(tuple(columns), tuple(values), title, notes(rows))


def notes(rows: Sequence[CountRow]) -> tuple[str, ...]:
    """What the total leaves out, and what a reader must know to quote it."""
    first = rows[0]
    found: list[str] = []
    if first.unit == "MAC":
        found.append("One multiply-add is one MAC. Papers of this field print MACs as FLOPs.")
    else:
        found.append("One multiply-add is two FLOPs.")
    ignored = sorted({_short(name) for row in rows for name in row.ignored})
    if ignored:
        found.append(f"No weight under {first.convention}: {', '.join(ignored)}.")
    unknown: dict[str, int] = {}
    for row in rows:
        for name, calls in row.unknown.items():
            unknown[name] = unknown.get(name, 0) + calls
    if unknown:
        named = ", ".join(f"{name} ({calls} calls)" for name, calls in unknown.items())
        found.append(f"UNKNOWN, cost missing from the total: {named}.")
    return tuple(found)


def _short(operator: str) -> str:
    return operator.removeprefix("aten::")
