"""Whole detectors and segmentors, with the dense forward that published FLOPs are counted on.

It is the dummy forward of mmdetection 2.x and mmsegmentation: all maps and heads, 1000 proposals
to each box head and 100 to each mask head, and neither decoding nor suppression of boxes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from weakref import WeakKeyDictionary

from torch import Tensor, nn

from ...errors import UsageError
from ..layers import image_channels
from .heads import MIN_SIDE
from .maps import checked, is_channels_last
from .modules import (
    BOX_SIDE,
    FPN,
    MASK_SIDE,
    RPN,
    AuxiliaryHead,
    BoxHead,
    MaskHead,
    Regions,
    Resize,
    RetinaHead,
    SemanticFPNHead,
    UperHead,
    proposals,
)

PROPOSALS, MASKS = 1000, 100  # to each box head and mask head in mmdetection's `forward_dummy`

Channels = tuple[int, ...]

# Not in the module: a count leaves that as it was.
_shapes: WeakKeyDictionary[nn.Module, tuple[tuple[int, ...], ...]] = WeakKeyDictionary()


class FourMaps(nn.Module):
    """A backbone whose maps are checked: (B, 3, H, W) -> four (B, C_i, H/s, W/s), s from 4 to 32.

    A detector or segmentor adds a head to it.

    Args:
        name: of the whole, for messages.
        backbone: gives four maps of `channels`.
        normed: with a LayerNorm for each map from `start`, which the backbone itself leaves out.
        start: the first map that is used, from 0.

    `shapes` are those of the maps of the last run, each (B, C, H, W).
    """

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """The shapes of the maps of the last run; none before."""
        return _shapes.get(self, ())

    def __init__(
        self,
        name: str,
        backbone: nn.Module,
        channels: Channels,
        normed: bool = False,
        start: int = 0,
    ) -> None:
        super().__init__()
        self.name = name
        self.channels = channels
        self.in_chans = image_channels(backbone)
        self.backbone = backbone
        norms = (nn.LayerNorm(c) if i >= start else nn.Identity() for i, c in enumerate(channels))
        self.norms = nn.ModuleList(norms) if normed else None
        self.add_head(channels, start)

    def add_head(self, channels: Channels, start: int) -> None:
        """Make what stands on the maps; here nothing."""

    def maps(self, x: Tensor) -> list[Tensor]:
        """The four maps.

        Raises:
            UsageError: the input is too small, or the backbone gives other maps.
        """
        height, width = x.shape[-2:]
        if min(height, width) < MIN_SIDE:
            raise UsageError(
                f"{self.name}: input {width}x{height} is too small: both sides need at least "
                f"{MIN_SIDE} pixels."
            )
        out = self.backbone(x)
        maps = checked(self.name, out, self.channels, x, is_channels_last(self.backbone))
        _shapes[self] = tuple(tuple(m.shape) for m in maps)
        if self.norms is None:
            return maps
        last = [m.permute(0, 2, 3, 1) for m in maps]  # (B, H, W, C)
        normed = [norm(m) for norm, m in zip(self.norms, last, strict=True)]
        return [m.permute(0, 3, 1, 2) for m in normed]

    def forward(self, x: Tensor) -> Any:
        return self.maps(x)


class RetinaNet(FourMaps):
    """``scores`` (B, 720, H/s, W/s) and ``boxes`` (B, 36, H/s, W/s), for s from 8 to 128.

    Source: mmdetection 2.x, retinanet_r50_fpn.
    """

    def add_head(self, channels: Channels, start: int) -> None:
        self.neck = FPN(channels, start=start, extra="convs")
        self.head = RetinaHead()

    def forward(self, x: Tensor) -> Any:
        return self.head(self.neck(self.maps(x)))


class MaskRCNN(FourMaps):
    """Proposals on five levels, and scores, boxes and masks of the boxes that stand for them.

    Returns ``proposal_scores`` (B, 3, H/s, W/s) and ``proposal_boxes`` (B, 12, H/s, W/s) for s
    from 4 to 64, ``scores`` (1000 B, 81), ``boxes`` (1000 B, 320) and ``masks`` (100 B, 80, 28,
    28), one of each for every stage. Source: mmdetection 2.x, mask_rcnn_r50_fpn.
    """

    convs, linears = 0, 2  # layers of each box head
    stages = 1  # box heads and mask heads, one after another

    def add_head(self, channels: Channels, start: int) -> None:
        self.neck = FPN(channels, extra="pool")
        self.rpn_head = RPN()
        self.box_regions = Regions(BOX_SIDE)
        self.mask_regions = Regions(MASK_SIDE)
        heads = [BoxHead(self.convs, self.linears) for _ in range(self.stages)]
        self.box_heads = nn.ModuleList(heads)
        self.mask_heads = nn.ModuleList(MaskHead() for _ in range(self.stages))

    def forward(self, x: Tensor) -> dict[str, list[Tensor]]:
        height, width = x.shape[-2:]
        levels = self.neck(self.maps(x))
        out: dict[str, list[Tensor]] = self.rpn_head(levels)
        boxes, finer = proposals(PROPOSALS, width, height), levels[:-1]
        found = [head(self.box_regions(finer, boxes, width)) for head in self.box_heads]
        out["scores"] = [scores for scores, _ in found]
        out["boxes"] = [deltas for _, deltas in found]
        few = boxes[:MASKS]
        out["masks"] = [head(self.mask_regions(finer, few, width)) for head in self.mask_heads]
        return out


class CascadeMaskRCNN(MaskRCNN):
    """Three stages, each with four convolutions and one linear layer in its box head.

    Source: Swin's cascade_mask_rcnn_swin_fpn, on mmdetection 2.x.
    """

    convs, linears = 4, 1
    stages = 3


class SemanticFPN(FourMaps):
    """Logits (B, 150, H, W). Source: mmsegmentation, fpn_r50."""

    def add_head(self, channels: Channels, start: int) -> None:
        self.neck = FPN(channels)
        self.decode_head = SemanticFPNHead()
        self.resize = Resize()

    def forward(self, x: Tensor) -> Any:
        return self.resize(self.decode_head(self.neck(self.maps(x))), x)


class UperNet(FourMaps):
    """Logits (B, 150, H, W); in training, the auxiliary head's too.

    Source: Swin's upernet_swin, on mmsegmentation.
    """

    def add_head(self, channels: Channels, start: int) -> None:
        self.decode_head = UperHead(channels)
        self.auxiliary_head = AuxiliaryHead(channels[2])
        self.resize = Resize()

    def forward(self, x: Tensor) -> Any:
        maps = self.maps(x)
        logits = self.resize(self.decode_head(maps), x)
        if not self.training:
            return logits
        return logits, self.resize(self.auxiliary_head(maps[2]), x)


MODULES: Mapping[str, type[FourMaps]] = {
    "retinanet": RetinaNet,
    "mask_rcnn": MaskRCNN,
    "cascade_mask_rcnn": CascadeMaskRCNN,
    "semantic_fpn": SemanticFPN,
    "upernet": UperNet,
}
"""By the names of `HEADS`."""
