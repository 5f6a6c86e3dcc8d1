"""A count, its conventions reconciled, and what other counters say of the same model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch

from ..models.resolve import Spec
from ..results import ExplainRow, PeerRow
from ..types import Setting
from .conventions import CONVENTIONS
from .count import count_anywhere
from .peers.adapters import Peer
from .peers.columns import observe
from .peers.run import peer_rows
from .reconcile import reconcile

Shown = Callable[[Sequence[Peer]], Iterable[Peer]]


def explain_row(
    spec: Spec, setting: Setting, timeout: float | None = None, shown: Shown = iter
) -> ExplainRow:
    """Build and count on the setting's device, and reconcile.

    Args:
        timeout: seconds for each of the other counters; they are not run without.
        shown: what the other counters are gone through with, such as a progress bar.

    Raises:
        MeasurementError: the model does not run with this setting.
    """
    module, count = count_anywhere(spec, setting)
    peers: tuple[PeerRow, ...] | None = None
    if timeout is not None:
        resolution = setting.resolution
        image = torch.zeros(1, 3, resolution.height, resolution.width, device=setting.device)
        peers = peer_rows(spec.name, setting, observe(module, image), timeout, shown)
    return ExplainRow(
        model=spec.name,
        setting=setting,
        macs=count.multiply_adds(),
        chains=reconcile(count),
        unknown={g.key: g.calls for g in count.with_status("unknown", CONVENTIONS["fvcore"])},
        peers=peers,
    )
