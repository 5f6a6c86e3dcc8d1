"""Plots that set models beside each other: accuracy and cost, cost and size, what memory is of."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .. import units
from ..counting.records import CountRow
from ..errors import DatbenchError, UsageError
from ..machine import place_of, same_place
from ..memory.records import CATEGORIES, MemoryRow
from ..memory.view import LABELS
from ..paper.records import Comparison, Line
from ..paper.tables import paper_tables
from ..profile.records import ProfileRow
from ..profile.view import setting_line
from ..render.figure import Bars, Figure, Part, Series, partition
from ..render.table import Column, Table
from ..render.vega import SHAPES, Chart, Datum, Spec, bottom, chosen, field, spec, words
from ..setting import Resolution
from ..timing.records import ThroughputRow

if TYPE_CHECKING:
    from ..paper.tables import RowData

MOST = 14
"""Series that a plot tells apart by colour and marker."""


@dataclass(frozen=True)
class Rated:
    """A model with a published accuracy.

    Args:
        family: what its name begins with: models of one are joined by a line.
        cost: what it is drawn against, in the axis' unit.
        accuracy: top-1 in percent, as printed.
        apart: an input or a training set unlike the family's others, in words; no line joins it
            to them.
    """

    name: str
    family: str
    cost: float
    accuracy: float
    apart: str = ""

    @property
    def line(self) -> str:
        """The series that it is a point of."""
        return f"{self.family} {self.apart}".rstrip()


JOINED = (
    "A line joins rows of one family, input size and training set, as far as the tables print "
    "these; other rows are points of their own."
)


def accuracy_overview(points: Sequence[Rated], label: str, *notes: str) -> Figure:
    """Published accuracy against a cost, a line for each family's rows that are alike.

    Raises:
        UsageError: there is none.
    """
    if not points:
        raise UsageError("no model here has both a published accuracy and this cost.")
    lines: dict[str, list[Rated]] = {}
    for point in points:
        lines.setdefault(point.line, []).append(point)
    # The families with the most models are told apart; a legend of dozens tells nothing.
    members = Counter(point.family.rstrip("*+") for point in points)
    first = sorted(
        lines, key=lambda name: (-len(lines[name]), -members[lines[name][0].family.rstrip("*+")])
    )[:MOST]
    series = [_line(name, lines[name]) for name in lines if name in first]
    left = [point for name in lines if name not in first for point in lines[name]]
    said = [*notes, JOINED]
    if left:
        names = ", ".join(sorted({point.name for point in left}))
        said.append(f"Not drawn, for there are too many lines: {names}.")
    return Figure(
        "Top-1 on ImageNet-1K as published",
        label,
        "top-1 (%)",
        tuple(series),
        log_x=True,
        notes=tuple(said),
    )


def _line(name: str, points: list[Rated]) -> Series:
    ordered = sorted(points, key=lambda point: (point.cost, point.accuracy))
    return Series(name, tuple(p.cost for p in ordered), tuple(p.accuracy for p in ordered))


def timed_setting(row: ThroughputRow) -> dict[str, str]:
    """In what measured rows of one plot must agree, in words."""
    s, how = row.setting, row.how
    options = {
        "compiled": how.compile,
        "channels last": how.channels_last,
        "cache evicted": how.flush,
    }
    return {
        "device": f"{s.device} x {row.gpus}" if row.gpus > 1 else s.device,
        "batch": str(s.batch),
        "dtype": s.dtype,
        "attention": s.attention,
        "threads": str(how.threads or "torch's") if s.device == "cpu" else "-",
        "options": ", ".join(name for name, on in options.items() if on) or "none",
    }


def cost(rows: Sequence[CountRow]) -> Figure:
    """Cost against the side of the input, a line for each model.

    Raises:
        UsageError: the rows are of several conventions, or of more models than can be told apart.
    """
    ways = {(row.convention, row.unit) for row in rows}
    if len(ways) != 1:
        raise UsageError("the rows are counted by several conventions; draw one.")
    ((convention, unit),) = ways
    values = [(row.model, _side(row), row.amount / row.setting.batch / 1e9) for row in rows]
    return _against_side(
        values,
        f"Cost of one image by {convention}",
        f"G{unit}s",
        "Counted on tensors without values: the same on every machine.",
    )


def memory_against_size(rows: Sequence[MemoryRow]) -> Figure:
    """The simulated peak against the side of the input, a line for each model.

    Raises:
        UsageError: the rows differ in more than model and size.
    """
    ways = {(row.mode, row.setting.batch, row.setting.dtype) for row in rows}
    if len(ways) != 1:
        raise UsageError("the rows differ in mode, batch or dtype; draw one of each.")
    ((mode, batch, dtype),) = ways
    values = [(row.model, _side(row), row.peak.amount / 2**30) for row in rows]
    title = f"Simulated peak of memory ({mode}, batch {batch}, {dtype})"
    return _against_side(values, title, "GiB", "Simulated on tensors without values.")


def _side(row: CountRow | MemoryRow) -> float:
    size = row.setting.resolution
    return round(math.sqrt(size.width * size.height), 1)


def _against_side(
    values: Sequence[tuple[str, float, float]], title: str, unit: str, note: str
) -> Figure:
    models = list(dict.fromkeys(model for model, _, _ in values))
    if len(models) > MOST:
        raise UsageError(f"a plot tells {MOST} models apart, and these are {len(models)}.")
    series = []
    for name in models:
        points = sorted({(side, amount) for model, side, amount in values if model == name})
        series.append(Series(name, tuple(x for x, _ in points), tuple(y for _, y in points)))
    return Figure(
        title,
        "side of the input (pixels; of others, of the square with their area)",
        unit,
        tuple(series),
        log_x=True,
        log_y=True,
        notes=(note,),
    )


def memory_bars(rows: Sequence[MemoryRow]) -> Bars:
    """What is alive at the peak, by category, a bar for each row."""
    parts = []
    for category in CATEGORIES:
        amounts = tuple(float(row.line(category).at_peak or 0) for row in rows)
        if any(amounts):
            parts.append(Part(LABELS[category], amounts))
    names = [
        f"{row.model}, {row.setting.resolution}, batch {row.setting.batch}, {row.mode}"
        for row in rows
    ]
    return Bars(
        "Memory alive at the peak",
        tuple(names),
        tuple(parts),
        "byte",
        ("Simulated on tensors without values.",),
    )


# What the papers' tables print of accuracy, for plots.


USUAL = Resolution(224, 224)
"""The input of ImageNet-1K where a table prints no other."""


@dataclass(frozen=True)
class PrintedRow:
    """A row with a printed top-1.

    Args:
        family: its name without the size; DAT-T* is of DAT*.
        model: that it is built from, where that is known.
        resolution: that the table prints, or its file says; None where neither does.
        trained: the training set in the name's brackets.
        costs: printed, by quantity.
    """

    name: str
    family: str
    model: str
    resolution: Resolution | None
    trained: str
    top1: float
    costs: dict[str, float]

    @property
    def apart(self) -> str:
        """In what it is unlike most rows of its family, in words."""
        other = self.resolution is not None and self.resolution != USUAL
        return " ".join(filter(None, (self.trained, f"at {self.resolution}" if other else "")))

    @property
    def own_input(self) -> Resolution | None:
        """The input that its accuracy belongs to; the model's own where none is printed."""
        if self.resolution is not None or not self.model:
            return self.resolution
        from ..models.resolve import resolve

        try:
            return resolve(self.model).resolution
        except DatbenchError:  # of a library that is not here
            return None


