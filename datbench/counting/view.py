"""Counts, parameters, and where counters disagree, as tables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from .. import units
from ..errors import UsageError
from ..render.table import Column, Table, fact_columns, fixed
from ..setting import MULTIPLY_ADDS, describe, varying
from .records import Chain, CountRow, ExplainRow, GroupRow, PartRow, PeerRow, PeerTerm

if TYPE_CHECKING:  # tables are shown without what draws
    from ..records import ParamsEntry
    from ..render.figure import Figure, Icicle
    from ..render.vega import Chart

By = Literal["part", "stage", "operator", "module"]

_PARAMS = Column("params", "params (M)", units.mega)

_MOVED = (
    Column("bytes_read", "read", units.size, when="wide"),
    Column("bytes_written", "written", units.size, when="wide"),
)


def tables(
    rows: Sequence[CountRow], by: Sequence[By] = (), depth: int | None = None, one: bool = False
) -> list[Table]:
    """One model's total with its breakdowns; several models in a table for each convention.

    Args:
        by: breakdowns of one model. Default: by stage and by operator.
        depth: paths of modules are cut to this many names.
        one: no breakdown that was not asked for, as a CSV file holds one table.
    """
    if by or (len(rows) == 1 and not one):
        return _one_model(rows[0], by or ("stage", "operator"), depth)
    return [many_models(group) for group in by_convention(rows)]


def by_convention(rows: Iterable[CountRow]) -> list[list[CountRow]]:
    """Rows in groups of one convention: one heading cannot stand over MACs and FLOPs."""
    groups: dict[tuple[str, str], list[CountRow]] = {}
    for row in rows:
        groups.setdefault((row.convention, row.unit), []).append(row)
    return list(groups.values())


def _setting_columns(rows: Sequence[CountRow]) -> list[Column]:
    """What people read in the title, unless rows differ in it, and machines in every row."""
    names = "model resolution batch dtype device attention backward features".split()
    shown = {"model", "resolution", *varying(rows)}
    convention = Column("convention", "convention", hidden=True)
    return [*fact_columns(rows, names, shown), convention]


def _amount(row: CountRow) -> Column:
    """The column of amounts; its heading never leaves the unit open."""
    return Column("macs" if row.unit == "MAC" else "flops", f"G{row.unit}s", units.giga, "amount")


def _sizes(row: CountRow) -> str:
    """Trainable parameters; of a model without any, the frozen ones, packed weights among them."""
    if row.frozen and not row.params:
        return f"{units.amount(row.frozen)} frozen parameters"
    return f"{units.amount(row.params)} parameters"


def _one_model(row: CountRow, by: Sequence[By], depth: int | None) -> list[Table]:
    """A model's total in the title, then its breakdowns."""
    total = f"{units.amount(row.amount, row.unit)}s"
    if row.backward is not None:
        forward, backward = (units.amount(x, row.unit) for x in (row.forward, row.backward))
        total += f" ({forward}s forward, {backward}s backward)"
    title = f"{row.model}: {total}, {_sizes(row)} ({row.convention} convention; {describe(row)})"
    found = [_breakdown(row, part, depth) for part in by]
    found[0] = replace(found[0], title=title)
    found[-1] = replace(found[-1], notes=notes([row]))
    return found


def _breakdown(row: CountRow, by: By, depth: int | None) -> Table:
    part_params: Counter[str] = Counter()
    for stage, elements in row.stage_params.items():
        part_params[stage.partition(".")[0]] += elements
    params = {**row.stage_params, **part_params, "total": row.params}
    groups: Sequence[GroupRow]
    if by == "part":  # also those that only have parameters, such as UperNet's auxiliary head
        groups = _summed(row.stages, lambda stage: stage.partition(".")[0], part_params)
        groups = [g for g in groups if _costs(g) or part_params.get(g.name)]
    elif by == "stage":  # also those that did not run, so that the parameters add up
        idle = [name for name in row.stage_params if name not in {g.name for g in row.stages}]
        groups = [*row.stages, *(GroupRow(name, 0, 0, 0.0, 0, 0, None) for name in idle)]
        groups = [g for g in groups if _costs(g) or row.stage_params.get(g.name)]
    elif by == "operator":
        groups = [g for g in row.operators if g.amount]
    else:
        cut = _summed(row.modules, lambda path: ".".join(path.split(".")[:depth]))
        groups = [g for g in cut if _costs(g)]
    staged = by in ("part", "stage")
    columns = [
        *fixed(_setting_columns([row]), row),
        Column(by, by, value=lambda group: short(group.name)),
        Column("calls", "calls", units.integer, when="widest"),
        _amount(row),
        Column("share", "share", units.percent),
        *([replace(_PARAMS, value=lambda group: params.get(group.name))] if staged else []),
        *_MOVED,
        Column("intensity", f"{row.unit}/byte", units.ratio, when="wide"),
    ]
    return Table.of(
        columns, [*groups, *(_summed(groups, lambda _: "total", ["total"]) if staged else [])]
    )


