"""Where an amount is, module inside module: an icicle in a file, a tree of bars in a terminal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from io import BytesIO

from .. import units
from ..errors import LibraryError
from .partition import Rect
from .plots_file import COLOURS, REMEDY

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
    from .plots import check_suffix

    check_suffix(suffix)
    try:
        import matplotlib
        from matplotlib.figure import Figure as Canvas
    except ImportError as error:
        raise LibraryError(REMEDY) from error
    from .plots_file import METADATA, SETTINGS

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
