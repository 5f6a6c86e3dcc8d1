"""`datbench table`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .options import Format, Out, OutputFormat, complete

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..paper.records import Cell, Comparison, Ratio
    from ..paper.tables import TableData


def table(
    name: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="TABLE",
            help="1 to 9 of the DAT paper, datpp, davit, davit_dense, or all.",
            autocompletion=complete(*"123456789", "datpp", "davit", "davit_dense", "all"),
            show_default=False,
        ),
    ] = None,
    file: Annotated[
        list[Path] | None,
        typer.Option(
            "--file",
            metavar="FILE",
            readable=False,  # the reader says what is wrong
            help="A table of your own paper, in TOML; may be repeated.",
            show_default=False,
        ),
    ] = None,
    check: Annotated[
        bool,
        typer.Option(
            "--check",
            help="Fail if a verdict is not the one that the table's file expects (exit code 1), "
            "or a cell could not be computed (3).",
        ),
    ] = False,
    search: Annotated[
        bool,
        typer.Option(
            "--search",
            help="Try a grid of configurations where the print gives none (tables 5, davit).",
        ),
    ] = False,
    rules: Annotated[
        bool,
        typer.Option(
            "--rules",
            help="Show what every counter's rules give for printed FLOPs, and which the print "
            "follows; tables of detectors and segmentors always do.",
        ),
    ] = False,
    device: Annotated[
        str | None,
        typer.Option(
            help="Measure printed memory on this device too (cuda), each run in a fresh process.",
            show_default=False,
        ),
    ] = None,
    format: OutputFormat = None,
    out: Out = None,
) -> None:
    """Compare a paper's tables with what is computed.

    Every printed figure has a verdict: it agrees if the computed one rounds to it; otherwise it
    differs, is wrong in print, not reproducible, or published only, with the reason.
    """
    from .output import choose_format, emit

    wanted = choose_format(format, out)
    chosen = _chosen(name or [], file or [])
    if search:
        _search(chosen, _refused(check, rules, device), wanted, out)
        return
    from ..machine import summary
    from ..paper.view import for_machines, for_people, further, overview, scores
    from ..records import document

    comparisons = _compare(chosen, device)
    tables = [t for c in comparisons for t in (for_people(c), *further(c, rules))]
    if wanted is Format.CSV:
        tables = [for_machines(comparisons)]
    else:
        scored = scores(comparisons, rules)
        tables += [scored] if scored else []
        tables += [overview(comparisons)] if len(comparisons) > 1 else []
    emit(tables, document("table", comparisons, summary()), wanted, out)
    if check:
        _check([cell for comparison in comparisons for cell in comparison.cells()])
        _check_ratios([ratio for comparison in comparisons for ratio in comparison.ratios])


def _refused(check: bool, rules: bool, device: str | None) -> str | None:
    """An option that a search has no use for."""
    given = {"--check": check, "--rules": rules, "--device": device is not None}
    return next((option for option, is_given in given.items() if is_given), None)


def _search(
    chosen: Sequence[TableData], refused: str | None, wanted: Format, out: Path | None
) -> None:
    from ..errors import UsageError

    if len(chosen) > 1:
        raise UsageError("--search takes one table.")
    if refused:
        raise UsageError(f"--search does not take {refused}.")
    from ..machine import summary
    from ..paper.search import search, search_davit
    from ..paper.tables import paper_table
    from ..paper.view import search_tables, searches_for_machines
    from ..records import document
    from .output import emit

    is_davit = chosen[0] is paper_table("davit")
    found = search_davit(chosen[0]) if is_davit else search(chosen[0])
    tables = [table for one in found for table in search_tables(one)]
    if wanted is Format.CSV:
        tables = [searches_for_machines(found)]
    emit(tables, document("table-search", found, summary()), wanted, out)


def _chosen(names: Sequence[str], files: Sequence[Path]) -> list[TableData]:
    """The tables asked for, each once."""
    from ..errors import UsageError
    from ..paper.tables import FILES, paper_table, read_table

    expanded = [each for name in names for each in (FILES if name == "all" else (name,))]
    found = [paper_table(name) for name in dict.fromkeys(expanded)]
    for path in dict.fromkeys(files):
        table = read_table(path)
        if table.table in FILES:
            raise UsageError(f"{path}: table {table.table!r} is one of the papers'; choose a name.")
        found.append(table)
        sys.path.insert(0, str(path.parent.resolve()))  # where a table's own factories are
    if not found:
        raise UsageError(f"name a table: {', '.join(FILES)} or all; or --file FILE.")
    return found


def _compare(chosen: Sequence[TableData], device: str | None) -> list[Comparison]:
    """Compute every table; models that they share are counted once."""
    from ..errors import UsageError
    from ..memory.device import check_present
    from ..paper.tables import paper_tables
    from ..paper.verdicts import compare
    from ..paper.workshop import Workshop
    from .output import progress

    if device is not None:
        if not any(c.batch for table in chosen for c in table.columns):
            raise UsageError("--device measures printed memory; table 8 prints some.")
        if not device.startswith("cuda"):
            raise UsageError(f"--device {device}: printed memory is measured on cuda.")
        check_present(device)
    workshop = Workshop(device)
    # A paper's verdicts rest on the papers alone; a table of the user's, on its own rows too.
    return [
        compare(table, [other for other in paper_tables() if other is not table], workshop)
        for table in progress(chosen, lambda table: f"table {table.table}")
    ]


def _check_ratios(ratios: Sequence[Ratio]) -> None:
    from ..errors import CheckFailed, MissingError

    for r in ratios:
        if r.computed is None:
            raise MissingError(f"table {r.table}, {r.column}, {r.row} over {r.over}: {r.reason}")
        if not r.is_expected:
            raise CheckFailed(
                f"table {r.table}, {r.column}, {r.row} over {r.over}: {r.computed:.3f} {r.verdict} "
                f"from the printed {r.printed}."
            )


def _check(cells: Sequence[Cell]) -> None:
    from ..errors import CheckFailed, MissingError

    wrong = [cell for cell in cells if cell.verdict != cell.expected and not cell.failed]
    if wrong:
        named = "; ".join(
            f"table {c.table}, {c.row}, {c.column}: {c.verdict}, expected {c.expected}"
            for c in wrong
        )
        raise CheckFailed(f"{len(wrong)} of {len(cells)} cells are not as expected: {named}.")
    failed = [cell for cell in cells if cell.failed]
    if failed:
        rows = dict.fromkeys(f"table {c.table}, {c.row}" for c in failed)
        raise MissingError(
            f"{len(failed)} of {len(cells)} cells could not be computed: {'; '.join(rows)}; "
            f"{failed[0].reason}"
        )
