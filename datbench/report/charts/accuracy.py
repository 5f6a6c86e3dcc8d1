"""Published accuracy against what it costs."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from ...cells import Comparison, Line
from ...timings import ThroughputRow
from ..overviews import timed_setting
from ..table import Column, Table
from ..vega import SHAPES, Chart, Datum, bottom, field, spec, words


def accuracy(
    comparisons: Sequence[Comparison], timed: Sequence[tuple[str, Sequence[ThroughputRow]]] = ()
) -> Iterator[Chart]:
    """Top-1 against MACs, parameters, and images a second.

    Args:
        timed: measured rows, by where they were measured: each place and each setting has its own
            chart; of several batches the fastest stands there.
    """
    points = _points(comparisons)
    where = "cost computed where the model could be built, otherwise printed; accuracy printed"
    without = _without_top1(comparisons)
    for key, title, label, scale in (
        ("accuracy-macs", "Accuracy against multiply-adds", "GMACs (fvcore)", 1e9),
        ("accuracy-params", "Accuracy against parameters", "parameters (M)", 1e6),
    ):
        quantity = key.partition("-")[2]
        found = [{**p, "x": p[quantity] / scale} for p in points if p.get(quantity)]
        if found:
            yield _scatter(key, title, label, found, where, without)
    number = 0
    for place, rows in timed:
        for setting, alike in _by_setting(rows).items():
            rates = _rates(alike)
            keyed = [(p, rates.get((p["model"], p["input"]))) for p in points]
            said = f"measured on {place}; {setting}"
            found = [
                {**p, "x": rate, "known": "measured", "where": said} for p, rate in keyed if rate
            ]
            if found:
                number += 1
                key = f"accuracy-throughput{f'-{number}' if number > 1 else ''}"
                title = "Accuracy against throughput"
                yield _scatter(key, title, "images/s", found, said, without)


def _by_setting(rows: Sequence[ThroughputRow]) -> dict[str, list[ThroughputRow]]:
    """Inference with the head, by all of the setting but the batch."""
    found: dict[str, list[ThroughputRow]] = {}
    for row in rows:
        if row.how.mode == "infer" and not row.setting.features:
            said = {n: value for n, value in timed_setting(row).items() if n != "batch"}
            words = ", ".join(f"{name} {value}" for name, value in said.items())
            found.setdefault(words, []).append(row)
    return found


def _rates(rows: Sequence[ThroughputRow]) -> dict[tuple[str, str], float]:
    """The fastest row of each model and input."""
    found: dict[tuple[str, str], float] = {}
    for row in rows:
        if row.images_per_second:
            key = (row.model, str(row.setting.resolution))
            found[key] = max(row.images_per_second, found.get(key, 0.0))
    return found


def _points(comparisons: Sequence[Comparison]) -> list[Datum]:
    """Rows that print cost, parameters and top-1, of tables that compare methods, each once."""
    found: dict[tuple[Any, ...], Datum] = {}
    for comparison in comparisons:
        names = {heading.name for heading in comparison.headings}
        if not {"method", "top1"} <= names:
            continue
        for line in comparison.lines:
            top1 = _number(line, "top1")
            if top1 is None:
                continue
            method = line.labels.get("method", "")
            known = {n: c for n, c in line.cells.items() if n in ("flops", "params")}
            if len(known) < 2:
                continue
            computed = next((c.evidence[0] for c in known.values() if c.evidence), None)
            point: Datum = {
                "method": method,
                "family": _family(method),
                "top1": top1,
                "table": comparison.table,
                "model": computed.model if computed else method,
                "input": computed.resolution if computed else line.labels.get("resolution", ""),
                "joined": _family(method) in JOINED and "*" not in method,
                "known": "computed" if computed else "as printed",
                "where": f"cost {'computed' if computed else 'printed'}, accuracy printed",
            }
            for name, quantity in (("flops", "macs"), ("params", "params")):
                cell = known[name]
                middle = None if cell.low is None or cell.high is None else cell.low + cell.high
                point[quantity] = cell.amount or (middle / 2 if middle else None)
            found.setdefault((point["model"], point["input"], top1), point)
    return list(found.values())


def _number(line: Line, column: str) -> float | None:
    cell = line.cells.get(column)
    match = re.match(r"[0-9]+(\.[0-9]+)?", cell.printed) if cell else None
    return float(match[0]) if match else None


def _without_top1(comparisons: Sequence[Comparison]) -> list[str]:
    """Enhanced DAT's models, which are computed and whose own top-1 no table prints."""
    lines = [line for comparison in comparisons for line in comparison.lines]
    found = [line for line in lines if line.labels.get("method", "").endswith("++")]
    return list(dict.fromkeys(x.labels["method"] for x in found if "top1" not in x.cells))


