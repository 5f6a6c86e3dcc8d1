"""Sampling points as a table, and drawn over their image. Never imports torch, never pyplot."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from textwrap import wrap
from typing import TYPE_CHECKING, Any

from .. import units
from ..errors import LibraryError, UsageError
from ..render.table import Column, Table, Value
from ..render.vega import COLOURS, MARKERS, METADATA, REMEDY
from .records import Point, PointsRow

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from PIL.Image import Image

LARGEST = 1024
"""Pixels along the longer side of the image in a picture."""

STEEPEST = 5.0
"""Proportions up to which an image is drawn to scale; beyond, it would be a line."""

PANELS = 36
"""In one picture, at most."""

RANDOM = "random weights"

ORANGE = "#FF7F0E"

_ACROSS = 4  # panels in a row, where there are more than four

_WIDTH = 3.4  # inches of a panel

_BIGGEST = 110.0  # square points of the heaviest point's marker

_SMALLEST = 3.0

_SETTINGS: dict[Any, Any] = {
    "font.size": 9.0,
    "axes.titlesize": 9.0,
    "figure.titlesize": 10.0,
    "text.parse_math": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "datbench",
    "svg.image_inline": True,
}

_LEAD = {
    "propagated": "the most important keys, their attention propagated down from the last block",
    "groups": "where each group samples",
    "query": "the keys that a query attends to most",
}


def title(row: PointsRow) -> str:
    """What is drawn, at what size and with which weights."""
    weights = RANDOM if row.random else (row.checkpoint or "weights as built").rpartition("/")[2]
    return f"{row.model} at {row.setting.resolution}, {weights}: {_LEAD[row.style]}"


def points_table(row: PointsRow) -> Table:
    """Every point, for machines."""
    names = ("stage", "block", "group", "head")
    columns = (
        *(Column(name, name, units.integer) for name in names),
        Column("x", "x (pixels)", lambda value: f"{value:.2f}"),
        Column("y", "y (pixels)", lambda value: f"{value:.2f}"),
        Column("weight", "weight", lambda value: f"{value:.5f}"),
    )
    rows = tuple((p.stage, p.block, p.group, p.head, p.x, p.y, p.weight) for p in row.points)
    return Table(columns, rows, title(row))


def summary_table(row: PointsRow) -> Table:
    """A line for each block, group and head, for people."""
    columns = (
        *(Column(name, name, units.integer) for name in ("stage", "block", "group", "head")),
        Column("points", "points", units.integer),
        *(
            Column(name, f"{name} (pixels)", lambda value: f"{value:.1f}")
            for name in ("left", "right", "top", "bottom")
        ),
        Column("weight", "weight", lambda value: f"{value:.4f}"),
    )
    parts: dict[tuple[int, int, int, int | None], list[Point]] = {}
    for point in row.points:
        parts.setdefault((point.stage, point.block, point.group, point.head), []).append(point)
    rows: list[tuple[Value, ...]] = []
    for key, points in sorted(parts.items(), key=lambda item: [part or 0 for part in item[0]]):
        x, y = [p.x for p in points], [p.y for p in points]
        weights = [p.weight for p in points if p.weight is not None]
        total = sum(weights) if weights else None
        rows.append((*key, len(points), min(x), max(x), min(y), max(y), total))
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
    return Table(columns, tuple(rows), title(row), tuple(notes))


def _inside(point: Point, row: PointsRow) -> bool:
    return -0.5 <= point.x <= row.width - 0.5 and -0.5 <= point.y <= row.height - 0.5


def drawn(row: PointsRow, image: Image, suffix: str) -> bytes:
    """The picture's file, the same bytes every time.

    Args:
        suffix: ``png`` or ``svg``.

    Raises:
        LibraryError: matplotlib is not installed.
        UsageError: it would have too many panels.
    """
    try:
        import matplotlib
        from matplotlib.figure import Figure as Canvas
        from matplotlib.layout_engine import ConstrainedLayoutEngine
    except ImportError as error:
        raise LibraryError(REMEDY) from error
    panels = _panels(row)
    if len(panels) > PANELS:
        raise UsageError(
            f"this would be {len(panels)} panels; choose with --stage, --block or --head."
        )
    across = _ACROSS if len(panels) > _ACROSS else min(2, len(panels))
    down = -(-len(panels) // across)
    # One panel is drawn larger: there is room.
    width = _WIDTH * (2.0 if len(panels) == 1 else 1.3 if across == 2 else 1.0)
    steep = row.height / row.width
    to_scale = 1 / STEEPEST <= steep <= STEEPEST
    tall = width * (steep if to_scale else 2.0 if steep > 1 else 0.5) + 0.3
    smaller = image.copy()
    if to_scale:
        smaller.thumbnail((LARGEST, LARGEST))
    else:
        smaller = smaller.resize((min(image.width, LARGEST), min(image.height, LARGEST)))
    heading = title(row) + ("" if to_scale else " (not to scale)")
    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # whatever the user's own settings are
        matplotlib.rcParams.update(_SETTINGS)
        size = (max(width * across, 6.0), tall * down + 0.6)
        canvas = Canvas(figsize=size, layout=ConstrainedLayoutEngine(h_pad=0.06, w_pad=0.04))
        canvas.suptitle("\n".join(wrap(units.printable(heading), int(size[0] * 11))))
        grid = canvas.subplots(down, across, squeeze=False)
        for axes in grid.flat:
            axes.set_axis_off()
        for axes, (name, points) in zip(grid.flat, panels, strict=False):
            axes.imshow(
                smaller,
                extent=(-0.5, row.width - 0.5, row.height - 0.5, -0.5),
                aspect="equal" if to_scale else "auto",
            )
            axes.set_title(name)
            _draw(row, points, axes, 1.0 if len(panels) > 1 else 2.0)
            axes.set_xlim(-0.5, row.width - 0.5)
            axes.set_ylim(row.height - 0.5, -0.5)
        content = BytesIO()
        canvas.savefig(content, format=suffix, dpi=160, metadata=METADATA[suffix])
    return content.getvalue()


def _panels(row: PointsRow) -> list[tuple[str, list[Point]]]:
    """Of Figure 5 one; of the others one for each block, and for each head where heads differ."""
    if row.style == "propagated":
        heads = list(dict.fromkeys(point.head for point in row.points))
        return [
            ("" if head is None else f"head {head}", [p for p in row.points if p.head == head])
            for head in heads
        ]
    found: dict[str, list[Point]] = {}
    for point in row.points:
        name = f"stage {point.stage}, block {point.block}"
        if point.head is not None:
            name += f", head {point.head}"
        found.setdefault(name, []).append(point)
    return list(found.items())


def _draw(row: PointsRow, points: Sequence[Point], axes: Axes, larger: float) -> None:
    if row.style == "groups":
        _draw_groups(points, axes, larger)
    else:
        heaviest = max(point.weight or 0.0 for point in points) or 1.0
        shares = [(point.weight or 0.0) / heaviest for point in points]
        axes.scatter(
            [point.x for point in points],
            [point.y for point in points],
            s=[_SMALLEST + _BIGGEST * larger * share for share in shares],
            c=ORANGE,
            alpha=0.75,
            edgecolors="black",
            linewidths=0.4,
        )
    if row.query is not None:
        axes.scatter(
            [row.query[0]],
            [row.query[1]],
            marker="*",
            s=160 * larger,
            c="red",
            edgecolors="white",
            linewidths=0.8,
        )


def _draw_groups(points: Sequence[Point], axes: Axes, larger: float) -> None:
    groups = sorted({point.group for point in points})
    size = max(6.0, 22.0 * larger / max(len(points) / 300, 1.0))
    for group in groups:
        own = [point for point in points if point.group == group]
        axes.scatter(
            [point.x for point in own],
            [point.y for point in own],
            s=size,
            marker=MARKERS[(group - 1) % len(MARKERS)],
            c=COLOURS[(group - 1) % len(COLOURS)],
            edgecolors="white",
            linewidths=0.3,
            label=f"group {group}",
        )
    if len(groups) <= len(MARKERS):
        axes.legend(
            loc="upper center",
            bbox_to_anchor=(0.5, 0.0),
            ncols=4,
            frameon=False,
            fontsize=7.5,
            handletextpad=0.1,
            markerscale=max((20.0 / size) ** 0.5, 1.0),
            columnspacing=0.8,
        )