def _costs(group: GroupRow) -> bool:
    return bool(group.amount or group.bytes_read or group.bytes_written)


def _summed(
    groups: Sequence[GroupRow], name_of: Callable[[str], str], names: Iterable[str] = ()
) -> list[GroupRow]:
    """Groups summed under another name, in the order of `names`, then in which they ran."""
    parts: dict[str, list[GroupRow]] = {name: [] for name in names}
    for group in groups:
        parts.setdefault(name_of(group.name), []).append(group)
    found = []
    for name, part in parts.items():
        amount, read, written = (
            sum(getattr(group, field) for group in part)
            for field in ("amount", "bytes_read", "bytes_written")
        )
        calls, share = sum(group.calls for group in part), sum(group.share for group in part)
        intensity = amount / (read + written) if read + written else None
        found.append(GroupRow(name, calls, amount, share, read, written, intensity))
    return found


def many_models(rows: Sequence[CountRow]) -> Table:
    """One row a model and resolution, all under one convention."""
    first = rows[0]
    columns = [
        *_setting_columns(rows),
        _amount(first),
        replace(_PARAMS, when="wide"),
        *_MOVED,
        Column(
            "unknown",
            "unknown calls",
            units.integer,
            lambda row: sum(row.unknown.values()),
            hidden=not any(row.unknown for row in rows),
        ),
    ]
    setting = describe(first, "resolution", *varying(rows))
    title = f"{first.unit}s under the {first.convention} convention; {setting}"
    return Table.of(columns, rows, title, notes(rows))


def notes(rows: Sequence[CountRow]) -> tuple[str, ...]:
    """What the total leaves out, and what a reader must know to quote it."""
    first = rows[0]
    found = ["One multiply-add is two FLOPs."]
    if first.unit == "MAC":
        found = ["One multiply-add is one MAC. Papers of this field print MACs as FLOPs."]
    ignored = sorted({short(name) for row in rows for name in row.ignored})
    if ignored:
        found.append(f"No weight under {first.convention}: {', '.join(ignored)}.")
    unknown: Counter[str] = Counter()
    for row in rows:
        unknown.update(row.unknown)
    return (*_unknown_note(unknown, "the total"), *found)


def _unknown_note(calls: Mapping[str, int], figure: str) -> tuple[str, ...]:
    named = ", ".join(f"{name} ({n} calls)" for name, n in calls.items())
    return (f"UNKNOWN, cost missing from {figure}: {named}.",) if named else ()


def short(operator: str) -> str:
    """An operator's name without the library's."""
    return operator.removeprefix("aten::").removeprefix("datbench::")


# How conventions and counters differ on a model, as tables of terms.

_SHOWN = 5e-5
"""The part of one giga that four decimals show."""

_PRODUCTS = frozenset(map(str, MULTIPLY_ADDS))

_WORDS = (
    "One multiply-add is one MAC and two FLOPs: a figure in FLOPs is halved before it is "
    "compared with one in MACs.",
    "fvcore's rules in GMACs are what papers of this field print as FLOPs: quote that figure "
    "beside theirs, and call it MACs.",
    "torch/2 is the multiply-adds of products alone, and what differences are taken from.",
    "mmdet leaves attention products out; strict counts all arithmetic that ran, in FLOPs.",
)
"""What the figures mean, for a reader who has to quote one."""


def explain_tables(row: ExplainRow, one: bool = False) -> list[Table]:
    """The sums, then the other counters where they were run; plain words last.

    Args:
        one: everything in one table, for CSV.
    """
    if one:
        return [_every_line(row)]
    setting = describe(row, "dtype", "device")
    title = f"{row.model}: {units.amount(row.macs, 'MAC')}s of multiply-adds ({setting})"
    found = [_figures(row.chains, title), *map(_sum_table, row.chains)]
    if row.peers is not None:
        found += _peer_tables(row, row.peers)
    words = (*_unknown_note(row.unknown, "every figure"), *found[-1].notes, *_WORDS)
    found[-1] = replace(found[-1], notes=words)
    return found


