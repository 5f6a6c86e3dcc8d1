"""Measured images a second that may stand beside published accuracy, and what they belong to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..errors import UsageError
from ..report.overviews import timed_setting
from ..reports import place_of, same_place
from ..types import Resolution

if TYPE_CHECKING:
    from ..timings import ThroughputRow

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
