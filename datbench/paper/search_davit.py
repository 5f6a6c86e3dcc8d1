"""A search for the setting in which DaViT's page counts its two largest models.

The page gives neither input nor window, and every setting is tried on both models.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from ..cells import Search
from ..errors import MissingError
from ..types import Resolution
from .search import Point, ranked
from .tables import ALONE, HOOKS_AND_PRODUCTS, Build, RowData, TableData
from .workshop import Workshop

INPUTS = (224, 256, 384, 448, 512)
WINDOWS = (7, 8, 12, 14, 16, 24, 32)
KERNELS = (2, 3)
"""Of down-sampling: patches, or overlapping ones (`overlapped_patch` of the published code)."""

RULES = ("fvcore", ALONE, HOOKS_AND_PRODUCTS, "mmdet")


def search_davit(table: TableData, keep: int = 5) -> list[Search]:
    """The models of the page that do not fit the settings of the others, over the whole grid.

    Raises:
        MissingError: timm is not installed.
    """
    rows = [row for row in table.rows if row.build and "down_kernel_size" in row.build.model]
    if not rows:
        raise MissingError(f"table {table.table} has no row to search a setting for.")
    return [ranked(table, "DaViT", rows, _points(rows), keep)]


def _points(rows: list[RowData]) -> Iterator[Point]:
    workshop = Workshop()
    for size, window, kernel in itertools.product(INPUTS, WINDOWS, KERNELS):
        made = []
        for row in rows:
            assert row.build is not None
            name = row.build.model.partition(",")[0]
            model = f"{name},window_size={window},down_kernel_size={kernel}"
            made.append(workshop.make(Build(model, Resolution(size, size))))
        for rule in RULES:
            choices = {"input": size, "window": window, "down-sampling": kernel, "rule": rule}
            words = {name: str(value) for name, value in choices.items()}
            yield words, tuple(one.totals[rule] for one in made)
