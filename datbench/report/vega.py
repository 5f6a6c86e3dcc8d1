"""Charts as Vega-Lite: plain values that a page embeds and that vl-convert draws as SVG or PNG.

A chart's colours, fonts and sizes are its theme's; colour never says alone what a reader must know.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..figures import Bars, Figure
from .stacks import total_of
from .table import Column, Table

Datum = dict[str, Any]
Spec = dict[str, Any]

# Okabe and Ito's colours, which people with any colour vision tell apart; the pale ones are last.
LIGHT = ("#0072b2", "#d55e00", "#009e73", "#b3588c", "#c98500", "#3b9bd0", "#7a7a7a", "#8c7a00")
DARK = ("#56b4e9", "#ff8c42", "#2bc79b", "#e39ac5", "#f0b429", "#8fd0f5", "#b0b0b0", "#f0e442")

SHAPES = ("circle", "square", "triangle-up", "diamond", "cross", "triangle-down")

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"


@dataclass(frozen=True)
class Chart:
    """One chart, and everything that is said of it.

    Args:
        key: for file names and anchors.
        spec: Vega-Lite, without theme and width.
        description: what it shows, for those who do not see it.
        caption: how to read it, and by whose convention.
        where: what it was counted or measured on.
        table: the same figures, as numbers.
        choices: what its menu offers, where it shows one of several; the first is drawn in files.
        by: whose convention the figures follow, in a few words.
    """

    key: str
    title: str
    spec: Spec
    description: str
    caption: str
    where: str
    table: Table
    choices: tuple[str, ...] = ()
    by: str = ""

    def spoken(self) -> Spec:
        """The specification whose every tooltip ends with what the figure is by, and where.

        A point's own `where` stands before the chart's.
        """
        said = {"said_by": self.by, "said_where": self.where}
        told = [{"calculate": json.dumps(text), "as": name} for name, text in said.items()]
        if any("where" in datum for datum in self.spec.get("data", {}).get("values", ())):
            told[1]["calculate"] = f"datum.where || {json.dumps(self.where)}"
        spec = _with_tooltips(self.spec, [words("said_by", "by"), words("said_where", "where")])
        return {**spec, "transform": [*told, *spec.get("transform", [])]}


def _with_tooltips(part: Spec, further: Sequence[Spec]) -> Spec:
    """A chart or a layer with these at the end of its tooltips, where it has some."""
    found = dict(part)
    encoding = part.get("encoding", {})
    if "tooltip" in encoding:
        found["encoding"] = {**encoding, "tooltip": [*encoding["tooltip"], *further]}
    if "layer" in part:
        found["layer"] = [_with_tooltips(layer, further) for layer in part["layer"]]
    return found


def theme(dark: bool = False) -> Spec:
    """Vega's configuration for light or dark paper."""
    ink, muted, grid = (
        ("#e6e4df", "#a9a7a1", "#3a3a3c") if dark else ("#1f2328", "#5c6066", "#e3e1dc")
    )
    text = {"labelColor": muted, "titleColor": ink, "labelFontSize": 12, "titleFontSize": 12}
    return {
        "background": None,
        "font": FONT,
        "aria": False,  # the page describes the chart and gives its figures as a table
        "axis": {
            **text,
            "titleFontWeight": 500,
            "gridColor": grid,
            "domainColor": muted,
            "tickColor": muted,
            "titlePadding": 10,
        },
        "legend": {
            **text,
            "titleFontWeight": 500,
            "symbolStrokeWidth": 2,
            "symbolOpacity": 1,
            "labelLimit": 320,
        },
        "view": {"stroke": None},
        "range": {"category": list(DARK if dark else LIGHT), "symbol": list(SHAPES)},
        "text": {"color": ink},
        "rule": {"color": muted},
        "area": {"opacity": 0.9},
        "line": {"strokeWidth": 2},
        "point": {"size": 70, "strokeWidth": 2},
        "concat": {"spacing": 24},
    }


