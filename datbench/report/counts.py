"""Counts and parameters as tables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Literal

from .. import units
from ..results import CountRow, GroupRow
from .table import Column, Table, Value

By = Literal["part", "stage", "operator", "module"]

_PARAMS = Column("params", "params (M)", units.mega)

_SETTING = ("batch", "dtype", "device", "attention", "backward", "features")


def _amount(row: CountRow) -> Column:
    """The column of amounts; its heading never leaves the unit open."""
    return Column("macs" if row.unit == "MAC" else "flops", f"G{row.unit}s", units.giga)


def _setting_columns() -> list[Column]:
    """What people read in the title and machines in every row."""
    return [Column(name, name, hidden=True) for name in (*_SETTING, "convention")]


def _setting_values(row: CountRow) -> tuple[Value, ...]:
    return (*(getattr(row.setting, name) for name in _SETTING), row.convention)


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
    if setting.device != "meta":
        parts.append(f"on {setting.device}")
    if setting.features:
        parts.append("four feature maps, no head")
    return ", ".join(parts)


def one_model(row: CountRow, by: Sequence[By], depth: int | None = None) -> list[Table]:
    """A model's total, then its breakdowns."""
    total = f"{units.amount(row.amount, row.unit)}s"
    if row.backward is not None:
        forward, backward = (units.amount(x, row.unit) for x in (row.forward, row.backward))
        total += f" ({forward}s forward, {backward}s backward)"
    title = (
        f"{row.model}: {total}, {units.amount(row.params)} parameters "
        f"({row.convention} convention; {setting_line(row)})"
    )
    tables = [_breakdown(row, part, depth) for part in by]
    first, last = tables[0], tables[-1]
    tables[0] = Table(first.columns, first.rows, title)
    tables[-1] = Table(last.columns, last.rows, tables[-1].title, notes([row]))
    return tables


def _breakdown(row: CountRow, by: By, depth: int | None) -> Table:
    groups = {
        "part": _parts(row),
        "stage": [g for g in row.stages if _costs(g)],
        "operator": [g for g in row.operators if g.amount],
        "module": [g for g in _cut(row.modules, depth) if _costs(g)],
    }[by]
    staged = by in ("part", "stage")
    columns = [
        *(Column(name, name, hidden=True) for name in ("model", "resolution")),
        *_setting_columns(),
        Column(by, by),
        Column("calls", "calls", units.integer),
        _amount(row),
        Column("share", "share", lambda value: units.share(value, 1)),
        *([_PARAMS] if staged else []),
        Column("bytes_read", "read", units.size),
        Column("bytes_written", "written", units.size),
        Column("intensity", f"{row.unit}/byte", units.ratio),
    ]
    setting = (row.model, str(row.setting.resolution), *_setting_values(row))
    params = {**row.stage_params, **_part_params(row), "total": row.params}
    rows = [
        (
            *setting,
            _short(g.name),
            g.calls,
            g.amount,
            g.share,
            *([params.get(g.name)] if staged else []),
            g.bytes_read,
            g.bytes_written,
            g.intensity,
        )
        for g in [*groups, *([_sum("total", groups)] if staged else [])]
    ]
    return Table(tuple(columns), tuple(rows))


def _parts(row: CountRow) -> list[GroupRow]:
    """Stages summed to parts, also those that only have parameters (UperNet's auxiliary head)."""
    stages: dict[str, list[GroupRow]] = {part: [] for part in _part_params(row)}
    for group in row.stages:
        stages.setdefault(group.name.partition(".")[0], []).append(group)
    sums = [_sum(part, groups) for part, groups in stages.items()]
    return [group for group in sums if _costs(group) or _part_params(row).get(group.name)]


def _part_params(row: CountRow) -> dict[str, int]:
    found: Counter[str] = Counter()
    for stage, params in row.stage_params.items():
        found[stage.partition(".")[0]] += params
    return dict(found)


def _costs(group: GroupRow) -> bool:
    return bool(group.amount or group.bytes_read or group.bytes_written)


def _cut(groups: Sequence[GroupRow], depth: int | None) -> Sequence[GroupRow]:
    """Modules summed to `depth` components of their path, in the order in which they ran."""
    parts: dict[str, list[GroupRow]] = {}
    for group in groups:
        parts.setdefault(".".join(group.name.split(".")[:depth]), []).append(group)
    return [_sum(name, part) for name, part in parts.items()]


def _sum(name: str, parts: Sequence[GroupRow]) -> GroupRow:
    amount = sum(part.amount for part in parts)
    read = sum(part.bytes_read for part in parts)
    written = sum(part.bytes_written for part in parts)
    return GroupRow(
        name,
        sum(part.calls for part in parts),
        amount,
        sum(part.share for part in parts),
        read,
        written,
        amount / (read + written) if read + written else None,
    )


def many_models(rows: Sequence[CountRow]) -> Table:
    """One row a model and resolution."""
    first = rows[0]
    unknown = [sum(row.unknown.values()) for row in rows]
    columns = [
        Column("model", "model"),
        Column("resolution", "resolution"),
        *_setting_columns(),
        _amount(first),
        _PARAMS,
        Column("bytes_read", "read", units.size),
        Column("bytes_written", "written", units.size),
        Column("unknown", "unknown calls", units.integer, hidden=not any(unknown)),
    ]
    values = [
        (
            row.model,
            str(row.setting.resolution),
            *_setting_values(row),
            row.amount,
            row.params,
            row.bytes_read,
            row.bytes_written,
            calls,
        )
        for row, calls in zip(rows, unknown, strict=True)
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
    return operator.removeprefix("aten::").removeprefix("datbench::")
