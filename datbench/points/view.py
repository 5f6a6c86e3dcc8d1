"""Sampling points as a table, and drawn over their image."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from io import BytesIO
from textwrap import wrap
from typing import TYPE_CHECKING

from .. import units
from ..errors import UsageError
from ..render.table import Column, Table
from ..render.vega import SHAPES, Datum, Spec, field, layer, words
from ..render.vega import image as render
from .records import PointsRow, SamplingPoint

if TYPE_CHECKING:
    from PIL.Image import Image

LARGEST = 1024
"""Pixels along the longer side of the image in a picture."""

STEEPEST = 5.0
"""Proportions up to which an image is drawn to scale; beyond, it would be a line."""

PANELS = 36
"""In one picture, at most."""

RANDOM = "random weights"

ORANGE = "#FF7F0E"

STAR = "M0,-1L.22,-.31L.95,-.31L.36,.12L.59,.81L0,.38L-.59,.81L-.36,.12L-.95,-.31L-.22,-.31Z"

_ACROSS = 4  # panels in a row, where there are more than four

_WIDTH = 300  # pixels of a panel

_BIGGEST, _SMALLEST = 170.0, 5.0  # square pixels of the heaviest and of the lightest point's marker

_LEAD = {
    "propagated": "the most important keys, their attention propagated down from the last block",
    "groups": "where each group samples",
    "query": "the keys that a query attends to most",
}


def title(row: PointsRow) -> str:
    """What is drawn, at what size and with which weights."""
    weights = RANDOM if row.random else (row.checkpoint or "weights as built").rpartition("/")[2]
    weights += f" ({row.weights})" if row.weights else ""
    return f"{row.model} at {row.setting.resolution}, {weights}: {_LEAD[row.style]}"


_PLACE = tuple(
    Column(name, name, units.integer, label=True) for name in ("stage", "block", "group", "head")
)


def tables(row: PointsRow, one: bool = False) -> list[Table]:
    """A line for each block, group and head; or every point, for machines."""
    return [_every_point(row) if one else _summary(row)]


def _every_point(row: PointsRow) -> Table:
    columns = (
        *_PLACE,
        Column("x", "x (pixels)", units.ratio),
        Column("y", "y (pixels)", units.ratio),
        Column("weight", "weight", lambda value: f"{value:.5f}"),
    )
    return Table.of(columns, row.points, title(row))


def _summary(row: PointsRow) -> Table:
    parts: dict[tuple[int, ...], list[SamplingPoint]] = {}
    for point in row.points:
        key = (point.stage, point.block, point.group, point.head or 0)
        parts.setdefault(key, []).append(point)
    lines = []
    for _, points in sorted(parts.items()):
        first, x, y = points[0], [p.x for p in points], [p.y for p in points]
        weights = [p.weight for p in points if p.weight is not None]
        line = {column.name: getattr(first, column.name) for column in _PLACE}
        line |= {"points": len(points), "weight": sum(weights) if weights else None}
        lines.append({**line, "left": min(x), "right": max(x), "top": min(y), "bottom": max(y)})
    columns = (
        *_PLACE,
        Column("points", "points", units.integer),
        *(
            Column(name, f"{name} (px)", lambda value: f"{value:.1f}", when="wide")
            for name in ("left", "right", "top", "bottom")
        ),
        Column("weight", "weight", lambda value: f"{value:.4f}"),
    )
    notes = [
        f"{row.image}: {row.width}x{row.height}, resized to {row.setting.resolution} for the "
        "model. Pixels of the image as given. JSON and CSV have every point."
    ]
    if row.top is not None:
        each = " and head" if any(point.head for point in row.points) else ""
        below = " or less in blocks below the last" if row.style == "propagated" else ""
        notes.append(
            f"The {row.top} heaviest points of each block{each}; all weights of a group would add "
            f"up to 1{below}."
        )
    outside = sum(not _inside(point, row) for point in row.points)
    if outside:
        notes.append(f"{outside} of {len(row.points)} points lie outside the image.")
    return Table.of(columns, lines, title(row), notes)


def _inside(point: SamplingPoint, row: PointsRow) -> bool:
    return -0.5 <= point.x <= row.width - 0.5 and -0.5 <= point.y <= row.height - 0.5


def picture(row: PointsRow, image: Image, suffix: str) -> bytes:
    """The picture's file, the same bytes every time.

    Args:
        suffix: ``.png`` or ``.svg``.

    Raises:
        LibraryError: vl-convert is not installed.
        UsageError: it would have too many panels.
    """
    panels = _panels(row)
    if len(panels) > PANELS:
        raise UsageError(
            f"this would be {len(panels)} panels; choose with --stage, --block or --head."
        )
    across = _ACROSS if len(panels) > _ACROSS else min(2, len(panels))
    # One panel is drawn larger: there is room.
    wide = _WIDTH * (2.0 if len(panels) == 1 else 1.3 if across == 2 else 1.0)
    steep = row.height / row.width
    to_scale = 1 / STEEPEST <= steep <= STEEPEST
    tall = wide * (steep if to_scale else 2.0 if steep > 1 else 0.5)
    smaller = image.convert("RGB")
    if to_scale:
        smaller.thumbnail((LARGEST, LARGEST))
    else:
        smaller = smaller.resize((min(image.width, LARGEST), min(image.height, LARGEST)))
    stored = BytesIO()
    smaller.save(stored, "PNG")
    url = f"data:image/png;base64,{b64encode(stored.getvalue()).decode()}"
    drawn: Spec = {"type": "image", "url": url, "aspect": False, "width": wide, "height": tall}
    drawn |= {"align": "left", "baseline": "top"}
    corner = layer(drawn, x={"value": 0}, y={"value": 0})
    paper = {"data": {"values": [{}]}, **corner}
    heading = title(row) + ("" if to_scale else " (not to scale)")
    letters = max(int(wide * min(across, len(panels)) / 6.5), 60)
    body = {
        "title": {"text": wrap(units.printable(heading), letters), "anchor": "start"},
        "columns": across,
        "concat": [
            {
                "title": {"text": name, "fontSize": 11, "fontWeight": "normal"},
                "width": wide,
                "height": tall,
                "layer": [paper, *_layers(row, points, wide / _WIDTH)],
            }
            for name, points in panels
        ],
    }
    return render([body], suffix)


def _panels(row: PointsRow) -> list[tuple[str, list[SamplingPoint]]]:
    """One panel for Figure 5; else one for each block, and for each head where heads differ."""
    found: dict[str, list[SamplingPoint]] = {}
    for point in row.points:
        block = f"stage {point.stage}, block {point.block}" if row.style != "propagated" else ""
        head = "" if point.head is None else f"head {point.head}"
        found.setdefault(", ".join(filter(None, (block, head))), []).append(point)
    return list(found.items())


def _layers(row: PointsRow, points: Sequence[SamplingPoint], larger: float) -> list[Spec]:
    """The points over the image, and the query's star."""
    place = {"x": _along("x", row.width), "y": _along("y", row.height, reverse=True)}
    channels = {**place, "size": field("size", scale=None)}
    mark: Spec = {"type": "point", "filled": True, "clip": True, "opacity": 0.8}
    if row.style == "groups":
        sizes = [max(8.0, 30.0 * larger / max(len(points) / 300, 1.0))] * len(points)
        names = [f"group {number}" for number in sorted({point.group for point in row.points})]
        shapes = [SHAPES[n % len(SHAPES)] for n in range(len(names))]
        legend = {"orient": "bottom", "columns": 6, "title": None}
        channels["color"] = words("group", scale={"domain": names}, legend=legend)
        channels["shape"] = words("group", scale={"domain": names, "range": shapes}, legend=legend)
        mark |= {"stroke": "white", "strokeWidth": 0.4}
    else:
        weights = [point.weight or 0.0 for point in points]
        heaviest = max(weights, default=0.0) or 1.0
        sizes = [_SMALLEST + _BIGGEST * larger * weight / heaviest for weight in weights]
        mark |= {"fill": ORANGE, "stroke": "black", "strokeWidth": 0.6}
    values: list[Datum] = [
        {"x": point.x, "y": point.y, "group": f"group {point.group}", "size": size}
        for point, size in zip(points, sizes, strict=True)
    ]
    layers: list[Spec] = [{"data": {"values": values}, **layer(mark, **channels)}]
    if row.query is not None:
        star = {"type": "point", "strokeWidth": 1, "opacity": 1, "shape": STAR, "fill": "red"}
        star |= {"size": 220 * larger, "stroke": "white"}
        asks = {"x": row.query[0], "y": row.query[1]}
        layers.append({"data": {"values": [asks]}, **layer(star, **place)})
    return layers


def _along(name: str, pixels: int, reverse: bool = False) -> Spec:
    scale = {"domain": [-0.5, pixels - 0.5], "nice": False, "zero": False, "reverse": reverse}
    return field(name, axis=None, scale=scale)
