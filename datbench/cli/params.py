"""`datbench params`."""

from __future__ import annotations

from typing import Annotated

import typer

from .options import Configs, Models, Out, OutputFormat, With, complete

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
    from ..report.table import Column, Table
    from ..results import document
    from .options import specs
    from .output import choose_format, emit

    wanted = choose_format(format, out)
    chosen = specs(model, config, with_)
    if by not in BY:
        raise UnknownNameError.among("breakdown", by, BY)
    if by != "total" and len(chosen) > 1:
        raise UsageError(f"--by {by} breaks down one model; name only one.")
    from ..measure.count import build_for_count
    from ..measure.environment import summary
    from ..measure.parameters import parameters, parameters_by_part, parameters_by_stage
    from ..types import Setting

    rows: list[dict[str, str | int]] = []
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
    content = [{**row, "features": features} for row in rows]
    emit([table], document("params", content, summary()), wanted, out)