def published() -> list[PrintedRow]:
    """Rows of tables that compare methods; what several print of one model stands here once."""
    found: dict[tuple[str, float, float | None], PrintedRow] = {}
    for table in paper_tables():
        names = [column.name for column in table.columns]
        if "method" not in names or "top1" not in names:
            continue
        for row in table.rows:
            top1 = re.match(r"[0-9]+(\.[0-9]+)?", row.values.get("top1", ""))
            costs = {
                column.quantity: float(row.printed[column.name].value)
                for column in table.columns
                if column.quantity in ("macs", "params") and column.name in row.printed
            }
            if top1 is None or not costs:
                continue
            each = _printed(row, float(top1[0]), costs)
            found.setdefault((each.name, each.top1, costs.get("macs")), each)
    return list(found.values())


def _printed(row: RowData, top1: float, costs: dict[str, float]) -> PrintedRow:
    name = row.values["method"]
    plain, _, trained = name.partition(" (")
    stem, _, size = plain.replace(" ", "-").rpartition("-")
    family = stem + size[len(size.rstrip("*+")) :] if stem else plain
    side = re.match(r"[0-9]+", row.values.get("resolution", ""))
    resolution = Resolution(int(side[0]), int(side[0])) if side else None
    if resolution is None and row.build is not None:
        resolution = row.build.res
    model = row.build.model if row.build else ""
    return PrintedRow(name, family, model, resolution, trained.rstrip(")"), top1, costs)


