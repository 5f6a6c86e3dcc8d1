"""`datbench plot`: one way to draw, in the terminal or into a file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from ..counting.conventions import CONVENTIONS
from ..errors import MeasurementError, UsageError
from ..setting import MEMORY_MODES, PLAIN, WITH_BACKWARD, Name, Resolution, mode_of, one_of
from .command import RESULT, group, option
from .options import From, Inputs, ModeName, Run, Stage, only
from .output import Destination

if TYPE_CHECKING:
    from ..profile.view import By
    from ..render.figure import Plot
    from ..setting import MemoryMode

SIDES = (224, 384, 512, 800, 1024)
"""Default sides of the squares that cost is drawn at."""

WIDTH = 110
"""Columns that a plot takes at most."""

Of = Annotated[
    str | None,
    option(
        RESULT,
        "--of NAME",
        "What is drawn. accuracy: macs, params, or throughput (from files). cost: macs or memory. "
        "roofline: stage, module or operator. icicle: macs, or time (from files). Default: the "
        "first of these.",
        names=("macs", "params", "throughput", "memory", "stage", "module", "operator", "time"),
    ),
]


@dataclass(frozen=True)
class Picture(Destination):
    """Where a plot goes; what cannot be written is refused before any work."""

    others: ClassVar[tuple[str, ...]] = ()
    """Suffixes besides those of plots."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.path is not None and self.suffix not in self.others:
            from ..render.vega import check_suffix

            check_suffix(self.suffix)

    @property
    def suffix(self) -> str:
        """The suffix of the file, in small letters; empty for the terminal."""
        return "" if self.path is None else self.path.suffix.lower()

    def draw(self, made: Plot | Sequence[Plot] | None) -> None:
        """Write a plot or several into the file, or draw them on the terminal.

        Raises:
            LibraryError: vl-convert, which draws files, is not installed.
            DatbenchError: there is nothing to draw, or the file could not be written.
        """
        if made is None:
            raise MeasurementError("there is nothing to draw: no row has both amounts.")
        plots = made if isinstance(made, Sequence) else [made]
        from ..render.terminal import console, to_terminal

        if self.path is not None:
            from ..render.vega import to_bytes

            self.put(to_bytes(plots, self.suffix))
        else:
            width = min(console().width, WIDTH)
            self.put("\n".join(to_terminal(plot, width) for plot in plots))


@dataclass(frozen=True)
class Snapshot(Picture):
    """The same, or a file for pytorch.org/memory_viz."""

    others: ClassVar = (".pickle",)


def _of(kind: str, name: str | None, *known: Name) -> Name:
    return one_of(f"--of of plot {kind}", name or known[0], known)


def _either(inputs: Inputs, files: Sequence[Path] | None, *options: object) -> bool:
    """Whether rows come from files; these exclude models and the `options` of how they run."""
    if files and (inputs != type(inputs)() or any(option is not None for option in options)):
        raise UsageError("--from draws what is in the files; leave out models and how they run.")
    return bool(files)


def _rows(files: Sequence[Path] | None, *kinds: str) -> list[Any]:
    from ..records import rows_of

    return [row for row, _ in rows_of(files, *kinds)]


def _counted(jobs: Sequence[tuple[Any, Any]]) -> list[Any]:
    from ..counting.count import count_row
    from ..render.terminal import progress

    return [count_row(*job, CONVENTIONS["fvcore"]) for job in progress(jobs)]


def _simulated(run: Run, mode: MemoryMode, sizes: Sequence[Resolution] = ()) -> list[Any]:
    from ..memory.simulation import memory_row
    from ..render.terminal import progress

    jobs = run.jobs(backward=mode in WITH_BACKWARD, sizes=sizes)
    return [memory_row(*job, mode) for job in progress(jobs)]


def accuracy(where: Picture, of: Of = None, from_: From = None) -> None:
    """Draw the published accuracy against a cost; throughput comes from --from files.

    Examples:
    datbench plot accuracy --of params --out accuracy.svg
    datbench plot accuracy --of throughput --from times.json
    """
    of = _of("accuracy", of, "macs", "params", "throughput")
    if (of == "throughput") != bool(from_):
        raise UsageError(
            "--of throughput and --from FILE go together, the file from `datbench throughput "
            "--format json`."
        )
    from ..models.resolve import own_input
    from ..paper.accuracy import drawn
    from ..records import rows_of

    where.draw(drawn(of, rows_of(from_, "throughput"), own_input))


def cost(
    run: Run, where: Picture, of: Of = None, from_: From = None, mode: ModeName = None
) -> None:
    """Draw MACs or simulated memory against the input size.

    Examples:
    datbench plot cost dat_t datpp_t --of memory
    """
    drawn = _of("cost", of, "macs", "memory")
    told = mode_of(mode, MEMORY_MODES, "inference")
    from ..counting.view import cost as of_macs
    from ..memory.records import MemoryRow
    from ..memory.view import against_size
    from ..render.figure import MOST

    sizes = [Resolution(side, side) for side in SIDES]
    if _either(run, from_, mode):
        rows = _rows(from_, *({"macs": "flops"}.get(of, of) if of else "flops memory").split())
    elif drawn == "memory":
        rows = _simulated(run, told, sizes)
    else:
        rows = _counted(run.jobs(backward=told in WITH_BACKWARD, sizes=sizes))
    if len({row.model for row in rows}) > MOST:
        raise UsageError(f"a plot tells {MOST} models apart; name fewer.")
    where.draw(against_size(rows) if isinstance(rows[0], MemoryRow) else of_macs(rows))


