"""Plots that set models beside each other: accuracy and cost, cost and size, what memory is of."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import UsageError
from ..figures import Bars, Figure, Part, Series
from ..ledger import CATEGORIES, MemoryRow
from ..results import CountRow
from ..timings import ThroughputRow
from .memory import LABELS

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


def accuracy(points: Sequence[Rated], label: str, *notes: str) -> Figure:
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
