"""`datbench plot`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import DatbenchError, MeasurementError, UnknownNameError, UsageError
from ..setting import MAX_BATCH, MEMORY_MODES, Resolution, Setting
from .options import Models, Resolutions, complete, resolutions, specs

if TYPE_CHECKING:
    from ..models.resolve import Spec
    from ..render.figure import Plot
    from ..setting import MemoryMode

SIDES = (224, 384, 512, 800, 1024)
"""Default sides of the squares that cost is drawn at."""

TAKES: dict[str, tuple[str, ...]] = {
    "accuracy": ("throughput",),
    "cost": ("flops", "memory"),
    "eq10": ("eq10",),
    "memory": ("memory",),
    "timeline": (),
    "roofline": ("profile",),
    "icicle": ("flops", "profile"),
}
"""Kinds of result files that a plot is drawn from."""

OF: dict[str, tuple[str, ...]] = {
    "accuracy": ("macs", "params", "throughput"),
    "cost": ("macs", "memory"),
    "eq10": (),
    "memory": (),
    "timeline": (),
    "roofline": ("stage", "module", "operator"),
    "icicle": ("macs", "time"),
}
"""Kinds of plots, and what each may be drawn of; the first is the default."""


@dataclass(frozen=True)
class PlotRequest:
    """What the command line says."""

    kind: str
    of: str
    models: Sequence[str]
    sizes: list[Resolution] | None
    files: tuple[Path, ...]
    batch: int | None
    mode: str | None

    def check(self) -> None:
        """Refuse what would be ignored."""
        if self.files and (self.models or self.sizes):
            raise UsageError("--from draws what is in the files; leave out models and --res.")
        if self.files and not TAKES[self.kind]:
            raise UsageError(f"plot {self.kind} is simulated; leave out --from.")
        simulated = self.kind in ("memory", "timeline") or self.of == "memory"
        if (self.batch or self.mode) and (self.files or not simulated):
            raise UsageError("--batch and --mode are of simulated memory; leave them out.")
        if self.kind == "accuracy" and (self.models or self.sizes):
            raise UsageError("accuracy is drawn of the published tables; leave out models, --res.")
        if self.kind == "accuracy" and (self.of == "throughput") != bool(self.files):
            raise UsageError(
                "plot accuracy takes --of throughput and --from FILE together, the file from "
                "`datbench throughput --format json`."
            )
        if not self.files and (self.kind == "roofline" or self.of == "time"):
            raise UsageError(
                f"plot {self.kind} of what was measured takes --from FILE, "
                "from `datbench profile MODEL --format json --out FILE`."
            )
        single = self.kind == "timeline" or (self.kind == "icicle" and not self.files)
        if single and (len(self.models) > 1 or len(self.sizes or ()) > 1):
            raise UsageError(f"plot {self.kind} draws one model at one size.")

    def memory_mode(self, default: MemoryMode) -> MemoryMode:
        """The mode of memory."""
        for name in MEMORY_MODES:
            if name == (self.mode or default):
                return name
        raise UnknownNameError.among("mode", str(self.mode), MEMORY_MODES)

    def jobs(self, sizes: Sequence[Resolution] = ()) -> list[tuple[Spec, Setting]]:
        """Models at the sizes asked for; otherwise at `sizes`, without these at their own."""
        return [
            (spec, Setting(size, self.batch or 1))
            for spec in specs(list(self.models))
            for size in self.sizes or sizes or [spec.resolution]
        ]

    def measured(self) -> list[tuple[str, Any, Mapping[str, Any]]]:
        """Kind, value and environment of every row of the files.

        Raises:
            UsageError: a file cannot be read, is broken, or holds what this cannot draw.
        """
        from ..records import load

        found: list[tuple[str, Any, Mapping[str, Any]]] = []
        for path in self.files:
            content = load(path)
            if content.kind not in TAKES[self.kind]:
                raise UsageError(
                    f"{path} holds {content.kind!r}; plot {self.kind} is drawn from "
                    f"{' or '.join(TAKES[self.kind])}."
                )
            found += [
                (content.kind, row, here)
                for row, here in zip(content.rows, content.measured_in, strict=True)
            ]
        if self.files and not found:
            raise UsageError(f"{self.files[0]} holds no rows.")
        return found

    def rows(self) -> list[Any]:
        """The rows of the files, which must all be of one kind."""
        found = self.measured()
        if len({kind for kind, _, _ in found}) > 1:
            raise UsageError(
                f"these files are of several kinds; this plot is of {found[0][0]} rows."
            )
        return [row for _, row, _ in found]

    def counted(self, sizes: Sequence[Resolution] = ()) -> list[Any]:
        """Counts: of the files, or made here."""
        if self.files:
            return self.rows()
        from ..counting.conventions import convention
        from ..counting.count import count_row
        from ..render.terminal import progress

        fvcore = convention("fvcore")
        jobs = self.jobs(sizes)
        return [count_row(*job, fvcore) for job in progress(jobs, lambda job: job[0].name)]

    def simulated(self, default: MemoryMode, sizes: Sequence[Resolution] = ()) -> list[Any]:
        """Memory: of the files, or simulated here."""
        if self.files:
            return self.rows()
        from dataclasses import replace

        from ..memory.simulation import memory_row
        from ..render.terminal import progress
        from ..setting import WITH_BACKWARD

        jobs, mode = self.jobs(sizes), self.memory_mode(default)
        return [
            memory_row(spec, replace(setting, backward=mode in WITH_BACKWARD), mode)
            for spec, setting in progress(jobs, lambda job: job[0].name)
        ]

    def only(self, rows: Sequence[Any], what: str) -> Any:
        """The one row of a plot that shows one."""
        if len(rows) > 1:
            raise UsageError(f"the files hold {len(rows)} {what}.")
        return rows[0]


def _accuracy(asked: PlotRequest) -> Plot:
    from ..paper.accuracy import accuracy, measured, printed

    if asked.of == "throughput":
        rows = [(row, where) for _, row, where in asked.measured()]
        models, notes = measured(rows, _own_input)
        return accuracy(models, "throughput", *notes)
    return accuracy(printed(), asked.of, "Both as the papers' tables print them.")


def _own_input(model: str) -> Resolution | None:
    """The input of a model's published results; None where its library is not installed."""
    from ..models.resolve import resolve

    try:
        return resolve(model).resolution
    except DatbenchError:
        return None


