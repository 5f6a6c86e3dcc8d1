"""One row a model, for the table of a paper: computed, printed, and from files of measurements."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..errors import UsageError
from ..machine import place_of
from ..memory.records import GpuRow
from ..models.detectors.heads import JOINT
from ..models.resolve import Spec, resolve
from ..models.view import display_name
from ..records import rows_of
from ..setting import MemoryMode, Resolution, Setting, describe
from ..timing.records import ThroughputRow
from .accuracy import check_alike, infers, number, printed
from .records import SummaryRow
from .tables import chosen_tables

Measured = tuple[Any, Mapping[str, Any]]
"""A row of a file, with its environment."""


@dataclass(frozen=True)
class Named:
    """A model as a table prints it."""

    spec: Spec
    resolution: Resolution
    name: str
    top1: float | None
    table: str
    inputs: tuple[str, ...] = ()  # what it takes in place of an image


def own_rows(files: Sequence[Path]) -> list[Named]:
    """The rows of users' tables that say what to build.

    Raises:
        UsageError: a file is wrong.
    """
    found = []
    for table in chosen_tables((), files) if files else ():
        labels = [column.name for column in table.columns if column.quantity is None]
        tops = [column.name for column in table.columns if column.quantity == "accuracy"]
        for row in table.rows:
            if row.build is None:
                continue
            head = f"{JOINT}{row.build.head}" if row.build.head else ""
            spec = resolve(f"{row.build.model}{head}")
            name = next(row.values[label] for label in labels if row.values.get(label))
            if name == row.build.model:  # as in a CSV file
                name = display_name(spec.name)
            top1 = next((number(row.values[n]) for n in tops if n in row.values), None)
            size = row.build.res or spec.resolution
            found.append(Named(spec, size, name, top1, table.table, row.build.inputs))
    return found


def read_measured(files: Sequence[Path]) -> list[Measured]:
    """Rows of times and of measured memory.

    Raises:
        UsageError: a file is broken, or holds something else.
    """
    return [pair for path in files for pair in rows_of([path], "throughput", "memory-measured")]


def summarise(
    jobs: Iterable[tuple[Spec, Setting]],
    mode: MemoryMode,
    wanted: Collection[str],
    own: Sequence[Named] = (),
    measured: Sequence[Measured] = (),
    any_batch: bool = True,
) -> list[SummaryRow]:
    """A row for each model and setting.

    Args:
        wanted: the columns to compute; what is printed or measured costs nothing.
        own: rows of the user's tables, which go before the papers'.
        measured: times and memory from files.
        any_batch: take the fastest batch of a file, not the setting's.

    Raises:
        UsageError: the rows of the files are of several machines or settings, or of no model
            here; or there are none for a column that is measured.
        MeasurementError: a model does not run with its setting.
    """
    timed = any(isinstance(row, ThroughputRow) for row, _ in measured)
    if {"images/s", "latency"} & set(wanted) and not timed:
        raise UsageError("images/s and latency are measured: --from FILE of `datbench throughput`.")
    rows, used = [], []
    for spec, setting in jobs:
        row = _computed(spec, setting, mode, wanted)
        row, times = _with_measured(row, measured, any_batch)
        rows.append(_with_accuracy(row, spec, own))
        used += times
    check_alike(used, "name", "batch")
    if measured and not any(row.timed or row.measured for row in rows):
        other = measured[0][0]
        raise UsageError(
            "the files hold none of these models and settings, but such as "
            f"{other.model}, {describe(other)}."
        )
    return rows


def _computed(
    spec: Spec, setting: Setting, mode: MemoryMode, wanted: Collection[str]
) -> SummaryRow:
    row = SummaryRow(spec.name, display_name(spec.name), setting, mode)
    if {"params", "macs"} & set(wanted):
        from ..counting.conventions import CONVENTIONS
        from ..counting.count import count_row

        one = replace(setting, batch=1, backward=False)
        count = count_row(spec, one, CONVENTIONS["fvcore"])
        row = replace(row, params=count.params, macs=count.macs)
    if "memory" in wanted:
        from ..memory.simulation import memory_row

        row = replace(row, memory=memory_row(spec, setting, mode).peak.amount)
    return row


def _with_measured(
    row: SummaryRow, measured: Sequence[Measured], any_batch: bool
) -> tuple[SummaryRow, list[Measured]]:
    """The row with what files say of its model and setting, and the time that it has from them."""
    same = [
        (each, where)
        for each, where in measured
        if each.model == row.model
        and replace(each.setting, device="", batch=1, backward=False)
        == replace(row.setting, device="", batch=1, backward=False)
        and (any_batch or each.setting.batch == row.setting.batch)
    ]
    times = [
        (each, where)
        for each, where in same
        if isinstance(each, ThroughputRow) and infers(each) and each.images_per_second
    ]
    best = max(times, key=lambda pair: pair[0].images_per_second or 0, default=None)
    if best is not None:
        time, where = best
        row = replace(
            row,
            images_per_second=time.images_per_second,
            seconds=time.seconds,
            timed=f"{describe(time, 'resolution')}; {place_of(where)}",
        )
    for each, where in same:
        if isinstance(each, GpuRow) and each.mode == row.memory_mode and each.peaks:
            said = f"{describe(each, 'resolution')}; {place_of(where)}"
            row = replace(row, measured_memory=each.peaks.allocated, measured=said)
    return row, [] if best is None else [best]


def _with_accuracy(row: SummaryRow, spec: Spec, own: Sequence[Named]) -> SummaryRow:
    size = row.setting.resolution
    for each in own:
        if (each.spec.name, each.resolution) == (row.model, size):
            top1 = None if row.setting.features else each.top1
            return replace(row, name=each.name, top1=top1, printed=each.table)
    for rated in printed() if not row.setting.features else ():
        if rated.model == row.model and (rated.resolution or spec.resolution) == size:
            return replace(row, top1=rated.top1, printed=f"table {rated.table}")
    return row
