"""Top-1 on ImageNet-1K as the papers print it, against cost: for `datbench plot` and the report."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..errors import UsageError
from ..machine import place_of, same_place
from ..render.figure import MOST, Figure, Series
from ..render.table import Column, Table
from ..render.vega import SHAPES, Chart, Spec, bottom, field, layer, spec, words
from ..setting import Resolution
from ..timing.records import ThroughputRow
from .records import Comparison, Line
from .tables import paper_tables

USUAL = Resolution(224, 224)
"""The input of ImageNet-1K where a table prints no other."""

FAMILIES = ("DAT", "DAT++", "Swin", "DaViT", "others")
"""Families that the report's charts tell apart, each with a colour and a shape of its own."""

JOINED = ("DAT", "DAT++")
"""Families whose models at one input the report's charts join by a line."""


@dataclass(frozen=True)
class RatedModel:
    """A model whose top-1 a table prints."""

    name: str  # as printed, the training set in brackets
    top1: float  # in percent
    costs: Mapping[str, float]  # macs, params and throughput, as far as they are known
    model: str = ""  # that it is built from, where that is known
    resolution: Resolution | None = None  # that the table prints or its file says
    table: str = ""
    computed: bool = False  # its costs were; otherwise they are printed

    @property
    def family(self) -> str:
        """The name without the size: DAT-T* is of DAT*."""
        plain = self.name.partition(" (")[0]
        stem, _, size = plain.replace(" ", "-").rpartition("-")
        return stem + size[len(size.rstrip("*+")) :] if stem else plain

    @property
    def group(self) -> str:
        """One of `FAMILIES`."""
        if re.match(r"DAT-?\w*\+\+", self.name):
            return "DAT++"
        return next((f for f in FAMILIES if self.name.startswith(f"{f}-")), "others")

    @property
    def line(self) -> str:
        """The family, and in what the model is unlike most of it: a line joins models of one."""
        trained = self.name.partition(" (")[2].rstrip(")")
        other = self.resolution is not None and self.resolution != USUAL
        size = f"at {self.resolution}" if other else ""
        return " ".join(filter(None, (self.family, trained, size)))


def printed() -> list[RatedModel]:
    """Models of the tables that compare methods; what several tables print stands here once."""
    found: dict[tuple[str, float, float | None], RatedModel] = {}
    for table in paper_tables():
        names = [column.name for column in table.columns]
        if "method" not in names or "top1" not in names:
            continue
        for row in table.rows:
            costs = {
                column.quantity: float(row.printed[column.name].value)
                for column in table.columns
                if column.quantity in ("macs", "params") and column.name in row.printed
            }
            top1 = number(row.values.get("top1", ""))
            if top1 is not None and costs:
                model, res = (row.build.model, row.build.res) if row.build else ("", None)
                size = _input(row.values.get("resolution", "")) or res
                each = RatedModel(row.values["method"], top1, costs, model, size, table.table)
                found.setdefault((each.name, top1, costs.get("macs")), each)
    return list(found.values())


def _input(text: str) -> Resolution | None:
    """The size that a cell begins with, such as ``224²``."""
    sides = re.match(r"(\d+)(?:x(\d+))?", text)
    return Resolution(int(sides[1]), int(sides[2] or sides[1])) if sides else None


def number(text: str) -> float | None:
    """The figure that a cell begins with."""
    match = re.match(r"[0-9]+(\.[0-9]+)?", text)
    return float(match[0]) if match else None


def compared(comparisons: Sequence[Comparison]) -> list[RatedModel]:
    """Models whose cost, parameters and top-1 a compared table prints, each once.

    The costs are the computed ones where there are some.
    """
    found: dict[tuple[Any, ...], RatedModel] = {}
    for comparison in comparisons:
        names = {heading.name for heading in comparison.headings}
        for line in comparison.lines if {"method", "top1"} <= names else ():
            top1 = number(line.cells["top1"].printed) if "top1" in line.cells else None
            if top1 is None or not {"flops", "params"} <= set(line.cells):
                continue
            each = _compared(line, top1, comparison.table)
            found.setdefault((each.model or each.name, each.resolution, top1), each)
    return list(found.values())


