"""Every row of a baseline computed again, and every row of results beside it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from ...baselines import Baseline, CountBaseline, MemoryBaseline, TimeBaseline, detail_of, key
from ...errors import DatbenchError, MeasurementError, MissingError, UnknownNameError
from ...gates import GateRow
from ...models.dat import REGISTRY
from ...models.resolve import resolve
from .compute import SEEDS, count_baseline, memory_baseline
from .times import judged_times, measured_again
from .verdicts import judged


@dataclass(frozen=True)
class Answer:
    """A row of the baseline now: what was computed, or why nothing was."""

    before: Baseline
    now: Baseline | None = None
    error: DatbenchError | None = None


def recomputed(row: Baseline) -> Answer:
    """Compute an exact row from the code as it is; once more with another seed if it changed."""
    try:
        now = again(row)
        if judged(row, now).verdict != "same" and judged(now, again(row, SEEDS[1])).changes:
            raise MeasurementError(
                f"{row.model}: what it computes depends on random values or weights, and is no "
                "exact figure; fix its seeds or shapes"
            )
    except DatbenchError as error:
        return Answer(row, error=error)
    return Answer(row, now)


def measured(row: Baseline) -> Answer:
    """Measure a row of times."""
    assert isinstance(row, TimeBaseline)
    try:
        return Answer(row, measured_again(row))
    except DatbenchError as error:
        return Answer(row, error=error)


def again(row: Baseline, seed: int = SEEDS[0]) -> Baseline:
    """The row that the code gives now.

    Raises:
        DatbenchError: there is no such model, or it does not run.
    """
    setting = replace(row.setting, device="meta")
    if isinstance(row, CountBaseline):
        return count_baseline(resolve(row.model), setting, seed)
    if isinstance(row, MemoryBaseline):
        return memory_baseline(resolve(row.model), setting, row.mode, row.recipe, seed)
    raise TypeError("a time is measured, not computed")


def verdict(answer: Answer, others: Sequence[Baseline] = (), elsewhere: str = "") -> GateRow:
    """What became of a row of the baseline.

    Args:
        others: rows that the baseline does not have, one of which may be this one renamed.
        elsewhere: how the torch that wrote the baseline differs, in words.
    """
    before, now = answer.before, answer.now
    if isinstance(before, TimeBaseline) and isinstance(now, TimeBaseline):
        return judged_times(before, now)
    if now is not None:
        return judged(before, now, elsewhere)
    if answer.error is not None and not isinstance(answer.error, UnknownNameError):
        return _without(before, "failed", str(answer.error))
    reason = str(answer.error or "it is not in the results.")
    alike = [other.model for other in (*others, *_unlisted(answer)) if same_work(before, other)]
    if alike:
        reason += f" {alike[0]} has the same counts: it was perhaps renamed."
    return _without(before, "missing", reason)


def _without(row: Baseline, word: str, reason: str) -> GateRow:
    assert word in ("failed", "missing")
    return GateRow(
        row.what,
        row.model,
        row.setting,
        "failed" if word == "failed" else "missing",
        detail_of(row),
        reason=reason,
    )


def added(row: Baseline) -> GateRow:
    """A row of the results that the baseline does not have."""
    return _without(row, "missing", "it is not in the baseline; add it with --update.")


def same_work(one: Baseline, other: Baseline) -> bool:
    """Whether two models count alike: sizes, and the totals under every convention."""
    if isinstance(one, CountBaseline) and isinstance(other, CountBaseline):
        sizes = [(row.params, row.frozen, row.buffers) for row in (one, other)]
        return sizes[0] == sizes[1] and one.totals == other.totals
    if isinstance(one, MemoryBaseline) and isinstance(other, MemoryBaseline):
        return (one.mode, one.recipe, one.lines) == (other.mode, other.recipe, other.lines)
    return False


def _unlisted(answer: Answer) -> Iterable[Baseline]:
    """The same row of every variant whose name is like the one that is gone."""
    if answer.error is None:
        return
    for name in REGISTRY.names():
        if name in str(answer.error):  # the names that the message suggests
            found = recomputed(replace(answer.before, model=name)).now
            if found is not None:
                yield found


def split(
    baseline: Sequence[Baseline], results: Sequence[Baseline]
) -> tuple[list[Answer], list[Baseline]]:
    """Rows of the baseline with their equals among the results, and results without one."""
    now = {key(row): row for row in results}
    answers = [Answer(row, now.pop(key(row), None)) for row in baseline]
    return answers, list(now.values())


def kept(answers: Iterable[Answer]) -> list[Baseline]:
    """The rows that a new baseline has: those computed anew, and times that nobody measured.

    Raises:
        DatbenchError: one could not be computed or measured, or its model is no more.
    """
    found = []
    for answer in answers:
        row = answer.now
        if isinstance(row, TimeBaseline) and row.reason is not None:
            raise MeasurementError(f"{row.model}: {row.reason}; the baseline is as it was.")
        if row is not None:
            found.append(row)
        elif answer.error is None:
            found.append(answer.before)
        elif isinstance(answer.error, UnknownNameError):
            name = answer.before.model
            said = str(answer.error).rstrip(".?")
            raise MissingError(
                f"{said}. The baseline is as it was; to leave it out: --remove {name}."
            ) from answer.error
        else:
            raise answer.error
    return found


def difference(
    before: Sequence[Baseline], now: Sequence[Baseline]
) -> tuple[list[GateRow], list[Baseline], list[Baseline]]:
    """The rows of both compared, those that came, and those that went."""
    old, new = ({key(row): row for row in rows} for rows in (before, now))
    rows = [verdict(Answer(row, new[name])) for name, row in old.items() if name in new]
    came = [row for name, row in new.items() if name not in old]
    gone = [row for name, row in old.items() if name not in new]
    return rows, came, gone
