"""`datbench compare`."""

from __future__ import annotations

import os
import re
import secrets
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..compare.records import (
    EXTENDED,
    FLOOR,
    LEVEL,
    MOST,
    PROCESSES,
    ComparisonRow,
    FalseAlarms,
    RunPlan,
)
from ..errors import CheckFailed, MeasurementError, UnknownNameError, UsageError
from ..setting import ATTENTIONS, DTYPES, MAX_BATCH, TIME_MODES, How, Resolution, Setting
from ..timing.records import ComparedSide
from .options import ChannelsLast, Out, OutputFormat, default_device, one_of, option

if TYPE_CHECKING:
    from ..compare.run import Step

# A side as it is written: ``MODEL[@option=value,...]``.

NAMES = "batch res dtype device attention mode threads compile channels_last python source".split()
"""Options of a side."""

FLAGS = ("compile", "channels_last")

MOST_THREADS = 4096

_OPTION = re.compile(r"[A-Za-z_-]+(=.*)?")

_TRUTH = {"": True, "yes": True, "true": True, "1": True, "no": False, "false": False, "0": False}


def split(text: str) -> tuple[str, dict[str, str]]:
    """The model, and the options behind the last ``@`` that has any.

    Raises:
        UsageError: an option is unknown, without a value or given twice, or none is there.
    """
    if text.endswith("@") and not Path(text.partition(":")[2]).is_file():
        raise UsageError(f"{text!r} has nothing behind its @; write MODEL@option=value.")
    for at in (match.start() for match in reversed(list(re.finditer("@", text)))):
        found = _given_pairs(text[at + 1 :])
        if found is None:
            continue
        names = [name for name, _ in found]
        unknown = [name for name in names if name not in NAMES]
        if unknown:
            if ":" in text and Path(text.partition(":")[2]).exists():
                continue  # a part of a path
            raise UnknownNameError.among("option", unknown[0], NAMES, f"It stands in {text!r}.")
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice:
            raise UsageError(f"{text!r} gives {twice} twice.")
        return text[:at], dict(found)
    return text, {}


def _given_pairs(tail: str) -> list[tuple[str, str]] | None:
    """Options as written; None if this is something else."""
    parts = [part.strip() for part in tail.split(",")]
    if len(parts) > 1 and not all(parts):
        rest = ",".join(filter(None, parts))
        if rest and _given_pairs(rest) is None:
            return None
        raise UsageError(f"'@{tail}' leaves an option out between its commas.")
    found = []
    for part in parts:
        name, equals, value = part.partition("=")
        name = name.replace("-", "_")
        if not _OPTION.fullmatch(part) or not (equals or name in FLAGS):
            return None
        found.append((name, value.strip()))
    return found


def side(text: str, common: dict[str, str], how: How) -> ComparedSide:
    """A side that can be run; its own options count before the common ones.

    Raises:
        UsageError: an option's value is wrong, or the model does not exist.
    """
    model, own = split(text)
    if not model:
        raise UsageError(f"{text!r} names no model; write MODEL@option=value.")
    told = {**common, **own}
    how = replace(
        how,
        mode=one_of("mode", told.get("mode", "infer"), TIME_MODES),
        threads=_whole("threads", told["threads"], MOST_THREADS) if "threads" in told else None,
        compile=_flag("compile", told),
        channels_last=_flag("channels_last", told),
    )
    python = _python(told["python"]) if "python" in told else None
    source = _source(told["source"]) if "source" in told else None
    setting = Setting(
        _resolution(model, told.get("res"), elsewhere=bool(python or source)),
        _whole("batch", told.get("batch", "1"), MAX_BATCH),
        one_of("dtype", told.get("dtype", "float32"), DTYPES),
        told.get("device") or default_device(),
        one_of("attention", told.get("attention", "eager"), ATTENTIONS),
    )
    return ComparedSide(model, setting, how, python, source)


