"""One count, seen by convention, operator, module and stage."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ..types import MULTIPLY_ADDS
from .conventions import Convention
from .recorder import OperatorCall


@dataclass(frozen=True)
class Group:
    """A sum over operator calls that share a key.

    Args:
        key: the operator, stage or module.
        calls: how many calls.
        amount: in the convention's unit.
        bytes_read, bytes_written: summed over the calls.
    """

    key: str
    calls: int
    amount: int
    bytes_read: int
    bytes_written: int

    @property
    def intensity(self) -> float | None:
        """Arithmetic intensity: amount for each byte moved; None where nothing moves."""
        moved = self.bytes_read + self.bytes_written
        return self.amount / moved if moved else None


@dataclass(frozen=True)
class Count:
    """Every operator call of one run of a model, unweighted.

    Args:
        calls: in the order in which they ran.
        stages: stage of a module path.
    """

    calls: tuple[OperatorCall, ...]
    stages: Mapping[str, str]

    def total(self, convention: Convention, phase: str | None = None) -> int:
        """The whole cost in the convention's unit, of one phase or both."""
        return sum(
            convention.weigh(call.cost, call.module_type)
            for call in self.calls
            if call.cost and phase in (None, call.phase)
        )

    def multiply_adds(self) -> int:
        """Multiply-adds alone, whatever the convention."""
        return sum(
            amount
            for call in self.calls
            for kind, amount in call.cost.items()
            if kind in MULTIPLY_ADDS
        )

    def by_operator(self, convention: Convention) -> list[Group]:
        """Sums by operator, largest first."""
        groups = self._grouped(convention, lambda call: call.operator)
        return sorted(groups, key=lambda group: -group.amount)

    def by_stage(self, convention: Convention) -> list[Group]:
        """Sums by stage, in the order in which they ran."""
        return self._grouped(convention, lambda call: self.stages.get(call.module, "(model)"))

    def by_module(self, convention: Convention, depth: int | None = None) -> list[Group]:
        """Sums by module path, cut to `depth` components where given."""

        def key(call: OperatorCall) -> str:
            parts = call.module.split(".") if call.module else []
            return ".".join(parts[:depth]) or "(model)"

        return self._grouped(convention, key)

    def ignored(self, convention: Convention) -> list[Group]:
        """Counted operators to which the convention gives no weight, most calls first."""
        groups = self._grouped(
            convention,
            lambda call: call.operator,
            lambda call: (
                call.status == "counted" and convention.weigh(call.cost, call.module_type) == 0
            ),
        )
        return sorted(groups, key=lambda group: -group.calls)

    def with_status(self, status: str, convention: Convention) -> list[Group]:
        """Operators that are ``counted``, ``free`` or ``unknown``, with their calls."""
        return self._grouped(
            convention, lambda call: call.operator, lambda call: call.status == status
        )

    def _grouped(
        self,
        convention: Convention,
        key: Callable[[OperatorCall], str],
        keep: Callable[[OperatorCall], bool] = lambda call: True,
    ) -> list[Group]:
        sums: dict[str, list[int]] = {}
        for call in self.calls:
            if keep(call):
                row = sums.setdefault(key(call), [0, 0, 0, 0])
                row[0] += 1
                row[1] += convention.weigh(call.cost, call.module_type)
                row[2] += call.bytes_read
                row[3] += call.bytes_written
        return [Group(name, *row) for name, row in sums.items()]
