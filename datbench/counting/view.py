"""Counts and parameters as tables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Literal

from .. import units
from ..render.table import Column, Table, Value
from ..setting import MULTIPLY_ADDS
from .records import Chain, CountRow, ExplainRow, GroupRow, PartRow, PeerRow, PeerTerm, Term

By = Literal["part", "stage", "operator", "module"]

_PARAMS = Column("params", "params (M)", units.mega)

_SETTING = ("batch", "dtype", "device", "attention", "backward", "features")


def _amount(row: CountRow) -> Column:
    """The column of amounts; its heading never leaves the unit open."""
    return Column("macs" if row.unit == "MAC" else "flops", f"G{row.unit}s", units.giga)


def _setting_columns() -> list[Column]:
    """What people read in the title and machines in every row."""
    return [Column(name, name, hidden=True) for name in (*_SETTING, "convention")]


def _setting_values(row: CountRow) -> tuple[Value, ...]:
    return (*(getattr(row.setting, name) for name in _SETTING), row.convention)


def setting_line(row: CountRow) -> str:
    """What the figures belong to, in words."""
    setting = row.setting
    parts = [
        str(setting.resolution),
        f"batch {setting.batch}",
        setting.dtype,
        f"{setting.attention} attention",
        "forward and backward" if setting.backward else "forward",
    ]
    if setting.device != "meta":
        parts.append(f"on {setting.device}")
    if setting.features:
        parts.append("four feature maps, no head")
    return ", ".join(parts)


def one_model(row: CountRow, by: Sequence[By], depth: int | None = None) -> list[Table]:
    """A model's total, then its breakdowns."""
    total = f"{units.amount(row.amount, row.unit)}s"
    if row.backward is not None:
        forward, backward = (units.amount(x, row.unit) for x in (row.forward, row.backward))
        total += f" ({forward}s forward, {backward}s backward)"
    title = (
        f"{row.model}: {total}, {units.amount(row.params)} parameters "
        f"({row.convention} convention; {setting_line(row)})"
    )
    tables = [_breakdown(row, part, depth) for part in by]
    first, last = tables[0], tables[-1]
    tables[0] = Table(first.columns, first.rows, title)
    tables[-1] = Table(last.columns, last.rows, tables[-1].title, notes([row]))
    return tables


def _breakdown(row: CountRow, by: By, depth: int | None) -> Table:
    groups = {
        "part": _parts(row),
        "stage": [g for g in row.stages if _costs(g)],
        "operator": [g for g in row.operators if g.amount],
        "module": [g for g in _cut(row.modules, depth) if _costs(g)],
    }[by]
    staged = by in ("part", "stage")
    columns = [
        *(Column(name, name, hidden=True) for name in ("model", "resolution")),
        *_setting_columns(),
        Column(by, by),
        Column("calls", "calls", units.integer),
        _amount(row),
        Column("share", "share", lambda value: units.share(value, 1)),
        *([_PARAMS] if staged else []),
        Column("bytes_read", "read", units.size),
        Column("bytes_written", "written", units.size),
        Column("intensity", f"{row.unit}/byte", units.ratio),
    ]
    setting = (row.model, str(row.setting.resolution), *_setting_values(row))
    params = {**row.stage_params, **_part_params(row), "total": row.params}
    rows = [
        (
            *setting,
            _short(g.name),
            g.calls,
            g.amount,
            g.share,
            *([params.get(g.name)] if staged else []),
            g.bytes_read,
            g.bytes_written,
            g.intensity,
        )
        for g in [*groups, *([_sum("total", groups)] if staged else [])]
    ]
    return Table(tuple(columns), tuple(rows))


def _parts(row: CountRow) -> list[GroupRow]:
    """Stages summed to parts, also those that only have parameters (UperNet's auxiliary head)."""
    stages: dict[str, list[GroupRow]] = {part: [] for part in _part_params(row)}
    for group in row.stages:
        stages.setdefault(group.name.partition(".")[0], []).append(group)
    sums = [_sum(part, groups) for part, groups in stages.items()]
    return [group for group in sums if _costs(group) or _part_params(row).get(group.name)]


def _part_params(row: CountRow) -> dict[str, int]:
    found: Counter[str] = Counter()
    for stage, params in row.stage_params.items():
        found[stage.partition(".")[0]] += params
    return dict(found)


def _costs(group: GroupRow) -> bool:
    return bool(group.amount or group.bytes_read or group.bytes_written)


