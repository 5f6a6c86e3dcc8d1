"""`datbench models`, `params`, `show` and `env`: what there is, before anything is counted."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from ..errors import UsageError
from .command import argument
from .options import By, Checkpoint, FeaturesFlag, Inputs, Models, breakdowns, only
from .output import Format, Output

if TYPE_CHECKING:
    from ..counting.count import Place
    from ..models.resolve import Spec
    from ..models.spec import ModelSpec
    from ..render.table import Table
    from ..setting import Resolution


def models(
    output: Output,
    pattern: Annotated[
        str | None,
        argument(
            "Only models whose name or family contains this text; families are dat, dat++, "
            "ablation, deformable-detr and comparison.",
            "TEXT",
        ),
    ] = None,
) -> None:
    """List the models and heads, with where each is published.

    Examples:
    datbench models
    datbench models dat++
    """
    from ..models.comparison import COMPARISONS
    from ..models.dat import REGISTRY
    from ..models.view import models_tables
    from ..records import ModelEntry

    text = (pattern or "").lower()
    rows = [
        ModelEntry(spec.name, spec.family, str(spec.resolution), spec.source, spec.summary)
        for spec in (*REGISTRY, *COMPARISONS)
        if text in spec.name or text in spec.family
    ]
    if not rows:
        raise UsageError(
            f"no model's name or family contains {pattern!r}; `datbench models` lists them all."
        )
    people = output.wanted in (Format.TABLE, Format.MD)
    output.write(models_tables(rows, one=not people), "models", rows)


def env(output: Output) -> None:
    """Describe this machine: versions, processor, memory, GPUs.

    Examples:
    datbench env --format json
    """
    from ..machine import environment
    from ..report.kinds import environment_table

    found = environment()
    output.write([environment_table(found)], "env", [found], found)


BY: tuple[Place, ...] = ("part", "stage")


def params(models: Models, output: Output, by: By = None, features: FeaturesFlag = False) -> None:
    """Count parameters (trainable, frozen) and buffers.

    Examples:
    datbench params dat_t datpp_t
    datbench params dat_t+mask_rcnn --by part
    """
    chosen = models.specs()
    parts = breakdowns(by, BY, single=True)
    place: Place = parts[0] if parts else "total"
    if parts:
        only(chosen, "model", "--by breaks down one model")
    from ..counting.count import build_for_count, parameters_by
    from ..counting.view import params_table
    from ..records import ParamsEntry
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
    output.write([params_table(rows)], "params", rows)


def show(inputs: Inputs, output: Output, checkpoint: Checkpoint = None) -> None:
    """Show how a model is built, and whether a checkpoint fits.

    Examples:
    datbench show dat_t
    datbench show dat_t --checkpoint dat_tiny_in1k_224.pth
    """
    from ..models.spec import ModelSpec
    from ..records import ShowEntry

    spec, size = only(inputs.sized(), "model and size", "show takes one")
    if isinstance(spec, ModelSpec):
        tables, content = _ours(spec, size, checkpoint)
    elif checkpoint is not None:
        raise UsageError("--checkpoint is for datbench's models.")
    else:
        tables, content = _others(spec, size)
    row = ShowEntry(spec.name, str(size), **content)
    output.write(tables, "show", [row])


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
