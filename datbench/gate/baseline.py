"""A baseline's rows: exact ones computed from the code as it is, times measured."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import torch
from torch import nn

from ..counting.conventions import CONVENTIONS
from ..counting.count import Count, count_anywhere, parameters
from ..machine import environment
from ..memory.simulation import memory_row
from ..models.resolve import Spec, resolve
from ..run import seeded
from ..setting import PLAIN, How, MemoryMode, Recipe, Setting
from .files import simulated, timed
from .records import PHASES, Baseline, CountBaseline, MemoryBaseline, TimeBaseline, Work, fold

SEEDS = (0, 1)
"""Rows are computed with the first; another tells whether they depend on it."""


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
        built, count = count_anywhere(spec, setting)
    sizes = parameters(built.module)
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
        tensors=fold(_tensors(built.module)),
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
        place = f"{call.module or '(model)'} {call.operator}"
        work = found.setdefault(place, {}).setdefault(call.phase, {})
        for kind, amount in {"calls": 1, **cost}.items():
            work[kind] = work.get(kind, 0) + amount
    return found


def memory_baseline(
    spec: Spec, setting: Setting, mode: MemoryMode, recipe: Recipe = PLAIN, seed: int = SEEDS[0]
) -> MemoryBaseline:
    """Build and simulate one model; see `count_baseline`.

    Raises:
        DatbenchError: there is no such model, or it does not run.
    """
    with seeded(seed):
        return simulated(memory_row(spec, setting, mode, recipe))


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