def _cut(groups: Sequence[GroupRow], depth: int | None) -> Sequence[GroupRow]:
    """Modules summed to `depth` components of their path, in the order in which they ran."""
    parts: dict[str, list[GroupRow]] = {}
    for group in groups:
        parts.setdefault(".".join(group.name.split(".")[:depth]), []).append(group)
    return [_sum(name, part) for name, part in parts.items()]


def _sum(name: str, parts: Sequence[GroupRow]) -> GroupRow:
    amount = sum(part.amount for part in parts)
    read = sum(part.bytes_read for part in parts)
    written = sum(part.bytes_written for part in parts)
    return GroupRow(
        name,
        sum(part.calls for part in parts),
        amount,
        sum(part.share for part in parts),
        read,
        written,
        amount / (read + written) if read + written else None,
    )


def many_models(rows: Sequence[CountRow]) -> Table:
    """One row a model and resolution."""
    first = rows[0]
    unknown = [sum(row.unknown.values()) for row in rows]
    columns = [
        Column("model", "model"),
        Column("resolution", "resolution"),
        *_setting_columns(),
        _amount(first),
        _PARAMS,
        Column("bytes_read", "read", units.size),
        Column("bytes_written", "written", units.size),
        Column("unknown", "unknown calls", units.integer, hidden=not any(unknown)),
    ]
    values = [
        (
            row.model,
            str(row.setting.resolution),
            *_setting_values(row),
            row.amount,
            row.params,
            row.bytes_read,
            row.bytes_written,
            calls,
        )
        for row, calls in zip(rows, unknown, strict=True)
    ]
    setting = setting_line(first).partition(", ")[2]
    title = f"{first.unit}s under the {first.convention} convention; {setting}"
    return Table(tuple(columns), tuple(values), title, notes(rows))


def notes(rows: Sequence[CountRow]) -> tuple[str, ...]:
    """What the total leaves out, and what a reader must know to quote it."""
    first = rows[0]
    found: list[str] = []
    if first.unit == "MAC":
        found.append("One multiply-add is one MAC. Papers of this field print MACs as FLOPs.")
    else:
        found.append("One multiply-add is two FLOPs.")
    ignored = sorted({_short(name) for row in rows for name in row.ignored})
    if ignored:
        found.append(f"No weight under {first.convention}: {', '.join(ignored)}.")
    unknown: dict[str, int] = {}
    for row in rows:
        for name, calls in row.unknown.items():
            unknown[name] = unknown.get(name, 0) + calls
    if unknown:
        named = ", ".join(f"{name} ({calls} calls)" for name, calls in unknown.items())
        found.append(f"UNKNOWN, cost missing from the total: {named}.")
    return tuple(found)


def _short(operator: str) -> str:
    return operator.removeprefix("aten::").removeprefix("datbench::")


# How conventions and counters differ on a model, as tables of terms.


_SHOWN = 5e-5
"""Of one giga: what four decimals show."""

_PRODUCTS = frozenset(map(str, MULTIPLY_ADDS))


def explain_tables(row: ExplainRow) -> list[Table]:
    """The sums, then the other counters where they were run; plain words last."""
    tables = [_chain(chain) for chain in row.chains]
    title = (
        f"{row.model}: {units.amount(row.macs, 'MAC')}s of multiply-adds "
        f"({row.setting.resolution}, batch {row.setting.batch}, "
        f"{row.setting.attention} attention, forward"
        f"{', four feature maps, no head' if row.setting.features else ''})"
    )
    tables.insert(0, _summary(row, title))
    if row.peers is not None:
        tables += _peers(row, row.peers)
    last = tables[-1]
    tables[-1] = Table(last.columns, last.rows, last.title, (*last.notes, *_words(row)))
    return tables


def _summary(row: ExplainRow, title: str) -> Table:
    """One figure for each convention, with what it is for."""
    columns = (
        Column("convention", "convention"),
        Column("figure", "figure"),
        Column("use", "quote it"),
    )
    fvcore, mmdet, strict = row.chains
    rows: list[tuple[Value, ...]] = [
        ("fvcore", figure(fvcore.end_amount, "MAC"), "beside a paper's FLOPs"),
        ("mmdet", figure(mmdet.end_amount, "MAC"), "beside a figure of mmdetection's get_flops"),
        ("torch/2", figure(fvcore.start_amount, "MAC"), "for the products alone"),
        (
            "torch",
            figure(strict.start_amount, "FLOP"),
            "2 x torch/2, as torch's own counter prints it",
        ),
        ("strict", figure(strict.end_amount, "FLOP"), "beside a device's FLOP/s"),
    ]
    return Table(columns, tuple(rows), title)


def figure(amount: float, unit: str) -> str:
    """``4.5889 GMAC``: a figure that carries its unit."""
    return f"{units.giga(amount)} G{unit}"