# Measured images a second that may stand beside published accuracy, and what they belong to.


Input = tuple[str, Resolution | None]
"""A model and an input."""


def rates(
    rows: Sequence[tuple[str, ThroughputRow, Mapping[str, Any]]], printed: set[Input]
) -> tuple[dict[Input, float], list[str]]:
    """Images a second of models at the inputs of `printed`, and notes that say what they are of.

    Raises:
        UsageError: there are none, or they are of several settings or machines.
    """
    fitting = [
        (row, where)
        for _, row, where in rows
        if row.how.mode == "infer"
        and not row.setting.features
        and (row.model, row.setting.resolution) in printed
    ]
    drawn = [(row, where) for row, where in fitting if row.images_per_second]
    if not drawn:
        raise UsageError(
            "no row of these files has a published accuracy: that takes inference of a model of "
            "the tables, with its head, at the input that they print."
        )
    settings = [timed_setting(row) for row, _ in drawn]
    for name in settings[0]:
        values = list(dict.fromkeys(each[name] for each in settings))
        if len(values) > 1:
            raise UsageError(
                f"the rows differ in {name} ({', '.join(values)}); a plot is of one setting: "
                "draw files that agree in it."
            )
    where = drawn[0][1]
    if not all(same_place(where, other) for _, other in drawn):
        raise UsageError("the rows were measured on several machines or versions; draw one.")
    found: dict[Input, float] = {}
    for row, _ in drawn:
        key = (row.model, row.setting.resolution)
        found[key] = max(found.get(key, 0.0), row.images_per_second or 0.0)
    said = ", ".join(f"{name} {value}" for name, value in settings[0].items())
    notes = [
        "Images a second of inference as measured, a model's fastest row, at the input of the "
        "print; accuracy as printed.",
        f"{said}; measured on {place_of(where)}.",
    ]
    if len(drawn) < len(rows):
        notes.append(
            f"Not drawn: {len(rows) - len(drawn)} of {len(rows)} rows (training, another input "
            "than the print's, no head, no print, or nothing measured)."
        )
    return found, notes


# Published accuracy against what it costs.


def accuracy_charts(
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
                "joined": _family(method) in ACCURACY_JOINED and "*" not in method,
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

ACCURACY_JOINED = ("DAT", "DAT++")
"""Families whose points at one input a line joins."""


def _family(method: str) -> str:
    if re.match(r"DAT-?\w*\+\+", method):
        return "DAT++"
    return next((f for f in FAMILIES if method.startswith(f"{f}-")), "others")


def _label(point: Datum) -> str:
    """Of a deformable model the name, and the input where it is not the usual one."""
    if point["family"] not in ACCURACY_JOINED:
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


# What models cost over sizes, and in which of their modules.


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
