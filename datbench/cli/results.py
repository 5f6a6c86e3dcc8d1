"""`datbench results`: what can be done with result files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from ..errors import UsageError
from ..files import complete_files
from ..setting import one_of
from .command import RESULT, argument, group, option
from .options import AcrossMachines, By
from .output import Destination, Output

PYTEST_BENCHMARK = "pytest-benchmark"

TARGETS = {
    "csv": ".csv",
    "md": ".md",
    "parquet": ".parquet",
    "json": ".json",
    "latex": ".tex",
    PYTEST_BENCHMARK: "",
}
"""What a result file is converted to, and the suffix that says so."""

File = Annotated[
    Path, argument("A result file (JSON), or a sweep's directory.", "FILE", complete_files)
]

Files = Annotated[
    list[Path], argument("Result files (JSON), or directories of sweeps.", "FILE", complete_files)
]


def show(file: File, output: Output) -> None:
    """Show a result file as the command that wrote it would.

    Examples:
    datbench results show flops.json
    """
    from ..records import load
    from ..report.kinds import tables_of

    output.apart_from([file])
    results = load(file)
    output.write_document(tables_of(results, output.one), results.document)


def merge(
    file: Files,
    output: Destination,
    keep: Annotated[
        str | None,
        option(
            RESULT,
            "--keep NAME",
            "If rows of one model and setting differ, keep the first or the last. Default: refuse.",
            names=("first", "last"),
        ),
    ] = None,
    across_machines: AcrossMachines = False,
) -> None:
    """Merge result files of one kind into one; identical rows are kept once.

    With --across-machines every row carries its own environment.

    Examples:
    datbench results merge monday.json tuesday.json --keep last --out week.json
    """
    from ..records import dumps, load, merged

    kept = None if keep is None else one_of("choice of --keep", keep, ("first", "last"))
    output.apart_from(file)
    output.put(dumps(merged([load(each) for each in file], kept, across_machines)))


def convert(
    file: File,
    output: Destination,
    to: Annotated[
        str | None,
        option(
            RESULT,
            "--to FORMAT",
            "What to write: csv, md, parquet, json, latex or pytest-benchmark. Default: what "
            "the suffix of --out says.",
            names=list(TARGETS),
        ),
    ] = None,
    by: By = None,
) -> None:
    """Convert a result file for other programs.

    csv, md and latex have the columns of the command's own --format. Parquet, and all of them with
    --by, have one column a field, under dotted names. pytest-benchmark is what
    `pytest-benchmark compare` reads, of times alone.

    Examples:
    datbench results convert flops.json --to csv
    datbench results convert flops.json --by operators --out operators.parquet
    """
    suffix = output.path.suffix.lower() if output.path else None
    told = to or next((name for name, each in TARGETS.items() if each and each == suffix), None)
    if told is None:
        raise UsageError(f"say what to write: --to {', '.join(TARGETS)}.")
    target = one_of("format", told, list(TARGETS))
    if target == "parquet" and output.path is None:
        raise UsageError("Parquet is not text; name a file: --out FILE.")
    if target in ("json", PYTEST_BENCHMARK) and by is not None:
        raise UsageError(f"--by makes a flat table; {target} keeps the rows as they are.")
    output.apart_from([file])
    from ..records import load
    from ..report.kinds import converted

    name = output.path.stem if output.path else ""
    output.put(converted(load(file), target, by, name))


def validate(file: Files, output: Output) -> None:
    """Check every field of every row; a broken file is exit code 2.

    Examples:
    datbench results validate flops.json times.json
    """
    from ..records import check_file, record_files
    from ..report.kinds import checks_table

    output.apart_from(file)
    every = [
        each
        for path in file
        for each in [record for some in record_files(path).values() for record in some] or [path]
    ]
    checks = [check_file(path) for path in every]
    output.write([checks_table(checks)], "validate", checks)
    broken = [check for check in checks if check.problems]
    if broken:
        where, problem = broken[0].problems[0].where, broken[0].problems[0].problem
        place = f"{broken[0].file}, {where}" if where else broken[0].file
        raise UsageError(f"{len(broken)} of {len(checks)} files are broken: {place}: {problem}.")


app = group("results", (show, merge, convert, validate))
