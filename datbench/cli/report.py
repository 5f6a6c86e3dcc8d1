"""`datbench report`."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import LibraryError, MeasurementError, UnknownNameError, UsageError
from ..units import printable
from .options import Resolutions, complete, complete_models, resolutions, specs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..models.resolve import Spec
    from ..paper.tables import TableData

MAIN = ("dat_t", "dat_s", "dat_b", "datpp_t", "datpp_s", "datpp_b")
"""The published variants: what a report is of, unless told."""

NONE = "none"

PLOTS = (".svg", ".png")


def report(
    models: Annotated[
        list[str] | None,
        typer.Option(
            "--models",
            metavar="NAME",
            help="A model, any name that `datbench flops` takes; may be repeated. none: no models.",
            autocompletion=complete_models,
            show_default=" ".join(MAIN),
        ),
    ] = None,
    tables: Annotated[
        list[str] | None,
        typer.Option(
            "--tables",
            metavar="TABLE",
            help="1 to 9, datpp, davit, all or none, or several with commas; may be repeated.",
            autocompletion=complete(*"123456789", "datpp", "davit", "all", NONE),
            show_default="all",
        ),
    ] = None,
    from_: Annotated[
        list[Path] | None,
        typer.Option(
            "--from",
            metavar="FILE",
            readable=False,
            help="Results of other commands (JSON), pytest-benchmark's, or a former report.json; "
            "may be repeated.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        str | None,  # an empty path would be the working directory
        typer.Option(
            "--out",
            metavar="DIR",
            help="The directory to write to; other files in it stay.",
            show_default=False,
        ),
    ] = None,
    res: Resolutions = None,
    title: Annotated[str, typer.Option(help="The report's title.")] = "Benchmark report",
    baseline: Annotated[
        Path | None,
        typer.Option(
            "--baseline",
            metavar="FILE",
            readable=False,
            help="A baseline of `datbench gate`, or a former report.json, to compare with; without "
            "--res its settings are computed too.",
        ),
    ] = None,
    pr_comment: Annotated[
        Path | None,
        typer.Option(
            "--pr-comment",
            metavar="FILE",
            readable=False,
            help="Write compact markdown for a pull request, with what changed.",
        ),
    ] = None,
    plots: Annotated[
        str,
        typer.Option(
            help="How markdown's plots are written: svg or png.",
            autocompletion=complete("svg", "png"),
        ),
    ] = "svg",
    html: Annotated[
        bool, typer.Option("--html/--no-html", help="Write the page and the plots.")
    ] = True,
) -> None:
    """Write a report as HTML, markdown, CSV, LaTeX and JSON.

    Counts, simulated memory and the papers' tables are computed; times come from result files.
    Nothing is judged: for that there is `datbench gate`. What cannot be computed is named on
    standard error and in the report; where nothing can, the exit code is 5 and nothing is written.
    """
    from concurrent.futures import ThreadPoolExecutor

    from ..files import append_summary
    from ..render.vega import script as vega_script
    from ..report.build import check_directory, computed, given, wanted_again, write
    from ..report.content import compact, content
    from ..report.deltas import between
    from ..report.records import distinct
    from .output import check_path

    if not out:
        raise UsageError("name a directory to write to: --out DIR.")
    folder = Path(out)
    if f".{plots}" not in PLOTS:
        raise UsageError(f"--plots {plots}: write svg or png.")
    check_directory(folder)
    if pr_comment is not None:
        check_path(pr_comment, "--pr-comment")
    if html and importlib.util.find_spec("vl_convert") is None:
        raise LibraryError(
            "the page and the plots are drawn with Vega through vl-convert, which is not "
            "installed: pip install vl-convert-python, or leave them out with --no-html."
        )
    chosen_tables = _tables(tables)
    wanted, sizes = _specs(models), resolutions(res)
    sources = [source for path in from_ or () for source in given(path)]
    before = None if baseline is None else given(baseline)
    if not wanted and not chosen_tables and not sources:
        raise UsageError("there is nothing to report: name a model, a table or a result file.")
    with ThreadPoolExecutor(1) as beside:
        # The page's script takes seconds of another core while rows are computed.
        script = beside.submit(vega_script).result if html else None
        again = None if before is None else wanted_again(before)
        own, failed = computed(wanted, sizes, chosen_tables, again)
        every = distinct([*own, *sources])
        if not every:
            raise MeasurementError(
                f"nothing could be computed: {'; '.join(m.what for m in failed)}."
            )
        deltas = None if before is None else between(before, every)
        name = baseline.name if baseline else ""
        made = content(every, title, failed, deltas, name, _made())
        write(folder, made, every, f".{plots}", script)
    short = compact(made)
    if pr_comment is not None:
        from ..files import write_whole

        write_whole(pr_comment, short)
    append_summary(short)
    for missing in failed:
        typer.echo(f"datbench: not in the report: {printable(missing.what)}.", err=True)
    typer.echo(f"{folder / ('report.html' if html else 'report.md')}")


def _made() -> str:
    from ..machine import summary

    here = summary()
    return f"Made with datbench {here['datbench']}, torch {here['torch']}, Python {here['python']}."


def _specs(names: Sequence[str] | None) -> list[Spec]:
    if names and NONE in names:
        if len(names) > 1:
            raise UsageError("--models none stands alone.")
        return []
    return specs(list(dict.fromkeys(names or MAIN)))


def _tables(names: Sequence[str] | None) -> list[TableData]:
    from ..paper.tables import FILES, paper_table

    asked = [part.strip() for name in names or ["all"] for part in name.split(",")]
    if NONE in asked:
        if len(asked) > 1:
            raise UsageError("--tables none stands alone.")
        return []
    expanded = [each for name in asked for each in (FILES if name == "all" else (name,))]
    for name in expanded:
        if name not in FILES:
            names = f"{', '.join(FILES)}, all and none"
            raise UnknownNameError(f"unknown table {name!r}; there are {names}.")
    return [paper_table(name) for name in dict.fromkeys(expanded)]