def spec(values: Sequence[Datum], height: int, **rest: Any) -> Spec:
    """A chart as wide as its place."""
    return {
        "width": "container",
        "height": height,
        "autosize": {"type": "fit-x", "contains": "padding"},
        "data": {"values": list(values)},
        **rest,
    }


def field(name: str, title: str | None = None, kind: str = "quantitative", **rest: Any) -> Spec:
    """A channel of an encoding."""
    # Vega reads dots and brackets in a field as a path; every field here is a plain word.
    return {"field": name, "type": kind, "title": title, **rest}


def words(name: str, title: str | None = None, **rest: Any) -> Spec:
    """A channel of names."""
    return field(name, title, "nominal", **rest)


_LINE = 15
"""Height of a line of labels in pixels."""


def names_of(name: str, order: Sequence[str]) -> Spec:
    """An axis of bars' names, folded at their commas: nothing of a setting is cut off."""
    axis = {"labelLimit": 190, "labelExpr": "split(datum.label, ', ')", "labelLineHeight": _LINE}
    return words(name, None, sort=list(order), axis=axis)


def folded(names: Sequence[str]) -> int:
    """The height of bars whose names are folded."""
    lines = max(name.count(", ") + 1 for name in names)
    return max(34, _LINE * lines + 10) * len(names) + 20


def chosen(name: str, choices: Sequence[str]) -> Spec:
    """A menu above the chart, and the filter that follows it; nothing for a single choice."""
    if len(choices) < 2:
        return {}
    bind = {"input": "select", "options": list(choices), "name": f"{name} "}
    return {
        "params": [{"name": "chosen", "value": choices[0], "bind": bind}],
        "transform": [{"filter": f"datum.{name} === chosen"}],
    }


def bottom(columns: int = 3, narrow: int = 1) -> Spec:
    """A legend below the chart, of fewer columns where a phone has no room for more."""
    wide = {"expr": f"width < 440 ? {narrow} : {columns}"}
    return {"orient": "bottom", "columns": wide, "title": None}


def to_image(chart: Chart, suffix: str = ".svg") -> bytes:
    """A chart on light paper.

    Raises:
        ImportError: vl-convert is not installed.
    """
    import vl_convert

    light = theme()
    light["background"] = "white"
    title = f"{chart.title}: {chart.choices[0]}" if len(chart.choices) > 1 else chart.title
    drawn = {**chart.spec, "width": 760, "title": {"text": title, "anchor": "start"}}
    text = json.dumps(drawn)
    if suffix == ".png":
        return bytes(vl_convert.vegalite_to_png(text, config=light, scale=2))
    return str(vl_convert.vegalite_to_svg(text, config=light)).encode()


