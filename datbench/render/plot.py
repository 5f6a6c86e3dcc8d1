"""Plots as text for a terminal and as PNG or SVG files. Never imports torch, never pyplot."""

from __future__ import annotations

from collections.abc import Sequence

from .figure import Bars, Plot, check_suffix


def to_terminal(plot: Plot, width: int = 100) -> str:
    """A plot as plain text of at most `width` columns, ending in a newline.

    Markers tell the series apart; there is no colour. Below 40 columns it is drawn at 40.
    """
    from .terminal import bars, figure

    lines = bars(plot, width) if isinstance(plot, Bars) else figure(plot, width)
    return "".join(f"{line.rstrip()}\n" for line in lines)


def to_bytes(plots: Sequence[Plot], suffix: str) -> bytes:
    """One file with a panel for each plot; the same bytes every time.

    Args:
        suffix: ``.png`` or ``.svg``.

    Raises:
        UsageError: the suffix is another.
        LibraryError: matplotlib is not installed.
    """
    check_suffix(suffix)
    from .vega import drawn

    return drawn(plots, suffix.lower().lstrip("."))
