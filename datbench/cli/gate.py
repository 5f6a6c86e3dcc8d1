"""`datbench gate`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import DatbenchError, MissingError, UsageError
from ..files import SUMMARY, append_summary
from ..setting import MEMORY_MODES, MemoryMode, Setting
from ..units import printable
from .options import (
    Format,
    Out,
    OutputFormat,
    Resolutions,
    complete_models,
    one_of,
    option,
    resolutions,
    specs,
)

if TYPE_CHECKING:
    from ..models.resolve import Spec
    from ..render.table import Table


def gate(
    results: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="RESULTS",
            help="Result files: of throughput, of memory, or other baselines. Counts and memory of "
            "which there is no file are computed.",
            readable=False,
            show_default=False,
        ),
    ] = None,
    baseline: Annotated[
        Path | None,
        option("What to compare with, or to write.", "--baseline", metavar="FILE", readable=False),
    ] = None,
    update: Annotated[
        bool, option("Write the baseline anew, and say what changed in it.", "--update")
    ] = False,
    models: Annotated[
        list[str] | None,
        typer.Option(
            "--models",
            metavar="NAME",
            help="With --update: add this model, or all for datbench's own; may be repeated.",
            autocompletion=complete_models,
            show_default=False,
        ),
    ] = None,
    remove: Annotated[
        list[str] | None,
        option(
            "With --update: leave this model out; may be repeated.",
            "--remove",
            default=False,
            metavar="NAME",
        ),
    ] = None,
    res: Resolutions = None,
    batch: Annotated[
        int | None, option("With --models: images in a batch.", default="1", min=1)
    ] = None,
    backward: Annotated[
        bool | None,
        option("With --models: what to count.", "--backward/--forward", default="backward"),
    ] = None,
    features: Annotated[
        bool, option("With --models: four feature maps with a norm, no head.", "--features")
    ] = False,
    memory_batch: Annotated[
        int | None,
        option("With --models: simulate the memory of this batch too.", default=False, min=1),
    ] = None,
    memory_mode: Annotated[
        str | None,
        option(
            "With --memory-batch: inference, train-forward, train or step.",
            default="train-forward",
            names=MEMORY_MODES,
        ),
    ] = None,
    time: Annotated[
        bool, option("Measure the baseline's times again, in fresh processes.", "--time")
    ] = False,
    allow_fewer: Annotated[
        bool, option("Let pass what became fewer MACs, elements or bytes.", "--allow-fewer")
    ] = False,
    summary: Annotated[
        bool | None,
        option(
            "Append markdown to the job summary of GitHub Actions.",
            "--summary/--no-summary",
            default="where there is one",
        ),
    ] = None,
    format: OutputFormat = None,
    out: Out = None,
) -> None:
    """Fail if something changed against a baseline.

    Parameters, counts by module and operator, and simulated memory are exact: every change fails
    (exit code 1). Times are tested, on the machine of the baseline alone. A row that is missing
    from either side is 3, an undecided time 4, a failed run 5.
    """
    from .output import check_apart, check_path, choose_format, emit

    wanted = choose_format(format, out)
    if baseline is None:
        raise UsageError("name the file: --baseline FILE.")
    given = {
        "--models": models,
        "--remove": remove,
        "--res": res,
        "--batch": batch,
        "--backward": backward is not None,
        "--features": features,
        "--memory-batch": memory_batch,
        "--memory-mode": memory_mode,
    }
    unused = [name for name, value in given.items() if value]
    if unused and not update:
        raise UsageError(f"{', '.join(unused)}: for --update; a gate compares what is there.")
    unused = [name for name in unused if name != "--remove"]
    if unused and not models:
        raise UsageError(f"{', '.join(unused)}: for --models NAME; name what is added.")
    if memory_mode is not None and memory_batch is None:
        raise UsageError("--memory-mode is for --memory-batch; give that too.")
    mode: MemoryMode = one_of("mode", memory_mode or "train-forward", MEMORY_MODES)
    check_apart(out, [baseline, *(results or ())])
    if summary and not os.environ.get(SUMMARY):
        raise UsageError(f"--summary: {SUMMARY} is not set; it is GitHub Actions that sets it.")
    if update:
        check_path(baseline, "--baseline")
    files, name = results or [], baseline.name
    from ..gate import view
    from ..gate.check import check, computed, update_baseline
    from ..gate.records import ERRORS, deciding
    from ..machine import summary as here
    from ..records import document

    if update:
        jobs = [
            (spec, Setting(size, batch or 1, features=features, backward=backward is not False))
            for spec in _specs(models)
            for size in resolutions(res) or [spec.resolution]
        ]
        added = computed(jobs, memory_batch, mode)
        changed = update_baseline(baseline, files, added, remove or [], time)
        rows = changed.rows
        tables = shown = view.update_tables(rows, changed.came, changed.gone, name)
    else:
        rows, notes = check(baseline, files, time)
        tables = view.tables(rows, name, notes)
        shown = view.tables(rows, one=True) if wanted is Format.CSV else tables
    emit(shown, document("gate", rows, here()), wanted, out)
    if summary is not False:
        _summarise(tables)
    if update:
        return
    if not rows:
        raise MissingError("nothing was compared: give results of the times, or --time.")
    bad = deciding(rows, allow_fewer)
    if bad:
        raise ERRORS[bad[0].verdict](view.complaint(bad))


def _specs(models: list[str] | None) -> list[Spec]:
    """The models to add; none where none is named."""
    from ..models.dat import REGISTRY

    names = [n for name in models or () for n in (REGISTRY.names() if name == "all" else (name,))]
    return specs(list(dict.fromkeys(names))) if names else []


def _summarise(tables: Sequence[Table]) -> None:
    """Append to the job summary; where that fails, say so: the verdict decides the exit code."""
    from ..render.text import to_markdown

    if os.environ.get(SUMMARY):
        try:
            append_summary(to_markdown(tables))
        except DatbenchError as error:
            typer.echo(f"datbench: {printable(str(error))}", err=True)
