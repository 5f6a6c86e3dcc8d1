"""What models cost over sizes, and in which of their modules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ... import units
from ...profiles import ProfileRow
from ...results import CountRow
from ..partition import partition
from ..roofline import setting_line
from ..table import Column, Table
from ..vega import SHAPES, Chart, Datum, Spec, bottom, chosen, field, spec, words

COUNTED = "counted on tensors without values, which is the same on every machine"
"""Where what no machine changes was counted."""


def resolutions(rows: Sequence[CountRow]) -> Chart | None:
    """MACs of models over the side of their input; None of fewer than two sizes."""
    if len({row.setting.resolution for row in rows}) < 2:
        return None
    values = [
        {
            "model": row.model,
            "side": (row.setting.resolution.width * row.setting.resolution.height) ** 0.5,
            "input": str(row.setting.resolution),
            "macs": row.amount / row.setting.batch / 1e9,
            "pixel": row.amount
            / (row.setting.batch * row.setting.resolution.width * row.setting.resolution.height)
            / 1e3,
        }
        for row in rows
    ]
    models = list(dict.fromkeys(row.model for row in rows))
    unit = f"G{rows[0].unit}s ({rows[0].convention})"
    x = field(
        "side",
        "side of the input (pixels)",
        scale={"type": "log", "nice": False, "padding": 24},
        axis={"values": sorted({d["side"] for d in values}), "format": ".0f", "grid": False},
    )
    scale = {"domain": models}
    body = spec(
        values,
        340,
        mark={"type": "line", "point": {"size": 60, "filled": True}},
        encoding={
            "x": x,
            "y": field("macs", unit, scale={"type": "log"}, axis={"format": "~g"}),
            "color": words("model", scale=scale, legend=bottom(6, 2)),
            "shape": words("model", scale={**scale, "range": list(SHAPES)}),
            "tooltip": [
                words("model"),
                words("input"),
                field("macs", unit, format=",.4~f"),
                field("pixel", "thousand for one pixel", format=",.2f"),
            ],
        },
    )
    columns = (
        Column("model", "model"),
        Column("input", "input"),
        Column("macs", unit, lambda value: f"{value:,.4f}"),
        Column("pixel", "thousand for one pixel", lambda value: f"{value:,.2f}"),
    )
    shown = tuple(tuple(d[column.name] for column in columns) for d in values)
    return Chart(
        "cost-resolution",
        "Multiply-adds over the input's side",
        body,
        f"Multiply-adds of {', '.join(models)} at {len({d['input'] for d in values})} input sizes.",
        f"Both axes are logarithmic; {rows[0].convention} convention, one image, forward. The "
        "side of an input that is no square is that of the square with its area. The figures below "
        "give the cost of one pixel too, which is level where cost grows with the area.",
        COUNTED,
        Table(columns, shown),
        by=f"{rows[0].convention} convention, forward",
    )


def icicle_of_counts(rows: Sequence[CountRow]) -> Chart | None:
    """MACs or FLOPs by module."""
    rows = [row for row in rows if row.modules and row.amount]
    if not rows:
        return None
    amounts = {
        f"{row.model}, {row.setting.resolution}": {g.name: float(g.amount) for g in row.modules}
        for row in rows
    }
    unit = rows[0].unit
    return _icicle(
        "icicle-counts",
        f"Where the {unit}s are",
        amounts,
        lambda value: f"{units.amount(value, unit)}s",
        f"{rows[0].convention} convention, forward. Each row of rectangles is one level deeper in "
        f"the model; a rectangle is as wide as its share of the {unit}s.",
        COUNTED,
        f"{rows[0].convention} convention, forward",
    )


def icicle_of_times(row: ProfileRow, number: int, where: str) -> Chart | None:
    """Time by module, of one profile."""
    amounts = {f"{row.model}, {row.setting.resolution}": {p.name: p.seconds for p in row.modules}}
    return _icicle(
        f"icicle-time-{number}",
        f"Where the time goes: {row.model} at {row.setting.resolution}",
        amounts,
        units.seconds,
        f"Time in operators under the profiler. {setting_line(row)}. A rectangle is as wide as "
        "its share of that time.",
        where,
        f"time in operators, under the profiler; {setting_line(row)}",
    )


def _icicle(
    key: str,
    title: str,
    amounts: Mapping[str, Mapping[str, float]],
    said: Any,
    caption: str,
    where: str,
    by: str,
) -> Chart | None:
    values: list[Datum] = []
    for model, of_modules in amounts.items():
        values += [
            {
                "model": model,
                "name": rect.name,
                "module": rect.path,
                "branch": rect.branch,
                "top": rect.level,
                "bottom": rect.level + 0.96,
                "start": rect.start,
                "end": rect.end,
                "share": rect.end - rect.start,
                "amount": said(rect.amount),
            }
            for rect in partition(of_modules)
        ]
    if not values:
        return None
    levels = int(max(d["top"] for d in values)) + 1
    branches = list(dict.fromkeys(d["branch"] for d in values))
    whole = {"domain": [0, 1], "nice": False}
    place: Spec = {
        "x": field("start", None, axis={"format": "%", "grid": False}, scale=whole),
        "x2": {"field": "end"},
        "y": field(
            "top", None, axis=None, scale={"domain": [0, levels], "reverse": True, "nice": False}
        ),
        "y2": {"field": "bottom"},
    }
    wide = "(datum.end - datum.start) * width"
    body = spec(
        values,
        36 * levels,
        layer=[
            {
                "mark": {"type": "rect", "strokeWidth": 0.5, "stroke": {"expr": "surface"}},
                "encoding": {
                    **place,
                    "color": words("branch", None, scale={"domain": branches}, legend=None),
                    "opacity": field(
                        "top",
                        legend=None,
                        scale={
                            "domain": [0, levels],
                            "range": [{"expr": "full"}, {"expr": "pale"}],
                        },
                    ),
                    "tooltip": [
                        words("module"),
                        words("amount"),
                        field("share", "share of the whole", format=".2%"),
                    ],
                },
            },
            {
                "transform": [{"filter": f"{wide} > 24"}],
                "mark": {
                    "type": "text",
                    "align": "left",
                    "baseline": "middle",
                    "dx": 5,
                    "dy": 17,
                    "fontSize": 11,
                    "color": "#111111",
                    "limit": {"expr": f"{wide} - 8"},
                },
                "encoding": {"x": place["x"], "y": place["y"], "text": words("name")},
            },
        ],
        **chosen("model", list(amounts)),
    )
    body["params"] = [
        *body.get("params", []),
        {"name": "surface", "value": "white"},
        {"name": "full", "value": 0.8},
        {"name": "pale", "value": 0.45},
    ]
    columns = (
        Column("model", "model"),
        Column("module", "module"),
        Column("amount", "amount"),
        Column("share", "share", lambda value: f"{100 * value:.2f} %"),
    )
    rows = tuple(tuple(d[column.name] for column in columns) for d in values if 0 < d["top"] <= 2)
    largest = max((d for d in values if d["top"] == 1), key=lambda d: d["share"], default=values[0])
    return Chart(
        key,
        title,
        body,
        f"Modules of {', '.join(amounts)} as nested rectangles. Of all, {largest['module']} of "
        f"{largest['model']} has the largest share, {100 * largest['share']:.1f} %.",
        caption,
        where,
        Table(columns, rows, notes=("Two levels; report.json has every module.",)),
        tuple(amounts),
        by,
    )
