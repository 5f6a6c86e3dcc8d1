"""`datbench show`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .options import Out, OutputFormat, complete_models

if TYPE_CHECKING:
    from ..models.checkpoints import CheckpointReport
    from ..models.config import Mixer, Stage
    from ..models.spec import ModelSpec
    from ..report.table import Table


def show(
    model: Annotated[
        str,
        typer.Argument(
            help="A model, such as dat_t.", autocompletion=complete_models, show_default=False
        ),
    ],
    res: Annotated[
        str | None,
        typer.Option("--res", metavar="WxH", help="Input in pixels.", show_default=False),
    ] = None,
    checkpoint: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Check that this file's weights fit, and say what matched.",
            show_default=False,
        ),
    ] = None,
    format: OutputFormat = None,
    out: Out = None,
) -> None:
    """Show how a model is built, stage by stage, and whether a checkpoint fits it."""
    from ..measure.environment import summary
    from ..models.dat import REGISTRY
    from ..results import document
    from ..types import Resolution
    from .output import choose_format, emit

    wanted = choose_format(format, out)
    spec = REGISTRY.get(model)
    size = Resolution.parse(res) if res else spec.resolution
    report = _checked(spec, checkpoint) if checkpoint else None
    rows = [
        _stage_row(i, stage, size.width // 4 >> i, size.height // 4 >> i)
        for i, stage in enumerate(spec.config.stages)
    ]
    tables = [_architecture(spec, rows, size)] + ([_report(report)] if report else [])
    content: dict[str, object] = {"model": spec.name, "resolution": str(size), "stages": rows}
    if report is not None:
        from dataclasses import asdict

        content["checkpoint"] = asdict(report)
    emit(tables, document("show", [content], summary()), wanted, out)


def _stage_row(number: int, stage: Stage, width: int, height: int) -> dict[str, str | int]:
    repeated: list[tuple[str, int]] = []
    for text in map(_mixer, stage.blocks):
        if repeated and repeated[-1][0] == text:
            repeated[-1] = (text, repeated[-1][1] + 1)
        else:
            repeated.append((text, 1))
    period = len(set(stage.blocks))
    if len(repeated) > period and len(repeated) % period == 0:
        blocks = f"({', '.join(text for text, _ in repeated[:period])}) x {len(repeated) // period}"
    else:
        blocks = ", ".join(text if n == 1 else f"{text} x {n}" for text, n in repeated)
    return {
        "stage": number + 1,
        "map": f"{width}x{height}",
        "dim": stage.dim,
        "heads": stage.heads,
        "blocks": blocks,
    }


def _mixer(mixer: Mixer) -> str:
    from ..models.config import Deformable, DeformableDetr, Neighborhood, SpatialReduction, Window

    match mixer:
        case Window(size, 0):
            return f"window {size}"
        case Window(size, shift):
            return f"window {size} shifted {shift}"
        case Neighborhood(size):
            return f"neighbourhood {size}"
        case SpatialReduction(ratio):
            return f"spatial reduction {ratio}"
        case DeformableDetr(points):
            return f"Deformable-DETR, {points} keys"
        case Deformable():
            extra = "" if mixer.offsets else ", no offsets"
            bias = "" if mixer.bias == "relative" else f", {mixer.bias} bias"
            return f"deformable (G {mixer.groups}, k {mixer.kernel}, r {mixer.stride}{extra}{bias})"


def _architecture(spec: ModelSpec, rows: list[dict[str, str | int]], size: object) -> Table:
    from ..report.table import Column, Table

    config = spec.config
    title = f"{spec.name}: {spec.summary} ({spec.source}), input {size}"
    notes = [
        f"Stem {config.stem}, down-sampling {config.downsample}, feed-forward {config.ffn}, "
        f"{'local perception units, ' if config.lpu else ''}bias tables for "
        f"{config.image_size}x{config.image_size}."
    ]
    columns = (
        Column("stage", "stage"),
        Column("map", "map (W x H)"),
        Column("dim", "dim", str),
        Column("heads", "heads", str),
        Column("blocks", "blocks"),
    )
    return Table(columns, tuple(tuple(row.values()) for row in rows), title, tuple(notes))


def _checked(spec: ModelSpec, checkpoint: Path) -> CheckpointReport:
    """Match the file against the variant on meta: nothing is allocated or changed."""
    from ..measure.count import build_for_count
    from ..models.checkpoints import match_checkpoint
    from ..models.pyramid import PyramidBackbone
    from ..types import Setting

    module = build_for_count(spec, Setting(spec.resolution))
    assert isinstance(module, PyramidBackbone)
    return match_checkpoint(module, checkpoint)[1]


def _report(report: CheckpointReport) -> Table:
    from ..report.table import Column, Table

    resized = [f"{r.name} {r.was} -> {r.now}" for r in report.resized]
    rows = (
        ("matched", len(report.matched), ""),
        ("resized", len(report.resized), "; ".join(resized[:3])),
        ("ignored", len(report.ignored), ", ".join(report.ignored[:6])),
        ("left as initialised", len(report.initialised), ", ".join(report.initialised[:6])),
    )
    columns = (Column("what", "weights"), Column("tensors", "tensors", str), Column("names", ""))
    return Table(columns, rows, f"checkpoint {report.path}")
