"""The published complexity formulas, and what each module does beside them.

Every formula is in multiply-adds, and is computed as it is written. `predicted` amounts follow from
a module's sizes alone, weighed as fvcore does (a norm 5 an element, bilinear sampling 4 an output
element); they are compared with what is counted, never derived from it.

Sources: DMHA, DAT (CVPR 2022) Eq. 10. W-MSA and MSA, Swin Transformer (ICCV 2021) Eqs. 2 and 1.
SRA is derived from PVT (ICCV 2021) Section 3.3, which prints none: the same with fewer keys, and
the reduction's convolution. NA is W-MSA's with as many keys, as NAT (CVPR 2023) says of itself.
Deformable-DETR attention (DAT Eq. 11): Deformable DETR (ICLR 2021) Appendix A.1, values projected
before sampling.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from ..models.mixers.attention import Mixer
from ..models.mixers.deformable import DeformableAttention
from ..models.mixers.deformable_detr import DeformableDetrAttention
from ..models.mixers.neighborhood import NeighborhoodAttention
from ..models.mixers.spatial_reduction import SpatialReductionAttention
from ..models.mixers.window import WindowAttention
from .records import Sizes

# What the terms are called.
PROJECTIONS = "query and output projections"
KEYS = "key and value projections"
ALL_PROJECTIONS = "projections"
PRODUCTS = "attention products"
OFFSETS = "offset network"
OFFSET_NORM = "LayerNorm of the offset network"
SAMPLING = "sampling of features"
BIAS = "interpolation of the position bias"
POSITION_CONV = "depthwise position bias"
REDUCTION = "reduction of the map"
REDUCTION_NORM = "LayerNorm of the reduction"
PREDICTIONS = "offsets and weights"
WEIGHTED_SUM = "weighted sum"

LEFT_OUT = "the formula leaves it out"


@dataclass(frozen=True)
class Expected:
    """A term before anything is counted; see `datbench.eq10.records.FormulaTerm`."""

    name: str
    expression: str
    formula: int
    predicted: int
    cause: str = ""


@dataclass(frozen=True)
class Formula:
    """A kind of attention with its published formula and its terms at some size."""

    kind: str
    formula: str
    sizes: Sizes
    expected: tuple[Expected, ...]


def formula_of(mixer: Mixer, height: int, width: int) -> Formula | None:
    """The formula of a mixer on an H x W map; None for a mixer without one."""
    match mixer:
        case DeformableAttention():
            return _deformable(mixer, height, width)
        case WindowAttention():
            return _window(mixer, height, width)
        case SpatialReductionAttention():
            return _spatial_reduction(mixer, height, width)
        case NeighborhoodAttention():
            return _neighborhood(mixer, height, width)
        case DeformableDetrAttention():
            return _deformable_detr(mixer, height, width)
        case _:
            return None


def _term(
    sizes: Sizes, name: str, expression: str, predicted: int | None = None, cause: str = ""
) -> Expected:
    """A term of the formula; what must be counted is the same, unless a cause is given."""
    amount = evaluate(expression, names_of(sizes))
    return Expected(name, expression, amount, amount if predicted is None else predicted, cause)


def _left_out(sizes: Sizes, name: str, expression: str) -> Expected:
    return Expected(name, expression, 0, evaluate(expression, names_of(sizes)), LEFT_OUT)


def _deformable(mixer: DeformableAttention, height: int, width: int) -> Formula:
    config, conv = mixer.config, mixer.offset_network.dwconv
    k, r = conv.kernel_size[0], conv.stride[0]
    if config.offsets:
        hk, wk = ((side + 2 * int(conv.padding[0]) - k) // r + 1 for side in (height, width))
    else:
        hk, wk = height // r, width // r
    sizes = Sizes(height, width, hk * wk, mixer.dim, mixer.heads, k, r, config.groups)
    expected = [
        _term(sizes, PROJECTIONS, "2 HW C²"),
        _term(sizes, KEYS, "2 Ns C²"),
        _term(sizes, PRODUCTS, "2 HW Ns C"),
    ]
    network = "(k² + 2) Ns C"
    if config.offsets:
        expected.append(_term(sizes, OFFSETS, network))
        expected.append(_left_out(sizes, OFFSET_NORM, "5 Ns C"))
        expected.append(_left_out(sizes, SAMPLING, "4 Ns C"))
    else:
        cause = "the offset network is built and does not run"
        expected.append(_term(sizes, OFFSETS, network, 0, cause))
    # The position bias is interpolated a pair, resized, or looked up, which costs nothing.
    resized = (height, width) != (mixer.map_side, mixer.map_side)
    if config.bias == "dwconv":
        expected.append(_left_out(sizes, POSITION_CONV, "9 HW C"))
    elif (config.bias == "relative" and config.offsets) or (config.bias == "fixed" and resized):
        expected.append(_left_out(sizes, BIAS, "4 M HW Ns"))
    elif config.bias == "relative" and resized:
        expected.append(_left_out(sizes, BIAS, "4 M (2H - 1)(2W - 1)"))
    formula = "2 HW Ns C + 2 HW C² + 2 Ns C² + (k² + 2) Ns C (DAT, Eq. 10)"
    return Formula("DMHA", formula, sizes, tuple(expected))


def _window(mixer: WindowAttention, height: int, width: int) -> Formula:
    side, hw = mixer.size, height * width
    padded = (height + -height % side) * (width + -width % side)
    cause = "" if padded == hw else f"the map is padded to {padded} pixels, multiples of a window"
    sizes = Sizes(height, width, side * side, mixer.dim, mixer.heads, side)
    on_padded = {**names_of(sizes), "HW": padded}
    expected = tuple(
        _term(sizes, name, expression, evaluate(expression, on_padded), cause)
        for name, expression in ((ALL_PROJECTIONS, "4 HW C²"), (PRODUCTS, "2 s² HW C"))
    )
    kind = "SW-MSA" if mixer.shift else "W-MSA"
    return Formula(kind, "4 HW C² + 2 s² HW C (Swin, Eq. 2)", sizes, expected)


def _spatial_reduction(mixer: SpatialReductionAttention, height: int, width: int) -> Formula:
    r = 1
    if isinstance(mixer.reduce, nn.Sequential):
        conv = mixer.reduce[0]
        assert isinstance(conv, nn.Conv2d)
        r = conv.stride[0]
    ns = (height // r) * (width // r)
    sizes = Sizes(height, width, ns, mixer.dim, mixer.heads, None, r)
    attention = (
        _term(sizes, PROJECTIONS, "2 HW C²"),
        _term(sizes, KEYS, "2 Ns C²"),
        _term(sizes, PRODUCTS, "2 HW Ns C"),
    )
    if r == 1:
        return Formula("MSA", "4 HW C² + 2 (HW)² C (Swin, Eq. 1)", sizes, attention)
    reduction = (
        _term(sizes, REDUCTION, "r² Ns C²"),
        _left_out(sizes, REDUCTION_NORM, "5 Ns C"),
    )
    formula = "2 HW C² + 2 Ns C² + 2 HW Ns C + r² Ns C² (derived from PVT, Section 3.3)"
    return Formula("SRA", formula, sizes, attention + reduction)


def _neighborhood(mixer: NeighborhoodAttention, height: int, width: int) -> Formula:
    side, c, hw = mixer.size, mixer.dim, height * width
    padded = max(height, side) * max(width, side)
    cause = "" if padded == hw else f"the map is padded to {padded} pixels, at least a window"
    sizes = Sizes(height, width, side * side, c, mixer.heads, side)
    projections = (3 * padded + hw) * c * c  # the map is cropped before the last one
    expected = (
        _term(sizes, ALL_PROJECTIONS, "4 HW C²", projections, cause),
        _term(sizes, PRODUCTS, "2 s² HW C", 2 * side * side * padded * c, cause),
    )
    return Formula("NA", "4 HW C² + 2 s² HW C (as Swin, Eq. 2, with as many keys)", sizes, expected)


def _deformable_detr(mixer: DeformableDetrAttention, height: int, width: int) -> Formula:
    sizes = Sizes(height, width, mixer.points, mixer.dim, mixer.heads, mixer.points)
    unweighted = "a product and a sum of elements, to which fvcore gives no weight"
    expected = (
        _term(sizes, ALL_PROJECTIONS, "2 HW C²"),
        _term(sizes, PREDICTIONS, "3 M K HW C"),
        _term(sizes, SAMPLING, "4 K HW C"),
        _term(sizes, WEIGHTED_SUM, "K HW C", 0, unweighted),
    )
    formula = "2 HW C² + 3 M K HW C + 5 K HW C (Deformable DETR, Appendix A.1)"
    return Formula("D-DETR", formula, sizes, expected)


# Terms as they are written, evaluated: what a reader is shown is what is computed.
#
# ``2 HW Ns C + (k² + 2) Ns C``: names and numbers beside each other are multiplied, ² is a square.


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
        raise ValueError(f"{text!r} is not an expression of a formula")
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
