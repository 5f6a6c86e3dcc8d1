"""`datbench gate`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

from ..errors import MissingError, UsageError
from ..files import append_summary, check_path
from ..models.resolve import complete_models
from ..setting import mode_of
from . import options
from .command import RESULT, WHAT, group, option
from .output import Output

Again = Annotated[
    bool, option(WHAT, "--time", "Measure the times of the baseline again, in fresh processes.")
]


def check(
    output: Output,
    baseline: options.Baseline = None,
    from_: options.From = None,
    time: Again = False,
    allow_fewer: Annotated[
        bool,
        option(
            RESULT, "--allow-fewer", "Accept fewer MACs, elements or bytes than in the baseline."
        ),
    ] = False,
) -> None:
    """Fail if something changed against a baseline.

    Parameters, counts by module and operator, and simulated memory are exact: every change fails
    (exit code 1). They are computed where no --from file has them. Times are tested, on the machine
    of the baseline alone. A row that is missing from either side is exit code 3, an undecided time
    4, a failed run 5. In GitHub Actions the result is appended to the job summary.

    Examples:
    datbench gate --baseline baseline.json
    datbench gate --baseline baseline.json --from times.json --allow-fewer
    """
    base, files = _read(baseline, from_, output)
    from ..gate import check as checking
    from ..gate import view
    from ..gate.records import ERRORS, deciding
    from ..render.text import to_markdown

    rows, notes = checking.check(base, files, time)
    tables = view.tables(rows, base.name, notes)
    output.write(view.tables(rows, one=True) if output.one else tables, "gate", rows)
    append_summary(to_markdown(tables))
    if not rows:
        raise MissingError("nothing was compared: give the times with --from FILE, or --time.")
    bad = deciding(rows, allow_fewer)
    if bad:
        raise ERRORS[bad[0].verdict](view.complaint(bad))


def update(
    run: options.Run,
    output: Output,
    baseline: options.Baseline = None,
    from_: options.From = None,
    mode: options.ModeName = None,
    remove: Annotated[
        list[str] | None,
        option(
            WHAT,
            "--remove MODEL",
            "Leave this model out of the baseline; may be repeated.",
            complete_with=complete_models,
        ),
    ] = None,
    time: Again = False,
) -> None:
    """Write the baseline anew, and say what changed in it.

    Models that are named are added with their counts (all: every one of datbench's own). Rows of
    --from files, times and simulated memory, are added too.

    Examples:
    datbench gate update dat_t --res 224 --baseline baseline.json
    datbench gate update --from memory.json --baseline baseline.json
    """
    base, files = _read(baseline, from_, output)
    backward = mode_of(mode, ("inference", "backward"), "backward") == "backward"
    if not run.model and (mode or run != options.Run()):
        raise UsageError("--res, --mode and how models are run are of models; name one.")
    check_path(base, "--baseline")
    own = [each for name in run.model or () for each in _all(name)]
    jobs = replace(run, model=own).jobs(backward=backward) if own else []
    from ..gate import view
    from ..gate.check import computed, update_baseline
    from ..render.text import to_markdown

    changed = update_baseline(base, files, computed(jobs), remove or [], time)
    tables = view.update_tables(changed.rows, changed.came, changed.gone, base.name)
    output.write(tables, "gate", changed.rows)
    append_summary(to_markdown(tables))


def _read(
    baseline: Path | None, files: list[Path] | None, output: Output
) -> tuple[Path, list[Path]]:
    if baseline is None:
        raise UsageError("name the file: --baseline FILE.")
    output.apart_from([baseline, *(files or ())])
    return baseline, files or []


def _all(name: str) -> Sequence[str]:
    """A model's name; ``all`` stands for datbench's own models."""
    from ..models.dat import REGISTRY

    return tuple(REGISTRY) if name == "all" else [name]


app = group("gate", (check, update), usual="check")
