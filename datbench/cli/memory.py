"""`datbench memory`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import UnknownNameError, UsageError
from ..ledger import MEMORY_MODES, MemoryMode
from ..types import ATTENTIONS, DTYPES, Attention, Setting
from .options import (
    Configs,
    Format,
    Models,
    Out,
    OutputFormat,
    Resolutions,
    complete,
    resolutions,
    specs,
)

if TYPE_CHECKING:
    from ..ledger import MemoryRow
    from ..models.resolve import Spec
    from ..report.memory import By

PARTS: tuple[By, ...] = ("stage", "module", "operator")


def memory(
    model: Models = None,
    config: Configs = None,
    res: Resolutions = None,
    batch: Annotated[
        list[int] | None,
        typer.Option(help="Images in a batch; may be repeated.", show_default="1"),
    ] = None,
    mode: Annotated[
        str,
        typer.Option(
            help="inference (no gradients), train-forward (with what autograd keeps; the papers') "
            "or train (the backward too).",
            autocompletion=complete(*MEMORY_MODES),
        ),
    ] = "train-forward",
    attention: Annotated[
        str,
        typer.Option(
            help="eager (the published code's tensors) or sdpa (fused).",
            autocompletion=complete(*ATTENTIONS),
        ),
    ] = "eager",
    dtype: Annotated[
        str,
        typer.Option(
            help="Of the model and its input: float32, float64, bfloat16 or float16.",
            autocompletion=complete(*DTYPES),
        ),
    ] = "float32",
    features: Annotated[
        bool, typer.Option("--features", help="Four feature maps with a norm each, no head.")
    ] = False,
    by: Annotated[
        str | None,
        typer.Option(
            help="Break one model down by stage, module or operator, or several with commas.",
            autocompletion=complete(*PARTS),
            show_default=False,
        ),
    ] = None,
    verify: Annotated[
        bool,
        typer.Option(
            "--verify",
            help="Run it on the CPU too, in a process of its own, and put the peak that torch's "
            "profiler sees beside the simulated one.",
        ),
    ] = False,
    format: OutputFormat = None,
    out: Out = None,
) -> None:
    """Tell where the memory goes, simulated on tensors without values.

    One model at one setting has a ledger; several make one table. JSON holds it all.
    """
    from .output import choose_format

    wanted = choose_format(format, out)
    parts = _parts(by, wanted)
    jobs = _jobs(specs(model, config), res, batch, _attention(attention), dtype, features)
    if parts and len(jobs) > 1:
        raise UsageError("--by breaks down one model at one setting; name only one.")
    rows = _simulate(jobs, _mode(mode), verify)
    _write(rows, parts, wanted, out)


def _mode(name: str) -> MemoryMode:
    for mode in MEMORY_MODES:
        if mode == name:
            return mode
    raise UnknownNameError.among("mode", name, MEMORY_MODES)


def _attention(name: str) -> Attention:
    for attention in ATTENTIONS:
        if attention == name:
            return attention
    raise UnknownNameError.among("attention", name, ATTENTIONS)


def _parts(by: str | None, wanted: Format) -> list[By]:
    """The breakdowns asked for; none asked for is an empty list."""
    found: list[By] = []
    for name in by.split(",") if by is not None else ():
        match = next((part for part in PARTS if part == name.strip()), None)
        if match is None:
            raise UnknownNameError.among("breakdown", name.strip(), PARTS)
        found.append(match)
    if len(found) > 1 and wanted is Format.CSV:
        raise UsageError(f"a CSV file holds one table; choose one of --by {', '.join(found)}.")
    return found


def _jobs(
    chosen: list[Spec],
    res: list[str] | None,
    batches: list[int] | None,
    attention: Attention,
    dtype: str,
    features: bool,
) -> list[tuple[Spec, Setting]]:
    sizes = resolutions(res)
    return [
        (spec, Setting(size, batch, dtype, attention=attention, features=features))
        for spec in chosen
        for size in sizes or [spec.resolution]
        for batch in batches or [1]
    ]


def _simulate(jobs: list[tuple[Spec, Setting]], mode: MemoryMode, verify: bool) -> list[MemoryRow]:
    """Simulate every job, and run it if that is wanted."""
    from dataclasses import replace

    # torch is imported here, after everything that the user may have mistyped was checked.
    from ..measure.memory import memory_row
    from .progress import progress

    rows = []
    for spec, setting in progress(jobs, lambda job: job[0].name):
        row = memory_row(spec, replace(setting, backward=mode == "train"), mode)
        if verify:
            from ..measure.memory.measured import measured_on_cpu

            row = replace(row, measured=measured_on_cpu(row))
        rows.append(row)
    return rows


def _write(rows: list[MemoryRow], parts: list[By], wanted: Format, out: Out) -> None:
    from ..measure.environment import summary
    from ..report.memory import breakdown, many_models, one_model
    from ..results import document
    from .output import emit

    if len(rows) > 1 or (wanted is Format.CSV and not parts):
        tables = [many_models(rows)]
    elif wanted is Format.CSV:
        tables = [breakdown(rows[0], parts[0])]
    else:
        tables = one_model(rows[0], parts)
    emit(tables, document("memory", rows, summary()), wanted, out)
