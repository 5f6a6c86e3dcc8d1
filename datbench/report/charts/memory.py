"""The simulated ledger, and memory over a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ... import units
from ...ledger import CATEGORIES, MemoryRow
from .. import memory
from ..table import Column, Table
from ..vega import Chart, Datum, bottom, chosen, field, folded, names_of, spec, words

_MIB = 1 << 20

SIMULATED = "simulated on tensors without values, which is the same on every machine"


def ledgers(rows: Sequence[MemoryRow]) -> Chart | None:
    """What is alive at the peak, by category."""
    if not rows:
        return None
    names = memory.names(rows)
    values = [
        {
            "model": name,
            "category": "kept for backward" if line.category == "kept" else line.category,
            "order": CATEGORIES.index(line.category),
            "mib": line.at_peak / _MIB,
            "size": units.size(line.at_peak),
            "total": units.size(row.peak.amount),
            "setting": memory.setting_words(row),
        }
        for name, row in zip(names, rows, strict=True)
        for line in row.lines
        if line.at_peak
    ]
    categories = [
        "kept for backward" if category == "kept" else category
        for category in CATEGORIES
        if any(line.category == category and line.at_peak for row in rows for line in row.lines)
    ]
    body = spec(
        values,
        folded(names),
        mark="bar",
        encoding={
            "y": names_of("model", names),
            "x": field("mib", "alive at the peak (MiB)", stack="zero"),
            "color": words("category", scale={"domain": categories}, legend=bottom(4)),
            "order": field("order"),
            "tooltip": [
                words("model"),
                words("category"),
                words("size", "at the peak"),
                words("total", "peak"),
                words("setting"),
            ],
        },
    )
    columns = (
        Column("model", "model"),
        Column("category", "category"),
        Column("mib", "at the peak (MiB)", lambda value: f"{value:,.2f}"),
        Column("total", "peak"),
    )
    shown = tuple(tuple(d[column.name] for column in columns) for d in values)
    return Chart(
        "memory-ledger",
        "Memory at the peak",
        body,
        f"What is alive at the peak of {', '.join(names)}: "
        + "; ".join(f"{n} {units.size(r.peak.amount)}" for n, r in zip(names, rows, strict=True)),
        f"Simulated: {_settings(rows)}. Without what an allocator adds, and without the CUDA "
        "context.",
        SIMULATED,
        Table(columns, shown),
        by="simulated ledger",
    )


def _settings(rows: Sequence[MemoryRow]) -> str:
    """What all rows share; of the modes all."""
    said = memory.setting_words(rows[0], *memory.differing(rows))
    modes = list(dict.fromkeys(row.mode for row in rows))
    return said if len(modes) == 1 else f"modes {' and '.join(modes)}; all {said}"


def timelines(rows: Sequence[Mapping[str, Any]]) -> Chart | None:
    """Live bytes over a run, by category.

    Args:
        rows: each a model, its setting in words, and a `Figure` as plain values.
    """
    values: list[Datum] = []
    for row in rows:
        figure = row["figure"]
        unit = figure["y_label"].partition("(")[2].rstrip(")")
        scale = {"GiB": 1024.0, "MiB": 1.0, "KiB": 1 / 1024, "B": 1 / _MIB}.get(unit, 1.0)
        for series in figure["series"]:
            if series["name"] == "total":
                continue
            category = "kept for backward" if series["name"] == "kept" else series["name"]
            values += [
                {
                    "model": row["model"],
                    "category": category,
                    "order": CATEGORIES.index(series["name"]),
                    "x": x,
                    "mib": y * scale,
                }
                for x, y in zip(series["x"], series["y"], strict=True)
            ]
    if not values:
        return None
    models = list(dict.fromkeys(d["model"] for d in values))
    categories = list(
        dict.fromkeys(d["category"] for d in sorted(values, key=lambda d: d["order"]))
    )
    body = spec(
        values,
        320,
        mark={"type": "area", "interpolate": "step-after"},
        encoding={
            "x": field("x", "births and deaths of storages"),
            "y": field("mib", "alive (MiB)", stack="zero"),
            "color": words("category", scale={"domain": categories}, legend=bottom(4, 2)),
            "order": field("order"),
            "tooltip": [words("category"), field("mib", "MiB", format=",.1f")],
        },
        **chosen("model", models),
    )
    columns = (
        Column("model", "model"),
        Column("peak", "peak, and where"),
    )
    shown = tuple((row["model"], " ".join(row["figure"]["notes"])) for row in rows)
    return Chart(
        "memory-timeline",
        "Memory over the run",
        body,
        "Bytes alive over one run, by category. " + " ".join(f"{m}: {n}" for m, n in shown),
        f"Simulated: {rows[0]['setting']}. Across: each birth or death of a tensor's storage since "
        "the run began, in order; the forward fills what the backward then empties.",
        SIMULATED,
        Table(columns, shown),
        tuple(models),
        f"simulated ledger, {rows[0]['setting']}",
    )
