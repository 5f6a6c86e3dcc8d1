"""`datbench models`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .. import units
from .options import Config, Configs, Format, Model, Models, Out, OutputFormat, With, complete

if TYPE_CHECKING:
    from ..models.checkpoints import CheckpointReport
    from ..models.resolve import Spec
    from ..models.spec import ModelSpec
    from ..render.table import Table
    from ..setting import Resolution


def models(
    pattern: Annotated[
        str | None,
        typer.Argument(help="Only names that contain this text.", show_default=False),
    ] = None,
    family: Annotated[
        str | None,
        typer.Option(
            help="Only this family: dat, dat++, ablation, deformable-detr or comparison.",
            autocompletion=complete("dat", "dat++", "ablation", "deformable-detr", "comparison"),
        ),
    ] = None,
    format: OutputFormat = None,
    out: Out = None,
) -> None:
    """List the models and heads, with where each is published."""
    from ..errors import UnknownNameError, UsageError
    from ..models.comparison import COMPARISONS
    from ..models.dat import REGISTRY
    from ..records import ModelEntry, document
    from ..render.table import Column, Table
    from .output import choose_format, emit

    wanted: Format = choose_format(format, out)
    specs = [*REGISTRY, *COMPARISONS]
    families = list(dict.fromkeys(spec.family for spec in specs))
    if family is not None and family not in families:
        raise UnknownNameError.among("family", family, families)
    chosen = [
        spec
        for spec in specs
        if family in (None, spec.family) and (pattern or "").lower() in spec.name
    ]
    if not chosen:
        where = f" in family {family}" if family else ""
        raise UsageError(
            f"no model's name contains {pattern!r}{where}; `datbench models` lists them all."
        )
    rows = [
        {
            "model": spec.name,
            "family": spec.family,
            "resolution": str(spec.resolution),
            "source": spec.source,
            "summary": spec.summary,
        }
        for spec in chosen
    ]
    grouped = wanted in (Format.TABLE, Format.MD)  # for people: a table a family, under its name
    titles = {"resolution": "input"}
    columns = tuple(
        Column(name, titles.get(name, name), hidden=grouped and name == "family")
        for name in rows[0]
    )

    def table(title: str = "") -> Table:
        kept = (tuple(row.values()) for row in rows if title in ("", row["family"]))
        return Table(columns, tuple(kept), title)

    tables = [table(family) for family in dict.fromkeys(row["family"] for row in rows)]
    from ..machine import summary

    if grouped:
        tables.append(_heads())
    content = document("models", [ModelEntry(**row) for row in rows], summary())
    emit(tables if grouped else [table()], content, wanted, out)


def _heads() -> Table:
    """What can stand on a model with four feature maps."""
    from ..models.detectors.heads import HEADS
    from ..render.table import Column, Table

    names = ("head", "input", "summary")
    rows = tuple((h.name, str(h.resolution), h.summary) for h in HEADS.values())
    note = "dat_t+semantic_fpn names one on a model, --with semantic_fpn puts it on every model."
    return Table(tuple(Column(name, name) for name in names), rows, "heads", (note,))


# `datbench env`.


def env(format: OutputFormat = None, out: Out = None) -> None:
    """Describe this machine: versions, processor, memory, GPUs."""
    from .output import choose_format

    wanted = choose_format(format, out)
    from ..machine import environment
    from ..records import document
    from ..render.table import Column, Table
    from .output import emit

    found = environment()
    flat: list[tuple[str, str | None]] = []
    for key, value in found.items():
        if isinstance(value, dict):
            flat += [(f"{key}.{name}", _text(name, inner)) for name, inner in value.items()]
        elif isinstance(value, list):  # of GPUs
            described = ["; ".join(f"{k} {_text(k, v)}" for k, v in gpu.items()) for gpu in value]
            flat += [(f"{key}.{i}", text) for i, text in enumerate(described)] or [(key, "none")]
        else:
            flat.append((key, _text(key, value)))
    table = Table((Column("what", "what"), Column("value", "value")), tuple(flat))
    emit([table], document("env", [found], found), wanted, out)


def _text(name: str, value: object) -> str | None:
    """A value for people; bytes as mebibytes and such."""
    if name.endswith("_bytes") and isinstance(value, int):
        return units.size(value)
    return None if value is None else str(value)


# `datbench params`.


BY = ("total", "part", "stage")


def params(
    model: Models = None,
    config: Configs = None,
    with_: With = None,
    by: Annotated[
        str,
        typer.Option(
            help="total, or of a single model part (backbone, neck, heads) or stage.",
            autocompletion=complete(*BY),
        ),
    ] = "total",
    features: Annotated[
        bool, typer.Option("--features", help="With a norm for each feature map, and no head.")
    ] = False,
    format: OutputFormat = None,
    out: Out = None,
) -> None:
    """Count parameters (trainable, frozen) and buffers."""
    from .. import units
    from ..errors import UnknownNameError, UsageError
    from ..records import ParamsEntry, document
    from ..render.table import Column, Table
    from .options import specs
    from .output import choose_format, emit

    wanted = choose_format(format, out)
    chosen = specs(model, config, with_)
    if by not in BY:
        raise UnknownNameError.among("breakdown", by, BY)
    if by != "total" and len(chosen) > 1:
        raise UsageError(f"--by {by} breaks down one model; name only one.")
    from ..counting.count import (
        build_for_count,
        parameters,
        parameters_by_part,
        parameters_by_stage,
    )
    from ..machine import summary
    from ..setting import Setting

    rows: list[dict[str, Any]] = []
    for spec in chosen:
        module = build_for_count(spec, Setting(spec.resolution, features=features))
        views = {"part": parameters_by_part, "stage": parameters_by_stage}
        parts = views[by](module) if by in views else {}
        for place, row in {**parts, "total": parameters(module)}.items():
            rows.append(
                {
                    "model": spec.name,
                    **({by: place} if by in views else {}),
                    "params": row.params,
                    "frozen": row.frozen,
                    "buffers": row.buffers,
                }
            )
    titles = {"params": "trainable", "frozen": "frozen", "buffers": "buffers"}
    columns = tuple(
        Column(name, titles.get(name, name), units.integer if name in titles else None)
        for name in rows[0]
    )
    title = "four feature maps, no head" if features else ""
    note = "Numbers of elements. Papers print trainable parameters; buffers hold masks and indices."
    table = Table(columns, tuple(tuple(row.values()) for row in rows), title, (note,))
    content = [ParamsEntry(**row, features=features) for row in rows]
    emit([table], document("params", content, summary()), wanted, out)


# `datbench show`.


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
    from ..machine import summary
    from ..models.spec import ModelSpec
    from ..records import ShowEntry, document
    from ..setting import Resolution
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
    emit(tables, document("show", [ShowEntry(**content)], summary()), wanted, out)


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

    from ..counting.count import build_for_count, parts
    from ..counting.view import parts_table
    from ..setting import Setting

    module = build_for_count(spec, Setting(size))
    rows = parts(module)
    table = parts_table(spec.name, str(size), type(module).__name__, rows)
    content = {"model": spec.name, "resolution": str(size), "parts": [asdict(row) for row in rows]}
    return [table], content


def _checked(spec: ModelSpec, checkpoint: Path) -> CheckpointReport:
    """Match the file against the variant on meta: nothing is allocated or changed."""
    from ..counting.count import build_for_count
    from ..models.checkpoints import match_checkpoint
    from ..models.pyramid import PyramidBackbone
    from ..setting import Setting

    module = build_for_count(spec, Setting(spec.resolution))
    assert isinstance(module, PyramidBackbone)
    return match_checkpoint(module, checkpoint)[1]
