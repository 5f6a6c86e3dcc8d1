"""Costs from Python: functions whose results print, draw and tabulate themselves.

A result holds the records that the command of the same name writes, and shows its tables. Nothing
that is heavy loads before a function is called.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from .compare.records import FLOOR, LEVEL, PROCESSES, RunPlan, SideName, accepted
from .errors import UnknownNameError, UsageError
from .render.table import Table
from .setting import (
    MEMORY_MODES,
    TIME_MODES,
    WITH_BACKWARD,
    Attention,
    How,
    Recipe,
    Resolution,
    Setting,
    Size,
    mode_of,
    precision_of,
)

if TYPE_CHECKING:
    import pandas as pd
    from torch import nn

    from .models.resolve import Spec
    from .render.figure import Plot
    from .timing.records import ProcessTiming

__all__ = ["Drawing", "Result", "compare", "flops", "memory", "table", "throughput"]

Model: TypeAlias = "str | nn.Module"
"""A name that the command line takes, or a module."""

Models: TypeAlias = "Model | Sequence[Model]"

Sizes: TypeAlias = "Size | list[Size] | None"
"""One size, or a list of several. Default: a module's 224x224, else that of published results."""


@dataclass(frozen=True)
class Drawing:
    """Plots: a notebook shows them, `print` draws them as characters."""

    plots: tuple[Plot, ...]

    def save(self, path: str | Path) -> None:
        """Write a .png or .svg file."""
        from .files import write_whole
        from .render.vega import to_bytes

        write_whole(Path(path), to_bytes(self.plots, Path(path).suffix))

    def _repr_svg_(self) -> str:
        from .render.vega import to_bytes

        return to_bytes(self.plots, ".svg").decode()

    def __str__(self) -> str:
        from .render.terminal import PLAIN_WIDTH, to_terminal

        return "\n".join(to_terminal(plot, PLAIN_WIDTH) for plot in self.plots)


