"""`datbench show`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .options import Config, Model, Out, OutputFormat, With

if TYPE_CHECKING:
    from ..models.resolve import Spec
    from ..models.spec import ModelSpec
    from ..report.table import Table
    from ..results import CheckpointReport
    from ..types import Resolution


def show(
    model: Model = None,
    config: Config = None,
    with_: With = None,
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
    from ..errors import UsageError
    from ..measure.environment import summary
    from ..models.spec import ModelSpec
    from ..results import document
    from ..types import Resolution
    from .options import one_spec
    from .output import choose_format, emit

    wanted = choose_format(format, out)
    spec = one_spec(model, config, with_)
    size = spec.resolution if res is None else Resolution.parse(res)
    if isinstance(spec, ModelSpec):
        tables, content = _ours(spec, size, checkpoint)
    elif checkpoint is not None:
        raise UsageError("--checkpoint is for datbench's models.")
    else:
        tables, content = _others(spec, size)
    emit(tables, document("show", [content], summary()), wanted, out)


def _ours(
    spec: ModelSpec, size: Resolution, checkpoint: Path | None
) -> tuple[list[Table], dict[str, Any]]:
    """The stages as the literal describes them; nothing is built."""
    from dataclasses import asdict

    from ..paper.published import published
    from ..report.architecture import architecture, checkpoint_table, stage_rows

    report = None if checkpoint is None else _checked(spec, checkpoint)
    rows = stage_rows(spec.config, size)
    entry = published(spec.name)
    tables = [architecture(spec, rows, size, entry.sentences())]
    content: dict[str, Any] = {"model": spec.name, "resolution": str(size), "stages": rows}
    if entry.cells:
        content["published"] = asdict(entry)
    if report is not None:
        tables.append(checkpoint_table(report))
        content["checkpoint"] = asdict(report)
    return tables, content


def _others(spec: Spec, size: Resolution) -> tuple[list[Table], dict[str, Any]]:
    """The parts of a model that has to be built to be seen."""
    from dataclasses import asdict

    from ..measure.count import build_for_count
    from ..measure.parameters import parts
    from ..report.parts import parts_table
    from ..types import Setting

    module = build_for_count(spec, Setting(size))
    rows = parts(module)
    table = parts_table(spec.name, str(size), type(module).__name__, rows)
    content = {"model": spec.name, "resolution": str(size), "parts": [asdict(row) for row in rows]}
    return [table], content


def _checked(spec: ModelSpec, checkpoint: Path) -> CheckpointReport:
    """Match the file against the variant on meta: nothing is allocated or changed."""
    from ..measure.count import build_for_count
    from ..models.checkpoints import match_checkpoint
    from ..models.pyramid import PyramidBackbone
    from ..types import Setting

    module = build_for_count(spec, Setting(spec.resolution))
    assert isinstance(module, PyramidBackbone)
    return match_checkpoint(module, checkpoint)[1]