FAMILIES = ("DAT", "DAT++", "Swin", "DaViT", "others")
"""Each with a colour and a shape that no chart changes."""

JOINED = ("DAT", "DAT++")
"""Families whose points at one input a line joins."""


def _family(method: str) -> str:
    if re.match(r"DAT-?\w*\+\+", method):
        return "DAT++"
    return next((f for f in FAMILIES if method.startswith(f"{f}-")), "others")


def _label(point: Datum) -> str:
    """Of a deformable model the name, and the input where it is not the usual one."""
    if point["family"] not in JOINED:
        return ""
    side = point["input"].partition("x")[0]
    return str(point["method"]) if side == "224" else f"{point['method']}, {side}"


def _scatter(
    key: str, title: str, label: str, points: list[Datum], where: str, without: list[str]
) -> Chart:
    points = [{**p, "label": _label(p)} for p in points]
    figures, tops = ([p[name] for p in points] for name in ("x", "top1"))
    # A single point would have an axis of no length.
    scale = {"type": "log", "nice": False, "domain": [min(figures) / 1.25, max(figures) * 1.25]}
    ticks = {"tickCount": {"expr": "width < 440 ? 4 : 10"}, "labelOverlap": "greedy"}
    form = ".3~g" if "GMACs" in label or "(M)" in label else ".3~s"
    x = field("x", label, scale=scale, axis={"format": form, "labelSeparation": 6, **ticks})
    up = {"zero": False, "domain": [min(tops) - 0.5, max(tops) + 0.5]}
    y = field("top1", "ImageNet top-1 (%), as published", scale=up)
    families = [family for family in FAMILIES if any(p["family"] == family for p in points)]
    domain = {"domain": list(FAMILIES)}
    legend = {**bottom(5, 3), "values": families}
    tooltip = [
        words("method"),
        words("model", "built as"),
        words("input"),
        field("x", label, format=",.4~g"),
        field("top1", "top-1 (%)"),
        words("table"),
        words("known", "cost"),
    ]
    body = spec(
        points,
        360,
        encoding={"x": x, "y": y},
        layer=[
            {
                "transform": [{"filter": "datum.joined"}],
                "mark": {"type": "line", "opacity": 0.35, "strokeWidth": 2},
                "encoding": {
                    "color": words("family", scale=domain, legend=legend),
                    "detail": words("input"),
                    "order": field("x"),
                },
            },
            {
                "mark": {"type": "point", "filled": True, "opacity": 0.9},
                "encoding": {
                    "color": words("family", scale=domain, legend=legend),
                    "shape": words(
                        "family", scale={**domain, "range": list(SHAPES)}, legend=legend
                    ),
                    "tooltip": tooltip,
                },
            },
            *(
                {
                    "transform": [{"filter": f"datum.label && {side}"}],
                    "mark": {"type": "text", "align": align, "dx": dx, "dy": dy, "fontSize": 11},
                    "encoding": {"text": words("label")},
                }
                for side, align, dx, dy in (
                    ("!datum.joined", "left", 9, -9),
                    ("datum.joined", "right", -9, -9),
                )
            ),
        ],
    )
    columns = (
        Column("method", "method"),
        Column("input", "input"),
        Column("x", label, lambda value: f"{value:,.4f}" if value < 1e4 else f"{value:,.0f}"),
        Column("top1", "top-1 (%)", str),
        Column("table", "table"),
        Column("known", "cost"),
    )
    rows = tuple(tuple(p[column.name] for column in columns) for p in points)
    known = "computed where the model could be built, otherwise as printed"
    if where.startswith("measured"):
        known = "measured in one setting, of several batches the fastest"
    left = ""
    if without:
        left = f" Not drawn, for no top-1 of theirs is printed: {', '.join(without)}."
    best = max(points, key=lambda p: p["top1"])
    return Chart(
        key,
        title,
        body,
        f"{len(points)} models by {label} and published ImageNet top-1 accuracy; the highest is "
        f"{best['method']} with {best['top1']} %.",
        f"Across: {label}, {known}. Up: accuracy as the papers print it; none was trained here. "
        "A line joins DAT at one input. Of rows that print multiply-adds, parameters and top-1."
        f"{left}",
        where,
        Table(columns, rows),
        by=f"{label}; accuracy as published",
    )
