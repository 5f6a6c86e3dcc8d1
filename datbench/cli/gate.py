"""`datbench gate`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import DatbenchError, MeasurementError, MissingError, UnknownNameError, UsageError
from ..setting import MEMORY_MODES, WITH_BACKWARD, MemoryMode, Setting
from ..units import printable
from .options import Format, Out, OutputFormat, Resolutions, complete, complete_models

if TYPE_CHECKING:
    from ..gate.compute import Answer
    from ..gate.records import Baseline, GateRow, What
    from ..render.table import Table

# What `datbench gate` does: compare, write a baseline anew, leave with an exit code.

SUMMARY = "GITHUB_STEP_SUMMARY"
"""Where GitHub Actions says which file a step's summary goes to."""


@dataclass(frozen=True)
class Asked:
    """Rows to add to a baseline."""

    models: tuple[str, ...]
    res: tuple[str, ...]
    batch: int
    backward: bool
    features: bool
    memory_batch: int | None
    memory_mode: MemoryMode


def summary_file(wanted: bool | None) -> Path | None:
    """Where the job summary is.

    Raises:
        UsageError: it was asked for, and there is none.
    """
    path = os.environ.get(SUMMARY)
    if wanted and not path:
        raise UsageError(f"--summary: {SUMMARY} is not set; it is GitHub Actions that sets it.")
    return Path(path) if path and wanted is not False else None


def summarise(path: Path | None, tables: Sequence[Table]) -> None:
    """Append to the job summary; where that fails, say so: the verdict decides the exit code."""
    if path is None:
        return
    from ..render.text import to_markdown

    try:
        with path.open("a", encoding="utf-8", errors="backslashreplace") as file:
            file.write(to_markdown(tables) + "\n")
    except OSError as error:
        said = f"could not write the job summary {path}: {error.strerror}."
        typer.echo(f"datbench: {printable(said)}", err=True)


def compare(
    path: Path, files: Sequence[Path], time: bool, wanted: Format, out: Path | None
) -> tuple[list[GateRow], list[Table]]:
    """Write the verdicts on a baseline; give them with their tables.

    Raises:
        DatbenchError: a file is missing or broken.
    """
    from ..gate.files import apart, read_baseline, unique, versions

    rows, written_with = read_baseline(path)
    if time and not any(row.what == "time" for row in rows):
        raise UsageError(f"--time: {path} holds no time; add one with --update RESULTS.")
    results, given = _read(files)
    unique(results, " and ".join(map(str, files)))
    from ..gate.compute import added, split, verdict
    from ..gate.view import for_machines, gate_tables
    from ..machine import summary
    from ..records import document
    from .output import emit

    times = time or "time" in given
    spoken_of = [row for row in rows if times or row.what != "time"]
    answers, others = split(spoken_of, results)
    answers = _answered(answers, given)
    here = summary()
    versions_apart = apart(written_with, versions(here))
    elsewhere = versions_apart.get("torch", "")
    found = [verdict(answer, others, elsewhere) for answer in answers]
    found += [added(row) for row in others]
    notes = [f"{words[0].upper()}{words[1:]}." for words in versions_apart.values()]
    left = len(rows) - len(answers)
    if left:
        notes.append(f"{left} times of the baseline were not compared: give results, or --time.")
    tables = gate_tables(found, path.name, notes)
    shown = [for_machines(found)] if wanted is Format.CSV else tables
    emit(shown, document("gate", found, here), wanted, out)
    return found, tables


def _read(files: Sequence[Path]) -> tuple[list[Baseline], set[What]]:
    """The rows of all result files, and what such files speak of, be it with no row."""
    from ..gate.files import read_results

    rows: list[Baseline] = []
    given: set[What] = set()
    for file in files:
        found, whats = read_results(file)
        rows += found
        given |= whats
    return rows, given


def _answered(answers: Sequence[Answer], given: set[What]) -> list[Answer]:
    """Compute and measure what no file speaks of."""
    from ..gate.compute import measured, recomputed
    from .output import progress

    found = []
    for answer in progress(answers, lambda answer: answer.before.model):
        what = answer.before.what
        if answer.now is None and what not in given:
            answer = measured(answer.before) if what == "time" else recomputed(answer.before)
        found.append(answer)
    return found


