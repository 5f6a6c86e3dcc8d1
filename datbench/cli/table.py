"""`datbench table`."""

from __future__ import annotations

from typing import Annotated

from ..files import complete_files
from ..machine import device_of
from .command import argument, complete, group
from .options import Check, DeviceName, only
from .output import Destination, Output

PAPERS = complete(*"123456789", "datpp", "davit", "davit_dense", "nat", "all")

Tables = Annotated[
    list[str] | None,
    argument(
        "1 to 9 of the DAT paper, datpp, davit, davit_dense, nat, all, or a table of your own "
        "paper: a TOML or CSV file.",
        "TABLE",
        lambda incomplete: [*PAPERS(incomplete), *complete_files(incomplete)],
    ),
]


def compare(
    output: Output, table: Tables = None, check: Check = False, device: DeviceName = None
) -> None:
    """Compare a paper's tables with what is computed.

    Every printed figure has a verdict: it agrees if the computed one rounds to it; otherwise it
    differs, is wrong in print, not reproducible, or published only, with the reason. With
    --device cuda, printed memory is measured there too, each run in a fresh process. With --check
    a cell that could not be computed is exit code 3. With --notes it says what the rules of every
    counter give for printed FLOPs, and which of them the printed values follow.

    Examples:
    datbench table 8
    datbench table all --check --format md --out tables.md
    datbench table my_paper.toml
    """
    from ..paper.tables import chosen_tables, files_among
    from ..paper.verdicts import check_device, check_verdicts, compare_tables
    from ..paper.view import cell_table, tables
    from ..paper.workshop import Workshop
    from ..render.terminal import progress

    chosen = chosen_tables(*files_among(table or ()))
    where = None if device is None else device_of(device)
    if where is not None:
        check_device(chosen, where)
    workshop = Workshop(where)
    with workshop.ahead(chosen):
        watched = progress(chosen, lambda each: f"table {each.table}")
        compared = compare_tables(watched, workshop=workshop)
    shown = [cell_table(compared)] if output.one else tables(compared, output.notes)
    output.write(shown, "table", compared)
    if check:
        check_verdicts(compared)


def search(output: Output, table: Tables = None) -> None:
    """Try a grid of configurations where the paper gives none (tables 5 and davit).

    Examples:
    datbench table search davit
    """
    from ..paper.search import search as search_table
    from ..paper.tables import chosen_tables, files_among
    from ..paper.view import miss_table, search_tables

    found = search_table(only(chosen_tables(*files_among(table or ())), "table"))
    output.write([miss_table(found)] if output.one else search_tables(found), "table-search", found)


def template(output: Destination) -> None:
    """Write a table's file to fill in, with comments.

    Examples:
    datbench table template --out my_paper.toml
    """
    from ..paper.tables import template as content

    output.put(content())


app = group(
    "table",
    (compare, search, template),
    usual="compare",
)
