"""Plots as PNG and SVG, by matplotlib: its Figure alone, without pyplot and its global state."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from textwrap import wrap
from typing import TYPE_CHECKING, Any

from .. import units
from ..errors import LibraryError
from ..figures import Bars, Figure, Plot
from .stacks import total_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

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
