"""What each operator costs: one rule an operator, by kind of work.

`products` has the operators that multiply and add, `others` the rest of the forward, `backward`
those of the backward; `register_rule` adds one for an operator that torch does not know.
"""

from __future__ import annotations

from . import backward, others, products
from .registry import RULES, Cost, Rule, first, register_rule

__all__ = [
    "RULES",
    "Cost",
    "Rule",
    "backward",
    "first",
    "others",
    "products",
    "register_rule",
]