def _resolution(model: str, text: str | None, elsewhere: bool) -> Resolution:
    """The size asked for, or the model's own; a model of another version need not exist here."""
    from ..models.resolve import resolve

    if text is not None and elsewhere:
        return Resolution.parse(text)
    try:
        spec = resolve(model)
    except UnknownNameError as error:
        if elsewhere:
            raise UsageError(f"{model} is not known here; give its --res.") from error
        raise
    return spec.resolution if text is None else Resolution.parse(text)


def _whole(what: str, text: str, most: int) -> int:
    if not re.fullmatch("[0-9]{1,9}", text) or not 1 <= int(text) <= most:
        raise UsageError(f"{what} {text!r}: write a number from 1 to {most}.")
    return int(text)


def _flag(name: str, told: dict[str, str]) -> bool:
    text = told.get(name, "no").lower()
    if text not in _TRUTH:
        raise UsageError(f"{name} {text!r}: write yes or no.")
    return _TRUTH[text]


def _python(text: str) -> str:
    found = shutil.which(str(Path(text).expanduser()))
    if found is None:
        raise UsageError(f"python {text!r}: there is no such program; name a Python interpreter.")
    return str(Path(found).absolute())


def _source(text: str) -> str:
    folder = Path(text).expanduser().absolute()
    if not (folder / "datbench" / "__init__.py").is_file():
        raise UsageError(f"source {text!r}: there is no datbench/__init__.py in it.")
    return str(folder)


BUDGET, TIMEOUT, TIMEOUT_COMPILED = 2.0, 300.0, 1800.0