def fail(rows: Sequence[GateRow], allow_fewer: bool) -> None:
    """Leave with the exit code of the verdicts; the line names what decided."""
    from ..gate.records import CODES, deciding
    from ..gate.view import sentence

    if not rows:
        raise MissingError("nothing was compared: give results of the times, or --time.")
    bad = deciding(rows, allow_fewer)
    if not bad:
        return
    first = bad[0]
    more = f", and {len(bad) - 1} more" if len(bad) > 1 else ""
    place = next((change for change in first.changes if change.place), None)
    place = place or next(iter(first.changes), None)
    why = f": {first.reason}" if first.reason else f": {sentence(place)}" if place else ""
    message = (
        f"{first.model} at {first.setting.resolution} ({first.what}, {first.detail}) is "
        f"{first.verdict}{more}{why}"
    )
    raise _error(CODES[first.verdict])(f"{message.rstrip('.')}.")


def _error(code: int) -> type[DatbenchError]:
    from ..errors import AmbiguousError, CheckFailed

    known = (CheckFailed, MissingError, AmbiguousError, MeasurementError)
    return next(error for error in known if error.exit_code == code)


def update_baseline(
    path: Path,
    files: Sequence[Path],
    asked: Asked,
    remove: Sequence[str],
    time: bool,
    wanted: Format,
    out: Path | None,
) -> list[Table]:
    """Write a baseline anew, with what was asked for, and say what changes.

    Raises:
        DatbenchError: a row cannot be computed or read; the file is as it was.
    """
    from ..gate.files import read_baseline, text_of, unique, versions

    before = read_baseline(path, empty=True)[0] if path.exists() else []
    unknown = [name for name in remove if name not in {row.model for row in before}]
    if unknown:
        raise UnknownNameError.among("model of the baseline", unknown[0], {r.model for r in before})
    results, _ = _read(files)
    unique(results, " and ".join(map(str, files)))
    from ..gate.compute import Answer, difference, kept
    from ..gate.records import key
    from ..gate.view import update_tables
    from ..machine import summary
    from ..records import document
    from .output import emit, write_whole

    fresh = [*_wishes(asked), *kept([Answer(row, row) for row in results])]
    new = {key(row): row for row in fresh}
    old = [row for row in before if row.model not in remove and key(row) not in new]
    # Times that nobody wants measured stay as they are.
    again = [Answer(row, None if time or row.what != "time" else row) for row in old]
    now = {key(row): row for row in kept(_answered(again, set()))} | new
    if not now:
        raise UsageError("there is nothing to write: name a model with --models NAME.")
    rows, came, gone = difference(before, list(now.values()))
    tables = update_tables(rows, came, gone, path.name)
    here = summary()
    write_whole(path, text_of(list(now.values()), versions(here)))
    emit(tables, document("gate", rows, here), wanted, out)
    return tables


def _wishes(asked: Asked) -> list[Baseline]:
    """The rows that were asked for, computed."""
    if not asked.models:
        return []
    from ..models.dat import REGISTRY
    from ..setting import Resolution
    from .options import specs
    from .output import progress

    names = [n for name in asked.models for n in (REGISTRY.names() if name == "all" else (name,))]
    chosen = specs(list(dict.fromkeys(names)))
    jobs = [
        (spec, Setting(size, asked.batch, features=asked.features, backward=asked.backward))
        for spec in chosen
        for size in [Resolution.parse(text) for text in asked.res] or [spec.resolution]
    ]
    from ..gate.compute import count_baseline, memory_baseline

    found: list[Baseline] = []
    for spec, setting in progress(jobs, lambda job: job[0].name):
        found.append(count_baseline(spec, setting))
        if asked.memory_batch is not None:
            there = replace(
                setting, batch=asked.memory_batch, backward=asked.memory_mode in WITH_BACKWARD
            )
            found.append(memory_baseline(spec, there, asked.memory_mode))
    return found


