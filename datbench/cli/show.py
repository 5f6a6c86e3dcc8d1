"""`datbench show`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .options import Out, OutputFormat, complete_models

if TYPE_CHECKING:
    from ..models.spec import ModelSpec
    from ..results import CheckpointReport


def show(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="A model, such as dat_t.",
            autocompletion=complete_models,
            show_default=False,
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
    """Show how a model is built, and whether a checkpoint fits."""
    from dataclasses import asdict

    from ..measure.environment import summary
    from ..models.dat import REGISTRY
    from ..paper.published import published
    from ..report.architecture import architecture, checkpoint_table, stage_rows
    from ..results import document
    from ..types import Resolution
    from .output import choose_format, emit

    wanted = choose_format(format, out)
    spec = REGISTRY.get(model)
    size = spec.resolution if res is None else Resolution.parse(res)
    report = None if checkpoint is None else _checked(spec, checkpoint)
    rows = stage_rows(spec.config, size)
    entry = published().get(spec.name)
    tables = [architecture(spec, rows, size, entry.sentences() if entry else ())]
    content: dict[str, object] = {"model": spec.name, "resolution": str(size), "stages": rows}
    if entry is not None:
        content["published"] = asdict(entry)
    if report is not None:
        tables.append(checkpoint_table(report))
        content["checkpoint"] = asdict(report)
    emit(tables, document("show", [content], summary()), wanted, out)


def _checked(spec: ModelSpec, checkpoint: Path) -> CheckpointReport:
    """Match the file against the variant on meta: nothing is allocated or changed."""
    from ..measure.count import build_for_count
    from ..models.checkpoints import match_checkpoint
    from ..models.pyramid import PyramidBackbone
    from ..types import Setting

    module = build_for_count(spec, Setting(spec.resolution))
    assert isinstance(module, PyramidBackbone)
    return match_checkpoint(module, checkpoint)[1]
