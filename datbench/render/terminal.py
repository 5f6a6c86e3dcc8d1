"""The terminal: its console, what is at work, and plots as characters with a legend.

Plots are drawn here and not by plotext, whose figure is one global object, and whose API changed
wholly from version 5 to 6.
"""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from textwrap import wrap
from typing import TYPE_CHECKING, Any, TypeVar

from .. import units

if TYPE_CHECKING:
    from rich.console import Console

    from .figure import Bars, Figure, FigurePart, Icicle, Plot, Series

PLAIN_WIDTH = 120
"""Columns of a table that no terminal bounds."""


def console(stderr: bool = False) -> Console:
    """A rich console: colours on a terminal only; wide where nothing bounds the width."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    bounded = (stream is not None and stream.isatty()) or "COLUMNS" in os.environ
    return Console(
        stderr=stderr, width=None if bounded else PLAIN_WIDTH, highlight=False, soft_wrap=False
    )


def _watched() -> bool:
    """Whether somebody may watch: standard error is a terminal."""
    return sys.stderr is not None and sys.stderr.isatty()


Job = TypeVar("Job")


def _model(job: Any) -> str:
    return str(job[0].name)


def progress(jobs: Sequence[Job], name: Callable[[Job], str] = _model) -> Iterator[Job]:
    """Yield every job, showing the name of the one at work: of a model with its setting."""
    if len(jobs) < 2 or not _watched():
        yield from jobs
        return

    from rich.progress import Progress

    with Progress(console=console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=len(jobs))
        for job in jobs:
            bar.update(task, description=name(job))
            yield job
            bar.advance(task)


@contextmanager
def status() -> Iterator[Callable[..., None]]:
    """A function that shows what is at work, and the seconds left if told; where somebody watches.

    Both the time that has passed and the time that is left go on while it works.
    """
    if not _watched():
        yield lambda text, left=0.0: None
        return

    from rich.progress import Progress, ProgressColumn, SpinnerColumn, Task, TextColumn
    from rich.text import Text

    class Clock(ProgressColumn):
        """``0:12, about 0:40 left``."""

        def render(self, task: Task) -> Text:
            passed = task.elapsed or 0.0
            return Text(clock(passed, task.fields["end"] and task.fields["end"] - passed))

    columns = SpinnerColumn(), TextColumn("{task.description}", markup=False), Clock()
    with Progress(*columns, console=console(stderr=True), transient=True) as shown:
        task = shown.add_task("", total=None, end=0.0)

        def show(text: str, left: float = 0.0) -> None:
            end = (shown.tasks[0].elapsed or 0.0) + left if left else 0.0
            shown.update(task, description=text, end=end)

        yield show


def clock(passed: float, left: float) -> str:
    """``0:12, about 0:40 left``; what is left is not said where it is not known."""
    said = [f"{seconds // 60:.0f}:{seconds % 60:02.0f}" for seconds in map(round, (passed, left))]
    return f"{said[0]}, about {said[1]} left" if left > 0 else said[0]


class ProgressBars:
    """Progress of work that has parts: bars where somebody watches, plain lines elsewhere."""

    EVERY = 10.0
    """Seconds between two plain lines that say nothing unusual."""

    def __init__(self) -> None:
        self._shown: Any = None
        self._tasks: dict[str, Any] = {}
        self._last = 0.0

    def __enter__(self) -> ProgressBars:
        if _watched():
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
            from rich.table import Column

            # What is at work gives way where a terminal is narrow; the rest does not.
            whole = Column(min_width=15, no_wrap=True)
            rest = Column(ratio=1, no_wrap=True, overflow="ellipsis")
            said = "{task.fields[left]}{task.description}"
            self._shown = Progress(
                TextColumn("{task.fields[name]}", markup=False),
                BarColumn(bar_width=15, table_column=whole),
                MofNCompleteColumn(table_column=Column(min_width=9, no_wrap=True)),
                TextColumn(said, markup=False, table_column=rest),
                console=console(stderr=True),
                transient=True,
                expand=True,
            ).__enter__()
        return self

    def __exit__(self, *how: Any) -> None:
        if self._shown is not None:
            self._shown.__exit__(*how)

    def show(
        self, name: str, done: int, total: int, text: str, left: float = 0.0, line: str = ""
    ) -> None:
        """Show how far a part is.

        Args:
            text: what is at work.
            left: seconds, about; 0 where that is not known.
            line: what has just happened, for somebody who reads it later; nothing: not said.
        """
        about = clock(left, 0.0)
        if self._shown is not None:
            if name not in self._tasks:
                self._tasks[name] = self._shown.add_task("", name=name, left="", total=total)
            said = f"about {about} left, " if left else ""
            self._shown.update(
                self._tasks[name], completed=done, total=total, description=text, left=said
            )
        elif line and sys.stderr is not None:
            now = time.monotonic()
            if now - self._last >= self.EVERY or not line.startswith("ok") or done == total:
                self._last = now
                more = f", about {about} left" if left else ""
                parts = [f"{name}: " if name else "", f"{done}/{total} ", line, more]
                sys.stderr.write(units.printable("".join(parts)) + "\n")


MARKERS = "●■▲◆○□△◇▼▽★☆"

FILLS = "█▒▞░▚▓#=+:%*"

LINE = "·"

LEAST_WIDTH = 40

_ROWS = 22


LEAST_SHARE = 0.01
"""Share of the whole below which an icicle shows no line."""


def to_terminal(plot: Plot, width: int = 100) -> str:
    """A plot as plain text of at most `width` columns, ending in a newline.

    Markers tell the series apart; there is no colour. Below 40 columns it is drawn at 40.
    """
    from .figure import Bars, Figure, Icicle

    width = max(width, LEAST_WIDTH)
    match plot:
        case Figure():
            lines = _figure(plot, width)
        case Bars():
            lines = _bars(plot, width)
        case Icicle():
            lines = _icicle(plot, width)
    lines += [line for note in plot.notes for line in wrap(units.printable(note), width)]
    return "".join(f"{line.rstrip()}\n" for line in lines)


@dataclass(frozen=True)
class Scale:
    """From values to cells 0 .. size - 1, along one axis."""

    low: float
    high: float
    size: int
    log: bool

    @classmethod
    def over(cls, values: Sequence[float], size: int, log: bool) -> Scale:
        """A scale on which all the values lie."""
        low, high = min(values), max(values)
        if low == high or (log and math.log(low) == math.log(high)):
            # A single value stands in the middle.
            low, high = (low / 2, high * 2) if log else (low - 1, high + 1)
        return cls(low, high, size, log)

    def exact(self, value: float) -> float:
        """Where a value lies, between two cells perhaps."""
        low, high, at = self.low, self.high, value
        if self.log:
            low, high, at = map(math.log, (low, high, at))
        return (at - low) / (high - low) * (self.size - 1)

    def cell(self, value: float) -> int:
        """The cell in which a value lies."""
        return round(self.exact(value))

    def ticks(self) -> list[float]:
        """Round values inside the scale, no more than about six."""
        if self.log:
            found: list[float] = []
            for steps in ((1,), (1, 3), (1, 2, 5)):
                first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
                found = [s * 10.0**e for e in range(first, last + 1) for s in steps]
                found = [tick for tick in found if self.low <= tick <= self.high]
                if len(found) >= 3:
                    return found
            if len(found) == 2:
                return found
        step = 10.0 ** math.floor(math.log10(self.high - self.low))
        step = next(step * s for s in (0.2, 0.5, 1, 2) if (self.high - self.low) / (step * s) <= 6)
        first, last = math.ceil(self.low / step), math.floor(self.high / step)
        return [n * step for n in range(first, last + 1)]


def _figure(plot: Figure, width: int) -> list[str]:
    """Title, plot, axis and legend."""
    heights = [y for series in plot.series for y in (*series.y, *series.line)]
    rows = Scale.over(heights, _ROWS, plot.log_y)
    labels = {rows.cell(tick): f"{tick:g}" for tick in rows.ticks()}
    margin = max(map(len, labels.values()), default=0) + 1
    abscissae = sorted({x for series in plot.series for x in series.x})
    columns = Scale.over(abscissae, width - margin - 2, plot.log_x)
    grid, owners = _drawn(plot.series, columns, rows)
    lines = [*wrap(units.printable(plot.title), width), plot.y_label]
    for row in reversed(range(_ROWS)):
        label = labels.get(row)
        edge = "┤" if label else "│"
        lines.append(f"{label or '':>{margin}}{edge}{''.join(grid[row])}")
    ticks = abscissae if len(abscissae) <= 12 else columns.ticks()
    axis, numbers = _x_axis(ticks, columns)
    lines += [" " * margin + axis, " " * margin + numbers]
    lines += [line.center(width) for line in wrap(plot.x_label, width)]
    return lines + _legend(plot.series, owners, width)


def _drawn(
    series: Sequence[Series], columns: Scale, rows: Scale
) -> tuple[list[list[str]], list[list[int | None]]]:
    """The grid, and which series' markers its cells show, row 0 below."""
    grid = [[" "] * columns.size for _ in range(rows.size)]
    owners: list[list[int | None]] = [[None] * columns.size for _ in range(rows.size)]
    for one in series:
        line = zip(one.x, one.line or one.y, strict=True)
        along = [(columns.exact(x), rows.exact(y)) for x, y in line]
        for (x0, y0), (x1, y1) in pairwise(along):
            for column in range(math.ceil(x0), math.floor(x1) + 1):
                row = y0 + (y1 - y0) * (column - x0) / (x1 - x0) if x1 > x0 else y1
                grid[round(row)][column] = LINE
    for number, one in reversed(list(enumerate(series))):  # the first is on top
        if not one.marked:
            continue
        for x, y in zip(one.x, one.y, strict=True):
            row, column = rows.cell(y), columns.cell(x)
            grid[row][column] = MARKERS[number % len(MARKERS)]
            owners[row][column] = number
    return grid, owners


