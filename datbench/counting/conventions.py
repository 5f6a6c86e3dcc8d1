"""Conventions: weightings of one count, so that two of them differ by a sum that can be printed.

=========  =====  =============================================================================
name       unit   source
=========  =====  =============================================================================
fvcore     MAC    fvcore 0.1.5 `jit_handles.py`: one for a multiply-add, no bias; 5 an element
                  for a norm (4 without scale and shift), 2 for a batch norm in evaluation (1);
                  4 an output element for bilinear sampling and up-sampling, 1 for nearest; 1 an
                  input element for adaptive average pooling in 2-D. What the papers print.
torch      FLOP   `torch.utils.flop_counter`: two for a multiply-add, nothing else.
mmdet      MAC    mmcv 1.x `flops_counter.py`: hooks on modules, by exact class; convolutions
                  with their bias, linear layers without, norms twice, activations of the ReLU
                  family, pooling and nn.Upsample. No product outside such a module.
strict     FLOP   everything that ran: two for a multiply-add, one for each bias, each
                  elementwise result and each reduced element, 5 for a softmax, 8 for a norm;
                  complex arithmetic in real operations: 8 for a multiply-add, 6 for a product.
=========  =====  =============================================================================
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from ..errors import UnknownNameError
from ..setting import MULTIPLY_ADDS, Kind

Unit = Literal["MAC", "FLOP"]


@dataclass(frozen=True)
class Convention:
    """Weights by kind."""

    name: str
    unit: Unit
    summary: str
    weights: Mapping[Kind, int]
    # Where not empty, only operators that run directly inside a module of these exact classes
    # count, with weights of their own (hook-based counters).
    by_module: Mapping[str, Mapping[Kind, int]] = field(default_factory=dict)

    def weigh(self, cost: Mapping[Kind, int], module_type: str) -> int:
        """The cost of one operator under this convention, in its unit."""
        weights = self.by_module.get(module_type, {}) if self.by_module else self.weights
        return sum(weights.get(kind, 0) * amount for kind, amount in cost.items())


_FVCORE: dict[Kind, int] = dict.fromkeys(MULTIPLY_ADDS, 1) | {
    Kind.NORM: 5,
    Kind.NORM_PLAIN: 4,
    Kind.NORM_FIXED: 2,
    Kind.NORM_FIXED_PLAIN: 1,
    Kind.SAMPLE: 4,
    Kind.UPSAMPLE_BILINEAR: 4,
    Kind.UPSAMPLE_NEAREST: 1,
    Kind.ADAPTIVE_POOL2D: 1,
}

# Softmax: maximum, difference, exponential, sum, quotient. A norm: mean (1), variance (3),
# difference and quotient (2), scale and shift (2). A bilinear sample: four products and sums.
_STRICT: dict[Kind, int] = (
    dict.fromkeys(Kind, 1)
    | dict.fromkeys(MULTIPLY_ADDS, 2)
    | {
        Kind.NORM: 8,
        Kind.NORM_PLAIN: 6,
        Kind.NORM_FIXED: 4,
        Kind.NORM_FIXED_PLAIN: 2,
        Kind.NORM_RMS: 4,
        Kind.SAMPLE: 8,
        Kind.UPSAMPLE_BILINEAR: 8,
        Kind.UPSAMPLE_NEAREST: 0,
        Kind.UPSAMPLE_OTHER: 8,
        Kind.SOFTMAX: 5,
        Kind.COMPLEX_PRODUCT: 2,
    }
)

# By classes of the modules that mmcv hooks. A module that stands for a 1x1 convolution
# (`datbench.models.layers.Pointwise`) runs `linear`.
_HOOKS: Mapping[str, Mapping[Kind, int]] = {
    "Conv1d Conv2d Conv3d ConvTranspose2d": dict.fromkeys(
        (Kind.CONV, Kind.CONV_BIAS, Kind.LINEAR, Kind.LINEAR_BIAS), 1
    ),
    "Linear": {Kind.LINEAR: 1},
    "ReLU PReLU ELU LeakyReLU ReLU6": {Kind.ELEMENTWISE: 1},
    "BatchNorm1d BatchNorm2d BatchNorm3d InstanceNorm1d InstanceNorm2d InstanceNorm3d GroupNorm "
    "LayerNorm": {
        Kind.NORM: 2,
        Kind.NORM_PLAIN: 1,
        Kind.NORM_FIXED: 2,
        Kind.NORM_FIXED_PLAIN: 1,
    },
    "MaxPool1d MaxPool2d MaxPool3d AvgPool1d AvgPool2d AvgPool3d AdaptiveMaxPool1d "
    "AdaptiveMaxPool2d AdaptiveMaxPool3d AdaptiveAvgPool1d AdaptiveAvgPool2d "
    "AdaptiveAvgPool3d": {Kind.POOL: 1, Kind.ADAPTIVE_POOL2D: 1},
    "Upsample": dict.fromkeys(
        (Kind.UPSAMPLE_BILINEAR, Kind.UPSAMPLE_NEAREST, Kind.UPSAMPLE_OTHER), 1
    ),
}

_MMDET = {name: weights for names, weights in _HOOKS.items() for name in names.split()}

CONVENTIONS: dict[str, Convention] = {
    convention.name: convention
    for convention in (
        Convention("fvcore", "MAC", "what the papers print", _FVCORE),
        Convention(
            "torch",
            "FLOP",
            "torch.utils.flop_counter: two for a multiply-add",
            dict.fromkeys(MULTIPLY_ADDS, 2),
        ),
        Convention("mmdet", "MAC", "mmcv's hooks on modules", {}, _MMDET),
        Convention("strict", "FLOP", "every arithmetic operation that ran", _STRICT),
    )
}


def convention(name: str | Convention) -> Convention:
    """The convention called `name`; one of your own is itself.

    Raises:
        UnknownNameError: there is none.
    """
    if isinstance(name, Convention):
        return name
    if name not in CONVENTIONS:
        raise UnknownNameError.among("convention", name, CONVENTIONS)
    return CONVENTIONS[name]
