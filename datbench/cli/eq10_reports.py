"""What `datbench eq10` can write, one function a report."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import CheckFailed, UnknownNameError, UsageError
from .options import Format

if TYPE_CHECKING:
    from ..figures import Plot
    from ..measurements import Measurements
    from ..models.resolve import Spec
    from ..terms import ModuleTerms
    from ..types import Attention, Resolution


def jobs(
    names: list[str] | None,
    configs: list[Path] | None,
    res: list[str] | None,
    with_: list[str] | None = None,
) -> list[tuple[Spec, Resolution]]:
    """Every model at every size; DAT-T at the papers' two where none is named."""
    from ..types import Resolution
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
    from ..measure.complexity.identity import identities
    from .progress import progress

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
    from ..measure.environment import summary
    from ..report.terms import modules_csv, modules_table, terms_tables
    from ..results import document
    from .output import emit

    tables = [modules_table(modules), *terms_tables(modules, every)]
    if wanted is Format.CSV:
        tables = [modules_csv(modules)]
    emit(tables, document("eq10", modules, summary()), wanted, out)


def check(modules: Sequence[ModuleTerms]) -> None:
    """Fail if an identity does not hold."""
    failing = [f"{m.model} {m.module} at {m.resolution}" for m in modules if not m.holds]
    if failing:
        raise CheckFailed(
            f"{len(failing)} of {len(modules)} identities fail: {', '.join(failing)}."
        )


def draw(modules: Sequence[ModuleTerms], chosen: bool, terminal: bool, path: Path | None) -> None:
    """Cost and shares of stage 3, and the terms of the modules; of chosen models these alone."""
    from ..measure.complexity.curves import cost_against_side, share_against_stride
    from ..report.plots import to_bytes, to_terminal
    from ..report.stacks import stacks
    from ..report.terms import DEFORMABLE
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


def fit(grid: str, convention: str, failing: bool, wanted: Format, out: Path | None) -> None:
    """The coefficients from counts alone; with `failing`, an inexact fit is an error."""
    from ..measure.complexity.fit import fit, parse_grid
    from ..measure.conventions import CONVENTIONS
    from ..measure.environment import summary
    from ..report.terms import fit_table
    from ..results import document
    from .output import emit

    if convention not in ("fvcore", "torch"):
        raise UnknownNameError.among("convention of a fit", convention, ("fvcore", "torch"))
    found = fit(parse_grid(grid), CONVENTIONS[convention])
    emit([fit_table(found)], document("eq10-fit", [found], summary()), wanted, out)
    if failing and not found.holds:
        raise CheckFailed("no integers fit the counts of this grid.")


def kinds(res: list[str] | None, failing: bool, wanted: Format, out: Path | None) -> None:
    """Every kind of attention on the maps that stage 3 has at these inputs."""
    from ..measure.complexity.curves import kinds_on
    from ..measure.environment import summary
    from ..report.terms import kinds_table, modules_csv
    from ..results import document
    from ..types import Resolution
    from .options import resolutions
    from .output import emit

    sizes = resolutions(res) or [Resolution(224, 224), Resolution(1280, 800)]
    modules = [m for size in sizes for m in kinds_on(size.height // 16, size.width // 16)]
    table = modules_csv(modules) if wanted is Format.CSV else kinds_table(modules)
    emit([table], document("eq10", modules, summary()), wanted, out)
    if failing:
        check(modules)


def paper(wanted: Format, out: Path | None) -> None:
    """The worked example of Section 3.2."""
    from ..measure.environment import summary
    from ..paper.example import claims
    from ..report.terms import claims_table
    from ..results import document
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
    from ..measure.complexity.measured import measure
    from ..measure.device import check_device
    from ..measure.environment import environment
    from ..report.measured import tables
    from ..results import document
    from .output import emit
    from .progress import status

    check_device(device)
    with _threads(threads), status() as step:
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


@contextmanager
def _threads(wanted: int | None) -> Iterator[None]:
    """So many threads an operator meanwhile; torch's own number if None."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(wanted or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _sides(text: str | None) -> tuple[int, ...]:
    if text is None:
        return (7, 14, 21, 28, 35)
    parts = text.split(",")
    if not all(part.strip().isdecimal() and 0 < int(part) <= 1024 for part in parts):
        raise UsageError(f"--sides {text!r} is not understood; write numbers such as 8,16,24,32.")
    return tuple(int(part) for part in parts)
