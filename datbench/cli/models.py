"""`datbench models`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from .options import Format, Out, OutputFormat, complete

if TYPE_CHECKING:
    from ..report.table import Table


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
    from ..report.table import Column, Table
    from ..results import document
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
    from ..measure.environment import summary

    if grouped:
        tables.append(_heads())
    emit(tables if grouped else [table()], document("models", rows, summary()), wanted, out)


def _heads() -> Table:
    """What can stand on a model with four feature maps."""
    from ..models.detectors.heads import HEADS
    from ..report.table import Column, Table

    names = ("head", "input", "summary")
    rows = tuple((h.name, str(h.resolution), h.summary) for h in HEADS.values())
    note = "dat_t+semantic_fpn names one on a model, --with semantic_fpn puts it on every model."
    return Table(tuple(Column(name, name) for name in names), rows, "heads", (note,))
