"""The words in which a backbone is described: frozen, typed, and free of torch.

A `Pyramid` is a stem and four `Stage`s; a stage is a width, a head count and a token mixer for
each block.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

CodeYear: TypeAlias = Literal[2022, 2023]
"""Which published code a deformable block follows: CVPR 2022 (DAT) or 2023 (DAT++)."""

PositionBias: TypeAlias = Literal["relative", "fixed", "dwconv", "none"]


@dataclass(frozen=True)
class Window:
    """Window attention (Swin), cyclically shifted by `shift` pixels if that is not zero."""

    size: int = 7
    shift: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.shift < self.size:
            raise ValueError(f"shift {self.shift} must lie in [0, {self.size})")


@dataclass(frozen=True)
class Neighborhood:
    """Neighbourhood attention (NAT): every query sees the size x size keys around it."""

    size: int = 7


@dataclass(frozen=True)
class SpatialReduction:
    """Spatial-reduction attention (PVT): keys and values from a map `ratio` times smaller."""

    ratio: int


@dataclass(frozen=True)
class Deformable:
    """Deformable multi-head attention (DMHA), paper Section 3.2."""

    groups: int  # offset groups G; each moves its own sampling points
    kernel: int  # side k of the offset network's depthwise convolution
    stride: int = 1  # r; the sampling points form a grid r times coarser than the queries
    # s, in cells of the sampling grid; None leaves offsets unbounded and bounds the positions
    # instead (tanh in 2022, clamp in 2023).
    offset_range: float | None = 2.0
    bias: PositionBias = "relative"  # or one of Table 6's alternatives
    offsets: bool = True  # False (Table 6): keys are the map itself, the bias is looked up
    code: CodeYear = 2022  # the published code whose grids and ranges to follow


@dataclass(frozen=True)
class DeformableDetr:
    """Deformable-DETR attention with `points` keys a query and head, paper Eq. 11 and Table 8."""

    points: int


Mixer: TypeAlias = Window | Neighborhood | SpatialReduction | Deformable | DeformableDetr

Stem: TypeAlias = Literal["patch", "overlap", "double", "convs"]
"""conv 4x4 stride 4 | conv 7x7 stride 4 (DAT-T*) | two convs 3x3 stride 2, LayerNorm and GELU
between (DAT++) | the two convs alone (NAT). A LayerNorm ends each."""

Downsample: TypeAlias = Literal["patch", "overlap"]
"""conv 2x2 stride 2 | conv 3x3 stride 2."""

FeedForward: TypeAlias = Literal["linear", "conv", "conv_residual"]
"""two linear layers | with a depthwise 3x3 between (2022) | with a residual one (2023)."""


@dataclass(frozen=True)
class Stage:
    """Blocks at one resolution: width C, heads M, and a mixer for each block."""

    dim: int
    heads: int
    blocks: tuple[Mixer, ...]

    def __post_init__(self) -> None:
        if self.dim % self.heads:
            raise ValueError(f"width {self.dim} is not a multiple of {self.heads} heads")
        for mixer in self.blocks:
            if isinstance(mixer, Deformable) and self.heads % mixer.groups:
                raise ValueError(f"{self.heads} heads are no multiple of {mixer.groups} groups")


@dataclass(frozen=True)
class Pyramid:
    """A whole backbone."""

    stages: tuple[Stage, Stage, Stage, Stage]
    stem: Stem = "patch"
    stem_dim: int | None = None  # where it is not the first stage's; a 1x1 convolution follows
    downsample: Downsample = "patch"
    ffn: FeedForward = "linear"
    lpu: bool = False  # a local perception unit (x + depthwise 3x3) before every block
    image_size: int = 224  # side of the training input; it fixes the size of bias tables
    expansion: int = 4
    in_chans: int = 3  # channels of the image
    classes: int = 1000  # 0: no linear layer, the pooled features are returned
    drop_path: float = 0.0  # the last block's rate of stochastic depth (linear from 0), in training
    layer_scale: float | None = None  # initial value of a learnt scale on every branch

    def map_side(self, stage: int) -> int:
        """Side of stage `stage`'s map (from 0) at the training size."""
        return (self.image_size // 4) >> stage
