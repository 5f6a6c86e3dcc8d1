"""Counters, each in a process of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from importlib import metadata
from importlib.util import find_spec
from typing import Any

from ...results import PeerRow
from ...types import Setting
from ..processes import Ending, ask
from .adapters import PEERS, Peer, Tally
from .columns import Observed
from .explain import explain, macs, number

WORKER = "datbench.measure.peers.worker"

TIMEOUT = 300.0
"""Seconds that one counter may take, unless told."""

LONGEST = 200
"""Characters of a reason that are shown."""


def peer_row(
    peer: Peer,
    model: str,
    setting: Setting,
    observed: Sequence[Observed],
    timeout: float = TIMEOUT,
) -> PeerRow:
    """Run one counter and explain what it said. What goes wrong is a reason, not an error."""
    version = _version(peer)
    if not _importable(peer.module):
        return _without(peer, version, f"not installed; pip install {peer.package}")
    answer = ask(WORKER, _job(peer, model, setting), timeout)
    if isinstance(answer, Ending):
        late = f"did not finish in {timeout:g} s (--timeout)"
        return _without(peer, version, late if answer.code is None else str(answer)[:LONGEST])
    if "reason" in answer:
        return _without(peer, version, answer["reason"][:LONGEST])
    tally = Tally(answer["total"], answer["modules"])
    ours = sum(module.multiply_adds for module in observed)
    theirs = macs(tally.total, peer.unit)
    return PeerRow(
        name=peer.name,
        version=answer["version"],
        unit=peer.unit,
        amount=tally.total,
        macs=number(theirs),
        difference=number(theirs - ours),
        seconds=answer["seconds"],
        peak_bytes=answer["peak_bytes"],
        extra_bytes=answer["extra_bytes"],
        terms=explain(observed, tally, peer.unit),
        reason=None,
    )


def peer_rows(
    model: str,
    setting: Setting,
    observed: Sequence[Observed],
    timeout: float = TIMEOUT,
    shown: Callable[[Sequence[Peer]], Iterable[Peer]] = iter,
) -> tuple[PeerRow, ...]:
    """Every counter in turn; `shown` may draw a progress bar."""
    return tuple(
        peer_row(peer, model, setting, observed, timeout) for peer in shown(list(PEERS.values()))
    )


def _job(peer: Peer, model: str, setting: Setting) -> dict[str, Any]:
    return {
        "peer": peer.name,
        "model": model,
        "width": setting.resolution.width,
        "height": setting.resolution.height,
        "attention": setting.attention,
        "features": setting.features,
    }


def _version(peer: Peer) -> str | None:
    try:
        return metadata.version(peer.package)
    except metadata.PackageNotFoundError:
        return None


def _importable(module: str) -> bool:
    """Whether it is there; nothing of it is run."""
    return find_spec(module.partition(".")[0]) is not None


def _without(peer: Peer, version: str | None, reason: str) -> PeerRow:
    return PeerRow(peer.name, version, peer.unit, *(None,) * 7, reason=reason)
