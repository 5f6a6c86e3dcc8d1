"""The registry of cost rules.

A rule receives the operator's positional arguments, its keyword arguments and its result, and
returns amounts by `Kind`. Nothing is weighted here: a convention does that.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

from ...types import Kind

Cost = Mapping[Kind, int]
Rule = Callable[[Sequence[Any], Mapping[str, Any], Any], Cost]

RULES: dict[str, Rule] = {}
"""Rule by operator name, such as ``aten::linear``."""

ABOUT: dict[str, str] = {}
"""What a rule counts and where that comes from, by operator name; the documentation lists it."""


def register_rule(*operators: str, about: str = "") -> Callable[[Rule], Rule]:
    """Make the decorated function the rule of these operators, custom ones too.

    Args:
        about: what is counted, in words, and whose rule it is.

    Example::

        @datbench.register_rule("mylib::window_attention")
        def _(args, kwargs, out):
            q, k, v = args
            return {Kind.ATTENTION: 2 * q.shape[0] * q.shape[1] * q.shape[2] ** 2}

    Raises:
        ValueError: an operator has a rule already.
    """

    def decorate(rule: Rule) -> Rule:
        for name in operators:
            if name in RULES:
                raise ValueError(f"operator {name!r} has a rule already")
            RULES[name] = rule
            ABOUT[name] = about
        return rule

    return decorate


def first(out: Any) -> Tensor:
    """The (first) tensor of an operator's result."""
    tensor: Tensor = out[0] if isinstance(out, (tuple, list)) else out
    return tensor


def argument(
    args: Sequence[Any], kwargs: Mapping[str, Any], index: int, name: str, default: Any = None
) -> Any:
    """An argument that may be given by position or by name."""
    return args[index] if len(args) > index else kwargs.get(name, default)
