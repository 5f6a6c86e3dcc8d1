"""`datbench gate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..errors import UnknownNameError, UsageError
from ..ledger import MEMORY_MODES, MemoryMode
from . import gate_reports as reports
from .options import Out, OutputFormat, Resolutions, complete, complete_models


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
        typer.Option(
            "--baseline", metavar="FILE", readable=False, help="What to compare with, or to write."
        ),
    ] = None,
    update: Annotated[
        bool,
        typer.Option("--update", help="Write the baseline anew, and say what changed in it."),
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
        typer.Option(
            "--remove",
            metavar="NAME",
            help="With --update: leave this model out; may be repeated.",
            show_default=False,
        ),
    ] = None,
    res: Resolutions = None,
    batch: Annotated[
        int | None,
        typer.Option(help="With --models: images in a batch.", min=1, show_default="1"),
    ] = None,
    backward: Annotated[
        bool | None,
        typer.Option(
            "--backward/--forward", help="With --models: what to count.", show_default="backward"
        ),
    ] = None,
    features: Annotated[
        bool,
        typer.Option("--features", help="With --models: four feature maps with a norm, no head."),
    ] = False,
    memory_batch: Annotated[
        int | None,
        typer.Option(
            "--memory-batch",
            help="With --models: simulate the memory of this batch too.",
            min=1,
            show_default=False,
        ),
    ] = None,
    memory_mode: Annotated[
        str | None,
        typer.Option(
            "--memory-mode",
            help="With --memory-batch: inference, train-forward, train or step.",
            autocompletion=complete(*MEMORY_MODES),
            show_default="train-forward",
        ),
    ] = None,
    time: Annotated[
        bool,
        typer.Option("--time", help="Measure the baseline's times again, in fresh processes."),
    ] = False,
    allow_fewer: Annotated[
        bool,
        typer.Option("--allow-fewer", help="Let pass what became fewer MACs, elements or bytes."),
    ] = False,
    summary: Annotated[
        bool | None,
        typer.Option(
            "--summary/--no-summary",
            help="Append markdown to the job summary of GitHub Actions.",
            show_default="where there is one",
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
    from .output import check_apart, check_path, choose_format

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
    if not update:
        unused = [name for name, value in given.items() if value]
        if unused:
            raise UsageError(f"{', '.join(unused)}: for --update; a gate compares what is there.")
    elif not models:
        unused = [name for name, value in given.items() if value and name != "--remove"]
        if unused:
            raise UsageError(f"{', '.join(unused)}: for --models NAME; name what is added.")
    if memory_mode is not None and memory_batch is None:
        raise UsageError("--memory-mode is for --memory-batch; give that too.")
    if memory_mode is not None and memory_mode not in MEMORY_MODES:
        raise UnknownNameError.among("mode", memory_mode, MEMORY_MODES)
    check_apart(out, [baseline, *(results or ())])
    report = reports.summary_file(summary)
    if update:
        check_path(baseline, "--baseline")
        mode: MemoryMode = next((m for m in MEMORY_MODES if m == memory_mode), "train-forward")
        asked = reports.Asked(
            tuple(models or ()),
            tuple(res or ()),
            batch or 1,
            backward is not False,
            features,
            memory_batch,
            mode,
        )
        tables = reports.update(baseline, results or [], asked, remove or [], time, wanted, out)
        reports.summarise(report, tables)
        return
    rows, tables = reports.compare(baseline, results or [], time, wanted, out)
    reports.summarise(report, tables)
    reports.fail(rows, allow_fewer)