def sentence(chain: Chain) -> str:
    """``4.5635 torch/2 + 0.0186 layer_norm = 4.5821 fvcore``, what four decimals hide left out."""
    shown = [term for term in chain.terms if abs(term.difference) / 1e9 >= _SHOWN]
    text = f"{units.giga(chain.start_amount)} {chain.start}"
    for term in shown:
        sign = "+" if term.difference > 0 else "-"
        text += f" {sign} {units.giga(abs(term.difference))} {term.label}"
    if len(shown) < len(chain.terms):
        text += f" (and {len(chain.terms) - len(shown)} below 0.0001)"
    return f"{text} = {units.giga(chain.end_amount)} {chain.end}"


def _chain(chain: Chain) -> Table:
    columns = (
        Column("step", "step"),
        Column("difference", f"G{chain.unit}s", _giga),
        Column("each", "for each", _signed),
        Column("amount", "of", units.integer),
        Column("kind", "kind"),
        Column("calls", "calls", units.integer),
    )
    rows: list[tuple[Value, ...]] = [
        (chain.start, chain.start_amount, None, None, "", None),
        *(
            (
                f"{'+' if term.difference > 0 else '-'} {term.label}",
                term.difference,
                term.each if term.each is not None else "varies",
                term.amount,
                term.kind,
                term.calls,
            )
            for term in chain.terms
        ),
        (f"= {chain.end}", chain.end_amount, None, None, "", None),
    ]
    unit = "MACs" if chain.unit == "MAC" else "FLOPs, two for each MAC"
    return Table(columns, tuple(rows), f"In {unit}: {sentence(chain)}")


def _peers(row: ExplainRow, peers: tuple[PeerRow, ...]) -> list[Table]:
    columns = (
        Column("counter", "counter"),
        Column("version", "version"),
        Column("amount", "its figure"),
        Column("macs", "GMACs", units.giga),
        Column("difference", "less ours", _signed_giga),
        Column("seconds", "seconds", lambda value: f"{value:.2f}"),
        Column("peak_bytes", "peak memory", units.size),
        Column("extra_bytes", "by counting", units.size),
    )
    rows = tuple(
        (
            peer.name,
            peer.version,
            None if peer.amount is None else figure(peer.amount, peer.unit),
            peer.macs,
            peer.difference,
            peer.seconds,
            peer.peak_bytes,
            peer.extra_bytes,
        )
        for peer in peers
    )
    title = f"Other counters, one call in a fresh process each; ours: {units.giga(row.macs)} GMACs"
    missing = tuple(f"{peer.name}: {peer.reason}." for peer in peers if peer.reason)
    found = [Table(columns, rows, title, missing)]
    terms = [(peer, term) for peer in peers for term in peer.terms or ()]
    if terms:
        found.append(_terms(terms))
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
    last = found[-1]
    found[-1] = Table(last.columns, last.rows, last.title, (*last.notes, *notes))
    return found


def _terms(terms: list[tuple[PeerRow, PeerTerm]]) -> Table:
    columns = (
        Column("counter", "counter"),
        Column("what", "what"),
        Column("difference", "GMACs", _signed_giga),
        Column("rule", "how the counter differs"),
        Column("amount", "of", units.integer),
    )
    rows = tuple(
        (peer.name, what(term), term.difference, rule(term), term.amount) for peer, term in terms
    )
    title = "What makes each difference: the terms of a counter add up to it exactly"
    return Table(columns, rows, title)


def what(term: PeerTerm) -> str:
    """``linear in Pointwise``; operators of which every module agrees have no module."""
    if not term.modules:
        return term.label
    names = ", ".join(term.modules[:3])
    if len(term.modules) > 3:
        names += f" and {len(term.modules) - 3} more"
    return f"{term.label} in {names}{' and below' if term.below else ''}"


def rule(term: PeerTerm) -> str:
    """What the counter does where ours counts one for a multiply-add and nothing else."""
    if term.each is None:
        return "found no exact explanation"
    if _is_ours(term):
        if term.each == -1:
            return "not counted"
        return f"{1 + term.each:g} for a multiply-add"
    unit = "multiply-add" if term.kind in _PRODUCTS else _UNITS.get(term.kind or "", "element")
    return f"{term.each:+g} for each {unit}"


_UNITS = {
    "parameters": "parameter",
    "parameters x items": "parameter and item of the first dimension",
    "parameters x positions": "parameter and position after the second dimension",
    "rows": "row of the output",
    "adaptive_avg_pool2d": "input element",
    "pool": "input element",
}


