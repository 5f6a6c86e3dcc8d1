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
from itertools import pairwise

from torch import nn

from ..models.mixers.attention import Mixer
from ..models.mixers.deformable import DeformableAttention
from ..models.mixers.deformable_detr import DeformableDetrAttention
from ..models.mixers.neighborhood import NeighborhoodAttention
from ..models.mixers.spatial_reduction import SpatialReductionAttention
from ..models.mixers.window import WindowAttention
from .records import FormulaTerm, Sizes

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
class Formula:
    """A kind of attention with its published formula and its terms at some size."""

    kind: str
    formula: str
    sizes: Sizes
    expected: tuple[FormulaTerm, ...]  # nothing is counted yet


def formula_of(mixer: Mixer, height: int, width: int) -> Formula | None:
    """The formula of a mixer on an H x W map; None for a mixer without one."""
    match mixer:
        case DeformableAttention():
            return _deformable(mixer, height, width)
        case WindowAttention() | NeighborhoodAttention():
            return _local(mixer, height, width)
        case SpatialReductionAttention():
            return _spatial_reduction(mixer, height, width)
        case DeformableDetrAttention():
            return _deformable_detr(mixer, height, width)
        case _:
            return None


def _term(
    sizes: Sizes, name: str, expression: str, predicted: int | None = None, cause: str = ""
) -> FormulaTerm:
    """A term of the formula; what must be counted is the same, unless a cause is given."""
    amount = evaluate(expression, names_of(sizes))
    predicted = amount if predicted is None else predicted
    return FormulaTerm(name, expression, amount, predicted, 0, cause)


def _attention(sizes: Sizes) -> tuple[FormulaTerm, ...]:
    return (
        _term(sizes, PROJECTIONS, "2 HW C²"),
        _term(sizes, KEYS, "2 Ns C²"),
        _term(sizes, PRODUCTS, "2 HW Ns C"),
    )


def _left_out(sizes: Sizes, name: str, expression: str) -> FormulaTerm:
    predicted = evaluate(expression, names_of(sizes))
    return FormulaTerm(name, expression, 0, predicted, 0, LEFT_OUT)


def _deformable(mixer: DeformableAttention, height: int, width: int) -> Formula:
    config, conv = mixer.config, mixer.offset_network.dwconv
    k, r = conv.kernel_size[0], conv.stride[0]
    if config.offsets:
        hk, wk = ((side + 2 * int(conv.padding[0]) - k) // r + 1 for side in (height, width))
    else:
        hk, wk = height // r, width // r
    sizes = Sizes(height, width, hk * wk, mixer.dim, mixer.heads, k, r, config.groups)
    expected = [*_attention(sizes)]
    network = "(k² + 2) Ns C"
    if config.offsets:
        expected += [
            _term(sizes, OFFSETS, network),
            _left_out(sizes, OFFSET_NORM, "5 Ns C"),
            _left_out(sizes, SAMPLING, "4 Ns C"),
        ]
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


def _local(mixer: WindowAttention | NeighborhoodAttention, height: int, width: int) -> Formula:
    side, c, hw = mixer.size, mixer.dim, height * width
    if isinstance(mixer, WindowAttention):
        kind, whose = ("SW-MSA" if mixer.shift else "W-MSA"), "Swin, Eq. 2"
        padded, least = (height + -height % side) * (width + -width % side), "multiples of a window"
        pixels = 4 * padded
    else:
        kind, whose = "NA", "as Swin, Eq. 2, with as many keys"
        padded, least = max(height, side) * max(width, side), "at least a window"
        pixels = 3 * padded + hw  # the map is cropped before the last projection
    cause = "" if padded == hw else f"the map is padded to {padded} pixels, {least}"
    sizes = Sizes(height, width, side * side, c, mixer.heads, side)
    expected = (
        _term(sizes, ALL_PROJECTIONS, "4 HW C²", pixels * c * c, cause),
        _term(sizes, PRODUCTS, "2 s² HW C", 2 * side * side * padded * c, cause),
    )
    return Formula(kind, f"4 HW C² + 2 s² HW C ({whose})", sizes, expected)


def _spatial_reduction(mixer: SpatialReductionAttention, height: int, width: int) -> Formula:
    r = 1
    if isinstance(mixer.reduce, nn.Sequential):
        conv = mixer.reduce[0]
        assert isinstance(conv, nn.Conv2d)
        r = conv.stride[0]
    ns = (height // r) * (width // r)
    sizes = Sizes(height, width, ns, mixer.dim, mixer.heads, None, r)
    attention = _attention(sizes)
    if r == 1:
        return Formula("MSA", "4 HW C² + 2 (HW)² C (Swin, Eq. 1)", sizes, attention)
    reduction = (
        _term(sizes, REDUCTION, "r² Ns C²"),
        _left_out(sizes, REDUCTION_NORM, "5 Ns C"),
    )
    formula = "2 HW C² + 2 Ns C² + 2 HW Ns C + r² Ns C² (derived from PVT, Section 3.3)"
    return Formula("SRA", formula, sizes, attention + reduction)


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


_TOKEN = re.compile(r"[A-Za-z]+|[0-9]+|[²()+-]")


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
    python = ""  # of names, numbers, brackets, +, -, * and ** alone
    for before, token in pairwise(["(", *tokens]):
        beside = before not in "(+-" and token not in ")+-²"
        python += f"{'*' if beside else ''}{token.replace('²', '**2')} "
    try:
        return int(eval(python, {"__builtins__": {}}, dict(names)))
    except (NameError, SyntaxError, TypeError) as error:
        raise ValueError(f"{text!r}: {error}") from error
