"""What a DAT of 2022 is made of."""

from dataclasses import dataclass
from typing import Literal

Mixer = Literal["local", "shifted", "deformable", "pyramid", "ddetr"]
Position = Literal["relative", "fixed", "dwconv", "none"]
Offsets = Literal["learned", "zeroed", "unused"]


@dataclass(frozen=True)
class StageConfig:
    """One stage; the fields below `mixers` matter to the mixers that use them."""

    dim: int
    heads: int
    mixers: tuple[Mixer, ...]
    groups: int = 1  # deformable: groups of channels with offsets of their own
    stride: int = 1  # deformable: the r of the paper
    kernel: int = 3  # deformable: of the offset network
    offset_range: float = 2.0  # deformable: the s of the paper
    reduction: int = 1  # pyramid: the spatial-reduction ratio
    points: int = 16  # ddetr: samples per query and head


@dataclass(frozen=True)
class Dat2022Config:
    """A DAT of 2022.

    `offsets`: "learned"; "zeroed" runs the offset network and samples at the reference points (what
    the switch `no_off` of the 2022 code is after; as written it calls a method that tensors do not
    have); "unused" neither runs it nor samples, and looks the bias up by whole pixels: only so do
    the rows without offsets of Table 6 come out.
    """

    stages: tuple[StageConfig, ...]
    image_size: int = 224  # sizes the bias tables and the mask buffers
    window: int = 7
    position: Position = "relative"
    offsets: Offsets = "learned"
    conv_patches: bool = False  # DAT-T*: overlapping stem and down-sampling
    conv_ffn: bool = False  # `use_dwc_mlps`
    num_classes: int = 1000
