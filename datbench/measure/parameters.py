"""Numbers of parameters and buffers."""

from __future__ import annotations

from collections import Counter

from torch import nn

from ..results import ParameterRow, PartRow
from .stages import stage_of


def parameters(model: nn.Module) -> ParameterRow:
    """Trainable and frozen parameters and buffers of `model`, shared tensors once."""
    trainable = frozen = 0
    for parameter in model.parameters():
        if parameter.requires_grad:
            trainable += parameter.numel()
        else:
            frozen += parameter.numel()
    return ParameterRow(trainable, frozen, sum(buffer.numel() for buffer in model.buffers()))


def parameters_by_stage(model: nn.Module) -> dict[str, ParameterRow]:
    """The same for each stage, in the model's order."""
    rows: dict[str, Counter[str]] = {}
    for name, parameter in model.named_parameters():
        row = rows.setdefault(stage_of(model, name.rpartition(".")[0]), Counter())
        row["params" if parameter.requires_grad else "frozen"] += parameter.numel()
    for name, buffer in model.named_buffers():
        row = rows.setdefault(stage_of(model, name.rpartition(".")[0]), Counter())
        row["buffers"] += buffer.numel()
    return {
        stage: ParameterRow(row["params"], row["frozen"], row["buffers"])
        for stage, row in rows.items()
    }


def parameters_by_part(model: nn.Module) -> dict[str, ParameterRow]:
    """The same for each part: ``backbone``, ``neck``, ``box_heads``."""
    rows: dict[str, ParameterRow] = {}
    for stage, row in parameters_by_stage(model).items():
        part = stage.partition(".")[0]
        old = rows.get(part, ParameterRow(0, 0, 0))
        rows[part] = ParameterRow(
            old.params + row.params, old.frozen + row.frozen, old.buffers + row.buffers
        )
    return rows


def parts(model: nn.Module) -> list[PartRow]:
    """The stages of a model with their classes, in the model's order."""
    classes = {path: type(module).__name__ for path, module in model.named_modules()}
    return [
        PartRow(stage, classes.get(stage, ""), row.params, row.frozen, row.buffers)
        for stage, row in parameters_by_stage(model).items()
    ]


def mask_elements(model: nn.Module) -> int:
    """Elements of attention masks that a model keeps as buffers, which some prints count."""
    return sum(
        buffer.numel()
        for name, buffer in model.named_buffers()
        if name.rpartition(".")[2].endswith("mask")
    )
