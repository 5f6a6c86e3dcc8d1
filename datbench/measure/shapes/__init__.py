"""Results of common operators on meta tensors, from shapes alone.

Torch's own meta kernels give the same answers, but many are Python reference code, the first of
which loads the compiler's stack: more time and memory than the rest of a count. A rule here
answers for the plain case and returns None for any other, which torch then answers. Shapes,
strides and dtypes are tested against real CPU kernels, operator by operator.
"""

from __future__ import annotations

from typing import Any

import torch

from . import rules
from .registry import SHAPES, predict

__all__ = ["SHAPES", "is_plain_inplace", "predict", "rules"]


def is_plain_inplace(operator: Any) -> bool:
    """Whether an operator writes into its first argument and changes no shape."""
    schema = operator._schema
    return (
        schema.name.endswith("_")
        and not schema.name.endswith("__")
        and torch.Tag.inplace_view not in operator.tags
        and schema.name
        not in ("aten::resize_", "aten::resize_as_", "aten::set_", "aten::requires_grad_")
        and bool(schema.arguments)
        and schema.arguments[0].alias_info is not None
        and schema.arguments[0].alias_info.is_write
    )
