"""`datbench eq10`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from ..errors import CheckFailed, UsageError
from ..setting import ATTENTIONS, DTYPES, Resolution
from .options import (
    Configs,
    Format,
    Models,
    Out,
    OutputFormat,
    PlotOut,
    Resolutions,
    With,
    one_of,
    option,
    resolutions,
    specs,
)

if TYPE_CHECKING:
    from ..models.resolve import Spec
    from ..render.table import Table

PAPERS = [Resolution(224, 224), Resolution(1280, 800)]
"""The papers' two sizes."""


def eq10(
    model: Models = None,
    config: Configs = None,
    with_: With = None,
    res: Resolutions = None,
    stage: Annotated[
        int | None, option("Only this stage, from 1.", default=False, min=1, max=4)
    ] = None,
    every: Annotated[
        bool, option("Show the terms of every module, not of deformable ones alone.", "--all")
    ] = False,
    plot: Annotated[
        bool,
        option(
            "Draw in the terminal: cost against size and share against stride, or with a "
            "model, the terms of its modules.",
            "--plot",
        ),
    ] = False,
    plot_out: PlotOut = None,
    kinds: Annotated[
        bool, option("Compare kinds of attention on the map that stage 3 has at --res.", "--kinds")
    ] = False,
    fit: Annotated[
        bool, option("Recover the formula's coefficients from counts alone.", "--fit")
    ] = False,
    grid: Annotated[
        str | None,
        option(
            'With --fit: sizes of the modules to count, such as "height=7,14 dim=32,64"; '
            "names are height, width, stride, dim, kernel, groups and heads.",
            default=False,
            metavar="NAME=N,...",
        ),
    ] = None,
    convention: Annotated[
        str | None,
        option("With --fit: fvcore, or torch for multiply-adds alone.", default="fvcore"),
    ] = None,
    paper: Annotated[
        bool, option("Recompute the worked example of Section 3.2.", "--paper")
    ] = False,
    measure: Annotated[
        bool,
        option(
            "Time a model's deformable attention (default: of dat_t, --stage 3) over "
            "growing maps and keys, beside the formula and other kinds of attention.",
            "--measure",
        ),
    ] = False,
    sides: Annotated[
        str | None,
        option(
            "With --measure: sides of the maps; keys vary on the largest.",
            default="7,14,21,28,35",
            metavar="N,N,...",
        ),
    ] = None,
    batch: Annotated[
        int | None, option("With --measure: images in a batch.", default="1", min=1)
    ] = None,
    device: Annotated[
        str | None, option("With --measure: cpu, or cuda where a GPU is.", default="cpu")
    ] = None,
    dtype: Annotated[
        str | None,
        option(
            "With --measure: float32, float64, bfloat16 or float16.",
            default="float32",
            names=DTYPES,
        ),
    ] = None,
    attention: Annotated[
        str | None, option("With --measure: eager or sdpa.", default="eager", names=ATTENTIONS)
    ] = None,
    threads: Annotated[
        int | None,
        option(
            "With --measure: threads of an operator on a CPU.", default="torch's", min=1, max=4096
        ),
    ] = None,
    budget: Annotated[
        float | None, option("With --measure: seconds to take.", default="45")
    ] = None,
    check: Annotated[
        bool, option("Fail (exit code 1) if an identity or the fit is not exact.", "--check")
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
    from .output import check_plots, choose_format

    wanted = choose_format(format, out)
    timing: dict[str, Any] = {
        "sides": sides,
        "batch": batch,
        "device": device,
        "dtype": dtype,
        "attention": attention,
        "threads": threads,
        "budget": budget,
    }
    report = _report(kinds=kinds, fit=fit, paper=paper, measure=measure)
    _check_owner(report, "fit", {"grid": grid, "convention": convention})
    _check_owner(report, "measure", timing)
    if report:
        others = {
            "a model": (model or config) and not measure,
            "--with": with_,
            "--res": res and not kinds,
            "--stage": stage and not measure,
            "--all": every,
            "--plot": plot or plot_out,
        }
        unused = [name for name, value in others.items() if value]
        if unused:
            raise UsageError(f"--{report} does not take {', '.join(unused)}.")
        if check and not (fit or kinds):
            raise UsageError(f"--{report} has nothing to --check.")
    else:
        check_plots(plot, plot_out, wanted, out)
    sizes = resolutions(res)
    if fit:
        _fit(grid or "", convention or "fvcore", check, wanted, out)
    elif paper:
        from ..eq10.example import claims
        from ..eq10.view import claims_table

        found = claims()
        _write("eq10-paper", found, [claims_table(found)], wanted, out)
    elif measure:
        timing["sides"] = None if sides is None else _sides(sides)
        timing["attention"] = one_of("attention", attention or "eager", ATTENTIONS)
        given = {name: value for name, value in timing.items() if value is not None}
        chosen = specs(model or ([] if config else ["dat_t"]), config)
        if len(chosen) > 1:
            raise UsageError("--measure times the attention of one model; name only one.")
        _measure(chosen[0], stage or 3, given, wanted, out)
    else:
        from ..eq10 import identity
        from ..eq10.view import tables
        from ..render.terminal import progress
        from .output import draw

        if kinds:
            from ..eq10.curves import kinds_on

            maps = [(size.height // 16, size.width // 16) for size in sizes or PAPERS]  # stage 3's
            modules = [module for height, width in maps for module in kinds_on(height, width)]
        else:
            modules = identity.identities_of(
                progress(_jobs(model, config, with_, sizes), lambda job: job[0].name), stage
            )
        if plot or plot_out is not None:
            from ..eq10.curves import plots

            draw(plots(modules, alone=bool(model or config)), plot, plot_out)
        if not plot:
            _write("eq10", modules, tables(modules, every, wanted is Format.CSV), wanted, out)
        if check:
            identity.check(modules)


def _jobs(
    names: list[str] | None,
    configs: list[Path] | None,
    with_: list[str] | None,
    sizes: list[Resolution] | None,
) -> list[tuple[Spec, Resolution]]:
    """Every model at every size; DAT-T at the papers' two where no model is named."""
    if not names and not configs:
        names, sizes = ["dat_t"], sizes or (None if with_ else PAPERS)
    chosen = specs(names, configs, with_)
    return [(spec, size) for spec in chosen for size in sizes or [spec.resolution]]


def _fit(grid: str, convention: str, check: bool, wanted: Format, out: Path | None) -> None:
    from ..counting.conventions import CONVENTIONS
    from ..eq10.fit import fit, parse_grid
    from ..eq10.view import fit_table

    rules = one_of("convention of a fit", convention, ("fvcore", "torch"))
    found = fit(parse_grid(grid), CONVENTIONS[rules])
    _write("eq10-fit", [found], [fit_table(found)], wanted, out)
    if check and not found.holds:
        raise CheckFailed("no integers fit the counts of this grid.")


def _measure(spec: Spec, stage: int, how: dict[str, Any], wanted: Format, out: Path | None) -> None:
    """Time the attention of a stage, and write what was finished when somebody ends it."""
    from ..eq10.measured import deformable_sizes, measure
    from ..eq10.view import measured_tables
    from ..machine import environment
    from ..records import document
    from ..render.terminal import status
    from ..run import threads_set
    from .output import emit

    threads = how.pop("threads", None)
    how |= deformable_sizes(spec, stage)
    with threads_set(threads), status() as step:
        found = measure(**how, step=step)
    if found.points:
        content = document("eq10-measured", [found], environment())
        emit(measured_tables(found), content, wanted, out)
    if found.interrupted:
        raise KeyboardInterrupt


def _report(**asked: bool) -> str | None:
    """The one report that was asked for, if any."""
    names = [name for name, wanted in asked.items() if wanted]
    if len(names) > 1:
        both = " and ".join(f"--{name}" for name in names)
        raise UsageError(f"{both} are reports of their own; ask for one.")
    return names[0] if names else None


def _check_owner(report: str | None, owner: str, options: Mapping[str, object]) -> None:
    """Refuse options of a report that was not asked for."""
    given = [name for name, value in options.items() if value is not None]
    if given and report != owner:
        raise UsageError(f"--{given[0]} is for --{owner}.")


def _sides(text: str) -> tuple[int, ...]:
    parts = text.split(",")
    if not all(part.strip().isdecimal() and 0 < int(part) <= 1024 for part in parts):
        raise UsageError(f"--sides {text!r} is not understood; write numbers such as 8,16,24,32.")
    return tuple(int(part) for part in parts)


def _write(
    kind: str, rows: Sequence[Any], tables: list[Table], wanted: Format, out: Path | None
) -> None:
    from ..machine import summary
    from ..records import document
    from .output import emit

    emit(tables, document(kind, rows, summary()), wanted, out)