def _cost(asked: PlotRequest) -> Plot:
    from ..counting.view import cost
    from ..memory.view import against_size
    from ..render.figure import MOST

    sizes = [Resolution(side, side) for side in SIDES]
    of_memory = asked.of == "memory" or {kind for kind, _, _ in asked.measured()} == {"memory"}
    rows = asked.simulated("inference", sizes) if of_memory else asked.counted(sizes)
    models = {row.model for row in rows}
    if len(models) > MOST:
        raise UsageError(f"a plot tells {MOST} models apart, and these are {len(models)}.")
    return against_size(rows) if of_memory else cost(rows)


def _eq10(asked: PlotRequest) -> Plot:
    from ..eq10.view import stacks

    if asked.files:
        return stacks(asked.rows())
    from ..eq10.identity import identities_of
    from ..render.terminal import progress

    jobs = [(spec, setting.resolution) for spec, setting in asked.jobs()]
    return stacks(identities_of(progress(jobs, lambda job: job[0].name)))


def _memory(asked: PlotRequest) -> Plot:
    from ..memory.view import bars

    rows = asked.simulated("train-forward")
    names = [
        f"{row.model}, {row.setting.resolution}, batch {row.setting.batch}, {row.mode}"
        for row in rows
    ]
    return bars(rows, names)


def _timeline(asked: PlotRequest) -> Plot:
    from ..memory.simulation import simulate_model
    from ..memory.timeline import timeline
    from ..setting import PLAIN

    spec, setting = asked.jobs()[0]
    mode = asked.memory_mode("train-forward")
    trace = simulate_model(spec, setting, mode, PLAIN)[1]
    title = f"{spec.name} at {setting.resolution}: memory over the run"
    return timeline(trace, f"{title} ({mode}, batch {setting.batch})")


