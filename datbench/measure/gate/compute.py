"""Exact rows of a baseline, computed from the code as it is."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy
import torch
from torch import nn

from ...baselines import CountBaseline, MemoryBaseline, Work
from ...folding import fold
from ...ledger import PLAIN, WITH_BACKWARD, MemoryMode, MemoryRow, Recipe
from ...models.resolve import Spec
from ...types import Setting
from ..conventions import CONVENTIONS
from ..count import count_anywhere
from ..memory.rows import memory_row
from ..parameters import parameters
from ..views import Count

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