def gate(
    results: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="RESULTS",
            help="Result files: of throughput, of memory, or other baselines. Counts and memory of "
            "which there is no file are computed.",
            readable=False,
            show_default=False,
        ),
    ] = None,
    baseline: Annotated[
        Path | None,
        typer.Option(
            "--baseline", metavar="FILE", readable=False, help="What to compare with, or to write."
        ),
    ] = None,
    update: Annotated[
        bool,
        typer.Option("--update", help="Write the baseline anew, and say what changed in it."),
    ] = False,
    models: Annotated[
        list[str] | None,
        typer.Option(
            "--models",
            metavar="NAME",
            help="With --update: add this model, or all for datbench's own; may be repeated.",
            autocompletion=complete_models,
            show_default=False,
        ),
    ] = None,
    remove: Annotated[
        list[str] | None,
        typer.Option(
            "--remove",
            metavar="NAME",
            help="With --update: leave this model out; may be repeated.",
            show_default=False,
        ),
    ] = None,
    res: Resolutions = None,
    batch: Annotated[
        int | None,
        typer.Option(help="With --models: images in a batch.", min=1, show_default="1"),
    ] = None,
    backward: Annotated[
        bool | None,
        typer.Option(
            "--backward/--forward", help="With --models: what to count.", show_default="backward"
        ),
    ] = None,
    features: Annotated[
        bool,
        typer.Option("--features", help="With --models: four feature maps with a norm, no head."),
    ] = False,
    memory_batch: Annotated[
        int | None,
        typer.Option(
            "--memory-batch",
            help="With --models: simulate the memory of this batch too.",
            min=1,
            show_default=False,
        ),
    ] = None,
    memory_mode: Annotated[
        str | None,
        typer.Option(
            "--memory-mode",
            help="With --memory-batch: inference, train-forward, train or step.",
            autocompletion=complete(*MEMORY_MODES),
            show_default="train-forward",
        ),
    ] = None,
    time: Annotated[
        bool,
        typer.Option("--time", help="Measure the baseline's times again, in fresh processes."),
    ] = False,
    allow_fewer: Annotated[
        bool,
        typer.Option("--allow-fewer", help="Let pass what became fewer MACs, elements or bytes."),
    ] = False,
    summary: Annotated[
        bool | None,
        typer.Option(
            "--summary/--no-summary",
            help="Append markdown to the job summary of GitHub Actions.",
            show_default="where there is one",
        ),
    ] = None,
    format: OutputFormat = None,
    out: Out = None,
) -> None:
    """Fail if something changed against a baseline.

    Parameters, counts by module and operator, and simulated memory are exact: every change fails
    (exit code 1). Times are tested, on the machine of the baseline alone. A row that is missing
    from either side is 3, an undecided time 4, a failed run 5.
    """
    from .output import check_apart, check_path, choose_format

    wanted = choose_format(format, out)
    if baseline is None:
        raise UsageError("name the file: --baseline FILE.")
    given = {
        "--models": models,
        "--remove": remove,
        "--res": res,
        "--batch": batch,
        "--backward": backward is not None,
        "--features": features,
        "--memory-batch": memory_batch,
        "--memory-mode": memory_mode,
    }
    if not update:
        unused = [name for name, value in given.items() if value]
        if unused:
            raise UsageError(f"{', '.join(unused)}: for --update; a gate compares what is there.")
    elif not models:
        unused = [name for name, value in given.items() if value and name != "--remove"]
        if unused:
            raise UsageError(f"{', '.join(unused)}: for --models NAME; name what is added.")
    if memory_mode is not None and memory_batch is None:
        raise UsageError("--memory-mode is for --memory-batch; give that too.")
    if memory_mode is not None and memory_mode not in MEMORY_MODES:
        raise UnknownNameError.among("mode", memory_mode, MEMORY_MODES)
    check_apart(out, [baseline, *(results or ())])
    report = summary_file(summary)
    if update:
        check_path(baseline, "--baseline")
        mode: MemoryMode = next((m for m in MEMORY_MODES if m == memory_mode), "train-forward")
        asked = Asked(
            tuple(models or ()),
            tuple(res or ()),
            batch or 1,
            backward is not False,
            features,
            memory_batch,
            mode,
        )
        tables = update_baseline(baseline, results or [], asked, remove or [], time, wanted, out)
        summarise(report, tables)
        return
    rows, tables = compare(baseline, results or [], time, wanted, out)
    summarise(report, tables)
    fail(rows, allow_fewer)
