"""Published tables as data: the values of a table's file. Free of torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from ..cells import Verdict
from ..types import Resolution
from .printed import Printed

Quantity = Literal["macs", "flops", "params", "pairs", "dim", "window", "heads", "groups"]
"""What can be computed: a count in MACs or FLOPs, parameters, or a size of the architecture."""

COMPUTED: tuple[Quantity, ...] = (
    "macs",
    "flops",
    "params",
    "pairs",
    "dim",
    "window",
    "heads",
    "groups",
)

CARRIED = {
    "accuracy": "accuracy comes from training and is carried as published",
    "memory": "the table's file gives no batch that this memory would be simulated at",
    "throughput": "throughput belongs to a machine, and this table counts",
    "published": "this column is carried as published",
}
"""What is carried as published, with the reason."""

HOOKS_AND_PRODUCTS = "hooks + products"
"""mmcv's hooks on modules, and the products of attention that no hook sees: what a script counts
that adds these by hand to mmdet's or mmseg's `get_flops`."""

WITHOUT_RESIZING = "fvcore without resizing"
"""fvcore's rules without those of nearest and bilinear resizing of maps (`aten::upsample_*`). No
counter is known to do so; it is there to be compared with."""

ALONE = "multiply-adds"
"""Multiply-adds alone."""

READINGS = (HOOKS_AND_PRODUCTS, WITHOUT_RESIZING, "fvcore", ALONE, "mmdet")
"""By which a printed number of multiply-adds may have been counted."""

COUNTING = ("trainable", "frozen", "masks")
"""What a print may count as a parameter: masks are buffers of that name."""


@dataclass(frozen=True)
class Build:
    """What a row is computed from.

    Args:
        model: any name that `datbench.models.resolve` knows.
        res: the input; the model's own where None.
        head: what stands on the backbone, such as ``retinanet``; written ``with`` in the file.
        stage: 1 to 4, for sizes of the architecture.
    """

    model: str
    res: Resolution | None = None
    head: str | None = None
    stage: int | None = None


@dataclass(frozen=True)
class ColumnData:
    """A column of the file; one without a quantity is a label.

    Args:
        batch: that a column of memory is of; such a column is computed.
    """

    name: str
    title: str
    quantity: str | None = None
    unit: str = ""
    convention: str = "fvcore"
    batch: int | None = None

    @property
    def is_computed(self) -> bool:
        """Whether datbench computes it."""
        return self.quantity in COMPUTED or self.batch is not None


@dataclass(frozen=True)
class RatioData:
    """A quotient of two rows, by their labels, that the paper states."""

    column: str
    row: str
    over: str
    printed: str
    expect: Verdict = "agrees"


@dataclass(frozen=True)
class RowData:
    """A row of the file.

    Args:
        number: from 1, for messages.
        values: as printed, by column; a cell that the print leaves out is not there.
        printed: the figures of computed columns.
        build: None where there is nothing to build (`unbuilt` says why) or only `tried`.
        tried: configurations of which none is known to be the print's.
        together: rows of the same word have the same one of theirs, by its place in `tried`.
        counting: what the row's print counts as parameters.
        expect: the verdict of a column, where it is not ``agrees``.
    """

    number: int
    values: dict[str, str]
    printed: dict[str, Printed]
    build: Build | None = None
    tried: tuple[Build, ...] = ()
    unbuilt: str = "the file names nothing to build"
    counting: tuple[str, ...] = ("trainable",)
    expect: dict[str, Verdict] = field(default_factory=dict)
    together: str = ""

    @property
    def builds(self) -> tuple[Build, ...]:
        """What may be built for the row: one thing, what is tried, or nothing."""
        return self.tried if self.build is None else (self.build,)


@dataclass(frozen=True)
class TableData:
    """A table's file."""

    table: str
    title: str
    source: str
    columns: tuple[ColumnData, ...]
    rows: tuple[RowData, ...]
    notes: tuple[str, ...] = ()
    path: Path | None = None
    ratios: tuple[RatioData, ...] = ()

    def row(self, label: str) -> RowData:
        """The row of this label.

        Raises:
            KeyError: there is none.
        """
        for row in self.rows:
            if self.label(row) == label:
                return row
        raise KeyError(label)

    def label(self, row: RowData) -> str:
        """The row in words: its labels, and its number where another row has the same."""
        label = self._labels(row)
        alike = sum(self._labels(other) == label for other in self.rows)
        return label if alike == 1 else f"{label} (row {row.number})"

    def _labels(self, row: RowData) -> str:
        names = [c.name for c in self.columns if c.quantity is None]
        return ", ".join(row.values[name] for name in names if row.values.get(name))
