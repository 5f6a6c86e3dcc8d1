"""`datbench report`."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Annotated

import typer

from ..errors import LibraryError, UsageError
from ..setting import one_of
from ..units import printable
from .command import RESULT, WHAT, complete, option
from .options import Baseline, From, Given, Inputs, OutPath, Setup, pieces
from .table import PAPERS

MAIN = ("dat_t", "dat_s", "dat_b", "datpp_t", "datpp_s", "datpp_b")
"""The published variants, which a report has by default."""

NONE = "none"

PLOTS = ("svg", "png", NONE)


def report(
    inputs: Inputs,
    tables: Annotated[
        list[str] | None,
        option(
            WHAT,
            "--tables TABLE",
            "Tables of the papers: 1 to 9, datpp, davit, davit_dense, nat, all or none; repeat it "
            "or use commas for several. Default: all.",
            complete_with=lambda incomplete: [*PAPERS(incomplete), *complete(NONE)(incomplete)],
        ),
    ] = None,
    from_: From = None,
    baseline: Baseline = None,
    input: Given = None,
    plots: Annotated[
        str,
        option(
            RESULT,
            "--plots FORMAT",
            "How the plots of the markdown are written: svg, png, or none for no plots and no "
            "HTML page.",
            default=True,
            names=PLOTS,
        ),
    ] = "svg",
    out: OutPath = None,
) -> None:
    """Write a report into a directory: HTML, markdown, CSV, LaTeX and JSON.

    Counts, simulated memory and the papers' tables are computed; times come from result files.
    Without a model: the published variants of DAT and DAT++; none: no model. comment.md is for a
    pull request: what changed against the baseline, a file of the gate or a former report.json.
    What cannot be computed is named on standard error and in the report; where nothing can, the
    exit code is 5 and nothing is written. Nothing is judged: `datbench gate` does that.

    Examples:
    datbench report dat_t --tables 2,6 --out report
    datbench report none --tables none --from times.json --baseline before.json --out report
    """
    from ..paper.tables import chosen_tables
    from ..report.build import check_directory, given, make

    if not out:
        raise UsageError("name a directory to write to: --out DIR.")
    folder, html = Path(out), one_of("format of plots", plots, PLOTS) != NONE
    check_directory(folder)
    if html and importlib.util.find_spec("vl_convert") is None:
        raise LibraryError(
            "the page and the plots are drawn with Vega through vl-convert: pip install "
            "vl-convert-python, or leave them out with --plots none."
        )
    asked = _unless_none(pieces(tables) or ["all"], "--tables")
    chosen = chosen_tables(asked, ()) if asked else []
    names = _unless_none(list(dict.fromkeys(inputs.model or MAIN)), "a model")
    wanted, sizes = Inputs(names).specs() if names else [], inputs.sizes() or None
    takes = Setup(inputs.model, inputs.res, input=input).inputs()
    if not wanted and (sizes or takes):
        asked_of = "--input is what models take" if takes else "--res is the size of models"
        raise UsageError(f"{asked_of}; name one.")
    sources = [source for path in from_ or () for source in given(path)]
    before = None if baseline is None else given(baseline)
    if not wanted and not chosen and not sources:
        raise UsageError("there is nothing to report: name a model, a table or a result file.")
    name = baseline.name if baseline else ""
    failed = make(folder, wanted, sizes, chosen, sources, before, name, plots, takes)
    for missing in failed:
        typer.echo(f"datbench: not in the report: {printable(missing.what)}.", err=True)
    typer.echo(f"{folder / ('report.html' if html else 'report.md')}")


def _unless_none(names: list[str], what: str) -> list[str]:
    """The names; none where none is wanted."""
    if NONE in names and len(names) > 1:
        raise UsageError(f"none as {what} stands alone.")
    return [] if names == [NONE] else names
