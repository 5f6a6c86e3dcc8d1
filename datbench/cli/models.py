"""`datbench models`, `params`, `show` and `env`: what there is, before anything is counted."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import UsageError
from .options import (
    Config,
    Configs,
    Format,
    Model,
    Models,
    OneResolution,
    Out,
    OutputFormat,
    With,
    one_of,
    one_spec,
    option,
    specs,
)

if TYPE_CHECKING:
    from ..counting.count import Place
    from ..models.resolve import Spec
    from ..models.spec import ModelSpec
    from ..render.table import Table
    from ..setting import Resolution


def models(
    pattern: Annotated[
        str | None, typer.Argument(help="Only names that contain this text.", show_default=False)
    ] = None,
    family: Annotated[
        str | None,
        option(
            "Only this family: dat, dat++, ablation, deformable-detr or comparison.",
            names=("dat", "dat++", "ablation", "deformable-detr", "comparison"),
        ),
    ] = None,
    format: OutputFormat = None,
    out: Out = None,
) -> None:
    """List the models and heads, with where each is published."""
    from ..machine import summary
    from ..models.comparison import COMPARISONS
    from ..models.dat import REGISTRY
    from ..models.detectors.heads import HEADS
    from ..records import ModelEntry, document
    from ..render.table import Column, Table
    from .output import choose_format, emit

    wanted = choose_format(format, out)
    known = [*REGISTRY, *COMPARISONS]
    if family is not None:
        one_of("family", family, list(dict.fromkeys(spec.family for spec in known)))
    rows = [
        ModelEntry(spec.name, spec.family, str(spec.resolution), spec.source, spec.summary)
        for spec in known
        if family in (None, spec.family) and (pattern or "").lower() in spec.name
    ]
    if not rows:
        where = f" in family {family}" if family else ""
        raise UsageError(
            f"no model's name contains {pattern!r}{where}; `datbench models` lists them all."
        )
    grouped = wanted in (Format.TABLE, Format.MD)  # for people: a table a family, under its name
    columns = (
        Column("model", "model"),
        Column("family", "family", hidden=grouped),
        Column("resolution", "input"),
        Column("source", "source"),
        Column("summary", "summary"),
    )
    tables = [Table.of(columns, rows)]
    if grouped:
        tables = [
            Table.of(columns, [row for row in rows if row.family == name], name)
            for name in dict.fromkeys(row.family for row in rows)
        ]
        heads = (
            Column("head", "head", value="name"),
            Column("input", "input", value=lambda head: str(head.resolution)),
            Column("summary", "summary"),
        )
        note = (
            "dat_t+semantic_fpn names one on a model, --with semantic_fpn puts it on every model."
        )
        tables.append(Table.of(heads, HEADS.values(), "heads", (note,)))
    emit(tables, document("models", rows, summary()), wanted, out)


def env(format: OutputFormat = None, out: Out = None) -> None:
    """Describe this machine: versions, processor, memory, GPUs."""
    from .output import choose_format, emit

    wanted = choose_format(format, out)
    from ..machine import environment
    from ..records import document
    from ..report.kinds import environment_table

    found = environment()
    emit([environment_table(found)], document("env", [found], found), wanted, out)


BY: tuple[Place, ...] = ("total", "part", "stage")


def params(
    model: Models = None,
    config: Configs = None,
    with_: With = None,
    by: Annotated[
        str, option("total, or of a single model part (backbone, neck, heads) or stage.", names=BY)
    ] = "total",
    features: Annotated[
        bool, option("With a norm for each feature map, and no head.", "--features")
    ] = False,
    format: OutputFormat = None,
    out: Out = None,
) -> None:
    """Count parameters (trainable, frozen) and buffers."""
    from .output import choose_format, emit

    wanted = choose_format(format, out)
    chosen = specs(model, config, with_)
    place = one_of("breakdown", by, BY)
    if place != "total" and len(chosen) > 1:
        raise UsageError(f"--by {by} breaks down one model; name only one.")
    from ..counting.count import build_for_count, parameters_by
    from ..counting.view import params_table
    from ..machine import summary
    from ..records import ParamsEntry, document
    from ..setting import Setting

    rows = []
    for spec in chosen:
        module = build_for_count(spec, Setting(spec.resolution, features=features))
        for name, row in (parameters_by(module, place) | parameters_by(module, "total")).items():
            rows.append(
                ParamsEntry(
                    spec.name,
                    row.params,
                    row.frozen,
                    row.buffers,
                    stage=name if place == "stage" else None,
                    part=name if place == "part" else None,
                    features=features,
                )
            )
    emit([params_table(rows, place)], document("params", rows, summary()), wanted, out)


def show(
    model: Model = None,
    config: Config = None,
    with_: With = None,
    res: OneResolution = None,
    checkpoint: Annotated[
        Path | None,
        option(
            "Check that this file's weights fit, and say what matched.",
            metavar="FILE",
            default=False,
        ),
    ] = None,
    format: OutputFormat = None,
    out: Out = None,
) -> None:
    """Show how a model is built, and whether a checkpoint fits."""
    from ..machine import summary
    from ..models.spec import ModelSpec
    from ..records import ShowEntry, document
    from ..setting import Resolution
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
    row = ShowEntry(spec.name, str(size), **content)
    emit(tables, document("show", [row], summary()), wanted, out)


def _ours(
    spec: ModelSpec, size: Resolution, checkpoint: Path | None
) -> tuple[list[Table], dict[str, Any]]:
    """The stages as the literal describes them; nothing is built unless a checkpoint is matched."""
    from ..models.view import architecture, checkpoint_table, stage_rows
    from ..paper.published import published

    report = None
    if checkpoint is not None:
        from ..counting.count import build_for_count
        from ..models.checkpoints import match_checkpoint
        from ..models.pyramid import PyramidBackbone
        from ..setting import Setting

        module = build_for_count(spec, Setting(spec.resolution))  # on meta: nothing is allocated
        assert isinstance(module, PyramidBackbone)
        report = match_checkpoint(module, checkpoint)[1]
    rows = stage_rows(spec.config, size)
    entry = published(spec.name)
    tables = [architecture(spec, rows, size, entry.sentences())]
    content: dict[str, Any] = {"stages": rows}
    if entry.cells:
        content["published"] = asdict(entry)
    if report is not None:
        tables.append(checkpoint_table(report))
        content["checkpoint"] = asdict(report)
    return tables, content


def _others(spec: Spec, size: Resolution) -> tuple[list[Table], dict[str, Any]]:
    """The parts of a model that has to be built to be seen."""
    from ..counting.count import build_for_count, parts
    from ..counting.view import parts_table
    from ..setting import Setting

    module = build_for_count(spec, Setting(size))
    rows = parts(module)
    table = parts_table(spec.name, str(size), type(module).__name__, rows)
    return [table], {"parts": [asdict(row) for row in rows]}
