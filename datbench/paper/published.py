"""Published figures of the registered variants, from `tables/variants.toml`."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


@dataclass(frozen=True)
class Published:
    """What a paper says of a variant.

    Args:
        source: the table and row.
        gmacs: fvcore's count of the published code, in 1e9 multiply-adds.
        mparams: its trainable parameters, in millions.
        printed_flops, printed_params: as printed; None where the source prints none.
        note: where the print disagrees with the published code, and why.
    """

    source: str
    gmacs: float
    mparams: float
    printed_flops: str | None = None
    printed_params: str | None = None
    note: str | None = None

    def sentences(self) -> tuple[str, ...]:
        """The entry in words, for people."""
        params = f", {self.printed_params} parameters" if self.printed_params else ""
        found = [
            f"{self.source} prints {self.printed_flops} FLOPs (MACs by fvcore's rules){params}; "
            f"fvcore counts {self.gmacs:.4f} GMACs and {self.mparams:.4f} M trainable parameters "
            "in the published code."
        ]
        return (*found, self.note) if self.note else tuple(found)


def tables_directory() -> Path:
    """Where the tables are: inside an installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    installed = package / "_tables"
    return installed if installed.is_dir() else package.parent / "tables"


@lru_cache(maxsize=1)
def published() -> dict[str, Published]:
    """Every entry, by the variant's name."""
    with (tables_directory() / "variants.toml").open("rb") as file:
        return {name: Published(**entry) for name, entry in tomllib.load(file).items()}
