"""Whether units fit into memory, before they are run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ..errors import DatbenchError, UsageError
from ..machine import check_device, environment
from ..memory.records import capacity
from ..memory.simulation import traced_row
from ..models.resolve import resolve
from ..render.terminal import progress
from ..setting import WITH_BACKWARD, MemoryMode, Recipe
from .plan import pruning_key, words_of
from .records import SweepFit
from .store import PlannedUnit


def fits(units: Sequence[PlannedUnit], memory: str | None) -> list[SweepFit]:
    """A row for each unit that is measured, of the first round.

    Args:
        memory: what it has to fit into, as ``--memory`` says it; the device's own where None.
    """
    groups: dict[str, list[PlannedUnit]] = {}
    for each in units:
        if not each.unit.static and each.unit.model is not None and not each.unit.round:
            groups.setdefault(pruning_key(each.specified), []).append(each)
    found = []
    for members in progress(list(groups.values()), lambda group: str(group[0].unit.model)):
        members.sort(key=lambda each: each.unit.setting.batch)
        found += _of_group(members, memory)
    return found


def _of_group(members: Sequence[PlannedUnit], memory: str | None) -> list[SweepFit]:
    """Units that differ in their batch alone: the smallest is simulated."""
    unit = members[0].unit
    there = _room(memory, unit.setting.device)
    mode: MemoryMode = unit.mode or "inference"
    recipe = unit.recipe or Recipe()
    if unit.how is not None:  # what is timed: a forward without gradients, or a step of SGD
        mode = "step" if unit.how.mode == "step" else "inference"
        recipe = Recipe("sgd" if mode == "step" else None, unit.how.autocast)
    setting = replace(unit.setting, device="meta", backward=mode in WITH_BACKWARD)
    try:
        row, _ = traced_row(resolve(unit.model or ""), setting, mode, recipe)
    except DatbenchError as error:
        return [SweepFit(words_of(each.specified), None, there, str(error)) for each in members]
    fixed = sum(
        line.at_peak or 0
        for line in row.lines
        if line.category in ("parameters", "buffers", "optimizer", "gradients")
    )
    each_image = (row.peak.amount - fixed) / unit.setting.batch
    return [
        SweepFit(
            words_of(each.specified), round(fixed + each_image * each.unit.setting.batch), there
        )
        for each in members
    ]


def _room(memory: str | None, device: str) -> int:
    """Bytes that tensors may have."""
    if memory is not None:
        _, whole, room = capacity(memory)
        return whole - room
    try:
        check_device(device)
    except UsageError:
        raise UsageError(
            f"{device} is not here to be asked for its memory; say it: --memory a100-40gb."
        ) from None
    here = environment()
    gpus = here["gpus"]
    return int(gpus[0]["memory_bytes"] if device.startswith("cuda") else here["memory_bytes"])