def eq10(inputs: Inputs, where: Picture, stage: Stage = None, from_: From = None) -> None:
    """Draw the terms of attention modules; without a model, DMHA against size and stride.

    Examples:
    datbench plot eq10 dat_t --out terms.svg
    """
    from ..eq10.view import stacks

    if _either(inputs, from_, stage):
        return where.draw(stacks(_rows(from_, "eq10")))
    from ..eq10.curves import plots
    from ..eq10.identity import identities_of
    from ..render.terminal import progress
    from .eq10 import PAPERS

    asked = inputs if inputs.model else replace(inputs, model=["dat_t"])
    jobs = asked.sized(() if inputs.model else PAPERS)
    modules = identities_of(progress(jobs), stage)
    return where.draw(stacks(modules) if inputs.model else plots(modules))


def memory(run: Run, where: Picture, from_: From = None, mode: ModeName = None) -> None:
    """Draw what is alive at the peak of memory, part by part.

    Examples:
    datbench plot memory dat_t dat_s --batch 8
    """
    told = mode_of(mode, MEMORY_MODES, "forward")
    from ..memory.view import bars

    rows = _rows(from_, "memory") if _either(run, from_, mode) else _simulated(run, told)
    where.draw(bars(rows))


def timeline(run: Run, where: Snapshot, mode: ModeName = None) -> None:
    """Draw what is alive over a simulated run; .pickle is for pytorch.org/memory_viz.

    Examples:
    datbench plot timeline dat_t --mode backward --batch 8
    datbench plot timeline dat_t --out run.pickle
    """
    told = mode_of(mode, MEMORY_MODES, "forward")
    jobs = run.jobs(backward=told in WITH_BACKWARD)
    spec, setting = only(jobs, "model, size and batch", "plot timeline draws one run")
    from ..memory.simulation import simulate_model
    from ..memory.timeline import timeline as drawn
    from ..memory.timeline import visualiser

    _, trace = simulate_model(spec, setting, told, PLAIN)
    if where.suffix in where.others:
        return where.put(visualiser(trace))
    title = f"{spec.name} at {setting.resolution}: memory over the run"
    return where.draw(drawn(trace, f"{title} ({told}, batch {setting.batch})"))


def roofline(where: Picture, from_: From = None, of: Of = None) -> None:
    """Draw what the parts of a profile achieve, under the peaks of the machine.

    Examples:
    datbench profile dat_t --out dat_t.json
    datbench plot roofline --from dat_t.json --of operator
    """
    by: By = _of("roofline", of, "stage", "module", "operator")
    from ..machine import place_of
    from ..profile.view import parts
    from ..profile.view import roofline as drawn

    row, around = _one_profile(from_, "profile")
    where.draw(drawn(row, parts(row, by), f"{by}s", place_of(around)))


def _one_profile(files: list[Path] | None, *kinds: str) -> tuple[Any, Any]:
    """The one row, and where it was measured."""
    if not files:
        raise UsageError("name the file of `datbench profile MODEL --out FILE.json`: --from FILE.")
    from ..records import rows_of

    return only(rows_of(files, *kinds), "row", f"{files[0]} holds several rows")


def icicle(run: Run, where: Picture, from_: From = None, of: Of = None) -> None:
    """Draw one model module inside module, by MACs or by the time of a profile.

    Examples:
    datbench plot icicle dat_t
    datbench plot icicle --from dat_t.json --of time
    """
    of = _of("icicle", of, "macs", "time")
    from ..counting.view import icicle as of_counts
    from ..profile.records import ProfileRow
    from ..profile.view import icicle as of_profile

    if _either(run, from_) or of == "time":
        row = _one_profile(from_, "flops", "profile")[0]
    else:
        row = _counted([only(run.jobs(), "model, size and batch", "plot icicle draws one")])[0]
    if isinstance(row, ProfileRow):
        return where.draw(of_profile(row, of == "time"))
    if of == "time":
        raise UsageError("a count has no times; --of time takes a file of `datbench profile`.")
    return where.draw(of_counts(row))


def compare(where: Picture, from_: From = None) -> None:
    """Draw the intervals of comparisons.

    Examples:
    datbench compare dat_t dat_t@attention=sdpa --out sides.json
    datbench plot compare --from sides.json
    """
    from ..compare.view import intervals

    if not from_:
        raise UsageError("name the file of `datbench compare A B --out FILE.json`: --from FILE.")
    where.draw(intervals(_rows(from_, "compare")))


app = group(
    "plot",
    (accuracy, cost, eq10, memory, timeline, roofline, icicle, compare),
)
