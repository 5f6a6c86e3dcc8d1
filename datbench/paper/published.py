"""What is published of a variant: the cells of the papers' tables, and fvcore's own count."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import lru_cache

from ..models.detectors.heads import HEADS, split
from .tables import paper_tables, tables_directory

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


@dataclass(frozen=True)
class Reference:
    """fvcore's count of the published code."""

    gmacs: float  # 1e9 multiply-adds
    mparams: float  # trainable parameters, in millions
    note: str | None = None  # how the published code was read where it does not run


@dataclass(frozen=True)
class PublishedCell:
    """A figure as printed, and where."""

    table: str
    row: str
    column: str
    printed: str


@dataclass(frozen=True)
class Published:
    """Everything that is published of a variant; both parts may be empty."""

    cells: tuple[PublishedCell, ...]
    reference: Reference | None

    def sentences(self) -> tuple[str, ...]:
        """The entry in words, for people."""
        found: dict[str, list[str]] = {}
        for cell in self.cells:
            found.setdefault(f"{cell.table} ({cell.row})", []).append(
                f"{cell.column} {cell.printed}"
            )
        lines = [f"{where} prints {', '.join(prints)}." for where, prints in found.items()]
        if self.reference is not None:
            lines.append(
                f"In the published code fvcore counts {self.reference.gmacs:.4f} GMACs, and "
                f"{self.reference.mparams:.4f} M parameters are trainable."
            )
            if self.reference.note:
                lines.append(self.reference.note)
        return tuple(lines)


def published(name: str) -> Published:
    """What the tables and fvcore say of the variant called `name`."""
    backbone, head = split(name) or (name, None)
    # A backbone that only dense tables have is known by what they print for it with a head.
    cells = _cells(backbone, (head,)) or (_cells(name, tuple(HEADS)) if head is None else [])
    return Published(tuple(cells), references().get(name))


def _cells(model: str, heads: tuple[str | None, ...]) -> list[PublishedCell]:
    found = []
    for table in paper_tables():
        named = f"Table {table.table}" if table.table.isdigit() else f"The {table.title} page"
        for row in table.rows:
            build = row.builds[0] if row.builds else None
            if build is None or build.model != model or build.head not in heads:
                continue
            label = table.label(row)
            where = label if build.head is None else f"{label}, with {build.head}"
            found += [
                PublishedCell(named, where, column.title, row.values[column.name])
                for column in table.columns
                if column.quantity in ("macs", "params") and column.name in row.values
            ]
    return found


@lru_cache(maxsize=1)
def references() -> dict[str, Reference]:
    """What fvcore counts of every registered variant, by name."""
    with (tables_directory() / "fvcore.toml").open("rb") as file:
        return {name: Reference(**entry) for name, entry in tomllib.load(file).items()}
