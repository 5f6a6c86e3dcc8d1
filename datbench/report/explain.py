"""How conventions and counters differ on a model, as tables of terms."""

from __future__ import annotations

from .. import units
from ..results import Chain, ExplainRow, PeerRow, PeerTerm
from ..types import MULTIPLY_ADDS
from .table import Column, Table, Value

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
