"""One value of every row class, made from its fields' types alone."""

import types
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from datbench.gate.records import CountBaseline
from datbench.setting import Resolution, Setting


def sample(hint: Any) -> Any:
    """A value of this type, every optional part of it there."""
    if hint is Setting:
        return Setting(Resolution(64, 96), batch=2)
    if hint is CountBaseline:
        work = {"forward": {"calls": 3, "conv": 3}}
        setting, shapes = sample(Setting), {"a.{0-2}.weight": "3x4 frozen"}
        total = {"fvcore": {"forward": 3}}
        return CountBaseline("text", setting, 3, 3, 3, total, shapes, {"a conv2d": work}, {"b": 3})
    if is_dataclass(hint):
        hints = get_type_hints(hint)
        return hint(**{each.name: sample(hints[each.name]) for each in fields(hint)})
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return sample(next(each for each in inner if each is not type(None)))
    if origin is Literal:
        return inner[-1]
    if origin is tuple:
        return tuple(sample(each) for each in inner if each is not Ellipsis)
    if origin is not None and issubclass(origin, Mapping):
        return {"a": sample(inner[1])}
    return {int: 3, float: 0.5, str: "text", bool: True, Any: {"any": [1, "b"]}}[hint]