def _roofline(asked: PlotRequest) -> Plot:
    from ..machine import place_of
    from ..profile.view import By, parts, roofline

    row = asked.only(asked.rows(), "profiles; a roofline is of one")
    place = place_of(asked.measured()[0][2])
    ways: tuple[By, ...] = ("stage", "module", "operator")
    by = next(name for name in ways if name == asked.of)
    figure = roofline(row, parts(row, by), f"{by}s", place)
    if figure is None:
        raise MeasurementError(f"{row.model}: nothing here has both MACs and bytes to draw.")
    return figure


def _icicle(asked: PlotRequest) -> Plot:
    from ..counting.view import icicle as of_counts
    from ..profile.records import ProfileRow
    from ..profile.view import icicle as of_profile

    row = asked.only(asked.counted(), "rows; an icicle is of one")
    timed = asked.of == "time"
    profiled = isinstance(row, ProfileRow)
    if timed and not profiled:
        raise UsageError("a count has no times; --of time takes a file of `datbench profile`.")
    drawn = of_profile(row, timed) if profiled else of_counts(row)
    if drawn is None:
        raise MeasurementError(f"{row.model}: there is no amount to draw.")
    return drawn


DRAWN: dict[str, Callable[[PlotRequest], Plot]] = {
    "accuracy": _accuracy,
    "cost": _cost,
    "eq10": _eq10,
    "memory": _memory,
    "timeline": _timeline,
    "roofline": _roofline,
    "icicle": _icicle,
}


def plot(
    kind: Annotated[
        str,
        typer.Argument(
            metavar="KIND",
            help="accuracy (as published, against a cost), cost (against the size of the input), "
            "eq10 (terms of attention modules), memory (what is alive at the peak), timeline "
            "(memory over the run), roofline (of a profile) or icicle (module inside module).",
            autocompletion=complete(*OF),
        ),
    ],
    model: Models = None,
    res: Resolutions = None,
    of: Annotated[
        str | None,
        typer.Option(
            help="What is drawn. accuracy: macs, params or throughput (with --from). cost: macs or "
            "memory. roofline: stage, module or operator. icicle: macs, or time (with --from).",
            autocompletion=complete("macs", "params", "throughput", "memory", "time"),
            show_default="the first",
        ),
    ] = None,
    from_: Annotated[
        list[Path] | None,
        typer.Option(
            "--from",
            metavar="FILE",
            readable=False,
            help="Draw rows of a result file (--format json of flops, memory, eq10, throughput or "
            "profile) in place of models; may be repeated.",
            show_default=False,
        ),
    ] = None,
    batch: Annotated[
        int | None,
        typer.Option(help="Of memory and timeline.", min=1, max=MAX_BATCH, show_default="1"),
    ] = None,
    mode: Annotated[
        str | None,
        typer.Option(
            help="Of memory and timeline: inference, train-forward, train or step.",
            autocompletion=complete(*MEMORY_MODES),
            show_default="train-forward; of cost inference",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="FILE",
            readable=False,
            help="Write a .png or .svg instead of drawing in the terminal.",
        ),
    ] = None,
) -> None:
    """Draw a plot, in the terminal or into a file.

    Models are counted or simulated for it; what was measured comes from result files.
    """
    if kind not in OF:
        raise UnknownNameError.among("plot", kind, OF)
    from .output import check_path, draw

    if out is not None:
        from ..render.vega import check_suffix

        check_suffix(out.suffix)
        check_path(out)
    asked = PlotRequest(
        kind, _of(kind, of), model or [], resolutions(res), tuple(from_ or ()), batch, mode
    )
    asked.check()
    draw([DRAWN[kind](asked)], out is None, out)


def _of(kind: str, name: str | None) -> str:
    known = OF[kind]
    if name is None:
        return known[0] if known else ""
    if not known:
        raise UsageError(f"plot {kind} draws one thing; leave out --of.")
    if name not in known:
        raise UnknownNameError.among(f"--of of plot {kind}", name, known)
    return name