def _x_axis(ticks: Sequence[float], columns: Scale) -> tuple[str, str]:
    """The axis and its numbers; a number that would touch another is left out."""
    axis, numbers = [" ", *"─" * columns.size], [" "] * (columns.size + 2)
    axis[0] = "└"
    free = 0
    for tick in ticks:
        at, text = columns.cell(tick) + 1, f"{tick:g}"
        axis[at] = "┴"
        start = min(at - len(text) // 2, len(numbers) - len(text))
        if start >= free:
            numbers[start : start + len(text)] = text
            free = start + len(text) + 1
    return "".join(axis), "".join(numbers)


def _legend(series: Sequence[Series], owners: list[list[int | None]], width: int) -> list[str]:
    """A line for each series: its marker, its name, its first and last value."""
    seen = {owner for row in owners for owner in row}
    names = [units.printable(one.name) for one in series]
    room = max(map(len, names))
    ends = {(one.x[0], one.x[-1]) for one in series if one.marked and len(one.x) > 1}
    lines = [f"  {'':<{room}}  at {first:g} .. at {last:g}" for first, last in ends]
    if len(lines) > 1:
        lines = [f"  {'':<{room}}  first .. last"]
    for number, (one, name) in enumerate(zip(series, names, strict=True)):
        text = f"{LINE} {name}"
        if one.marked:
            shown = dict.fromkeys((0, len(one.y) - 1))
            values = " .. ".join(f"{one.y[place]:.4g}" for place in shown)
            hidden = "" if number in seen else " (behind others)"
            text = f"{MARKERS[number % len(MARKERS)]} {name:<{room}}  {values}{hidden}"
        lines += wrap(text, width, subsequent_indent="  ") if len(text) > width else [text]
    return lines


def _bars(plot: Bars, width: int) -> list[str]:
    """Each bar below its name and total, then the legend."""
    lines = wrap(units.printable(plot.title), width)
    for number in range(len(plot.names)):
        lines += ["", *wrap(plot.label(number), width), _bar(plot, number, width)]
    lines.append("")
    for number, part in enumerate(plot.parts):
        name, sign = units.printable(part.name), FILLS[number % len(FILLS)]
        text = f"{sign} {name}: {_share_range(plot, part)}"
        lines += wrap(text, width, subsequent_indent="  ")
    return lines


def _bar(plot: Bars, number: int, width: int) -> str:
    """One bar; a part is as long as its ends say when rounded, so nothing adds up."""
    room, ends, drawn, split = width - 1, 0.0, "", False
    for index, (part, share) in enumerate(zip(plot.parts, plot.shares(number), strict=True)):
        if part.extra and share and not split:
            drawn, split = f"{drawn}|", True
        ends += share
        drawn += FILLS[index % len(FILLS)] * (round(ends * room) + split - len(drawn))
    return drawn


def _share_range(plot: Bars, part: FigurePart) -> str:
    """A part's share, from the least to the most of the bars that have it."""
    shares = [
        amount / total for amount, total in zip(part.amounts, plot.totals, strict=True) if amount
    ]
    if not shares:
        return "none"
    texts = list(dict.fromkeys(units.share(share, 1) for share in (min(shares), max(shares))))
    return " to ".join(texts) + (" (left out)" if part.extra else "")


def _icicle(plot: Icicle, width: int) -> list[str]:
    """A line for each module of at least one percent, below the one that it is in."""
    shown = [rect for rect in plot.rects if rect.share >= LEAST_SHARE]
    names = [f"{'  ' * rect.level}{units.printable(rect.name)}" for rect in shown]
    amounts = [plot.say(rect.amount) for rect in shown]
    across, wide = max(map(len, names)), max(map(len, amounts))
    room = max(width - across - wide - 12, 10)
    lines = [units.printable(plot.title), ""]
    for rect, name, amount in zip(shown, names, amounts, strict=True):
        bar = "█" * max(round(rect.share * room), 1)
        lines.append(f"{name:<{across}}  {amount:>{wide}}  {100 * rect.share:5.1f} %  {bar}")
    return lines


def print_help(
    usage: str, about: str, sections: Mapping[str, Sequence[tuple[str, str]]], end: str | None
) -> None:
    """A command's help in panels, one a section of names and what they mean."""
    from rich.box import ROUNDED
    from rich.panel import Panel
    from rich.table import Table
    from rich.text import Text

    screen = console()
    screen.print(Text(usage, "bold"))
    for paragraph in about.split("\n\n"):
        screen.print(Text(f"\n{' '.join(paragraph.split())}"))
    width = max(len(name) for records in sections.values() for name, _ in records)
    for title, records in sections.items():
        grid = Table.grid(padding=(0, 2))
        grid.add_column(width=width, style="cyan", no_wrap=True)
        for name, meaning in records:
            grid.add_row(Text(name), Text(meaning))
        screen.print(Panel(grid, title=title, title_align="left", box=ROUNDED, border_style="dim"))
    if end:
        screen.print(Text(end))
