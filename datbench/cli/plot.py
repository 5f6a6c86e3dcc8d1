"""`datbench plot`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import UnknownNameError, UsageError
from ..ledger import MEMORY_MODES
from ..types import MAX_BATCH
from .options import Models, Resolutions, complete, resolutions
from .plot_kinds import DRAWN, Asked, icicle

if TYPE_CHECKING:
    from ..figures import Plot

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
        from ..report.plots import check_suffix
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
    from ..report.plots import to_bytes, to_terminal
    from .output import console, write_text, write_whole

    if out is not None:
        write_whole(out, to_bytes(plots, out.suffix))
        return
    for each in plots:
        write_text(to_terminal(each, min(console().width, 110)))


def _show_icicle(asked: Asked, out: Path | None) -> None:
    from ..report.icicle import to_bytes, to_terminal
    from .output import console, write_text, write_whole

    rects, title, say = icicle(asked)
    if out is not None:
        write_whole(out, to_bytes(rects, title, say, out.suffix))
    else:
        write_text(to_terminal(rects, title, say, min(console().width, 110)))