def _compared(line: Line, top1: float, table: str) -> RatedModel:
    costs = {}
    for name, quantity in (("flops", "macs"), ("params", "params")):
        cell = line.cells[name]
        middle = None if cell.low is None or cell.high is None else (cell.low + cell.high) / 2
        if amount := cell.amount or middle:
            costs[quantity] = float(amount)
    built = next(
        (line.cells[n].evidence for n in ("flops", "params") if line.cells[n].evidence), ()
    )
    size = built[0].resolution if built else line.labels.get("resolution", "")
    name, model = line.labels.get("method", ""), built[0].model if built else ""
    return RatedModel(name, top1, costs, model, _input(size), table, bool(built))


# What was timed.


def _timed_setting(row: ThroughputRow) -> dict[str, str]:
    """In what measured rows of one plot must agree, in words."""
    s, how = row.setting, row.how
    options = {
        "compiled": how.compile,
        "channels last": how.channels_last,
        "cache evicted": how.flush,
    }
    return {
        "device": f"{s.device} x {row.gpus}" if row.gpus > 1 else s.device,
        "batch": str(s.batch),
        "dtype": s.dtype,
        "attention": s.attention,
        "threads": str(how.threads or "torch's") if s.device == "cpu" else "-",
        "options": ", ".join(name for name, on in options.items() if on) or "none",
    }


def check_alike(
    rows: Sequence[tuple[ThroughputRow, Mapping[str, Any]]], verb: str, *free: str
) -> None:
    """Refuse rows of several settings or machines, each with its environment.

    Args:
        verb: what is done with them.
        free: in what they may differ.

    Raises:
        UsageError: they differ in anything else.
    """
    settings = [_timed_setting(row) for row, _ in rows]
    for name in settings[0] if rows else ():
        values = list(dict.fromkeys(each[name] for each in settings))
        if len(values) > 1 and name not in free:
            raise UsageError(
                f"the rows differ in {name} ({', '.join(values)}); times of one setting stand "
                f"together: {verb} files that agree in it."
            )
    if not all(same_place(rows[0][1], other) for _, other in rows):
        raise UsageError(
            f"the rows were measured on several machines or versions; {verb} those of one."
        )


