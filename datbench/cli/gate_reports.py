"""What `datbench gate` does: compare, write a baseline anew, leave with an exit code."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from ..errors import DatbenchError, MeasurementError, MissingError, UnknownNameError, UsageError
from ..ledger import WITH_BACKWARD, MemoryMode
from ..types import Setting
from ..units import printable
from .options import Format

if TYPE_CHECKING:
    from ..baselines import Baseline, What
    from ..gates import GateRow
    from ..measure.gate.run import Answer
    from ..report.table import Table

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
    from ..report.render import to_markdown

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
    from ..measure.gate.files import apart, read_baseline, unique, versions

    rows, written_with = read_baseline(path)
    if time and not any(row.what == "time" for row in rows):
        raise UsageError(f"--time: {path} holds no time; add one with --update RESULTS.")
    results, given = _read(files)
    unique(results, " and ".join(map(str, files)))
    from ..measure.environment import summary
    from ..measure.gate.run import added, split, verdict
    from ..report.gate import for_machines, gate_tables
    from ..results import document
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
    from ..measure.gate.files import read_results

    rows: list[Baseline] = []
    given: set[What] = set()
    for file in files:
        found, whats = read_results(file)
        rows += found
        given |= whats
    return rows, given


def _answered(answers: Sequence[Answer], given: set[What]) -> list[Answer]:
    """Compute and measure what no file speaks of."""
    from ..measure.gate.run import measured, recomputed
    from .progress import progress

    found = []
    for answer in progress(answers, lambda answer: answer.before.model):
        what = answer.before.what
        if answer.now is None and what not in given:
            answer = measured(answer.before) if what == "time" else recomputed(answer.before)
        found.append(answer)
    return found


def fail(rows: Sequence[GateRow], allow_fewer: bool) -> None:
    """Leave with the exit code of the verdicts; the line names what decided."""
    from ..gates import CODES, deciding
    from ..report.gate import sentence

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


def update(
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
    from ..measure.gate.files import read_baseline, text_of, unique, versions

    before = read_baseline(path, empty=True)[0] if path.exists() else []
    unknown = [name for name in remove if name not in {row.model for row in before}]
    if unknown:
        raise UnknownNameError.among("model of the baseline", unknown[0], {r.model for r in before})
    results, _ = _read(files)
    unique(results, " and ".join(map(str, files)))
    from ..baselines import key
    from ..measure.environment import summary
    from ..measure.gate.run import Answer, difference, kept
    from ..report.gate import update_tables
    from ..results import document
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
    from ..types import Resolution
    from .options import specs
    from .progress import progress

    names = [n for name in asked.models for n in (REGISTRY.names() if name == "all" else (name,))]
    chosen = specs(list(dict.fromkeys(names)))
    jobs = [
        (spec, Setting(size, asked.batch, features=asked.features, backward=asked.backward))
        for spec in chosen
        for size in [Resolution.parse(text) for text in asked.res] or [spec.resolution]
    ]
    from ..measure.gate.compute import count_baseline, memory_baseline

    found: list[Baseline] = []
    for spec, setting in progress(jobs, lambda job: job[0].name):
        found.append(count_baseline(spec, setting))
        if asked.memory_batch is not None:
            there = replace(
                setting, batch=asked.memory_batch, backward=asked.memory_mode in WITH_BACKWARD
            )
            found.append(memory_baseline(spec, there, asked.memory_mode))
    return found
