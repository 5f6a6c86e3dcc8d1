"""Values that every part of datbench shares. Frozen, typed, and free of torch."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
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


MemoryMode = Literal["inference", "train-forward", "train", "step"]
"""Without gradients; the forward with what autograd keeps; the backward after it; a full step,
which ends with the optimizer's.
"""


MEMORY_MODES: tuple[MemoryMode, ...] = ("inference", "train-forward", "train", "step")


WITH_BACKWARD: tuple[MemoryMode, ...] = ("train", "step")


Optimizer = Literal["sgd", "sgd-momentum", "adamw"]


OPTIMIZERS: tuple[Optimizer, ...] = ("sgd", "sgd-momentum", "adamw")


Autocast = Literal["bfloat16", "float16"]


AUTOCASTS: tuple[Autocast, ...] = ("bfloat16", "float16")


Checkpointing = Literal["block"]


CHECKPOINTINGS: tuple[Checkpointing, ...] = ("block",)


@dataclass(frozen=True)
class Recipe:
    """How a model is trained besides its mode and setting; None is without.

    Args:
        optimizer: of a full step; there None is AdamW.
        autocast: operators that CUDA's autocast runs in this type are run in it.
        checkpointing: what is run again in the backward instead of being kept.
    """

    optimizer: Optimizer | None = None
    autocast: Autocast | None = None
    checkpointing: Checkpointing | None = None

    def of(self, mode: MemoryMode) -> Recipe:
        """The recipe with the optimizer that this mode has.

        Raises:
            UsageError: the mode has no use for a part of it.
        """
        if mode == "step":
            return replace(self, optimizer=self.optimizer or "adamw")
        if self.optimizer is not None:
            raise UsageError(f"the mode {mode} makes no optimizer's step; use the mode step.")
        if self.checkpointing is not None and mode == "inference":
            raise UsageError("checkpointing saves what training keeps; inference keeps nothing.")
        return self


PLAIN = Recipe()
"""Without any of it."""


TimeMode = Literal["infer", "train"]
"""A forward without gradients; or forward, backward and a step of SGD."""


TIME_MODES: tuple[TimeMode, ...] = ("infer", "train")


@dataclass(frozen=True)
class How:
    """How a model is run and timed, beside its `Setting`.

    Args:
        threads: that an operator runs with on a CPU; None for as many as torch takes by itself.
        compile: through `torch.compile`; compiling is no part of any sample.
        channels_last: weights and images in the memory format of that name.
        flush: evict the GPU's level-2 cache before every sample.
        budget: seconds of one process's timing, its warm-up included.
        width: of the median's 95 % interval, relative to the median, that ends the sampling.
    """

    mode: TimeMode = "infer"
    threads: int | None = None
    compile: bool = False
    channels_last: bool = False
    flush: bool = False
    budget: float = 5.0
    width: float = 0.02