@dataclass(frozen=True, repr=False)
class Result(Sequence[Any]):
    """What a command would print: a sequence of records, whose fields are its attributes, such as
    ``result.macs``; the attribute of several records is a tuple.
    """

    kind: str  # of the result file that holds such records
    rows: tuple[Any, ...]
    environment: dict[str, Any] | None = None  # where it was measured
    shown: tuple[Table, ...] = ()  # of a breakdown

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, place: Any) -> Any:
        return self.rows[place]

    def __getattr__(self, name: str) -> Any:
        rows = () if name.startswith("_") else self.__dict__.get("rows", ())
        if not rows or not all(hasattr(row, name) for row in rows):
            raise AttributeError(f"{type(self).__name__} has no {name!r}")
        found = tuple(getattr(row, name) for row in rows)
        return found[0] if len(found) == 1 else found

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *(each.name for row in self.rows[:1] for each in fields(row))]

    def tables(self) -> list[Table]:
        """What `print` and a notebook show."""
        from .report.kinds import tables

        return list(self.shown) or tables(self.kind, self.rows)

    def __str__(self) -> str:
        from .render.terminal import console
        from .render.text import to_plain

        return to_plain(self.tables(), console=console()).rstrip("\n")

    def __repr__(self) -> str:
        first = self.tables()[0]
        said = next(iter(first.notes), "") if self.kind == "compare" else first.title
        many = f"{len(self)} rows; " if len(self) > 1 else ""
        return f"<datbench {self.kind}: {many}{said:.300}>"

    def _repr_html_(self) -> str:
        from .render.text import to_html

        return to_html(self.tables())

    def to_dataframe(self, each: str | None = None) -> pd.DataFrame:
        """A pandas data frame: one row a record, nested fields under dotted names.

        Args:
            each: a list in the records, such as ``stages``, each element of which becomes a row.
        """
        import pandas as pd

        from .records import frame

        if not self.shown:
            return frame(self.rows, each, short=each is None)
        (table,) = self.shown
        names = [column.name for column in table.columns]
        found: pd.DataFrame = pd.DataFrame(list(table.rows[: len(self.rows)]), columns=names)
        return found

    def by(self, name: Any, depth: int | None = None) -> Result:
        """The breakdown of one model by ``stage``, ``operator`` or ``module``, as ``--by`` prints
        it; a count also by ``part``.

        Args:
            depth: cut the paths of modules to this many names.

        Raises:
            UsageError: there is no such breakdown.
        """
        known = ["stage", "operator", "module"]
        if self.kind not in ("flops", "memory") or len(self) > 1 or self.shown:
            known = []
        elif self.kind == "flops":
            known = ["part", *known]
        if name not in known:
            raise UnknownNameError.among(f"breakdown of {self!r}", name, known)
        if self.kind == "flops":
            from .counting.view import tables

            (table,) = tables(self.rows, [name], depth)
            records = table.records[:-1] if name in ("part", "stage") else table.records  # a total
        else:
            from .memory.view import tables as simulated

            table, *_ = simulated(self.rows, [name], one=True)
            records = table.records
        return replace(self, rows=records, shown=(table,))

    def plot(self) -> Drawing:
        """A model's modules by MACs; several counts against the input size; memory at the peak."""
        plot: Plot | None = None
        if self.kind == "flops":
            from .counting.view import cost, icicle

            plot = icicle(self.rows[0]) if len(self) == 1 else cost(self.rows)
        elif self.kind == "memory":
            from .memory.view import bars
            from .setting import labels

            plot = bars(self.rows, labels(self.rows))
        if plot is None:
            raise UsageError(f"a result of {self.kind} has no plot.")
        return Drawing((plot,))

    def save(self, path: str | Path) -> None:
        """Write what the command writes with ``--out``: .json (which `datbench report` and others
        read), .csv, .md, .tex or .txt, by the suffix.
        """
        from .cli.output import Output

        Output(out=str(path)).write(self.tables(), self.kind, self.rows, self.environment)


# From what a call is given to specs and settings.


def _specs(
    model: Models, inputs: tuple[Any, ...], kwargs: Mapping[str, Any] | None, named: dict[str, Any]
) -> list[Spec]:
    """What builds named models, or gives modules with their inputs."""
    from .models.module import ModuleSpec
    from .models.resolve import resolve

    given = {**(kwargs or {}), **named}
    found: list[Spec] = []
    each: Any
    for each in model if isinstance(model, (list, tuple)) else [model]:
        if not isinstance(each, str):
            found.append(ModuleSpec(each, inputs, given))
            continue
        if inputs or given:
            wrong = f"no option {next(iter(given))!r}" if given else "no module, which has inputs"
            raise UsageError(f"{each}: there is {wrong}; say a size with res= and batch=.")
        found.append(resolve(each))
    if not found:
        raise UsageError("name a model, such as dat_t, or give a module.")
    return found


def _jobs(
    specs: Sequence[Spec],
    res: Sizes = None,
    batch: int | Sequence[int] = 1,
    dtype: str = "float32",
    attention: Attention = "eager",
    features: bool = False,
    device: str = "meta",
    backward: bool = False,
) -> list[tuple[Spec, Setting]]:
    """Every model at every size and batch."""
    from .models.resolve import check_size

    sizes = [size and Resolution(size) for size in (res if isinstance(res, list) else [res])]
    batches = [batch] if isinstance(batch, int) else batch
    dtype, _ = precision_of(dtype)
    if any(_given(spec) for spec in specs) and (res, batch) != (None, 1):
        raise UsageError("the inputs say their size; leave out res and batch.")
    found = [
        (spec, Setting(size or spec.resolution, n, dtype, device, attention, backward, features))
        for spec in specs
        for size in sizes
        for n in ([_given(spec)] if _given(spec) else batches)
    ]
    for spec, setting in found:
        check_size(spec, setting.resolution)
    return found