def _is_ours(term: PeerTerm) -> bool:
    return term.kind in _PRODUCTS and " inside " not in term.label


def _signed(value: float) -> str:
    return f"{value:+,g}"


def _giga(value: float) -> str:
    """No minus before a zero."""
    return units.giga(value if abs(value) / 1e9 >= _SHOWN else 0)


def _signed_giga(value: float) -> str:
    text = _giga(value)
    return f"+{text}" if value / 1e9 >= _SHOWN else text


def _words(row: ExplainRow) -> tuple[str, ...]:
    """What the figures mean, for who has to quote one."""
    found = [
        "One multiply-add is one MAC and two FLOPs: a figure in FLOPs is halved before it is "
        "compared with one in MACs.",
        "fvcore's rules in GMACs are what papers of this field print as FLOPs: quote that figure "
        "beside theirs, and call it MACs.",
        "torch/2 is the multiply-adds of products alone, and what differences are taken from.",
        "mmdet leaves attention products out; strict counts all arithmetic that ran, in FLOPs.",
    ]
    if row.unknown:
        named = ", ".join(f"{name} ({calls} calls)" for name, calls in row.unknown.items())
        found.append(f"UNKNOWN, cost missing from every figure: {named}.")
    return tuple(found)


# `datbench explain` as one flat table, for CSV.


_FLAT = (
    "model resolution attention features part unit term operator kind modules calls amount each "
    "difference version seconds peak_bytes extra_bytes reason"
).split()


def flat_table(row: ExplainRow) -> Table:
    """Everything in one table, for CSV: a line for each figure and for each term between them.

    `part` says which sum a line belongs to; in each, the lines above the last add up to it.
    """
    lines: list[dict[str, Value]] = []
    for chain in row.chains:
        lines += _flat_chain(chain)
    for peer in row.peers or ():
        lines += _flat_peer(peer, row.macs)
    setting: dict[str, Value] = {
        "model": row.model,
        "resolution": str(row.setting.resolution),
        "attention": row.setting.attention,
        "features": str(row.setting.features),
    }
    return Table(
        tuple(Column(name, name) for name in _FLAT),
        tuple(tuple((setting | line).get(name) for name in _FLAT) for line in lines),
    )


def _flat_chain(chain: Chain) -> list[dict[str, Value]]:
    part: dict[str, Value] = {"part": f"{chain.start} to {chain.end}", "unit": chain.unit}

    def line(term: Term) -> dict[str, Value]:
        return part | {
            "term": term.label,
            "operator": term.operator,
            "kind": term.kind,
            "calls": term.calls,
            "amount": term.amount,
            "each": term.each,
            "difference": term.difference,
        }

    return [
        part | {"term": chain.start, "difference": chain.start_amount},
        *map(line, chain.terms),
        part | {"term": f"= {chain.end}", "difference": chain.end_amount},
    ]


def _flat_peer(peer: PeerRow, macs: int) -> list[dict[str, Value]]:
    part: dict[str, Value] = {"part": f"counter {peer.name}", "unit": "MAC"}
    end: dict[str, Value] = {
        "term": f"= {peer.name}",
        "difference": peer.macs,
        "version": peer.version,
        "seconds": peer.seconds,
        "peak_bytes": peer.peak_bytes,
        "extra_bytes": peer.extra_bytes,
        "reason": peer.reason,
    }
    if peer.terms is None:
        return [part | end]
    return [
        part | {"term": "multiply-adds", "difference": macs},
        *(
            part
            | {
                "term": term.label,
                "kind": term.kind,
                "modules": " ".join(term.modules),
                "amount": term.amount,
                "each": term.each,
                "difference": term.difference,
            }
            for term in peer.terms
        ),
        part | end,
    ]


# What a model of others consists of, as a table.


def parts_table(name: str, size: str, kind: str, rows: Sequence[PartRow]) -> Table:
    """One row for each part of the model, in its order, and the whole."""
    columns = (
        Column("part", "part"),
        Column("kind", "class"),
        Column("params", "params (M)", units.mega),
        Column("frozen", "frozen", units.integer),
        Column("buffers", "buffers", units.integer),
    )
    shown = [*rows, _whole(kind, rows)]
    values = tuple((r.part, r.kind, r.params, r.frozen, r.buffers) for r in shown)
    return Table(columns, values, f"{name} at {size}")


def _whole(kind: str, rows: Sequence[PartRow]) -> PartRow:
    return PartRow(
        "total",
        kind,
        sum(row.params for row in rows),
        sum(row.frozen for row in rows),
        sum(row.buffers for row in rows),
    )
