"""The registry of shape rules, and how it is asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

ShapeRule = Callable[[Sequence[Any], Mapping[str, Any]], Tensor | None]

SHAPES: dict[str, ShapeRule] = {}
"""Shape rule by operator name with overload, such as ``aten::add.Tensor``."""


def shape_rule(*operators: str) -> Callable[[ShapeRule], ShapeRule]:
    """Make the decorated function the shape rule of these `aten` operators."""

    def decorate(rule: ShapeRule) -> ShapeRule:
        for name in operators:
            SHAPES[f"aten::{name}"] = rule
        return rule

    return decorate


def predict(name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Tensor | None:
    """The result of operator `name` on meta tensors, or None if torch must be asked."""
    rule = SHAPES.get(name)
    if rule is None or not args or not _all_meta(args):
        return None
    return rule(args, kwargs)


def _all_meta(args: Sequence[Any]) -> bool:
    for arg in args:
        if isinstance(arg, Tensor) and not arg.is_meta:
            return False
        if isinstance(arg, (list, tuple)) and not _all_meta(arg):
            return False
    return True
