"""`datbench results`: what can be done with result files."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import UsageError
from .options import Format, Out, OutputFormat

if TYPE_CHECKING:
    from ..records import Document

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
    from ..records import read
    from ..report.kinds import tables_of
    from .output import check_apart, choose_format, emit

    wanted = choose_format(format, out)
    check_apart(out, [file])
    content = read(file)
    emit(tables_of(content, str(file), wanted is Format.CSV), content, wanted, out)


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
    from ..records import dumps, merged, read
    from .output import check_apart, check_path, write_text, write_whole

    if out is not None:
        check_path(out)
    check_apart(out, file)
    content = merged(
        [(str(path), read(path)) for path in file], None if keep is None else keep.value, mixed
    )
    text = dumps(content)
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
    from .output import check_apart, check_path, write_text, write_whole

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
    from ..records import read, values

    content = read(file)
    values(content, str(file))  # a broken file is converted to nothing
    written = _converted(content, target, each)
    if out is not None:
        write_whole(out, written)
    else:
        assert isinstance(written, str)
        write_text(written)


def _converted(content: Document, target: Target, each: str | None) -> str | bytes:
    from ..records import dumps
    from ..render.text import to_csv, to_latex, to_markdown
    from ..report.kinds import plain_table, to_parquet

    rows = content["rows"]
    match target:
        case Target.JSON:
            return dumps(content)
        case Target.PARQUET:
            return to_parquet(rows, each)
        case Target.CSV:
            return to_csv([plain_table(rows, each)])
        case Target.MD:
            return to_markdown([plain_table(rows, each, short=True)])
        case Target.LATEX:
            return to_latex([plain_table(rows, each, short=True)])


def validate(file: Files, format: OutputFormat = None, out: Out = None) -> None:
    """Check every field of every row; a broken file is exit code 2."""
    from ..machine import summary
    from ..records import document
    from ..render.table import Column, Table
    from .output import check_apart, choose_format, emit

    wanted = choose_format(format, out)
    check_apart(out, file)
    rows = [_checked(path) for path in file]
    columns = (
        Column("file", "file"),
        Column("kind", "kind"),
        Column("rows", "rows", str),
        Column("verdict", "verdict"),
        Column("where", "where"),
        Column("problem", "problem"),
    )
    lines = [
        (row["file"], row["kind"], row["rows"], row["verdict"], found["where"], found["problem"])
        for row in rows
        for found in row["problems"] or [{"where": None, "problem": None}]
    ]
    emit([Table(columns, tuple(lines))], document("validate", rows, summary()), wanted, out)
    broken = [row for row in rows if row["problems"]]
    if broken:
        first = broken[0]["problems"][0]
        where = f", {first['where']}" if first["where"] else ""
        raise UsageError(
            f"{len(broken)} of {len(rows)} files are broken: {broken[0]['file']}{where}: "
            f"{first['problem']}."
        )


def _checked(path: Path) -> dict[str, Any]:
    """A file and everything that is wrong with it."""
    from ..records import layout, read, row_problems

    found: dict[str, Any] = {"file": str(path), "kind": None, "rows": None}
    problems: list[dict[str, str]] = []
    try:
        content = read(path)
        found |= {"kind": content["kind"], "rows": len(content["rows"])}
        layout(content["kind"], str(path))
    except UsageError as error:
        problems = [{"where": "", "problem": str(error).removeprefix(f"{path}").strip(": .")}]
    else:
        for number, row in enumerate(content["rows"], 1):
            for problem in row_problems(content["kind"], row):
                where = f"row {number}, {problem.field}" if problem.field else f"row {number}"
                problems.append({"where": where, "problem": problem.message})
    return found | {"verdict": "broken" if problems else "whole", "problems": problems}


SUBCOMMANDS = (show, merge, convert, validate)

for command in SUBCOMMANDS:
    app.command()(command)
