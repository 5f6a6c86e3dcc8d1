"""`datbench compare`."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from ..errors import UsageError
from ..timings import TIME_MODES, How
from ..types import ATTENTIONS, DTYPES
from ..versus import EXTENDED, FLOOR, LEVEL, MOST, PROCESSES, Plan
from .compare_sides import Options, is_file, side
from .options import (
    ChannelsLast,
    Out,
    OutputFormat,
    complete,
)

BUDGET, TIMEOUT, TIMEOUT_COMPILED = 2.0, 300.0, 1800.0

ABOUT_SIDE = "MODEL[@option=value,...], or a result of `datbench throughput --format json`."


def compare(
    a: Annotated[str, typer.Argument(metavar="A", help=ABOUT_SIDE, show_default=False)],
    b: Annotated[
        str | None,
        typer.Argument(
            metavar="B", help="The same; may be left out with --aa.", show_default=False
        ),
    ] = None,
    res: Annotated[
        str | None,
        typer.Option(
            metavar="WxH",
            help="Input in pixels, width x height, or one number for a square; each model's own "
            "unless told.",
            show_default=False,
        ),
    ] = None,
    batch: Annotated[
        str | None, typer.Option(metavar="N", help="Images in a batch.", show_default="1")
    ] = None,
    dtype: Annotated[
        str | None,
        typer.Option(
            help="float32, float64, bfloat16 or float16.",
            autocompletion=complete(*DTYPES),
            show_default="float32",
        ),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(
            help="cpu or cuda.",
            autocompletion=complete("cpu", "cuda"),
            show_default="cuda where a GPU is, else cpu",
        ),
    ] = None,
    attention: Annotated[
        str | None,
        typer.Option(
            help="eager or sdpa.", autocompletion=complete(*ATTENTIONS), show_default="eager"
        ),
    ] = None,
    mode: Annotated[
        str | None,
        typer.Option(
            help="infer or train.", autocompletion=complete(*TIME_MODES), show_default="infer"
        ),
    ] = None,
    threads: Annotated[
        str | None,
        typer.Option(
            metavar="N",
            help="Of an operator on a CPU; a pair of processes is bound to as many processors.",
            show_default="torch's own",
        ),
    ] = None,
    compile: Annotated[bool, typer.Option("--compile", help="Through torch.compile.")] = False,
    channels_last: ChannelsLast = False,
    processes: Annotated[
        int | None,
        typer.Option(
            min=2,
            max=MOST,
            help="Fresh processes of each side; an even number.",
            show_default=str(PROCESSES),
        ),
    ] = None,
    max_processes: Annotated[
        int | None,
        typer.Option(
            min=2,
            max=MOST,
            help="Double them up to so many of each side while the verdict is ambiguous.",
            show_default=f"{EXTENDED}, or --processes where that is more",
        ),
    ] = None,
    budget: Annotated[
        float | None,
        typer.Option(
            help="Seconds of timing in a process, warm-up included.", show_default=f"{BUDGET}"
        ),
    ] = None,
    timeout: Annotated[
        float | None,
        typer.Option(
            help="Seconds that a pair of processes may take, its start included; with "
            "--one-at-a-time, a process.",
            show_default=f"{TIMEOUT:g}; {TIMEOUT_COMPILED:g} where a side is compiled",
        ),
    ] = None,
    floor: Annotated[
        float, typer.Option(help="Percent by which speeds may differ and still be the same.")
    ] = 100 * FLOOR,
    level: Annotated[
        float, typer.Option(help="Of the interval: 0.98 allows one false regression in a hundred.")
    ] = LEVEL,
    seed: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Of the coins that order each round ABBA or BAAB.",
            show_default="a new one each time",
        ),
    ] = None,
    aa: Annotated[
        int,
        typer.Option(
            "--aa",
            metavar="N",
            min=0,
            max=1000,
            help="First compare A with itself N times: how often this set-up sees what is not "
            "there, and how small a difference it can see.",
        ),
    ] = 0,
    one_at_a_time: Annotated[
        bool,
        typer.Option(
            "--one-at-a-time",
            help="One process after the other, in place of two at once that take turns: for models "
            "that do not fit a device together, and a datbench that knows no turns.",
        ),
    ] = False,
    across_machines: Annotated[
        bool,
        typer.Option("--across-machines", help="Compare files from different machines anyway."),
    ] = False,
    format: OutputFormat = None,
    out: Out = None,
) -> None:
    """Tell whether B is as fast as A, in fresh processes by turns.

    A side is a model with its own options behind an @, which count before the common ones: for
    example dat_t@attention=sdpa. With @python=PATH or @source=PATH it is another version of
    datbench. Exit code 0: same or faster; 1: slower; 3: a row is missing; 4: ambiguous; 5: a
    process failed.
    """
    from . import compare_runs
    from .output import choose_format

    wanted = choose_format(format, out)
    common = Options(
        batch,
        res,
        dtype,
        device,
        attention,
        mode,
        threads,
        "yes" if compile else None,
        "yes" if channels_last else None,
    )
    _check(floor, level)
    if b is None and not aa:
        raise UsageError("name B too, or give --aa N to compare A with itself.")
    files = [is_file(text) for text in (a, b) if text is not None]
    if any(files):
        if not all(files) or b is None:
            raise UsageError("a result file is compared with a result file, not with a model.")
        own = (processes, max_processes, budget, timeout, seed)
        if common.given() or aa or one_at_a_time or any(option is not None for option in own):
            raise UsageError(
                "two files are compared as they are; leave out what runs a model or processes."
            )
        compare_runs.files(Path(a), Path(b), floor / 100, level, across_machines, wanted, out)
        return
    if across_machines:
        raise UsageError("--across-machines is of two files; here both sides run on this one.")
    how = How(budget=BUDGET if budget is None else budget)
    one = side(a, common, how)
    other = one if b is None else side(b, common, how)
    # Elsewhere no process can be given another's pipes.
    by_turns = os.name == "posix" and not one_at_a_time
    limit = _timeout(timeout, one.how, other.how, by_turns)
    plan = _plan(PROCESSES if processes is None else processes, max_processes, floor, level, seed)
    plan = replace(plan, by_turns=by_turns)
    compare_runs.sides(one, None if b is None else other, plan, limit, aa, wanted, out)


def _check(floor: float, level: float) -> None:
    if not 0 < floor <= 50:
        raise UsageError(f"--floor {floor:g}: write percent, above 0 and up to 50.")
    if not 0.8 <= level <= 0.999:
        raise UsageError(f"--level {level:g}: write a level from 0.8 to 0.999.")


def _timeout(told: float | None, a: How, b: How, by_turns: bool) -> float:
    """Seconds that a process, or a pair that takes turns, may take: compiling takes minutes.

    Raises:
        UsageError: its timing alone would take longer.
    """
    usual = TIMEOUT_COMPILED if a.compile or b.compile else TIMEOUT
    timeout = usual if told is None else told
    if not 0 < a.budget < timeout <= 86_400:
        raise UsageError("--budget and --timeout are seconds, and the budget is the shorter.")
    if by_turns and 2 * a.budget >= timeout:
        raise UsageError(
            f"--budget {a.budget:g}: two sides take {2 * a.budget:g} s by turns, which --timeout "
            f"{timeout:g} does not leave; give a longer one."
        )
    return timeout


def _plan(processes: int, most: int | None, floor: float, level: float, seed: int | None) -> Plan:
    """The plan, if it can give a verdict at all.

    Args:
        floor: in percent.
    """
    import secrets

    from ..measure.compare.ranks import fewest_pairs

    limit = max(processes, EXTENDED) if most is None else most
    if processes % 2 or limit % 2:
        raise UsageError("two processes of each side make a round; write even numbers of them.")
    if limit < processes:
        raise UsageError(f"--max-processes {limit} is fewer than --processes {processes}.")
    plan = Plan(
        processes, limit, floor / 100, level, secrets.randbits(32) if seed is None else seed
    )
    few = fewest_pairs(plan.look_level())
    if processes < few:
        raise UsageError(
            f"--processes {processes} cannot settle anything at --level {level:g}; write "
            f"{few + few % 2} or more."
        )
    return plan