START = 4.0
"""Seconds that a process takes besides its timing, before one has been seen: `import torch`."""

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
        option(
            "Input in pixels, width x height, or one number for a square; each model's own "
            "unless told.",
            default=False,
            metavar="WxH",
        ),
    ] = None,
    batch: Annotated[str | None, option("Images in a batch.", default="1", metavar="N")] = None,
    dtype: Annotated[
        str | None,
        option("float32, float64, bfloat16 or float16.", default="float32", names=DTYPES),
    ] = None,
    device: Annotated[
        str | None,
        option("cpu or cuda.", default="cuda where a GPU is, else cpu", names=("cpu", "cuda")),
    ] = None,
    attention: Annotated[
        str | None, option("eager or sdpa.", default="eager", names=ATTENTIONS)
    ] = None,
    mode: Annotated[
        str | None, option("infer or train.", default="infer", names=TIME_MODES)
    ] = None,
    threads: Annotated[
        str | None,
        option(
            "Of an operator on a CPU; a pair of processes is bound to as many processors.",
            default="torch's own",
            metavar="N",
        ),
    ] = None,
    compile: Annotated[bool, option("Through torch.compile.", "--compile")] = False,
    channels_last: ChannelsLast = False,
    processes: Annotated[
        int | None,
        option(
            "Fresh processes of each side; an even number.",
            default=str(PROCESSES),
            min=2,
            max=MOST,
        ),
    ] = None,
    max_processes: Annotated[
        int | None,
        option(
            "Double them up to so many of each side while the verdict is ambiguous.",
            default=f"{EXTENDED}, or --processes where that is more",
            min=2,
            max=MOST,
        ),
    ] = None,
    budget: Annotated[
        float | None,
        option("Seconds of timing in a process, warm-up included.", default=f"{BUDGET}"),
    ] = None,
    timeout: Annotated[
        float | None,
        option(
            "Seconds that a pair of processes may take, its start included; with "
            "--one-at-a-time, a process.",
            default=f"{TIMEOUT:g}; {TIMEOUT_COMPILED:g} where a side is compiled",
        ),
    ] = None,
    floor: Annotated[
        float, option("Percent by which speeds may differ and still be the same.")
    ] = 100 * FLOOR,
    level: Annotated[
        float, option("Of the interval: 0.98 allows one false regression in a hundred.")
    ] = LEVEL,
    seed: Annotated[
        int | None,
        option(
            "Of the coins that order each round ABBA or BAAB.",
            default="a new one each time",
            min=0,
        ),
    ] = None,
    aa: Annotated[
        int,
        option(
            "First compare A with itself N times: how often this set-up sees what is not "
            "there, and how small a difference it can see.",
            "--aa",
            metavar="N",
            min=0,
            max=1000,
        ),
    ] = 0,
    one_at_a_time: Annotated[
        bool,
        option(
            "One process after the other, in place of two at once that take turns: for models "
            "that do not fit a device together, and a datbench that knows no turns.",
            "--one-at-a-time",
        ),
    ] = False,
    across_machines: Annotated[
        bool, option("Compare files from different machines anyway.", "--across-machines")
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
    from ..compare import view
    from ..records import document
    from .output import choose_format, emit

    wanted = choose_format(format, out)
    given = {
        "batch": batch,
        "res": res,
        "dtype": dtype,
        "device": device,
        "attention": attention,
        "mode": mode,
        "threads": threads,
        "compile": "yes" if compile else None,
        "channels_last": "yes" if channels_last else None,
    }
    common = {name: value for name, value in given.items() if value is not None}
    if not 0 < floor <= 50:
        raise UsageError(f"--floor {floor:g}: write percent, above 0 and up to 50.")
    if not 0.8 <= level <= 0.999:
        raise UsageError(f"--level {level:g}: write a level from 0.8 to 0.999.")
    if b is None and not aa:
        raise UsageError("name B too, or give --aa N to compare A with itself.")
    files = [
        text.lower().endswith(".json") or ("@" not in text and Path(text).is_file())
        for text in filter(None, (a, b))
    ]
    if any(files):
        if not all(files) or b is None:
            raise UsageError("a result file is compared with a result file, not with a model.")
        own = (processes, max_processes, budget, timeout, seed)
        if common or aa or one_at_a_time or any(option is not None for option in own):
            raise UsageError(
                "two files are compared as they are; leave out what runs a model or processes."
            )
        from ..compare.files import compare_files
        from ..machine import summary

        # Files have the environments that they were measured in.
        rows = compare_files(Path(a), Path(b), floor / 100, level, across_machines)
        emit(view.tables(rows), document("compare", rows, summary()), wanted, out)
        return _end(rows)
    if across_machines:
        raise UsageError("--across-machines is of two files; here both sides run on this one.")
    how = How(budget=BUDGET if budget is None else budget)
    one = side(a, common, how)
    other = None if b is None else side(b, common, how)
    # Elsewhere no process can be given another's pipes.
    by_turns = os.name == "posix" and not one_at_a_time
    limit = _timeout(timeout, one.how, (other or one).how, by_turns)
    plan = RunPlan(
        PROCESSES if processes is None else processes,
        max(processes or PROCESSES, EXTENDED) if max_processes is None else max_processes,
        floor / 100,
        level,
        secrets.randbits(32) if seed is None else seed,
        by_turns,
    )
    _check(plan)
    row, alarms = _run(one, other, plan, limit, aa)
    from ..machine import environment

    if row is not None:
        emit(view.tables([row], alarms), document("compare", [row], environment()), wanted, out)
        if row.interrupted:
            raise KeyboardInterrupt
        return _end([row])
    assert alarms is not None
    if alarms.runs:
        itself = replace(alarms, a=one, plan=plan)
        content = document("compare-aa", [itself], environment())
        emit([view.alarms_table(alarms)], content, wanted, out)
    return _end_itself(one, alarms)


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


def _check(plan: RunPlan) -> None:
    """Whether the plan can give a verdict at all."""
    from ..compare.decide import fewest_pairs

    if plan.processes % 2 or plan.most % 2:
        raise UsageError("two processes of each side make a round; write even numbers of them.")
    if plan.most < plan.processes:
        raise UsageError(f"--max-processes {plan.most} is fewer than --processes {plan.processes}.")
    few = fewest_pairs(plan.look_level())
    if plan.processes < few:
        raise UsageError(
            f"--processes {plan.processes} cannot settle anything at --level {plan.level:g}; write "
            f"{few + few % 2} or more."
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
