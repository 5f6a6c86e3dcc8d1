"""Exact rows of a baseline, computed from the code as it is."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy
import torch
from torch import nn

from ..counting.conventions import CONVENTIONS
from ..counting.count import Count, count_anywhere, parameters
from ..errors import DatbenchError, MeasurementError, MissingError, UnknownNameError
from ..memory.records import MemoryRow
from ..memory.simulate import memory_row
from ..models.dat import REGISTRY
from ..models.resolve import Spec, resolve
from ..setting import PLAIN, WITH_BACKWARD, MemoryMode, Recipe, Setting
from .records import (
    Baseline,
    CountBaseline,
    GateRow,
    MemoryBaseline,
    TimeBaseline,
    Work,
    detail_of,
    fold,
    key,
)
from .verdicts import judged, judged_times, measured_again

FORWARD, BACKWARD = "forward", "backward"

SEEDS = (0, 1)
"""Rows are computed with the first; another tells whether they depend on it."""


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """The same random values in every process; afterwards their sources are as they were."""
    python, arrays = random.getstate(), numpy.random.get_state()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        random.seed(seed)
        numpy.random.seed(seed)
        try:
            yield
        finally:
            random.setstate(python)
            numpy.random.set_state(arrays)


def count_baseline(spec: Spec, setting: Setting, seed: int = SEEDS[0]) -> CountBaseline:
    """Build and count one model.

    Args:
        seed: of the weights and of whatever else is random, where a model's work depends on it.

    Raises:
        DatbenchError: there is no such model, or it does not run.
    """
    with seeded(seed):
        module, count = count_anywhere(spec, setting)
    return counted(spec.name, module, count, setting)


def counted(name: str, module: nn.Module, count: Count, setting: Setting) -> CountBaseline:
    """A count and its model's tensors."""
    sizes = parameters(module)
    phases = (FORWARD, BACKWARD) if setting.backward else (FORWARD,)
    return CountBaseline(
        model=name,
        setting=setting,
        params=sizes.params,
        frozen=sizes.frozen,
        buffers=sizes.buffers,
        totals={
            convention.name: {phase: count.total(convention, phase) for phase in phases}
            for convention in CONVENTIONS.values()
        },
        tensors=fold(_tensors(module)),
        operators=fold(_operators(count)),
        unknown=_unknown(count),
    )


def _tensors(module: nn.Module) -> dict[str, str]:
    found = {}
    for name, parameter in module.named_parameters():
        shape = "x".join(map(str, parameter.shape)) or "1"
        found[name] = shape if parameter.requires_grad else f"{shape} frozen"
    for name, buffer in module.named_buffers():
        found[name] = f"{'x'.join(map(str, buffer.shape)) or '1'} buffer"
    return found


def _operators(count: Count) -> dict[str, Work]:
    """By module and operator, in the order in which they first ran."""
    found: dict[str, Work] = {}
    for call in count.calls:
        cost = {str(kind): amount for kind, amount in call.cost.items() if amount}
        if not cost:
            continue
        place = f"{call.module or '(model)'} {call.operator}"
        work = found.setdefault(place, {}).setdefault(call.phase, {"calls": 0})
        work["calls"] += 1
        for kind, amount in cost.items():
            work[kind] = work.get(kind, 0) + amount
    return found


def _unknown(count: Count) -> dict[str, int]:
    found: dict[str, int] = {}
    for call in count.calls:
        if call.status == "unknown":
            found[call.operator] = found.get(call.operator, 0) + 1
    return found


def memory_baseline(
    spec: Spec,
    setting: Setting,
    mode: MemoryMode,
    recipe: Recipe = PLAIN,
    seed: int = SEEDS[0],
) -> MemoryBaseline:
    """Build and simulate one model; see `count_baseline`.

    Raises:
        DatbenchError: there is no such model, or it does not run.
    """
    with seeded(seed):
        return simulated(memory_row(spec, setting, mode, recipe))


def simulated(row: MemoryRow) -> MemoryBaseline:
    """A ledger as a baseline's row."""
    return MemoryBaseline(
        model=row.model,
        setting=row.setting,
        mode=row.mode,
        lines={
            line.category: {"amount": line.amount, "at_peak": line.at_peak} for line in row.lines
        },
        after_forward=row.after_forward,
        at_end=row.at_end,
        peak=row.peak.amount,
        parts=fold(
            {
                f"{part.module or '(model)'} {part.operator}": {
                    "tensors": part.tensors,
                    "kept": part.kept or 0,
                    "at_peak": part.at_peak,
                }
                for part in row.parts
            }
        ),
        recipe=row.recipe,
    )


def setting_of(setting: Setting, mode: MemoryMode) -> Setting:
    """The setting under which memory of this mode is simulated."""
    return replace(setting, backward=mode in WITH_BACKWARD)


# Every row of a baseline computed again, and every row of results beside it.


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
