"""What the papers' tables print of accuracy, for plots."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import DatbenchError
from ..paper.library import paper_tables
from ..types import Resolution

if TYPE_CHECKING:
    from ..paper.tables import RowData

USUAL = Resolution(224, 224)
"""The input of ImageNet-1K where a table prints no other."""


@dataclass(frozen=True)
class PrintedRow:
    """A row with a printed top-1.

    Args:
        family: its name without the size; DAT-T* is of DAT*.
        model: that it is built from, where that is known.
        resolution: that the table prints, or its file says; None where neither does.
        trained: the training set in the name's brackets.
        costs: printed, by quantity.
    """

    name: str
    family: str
    model: str
    resolution: Resolution | None
    trained: str
    top1: float
    costs: dict[str, float]

    @property
    def apart(self) -> str:
        """In what it is unlike most rows of its family, in words."""
        other = self.resolution is not None and self.resolution != USUAL
        return " ".join(filter(None, (self.trained, f"at {self.resolution}" if other else "")))

    @property
    def own_input(self) -> Resolution | None:
        """The input that its accuracy belongs to; the model's own where none is printed."""
        if self.resolution is not None or not self.model:
            return self.resolution
        from ..models.resolve import resolve

        try:
            return resolve(self.model).resolution
        except DatbenchError:  # of a library that is not here
            return None


def published() -> list[PrintedRow]:
    """Rows of tables that compare methods; what several print of one model stands here once."""
    found: dict[tuple[str, float, float | None], PrintedRow] = {}
    for table in paper_tables():
        names = [column.name for column in table.columns]
        if "method" not in names or "top1" not in names:
            continue
        for row in table.rows:
            top1 = re.match(r"[0-9]+(\.[0-9]+)?", row.values.get("top1", ""))
            costs = {
                column.quantity: float(row.printed[column.name].value)
                for column in table.columns
                if column.quantity in ("macs", "params") and column.name in row.printed
            }
            if top1 is None or not costs:
                continue
            each = _printed(row, float(top1[0]), costs)
            found.setdefault((each.name, each.top1, costs.get("macs")), each)
    return list(found.values())


def _printed(row: RowData, top1: float, costs: dict[str, float]) -> PrintedRow:
    name = row.values["method"]
    plain, _, trained = name.partition(" (")
    stem, _, size = plain.replace(" ", "-").rpartition("-")
    family = stem + size[len(size.rstrip("*+")) :] if stem else plain
    side = re.match(r"[0-9]+", row.values.get("resolution", ""))
    resolution = Resolution(int(side[0]), int(side[0])) if side else None
    if resolution is None and row.build is not None:
        resolution = row.build.res
    model = row.build.model if row.build else ""
    return PrintedRow(name, family, model, resolution, trained.rstrip(")"), top1, costs)