def _figures(chains: Sequence[Chain], title: str) -> Table:
    """One figure for each convention, with what it is for."""
    fvcore, mmdet, strict = chains
    uses = {
        "fvcore": (fvcore.end_amount, "MAC", "beside a paper's FLOPs"),
        "mmdet": (mmdet.end_amount, "MAC", "beside a figure of mmdetection's get_flops"),
        "torch/2": (fvcore.start_amount, "MAC", "for the products alone"),
        "torch": (strict.start_amount, "FLOP", "2 x torch/2, as torch's own counter prints it"),
        "strict": (strict.end_amount, "FLOP", "beside a device's FLOP/s"),
    }
    rows = tuple((name, figure(amount, unit), use) for name, (amount, unit, use) in uses.items())
    headings = {"convention": "convention", "figure": "figure", "use": "quote it"}
    return Table(tuple(Column(*names) for names in headings.items()), rows, title)


def figure(amount: float, unit: str) -> str:
    """``4.5889 GMAC``: a figure that carries its unit."""
    return f"{units.giga(amount)} G{unit}"


def sentence(chain: Chain) -> str:
    """``4.5635 torch/2 + 0.0186 layer_norm = 4.5821 fvcore``, what four decimals hide left out."""
    shown = [term for term in chain.terms if abs(term.difference) / 1e9 >= _SHOWN]
    text = f"{units.giga(chain.start_amount)} {chain.start}"
    for term in shown:
        text += f" {_sign(term.difference)} {units.giga(abs(term.difference))} {term.label}"
    if len(shown) < len(chain.terms):
        text += f" (and {len(chain.terms) - len(shown)} below 0.0001)"
    return f"{text} = {units.giga(chain.end_amount)} {chain.end}"


def _sign(difference: float) -> str:
    return "+" if difference > 0 else "-"


def _sum_lines(chain: Chain) -> list[dict[str, Any]]:
    """Where a chain starts, each term with its fields, and where it ends."""
    return [
        {"term": chain.start, "difference": chain.start_amount},
        *({"term": term.label, **vars(term)} for term in chain.terms),
        {"term": f"= {chain.end}", "difference": chain.end_amount},
    ]


def _sum_table(chain: Chain) -> Table:
    def step(line: Mapping[str, Any]) -> str:
        name: str = line["term"]
        return f"{_sign(line['difference'])} {name}" if "kind" in line else name

    def each(line: Mapping[str, Any]) -> Any:
        return "varies" if line.get("each", 0) is None else line.get("each")

    columns = (
        Column("step", "step", value=step),
        Column("difference", f"G{chain.unit}s", _giga),
        Column("each", "for each", lambda value: f"{value:+,g}", each),
        Column("amount", "of", units.integer),
        Column("kind", "kind", value=lambda line: line.get("kind", ""), when="wide"),
        Column("calls", "calls", units.integer, when="wide"),
    )
    unit = "MACs" if chain.unit == "MAC" else "FLOPs, two for each MAC"
    return Table.of(columns, _sum_lines(chain), f"In {unit}: {sentence(chain)}")


def _peer_tables(row: ExplainRow, peers: Sequence[PeerRow]) -> list[Table]:
    columns = (
        Column("counter", "counter", value="name"),
        Column("version", "version", when="wide"),
        Column(
            "amount",
            "its figure",
            value=lambda peer: None if peer.amount is None else figure(peer.amount, peer.unit),
        ),
        Column("macs", "GMACs", units.giga),
        Column("difference", "less ours", _signed_giga),
        Column("seconds", "seconds", lambda value: f"{value:.2f}", when="wide"),
        Column("peak_bytes", "peak memory", units.size, when="widest"),
        Column("extra_bytes", "by counting", units.size, when="widest"),
    )
    title = f"Other counters, one call in a fresh process each; ours: {units.giga(row.macs)} GMACs"
    missing = [f"{peer.name}: {peer.reason}." for peer in peers if peer.reason]
    found = [Table.of(columns, peers, title, missing)]
    terms = [(peer, term) for peer in peers for term in peer.terms or ()]
    if terms:
        found.append(_terms_table(terms))
    notes = [
        f"{peer.name} gives a total alone: its difference cannot be traced to operators."
        for peer in peers
        if peer.reason is None and peer.terms is None
    ]
    notes += [
        f"{peer.name} gives the same figure: nothing to explain."
        for peer in peers
        if peer.terms is not None and not peer.difference and not peer.terms
    ]
    found[-1] = replace(found[-1], notes=(*found[-1].notes, *notes))
    return found


