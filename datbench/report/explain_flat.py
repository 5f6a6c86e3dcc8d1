"""`datbench explain` as one flat table, for CSV."""

from __future__ import annotations

from ..results import Chain, ExplainRow, PeerRow, Term
from .table import Column, Table, Value

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
