"""Sweeps as tables: how far they are, what they would do, and whether it fits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from .. import units
from ..render.table import Column, Table
from .records import OUTCOMES, SweepFit, SweepState, SweepUnit

_COUNTS = (
    Column("folder", "sweep", hidden=True),
    Column("kind", "kind", label=True),
    Column("units", "units", units.integer),
    Column("pending", "pending", units.integer),
    *(Column(name, name, units.integer) for name in OUTCOMES),
)

REMEDY = {
    "failed": "failed: the model or datbench raised an error, which its record says",
    "timeout": "timeout: give more seconds with --timeout",
    "crashed": "crashed: the process was killed or vanished each time",
}


def tables(
    states: Sequence[SweepState], one: bool = False, said: Sequence[str] = ()
) -> list[Table]:
    """How far sweeps are: a row a kind; `said`: what a command has just done."""
    rows = [{"folder": state.folder, **vars(count)} for state in states for count in state.counts]
    notes = list(said)
    for state in states:
        bad = [n for n in REMEDY if any(getattr(count, n) for count in state.counts)]
        notes += [f"{REMEDY[name]}." for name in bad]
        if bad:
            notes.append(f"`datbench sweep retry {state.folder}` makes these units pending again.")
        notes += [f"At work: {words}." for words in state.at_work[:5]]
        if len(state.at_work) > 5:
            notes.append(f"At work: {len(state.at_work) - 5} more.")
        if state.jobs:
            said = ", ".join(f"{job} {word}" for job, word in state.jobs.items())
            notes.append(f"Jobs: {said}.")
    title = f"Sweep {states[0].folder}" if len(states) == 1 else "Sweeps"
    return [Table.of(_COUNTS, rows, title, notes)]


_UNIT = (
    Column("kind", "kind"),
    Column("model", "model", label=True),
    Column("res", "input"),
    Column("batch", "batch", units.integer),
    Column("dtype", "dtype"),
    Column("attention", "attention", when="wide"),
    Column("device", "device", when="wide"),
    Column("mode", "mode", when="wide"),
    Column("round", "round", units.integer),
    Column("timeout", "time-out (s)", units.figure, when="wide"),
    Column("key", "key", hidden=True),
)


def plan_tables(found: Sequence[SweepUnit], one: bool = False, shards: int = 1) -> list[Table]:
    """What a sweep would do: every unit, how many each axis has, and the longest time."""
    listed = Table.of(_UNIT, found, "Units in their order")
    if one:
        return [listed]
    counts = [
        {"axis": column.title, "value": value, "units": number}
        for column in _UNIT
        if column.name not in ("timeout", "key")
        for value, number in Counter(column.show(column.of(each)) for each in found).items()
        if number < len(found) or column.name in ("kind", "model")
    ]
    columns = (
        Column("axis", "axis"),
        Column("value", "value"),
        Column("units", "units", units.integer),
    )
    longest = f"{sum(each.timeout for each in found) / shards / 3600:.1f} hours"
    note = (
        f"{len(found)} units. If each took its whole time-out, that would be {longest}"
        f"{f' for each of {shards} shards' if shards > 1 else ''}."
    )
    return [listed, Table.of(columns, counts, "Units by axis", [note])]


def fit_tables(found: Sequence[SweepFit]) -> list[Table]:
    """Which units fit, by simulation."""
    columns = (
        Column("words", "unit", label=True),
        Column("peak", "peak", units.size),
        Column("capacity", "there is", units.size),
        Column("verdict", "fits"),
    )
    no = sum(each.fits is False for each in found)
    note = (
        f"{no} of {len(found)} units do not fit. Memory is simulated once for units that differ in "
        "the batch alone, and grows with it in proportion from there."
    )
    return [Table.of(columns, found, "Memory of the units", [note])]
