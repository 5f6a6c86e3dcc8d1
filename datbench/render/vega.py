"""Charts as Vega-Lite: plain values that a page embeds and that vl-convert draws as SVG or PNG.

A chart's colours, fonts and sizes are its theme's; colour never says alone what a reader must know.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from textwrap import wrap
from typing import TYPE_CHECKING, Any

from .. import units
from ..errors import LibraryError, UsageError
from .figure import Bars, Figure, Icicle, Plot
from .table import Column, Table

if TYPE_CHECKING:
    from types import ModuleType

Datum = dict[str, Any]

Spec = dict[str, Any]

# Okabe and Ito's colours, which people with any colour vision tell apart; the pale ones are last.
LIGHT = ("#0072b2", "#d55e00", "#009e73", "#b3588c", "#c98500", "#3b9bd0", "#7a7a7a", "#8c7a00")

DARK = ("#56b4e9", "#ff8c42", "#2bc79b", "#e39ac5", "#f0b429", "#8fd0f5", "#b0b0b0", "#f0e442")

SHAPES = ("circle", "square", "triangle-up", "diamond", "cross", "triangle-down")

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"

SUFFIXES = (".png", ".svg")
"""The files that a plot is written as."""

WIDTH = 760
"""Pixels of a chart in a file."""


@dataclass(frozen=True)
class Chart:
    """One chart, and everything that is said of it."""

    key: str  # for file names and anchors
    title: str
    spec: Spec  # Vega-Lite, without theme and width
    description: str  # what it shows, for those who do not see it
    caption: str  # how to read it, and by whose convention
    where: str  # what it was counted or measured on
    table: Table  # the same figures, as numbers
    choices: tuple[str, ...] = ()  # what its menu offers; a file shows the first
    by: str = ""  # whose convention the figures follow, in a few words

    @classmethod
    def of(
        cls,
        plots: Plot | Mapping[str, Plot],
        key: str,
        description: str,
        where: str,
        *,
        title: str = "",
        caption: str = "",
        by: str = "",
        table: Table | None = None,
    ) -> Chart:
        """A plot, or plots of one type among which a menu chooses: of each model, by its name.

        Args:
            title: default: the first plot's.
            caption: what stands there before the first plot's notes.
            table: default: everything that is drawn.
        """
        named = plots if isinstance(plots, Mapping) else {"": plots}
        first = next(iter(named.values()))
        spec, drawn = _drawn(named)
        caption = " ".join([caption, *first.notes]).strip()
        choices = tuple(filter(None, named))
        shown = table or drawn
        return cls(key, title or first.title, spec, description, caption, where, shown, choices, by)

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
    text: Spec = {"labelColor": muted, "titleColor": ink, "labelFontSize": 12, "titleFontSize": 12}
    text["titleFontWeight"] = 500
    lines = {"gridColor": grid, "domainColor": muted, "tickColor": muted}
    return {
        "background": None,
        "font": FONT,
        "aria": False,  # the page describes the chart and gives its figures as a table
        "axis": {**text, **lines, "titlePadding": 10},
        "legend": {**text, "symbolStrokeWidth": 2, "symbolOpacity": 1, "labelLimit": 320},
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


def layer(mark: str | Spec, *transform: Spec, **channels: Any) -> Spec:
    """A mark and its channels, of values that are transformed first."""
    found: Spec = {"mark": mark, "encoding": channels}
    return {**found, "transform": list(transform)} if transform else found


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


def above(name: str) -> Spec:
    """A layer that says the name of each row above its bar or point: no name is cut off."""
    once = {"aggregate": [{"op": "count", "as": "parts"}], "groupby": [name]}
    mark = {"type": "text", "align": "left", "baseline": "bottom", "dy": -6, "fontSize": 12}
    mark["limit"] = {"expr": "width"}
    return layer(mark, once, x={"value": 0}, text=words(name))


def rows_of(name: str, order: Sequence[str]) -> Spec:
    """An axis of rows that `above` names."""
    return words(name, sort=list(order), axis=None)


ROW = 48
"""Height in pixels of a row and its name."""


def _drawn(plots: Mapping[str, Plot]) -> tuple[Spec, Table]:
    """Plots of one type as Vega-Lite, and as a table."""
    draw: Any = {Figure: _figures, Bars: _bars, Icicle: _icicles}[type(next(iter(plots.values())))]
    found: tuple[Spec, Table] = draw(plots)
    return found


def _table(columns: Sequence[Column], values: Sequence[Datum], *notes: str) -> Table:
    named = any(d["model"] for d in values)
    return Table.of([*([Column("model", "model")] if named else []), *columns], values, notes=notes)


def _figures(figures: Mapping[str, Figure]) -> tuple[Spec, Table]:
    """Markers and lines over two axes, or areas that are stacked."""
    first = next(iter(figures.values()))
    values: list[Datum] = [
        {
            "model": name,
            "series": units.printable(series.name),
            "order": order,
            "x": x,
            "y": y,
            "line": line,
            "marked": series.marked,
            # Later markers are smaller: where two coincide, both are seen. In square pixels.
            "size": max(110 - 10 * order, 50) if series.size is None else 30 + 470 * series.size,
        }
        for name, figure in figures.items()
        for order, series in enumerate(figure.series)
        if not (figure.stacked and order == 0)
        for x, y, line in zip(series.x, series.y, series.line or series.y, strict=True)
    ]
    unmarked = {d["series"] for d in values if not d["marked"]}
    names = list(dict.fromkeys(d["series"] for d in sorted(values, key=lambda d: d["order"])))
    domain = {"domain": list(first.known or names)}
    columns = 4 if max(map(len, names)) < 18 else 2
    legend = {**bottom(columns, 1 + (columns == 4)), **({"values": names} if first.known else {})}
    color = words("series", scale=domain, legend=legend)
    x, y = ("x", first.x_label), ("y", first.y_label)
    tooltip = [words("series"), field(*x, format=".4~g"), field(*y, format=".4~g")]
    if first.stacked:
        # Each choice of a menu has its own length.
        across = field(*x, scale={"nice": False}, axis={"format": ".6~r"})
        up, order = field(*y, stack="zero"), field("order")
        area: Spec = {"type": "area", "interpolate": "step-after"}
        rest = layer(area, x=across, y=up, color=color, order=order, tooltip=tooltip)
    else:
        across = _axis(*x, [d["x"] for d in values], first.log_x)
        up = _axis(*y, [d[end] for d in values for end in ("y", "line")], first.log_y)
        shapes = ["stroke" if n in unmarked else SHAPES[i % 6] for i, n in enumerate(names)]
        shape = words("series", scale={**domain, "range": shapes}, legend=color["legend"])
        sized = any(series.size is not None for series in first.series)
        point = {"type": "point", "filled": sized, "opacity": 0.75 if sized else 1}
        size = field("size", scale=None)
        # A later line is thinner: where two coincide, both are seen.
        widths = {"domain": [0, max(len(names) - 1, 1)], "range": [3, 1.2]}
        width = field("order", scale=widths, legend=None)
        marked = {"filter": "datum.marked"}
        layers = [
            layer("line", y={**up, "field": "line"}, strokeWidth=width),
            layer(point, marked, y=up, shape=shape, size=size, tooltip=tooltip),
        ]
        rest = {"encoding": {"x": across, "color": color}, "layer": layers}
    axes = (Column(*axis, lambda value: f"{value:.6g}") for axis in (x, y))
    table = _table([Column("series", "series"), *axes], [d for d in values if d["marked"]])
    return spec(values, 340, **rest, **chosen("model", list(figures))), table


ROOM = 0.04
"""The part of an axis that lies before its first value, and after its last."""


def _axis(name: str, label: str, values: Sequence[float], log: bool) -> Spec:
    """A quantitative axis with some room at both ends; a single value stands in the middle."""
    low, high = min(values), max(values)
    if log:
        factor = (high / low) ** ROOM if high > low else 2.0
        domain = [low / factor, high * factor]
    else:
        beyond = (high - low) * ROOM if high > low else 1.0
        domain = [low - beyond, high + beyond]
    axis: Spec = {"format": ".6~r", "labelOverlap": "greedy"}
    ticks = sorted(set(values))
    if name == "x" and len(ticks) <= 12:
        axis["values"] = ticks
    scale: Spec = {"type": "log" if log else "linear", "domain": domain, "nice": False}
    scale |= {} if log else {"zero": False}
    return field(name, label, scale=scale, axis=axis)


_MIB = 1 << 20


def _bars(bars: Mapping[str, Bars]) -> tuple[Spec, Table]:
    """Stacks under their names, of equal length or as long as their totals."""
    first = next(iter(bars.values()))
    scale, unit = (_MIB, "MiB") if first.unit == "byte" else (1, f"{first.unit}s")
    values: list[Datum] = [
        {
            "model": name,
            "bar": each.label(number).removeprefix(f"{name}, "),
            "part": units.printable(part.name) + (" (left out)" if part.extra else ""),
            "order": order,
            "amount": part.amounts[number] / scale,
            "said": each.say(part.amounts[number]),
            "share": part.amounts[number] / each.totals[number],
            "left_out": "left out" if part.extra else "in the formula",
            **({"about": each.about[number]} if each.about else {}),
        }
        for name, each in bars.items()
        for number in range(len(each.names))
        for order, part in enumerate(each.parts)
        if part.amounts[number]
    ]
    parts = list(dict.fromkeys(d["part"] for d in sorted(values, key=lambda d: d["order"])))
    domain = list(first.known or parts)
    palette = {"scheme": "tableau20"} if len(domain) > len(LIGHT) else {}
    along = field("amount", unit, stack="zero")
    if first.equal:
        axis = {"format": "%", "tickCount": 10}
        along = field("share", f"share of the {unit}", axis=axis, stack="zero")
    extra = any(part.extra for each in bars.values() for part in each.parts)
    legend = {**bottom(3, 1 if max(map(len, parts)) > 18 else 2), "values": parts}
    pale = {"domain": ["in the formula", "left out"], "range": [1, 0.55]}
    tooltip = [words("bar"), words("part"), words("said", "amount")]
    tooltip += [field("share", "share", format=".1%")]
    tooltip += [words("left_out", "published formula")] if extra else []
    tooltip += [words("about", "setting")] if first.about else []
    stacked = layer(
        {"type": "bar", "height": 22, "yOffset": 8, "stroke": None},
        x=along,
        color=words("part", scale={"domain": domain, **palette}, legend=legend),
        order=field("order"),
        opacity=field("left_out", None, "ordinal", scale=pale, legend=None),
        tooltip=tooltip,
    )
    body = spec(
        values,
        ROW * max(len(each.names) for each in bars.values()),
        encoding={"y": rows_of("bar", list(dict.fromkeys(d["bar"] for d in values)))},
        layer=[stacked, above("bar")],
        **chosen("model", list(bars)),
    )
    columns = [
        Column("bar", "bar"),
        Column("part", "part"),
        Column("amount", unit, units.integer if scale == 1 else lambda value: f"{value:,.2f}"),
        Column("share", "share", units.percent),
        *([Column("left_out", "published formula")] if extra else []),
    ]
    return body, _table(columns, values)


def _icicles(icicles: Mapping[str, Icicle]) -> tuple[Spec, Table]:
    """Nested rectangles, a row of them for each level."""
    values: list[Datum] = [
        {
            "model": name,
            "name": units.printable(rect.name),
            "module": units.printable(rect.path),
            "branch": rect.branch,
            "top": rect.level,
            "bottom": rect.level + 0.96,
            "start": rect.start,
            "end": rect.end,
            "share": rect.share,
            "amount": icicle.say(rect.amount),
        }
        for name, icicle in icicles.items()
        for rect in icicle.rects
    ]
    levels = int(max(d["top"] for d in values)) + 1
    branches = list(dict.fromkeys(d["branch"] for d in values))
    shades = {"domain": [0, levels], "range": [{"expr": "full"}, {"expr": "pale"}]}
    down = {"domain": [0, levels], "reverse": True, "nice": False}
    whole = {"domain": [0, 1], "nice": False}
    place: Spec = {
        "x": field("start", axis={"format": "%", "grid": False, "tickCount": 10}, scale=whole),
        "y": field("top", axis=None, scale=down),
    }
    wide = "(datum.end - datum.start) * width"
    told = "datum.name + '  ' + datum.amount + ', ' + format(datum.share, '.1%')"
    label = f"{wide} > 7 * length(datum.told) ? datum.told : datum.name"
    text = {"type": "text", "align": "left", "baseline": "middle", "dx": 5, "dy": 17}
    text |= {"fontSize": 11, "color": INK, "limit": {"expr": f"{wide} - 8"}}
    share = field("share", "share of the whole", format=".2%")
    layers = [
        layer(
            {"type": "rect", "strokeWidth": 0.5, "stroke": {"expr": "surface"}},
            **place,
            x2={"field": "end"},
            y2={"field": "bottom"},
            color=words("branch", scale={"domain": branches}, legend=None),
            opacity=field("top", legend=None, scale=shades),
            tooltip=[words("module"), words("amount"), share],
        ),
        layer(
            text,
            {"filter": f"{wide} > 24"},
            *({"calculate": what, "as": name} for name, what in (("told", told), ("label", label))),
            **place,
            text=words("label"),
        ),
    ]
    body = spec(values, 36 * levels, layer=layers, **chosen("model", list(icicles)))
    body["params"] = [
        *body.get("params", []),
        {"name": "surface", "value": "white"},
        {"name": "full", "value": FULL},
        {"name": "pale", "value": PALE},
    ]
    table = _table(
        [
            Column("module", "module"),
            Column("amount", "amount"),
            Column("share", "share", lambda value: f"{100 * value:.2f} %"),
        ],
        [d for d in values if 0 < d["top"] <= 2],
        "Two levels; report.json has every module.",
    )
    return body, table


INK = "#111111"
"""The colour of words on a rectangle, which is between `FULL` and `PALE` on light paper."""

FULL, PALE = 0.8, 0.45


def check_suffix(suffix: str) -> None:
    """Refuse what no plot is written as, before any work.

    Raises:
        UsageError: it is neither .png nor .svg.
    """
    if suffix.lower() not in SUFFIXES:
        raise UsageError(
            f"a plot is written as {' or '.join(SUFFIXES)}; "
            f"the suffix {suffix or '(none)'} names neither."
        )


def to_bytes(plots: Sequence[Plot], suffix: str) -> bytes:
    """One file with a panel for each plot, below each other; the same bytes every time.

    Args:
        suffix: ``.png`` or ``.svg``.

    Raises:
        UsageError: the suffix is another.
        LibraryError: vl-convert is not installed.
    """
    panels = [_titled(_drawn({"": plot})[0], plot.title, plot.notes) for plot in plots]
    return image(panels, suffix)


def to_image(chart: Chart, suffix: str = ".svg") -> bytes:
    """A chart on light paper: of a menu the first choice.

    Raises:
        LibraryError: vl-convert is not installed.
    """
    title = f"{chart.title}: {chart.choices[0]}" if len(chart.choices) > 1 else chart.title
    return image([_titled(chart.spec, title)], suffix)


_TITLE_WIDTH, _NOTE_WIDTH = 100, 125  # characters


def _titled(spec: Spec, title: str, notes: Sequence[str] = ()) -> Spec:
    """The chart for a file: with a width, a title, and the notes below the title."""
    heading = {
        "text": wrap(units.printable(title), _TITLE_WIDTH),
        "subtitle": [line for note in notes for line in wrap(units.printable(note), _NOTE_WIDTH)],
        "anchor": "start",
        "frame": "group",
    }
    return {**spec, "width": WIDTH, "title": heading}


def image(panels: Sequence[Spec], suffix: str) -> bytes:
    """Vega-Lite charts below each other, on light paper.

    Raises:
        UsageError: the suffix is neither .png nor .svg.
        LibraryError: vl-convert is not installed.
    """
    check_suffix(suffix)
    vl_convert = _library()
    config = {**theme(), "background": "white", "padding": 12}
    svgs = [vl_convert.vegalite_to_svg(json.dumps(each), config=config) for each in panels]
    text = _numbered(svgs[0] if len(svgs) == 1 else _stacked(svgs))
    svg = suffix.lower() == ".svg"
    return text.encode() if svg else bytes(vl_convert.svg_to_png(text, scale=2))


def _stacked(svgs: Sequence[str]) -> str:
    """One picture of several."""
    sizes = [re.search(r'width="([\d.]+)" height="([\d.]+)"', svg) for svg in svgs]
    wide = max(float(size[1]) for size in sizes if size)
    placed, top = [], 0.0
    for svg, size in zip(svgs, sizes, strict=True):
        placed.append(svg.replace("<svg ", f'<svg y="{top:g}" ', 1))
        top += float(size[2]) if size else 0.0
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{wide:g}" height="{top:g}">'
        f'<rect width="{wide:g}" height="{top:g}" fill="white"/>{"".join(placed)}</svg>'
    )


_CLIP = re.compile(r'(?<= id=")clip\d+(?=")|(?<=url\(#)clip\d+(?=\))')


def _numbered(svg: str) -> str:
    """The same with identifiers that do not depend on what the process drew before."""
    order = list(dict.fromkeys(_CLIP.findall(svg)))
    return _CLIP.sub(lambda found: f"clip{order.index(found[0])}", svg)


def script() -> str:
    """Vega, Vega-Lite and Vega-Embed as one script that sets ``window.vegaEmbed``.

    Raises:
        LibraryError: vl-convert is not installed.
    """
    return str(_library().javascript_bundle("window.vegaEmbed = vegaEmbed;"))


def _library() -> ModuleType:
    try:
        import vl_convert
    except ImportError as error:
        raise LibraryError(
            "drawing files needs vl-convert: pip install vl-convert-python."
        ) from error
    return vl_convert
