"""Terms as they are written, evaluated: what a reader is shown is what is computed.

``2 HW Ns C + (k² + 2) Ns C``: names and numbers beside each other are multiplied, ² is a square.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from ...terms import Sizes

_TOKEN = re.compile(r"\s*([A-Za-z]+|[0-9]+|[²()+-])")


def names_of(sizes: Sizes) -> dict[str, int]:
    """The values of the names that formulas use; s, k and K are the module's kernel."""
    kernel = sizes.kernel or 0
    return {
        "H": sizes.height,
        "W": sizes.width,
        "HW": sizes.height * sizes.width,
        "Ns": sizes.keys,
        "C": sizes.dim,
        "M": sizes.heads,
        "k": kernel,
        "s": kernel,
        "K": kernel,
        "r": sizes.stride,
        "G": sizes.groups or 0,
    }


def evaluate(text: str, names: Mapping[str, int]) -> int:
    """The value of an expression.

    Raises:
        ValueError: it is not written as above, or has a name that is not known.
    """
    tokens = _TOKEN.findall(text)
    if "".join(tokens) != re.sub(r"\s", "", text):
        raise ValueError(f"{text!r} is no expression of a formula")
    value = _sum(tokens, names)
    if tokens:
        raise ValueError(f"{text!r}: {tokens[0]!r} is left over")
    return value


def _sum(tokens: list[str], names: Mapping[str, int]) -> int:
    value = _product(tokens, names)
    while tokens and tokens[0] in "+-":
        sign = 1 if tokens.pop(0) == "+" else -1
        value += sign * _product(tokens, names)
    return value


def _product(tokens: list[str], names: Mapping[str, int]) -> int:
    value, factors = 1, 0
    while tokens and tokens[0] not in ("+", "-", ")"):
        value *= _factor(tokens, names)
        factors += 1
    if not factors:
        raise ValueError("a term is missing")
    return value


def _factor(tokens: list[str], names: Mapping[str, int]) -> int:
    token = tokens.pop(0)
    if token == "(":
        value = _sum(tokens, names)
        if not tokens or tokens.pop(0) != ")":
            raise ValueError("a bracket is not closed")
    elif token.isdigit():
        value = int(token)
    elif token in names:
        value = names[token]
    else:
        raise ValueError(f"{token!r} is not known")
    if tokens and tokens[0] == "²":
        tokens.pop(0)
        value *= value
    return value