def _given(spec: Any) -> int:
    """The batch of the inputs that a module was given; 0 without any."""
    return getattr(spec, "batch", 0)


def _run(
    work: Callable[[Spec, Setting], Any], jobs: Sequence[tuple[Spec, Setting]]
) -> tuple[Any, ...]:
    """A record of each job, whose setting says what a module was given."""
    with _kept(spec for spec, _ in jobs):
        return tuple(_told(spec, work(spec, setting)) for spec, setting in jobs)


@contextmanager
def _kept(specs: Iterable[Spec]) -> Iterator[None]:
    """Leave modules as they are."""
    from .models.module import ModuleSpec
    from .run import unchanged

    with ExitStack() as stack:
        for spec in specs:
            if isinstance(spec, ModuleSpec):
                stack.enter_context(unchanged(spec.module, spec.inputs, dict(spec.named)))
        yield


def _told(spec: Any, record: Any) -> Any:
    """A record, or a side, whose setting says what a module was given."""
    words = getattr(spec, "words", ())
    return replace(record, setting=replace(record.setting, inputs=words)) if words else record


def _timed_here(spec: Spec, name: str, setting: Setting, how: How, **_: Any) -> ProcessTiming:
    """A timing in this process, which a module cannot leave."""
    from .run import seeded, threads_set
    from .timing.worker import TimingJob, timed

    with threads_set(how.threads), seeded():
        return timed(TimingJob(name, setting, how), spec)


def _where(device: str | None, specs: Iterable[Spec]) -> str:
    """The device that is asked for, or a module's own, or what there is."""
    from .machine import device_of
    from .models.module import ModuleSpec

    own = (spec.device for spec in specs if isinstance(spec, ModuleSpec))
    return device_of(device or next(own, None))


# What commands do.


def flops(
    model: Models,
    *inputs: Any,
    res: Sizes = None,
    batch: int | Sequence[int] = 1,
    dtype: str = "float32",
    attention: Attention = "eager",
    features: bool = False,
    mode: str = "inference",
    convention: str = "fvcore",
    device: str = "meta",
    kwargs: Mapping[str, Any] | None = None,
    **named: Any,
) -> Result:
    """Count MACs or FLOPs, and parameters, as `datbench flops` does: ``.macs``, ``.params``.

    Args:
        model: a name, a module, which is counted in evaluation mode, or a list of them.
        inputs: of a module's forward. Default: an image of size `res` and `batch`.
        res: ``"1280x800"``, ``(1280, 800)`` or ``224``; or a list of sizes.
        batch: a number of images, or several.
        mode: ``inference``, or ``backward`` with the forward before it.
        convention: ``fvcore`` (MACs, as papers print them), ``mmdet``, ``torch`` or ``strict``.
        kwargs, named: what a module's forward takes by name.

    Raises:
        UsageError: an argument is wrong; the message says what to write.
        MeasurementError: a model does not run so.
    """
    backward = mode_of(mode, ("inference", "backward"), "inference") == "backward"
    if precision_of(dtype)[1] is not None:
        raise UsageError(f"dtype {dtype} is for memory, throughput and compare.")
    from .counting.conventions import convention as find
    from .counting.count import count_row

    weights = find(convention)
    specs = _specs(model, inputs, kwargs, named)
    jobs = _jobs(specs, res, batch, dtype, attention, features, device, backward)
    return Result("flops", _run(lambda spec, setting: count_row(spec, setting, weights), jobs))


