"""`datbench compare`."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..compare.records import (
    FLOOR,
    LEVEL,
    PROCESSES,
    ComparisonRow,
    FalseAlarms,
    RunPlan,
)
from ..compare.sides import side
from ..errors import CheckFailed, MeasurementError, UsageError
from ..machine import device_of
from ..setting import How
from ..timing.records import ComparedSide
from .command import HOW, RESULT, argument, group, option
from .options import (
    AcrossMachines,
    AttentionName,
    Batches,
    DeviceName,
    Dtype,
    ModeName,
    ProcessTiming,
    Sizes,
    complete_files,
    complete_models,
    only,
    pieces,
    seconds,
)
from .output import Output

if TYPE_CHECKING:
    from ..compare.run import Step

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
    timing: ProcessTiming,
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
    res: Sizes = None,
    batch: Batches = None,
    dtype: Dtype = "float32",
    attention: AttentionName = "eager",
    mode: ModeName = None,
    device: DeviceName = None,
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
    from ..compare import view

    if b is None and not aa:
        raise UsageError("name B too, or give --aa N to compare A with itself.")
    for text in filter(None, (a, b)):
        if text.lower().endswith(".json") or ("@" not in text and Path(text).is_file()):
            raise UsageError(f"{text} is a file; `datbench compare files A B` compares results.")
    given = {
        "batch": only(pieces(batch) or [None], "batch", "a comparison is at one"),
        "res": only(pieces(res) or [None], "size", "a comparison is at one"),
        "dtype": dtype,
        "device": device_of(device),
        "attention": attention,
        "mode": mode,
        "threads": timing.threads,
        "compile": "yes" if timing.compile else None,
        "channels_last": "yes" if timing.channels_last else None,
    }
    common = {name: str(value) for name, value in given.items() if value is not None}
    floor, level = _accepted(threshold, confidence)
    how = How(budget=seconds("--budget", timing.budget, BUDGET))
    one = side(a, common, how)
    other = None if b is None else side(b, common, how)
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
    plan = RunPlan(
        processes,
        2 * processes,
        floor,
        level,
        secrets.randbits(32) if seed is None else seed,
        by_turns,
    )
    _check(plan)
    row, alarms = _run(one, other, plan, limit, aa)
    from ..machine import environment

    if row is not None:
        output.write(view.tables([row], alarms), "compare", [row], environment())
        if row.interrupted:
            raise KeyboardInterrupt
        return _end([row])
    assert alarms is not None
    if alarms.runs:
        itself = replace(alarms, a=one, plan=plan)
        output.write([view.alarms_table(alarms)], "compare-aa", [itself], environment())
    return _end_itself(one, alarms)


def files(
    output: Output,
    a: Annotated[
        Path, argument("Results of `datbench throughput --format json`.", "A.json", complete_files)
    ],
    b: Annotated[Path, argument("Other results.", "B.json", complete_files)],
    threshold: Threshold = 100 * FLOOR,
    confidence: Confidence = 100 * LEVEL,
    across_machines: AcrossMachines = False,
) -> None:
    """Compare two files of times, row by row.

    Exit code 0: same or faster; 1: slower; 3: a row is missing; 4: ambiguous.

    Examples:
    datbench compare files before.json after.json
    """
    from ..compare import view
    from ..compare.files import compare_files

    floor, level = _accepted(threshold, confidence)
    # Files have the environments that they were measured in.
    rows = compare_files(a, b, floor, level, across_machines)
    output.write(view.tables(rows), "compare", rows)
    _end(rows)


def _accepted(threshold: float, confidence: float) -> tuple[float, float]:
    """Both as fractions."""
    if not 0 < threshold <= 50:
        raise UsageError(f"--threshold {threshold:g}: write a percentage above 0 and up to 50.")
    if not 80 <= confidence <= 99.9:
        raise UsageError(f"--confidence {confidence:g}: write a percentage from 80 to 99.9.")
    return threshold / 100, confidence / 100


def _check(plan: RunPlan) -> None:
    """Whether the plan can give a verdict at all."""
    from ..compare.decide import fewest_pairs

    if plan.processes % 2:
        raise UsageError("two processes of each side make a round; write even numbers of them.")
    few = fewest_pairs(plan.look_level())
    if plan.processes < few:
        raise UsageError(
            f"--processes {plan.processes} cannot settle anything at --confidence "
            f"{100 * plan.level:g}; write {few + few % 2} or more."
        )


def _run(
    a: ComparedSide, b: ComparedSide | None, plan: RunPlan, timeout: float, aa: int
) -> tuple[ComparisonRow | None, FalseAlarms | None]:
    """Run the sides, and say before how long it takes."""
    from ..compare.run import compare_sides, processes
    from ..compare.view import price
    from ..render.terminal import status
    from ..timing.process import check

    for each in (a, b or a):
        check(each.setting, each.how)
    seconds = a.how.budget + (START / 2 if plan.by_turns else START)  # two start at once
    said = price(plan if b else None, seconds, processes(plan, aa) if aa else 0)
    typer.echo(f"datbench: {said}", err=True)
    with status() as show:
        return compare_sides(a, b, plan, timeout, aa, lambda what: _step(show, what))


def _step(show: Callable[[str], None], what: str) -> Step:
    from .. import units

    def step(pair: int, of: int, left: float) -> None:
        remaining = f", about {units.seconds(left)} left" if left else ""
        show(f"{what}: pair {pair} of {of}{remaining}")

    return step


def _end_itself(a: ComparedSide, alarms: FalseAlarms) -> None:
    """Leave with the exit code of A against itself."""
    if alarms.interrupted:
        raise KeyboardInterrupt
    if alarms.failed:
        raise MeasurementError(f"A against itself: {alarms.failed}.")
    if alarms.too_many:
        raise CheckFailed(
            f"{a.model} differed from itself in {alarms.false} of {len(alarms.decisions)} "
            "comparisons, more than 5 %."
        )


def _end(rows: Sequence[ComparisonRow]) -> None:
    """Leave with the exit code of the verdicts."""
    from ..compare.records import ERRORS
    from ..compare.view import brief

    for verdict, error in ERRORS.items():
        found = [row for row in rows if row.decision.verdict == verdict]
        if found:
            said, first = brief(found[0].decision, found[0].interleaved), found[0].a
            name = first if isinstance(first, str) else first.model
            whose = f"{verdict} in {len(found)} of {len(rows)} rows; the first is {name}: "
            raise error(f"{whose}{said}" if len(rows) > 1 else said)


app = group("compare", "Tell whether B is as fast as A.", (run, files), usual="run")