def _terms_table(terms: Sequence[tuple[PeerRow, PeerTerm]]) -> Table:
    columns = (
        Column("counter", "counter", value=lambda pair: pair[0].name, label=True),
        Column("what", "what", value=lambda pair: what(pair[1]), label=True),
        Column("difference", "GMACs", _signed_giga, lambda pair: pair[1].difference),
        Column("rule", "how the counter differs", value=lambda pair: rule(pair[1])),
        Column("amount", "of", units.integer, lambda pair: pair[1].amount, when="wide"),
    )
    title = "What makes each difference: the terms of a counter add up to it exactly"
    return Table.of(columns, terms, title)


def what(term: PeerTerm) -> str:
    """``linear in Pointwise``; operators of which every module agrees have no module."""
    if not term.modules:
        return term.label
    names = ", ".join(term.modules[:3])
    if len(term.modules) > 3:
        names += f" and {len(term.modules) - 3} more"
    return f"{term.label} in {names}{' and below' if term.below else ''}"


_UNITS = {
    **dict.fromkeys(_PRODUCTS, "multiply-add"),
    "parameters": "parameter",
    "parameters x items": "parameter and item of the first dimension",
    "parameters x positions": "parameter and position after the second dimension",
    "rows": "row of the output",
    "adaptive_avg_pool2d": "input element",
    "pool": "input element",
}


def rule(term: PeerTerm) -> str:
    """What the counter does where ours counts one for a multiply-add and nothing else."""
    if term.each is None:
        return "found no exact explanation"
    if term.kind in _PRODUCTS and " inside " not in term.label:  # ours counts it
        return "not counted" if term.each == -1 else f"{1 + term.each:g} for a multiply-add"
    return f"{term.each:+g} for each {_UNITS.get(term.kind or '', 'element')}"


def _giga(value: float) -> str:
    """No minus before a zero."""
    return units.giga(value if abs(value) / 1e9 >= _SHOWN else 0)


def _signed_giga(value: float) -> str:
    return f"+{_giga(value)}" if value / 1e9 >= _SHOWN else _giga(value)


def _every_line(row: ExplainRow) -> Table:
    """A line for each figure and for each term between them.

    `part` says which sum a line belongs to; in each, the lines above the last add up to it.
    """
    lines: list[dict[str, Any]] = []
    for chain in row.chains:
        part = {"part": f"{chain.start} to {chain.end}", "unit": chain.unit}
        lines += [part | line for line in _sum_lines(chain)]
    for peer in row.peers or ():
        part = {"part": f"counter {peer.name}", "unit": "MAC"}
        if peer.terms is not None:
            lines.append(part | {"term": "multiply-adds", "difference": row.macs})
        lines += [
            part | vars(term) | {"term": term.label, "modules": " ".join(term.modules)}
            for term in peer.terms or ()
        ]
        end = {"term": f"= {peer.name}", "difference": peer.macs, "amount": None}
        lines.append(vars(peer) | part | end)
    facts = fact_columns([row], ["model", "resolution", "attention", "features"])
    names = (
        "part unit term operator kind modules calls amount each difference version seconds "
        "peak_bytes extra_bytes reason"
    ).split()
    return Table.of([*fixed(facts, row), *(Column(name, name) for name in names)], lines)


# What a model consists of.


def params_table(rows: Sequence[ParamsEntry]) -> Table:
    """One row a model, or a part or stage of one."""
    places = [n for n in ("part", "stage") if any(getattr(row, n) is not None for row in rows)]
    columns = (
        Column("model", "model"),
        *(Column(place, place) for place in places),
        Column("params", "trainable", units.integer),
        Column("frozen", "frozen", units.integer),
        Column("buffers", "buffers", units.integer),
    )
    title = "four feature maps, no head" if rows[0].features else ""
    note = "Numbers of elements. Papers print trainable parameters; buffers hold masks and indices."
    return Table.of(columns, rows, title, (note,))


def parts_table(name: str, size: str, kind: str, rows: Sequence[PartRow]) -> Table:
    """One row for each part of the model, in its order, and the whole, of class `kind`."""
    columns = (
        Column("part", "part"),
        Column("kind", "class"),
        _PARAMS,
        Column("frozen", "frozen", units.integer),
        Column("buffers", "buffers", units.integer),
    )
    sums = (sum(getattr(row, n) for row in rows) for n in ("params", "frozen", "buffers"))
    return Table.of(columns, [*rows, PartRow("total", kind, *sums)], f"{name} at {size}")


