"""Charts as Vega-Lite: plain values that a page embeds and that vl-convert draws as SVG or PNG.

A chart's colours, fonts and sizes are its theme's; colour never says alone what a reader must know.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from textwrap import wrap
from typing import TYPE_CHECKING, Any

from .. import units
from ..errors import LibraryError
from .figure import Bars, Figure, Plot, Rect, total_of
from .table import Column, Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes

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


# Plots as PNG and SVG, by matplotlib: its Figure alone, without pyplot and its global state.


REMEDY = "drawing files needs matplotlib: pip install 'datbench[plots]'."

# Okabe and Ito, "Color Universal Design" (2008), without the yellow, which is faint on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#E69F00", "#56B4E9")

# One more than colours, so that the fifteenth series still differs from the first in one of them.
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<")

HATCHES = ("", "//", "..", "\\\\", "xx", "++", "--", "oo")

_WIDTHS = {Figure: 9.8, Bars: 12.0}  # inches, with names and legend

_HEIGHT = 4.3  # inches of a figure

_ROW = 0.45  # inches of a bar

_TITLE_WIDTH = 84  # characters across a panel

_NOTE_WIDTH = 104

SETTINGS: dict[Any, Any] = {
    "font.size": 10.0,
    "axes.titlesize": 11.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#DDDDDD",
    "hatch.linewidth": 0.8,
    "text.parse_math": False,  # a dollar sign is no formula
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "datbench",  # identifiers do not depend on the day
}

METADATA: dict[str, dict[str, Any]] = {
    "svg": {"Date": None, "Creator": "datbench"},
    "png": {"Software": "datbench"},
}


def drawn(plots: Sequence[Plot], suffix: str) -> bytes:
    """The file's content, a panel below the other.

    Args:
        suffix: ``png`` or ``svg``.

    Raises:
        LibraryError: matplotlib is not installed.
    """
    try:
        import matplotlib
        from matplotlib.figure import Figure as Canvas
        from matplotlib.layout_engine import ConstrainedLayoutEngine
    except ImportError as error:
        raise LibraryError(REMEDY) from error
    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # whatever the user's own settings are
        matplotlib.rcParams.update(SETTINGS)
        heights = [_height(plot) for plot in plots]
        layout = ConstrainedLayoutEngine(h_pad=0.15, hspace=0.04)
        width = max(_WIDTHS[type(plot)] for plot in plots)
        canvas = Canvas(figsize=(width, sum(heights)), layout=layout)
        panels = canvas.subplots(len(plots), 1, squeeze=False, height_ratios=heights)
        for axes, plot in zip(panels[:, 0], plots, strict=True):
            _draw(plot, axes)
        content = BytesIO()
        canvas.savefig(content, format=suffix, dpi=160, metadata=METADATA[suffix])
    return content.getvalue()


def _height(plot: Plot) -> float:
    if isinstance(plot, Bars):
        return 1.9 + _ROW * max(len(plot.names), len(plot.parts) / 2)
    return _HEIGHT + 0.18 * len(plot.notes)


def _draw(plot: Plot, axes: Axes) -> None:
    axes.set_title(_folded(plot.title, _TITLE_WIDTH), loc="left")
    if isinstance(plot, Bars):
        _draw_bars(plot, axes)
    else:
        _draw_figure(plot, axes)
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), frameon=False, handlelength=3.0)
    if plot.notes:
        axes.annotate(
            "\n".join(_folded(note, _NOTE_WIDTH) for note in plot.notes),
            xy=(0.0, 0.0),
            xycoords=("axes fraction", axes.xaxis.label),
            xytext=(0.0, -4.0),
            textcoords="offset points",
            va="top",
            fontsize=9.0,
            color="#444444",
            annotation_clip=False,
        )


_DENSE, _MARKERS = 60, 16
"""Points above which markers are thinned, and about how many remain."""


def _folded(text: str, width: int) -> str:
    return "\n".join(wrap(units.printable(text), width))


def _draw_figure(plot: Figure, axes: Axes) -> None:
    from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter

    count = len(plot.series)
    for number, series in enumerate(plot.series):
        colour = COLOURS[number % len(COLOURS)]
        # Later series are thinner and smaller: where two coincide, both are seen.
        rest = (count - 1 - number) / max(count - 1, 1)  # from 1 to 0
        width = 1.0 + 1.8 * rest
        marker: dict[str, Any] = {
            "marker": MARKERS[number % len(MARKERS)],
            "markersize": 4.5 + 5.5 * rest,
            "markerfacecolor": "none" if rest > 0.3 else colour,
            "markeredgewidth": 1.5,
        }
        if series.size is not None:
            marker["markersize"] = 4.0 + 18.0 * series.size**0.5  # its area says the weight
        if not series.marked:
            marker = {}
        axes.plot(series.x, series.drawn_line, color=colour, linewidth=width)
        # Hundreds of points are a line: a marker now and then says whose.
        every = max(len(series.x) // _MARKERS, 1) if len(series.x) > _DENSE else 1
        if marker:
            axes.plot(series.x, series.y, color=colour, linestyle="none", markevery=every, **marker)
        name = units.printable(series.name)
        if series.size is not None:  # the legend's rows are of one height
            marker["markersize"] = 6.0
        along = width if len(series.x) > 1 else 0.0
        axes.plot([], [], color=colour, linewidth=along, label=name, **marker)  # for the legend
    axes.set_xlabel(plot.x_label)
    axes.set_ylabel(plot.y_label)
    plain = FuncFormatter(lambda value, _: f"{value:g}")
    ticks = sorted({x for series in plot.series for x in series.x})
    if plot.log_x:
        axes.set_xscale("log")
        axes.xaxis.set_minor_formatter(NullFormatter())
    if len(ticks) <= 12:
        axes.xaxis.set_major_locator(FixedLocator(ticks))
        axes.xaxis.set_minor_locator(FixedLocator([]))
    axes.xaxis.set_major_formatter(plain)
    if plot.log_y:
        axes.set_yscale("log")
        heights = [y for series in plot.series for y in (*series.y, *series.line)]
        subs = (1.0, 2.0, 5.0) if max(heights) / min(heights) < 300 else (1.0,)
        axes.yaxis.set_major_locator(LogLocator(subs=subs))
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.yaxis.set_major_formatter(plain)


def _draw_bars(plot: Bars, axes: Axes) -> None:
    places = range(len(plot.names))
    left = [0.0 for _ in places]
    for number, part in enumerate(plot.parts):
        shares = [100 * plot.shares(bar)[number] for bar in places]
        colour = COLOURS[number % len(COLOURS)]
        axes.barh(
            places,
            shares,
            left=left,
            height=0.62,
            color="white" if part.extra else colour,
            edgecolor=colour if part.extra else "white",  # of the hatching too
            hatch=HATCHES[number % len(HATCHES)],
            linewidth=0.6,
            label=units.printable(part.name) + (" (left out)" if part.extra else ""),
        )
        left = [a + b for a, b in zip(left, shares, strict=True)]
    named = [f"{units.printable(plot.names[bar])}\n{total_of(plot, bar)}" for bar in places]
    axes.set_yticks(list(places), named)
    axes.set_ylim(len(plot.names) - 0.5, -0.5)  # the first on top
    axes.set_xlim(0, 100)
    axes.set_xlabel(f"share of the {plot.unit}s (%)")
    axes.grid(visible=False, axis="y")


# Where an amount is, module inside module: an icicle in a file, a tree of bars in a terminal.


SMALLEST = 0.01
"""Share below which a terminal shows no line."""

_WIDTH = 12.0  # inches

_LEVEL = 0.42  # inches

_LETTER = 0.0072  # of the width, of one letter


def ink(colour: str, alpha: float = 1.0) -> str:
    """Black or white, whichever can be read better on a colour that is laid on white.

    Contrast as WCAG 2 defines it.
    """
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    blended = [alpha * part + 1 - alpha for part in parts]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in blended]
    luminance = sum(w * p for w, p in zip((0.2126, 0.7152, 0.0722), linear, strict=True))
    # (1 + 0.05) / (L + 0.05) against (L + 0.05) / (0 + 0.05)
    return "white" if (luminance + 0.05) ** 2 < 1.05 * 0.05 else "black"


def to_terminal(rects: Sequence[Rect], title: str, say: Callable[[float], str], width: int) -> str:
    """A line for each module of at least one percent, below the one that it is in."""
    shown = [rect for rect in rects if rect.end - rect.start >= SMALLEST]
    names = [f"{'  ' * rect.level}{units.printable(rect.name)}" for rect in shown]
    across = max(map(len, names))
    amounts = [say(rect.amount) for rect in shown]
    wide = max(map(len, amounts))
    room = max(width - across - wide - 12, 10)
    lines = [units.printable(title), ""]
    for rect, name, amount in zip(shown, names, amounts, strict=True):
        share = rect.end - rect.start
        bar = "█" * max(round(share * room), 1)
        lines.append(f"{name:<{across}}  {amount:>{wide}}  {100 * share:5.1f} %  {bar}")
    return "".join(f"{line.rstrip()}\n" for line in lines)


def to_bytes(rects: Sequence[Rect], title: str, say: Callable[[float], str], suffix: str) -> bytes:
    """The file's content: a row of rectangles for each level, as wide as their shares.

    Args:
        suffix: ``.png`` or ``.svg``.

    Raises:
        UsageError: the suffix is another.
        LibraryError: matplotlib is not installed.
    """
    from .figure import check_suffix

    check_suffix(suffix)
    try:
        import matplotlib
        from matplotlib.figure import Figure as Canvas
    except ImportError as error:
        raise LibraryError(REMEDY) from error

    kind = suffix.lower().lstrip(".")
    levels = max(rect.level for rect in rects) + 1
    branches = list(dict.fromkeys(rect.branch for rect in rects))
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(SETTINGS)
        canvas = Canvas(figsize=(_WIDTH, _LEVEL * levels + 0.5))
        axes = canvas.add_axes((0.005, 0.02, 0.99, 1 - 0.5 / (_LEVEL * levels + 0.5)))
        axes.set_axis_off()
        axes.set_xlim(0, 1)
        axes.set_ylim(levels, 0)
        axes.set_title(units.printable(title), loc="left")
        for rect in rects:
            share = rect.end - rect.start
            colour = (
                COLOURS[branches.index(rect.branch) % len(COLOURS)] if rect.level else "#666666"
            )
            alpha = 1 - 0.09 * rect.level
            axes.barh(
                rect.level + 0.5,
                share,
                left=rect.start,
                height=0.94,
                color=colour,
                alpha=alpha,
                edgecolor="white",
                linewidth=0.6,
            )
            name = units.printable(rect.name)
            told = f"{name}  {say(rect.amount)}, {100 * share:.1f} %"
            label = next((text for text in (told, name) if len(text) * _LETTER < share), None)
            if label is not None:
                axes.text(
                    (rect.start + rect.end) / 2,
                    rect.level + 0.5,
                    label,
                    ha="center",
                    va="center",
                    fontsize=8.0,
                    color=ink(colour, alpha),
                )
        content = BytesIO()
        canvas.savefig(content, format=kind, dpi=160, metadata=METADATA[kind])
    return content.getvalue()
