"""`datbench eq10`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import CheckFailed, UnknownNameError, UsageError
from ..setting import ATTENTIONS, DTYPES
from .options import Configs, Format, Models, Out, OutputFormat, Resolutions, With, complete

if TYPE_CHECKING:
    from ..eq10.records import ModuleTerms
    from ..models.resolve import Spec
    from ..render.figure import Plot
    from ..setting import Attention, Resolution
    from ..timing.records import Measurements

# What `datbench eq10` can write, one function a report.


def jobs(
    names: list[str] | None,
    configs: list[Path] | None,
    res: list[str] | None,
    with_: list[str] | None = None,
) -> list[tuple[Spec, Resolution]]:
    """Every model at every size; DAT-T at the papers' two where none is named."""
    from ..setting import Resolution
    from .options import resolutions, specs

    sizes = resolutions(res)
    if not names and not configs:
        names = ["dat_t"]
        if not with_:
            sizes = sizes or [Resolution(224, 224), Resolution(1280, 800)]
    chosen = specs(names, configs, with_)
    return [(spec, size) for spec in chosen for size in sizes or [spec.resolution]]


def identities(wanted: Sequence[tuple[Spec, Resolution]], stage: int | None) -> list[ModuleTerms]:
    """The terms of every attention module, of one stage or all."""
    from ..eq10.identity import identities
    from .output import progress

    found = [
        terms
        for spec, size in progress(wanted, lambda job: job[0].name)
        for terms in identities(spec, size)
        if stage in (None, terms.stage)
    ]
    if not found:
        raise UsageError(f"there is no attention module in stage {stage}.")
    return found


def write(modules: list[ModuleTerms], every: bool, wanted: Format, out: Path | None) -> None:
    """The modules, and the terms of the deformable ones or of all."""
    from ..eq10.view import modules_csv, modules_table, terms_tables
    from ..machine import summary
    from ..records import document
    from .output import emit

    tables = [modules_table(modules), *terms_tables(modules, every)]
    if wanted is Format.CSV:
        tables = [modules_csv(modules)]
    emit(tables, document("eq10", modules, summary()), wanted, out)


def check_report(modules: Sequence[ModuleTerms]) -> None:
    """Fail if an identity does not hold."""
    failing = [f"{m.model} {m.module} at {m.resolution}" for m in modules if not m.holds]
    if failing:
        raise CheckFailed(
            f"{len(failing)} of {len(modules)} identities fail: {', '.join(failing)}."
        )


def draw(modules: Sequence[ModuleTerms], chosen: bool, terminal: bool, path: Path | None) -> None:
    """Cost and shares of stage 3, and the terms of the modules; of chosen models these alone."""
    from ..eq10.curves import cost_against_side, share_against_stride
    from ..eq10.view import DEFORMABLE, stacks
    from ..render.plot import to_bytes, to_terminal
    from .output import console, write_text, write_whole

    drawn = [m for m in modules if m.kind in DEFORMABLE] or list(modules)
    plots: list[Plot] = [stacks(drawn)]
    if not chosen:
        plots = [*cost_against_side(), share_against_stride(), *plots]
    if path is not None:
        write_whole(path, to_bytes(plots, path.suffix))
    if terminal:
        width = min(console().width, 110)
        write_text("\n".join(to_terminal(plot, width) for plot in plots))


def fit_report(grid: str, convention: str, failing: bool, wanted: Format, out: Path | None) -> None:
    """The coefficients from counts alone; with `failing`, an inexact fit is an error."""
    from ..counting.conventions import CONVENTIONS
    from ..eq10.identity import fit, parse_grid
    from ..eq10.view import fit_table
    from ..machine import summary
    from ..records import document
    from .output import emit

    if convention not in ("fvcore", "torch"):
        raise UnknownNameError.among("convention of a fit", convention, ("fvcore", "torch"))
    found = fit(parse_grid(grid), CONVENTIONS[convention])
    emit([fit_table(found)], document("eq10-fit", [found], summary()), wanted, out)
    if failing and not found.holds:
        raise CheckFailed("no integers fit the counts of this grid.")


