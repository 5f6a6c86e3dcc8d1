"""`datbench plot`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import MeasurementError, UnknownNameError, UsageError
from ..setting import MAX_BATCH, MEMORY_MODES, Resolution, Setting
from .options import Models, Resolutions, complete, resolutions, specs

if TYPE_CHECKING:
    from ..counting.records import CountRow
    from ..memory.records import MemoryRow
    from ..models.resolve import Spec
    from ..render.figure import Plot, Rect
    from ..setting import MemoryMode

# What `datbench plot` draws: from the command line to figures.

SIDES = (224, 384, 512, 800, 1024)
"""Of the squares that cost is drawn at unless told."""

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


class Asked:
    """What the command line says."""

    def __init__(
        self,
        kind: str,
        of: str,
        models: Sequence[str],
        sizes: list[Resolution] | None,
        files: tuple[Path, ...],
        batch: int | None,
        mode: str | None,
    ) -> None:
        self.kind, self.of, self.models, self.sizes = kind, of, models, sizes
        self.files, self.batch, self._mode = files, batch, mode

    def check(self) -> None:
        """Refuse what would be ignored."""
        if self.files and (self.models or self.sizes):
            raise UsageError("--from draws what is in the files; leave out models and --res.")
        if self.files and not TAKES[self.kind]:
            raise UsageError(f"plot {self.kind} is simulated; leave out --from.")
        simulated = self.kind in ("memory", "timeline") or self.of == "memory"
        if (self.batch or self._mode) and (self.files or not simulated):
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

    def mode(self, default: MemoryMode) -> MemoryMode:
        """The mode of memory."""
        for name in MEMORY_MODES:
            if name == (self._mode or default):
                return name
        raise UnknownNameError.among("mode", str(self._mode), MEMORY_MODES)

    def jobs(self, sizes: Sequence[Resolution] = ()) -> list[tuple[Spec, Setting]]:
        """Models at their sizes; at `sizes` unless told, at their own without."""
        return [
            (spec, Setting(size, self.batch or 1))
            for spec in specs(list(self.models))
            for size in self.sizes or sizes or [spec.resolution]
        ]

    def rows(self) -> list[tuple[str, Any]]:
        """Kind and value of every row of the files."""
        return [(kind, row) for kind, row, _ in self.measured()]

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

    def only(self, kind: str) -> list[Any]:
        """Rows of the files, which must all be of this kind."""
        found = self.rows()
        if any(each != kind for each, _ in found):
            raise UsageError(f"these files are of several kinds; this plot is of {kind} rows.")
        return [row for _, row in found]


def _accuracy(asked: Asked) -> Plot:
    from ..report.overviews import Rated, accuracy_overview, published

    if asked.of == "throughput":
        from ..report.overviews import rates

        measured = asked.measured()
        models = {row.model for _, row, _ in measured}
        rows = [(row, (row.model, row.own_input)) for row in published() if row.model in models]
        found, notes = rates(measured, {key for _, key in rows})
        points = [
            Rated(row.name, row.family, found[key], row.top1, row.apart)
            for row, key in rows
            if key in found
        ]
        return accuracy_overview(points, "images/s", *notes)
    label, scale = ("GMACs", 1e9) if asked.of == "macs" else ("parameters (M)", 1e6)
    known = [
        Rated(row.name, row.family, row.costs[asked.of] / scale, row.top1, row.apart)
        for row in published()
        if asked.of in row.costs
    ]
    return accuracy_overview(known, label, "Both as the papers' tables print them.")


def _cost(asked: Asked) -> Plot:
    from ..report.overviews import cost, memory_against_size

    if asked.files:
        kinds = {kind for kind, _ in asked.rows()}
        return (
            memory_against_size(asked.only("memory"))
            if kinds == {"memory"}
            else cost(asked.only("flops"))
        )
    jobs = asked.jobs([Resolution(side, side) for side in SIDES])
    if asked.of == "memory":
        return memory_against_size(_simulated(jobs, asked.mode("inference")))
    return cost(_counted(jobs))


def _counted(jobs: Sequence[tuple[Spec, Setting]]) -> list[CountRow]:
    from ..counting.conventions import convention
    from ..counting.count import count_row
    from .output import progress

    fvcore = convention("fvcore")
    return [count_row(*job, fvcore) for job in progress(jobs, lambda job: job[0].name)]


def _simulated(jobs: Sequence[tuple[Spec, Setting]], mode: MemoryMode) -> list[MemoryRow]:
    from dataclasses import replace

    from ..memory.simulate import memory_row
    from ..setting import WITH_BACKWARD
    from .output import progress

    return [
        memory_row(spec, replace(setting, backward=mode in WITH_BACKWARD), mode)
        for spec, setting in progress(jobs, lambda job: job[0].name)
    ]


def _eq10(asked: Asked) -> Plot:
    from ..eq10.view import stacks

    if asked.files:
        return stacks(asked.only("eq10"))
    from ..eq10.identity import identities_of
    from .output import progress

    jobs = [(spec, setting.resolution) for spec, setting in asked.jobs()]
    return stacks(identities_of(progress(jobs, lambda job: job[0].name)))


def _memory(asked: Asked) -> Plot:
    from ..report.overviews import memory_bars

    rows = (
        asked.only("memory")
        if asked.files
        else _simulated(asked.jobs(), asked.mode("train-forward"))
    )
    return memory_bars(rows)


def _timeline(asked: Asked) -> Plot:
    from ..memory.simulate import simulate_model
    from ..memory.timeline import timeline
    from ..setting import PLAIN

    spec, setting = asked.jobs()[0]
    mode = asked.mode("train-forward")
    trace = simulate_model(spec, setting, mode, PLAIN)[1]
    title = f"{spec.name} at {setting.resolution}: memory over the run"
    return timeline(trace, f"{title} ({mode}, batch {setting.batch})")


def _roofline(asked: Asked) -> Plot:
    from ..machine import place_of
    from ..profile.view import By, parts, roofline

    rows = asked.only("profile")
    if len(rows) > 1:
        raise UsageError(f"the files hold {len(rows)} profiles; a roofline is of one.")
    place = place_of(asked.measured()[0][2])
    ways: tuple[By, ...] = ("stage", "module", "operator")
    by = next(name for name in ways if name == asked.of)
    figure = roofline(rows[0], parts(rows[0], by), f"{by}s", place)
    if figure is None:
        raise MeasurementError(f"{rows[0].model}: nothing here has both MACs and bytes to draw.")
    return figure


DRAWN: dict[str, Callable[[Asked], Plot]] = {
    "accuracy": _accuracy,
    "cost": _cost,
    "eq10": _eq10,
    "memory": _memory,
    "timeline": _timeline,
    "roofline": _roofline,
}


def icicle(asked: Asked) -> tuple[list[Rect], str, Callable[[float], str]]:
    """Rectangles, what they are of, and how an amount of it is said."""
    from .. import units
    from ..profile.records import ProfileRow
    from ..render.figure import partition

    rows = [row for _, row in asked.rows()] if asked.files else _counted(asked.jobs())
    if len(rows) > 1:
        raise UsageError(f"the files hold {len(rows)} rows; an icicle is of one.")
    row = rows[0]
    where = f"{row.model} at {row.setting.resolution}"
    say: Callable[[float], str]
    if isinstance(row, ProfileRow):
        timed = asked.of == "time"
        amounts = {p.name: p.seconds if timed else float(p.macs) for p in row.modules}
        title = f"{where}: where the {'time goes' if timed else 'MACs are'}"
        say = units.seconds if timed else _macs
    elif asked.of == "time":
        raise UsageError("a count has no times; --of time takes a file of `datbench profile`.")
    else:
        amounts = {part.name: float(part.amount) for part in row.modules}
        title = f"{where}: where the {row.unit}s are ({row.convention})"
        say = _macs if row.unit == "MAC" else _flops
    rects = partition(amounts)
    if not rects:
        raise MeasurementError(f"{row.model}: there is no amount to draw.")
    return rects, title, say


def _macs(value: float) -> str:
    from .. import units

    return units.amount(value, "MAC")


def _flops(value: float) -> str:
    from .. import units

    return units.amount(value, "FLOP")


OF: dict[str, tuple[str, ...]] = {
    "accuracy": ("macs", "params", "throughput"),
    "cost": ("macs", "memory"),
    "eq10": (),
    "memory": (),
    "timeline": (),
    "roofline": ("stage", "module", "operator"),
    "icicle": ("macs", "time"),
}
"""Kinds of plots, and what each may be drawn of; the first unless told."""


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
    if out is not None:
        from ..render.figure import check_suffix
        from .output import check_path

        check_suffix(out.suffix)
        check_path(out)
    asked = Asked(
        kind, _of(kind, of), model or [], resolutions(res), tuple(from_ or ()), batch, mode
    )
    asked.check()
    if kind == "icicle":
        _show_icicle(asked, out)
    else:
        _show([DRAWN[kind](asked)], out)


def _of(kind: str, name: str | None) -> str:
    known = OF[kind]
    if name is None:
        return known[0] if known else ""
    if not known:
        raise UsageError(f"plot {kind} draws one thing; leave out --of.")
    if name not in known:
        raise UnknownNameError.among(f"--of of plot {kind}", name, known)
    return name


def _show(plots: Sequence[Plot], out: Path | None) -> None:
    from ..render.plot import to_bytes, to_terminal
    from .output import console, write_text, write_whole

    if out is not None:
        write_whole(out, to_bytes(plots, out.suffix))
        return
    for each in plots:
        write_text(to_terminal(each, min(console().width, 110)))


def _show_icicle(asked: Asked, out: Path | None) -> None:
    from ..render.vega import to_bytes, to_terminal
    from .output import console, write_text, write_whole

    rects, title, say = icicle(asked)
    if out is not None:
        write_whole(out, to_bytes(rects, title, say, out.suffix))
    else:
        write_text(to_terminal(rects, title, say, min(console().width, 110)))
