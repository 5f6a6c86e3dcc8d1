"""`datbench results`: what can be done with result files."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import UsageError
from .options import Format, Out, OutputFormat

if TYPE_CHECKING:
    from ..records import ResultFile

app = typer.Typer(
    name="results",
    help="Show, merge, convert and check result files.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


class Target(str, Enum):
    """What a result file is converted to."""

    CSV = "csv"
    MD = "md"
    PARQUET = "parquet"
    JSON = "json"
    LATEX = "latex"


class Keep(str, Enum):
    """Which of two rows of one thing is kept."""

    FIRST = "first"
    LAST = "last"


_SUFFIXES = {
    ".csv": Target.CSV,
    ".md": Target.MD,
    ".parquet": Target.PARQUET,
    ".json": Target.JSON,
    ".tex": Target.LATEX,
}

File = Annotated[Path, typer.Argument(metavar="FILE", help="A result file (JSON).", readable=False)]

Files = Annotated[
    list[Path],
    typer.Argument(metavar="FILE", help="Result files (JSON).", readable=False),
]


def show(file: File, format: OutputFormat = None, out: Out = None) -> None:
    """Show a result file as the command that wrote it would."""
    from ..records import load
    from ..report.kinds import tables_of
    from .output import check_apart, choose_format, emit

    wanted = choose_format(format, out)
    check_apart(out, [file])
    results = load(file)
    emit(tables_of(results, wanted is Format.CSV), results.document(), wanted, out)


def merge(
    file: Files,
    keep: Annotated[
        Keep | None,
        typer.Option(
            help="Of rows of one model and setting that differ, keep the first or the last.",
            show_default="refuse",
        ),
    ] = None,
    mixed: Annotated[
        bool,
        typer.Option(
            "--mixed", help="Merge files of several environments; every row then carries its own."
        ),
    ] = False,
    out: Out = None,
) -> None:
    """Merge result files of one kind into one.

    Identical rows are kept once.
    """
    from ..files import write_whole
    from ..records import dumps, load, merged
    from .output import check_apart, check_path, write_text

    if out is not None:
        check_path(out)
    check_apart(out, file)
    text = dumps(merged([load(path) for path in file], None if keep is None else keep.value, mixed))
    if out is None:
        write_text(text)
    else:
        write_whole(out, text)


def convert(
    file: File,
    to: Annotated[
        Target | None, typer.Option(help="What to write.", show_default="the suffix of --out")
    ] = None,
    each: Annotated[
        str | None,
        typer.Option(
            metavar="FIELD",
            help="One row for each element of this list, such as operators of flops.",
            show_default=False,
        ),
    ] = None,
    out: Out = None,
) -> None:
    """Convert a result file for other programs.

    One row a result, nested fields under dotted names. Lists are JSON text in CSV and Parquet;
    markdown and LaTeX leave out lists and tallies.
    """
    from ..files import write_whole
    from .output import check_apart, check_path, write_text

    target = to or (_SUFFIXES.get(out.suffix.lower()) if out is not None else None)
    if target is None:
        raise UsageError("say what to write: --to csv, md, parquet, json or latex.")
    if target is Target.PARQUET and out is None:
        raise UsageError("Parquet is no text; name a file: --out FILE.")
    if target is Target.JSON and each is not None:
        raise UsageError("--each makes a flat table; JSON keeps the rows as they are.")
    if out is not None:
        check_path(out)
    check_apart(out, [file])
    from ..records import load

    written = _converted(load(file), target, each)
    if out is not None:
        write_whole(out, written)
    else:
        assert isinstance(written, str)
        write_text(written)


def _converted(results: ResultFile, target: Target, each: str | None) -> str | bytes:
    from ..records import dumps, flat_rows, to_parquet
    from ..render.text import to_csv, to_latex, to_markdown
    from ..report.kinds import plain_table

    content = results.document()
    if target is Target.JSON:
        return dumps(content)
    if target is Target.PARQUET:
        return to_parquet(flat_rows(content["rows"], each))
    table = plain_table(content["rows"], each, short=target is not Target.CSV)
    write = {Target.CSV: to_csv, Target.MD: to_markdown, Target.LATEX: to_latex}[target]
    return write([table])


def validate(file: Files, format: OutputFormat = None, out: Out = None) -> None:
    """Check every field of every row; a broken file is exit code 2."""
    from ..machine import summary
    from ..records import check_file, document
    from ..render.table import Column, Table
    from .output import check_apart, choose_format, emit

    wanted = choose_format(format, out)
    check_apart(out, file)
    checks = [check_file(path) for path in file]
    lines = [
        {**vars(check), "where": found and found.where, "problem": found and found.problem}
        for check in checks
        for found in check.problems or (None,)
    ]
    columns = [
        Column(name, name, str if name == "rows" else None)
        for name in ("file", "kind", "rows", "verdict", "where", "problem")
    ]
    emit([Table.of(columns, lines)], document("validate", checks, summary()), wanted, out)
    broken = [check for check in checks if check.problems]
    if broken:
        where, problem = broken[0].problems[0].where, broken[0].problems[0].problem
        place = f"{broken[0].file}, {where}" if where else broken[0].file
        raise UsageError(f"{len(broken)} of {len(checks)} files are broken: {place}: {problem}.")


SUBCOMMANDS = (show, merge, convert, validate)

for command in SUBCOMMANDS:
    app.command()(command)