def script() -> str:
    """Vega, Vega-Lite and Vega-Embed as one script that sets ``window.vegaEmbed``.

    Raises:
        ImportError: vl-convert is not installed.
    """
    import vl_convert

    return str(vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;"))


def of_figure(
    figure: Figure, key: str, description: str, where: str, caption: str = "", by: str = ""
) -> Chart:
    """Series over two axes: markers, and lines for what is not marked."""
    values: list[Datum] = []
    for series in figure.series:
        for x, y in zip(series.x, series.y, strict=True):
            values.append(
                {
                    "series": series.name,
                    "x": x,
                    "y": y,
                    "marked": series.marked,
                    "size": 1.0 if series.size is None else series.size,
                }
            )
    names = [series.name for series in figure.series]
    color = words("series", None, scale={"domain": names}, legend=bottom(2))
    across = field("x", figure.x_label, scale={"type": "log" if figure.log_x else "linear"})
    up = field("y", figure.y_label, scale={"type": "log" if figure.log_y else "linear"})
    tooltip = [words("series"), field("x", figure.x_label, format=".4~g")]
    tooltip.append(field("y", figure.y_label, format=".4~g"))
    body = spec(
        values,
        340,
        encoding={"x": across, "y": up, "color": color},
        layer=[
            {"transform": [{"filter": "!datum.marked"}], "mark": "line"},
            {
                "transform": [{"filter": "datum.marked"}],
                "mark": {"type": "point", "filled": True, "opacity": 0.9},
                "encoding": {
                    "tooltip": tooltip,
                    "size": field(
                        "size", legend=None, scale={"range": [40, 500], "domain": [0, 1]}
                    ),
                },
            },
        ],
    )
    columns = (
        Column("series", "series"),
        Column("x", figure.x_label, _general),
        Column("y", figure.y_label, _general),
    )
    rows = [(d["series"], d["x"], d["y"]) for d in values if d["marked"]]
    caption = " ".join([caption, *figure.notes]).strip()
    table = Table(columns, tuple(rows))
    return Chart(key, figure.title, body, description, caption, where, table, by=by)


def _general(value: float) -> str:
    return f"{value:.6g}"


def of_bars(
    bars: Mapping[str, Bars],
    key: str,
    title: str,
    what: str,
    description: str,
    where: str,
    by: str,
) -> Chart:
    """Stacks of equal length, one set of them for each choice.

    Args:
        what: a choice is, such as ``model``.
    """
    values: list[Datum] = []
    parts = list(dict.fromkeys(part.name for each in bars.values() for part in each.parts))
    for choice, each in bars.items():
        for number, name in enumerate(each.names):
            values += [
                {
                    what: choice,
                    "bar": f"{name.removeprefix(f'{choice}, ')}: {total_of(each, number)}",
                    "part": part.name,
                    "order": order,
                    "amount": part.amounts[number],
                    "share": part.amounts[number] / each.totals[number],
                    "left_out": "left out" if part.extra else "in the formula",
                }
                for order, part in enumerate(each.parts)
                if part.amounts[number]
            ]
    first = next(iter(bars.values()))
    encoding = {
        "y": words(
            "bar",
            sort=list(dict.fromkeys(d["bar"] for d in values)),
            axis={"labels": False, "ticks": False, "domain": False, "title": None},
        ),
    }
    stacked = {
        "mark": {"type": "bar", "height": 22, "yOffset": 8},
        "encoding": {
            "x": field("share", "share of the module's cost", axis={"format": "%"}, stack="zero"),
            "color": words(
                "part", scale={"domain": parts, "scheme": "tableau20"}, legend=bottom(2)
            ),
            "order": field("order"),
            "opacity": field(
                "left_out",
                None,
                "ordinal",
                scale={"domain": ["in the formula", "left out"], "range": [1, 0.55]},
                legend=None,
            ),
            "tooltip": [
                words("bar", "module"),
                words("part", "term"),
                field("amount", f"{first.unit}s", format=",.0f"),
                field("share", "share", format=".1%"),
                words("left_out", "published formula"),
            ],
        },
    }
    label = {
        "mark": {
            "type": "text",
            "align": "left",
            "baseline": "bottom",
            "dy": -6,
            "fontSize": 12,
            "limit": {"expr": "width"},
        },
        "encoding": {"x": {"value": 0}, "text": words("bar")},
        "transform": [{"aggregate": [{"op": "count", "as": "terms"}], "groupby": ["bar"]}],
    }
    menu = chosen(what, list(bars))
    height = 48 * max(len(each.names) for each in bars.values())
    body = spec(values, height, encoding=encoding, layer=[stacked, label], **menu)
    columns = (
        Column(what, what),
        Column("bar", "module"),
        Column("part", "term"),
        Column("amount", f"{first.unit}s", lambda value: f"{value:,.0f}"),
        Column("share", "share", lambda value: f"{100 * value:.1f} %"),
        Column("left_out", "published formula"),
    )
    rows = tuple(tuple(d[column.name] for column in columns) for d in values)
    caption = " ".join([*first.notes, "It is drawn paler."])
    return Chart(
        key, title, body, description, caption, where, Table(columns, rows), tuple(bars), by
    )
