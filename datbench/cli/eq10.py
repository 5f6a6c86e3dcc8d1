"""`datbench eq10`: the paper's complexity formula, taken apart."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any

from ..counting.conventions import CONVENTIONS
from ..errors import CheckFailed
from ..machine import device_of
from ..setting import ATTENTIONS, DTYPES, Resolution, one_of
from . import options
from .command import argument, group
from .output import Output

PAPERS = [Resolution(224, 224), Resolution(1280, 800)]
"""The papers' two sizes."""


def terms(
    inputs: options.Inputs,
    output: Output,
    stage: options.Stage = None,
    check: options.Check = False,
) -> None:
    """Compare the published formula of each attention module with what is counted.

    Eq. 10 for deformable attention. Each cause of the difference is named, exactly. Without a
    model: DAT-T at 224x224 and 1280x800. --notes shows modules that are not deformable too.

    Examples:
    datbench eq10
    datbench eq10 dat_s --res 1280x800 --stage 3 --check
    """
    from ..eq10 import identity
    from ..eq10.view import tables
    from ..render.terminal import progress

    jobs = inputs.sized() if inputs.model else replace(inputs, model=["dat_t"]).sized(PAPERS)
    modules = identity.identities_of(progress(jobs), stage)
    output.write(tables(modules, output.notes, output.one), "eq10", modules)
    if check:
        identity.check(modules)


def kinds(output: Output, res: options.Sizes = None, check: options.Check = False) -> None:
    """Compare kinds of attention on the map that stage 3 has at an input size.

    Examples:
    datbench eq10 kinds --res 1280x800
    """
    from ..eq10 import identity
    from ..eq10.curves import kinds_on
    from ..eq10.view import tables

    sizes = options.Inputs(res=res).sizes() or PAPERS
    maps = [(size.height // 16, size.width // 16) for size in sizes]  # stage 3's
    modules = [module for height, width in maps for module in kinds_on(height, width)]
    output.write(tables(modules, False, output.one), "eq10", modules)
    if check:
        identity.check(modules)


def fit(
    output: Output,
    grid: Annotated[
        list[str] | None,
        argument(
            "Sizes of the modules to count, such as height=7,14 dim=32,64; names are height, "
            "width, stride, dim, kernel, groups and heads.",
            "NAME=N,N",
        ),
    ] = None,
    convention: options.Convention = "fvcore",
    check: options.Check = False,
) -> None:
    """Recover the formula's coefficients from counts alone.

    Examples:
    datbench eq10 fit height=7,14 dim=32,64 --check
    """
    from ..eq10.curves import fit as fitted
    from ..eq10.curves import parse_grid
    from ..eq10.view import fit_table

    rules = one_of("convention of a fit", convention, ("fvcore", "torch"))
    found = fitted(parse_grid(" ".join(grid or ())), CONVENTIONS[rules])
    output.write([fit_table(found)], "eq10-fit", [found])
    if check and not found.holds:
        raise CheckFailed("no integers fit the counts of this grid.")


def example(output: Output) -> None:
    """Recompute the worked example of Section 3.2.

    Examples:
    datbench eq10 example
    """
    from ..eq10.curves import claims
    from ..eq10.view import claims_table

    found = claims()
    output.write([claims_table(found)], "eq10-paper", found)


def time(
    inputs: options.Inputs,
    output: Output,
    stage: options.Stage = None,
    batch: options.Batches = None,
    dtype: options.Dtype = "float32",
    attention: options.AttentionName = "eager",
    device: options.DeviceName = None,
    threads: options.Threads = None,
    budget: options.Budget = None,
) -> None:
    """Time one model's deformable attention over growing maps and keys.

    Beside the formula and other kinds of attention. The maps are those of the stage (default: 3)
    at the sizes of --res (default: 112 to 560); keys vary on the largest. Without a model: DAT-T.

    Examples:
    datbench eq10 time dat_t --res 112,224,448 --device cuda
    """
    from ..eq10.records import map_side
    from ..models.resolve import resolve

    spec = inputs.one() if inputs.model else resolve("dat_t")
    stage = stage or 3
    how: dict[str, Any] = {
        "dtype": one_of("dtype", dtype, DTYPES),
        "attention": one_of("attention", attention, ATTENTIONS),
        "budget": options.seconds("--budget", budget, 45.0),
    }
    if sides := [map_side(size, stage) for size in inputs.sizes()]:
        how["sides"] = tuple(sides)
    how["batch"] = options.only(
        options.Run(batch=batch).batches() or [1], "batch", "eq10 time takes one"
    )
    how["device"] = device_of(device)
    from ..eq10.measured import deformable_sizes, measure
    from ..eq10.view import measured_tables
    from ..machine import environment
    from ..render.terminal import status
    from ..run import threads_set

    how |= deformable_sizes(spec, stage)
    with threads_set(threads), status() as step:
        found = measure(**how, step=step)
    if found.points:
        output.write(measured_tables(found), "eq10-measured", [found], environment())
    if found.interrupted:
        raise KeyboardInterrupt


app = group(
    "eq10",
    (terms, kinds, fit, example, time),
    usual="terms",
)