def _said(setting: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {value}" for name, value in setting.items())


def _with_rates(models: Iterable[RatedModel], rows: Sequence[ThroughputRow]) -> list[RatedModel]:
    """The models that were timed, each with its fastest row's images a second."""
    rates: dict[tuple[str, Resolution | None], float] = {}
    for row in rows:
        if row.images_per_second:
            key = (row.model, row.setting.resolution)
            rates[key] = max(row.images_per_second, rates.get(key, 0.0))
    keyed = [(each, (each.model, each.resolution)) for each in models if each.model]
    return [
        replace(each, costs={**each.costs, "throughput": rates[key]})
        for each, key in keyed
        if key in rates
    ]


def infers(row: ThroughputRow) -> bool:
    """Whether its speed may stand beside an accuracy: inference of the model with its head."""
    return row.how.mode == "inference" and not row.setting.features


def measured(
    rows: Sequence[tuple[ThroughputRow, Mapping[str, Any]]],
    own_input: Callable[[str], Resolution | None],
) -> tuple[list[RatedModel], list[str]]:
    """Models with the images a second of rows, each with its environment; and what to say of them.

    Args:
        own_input: a model's own input, which its accuracy belongs to where none is printed.

    Raises:
        UsageError: no row is of a printed model and input, or they are of several settings or
            machines.
    """
    timed = {row.model for row, _ in rows}
    models = [
        replace(each, resolution=each.resolution or own_input(each.model))
        for each in printed()
        if each.model in timed
    ]
    inputs = {(model.model, model.resolution) for model in models}
    drawn = [
        (row, where)
        for row, where in rows
        if infers(row) and (row.model, row.setting.resolution) in inputs and row.images_per_second
    ]
    if not drawn:
        raise UsageError(
            "no row of these files has a published accuracy: that takes inference of a model of "
            "the tables, with its head, at the input that they print."
        )
    check_alike(drawn, "draw")
    first, where = drawn[0]
    notes = [
        "Measured images a second of inference: a model's fastest row, at the input that the "
        "table prints. Accuracy as printed.",
        f"{_said(_timed_setting(first))}; measured on {place_of(where)}.",
    ]
    if len(drawn) < len(rows):
        notes.append(
            f"Not drawn: {len(rows) - len(drawn)} of {len(rows)} rows (training, another input "
            "than the printed one, no head, no printed value, or nothing measured)."
        )
    return _with_rates(models, [row for row, _ in drawn]), notes


# The plot of `datbench plot`.


def drawn(
    cost: str,
    rows: Sequence[tuple[ThroughputRow, Mapping[str, Any]]],
    own_input: Callable[[str], Resolution | None],
) -> Figure:
    """Published accuracy against a printed cost, or against the images a second of rows."""
    if cost != "throughput":
        return accuracy(printed(), cost, "Both as the papers' tables print them.")
    models, notes = measured(rows, own_input)
    return accuracy(models, cost, *notes)


def accuracy(models: Sequence[RatedModel], cost: str, *notes: str) -> Figure:
    """Published accuracy against a cost, a line for each family's models that are alike.

    Args:
        cost: macs, params or throughput.

    Raises:
        UsageError: no model has it.
    """
    label, scale = _COSTS[cost]
    models = [model for model in models if cost in model.costs]
    if not models:
        raise UsageError("no model here has both a published accuracy and this cost.")
    lines: dict[str, list[RatedModel]] = {}
    for model in models:
        lines.setdefault(model.line, []).append(model)
    # The families with the most models are told apart; a legend of dozens tells nothing.
    members = Counter(model.family.rstrip("*+") for model in models)
    first = sorted(
        lines, key=lambda name: (-len(lines[name]), -members[lines[name][0].family.rstrip("*+")])
    )[:MOST]
    series = []
    for name in lines:
        if name in first:
            along = sorted((model.costs[cost] / scale, model.top1) for model in lines[name])
            series.append(Series(name, tuple(x for x, _ in along), tuple(y for _, y in along)))
    said = [
        *notes,
        "A line joins rows of one family, input size and training set, as far as the tables print "
        "these; other rows are points of their own.",
    ]
    left = {model.name for name in lines if name not in first for model in lines[name]}
    if left:
        said.append(f"Not drawn, for there are too many lines: {', '.join(sorted(left))}.")
    return Figure(
        "Top-1 on ImageNet-1K as published",
        label,
        "top-1 (%)",
        tuple(series),
        log_x=True,
        notes=tuple(said),
    )


_COSTS = {
    "macs": ("GMACs", 1e9),
    "params": ("parameters (M)", 1e6),
    "throughput": ("images/s", 1.0),
}


# The report's charts.


def charts(
    comparisons: Sequence[Comparison], timed: Sequence[tuple[str, Sequence[ThroughputRow]]] = ()
) -> Iterator[Chart]:
    """Top-1 against MACs, parameters, and images a second.

    Args:
        timed: measured rows, by where they were measured: each place and each setting has its own
            chart; of several batches the fastest stands there.
    """
    models = compared(comparisons)
    lines = [line for comparison in comparisons for line in comparison.lines]
    names = dict.fromkeys(
        line.labels.get("method", "") for line in lines if "top1" not in line.cells
    )
    without = [name for name in names if name.endswith("++")]
    where = "cost computed where the model could be built, otherwise printed; accuracy printed"
    for cost, title in (("macs", "multiply-adds"), ("params", "parameters")):
        found = [model for model in models if cost in model.costs]
        if found:
            yield _scatter(
                f"accuracy-{cost}", f"Accuracy against {title}", cost, found, where, without
            )
    number = 0
    for place, rows in timed:
        for setting, alike in _by_setting(rows).items():
            found = _with_rates(models, alike)
            if found:
                number += 1
                key = f"accuracy-throughput{f'-{number}' if number > 1 else ''}"
                said = f"measured on {place}; {setting}"
                yield _scatter(
                    key, "Accuracy against throughput", "throughput", found, said, without
                )


def _by_setting(rows: Sequence[ThroughputRow]) -> dict[str, list[ThroughputRow]]:
    """Inference with the head, by all of the setting but the batch."""
    found: dict[str, list[ThroughputRow]] = {}
    for row in filter(infers, rows):
        said = _timed_setting(row)
        del said["batch"]
        found.setdefault(_said(said), []).append(row)
    return found


def _scatter(
    key: str, title: str, cost: str, models: Sequence[RatedModel], where: str, without: list[str]
) -> Chart:
    label, scale = _COSTS[cost]
    label = "GMACs (fvcore)" if cost == "macs" else label
    timed = cost == "throughput"
    values = [
        {
            "method": model.name,
            "family": model.group,
            "model": model.model or model.name,
            "input": str(model.resolution or ""),
            "x": model.costs[cost] / scale,
            "top1": model.top1,
            "table": model.table,
            "joined": model.group in JOINED and "*" not in model.name,
            "label": _label(model),
            "known": "measured" if timed else "computed" if model.computed else "as printed",
            "where": where
            if timed
            else f"cost {'computed' if model.computed else 'printed'}, accuracy printed",
        }
        for model in models
    ]
    axes = _axes(values, label, ".3~s" if timed else ".3~g")
    body = spec(values, 360, encoding=axes, layer=_layers(values, label))
    columns = (
        Column("method", "method"),
        Column("input", "input"),
        Column("x", label, lambda value: f"{value:,.4f}" if value < 1e4 else f"{value:,.0f}"),
        Column("top1", "top-1 (%)", str),
        Column("table", "table"),
        Column("known", "cost"),
    )
    known = "computed where the model could be built, otherwise as printed"
    if timed:
        known = "measured in one setting, of several batches the fastest"
    left = (
        f" Not drawn, for no top-1 of theirs is printed: {', '.join(without)}." if without else ""
    )
    best = max(models, key=lambda model: model.top1)
    return Chart(
        key,
        title,
        body,
        f"{len(models)} models by {label} and published ImageNet top-1 accuracy; the highest is "
        f"{best.name} with {best.top1} %.",
        f"Across: {label}, {known}. Up: accuracy as the papers print it; none was trained here. "
        "A line joins DAT at one input. Drawn: rows that print multiply-adds, parameters and top-1."
        f"{left}",
        where,
        Table.of(columns, values),
        by=f"{label}; accuracy as published",
    )


def _layers(values: Sequence[Mapping[str, Any]], label: str) -> list[Spec]:
    """Lines, points that each say what they are, and names to the left or right of them."""
    families = [family for family in FAMILIES if any(d["family"] == family for d in values)]
    domain = {"domain": list(FAMILIES)}
    legend = {**bottom(5, 3), "values": families}
    color = words("family", scale=domain, legend=legend)
    shape = words("family", scale={**domain, "range": list(SHAPES)}, legend=legend)
    tooltip = [
        *(words("method"), words("model", "built as"), words("input")),
        field("x", label, format=",.4~g"),
        *(field("top1", "top-1 (%)"), words("table"), words("known", "cost")),
    ]
    line = {"type": "line", "opacity": 0.35, "strokeWidth": 2}
    joined = {"filter": "datum.joined"}
    point = {"type": "point", "filled": True, "opacity": 0.9}
    layers = [
        layer(line, joined, color=color, detail=words("input"), order=field("x")),
        layer(point, color=color, shape=shape, tooltip=tooltip),
    ]
    for side, align, dx in (("!datum.joined", "left", 9), ("datum.joined", "right", -9)):
        text = {"type": "text", "align": align, "dx": dx, "dy": -9, "fontSize": 11}
        layers.append(layer(text, {"filter": f"datum.label && {side}"}, text=words("label")))
    return layers


def _axes(values: Sequence[Mapping[str, Any]], label: str, form: str) -> Spec:
    across, tops = ([d[name] for d in values] for name in ("x", "top1"))
    # A single point would have an axis of no length.
    scale = {"type": "log", "nice": False, "domain": [min(across) / 1.25, max(across) * 1.25]}
    ticks = {"tickCount": {"expr": "width < 440 ? 4 : 10"}, "labelOverlap": "greedy"}
    up = {"zero": False, "domain": [min(tops) - 0.5, max(tops) + 0.5]}
    return {
        "x": field("x", label, scale=scale, axis={"format": form, "labelSeparation": 6, **ticks}),
        "y": field("top1", "ImageNet top-1 (%), as published", scale=up),
    }


def _label(model: RatedModel) -> str:
    """A deformable model's name, and the input where it is not the usual one."""
    if model.group not in JOINED:
        return ""
    side = (model.resolution or USUAL).width
    return model.name if side == USUAL.width else f"{model.name}, {side}"
