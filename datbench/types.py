"""Values that every part of datbench shares. Frozen, typed, and free of torch."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from typing import Literal

from .errors import ResolutionError, UsageError

Attention = Literal["eager", "sdpa"]
"""How attention products are computed: with the tensors of the published code, or fused."""

ATTENTIONS: tuple[Attention, ...] = ("eager", "sdpa")

DTYPES: tuple[str, ...] = ("float32", "float64", "bfloat16", "float16")

MIN_SIDE = 32
"""Smallest side in pixels: stride 32 leaves one pixel in the last stage."""

MAX_SIDE = 32768
"""Largest side in pixels; a typing error above this would only overflow."""

MAX_BATCH = 1 << 20


@dataclass(frozen=True)
class Resolution:
    """Input size in pixels. Written ``WIDTHxHEIGHT``, as COCO's 1280x800 is."""

    width: int
    height: int

    def __post_init__(self) -> None:
        for side in (self.width, self.height):
            if not MIN_SIDE <= side <= MAX_SIDE:
                raise ResolutionError(
                    f"resolution {self.width}x{self.height}: each side must lie between "
                    f"{MIN_SIDE} and {MAX_SIDE} pixels."
                )

    @classmethod
    def parse(cls, text: str) -> Resolution:
        """Read ``224`` or ``1280x800`` (width, then height).

        Raises:
            ResolutionError: the text has another form, or a side is out of range.
        """
        match = re.fullmatch(r"([0-9]{1,9})(?:[xX×]([0-9]{1,9}))?", text.strip())
        if match is None:
            raise ResolutionError(
                f"resolution {text!r} is not understood; write WIDTHxHEIGHT such as 1280x800, "
                "or one number for a square."
            )
        width = int(match[1])
        return cls(width, int(match[2]) if match[2] else width)

    def __str__(self) -> str:
        return f"{self.width}x{self.height}"


@dataclass(frozen=True)
class Setting:
    """What a figure belongs to besides the model: the input and how the model is run.

    A resolution of ``None`` means the size that the variant was trained at.
    """

    resolution: Resolution
    batch: int = 1
    dtype: str = "float32"
    device: str = "meta"
    attention: Attention = "eager"
    backward: bool = False
    features: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.batch <= MAX_BATCH:
            raise UsageError(f"batch {self.batch}: write a number from 1 to {MAX_BATCH}.")
        for value, known, what in (
            (self.dtype, DTYPES, "dtype"),
            (self.attention, ATTENTIONS, "attention"),
        ):
            if value not in known:
                raise UsageError(f"{what} {value!r}: choose one of {', '.join(known)}.")


class Kind(str, Enum):
    """Kinds of work. Each names its unit; a convention gives each kind a weight."""

    CONV = "conv"  # multiply-adds
    CONV_BIAS = "conv_bias"  # additions
    LINEAR = "linear"  # multiply-adds
    LINEAR_BIAS = "linear_bias"  # additions
    MATMUL = "matmul"  # multiply-adds
    ATTENTION = "attention"  # multiply-adds inside a fused or declared attention
    RECURRENT = "recurrent"  # multiply-adds
    NORM = "norm"  # elements normalised over their own statistics, scale and shift
    NORM_PLAIN = "norm_plain"  # the same without scale and shift
    NORM_FIXED = "norm_fixed"  # elements normalised with stored statistics, scale and shift
    NORM_FIXED_PLAIN = "norm_fixed_plain"
    NORM_RMS = "norm_rms"  # elements
    SAMPLE = "sample"  # output elements of bilinear sampling at given points
    UPSAMPLE_BILINEAR = "upsample_bilinear"  # output elements
    UPSAMPLE_NEAREST = "upsample_nearest"  # output elements
    UPSAMPLE_OTHER = "upsample_other"  # output elements
    ADAPTIVE_POOL2D = "adaptive_avg_pool2d"  # input elements
    POOL = "pool"  # input elements
    SOFTMAX = "softmax"  # elements
    ELEMENTWISE = "elementwise"  # output elements
    REDUCTION = "reduction"  # input elements
    FFT = "fft"  # real additions and multiplications, 5 N log2 N

    def __str__(self) -> str:
        return self.value


MULTIPLY_ADDS: frozenset[Kind] = frozenset(
    {Kind.CONV, Kind.LINEAR, Kind.MATMUL, Kind.ATTENTION, Kind.RECURRENT}
)
"""The kinds whose unit is one multiply-add (MAC)."""
