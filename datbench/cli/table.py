"""`datbench table`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .options import Format, Out, OutputFormat, complete


def table(
    name: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="TABLE",
            help="1 to 9 of the DAT paper, datpp, davit, davit_dense, or all.",
            autocompletion=complete(*"123456789", "datpp", "davit", "davit_dense", "all"),
            show_default=False,
        ),
    ] = None,
    file: Annotated[
        list[Path] | None,
        typer.Option(
            "--file",
            metavar="FILE",
            readable=False,  # the reader says what is wrong
            help="A table of your own paper, in TOML; may be repeated.",
            show_default=False,
        ),
    ] = None,
    check: Annotated[
        bool,
        typer.Option(
            "--check",
            help="Fail if a verdict is not the one that the table's file expects (exit code 1), "
            "or a cell could not be computed (3).",
        ),
    ] = False,
    search: Annotated[
        bool,
        typer.Option(
            "--search",
            help="Try a grid of configurations where the print gives none (tables 5, davit).",
        ),
    ] = False,
    rules: Annotated[
        bool,
        typer.Option(
            "--rules",
            help="Show what every counter's rules give for printed FLOPs, and which the print "
            "follows; tables of detectors and segmentors always do.",
        ),
    ] = False,
    device: Annotated[
        str | None,
        typer.Option(
            help="Measure printed memory on this device too (cuda), each run in a fresh process.",
            show_default=False,
        ),
    ] = None,
    format: OutputFormat = None,
    out: Out = None,
) -> None:
    """Compare a paper's tables with what is computed.

    Every printed figure has a verdict: it agrees if the computed one rounds to it; otherwise it
    differs, is wrong in print, not reproducible, or published only, with the reason.
    """
    from ..machine import summary
    from ..paper.tables import chosen_tables
    from ..records import document
    from ..render.terminal import progress
    from .output import choose_format, emit

    wanted = choose_format(format, out)
    chosen = chosen_tables(name or [], file or [])
    if search:
        from ..errors import UsageError
        from ..paper.search import search as search_table
        from ..paper.view import miss_table, search_tables

        if len(chosen) > 1:
            raise UsageError("--search takes one table.")
        for option, given in (("--check", check), ("--rules", rules), ("--device", device)):
            if given:
                raise UsageError(f"--search does not take {option}.")
        found = search_table(chosen[0])
        tables = [miss_table(found)] if wanted is Format.CSV else search_tables(found)
        emit(tables, document("table-search", found, summary()), wanted, out)
        return
    from ..paper.verdicts import check_device, check_verdicts, compare_tables
    from ..paper.view import cell_table
    from ..paper.view import tables as tables_of

    if device is not None:
        check_device(chosen, device)
    compared = compare_tables(progress(chosen, lambda table: f"table {table.table}"), device)
    tables = [cell_table(compared)] if wanted is Format.CSV else tables_of(compared, rules)
    emit(tables, document("table", compared, summary()), wanted, out)
    if check:
        check_verdicts(compared)
