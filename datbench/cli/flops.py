"""`datbench flops`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from .options import Format, Models, Out, OutputFormat, Resolutions

if TYPE_CHECKING:
    from ..models.spec import ModelSpec
    from ..report.counts import By
    from ..results import CountRow
    from ..types import Setting


def flops(
    model: Models,
    res: Resolutions = None,
    batch: Annotated[int, typer.Option(help="Images in a batch; totals are of the batch.")] = 1,
    convention: Annotated[
        str,
        typer.Option(
            help="fvcore (MACs, what papers print), mmdet (MACs by mmcv's hooks), torch (FLOPs of "
            "products alone) or strict (FLOPs of all that runs)."
        ),
    ] = "fvcore",
    backward: Annotated[bool, typer.Option("--backward", help="Count the backward too.")] = False,
    by: Annotated[
        str, typer.Option(help="Breakdowns of a single model: stage, operator, module.")
    ] = "stage,operator",
    depth: Annotated[
        int | None,
        typer.Option(help="Cut module paths to this many parts.", min=1, show_default=False),
    ] = None,
    attention: Annotated[
        str, typer.Option(help="eager or sdpa; the count does not depend on it.")
    ] = "eager",
    features: Annotated[
        bool, typer.Option("--features", help="Four feature maps with a norm each, no head.")
    ] = False,
    dtype: Annotated[
        str, typer.Option(help="float32, float64, bfloat16 or float16; changes bytes only.")
    ] = "float32",
    device: Annotated[
        str, typer.Option(help="Where to run; meta needs neither memory nor time.")
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
    """Count MACs or FLOPs, and parameters, by stage and operator.

    One model at one resolution is broken down; several make one table.
    """
    from .options import resolutions, specs
    from .output import choose_format

    wanted = choose_format(format, out)
    chosen, sizes, parts = specs(model), resolutions(res), _parts(by)
    from ..types import ATTENTIONS, Setting

    if attention not in ATTENTIONS:
        from ..errors import UnknownNameError

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
    rows = _count(jobs, convention)
    _write(rows, parts, depth, wanted, out)
    _check_unknown(rows, max_unknown)


def _parts(by: str) -> list[By]:
    from ..errors import UnknownNameError

    known: tuple[By, ...] = ("stage", "operator", "module")
    found: list[By] = []
    for name in by.split(","):
        match = next((part for part in known if part == name.strip()), None)
        if match is None:
            raise UnknownNameError.among("breakdown", name.strip(), known)
        found.append(match)
    return found


def _count(jobs: list[tuple[ModelSpec, Setting]], convention: str) -> list[CountRow]:
    """Count every job, with a progress bar where there are several and somebody watches."""
    # torch is imported here, after everything that the user may have mistyped was checked.
    from ..measure.conventions import convention as find
    from .progress import progress

    weights = find(convention)
    from ..measure.device import check_device
    from ..measure.summary import count_row

    for device in {setting.device for _, setting in jobs}:
        check_device(device)
    return [
        count_row(spec, setting, weights)
        for spec, setting in progress(jobs, lambda job: job[0].name)
    ]


def _write(
    rows: list[CountRow], parts: list[By], depth: int | None, wanted: Format, out: Out
) -> None:
    from ..measure.environment import summary
    from ..report.counts import many_models, one_model
    from ..results import document
    from .output import emit

    single = len(rows) == 1 and (wanted in (Format.TABLE, Format.MD))
    tables = one_model(rows[0], parts, depth) if single else [many_models(rows)]
    emit(tables, document("flops", rows, summary()), wanted, out)


def _check_unknown(rows: list[CountRow], limit: int | None) -> None:
    if limit is None:
        return
    for row in rows:
        calls = sum(row.unknown.values())
        if calls > limit:
            from ..errors import CheckFailed

            raise CheckFailed(
                f"{row.model}: {calls} calls of operators without a rule, more than "
                f"--max-unknown {limit}: {', '.join(row.unknown)}."
            )
