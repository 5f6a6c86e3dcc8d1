"""`datbench flops`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from ..counting.conventions import CONVENTIONS
from ..counting.conventions import convention as find_convention
from ..errors import CheckFailed, UnknownNameError, UsageError
from ..setting import ATTENTIONS, DTYPES, Resolution, Setting
from .options import (
    Config,
    Configs,
    Format,
    Model,
    Models,
    Out,
    OutputFormat,
    Resolutions,
    With,
    complete,
    one_spec,
    resolutions,
    specs,
)

if TYPE_CHECKING:
    from ..counting.records import CountRow
    from ..counting.view import By
    from ..models.resolve import Spec

PARTS: tuple[By, ...] = ("part", "stage", "operator", "module")


def flops(
    model: Models = None,
    config: Configs = None,
    with_: With = None,
    res: Resolutions = None,
    batch: Annotated[int, typer.Option(help="Images in a batch; totals are of the batch.")] = 1,
    convention: Annotated[
        str,
        typer.Option(
            help="fvcore (MACs, what papers print), mmdet (MACs by mmcv's hooks), torch (FLOPs of "
            "products alone) or strict (FLOPs of all that runs).",
            autocompletion=complete(*CONVENTIONS),
        ),
    ] = "fvcore",
    backward: Annotated[bool, typer.Option("--backward", help="Count the backward too.")] = False,
    by: Annotated[
        str | None,
        typer.Option(
            help="Break one model down by part (backbone, neck, heads), stage, operator or module, "
            "or several with commas.",
            autocompletion=complete(*PARTS),
            show_default="stage,operator",
        ),
    ] = None,
    depth: Annotated[
        int | None,
        typer.Option(
            help="With --by module: cut paths to this many names.", min=1, show_default=False
        ),
    ] = None,
    attention: Annotated[
        str,
        typer.Option(
            help="eager or sdpa; the count does not depend on it.",
            autocompletion=complete(*ATTENTIONS),
        ),
    ] = "eager",
    features: Annotated[
        bool, typer.Option("--features", help="Four feature maps with a norm each, no head.")
    ] = False,
    dtype: Annotated[
        str,
        typer.Option(
            help="float32, float64, bfloat16 or float16; changes bytes only.",
            autocompletion=complete(*DTYPES),
        ),
    ] = "float32",
    device: Annotated[
        str,
        typer.Option(
            help="Where to run; meta needs neither memory nor time.",
            autocompletion=complete("meta", "cpu", "cuda"),
        ),
    ] = "meta",
    max_unknown: Annotated[
        int | None,
        typer.Option(
            help="Fail (exit code 1) if more operator calls than this have no rule.",
            min=0,
            show_default=False,
        ),
    ] = None,
    format: OutputFormat = None,
    out: Out = None,
) -> None:
    """Count MACs or FLOPs, and parameters.

    One model at one resolution is broken down; several make one table. JSON holds it all.
    """
    from .output import choose_format

    wanted = choose_format(format, out)
    chosen, sizes = specs(model, config, with_), resolutions(res)
    parts = _parts(by, wanted)
    if depth is not None and "module" not in parts:
        raise UsageError("--depth cuts the paths of modules; add --by module.")
    if attention not in ATTENTIONS:
        raise UnknownNameError.among("attention", attention, ATTENTIONS)
    jobs = [
        (
            spec,
            Setting(
                size,
                batch=batch,
                dtype=dtype,
                device=device,
                attention=attention,
                backward=backward,
                features=features,
            ),
        )
        for spec in chosen
        for size in sizes or [spec.resolution]
    ]
    if parts and len(jobs) > 1:
        raise UsageError("--by breaks down one model at one resolution; name only one.")
    rows = _count(jobs, convention)
    _write(rows, parts, depth, wanted, out)
    _check_unknown(rows, max_unknown)


def _parts(by: str | None, wanted: Format) -> list[By]:
    """The breakdowns asked for; none asked for is an empty list."""
    found: list[By] = []
    for name in by.split(",") if by is not None else ():
        match = next((part for part in PARTS if part == name.strip()), None)
        if match is None:
            raise UnknownNameError.among("breakdown", name.strip(), PARTS)
        found.append(match)
    if len(found) > 1 and wanted is Format.CSV:
        raise UsageError(f"a CSV file holds one table; choose one of --by {', '.join(found)}.")
    return found


def _count(jobs: list[tuple[Spec, Setting]], convention: str) -> list[CountRow]:
    """Count every job, with a progress bar where there are several and somebody watches."""
    from .output import progress

    weights = find_convention(convention)
    # torch is imported here, after everything that the user may have mistyped was checked.
    from ..counting.count import count_row
    from ..machine import check_device

    for device in {setting.device for _, setting in jobs}:
        check_device(device)
    return [
        count_row(spec, setting, weights)
        for spec, setting in progress(jobs, lambda job: job[0].name)
    ]


def _write(
    rows: list[CountRow], parts: list[By], depth: int | None, wanted: Format, out: Out
) -> None:
    from ..counting.view import many_models, one_model
    from ..machine import summary
    from ..records import document
    from .output import emit

    if not parts and len(rows) == 1 and wanted in (Format.TABLE, Format.MD):
        parts = ["stage", "operator"]
    tables = one_model(rows[0], parts, depth) if parts else [many_models(rows)]
    emit(tables, document("flops", rows, summary()), wanted, out)


def _check_unknown(rows: list[CountRow], limit: int | None) -> None:
    if limit is None:
        return
    for row in rows:
        calls = sum(row.unknown.values())
        if calls > limit:
            raise CheckFailed(
                f"{row.model}: {calls} calls of operators without a rule, more than "
                f"--max-unknown {limit}: {', '.join(row.unknown)}."
            )


# `datbench explain`.


def explain(
    model: Model = None,
    config: Config = None,
    res: Annotated[
        str | None,
        typer.Option(
            "--res",
            metavar="WxH",
            help="Input in pixels, width x height, or one number for a square. The size that the "
            "published figures belong to, unless told.",
            show_default=False,
        ),
    ] = None,
    run_peers: Annotated[
        bool,
        typer.Option(
            "--run-peers",
            help="Run the other counters that are installed (fvcore, torch, ptflops, thop, "
            "calflops, torchinfo) on the CPU, and say what they count differently.",
        ),
    ] = False,
    timeout: Annotated[
        float | None,
        typer.Option(help="Seconds that each of them may take.", show_default="300"),
    ] = None,
    attention: Annotated[
        str,
        typer.Option(
            help="eager or sdpa; other counters may depend on it.",
            autocompletion=complete(*ATTENTIONS),
        ),
    ] = "eager",
    features: Annotated[
        bool, typer.Option("--features", help="Four feature maps with a norm each, no head.")
    ] = False,
    format: OutputFormat = None,
    out: Out = None,
) -> None:
    """Say why counters disagree, as a sum of operators."""
    from .output import choose_format

    wanted = choose_format(format, out)
    spec = one_spec(model, config)
    resolution = spec.resolution if res is None else Resolution.parse(res)
    if attention not in ATTENTIONS:
        raise UnknownNameError.among("attention", attention, ATTENTIONS)
    if timeout is not None and not run_peers:
        raise UsageError("--timeout limits the other counters; add --run-peers.")
    if timeout is not None and not timeout > 0:  # nor may it be nan
        raise UsageError(f"--timeout {timeout:g}: write a number of seconds above 0.")
    setting = Setting(resolution, attention=attention, features=features)
    # torch is imported here, after everything that the user may have mistyped was checked.
    from ..counting.peers.explain import TIMEOUT, explain_row
    from ..counting.view import explain_tables, flat_table
    from ..machine import summary
    from ..records import document
    from .output import emit, progress

    limit = (TIMEOUT if timeout is None else timeout) if run_peers else None
    row = explain_row(spec, setting, limit, lambda peers: progress(peers, lambda peer: peer.name))
    tables = [flat_table(row)] if wanted is Format.CSV else explain_tables(row)
    emit(tables, document("explain", [row], summary()), wanted, out)
