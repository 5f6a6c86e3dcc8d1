"""The roofline of a profile, as a plot: what parts achieve, under the machine's two ceilings.

Williams, Waterman and Patterson, "Roofline: an insightful visual performance model for multicore
architectures" (2009). MACs stand for operations.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from .. import units
from ..figures import Figure, Series
from ..profiles import Part, ProfileRow

POINTS = 9
"""Parts that are drawn at most: the ones that take most time."""

_STEPS = 60
"""Points along the ceilings."""


def roofline(
    row: ProfileRow, parts: Sequence[Part], what: str, place: str | None = None
) -> Figure | None:
    """Parts by MACs a byte and MAC/s; None where none has both.

    Args:
        what: the parts are, in the plural.
        place: where it was measured, for the note; None where a reader sees that elsewhere.
    """
    drawn = [p for p in parts if p.macs and p.bytes and p.seconds][:POINTS]
    if not drawn:
        return None
    limits = row.ceilings
    ridge = limits.macs / limits.bytes
    across = [p.macs / p.bytes for p in drawn]
    low, high = (math.log(x) for x in (min(*across, ridge) / 2, max(*across, ridge) * 2))
    steps = {math.exp(low + (high - low) * n / (_STEPS - 1)) for n in range(_STEPS)}
    along = tuple(sorted({*steps, ridge}))
    ceiling = Series(
        f"ceilings: {units.size(limits.bytes)}/s and {units.amount(limits.macs, 'MAC/s', 1)}",
        along,
        tuple(min(limits.macs, x * limits.bytes) / 1e9 for x in along),
        marked=False,
    )
    heaviest = max(part.share for part in drawn)
    points = [
        Series(
            f"{short(part.name)} ({100 * part.share:.1f} %)",
            (part.macs / part.bytes,),
            (part.macs / part.seconds / 1e9,),
            size=part.share / heaviest,
        )
        for part in drawn
    ]
    left = 1 - sum(part.share for part in drawn)
    note = f"In brackets and by area: the share of the {what}' time."
    if left > 0.0005:
        note += f" {100 * left:.1f} % of it is not drawn: most of that has no MACs."
    notes = [note, f"{setting_line(row)}{'' if place is None else f'; measured on {place}'}."]
    if not row.ceilings_bind:
        notes.append(
            f"The ceilings do not bind: the work takes {units.seconds(row.busy)}, at the ceilings "
            f"{units.seconds(row.ideal)}."
        )
    return Figure(
        f"{row.model} at {row.setting.resolution}: {what} under the ceilings",
        "MACs for each byte",
        "GMAC/s",
        (*points, ceiling),
        log_x=True,
        log_y=True,
        notes=tuple(notes),
    )


def setting_line(row: ProfileRow) -> str:
    """What the figures belong to."""
    s = row.setting
    where = f"{s.device}, threads: {row.threads}" if s.device == "cpu" else s.device
    said = [str(s.resolution), f"batch {s.batch}", s.dtype, f"{s.attention} attention", where]
    said += ["features"] if s.features else []
    said += ["channels last"] if row.channels_last else []
    return ", ".join([*said, {"infer": "inference", "train": "training step"}[row.mode]])


def short(name: str) -> str:
    """An operator's name without the library's."""
    return name.removeprefix("aten::").removeprefix("datbench::")
