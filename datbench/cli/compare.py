"""`datbench compare`."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from ..compare.records import FLOOR, LEVEL, PROCESSES, ComparisonRow, FalseAlarms, RunPlan, accepted
from ..errors import UsageError
from ..files import complete_files
from ..models.resolve import complete_models
from ..setting import How
from ..timing.records import ComparedSide
from . import options
from .command import HOW, RESULT, argument, group, option
from .output import Output

BUDGET = 2.0

START = 4.0
"""Seconds that a process takes besides its timing, before one has been seen: `import torch`."""

Threshold = Annotated[
    float,
    option(
        RESULT,
        "--threshold PERCENT",
        "Speeds that differ by less than this percentage are the same.",
        default=True,
    ),
]

Confidence = Annotated[
    float,
    option(
        RESULT,
        "--confidence PERCENT",
        "Confidence of the interval: 98 allows one false regression in a hundred.",
        default=True,
    ),
]


def run(
    output: Output,
    timing: options.ProcessTiming,
    a: Annotated[
        str,
        argument(
            "A model with its own options behind an @, which count before the common ones, such "
            "as dat_t@attention=sdpa,batch=8. With @python=PATH or @source=PATH it is run by "
            "another version of datbench.",
            "A",
            complete_models,
        ),
    ],
    b: Annotated[
        str | None, argument("The same; may be left out with --aa.", "B", complete_models)
    ] = None,
    res: options.Sizes = None,
    batch: options.Batches = None,
    dtype: options.Dtype = "float32",
    attention: options.AttentionName = "eager",
    mode: options.ModeName = None,
    device: options.DeviceName = None,
    input: options.Given = None,
    threshold: Threshold = 100 * FLOOR,
    confidence: Confidence = 100 * LEVEL,
    seed: Annotated[
        int | None,
        option(
            HOW,
            "--seed N",
            "Seed of the coins that order each round ABBA or BAAB. Default: a new one each time.",
            min=0,
        ),
    ] = None,
    aa: Annotated[
        int,
        option(
            HOW,
            "--aa N",
            "First compare A with itself N times: how often this set-up sees a difference where "
            "there is none, and how small a difference it can see.",
            min=0,
            max=1000,
        ),
    ] = 0,
    one_at_a_time: Annotated[
        bool,
        option(
            HOW,
            "--one-at-a-time",
            "Run one process after the other instead of two at once that take turns: for models "
            "that do not fit a device together, and for a datbench that cannot take turns.",
        ),
    ] = False,
) -> None:
    """Tell whether B is as fast as A, in fresh processes that take turns.

    While the verdict is ambiguous, the processes are doubled once.

    Exit code 0: same or faster; 1: slower; 4: ambiguous; 5: a process failed.

    Examples:
    datbench compare dat_t dat_t@attention=sdpa --batch 8
    datbench compare dat_t@source=../before dat_t --threshold 3
    datbench compare dat_t --aa 20
    """
    import secrets

    from ..compare import view
    from ..compare.decide import check_plan
    from ..compare.sides import side

    if b is None and not aa:
        raise UsageError("name B too, or give --aa N to compare A with itself.")
    for text in filter(None, (a, b)):
        if text.lower().endswith(".json") or ("@" not in text and Path(text).is_file()):
            raise UsageError(f"{text} is a file; `datbench compare files A B` compares results.")
    given = {
        "batch": options.only(options.pieces(batch) or [None], "batch", "a comparison is at one"),
        "res": options.only(options.pieces(res) or [None], "size", "a comparison is at one"),
        "dtype": dtype,
        "device": device,
        "attention": attention,
        "mode": mode,
        "threads": timing.threads,
        "compile": "yes" if timing.compile else None,
        "channels_last": "yes" if timing.channels_last else None,
    }
    common = {name: str(value) for name, value in given.items() if value is not None}
    floor, level = accepted(threshold, confidence)
    how = How(budget=options.seconds("--budget", timing.budget, BUDGET))
    inputs = options.Run(res=res, batch=batch, input=input).inputs()
    one = side(a, common, how, inputs)
    other = None if b is None else side(b, common, how, inputs)
    # Elsewhere no process can be given another's pipes.
    by_turns = os.name == "posix" and not one_at_a_time
    compiled = one.how.compile or (other or one).how.compile
    budget, limit = timing.limits(BUDGET, compiled)
    if by_turns and 2 * budget >= limit:
        raise UsageError(
            f"--budget {budget:g}: two sides that take turns need {2 * budget:g} s, which "
            f"--timeout {limit:g} does not leave; give a longer one."
        )
    processes = timing.processes or PROCESSES
    seed = secrets.randbits(32) if seed is None else seed
    plan = RunPlan(processes, 2 * processes, floor, level, seed, by_turns)
    check_plan(plan)
    row, alarms = _run(one, other, plan, limit, aa)
    from ..machine import environment

    if row is not None:
        output.write(view.tables([row], alarms), "compare", [row], environment())
        if row.interrupted:
            raise KeyboardInterrupt
        return view.check_rows([row])
    assert alarms is not None
    if alarms.runs:
        itself = replace(alarms, a=one, plan=plan)
        output.write([view.alarms_table(alarms)], "compare-aa", [itself], environment())
    return view.check_alarms(one.model, alarms)


def files(
    output: Output,
    a: Annotated[
        Path,
        argument("Results of `datbench throughput --format json`.", "A.json", complete_files),
    ],
    b: Annotated[Path, argument("Other results.", "B.json", complete_files)],
    threshold: Threshold = 100 * FLOOR,
    confidence: Confidence = 100 * LEVEL,
    across_machines: options.AcrossMachines = False,
) -> None:
    """Compare two files of times, row by row.

    Exit code 0: same or faster; 1: slower; 3: a row is missing; 4: ambiguous.

    Examples:
    datbench compare files before.json after.json
    """
    from ..compare import view
    from ..compare.files import compare_files

    floor, level = accepted(threshold, confidence)
    # Files have the environments that they were measured in.
    rows = compare_files(a, b, floor, level, across_machines)
    output.write(view.tables(rows), "compare", rows)
    view.check_rows(rows)


def _run(
    a: ComparedSide, b: ComparedSide | None, plan: RunPlan, timeout: float, aa: int
) -> tuple[ComparisonRow | None, FalseAlarms | None]:
    """Run the sides, and say before how long it takes."""
    from ..compare.run import compare_sides, processes
    from ..compare.view import price, progress
    from ..render.terminal import status
    from ..timing.process import check

    for each in (a, b or a):
        check(each.setting, each.how)
    each_takes = a.how.budget + (START / 2 if plan.by_turns else START)  # two start at once
    said = price(plan if b else None, each_takes, processes(plan, aa) if aa else 0)
    typer.echo(f"datbench: {said}", err=True)
    with status() as show:
        return compare_sides(a, b, plan, timeout, aa, lambda what: progress(show, what))


app = group("compare", (run, files), usual="run")
