"""`datbench models`."""

from __future__ import annotations

from typing import Annotated

import typer

from .options import Format, Out, OutputFormat, complete


def models(
    pattern: Annotated[
        str | None,
        typer.Argument(help="Only names that contain this text.", show_default=False),
    ] = None,
    family: Annotated[
        str | None,
        typer.Option(
            help="Only this family: dat, dat++, ablation or deformable-detr.",
            autocompletion=complete("dat", "dat++", "ablation", "deformable-detr"),
        ),
    ] = None,
    format: OutputFormat = None,
    out: Out = None,
) -> None:
    """List the models, with where each is published."""
    from ..errors import UnknownNameError, UsageError
    from ..models.dat import REGISTRY
    from ..report.table import Column, Table
    from ..results import document
    from .output import choose_format, emit

    wanted: Format = choose_format(format, out)
    families = list(dict.fromkeys(spec.family for spec in REGISTRY))
    if family is not None and family not in families:
        raise UnknownNameError.among("family", family, families)
    chosen = [
        spec
        for spec in REGISTRY
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

    emit(tables if grouped else [table()], document("models", rows, summary()), wanted, out)