def tree_table(model: str, size: str, rows: Sequence[Mapping[str, Any]]) -> Table:
    """Modules below one another, as `module_tree` finds them, each with all that is in it."""

    def name(row: Mapping[str, Any]) -> str:
        steps = row["path"].split(".") if row["path"] else []
        return "  " * len(steps) + (steps[-1] if steps else model)

    columns = (
        Column("path", "path", hidden=True),
        Column("module", "module", value=name),
        Column("kind", "class", when="wide"),
        Column("output", "output"),
        Column("params", "params", units.integer),
        Column("macs", "MACs", units.amount),
    )
    note = "Each line has all that is in the module; MACs by fvcore's rules."
    return Table.of(columns, rows, f"{model} at {size}, module by module", [note])


# Charts: cost against the size of the input, and the modules that it is in.

COUNTED = "counted on tensors without values, which is the same on every machine"


def cost(rows: Sequence[CountRow]) -> Figure:
    """Cost against the side of the input, a line for each model.

    Raises:
        UsageError: the rows are of several conventions.
    """
    ways = {(row.convention, row.unit) for row in rows}
    if len(ways) != 1:
        raise UsageError("the rows are counted by several conventions; draw one.")
    ((convention, unit),) = ways
    from ..render.figure import against_side

    return against_side(
        [(row.model, row.setting.resolution, _image(row) / 1e9) for row in rows],
        f"Cost of one image by {convention}",
        f"G{unit}s",
        "Counted on tensors without values: the same on every machine.",
    )


def _image(row: CountRow) -> float:
    """The amount for one image."""
    return row.amount / row.setting.batch


def cost_chart(rows: Sequence[CountRow]) -> Chart | None:
    """The same for a report, with the cost of a pixel; None of fewer than two sizes."""
    sizes = dict.fromkeys(str(row.setting.resolution) for row in rows)
    if len(sizes) < 2:
        return None

    def pixel(row: CountRow) -> float:
        return _image(row) / (row.setting.resolution.width * row.setting.resolution.height) / 1e3

    unit = f"G{rows[0].unit}s ({rows[0].convention})"
    columns = (
        Column("model", "model"),
        Column("input", "input", value=lambda row: str(row.setting.resolution)),
        Column("macs", unit, lambda value: f"{value:,.4f}", lambda row: _image(row) / 1e9),
        Column("pixel", "thousand for one pixel", lambda value: f"{value:,.2f}", pixel),
    )
    models = ", ".join(dict.fromkeys(row.model for row in rows))
    from ..render.vega import Chart

    return Chart.of(
        replace(cost(rows), x_label="side of the input (pixels)", y_label=unit, notes=()),
        "cost-resolution",
        f"Multiply-adds of {models} at {len(sizes)} input sizes.",
        COUNTED,
        title="Multiply-adds over the input's side",
        caption=f"Both axes are logarithmic; {rows[0].convention} convention, one image, forward. "
        "The side of an input that is not a square is that of the square with its area. The "
        "figures below give the cost of one pixel too, which is level where cost grows with the "
        "area.",
        by=f"{rows[0].convention} convention, forward",
        table=Table.of(columns, rows),
    )


def icicle(row: CountRow) -> Icicle | None:
    """The modules' parts of the cost; None where there is none."""
    from ..render.figure import Icicle

    return Icicle.of(
        f"{row.model} at {row.setting.resolution}: where the {row.unit}s are ({row.convention})",
        {part.name: float(part.amount) for part in row.modules},
        lambda value: units.amount(value, row.unit),
    )


def icicle_chart(rows: Sequence[CountRow]) -> Chart | None:
    """The icicles of all the rows that have modules, in one chart with a menu."""
    named = {f"{row.model}, {row.setting.resolution}": icicle(row) for row in rows}
    drawn = {name: each for name, each in named.items() if each is not None}
    if not drawn:
        return None
    by = f"{rows[0].convention} convention, forward"
    from ..render.figure import largest_of
    from ..render.vega import Chart

    return Chart.of(
        drawn,
        "icicle-counts",
        f"Modules of {', '.join(drawn)} as nested rectangles. {largest_of(drawn)}",
        COUNTED,
        title=f"Where the {rows[0].unit}s are",
        caption=f"{by}. Each row of rectangles is one level deeper in the model; a rectangle is "
        f"as wide as its share of the {rows[0].unit}s.",
        by=by,
    )