def memory(  # noqa: PLR0913 (options, each with its name)
    model: Models,
    *inputs: Any,
    res: Sizes = None,
    batch: int | Sequence[int] = 1,
    dtype: str = "float32",
    attention: Attention = "eager",
    features: bool = False,
    mode: str = "forward",
    optimizer: Any = None,
    checkpointing: Any = None,
    device: str = "meta",
    kwargs: Mapping[str, Any] | None = None,
    **named: Any,
) -> Result:
    """Simulate where the memory goes, as `datbench memory` does: ``.peak.amount``, in bytes.

    Args:
        model, inputs, res, batch, kwargs, named: as `flops` takes them.
        mode: ``inference``, ``forward`` (with what autograd saves), ``backward`` or ``step``.
        dtype, optimizer, checkpointing: as the command's options, such as ``amp-bfloat16``.
        device: ``meta`` simulates; ``cpu`` and ``cuda`` measure a named model in a fresh process.

    Raises:
        UsageError: an argument is wrong; the message says what to write.
        MeasurementError: a model does not run so.
    """
    told = mode_of(mode, MEMORY_MODES, "forward")
    recipe = Recipe(optimizer, precision_of(dtype)[1], checkpointing).of(told)
    specs = _specs(model, inputs, kwargs, named)
    backward = device == "meta" and told in WITH_BACKWARD
    jobs = _jobs(specs, res, batch, dtype, attention, features, device, backward)
    if device != "meta":
        from .machine import environment
        from .memory.device import measure_gpu
        from .models.module import ModuleSpec

        if any(isinstance(spec, ModuleSpec) for spec in specs):
            raise UsageError("a module's memory is simulated; leave out device.")
        measured = tuple(measure_gpu(*job, told, recipe) for job in jobs)
        return Result("memory-measured", measured, environment())
    from .memory.allocator import replay
    from .memory.simulation import traced_row

    def simulated(spec: Spec, setting: Setting) -> Any:
        row, trace = traced_row(spec, setting, told, recipe)
        return replace(row, allocator=(replay(trace), replay(trace, expandable=True)))

    return Result("memory", _run(simulated, jobs))


def throughput(  # noqa: PLR0913 (options, each with its name)
    model: Models,
    *inputs: Any,
    res: Sizes = None,
    batch: int | Sequence[int] = 1,
    dtype: str = "float32",
    attention: Attention = "eager",
    features: bool = False,
    mode: str = "inference",
    device: str | None = None,
    threads: int | None = None,
    compile: bool = False,
    channels_last: bool = False,
    budget: float = 5.0,
    processes: int = 1,
    kwargs: Mapping[str, Any] | None = None,
    **named: Any,
) -> Result:
    """Time models as `datbench throughput` does: ``.images_per_second``, ``.seconds``.

    A name is timed in fresh processes, and a module in this one, which other work may disturb.

    Args:
        model, inputs, res, batch, kwargs, named: as `flops` takes them.
        mode: ``inference``, or ``step`` with backward and a step of SGD.
        device: default: a module's own; for a name ``cuda`` if there is a GPU, else ``cpu``.
        budget: seconds of each process's timing, warm-up included.

    Raises:
        UsageError: an argument is wrong; the message says what to write.
    """
    told = mode_of(mode, TIME_MODES, "inference")
    from .machine import environment
    from .models.module import ModuleSpec
    from .timing.process import check
    from .timing.rows import measure_rows

    cast = precision_of(dtype)[1]
    how = How(told, threads, compile, channels_last, budget=budget, autocast=cast)
    specs = _specs(model, inputs, kwargs, named)
    jobs = _jobs(specs, res, batch, dtype, attention, features, _where(device, specs))
    check(jobs[0][1], how)

    def timed(spec: Spec, setting: Setting) -> Any:
        here = partial(_timed_here, spec) if isinstance(spec, ModuleSpec) else None
        (row,) = measure_rows([(spec, setting)], how, processes=processes, timer=here).rows
        return row

    return Result("throughput", _run(timed, jobs), environment())


