"""`datbench flops` and `datbench explain`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from ..counting.conventions import convention as find_convention
from ..errors import CheckFailed, UsageError
from ..machine import device_of
from ..setting import mode_of
from .command import RESULT, WHAT, option
from .options import (
    By,
    Convention,
    Depth,
    DeviceName,
    Jobs,
    ModeName,
    Run,
    Timeout,
    breakdowns,
    only,
    seconds,
)
from .output import Format, Output

if TYPE_CHECKING:
    from ..counting.view import By as Breakdown

PARTS: tuple[Breakdown, ...] = ("part", "stage", "operator", "module")


def flops(
    run: Run,
    output: Output,
    mode: ModeName = None,
    device: DeviceName = None,
    convention: Convention = "fvcore",
    by: By = None,
    depth: Depth = None,
    processes: Jobs = None,
    max_unknown: Annotated[
        int | None,
        option(
            RESULT,
            "--max-unknown N",
            "Fail (exit code 1) if more operator calls than this have no rule.",
            min=0,
        ),
    ] = None,
) -> None:
    """Count MACs or FLOPs, and parameters.

    One model at one setting is broken down; several make one table. JSON holds it all.

    Examples:
    datbench flops dat_s --res 1280x800
    datbench flops dat_t datpp_t --res 224,512 --mode backward --format csv
    datbench flops dat_t+mask_rcnn --convention mmdet --by part,stage
    """
    parts = breakdowns(by, PARTS, output.one, depth)
    what = mode_of(mode, ("inference", "backward"), "inference")
    jobs = run.jobs(device_of(device, "meta"), what == "backward")
    if parts:
        only(jobs, "model, size and batch", "--by breaks down one model at one setting")
    weights = find_convention(convention)
    # torch is imported here, after everything that the user may have mistyped was checked.
    from ..counting.count import count_in_processes, count_row
    from ..counting.view import tables
    from ..machine import check_device
    from ..render.terminal import progress

    check_device(jobs[0][1].device)
    if processes is not None and len({spec.name for spec, _ in jobs}) > 1:
        rows = count_in_processes(jobs, weights, processes)
    else:
        named = progress(jobs)
        rows = [count_row(spec, setting, weights) for spec, setting in named]
    people = output.wanted in (Format.TABLE, Format.MD)
    output.write(tables(rows, parts, depth, one=not people), "flops", rows)
    for row in rows:
        calls = sum(row.unknown.values())
        if max_unknown is not None and calls > max_unknown:
            raise CheckFailed(
                f"{row.model}: {calls} calls of operators without a rule, more than "
                f"--max-unknown {max_unknown}: {', '.join(row.unknown)}."
            )


def explain(
    run: Run,
    output: Output,
    device: DeviceName = None,
    third_party: Annotated[
        bool,
        option(
            WHAT,
            "--third-party",
            "Run the other counters that are installed (fvcore, torch, ptflops, thop, calflops, "
            "torchinfo) on the CPU too.",
        ),
    ] = False,
    timeout: Timeout = None,
) -> None:
    """Explain why counters disagree about one model, as a sum of operators.

    Examples:
    datbench explain dat_t
    datbench explain datpp_t --third-party --timeout 60
    """
    if timeout is not None and not third_party:
        raise UsageError("--timeout limits the other counters; add --third-party.")
    limit = seconds("--timeout", timeout, 300)
    spec, setting = only(
        run.jobs(device_of(device, "meta")), "model, size and batch", "explain takes one"
    )
    # torch is imported here, after everything that the user may have mistyped was checked.
    from ..counting.peers.explain import explain_row
    from ..counting.view import explain_tables
    from ..machine import check_device
    from ..render.terminal import progress

    check_device(setting.device)
    row = explain_row(
        spec,
        setting,
        limit if third_party else None,
        lambda counters: progress(counters, lambda counter: counter.name),
    )
    output.write(explain_tables(row, one=output.one), "explain", [row])
