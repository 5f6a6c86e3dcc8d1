"""A baseline's rows: exact ones computed from the code as it is, times of what was measured."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from typing import Any

import numpy
import torch
from torch import nn

from ..compare.files import KEPT, SAMPLING
from ..counting.conventions import CONVENTIONS
from ..counting.count import Count, count_anywhere, parameters
from ..machine import HARDWARE, SOFTWARE, environment
from ..memory.records import MemoryRow
from ..memory.simulate import memory_row
from ..models.resolve import Spec, resolve
from ..setting import PLAIN, How, MemoryMode, Recipe, Setting
from ..timing.records import ProcessTiming, ThroughputRow
from .records import PHASES, Baseline, CountBaseline, MemoryBaseline, TimeBaseline, Work, fold

SEEDS = (0, 1)
"""Rows are computed with the first; another tells whether they depend on it."""

DECISIVE = ("torch", "cuda")
"""Software whose times are those of another program; the rest may differ, and is said."""


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


def count_baseline(spec: Spec, setting: Setting, seed: int = SEEDS[0]) -> CountBaseline:
    """Build and count one model.

    Args:
        seed: of the weights and of whatever else is random, where a model's work depends on it.

    Raises:
        DatbenchError: there is no such model, or it does not run.
    """
    with seeded(seed):
        module, count = count_anywhere(spec, setting)
    sizes = parameters(module)
    phases = PHASES if setting.backward else PHASES[:1]
    return CountBaseline(
        model=spec.name,
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
        unknown=dict(Counter(call.operator for call in count.calls if call.status == "unknown")),
    )


def _tensors(module: nn.Module) -> dict[str, str]:
    found = {
        name: _shape(parameter) + ("" if parameter.requires_grad else " frozen")
        for name, parameter in module.named_parameters()
    }
    return found | {name: f"{_shape(buffer)} buffer" for name, buffer in module.named_buffers()}


def _shape(tensor: torch.Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "1"


def _operators(count: Count) -> dict[str, Work]:
    """By module and operator, in the order in which they first ran."""
    found: dict[str, Work] = {}
    for call in count.calls:
        cost = {str(kind): amount for kind, amount in call.cost.items() if amount}
        if not cost:
            continue
        work = found.setdefault(_place(call), {}).setdefault(call.phase, {})
        for kind, amount in {"calls": 1, **cost}.items():
            work[kind] = work.get(kind, 0) + amount
    return found


def _place(part: Any) -> str:
    return f"{part.module or '(model)'} {part.operator}"


def memory_baseline(
    spec: Spec, setting: Setting, mode: MemoryMode, recipe: Recipe = PLAIN, seed: int = SEEDS[0]
) -> MemoryBaseline:
    """Build and simulate one model; see `count_baseline`.

    Raises:
        DatbenchError: there is no such model, or it does not run.
    """
    with seeded(seed):
        return simulated(memory_row(spec, setting, mode, recipe))


def simulated(row: MemoryRow) -> MemoryBaseline:
    """A ledger as a baseline's row."""
    parts = {
        _place(part): {"tensors": part.tensors, "kept": part.kept or 0, "at_peak": part.at_peak}
        for part in row.parts
    }
    return MemoryBaseline(
        model=row.model,
        setting=row.setting,
        mode=row.mode,
        lines={x.category: {"amount": x.amount, "at_peak": x.at_peak} for x in row.lines},
        after_forward=row.after_forward,
        at_end=row.at_end,
        peak=row.peak.amount,
        parts=fold(parts),
        recipe=row.recipe,
    )


def measured_again(row: TimeBaseline) -> TimeBaseline:
    """Measure the row in as many fresh processes as the baseline has.

    Raises:
        DatbenchError: there is no such model, or it cannot be measured here.
        KeyboardInterrupt: somebody ended it.
    """
    from ..timing.rows import measure_rows

    how = dict(row.how)
    gpus = how.pop("gpus", 1)
    jobs = [(resolve(row.model), row.setting)]
    found = measure_rows(jobs, How(**how), processes=len(row.seconds), gpus=gpus)
    if found.interrupted:
        raise KeyboardInterrupt
    return timed(found.rows[0], environment())


def timed(row: ThroughputRow, around: Mapping[str, Any]) -> TimeBaseline:
    """What a baseline keeps of a measured row.

    Args:
        around: the file's environment, where the processes do not say theirs.
    """
    ended = [process for process in row.processes if process.outcome == "measured"]
    seconds = tuple(process.timing.median for process in ended if process.timing is not None)
    how = {name: value for name, value in asdict(row.how).items() if name not in SAMPLING}
    found = next((process.environment for process in ended if process.environment), around)
    kept = {name: found[name] for name in (*HARDWARE, *SOFTWARE) if name in found}
    threads = sorted({process.threads for process in ended if process.threads is not None})
    return TimeBaseline(
        row.model,
        row.setting,
        how | {"gpus": row.gpus},
        seconds,
        kept | {"threads": threads},
        _why_not(row, ended, seconds),
    )


def _why_not(
    row: ThroughputRow, ended: Sequence[ProcessTiming], seconds: Sequence[float]
) -> str | None:
    """Why a row's processes are no samples of one time; None where they are."""
    bad = next((process for process in row.processes if process.outcome not in KEPT), None)
    if bad is not None:
        return f"{bad.outcome}: {bad.reason}" if bad.reason else bad.outcome
    environments = [process.environment for process in ended]
    mixed = [
        name
        for name in DECISIVE
        if len({str(each[name]) for each in environments if name in each}) > 1
    ]
    if mixed:
        return f"its processes ran with several versions of {' and '.join(mixed)}"
    if len(seconds) < len(ended):
        return "a process was measured, and its file holds no time of it"
    return None if seconds else f"{row.outcome}: {row.reason or 'no process has ended'}"
