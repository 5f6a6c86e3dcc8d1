"""`datbench flops`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from ..counting.conventions import CONVENTIONS
from ..counting.conventions import convention as find_convention
from ..errors import CheckFailed, UsageError
from ..setting import ATTENTIONS, DTYPES, Resolution, Setting
from .options import (
    Config,
    Configs,
    Features,
    Format,
    Model,
    Models,
    OneResolution,
    Out,
    OutputFormat,
    Resolutions,
    With,
    breakdowns,
    one_of,
    one_spec,
    option,
    resolutions,
    specs,
)

if TYPE_CHECKING:
    from ..counting.view import By

PARTS: tuple[By, ...] = ("part", "stage", "operator", "module")


def flops(
    model: Models = None,
    config: Configs = None,
    with_: With = None,
    res: Resolutions = None,
    batch: Annotated[int, option("Images in a batch; totals are of the batch.")] = 1,
    convention: Annotated[
        str,
        option(
            "fvcore (MACs, what papers print), mmdet (MACs by mmcv's hooks), torch (FLOPs of "
            "products alone) or strict (FLOPs of all that runs).",
            names=CONVENTIONS,
        ),
    ] = "fvcore",
    backward: Annotated[bool, option("Count the backward too.", "--backward")] = False,
    by: Annotated[
        str | None,
        option(
            "Break one model down by part (backbone, neck, heads), stage, operator or module, "
            "or several with commas.",
            names=PARTS,
            default="stage,operator",
        ),
    ] = None,
    depth: Annotated[
        int | None, option("With --by module: cut paths to this many names.", min=1, default=False)
    ] = None,
    attention: Annotated[
        str, option("eager or sdpa; the count does not depend on it.", names=ATTENTIONS)
    ] = "eager",
    features: Features = False,
    dtype: Annotated[
        str, option("float32, float64, bfloat16 or float16; changes bytes only.", names=DTYPES)
    ] = "float32",
    device: Annotated[
        str,
        option("Where to run; meta needs neither memory nor time.", names=("meta", "cpu", "cuda")),
    ] = "meta",
    max_unknown: Annotated[
        int | None,
        option(
            "Fail (exit code 1) if more operator calls than this have no rule.",
            min=0,
            default=False,
        ),
    ] = None,
    format: OutputFormat = None,
    out: Out = None,
) -> None:
    """Count MACs or FLOPs, and parameters.

    One model at one resolution is broken down; several make one table. JSON holds it all.
    """
    from ..render.terminal import progress
    from .output import choose_format, emit

    wanted = choose_format(format, out)
    chosen, sizes = specs(model, config, with_), resolutions(res)
    parts = breakdowns(by, PARTS, wanted)
    if depth is not None and "module" not in parts:
        raise UsageError("--depth cuts the paths of modules; add --by module.")
    how = one_of("attention", attention, ATTENTIONS)
    jobs = [
        (spec, Setting(size, batch, dtype, device, how, backward, features))
        for spec in chosen
        for size in sizes or [spec.resolution]
    ]
    if parts and len(jobs) > 1:
        raise UsageError("--by breaks down one model at one resolution; name only one.")
    weights = find_convention(convention)
    # torch is imported here, after everything that the user may have mistyped was checked.
    from ..counting.count import count_row
    from ..counting.view import tables
    from ..machine import check_device, summary
    from ..records import document

    check_device(device)
    rows = [
        count_row(spec, setting, weights)
        for spec, setting in progress(jobs, lambda job: job[0].name)
    ]
    shown = tables(rows, parts, depth, one=wanted not in (Format.TABLE, Format.MD))
    emit(shown, document("flops", rows, summary()), wanted, out)
    for row in rows:
        calls = sum(row.unknown.values())
        if max_unknown is not None and calls > max_unknown:
            raise CheckFailed(
                f"{row.model}: {calls} calls of operators without a rule, more than "
                f"--max-unknown {max_unknown}: {', '.join(row.unknown)}."
            )


# `datbench explain`.


def explain(
    model: Model = None,
    config: Config = None,
    res: OneResolution = None,
    run_peers: Annotated[
        bool,
        option(
            "Run the other counters that are installed (fvcore, torch, ptflops, thop, "
            "calflops, torchinfo) on the CPU, and say what they count differently.",
            "--run-peers",
        ),
    ] = False,
    timeout: Annotated[
        float | None, option("Seconds that each of them may take.", default="300")
    ] = None,
    attention: Annotated[
        str, option("eager or sdpa; other counters may depend on it.", names=ATTENTIONS)
    ] = "eager",
    features: Features = False,
    format: OutputFormat = None,
    out: Out = None,
) -> None:
    """Say why counters disagree, as a sum of operators."""
    from .output import choose_format

    wanted = choose_format(format, out)
    spec = one_spec(model, config)
    resolution = spec.resolution if res is None else Resolution.parse(res)
    how = one_of("attention", attention, ATTENTIONS)
    if timeout is not None and not run_peers:
        raise UsageError("--timeout limits the other counters; add --run-peers.")
    if timeout is not None and not timeout > 0:  # nor may it be nan
        raise UsageError(f"--timeout {timeout:g}: write a number of seconds above 0.")
    setting = Setting(resolution, attention=how, features=features)
    # torch is imported here, after everything that the user may have mistyped was checked.
    from ..counting.peers.explain import TIMEOUT, explain_row
    from ..counting.view import explain_tables
    from ..machine import summary
    from ..records import document
    from ..render.terminal import progress
    from .output import emit

    limit = (TIMEOUT if timeout is None else timeout) if run_peers else None
    row = explain_row(spec, setting, limit, lambda peers: progress(peers, lambda peer: peer.name))
    tables = explain_tables(row, one=wanted is Format.CSV)
    emit(tables, document("explain", [row], summary()), wanted, out)
