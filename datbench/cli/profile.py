"""`datbench profile`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from ..machine import device_of
from ..profile.records import check_trace
from ..setting import TIME_MODES, mode_of
from . import options
from .command import RESULT
from .output import Output

if TYPE_CHECKING:
    from ..profile.view import By as Breakdown

PARTS: tuple[Breakdown, ...] = ("stage", "module", "operator")


def profile(
    run: options.Run,
    timing: options.Timing,
    output: Output,
    mode: options.ModeName = None,
    device: options.DeviceName = None,
    by: options.By = None,
    depth: options.Depth = None,
    top: options.Top = None,
    trace: Annotated[
        Path | None,
        options.file_option(
            RESULT,
            "--trace FILE",
            "Write one run as .json or .json.gz, for ui.perfetto.dev or chrome://tracing.",
        ),
    ] = None,
) -> None:
    """Tell why a model is slower than its FLOPs say.

    The times of its operators under torch's profiler, beside their MACs and bytes and the peaks of
    the machine, all measured in this process. `datbench plot roofline` draws the result.

    Examples:
    datbench profile dat_t --by stage,operator
    datbench profile dat_t --device cuda --batch 64 --out dat_t.json
    """
    parts = options.breakdowns(by, PARTS, output.one, depth)
    chosen = mode_of(mode, TIME_MODES, "inference")
    how: dict[str, Any] = {"threads": timing.threads, "channels_last": timing.channels_last}
    budget = options.seconds("--budget", timing.budget, 10.0)
    if trace is not None:
        check_trace(trace, output.path)
    jobs = run.jobs(device_of(device))
    spec, setting = options.only(jobs, "model, size and batch", "profile takes one")
    # torch is imported here, after everything that the user may have mistyped was checked.
    from ..files import write_whole
    from ..machine import environment
    from ..profile import profile as profiler
    from ..profile import view
    from ..render.terminal import status

    with status() as step:
        row = profiler.profile_model(spec, setting, chosen, **how, budget=budget, step=step)
        if trace is not None:
            step("one run for the trace")
            packed = trace.suffix.lower() == ".gz"
            traced = profiler.trace(spec, setting, chosen, **how, compressed=packed)
            write_whole(trace, traced)
    if output.one:
        tables = [view.parts_table(row, parts[0] if parts else "operator", depth)]
    else:
        tables = view.tables(row, parts or ["stage", "operator"], depth, top or 15)
    output.write(tables, "profile", [row], environment())
