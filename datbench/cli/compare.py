"""`datbench compare`."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn, TypeVar

import typer

from ..compare.records import (
    EXTENDED,
    FLOOR,
    LEVEL,
    MOST,
    PROCESSES,
    FalseAlarms,
    Plan,
    SideName,
    Verdict,
    VersusRow,
)
from ..errors import (
    AmbiguousError,
    CheckFailed,
    DatbenchError,
    MeasurementError,
    MissingError,
    UnknownNameError,
    UsageError,
)
from ..setting import ATTENTIONS, DTYPES, MAX_BATCH, TIME_MODES, How, Resolution, Setting
from ..timing.records import Side
from .options import ChannelsLast, Format, Out, OutputFormat, complete

if TYPE_CHECKING:
    from ..compare.run import Compared, Pairs
    from ..timing.records import ProcessTiming

# What `datbench compare` takes as a side: ``MODEL[@option=value,...]``, or a result file.

Name = TypeVar("Name", bound=str)

MOST_THREADS = 4096

FLAGS = ("compile", "channels_last")

_OPTION = re.compile(r"[A-Za-z_-]+(=.*)?")

_TRUTH = {"": True, "yes": True, "true": True, "1": True, "no": False, "false": False, "0": False}


@dataclass(frozen=True)
class Options:
    """Of one side, as they are written; None where they were not given."""

    batch: str | None = None
    res: str | None = None
    dtype: str | None = None
    device: str | None = None
    attention: str | None = None
    mode: str | None = None
    threads: str | None = None
    compile: str | None = None
    channels_last: str | None = None
    python: str | None = None
    source: str | None = None

    def given(self) -> dict[str, str]:
        """The options that were given."""
        found = {name: getattr(self, name) for name in NAMES}
        return {name: value for name, value in found.items() if value is not None}


NAMES = tuple(each.name for each in fields(Options))


def is_file(text: str) -> bool:
    """Whether a side is a result file."""
    return text.lower().endswith(".json") or ("@" not in text and Path(text).is_file())


def split(text: str) -> tuple[str, Options]:
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
        unknown = [name for name, _ in found if name not in NAMES]
        if unknown:
            if ":" in text and Path(text.partition(":")[2]).exists():
                continue  # a part of a path
            raise UnknownNameError.among("option", unknown[0], NAMES, f"It stands in {text!r}.")
        names = [name for name, _ in found]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice:
            raise UsageError(f"{text!r} gives {twice} twice.")
        return text[:at], Options(**dict(found))
    return text, Options()


def _given_pairs(tail: str) -> list[tuple[str, str]] | None:
    """Options as written; None if this is something else."""
    parts = [part.strip() for part in tail.split(",")]
    if len(parts) > 1 and not all(parts):
        rest = ",".join(filter(None, parts))
        if rest and _given_pairs(rest) is None:
            return None
        raise UsageError(f"'@{tail}' leaves an option out between its commas.")
    flags = [part.replace("-", "_") in FLAGS for part in parts]
    if not all(map(_OPTION.fullmatch, parts)):
        return None
    if not all(flag or "=" in part for flag, part in zip(flags, parts, strict=True)):
        return None
    split = [part.partition("=") for part in parts]
    return [(name.replace("-", "_"), value.strip()) for name, _, value in split]


def side(text: str, common: Options, how: How) -> Side:
    """A side that can be run; its own options count before the common ones.

    Raises:
        UsageError: an option's value is wrong, or the model does not exist.
    """
    model, own = split(text)
    if not model:
        raise UsageError(f"{text!r} names no model; write MODEL@option=value.")
    told: dict[str, str] = {**common.given(), **own.given()}
    mode = _named("mode", told.get("mode", "infer"), TIME_MODES)
    settled = replace(
        how,
        mode=mode,
        threads=_whole("threads", told["threads"], MOST_THREADS) if "threads" in told else None,
        compile=_flag("compile", told),
        channels_last=_flag("channels_last", told),
    )
    python, source = _python(told.get("python")), _source(told.get("source"))
    setting = Setting(
        _resolution(model, told.get("res"), python is not None or source is not None),
        _whole("batch", told.get("batch", "1"), MAX_BATCH),
        _named("dtype", told.get("dtype", "float32"), DTYPES),
        told.get("device") or _default_device(),
        _named("attention", told.get("attention", "eager"), ATTENTIONS),
    )
    return Side(model, setting, settled, python, source)


def _default_device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


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


def _named(what: str, name: str, known: tuple[Name, ...]) -> Name:
    for one in known:
        if one == name:
            return one
    raise UnknownNameError.among(what, name, known)


def _whole(what: str, text: str, most: int) -> int:
    if not re.fullmatch("[0-9]{1,9}", text) or not 1 <= int(text) <= most:
        raise UsageError(f"{what} {text!r}: write a number from 1 to {most}.")
    return int(text)


def _flag(name: str, told: Mapping[str, str]) -> bool:
    text = told.get(name, "no").lower()
    if text not in _TRUTH:
        raise UsageError(f"{name} {text!r}: write yes or no.")
    return _TRUTH[text]


def _python(text: str | None) -> str | None:
    if text is None:
        return None
    found = shutil.which(str(Path(text).expanduser()))
    if found is None:
        raise UsageError(f"python {text!r}: there is no such program; name a Python interpreter.")
    return str(Path(found).absolute())


def _source(text: str | None) -> str | None:
    if text is None:
        return None
    folder = Path(text).expanduser().absolute()
    if not (folder / "datbench" / "__init__.py").is_file():
        raise UsageError(f"source {text!r}: there is no datbench/__init__.py in it.")
    return str(folder)


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
        compare_files(Path(a), Path(b), floor / 100, level, across_machines, wanted, out)
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
    sides(one, None if b is None else other, plan, limit, aa, wanted, out)


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

    from ..compare.decide import fewest_pairs

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


# What `datbench compare` does with its sides, and how it ends.


START = 4.0
"""Seconds that a process takes besides its timing, before one has been seen: `import torch`."""

ENDS: tuple[tuple[Verdict, type[DatbenchError]], ...] = (
    ("slower", CheckFailed),  # a regression is one whatever the other rows are
    ("failed", MeasurementError),
    ("missing", MissingError),
    ("ambiguous", AmbiguousError),
)
"""The error of a verdict; of several rows the first that applies."""


def compare_files(
    a: Path, b: Path, floor: float, level: float, across: bool, wanted: Format, out: Path | None
) -> None:
    """Compare two result files, row by row."""
    from ..compare.files import compare_files, differences_of_machines, read_benchmarks

    one, other = read_benchmarks(a), read_benchmarks(b)
    machines = differences_of_machines(one, other)
    if machines and not across:
        raise UsageError(
            f"{a} and {b} are from different machines ({'; '.join(machines)}); give "
            "--across-machines to compare them anyway."
        )
    rows = compare_files(one, other, floor, level)
    if not rows:
        raise MissingError(f"neither {a} nor {b} holds a row.")
    _write(rows, None, wanted, out)
    _end(rows)


def sides(
    a: Side, b: Side | None, plan: Plan, timeout: float, aa: int, wanted: Format, out: Path | None
) -> None:
    """Run the sides by turns; first A against itself, where that is asked for.

    Raises:
        KeyboardInterrupt: somebody ended it; what was finished has been written.
    """
    from ..compare.run import compare, doubts, false_alarms, median_rate, processes, trusted
    from ..compare.view import price
    from ..timing.process import check
    from .output import status, terminated_as_interrupt

    for side in (a, b or a):
        check(side.setting, side.how)
    images: dict[SideName, int] = {"A": a.setting.batch, "B": (b or a).setting.batch}
    first = processes(plan, aa) if aa else 0
    each = a.how.budget + (START / 2 if plan.by_turns else START)  # two start at once
    typer.echo(f"datbench: {price(plan if b else None, each, first)}", err=True)
    alarms: FalseAlarms | None = None
    compared: Compared | None = None
    with status() as show, terminated_as_interrupt():
        if aa:
            itself = _pairs(a, a, plan, timeout)
            alarms = false_alarms(itself, images["A"], plan, aa, _step(show, "A against itself"))
        if alarms is None or not (b is None or alarms.interrupted or alarms.failed):
            both = _pairs(a, b or a, plan, timeout)
            compared = compare(both, images, plan, _step(show, "A and B"))
    if compared is None:
        assert alarms is not None
        return _alone(a, plan, alarms, wanted, out)
    assert b is not None
    row = VersusRow(
        a,
        b,
        trusted(compared.decision, alarms),
        median_rate(compared.runs, "A"),
        median_rate(compared.runs, "B"),
        compared.runs,
        interleaved=True,
        interrupted=compared.interrupted,
        doubts=doubts(compared.runs),
        plan=plan,
    )
    _write([row], alarms, wanted, out)
    if row.interrupted:
        raise KeyboardInterrupt
    return _end([row])


def _pairs(a: Side, b: Side, plan: Plan, timeout: float) -> Pairs:
    """Times the two sides in fresh processes, as the plan wants it."""
    from ..compare.run import one_at_a_time
    from ..timing import process

    named: dict[SideName, Side] = {"A": a, "B": b}

    def sample(name: SideName) -> ProcessTiming:
        side = named[name]
        return process.time_in_process(
            side.model,
            side.setting,
            side.how,
            timeout=timeout,
            python=side.python,
            source=None if side.source is None else Path(side.source),
        )

    def by_turns(first: SideName, number: int) -> tuple[ProcessTiming, ProcessTiming]:
        one, other = (a, b) if first == "A" else (b, a)
        return process.time_pair(one, other, timeout, number)

    return by_turns if plan.by_turns else one_at_a_time(sample)


def _step(show: Callable[[str], None], what: str) -> Callable[[int, int, float], None]:
    from .. import units

    def step(pair: int, of: int, left: float) -> None:
        remaining = f", about {units.seconds(left)} left" if left else ""
        show(f"{what}: pair {pair} of {of}{remaining}")

    return step


def _alone(a: Side, plan: Plan, alarms: FalseAlarms, wanted: Format, out: Path | None) -> None:
    """A against itself and nothing else: all that was run is written, whatever ended it.

    Raises:
        KeyboardInterrupt: somebody ended it.
        MeasurementError: a process gave no figure.
        CheckFailed: it differed too often.
    """
    from ..compare.records import as_document_row, as_document_side
    from ..compare.view import alarms_table
    from ..machine import environment
    from ..records import document
    from .output import emit

    if alarms.runs:
        row = {"a": as_document_side(a), "plan": asdict(plan), **as_document_row(alarms)}
        content = document("compare-aa", [row], environment())
        emit([alarms_table(alarms)], content, wanted, out)
    if alarms.interrupted:
        raise KeyboardInterrupt
    if alarms.failed:
        raise MeasurementError(f"A against itself: {alarms.failed}.")
    if alarms.too_many:
        raise CheckFailed(
            f"{a.model} differed from itself in {alarms.false} of {len(alarms.decisions)} "
            "comparisons, more than 5 %."
        )


def _write(
    rows: Sequence[VersusRow], alarms: FalseAlarms | None, wanted: Format, out: Path | None
) -> None:
    from ..compare.records import as_document_row
    from ..compare.view import versus_tables
    from ..machine import environment, summary
    from ..records import document
    from .output import emit

    # Files have the environments that they were measured in.
    here = environment() if any(row.interleaved for row in rows) else summary()
    written = [as_document_row(row) for row in rows]
    for row in written:
        row["false_alarms"] = None if alarms is None else as_document_row(alarms)
    emit(versus_tables(rows, alarms), document("compare", written, here), wanted, out)


def _end(rows: Sequence[VersusRow]) -> None:
    """Leave with the exit code of the verdicts."""
    for verdict, error in ENDS:
        found = [row for row in rows if row.decision.verdict == verdict]
        if found:
            _raise(error, verdict, found, len(rows))


def _raise(
    error: type[DatbenchError], verdict: Verdict, found: Sequence[VersusRow], of: int
) -> NoReturn:
    from ..compare.view import brief

    said = brief(found[0].decision, found[0].interleaved)
    if of == 1:
        raise error(said)
    raise error(f"{verdict} in {len(found)} of {of} rows; the first is {_name(found[0])}: {said}")


def _name(row: VersusRow) -> str:
    return row.a if isinstance(row.a, str) else row.a.model