def compare(  # noqa: PLR0913 (options, each with its name)
    a: Model,
    b: Model,
    *inputs: Any,
    res: Size | None = None,
    batch: int = 1,
    dtype: str = "float32",
    attention: Attention = "eager",
    mode: str = "inference",
    device: str | None = None,
    threads: int | None = None,
    compile: bool = False,
    channels_last: bool = False,
    budget: float = 2.0,
    processes: int = PROCESSES,
    threshold: float = 100 * FLOOR,
    seed: int | None = None,
    kwargs: Mapping[str, Any] | None = None,
    **named: Any,
) -> Result:
    """Tell whether B is as fast as A, as `datbench compare` does: ``.decision.verdict``.

    Names are timed in fresh processes that take turns; if one is a module, both in this process,
    one after the other, which does not show what differs from process to process.

    Args:
        a, b: names, which may carry options (``dat_t@attention=sdpa``), or modules.
        inputs, kwargs, named: of the modules.
        budget: seconds of each timing. Each side has `processes` of them, and if the verdict is
            ambiguous, twice as many.
        threshold: speeds that differ by less than this percentage are the same.
        seed: of the coins that order each round. Default: a new one each time.

    Raises:
        UsageError: an argument is wrong; the message says what to write.
    """
    told, (_, cast) = mode_of(mode, TIME_MODES, "inference"), precision_of(dtype)
    how = How(told, threads, compile, channels_last, budget=budget, autocast=cast)
    from .compare.decide import check_plan
    from .compare.run import compare_sides, one_at_a_time
    from .compare.sides import side, split
    from .machine import environment
    from .timing.process import TIMEOUT, check
    from .timing.records import ComparedSide

    here = not (isinstance(a, str) and isinstance(b, str))
    models: dict[SideName, Model] = {"A": a, "B": b}
    specs: dict[SideName, Spec] = {}
    sides: dict[SideName, ComparedSide] = {}
    for name, model in models.items():
        if not isinstance(model, str):
            (specs[name],) = _specs(model, inputs, kwargs, named)
    where = _where(device, specs.values())
    common = {"batch": str(batch), "dtype": dtype, "attention": attention, "device": where}
    common |= {} if res is None else {"res": str(Resolution(res))}
    for name, model in models.items():
        if isinstance(model, str):
            sides[name] = side(model, common, how)
            (specs[name],) = _specs(split(model)[0], (), None, {})
        else:
            ((spec, setting),) = _jobs([specs[name]], res, batch, dtype, device=where)
            sides[name] = _told(spec, ComparedSide(spec.name, setting, how))
        check(sides[name].setting, sides[name].how)
    coins = secrets.randbits(32) if seed is None else seed
    turns = os.name == "posix" and not here
    floor, level = accepted(threshold, 100 * LEVEL)
    plan = RunPlan(processes, 2 * processes, floor, level, coins, turns)
    check_plan(plan)

    def sample(name: SideName) -> ProcessTiming:
        # A side's words are for people: what a module was given is what it is run on.
        setting = sides[name].setting
        own = setting if isinstance(models[name], str) else replace(setting, inputs=())
        return _timed_here(specs[name], specs[name].name, own, sides[name].how)

    pairs = one_at_a_time(sample) if here else None
    with _kept(specs.values()):
        row, _ = compare_sides(sides["A"], sides["B"], plan, TIMEOUT, pairs=pairs)
    assert row is not None
    doubts = ("timed in one process: others may differ",) if here else ()
    return Result("compare", (replace(row, doubts=(*row.doubts, *doubts)),), environment())


def table(*tables: int | str | Path, device: str | None = None) -> Result:
    """Compare tables of papers with what is computed, as `datbench table` does.

    Args:
        tables: 1 to 9 of the DAT paper, ``datpp``, ``all``, ..., or a TOML or CSV file of your own.
        device: ``cuda`` measures printed memory there.

    Raises:
        UsageError: there is no such table.
    """
    from .paper.tables import chosen_tables, files_among
    from .paper.verdicts import check_device, compare_tables

    chosen = chosen_tables(*files_among(map(str, tables)))
    if device is not None:
        check_device(chosen, device)
    return Result("table", tuple(compare_tables(chosen, device)))
