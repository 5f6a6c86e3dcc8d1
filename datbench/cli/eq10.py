"""`datbench eq10`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..errors import UnknownNameError, UsageError
from ..types import ATTENTIONS, DTYPES
from . import eq10_reports as reports
from .options import Configs, Format, Models, Out, OutputFormat, Resolutions, With, complete


def eq10(
    model: Models = None,
    config: Configs = None,
    with_: With = None,
    res: Resolutions = None,
    stage: Annotated[
        int | None,
        typer.Option(help="Only this stage, from 1.", min=1, max=4, show_default=False),
    ] = None,
    every: Annotated[
        bool,
        typer.Option("--all", help="Show the terms of every module, not of deformable ones alone."),
    ] = False,
    plot: Annotated[
        bool,
        typer.Option(
            "--plot",
            help="Draw in the terminal: cost against size and share against stride, or with a "
            "model, the terms of its modules.",
        ),
    ] = False,
    plot_out: Annotated[
        Path | None,
        typer.Option(
            "--plot-out", metavar="FILE", readable=False, help="The same as .png or .svg."
        ),
    ] = None,
    kinds: Annotated[
        bool,
        typer.Option(
            "--kinds",
            help="Compare kinds of attention on the map that stage 3 has at --res.",
        ),
    ] = False,
    fit: Annotated[
        bool, typer.Option("--fit", help="Recover the formula's coefficients from counts alone.")
    ] = False,
    grid: Annotated[
        str | None,
        typer.Option(
            metavar="NAME=N,...",
            help='With --fit: sizes of the modules to count, such as "height=7,14 dim=32,64"; '
            "names are height, width, stride, dim, kernel, groups and heads.",
            show_default=False,
        ),
    ] = None,
    convention: Annotated[
        str | None,
        typer.Option(
            help="With --fit: fvcore, or torch for multiply-adds alone.", show_default="fvcore"
        ),
    ] = None,
    paper: Annotated[
        bool, typer.Option("--paper", help="Recompute the worked example of Section 3.2.")
    ] = False,
    measure: Annotated[
        bool,
        typer.Option(
            "--measure",
            help="Time a model's deformable attention (dat_t's, of --stage 3, unless told) over "
            "growing maps and keys, beside the formula and other kinds of attention.",
        ),
    ] = False,
    sides: Annotated[
        str | None,
        typer.Option(
            metavar="N,N,...",
            help="With --measure: sides of the maps; keys vary on the largest.",
            show_default="7,14,21,28,35",
        ),
    ] = None,
    batch: Annotated[
        int | None,
        typer.Option(help="With --measure: images in a batch.", min=1, show_default="1"),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(help="With --measure: cpu, or cuda where a GPU is.", show_default="cpu"),
    ] = None,
    dtype: Annotated[
        str | None,
        typer.Option(
            help="With --measure: float32, float64, bfloat16 or float16.",
            autocompletion=complete(*DTYPES),
            show_default="float32",
        ),
    ] = None,
    attention: Annotated[
        str | None,
        typer.Option(
            help="With --measure: eager or sdpa.",
            autocompletion=complete(*ATTENTIONS),
            show_default="eager",
        ),
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option(
            help="With --measure: threads of an operator on a CPU.",
            min=1,
            max=4096,
            show_default="torch's",
        ),
    ] = None,
    budget: Annotated[
        float | None,
        typer.Option(help="With --measure: seconds to take.", show_default="45"),
    ] = None,
    check: Annotated[
        bool,
        typer.Option("--check", help="Fail (exit code 1) if an identity or the fit is not exact."),
    ] = False,
    format: OutputFormat = None,
    out: Out = None,
) -> None:
    """Take the paper's complexity formula apart.

    For every attention module of a model: its published formula (Eq. 10 for deformable attention),
    what is counted from the operators that run, and each cause of the difference, exactly. Without
    a model, DAT-T at 224x224 and 1280x800. --kinds, --fit, --paper and --measure are reports of
    their own.
    """
    from .output import choose_format

    wanted = choose_format(format, out)
    report = _report(kinds=kinds, fit=fit, paper=paper, measure=measure)
    _refuse(report, "fit", grid=grid, convention=convention)
    _refuse(
        report,
        "measure",
        sides=sides,
        batch=batch,
        device=device,
        dtype=dtype,
        attention=attention,
        threads=threads,
        budget=budget,
    )
    if report:
        given = {
            "a model": (model or config) and not measure,
            "--with": with_,
            "--res": res and not kinds,
            "--stage": stage and not measure,
            "--all": every,
            "--plot": plot or plot_out,
        }
        unused = [name for name, value in given.items() if value]
        if unused:
            raise UsageError(f"--{report} does not take {', '.join(unused)}.")
        if check and not (fit or kinds):
            raise UsageError(f"--{report} has nothing to --check.")
    if fit:
        reports.fit(grid or "", convention or "fvcore", check, wanted, out)
    elif kinds:
        reports.kinds(res, check, wanted, out)
    elif paper:
        reports.paper(wanted, out)
    elif measure:
        how = next((a for a in ATTENTIONS if a == (attention or "eager")), None)
        if how is None:
            raise UnknownNameError.among("attention", str(attention), ATTENTIONS)
        seconds = 45.0 if budget is None else budget
        module = reports.module_of(model, config, stage or 3)
        reports.measured(
            module,
            batch or 1,
            sides,
            device or "cpu",
            dtype or "float32",
            how,
            threads,
            seconds,
            wanted,
            out,
        )
    else:
        _check_plots(plot, plot_out, wanted)
        modules = reports.identities(reports.jobs(model, config, res, with_), stage)
        if plot or plot_out is not None:
            reports.draw(modules, bool(model or config), plot, plot_out)
        if not plot:
            reports.write(modules, every, wanted, out)
        if check:
            reports.check(modules)


def _report(**asked: bool) -> str | None:
    """The one report that was asked for, if any."""
    names = [name for name, wanted in asked.items() if wanted]
    if len(names) > 1:
        both = " and ".join(f"--{name}" for name in names)
        raise UsageError(f"{both} are reports of their own; ask for one.")
    return names[0] if names else None


def _refuse(report: str | None, owner: str, **options: object) -> None:
    """Options of a report that was not asked for."""
    given = next((name for name, value in options.items() if value is not None), None)
    if given is not None and report != owner:
        raise UsageError(f"--{given} is for --{owner}.")


def _check_plots(plot: bool, plot_out: Path | None, wanted: Format) -> None:
    """Whatever can be refused is refused before anything is counted."""
    if plot and wanted is not Format.TABLE:
        raise UsageError("--plot draws in the terminal; a file is --plot-out FILE.")
    if plot_out is not None:
        from ..report.plots import check_suffix
        from .output import check_path

        check_suffix(plot_out.suffix)
        check_path(plot_out, "--plot-out")