def kinds_report(res: list[str] | None, failing: bool, wanted: Format, out: Path | None) -> None:
    """Every kind of attention on the maps that stage 3 has at these inputs."""
    from ..eq10.curves import kinds_on
    from ..eq10.view import kinds_table, modules_csv
    from ..machine import summary
    from ..records import document
    from ..setting import Resolution
    from .options import resolutions
    from .output import emit

    sizes = resolutions(res) or [Resolution(224, 224), Resolution(1280, 800)]
    modules = [m for size in sizes for m in kinds_on(size.height // 16, size.width // 16)]
    table = modules_csv(modules) if wanted is Format.CSV else kinds_table(modules)
    emit([table], document("eq10", modules, summary()), wanted, out)
    if failing:
        check_report(modules)


def paper_report(wanted: Format, out: Path | None) -> None:
    """The worked example of Section 3.2."""
    from ..eq10.example import claims
    from ..eq10.view import claims_table
    from ..machine import summary
    from ..records import document
    from .output import emit

    found = claims()
    emit([claims_table(found)], document("eq10-paper", found, summary()), wanted, out)


def module_of(names: list[str] | None, configs: list[Path] | None, stage: int) -> dict[str, int]:
    """Width, heads, groups and kernel of the deformable attention that is to be measured.

    Raises:
        UsageError: there are several models, or this stage has no deformable attention.
    """
    from ..models.config import Deformable
    from ..models.spec import ModelSpec
    from .options import specs

    chosen = specs(names or ([] if configs else ["dat_t"]), configs)
    if len(chosen) > 1:
        raise UsageError("--measure times the attention of one model; name only one.")
    spec = chosen[0]
    if isinstance(spec, ModelSpec):
        here = spec.config.stages[stage - 1]
        for mixer in here.blocks:
            if isinstance(mixer, Deformable):
                sizes = {"dim": here.dim, "heads": here.heads}
                return {**sizes, "groups": mixer.groups, "kernel": mixer.kernel}
    raise UsageError(
        f"{spec.name} has no deformable attention in stage {stage}; dat_t has it in 3 and 4."
    )


def measured(
    module: dict[str, int],
    batch: int,
    sides: str | None,
    device: str,
    dtype: str,
    attention: Attention,
    threads: int | None,
    budget: float,
    wanted: Format,
    out: Path | None,
) -> None:
    """Times over growing maps and numbers of keys, beside the formula.

    Raises:
        KeyboardInterrupt: somebody ended it; what was finished has been written.
    """
    numbers = _sides(sides)
    from ..eq10.measured import measure
    from ..eq10.view import tables
    from ..machine import check_device, environment
    from ..records import document
    from ..run import threads_set
    from .output import emit, status

    check_device(device)
    with threads_set(threads), status() as step:
        found: Measurements = measure(
            dim=module["dim"],
            heads=module["heads"],
            groups=module["groups"],
            kernel=module["kernel"],
            batch=batch,
            sides=numbers,
            side_for_strides=max(numbers),
            device=device,
            dtype=dtype,
            attention=attention,
            budget=budget,
            step=step,
        )
    if found.points:
        emit(tables(found), document("eq10-measured", [found], environment()), wanted, out)
    if found.interrupted:
        raise KeyboardInterrupt


def _sides(text: str | None) -> tuple[int, ...]:
    if text is None:
        return (7, 14, 21, 28, 35)
    parts = text.split(",")
    if not all(part.strip().isdecimal() and 0 < int(part) <= 1024 for part in parts):
        raise UsageError(f"--sides {text!r} is not understood; write numbers such as 8,16,24,32.")
    return tuple(int(part) for part in parts)


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
        fit_report(grid or "", convention or "fvcore", check, wanted, out)
    elif kinds:
        kinds_report(res, check, wanted, out)
    elif paper:
        paper_report(wanted, out)
    elif measure:
        how = next((a for a in ATTENTIONS if a == (attention or "eager")), None)
        if how is None:
            raise UnknownNameError.among("attention", str(attention), ATTENTIONS)
        seconds = 45.0 if budget is None else budget
        module = module_of(model, config, stage or 3)
        measured(
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
        modules = identities(jobs(model, config, res, with_), stage)
        if plot or plot_out is not None:
            draw(modules, bool(model or config), plot, plot_out)
        if not plot:
            write(modules, every, wanted, out)
        if check:
            check_report(modules)


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
        from ..render.figure import check_suffix
        from .output import check_path

        check_suffix(plot_out.suffix)
        check_path(plot_out, "--plot-out")
