"""The tables that come with datbench."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from ..errors import UnknownNameError
from .reading import read_table
from .tables import TableData

FILES = {
    **{str(number): f"table{number}.toml" for number in range(1, 10)},
    "datpp": "datpp.toml",
    "davit": "davit.toml",
    "davit_dense": "davit_dense.toml",
}
"""File by the table's name, in the order in which `datbench table all` prints them."""


def tables_directory() -> Path:
    """Where the tables are: inside an installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    installed = package / "_tables"
    return installed if installed.is_dir() else package.parent / "tables"


@cache
def paper_table(name: str) -> TableData:
    """One of the papers' tables.

    Raises:
        UnknownNameError: there is no such table; the message lists what there is.
    """
    if name not in FILES:
        raise UnknownNameError(
            f"unknown table {name!r}; there are {', '.join(FILES)} and all. "
            "--file FILE takes a table of your own."
        )
    return read_table(tables_directory() / FILES[name])


def paper_tables() -> tuple[TableData, ...]:
    """Every table of the papers."""
    return tuple(paper_table(name) for name in FILES)
