"""One value of every record class, made from its fields' types alone."""

import types
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from datbench.gate.records import CountBaseline
from datbench.memory.records import CATEGORIES, LedgerLine, MemoryRow, Timeline
from datbench.render.figure import Figure, Series
from datbench.report.records import ReportPart
from datbench.setting import Resolution, Setting

WORK = {"forward": {"calls": 3, "conv": 3}}

CHOSEN: dict[Any, dict[str, Any]] = {
    Setting: {"resolution": Resolution(64, 96), "batch": 2, "dtype": "float32"},
    CountBaseline: {
        "totals": {"fvcore": {"forward": 3}},
        "tensors": {"a.{0-2}.weight": "3x4 frozen"},
        "operators": {"a conv2d": WORK},
    },
    MemoryRow: {"lines": tuple(LedgerLine(category, 3, 3) for category in CATEGORIES)},
    Timeline: {"figure": Figure("title", "x", "y", (Series("kept", (0.5,), (0.5,)),))},
    ReportPart: {"kind": "env"},
}
"""Fields that hold more than their types say."""


def sample(hint: Any) -> Any:
    """A value of this type, every optional part of it there."""
    if is_dataclass(hint):
        hints, chosen = get_type_hints(hint), CHOSEN.get(hint, {})
        if hint is Setting:
            return Setting(**{"device": "cpu", "attention": "sdpa", **chosen})
        return hint(
            **{e.name: chosen.get(e.name) or sample(hints[e.name]) for e in fields(hint)}  # type: ignore[operator]
        )
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return sample(next(each for each in inner if each is not type(None)))
    if origin is Literal:
        return inner[-1]
    if origin is tuple:
        return tuple(sample(each) for each in inner if each is not Ellipsis)
    if origin is not None and issubclass(origin, Mapping):
        if get_origin(inner[0]) is Literal:
            return {get_args(inner[0])[-1]: sample(inner[1])}
        return {"a": sample(inner[1])}
    return {int: 3, float: 0.5, str: "text", bool: True, Any: {"any": [1, "b"]}}[hint]
