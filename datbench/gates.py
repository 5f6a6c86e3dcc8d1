"""The verdicts of a gate, as plain values.

A row of a gate has one of these verdicts:

- ``same``: nothing that the baseline holds has changed; of time, not by more than the floor;
- ``changed``: an exact figure has; `direction` says which way, `changes` says where;
- ``slower``, ``faster``: of time alone, see `datbench.versus`;
- ``missing``: it is in the baseline or in the results, and not in both;
- ``ambiguous``: of time alone: the processes do not settle it;
- ``failed``: it could not be counted, simulated or measured, which is no regression.

================================  =========
what there is among the rows      exit code
================================  =========
changed or slower                 1
otherwise: failed                 5
otherwise: missing                3
otherwise: ambiguous              4
none of these                     0
================================  =========
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from .baselines import What
from .types import Setting

Verdict = Literal["same", "changed", "slower", "faster", "missing", "ambiguous", "failed"]

Direction = Literal["", "fewer", "more", "fewer and more", "moved"]
"""Of what changed: totals that fell, rose, both, or none: work has moved from place to place."""


@dataclass(frozen=True)
class Change:
    """One figure that is not what it was; None where it was or is not there.

    Args:
        place: the module and the operator, or the tensor; empty for the whole.
        quantity: what of it: a kind of work, a convention's total, a line of the ledger.
    """

    place: str
    quantity: str
    before: int | float | str | None
    after: int | float | str | None


@dataclass(frozen=True)
class GateRow:
    """One row of the baseline or of the results, and what became of it.

    Args:
        direction: of exact figures that changed.
        changes: totals first, then places.
        reason: why there is no comparison, or what is doubtful about it.
        ratio, low, high: of speeds, now over the baseline, and its interval; of time alone.
    """

    what: What
    model: str
    setting: Setting
    verdict: Verdict
    detail: str = ""
    direction: Direction = ""
    changes: tuple[Change, ...] = ()
    reason: str = ""
    ratio: float | None = None
    low: float | None = None
    high: float | None = None


CODES: dict[Verdict, int] = {"changed": 1, "slower": 1, "failed": 5, "missing": 3, "ambiguous": 4}
"""Exit codes, in the order in which they decide."""


def deciding(rows: Sequence[GateRow], allow_fewer: bool = False) -> list[GateRow]:
    """The rows whose exit code decides; none where all is well. See the module's table.

    Args:
        allow_fewer: what only fell, in total and at every place, is no failure.
    """
    left = [row for row in rows if not (allow_fewer and only_fell(row))]
    for code in dict.fromkeys(CODES.values()):
        found = [row for row in left if CODES.get(row.verdict) == code]
        if found:
            return found
    return []


def only_fell(row: GateRow) -> bool:
    """Whether everything that changed is less than it was, and was counted both times."""
    return row.verdict == "changed" and row.direction == "fewer" and all(map(_fell, row.changes))


def _fell(change: Change) -> bool:
    before, after = change.before, change.after
    if not change.place and (before is None or after is None):
        return False  # a total that one side lacks
    if change.quantity == RENAMED or after is None:
        return True
    if before is None:
        return False
    if isinstance(before, str) or isinstance(after, str):
        one, other = str(before).partition(" "), str(after).partition(" ")
        return one[2] == other[2] and _elements(other[0]) <= _elements(one[0])
    return after <= before


def _elements(shape: str) -> int:
    return math.prod(map(int, shape.split("x")))


RENAMED = "name"
"""The quantity of a change of a name alone."""
