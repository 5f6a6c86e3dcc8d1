"""A whole baseline compared with the code or with files of results, or written anew."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import DatbenchError, MeasurementError, MissingError, UnknownNameError, UsageError
from ..files import write_whole
from ..machine import summary
from ..render.terminal import progress
from ..setting import Setting
from .files import apart, read_baseline, read_results, text_of, versions
from .records import (
    Baseline,
    CountBaseline,
    GateRow,
    MemoryBaseline,
    TimeBaseline,
    Verdict,
    What,
    detail_of,
    key,
)
from .verdicts import judged, judged_times

if TYPE_CHECKING:
    from ..models.resolve import Spec


@dataclass(frozen=True)
class RowPair:
    """A row of the baseline and the same row now, or why there is none."""

    before: Baseline
    now: Baseline | None = None
    error: DatbenchError | None = None


def check(path: Path, files: Sequence[Path], time: bool) -> tuple[list[GateRow], list[str]]:
    """The verdicts on a baseline's rows, and notes about them.

    Args:
        files: results; exact rows of which no file speaks are computed.
        time: measure times of which no file speaks; else they are left out.

    Raises:
        DatbenchError: a file is missing or broken.
    """
    rows, written_with = read_baseline(path)
    if time and not any(row.what == "time" for row in rows):
        raise UsageError(
            f"--time: {path} holds no time; add one: datbench gate update --from FILE."
        )
    results, given = read_results(files)
    spoken_of = [row for row in rows if time or row.what != "time" or "time" in given]
    now = {key(row): row for row in results}
    pairs = _renewed([RowPair(row, now.pop(key(row), None)) for row in spoken_of], given)
    others = list(now.values())
    versions_apart = apart(written_with, versions(summary()))
    elsewhere = versions_apart.get("torch", "")
    found = [verdict(pair, others, elsewhere) for pair in pairs]
    new = "it is not in the baseline; add it with `datbench gate update`."
    found += [_without(row, "missing", new) for row in others]
    notes = [f"{words[0].upper()}{words[1:]}." for words in versions_apart.values()]
    left = len(rows) - len(pairs)
    if left:
        notes.append(
            f"{left} times of the baseline were not compared; give --from FILE, or --time."
        )
    return found, notes


def _renewed(pairs: Sequence[RowPair], given: set[What]) -> list[RowPair]:
    """With what no file speaks of computed and measured."""
    return [
        pair if pair.now is not None or pair.before.what in given else recomputed(pair.before)
        for pair in progress(pairs, lambda pair: pair.before.model)
    ]


def recomputed(row: Baseline) -> RowPair:
    """Measure a row of times, or compute an exact one: if it changed, with another seed too."""
    from . import baseline  # torch is loaded here: a file that is wrong is refused before that

    try:
        if isinstance(row, TimeBaseline):
            return RowPair(row, baseline.measured_again(row))
        now = baseline.again(row)
        changed = judged(row, now).verdict != "same"
        if changed and judged(now, baseline.again(row, baseline.SEEDS[1])).changes:
            raise MeasurementError(
                f"{row.model}: what it computes depends on random values or weights, so that it "
                "is not exact; fix its seeds or shapes"
            )
    except DatbenchError as error:
        return RowPair(row, error=error)
    return RowPair(row, now)


def verdict(pair: RowPair, others: Sequence[Baseline] = (), elsewhere: str = "") -> GateRow:
    """What became of a row of the baseline.

    Args:
        others: rows that the baseline does not have, one of which may be this one renamed.
        elsewhere: how the torch that wrote the baseline differs, in words.
    """
    before, now = pair.before, pair.now
    if isinstance(before, TimeBaseline) and isinstance(now, TimeBaseline):
        return judged_times(before, now)
    if now is not None:
        return judged(before, now, elsewhere)
    if pair.error is not None and not isinstance(pair.error, UnknownNameError):
        return _without(before, "failed", str(pair.error))
    reason = str(pair.error or "it is not in the results.")
    alike = [other.model for other in (*others, *_unlisted(pair)) if _same_work(before, other)]
    if alike:
        reason += f" {alike[0]} has the same counts: it was perhaps renamed."
    return _without(before, "missing", reason)


def _without(row: Baseline, word: Verdict, reason: str) -> GateRow:
    return GateRow(row.what, row.model, row.setting, word, detail_of(row), reason=reason)


def _same_work(one: Baseline, other: Baseline) -> bool:
    """Whether two models count alike: sizes, and the totals under every convention."""
    if isinstance(one, CountBaseline) and isinstance(other, CountBaseline):
        sizes = [(row.params, row.frozen, row.buffers) for row in (one, other)]
        return sizes[0] == sizes[1] and one.totals == other.totals
    if isinstance(one, MemoryBaseline) and isinstance(other, MemoryBaseline):
        return (one.mode, one.recipe, one.lines) == (other.mode, other.recipe, other.lines)
    return False


def _unlisted(pair: RowPair) -> Iterator[Baseline]:
    """The same row of every variant whose name is like the one that is gone."""
    from ..models.dat import REGISTRY

    for name in REGISTRY if pair.error is not None else ():
        if name in str(pair.error):  # the names that the message suggests
            found = recomputed(replace(pair.before, model=name)).now
            if found is not None:
                yield found


@dataclass(frozen=True)
class BaselineUpdate:
    """What writing a baseline changed in it."""

    rows: list[GateRow]  # of those that it had before and has now
    came: list[Baseline]
    gone: list[Baseline]


def update_baseline(
    path: Path,
    files: Sequence[Path],
    added: Iterable[Baseline] = (),
    remove: Sequence[str] = (),
    time: bool = False,
) -> BaselineUpdate:
    """Write a baseline anew: its rows computed again, with the results and what is added.

    Raises:
        DatbenchError: a row cannot be computed or read; the file is as it was.
    """
    before = read_baseline(path, empty=True)[0] if path.exists() else []
    models = {row.model for row in before}
    unknown = [name for name in remove if name not in models]
    if unknown:
        raise UnknownNameError.among("model of the baseline", unknown[0], models)
    results, _ = read_results(files)
    new = {key(row): row for row in (*added, *_kept([RowPair(row, row) for row in results]))}
    left = [row for row in before if row.model not in remove and key(row) not in new]
    # Times that nobody wants measured stay as they are.
    pairs = [RowPair(row, None if time or row.what != "time" else row) for row in left]
    now = {key(row): row for row in _kept(_renewed(pairs, set()))} | new
    if not now:
        raise UsageError("there is nothing to write: name a model, or results with --from FILE.")
    old = {key(row): row for row in before}
    changes = BaselineUpdate(
        [verdict(RowPair(row, now[name])) for name, row in old.items() if name in now],
        [row for name, row in now.items() if name not in old],
        [row for name, row in old.items() if name not in now],
    )
    write_whole(path, text_of(list(now.values()), versions(summary())))
    return changes


def _kept(pairs: Iterable[RowPair]) -> Iterator[Baseline]:
    """The rows that a new baseline has: those computed anew, and times that nobody measured.

    Raises:
        DatbenchError: a row could not be computed or measured, or its model does not exist.
    """
    for pair in pairs:
        row = pair.now
        if isinstance(row, TimeBaseline) and row.reason is not None:
            raise MeasurementError(f"{row.model}: {row.reason}; the baseline is as it was.")
        if isinstance(pair.error, UnknownNameError):
            said, name = str(pair.error).rstrip(".?"), pair.before.model
            raise MissingError(
                f"{said}. The baseline is as it was; to leave it out: --remove {name}."
            ) from pair.error
        if pair.error is not None:
            raise pair.error
        yield row or pair.before


def computed(jobs: Sequence[tuple[Spec, Setting]]) -> Iterator[Baseline]:
    """Counts to add to a baseline."""
    from .baseline import count_baseline

    for spec, setting in progress(jobs):
        yield count_baseline(spec, setting)
