"""A count as a row of plain values, for reports and JSON."""

from __future__ import annotations

from torch import nn

from ..models.resolve import Spec
from ..results import CountRow, GroupRow
from ..types import Setting
from .conventions import Convention
from .count import build_for_count, count_built
from .parameters import parameters, parameters_by_stage
from .views import Count, Group


def count_row(spec: Spec, setting: Setting, convention: Convention) -> CountRow:
    """Build, count and summarise one model.

    Raises:
        MeasurementError: it does not run with this setting.
    """
    module = build_for_count(spec, setting)
    return summarise(
        spec.name, module, count_built(spec.name, module, setting), setting, convention
    )


def summarise(
    name: str, model: nn.Module, count: Count, setting: Setting, convention: Convention
) -> CountRow:
    """A count under one convention, with the model's parameters beside it."""
    total = count.total(convention)
    sizes = parameters(model)

    def rows(groups: list[Group]) -> tuple[GroupRow, ...]:
        return tuple(
            GroupRow(
                group.key,
                group.calls,
                group.amount,
                group.amount / total if total else 0.0,
                group.bytes_read,
                group.bytes_written,
                group.intensity,
            )
            for group in groups
        )

    def calls(groups: list[Group]) -> dict[str, int]:
        return {group.key: group.calls for group in groups}

    return CountRow(
        model=name,
        setting=setting,
        convention=convention.name,
        unit=convention.unit,
        amount=total,
        macs=total if convention.unit == "MAC" else count.multiply_adds(),
        flops=total if convention.unit == "FLOP" else None,
        forward=count.total(convention, "forward"),
        backward=count.total(convention, "backward") if setting.backward else None,
        params=sizes.params,
        frozen=sizes.frozen,
        buffers=sizes.buffers,
        bytes_read=sum(call.bytes_read for call in count.calls),
        bytes_written=sum(call.bytes_written for call in count.calls),
        stages=rows(count.by_stage(convention)),
        operators=rows(count.by_operator(convention)),
        modules=rows(count.by_module(convention)),
        counted=calls(count.with_status("counted", convention)),
        ignored=calls(count.ignored(convention)),
        free=calls(count.with_status("free", convention)),
        unknown=calls(count.with_status("unknown", convention)),
        stage_params={stage: row.params for stage, row in parameters_by_stage(model).items()},
    )
