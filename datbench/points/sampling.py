"""What every deformable block samples and how it weighs it, watched while the model runs.

Nothing is computed a second time: the points are the grid that `grid_sample` was given, the
weights what softmax returned. Fused attention has no weights to see, so the model runs eagerly.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ..memory.simulation import simulate
from ..models.mixers.attention import Mixer
from ..models.mixers.deformable import DeformableAttention
from ..models.mixers.deformable_detr import DeformableDetrAttention
from ..models.pyramid import PyramidBackbone

Places: TypeAlias = Container[tuple[int, int]]
"""Stage and block of some deformable blocks."""


@dataclass(frozen=True, eq=False)
class Layer:
    """One deformable block of one image. Stage and block are counted from 1."""

    stage: int
    block: int
    height: int
    width: int
    heads: int
    own: bool  # every query has points of its own (Deformable-DETR attention)
    points: Tensor  # normalised (x, y) in [-1, 1]: (G, N, 2) for all queries; own (M, H W, K, 2)
    weights: Tensor | None  # (M, H W, N), own (M, H W, K); None where they were not asked for

    @property
    def groups(self) -> int:
        """Sets of points: offset groups, or heads where each moves its own."""
        return int(self.points.shape[0])


def places(backbone: PyramidBackbone) -> list[tuple[int, int, nn.Module]]:
    """Stage, block and module of every deformable attention, in the order in which they run."""
    return [
        (s, b, block.mixer)
        for s, stage in enumerate(backbone.stages, 1)
        for b, block in enumerate(stage.blocks, 1)  # type: ignore[arg-type]
        if samples(block.mixer)
    ]


def samples(mixer: nn.Module) -> bool:
    """Whether it has points to show; a variant without offsets samples nothing."""
    if isinstance(mixer, DeformableAttention):
        return mixer.config.offsets
    return isinstance(mixer, DeformableDetrAttention)


def layers(backbone: PyramidBackbone, image: Tensor, weights: Places | None = None) -> list[Layer]:
    """Run the backbone on one image (1, 3, H, W), and return its deformable blocks in order.

    The model is run as it is (`train()` or `eval()`), with eager attention, and is unchanged
    afterwards.

    Args:
        weights: stage and block of those whose attention weights are kept; of all without. At
            large sizes they are most of the memory.
    """
    with torch.no_grad(), _eager(backbone), SamplingWatcher(backbone, weights) as watcher:
        backbone(image)
    return watcher.layers


def bytes_to_record(backbone: PyramidBackbone, image: Tensor, weights: Places | None = None) -> int:
    """The most that `layers` and scores made of what it returns hold at once, simulated.

    Args:
        backbone, image: on meta.
    """
    with _eager(backbone), SamplingWatcher(backbone, weights) as watcher:
        trace = simulate(backbone, image, mode="inference")
    scored = [layer.weights.numel() for layer in watcher.layers if layer.weights is not None]
    # One block at a time is scored, in float64, when all have been recorded.
    fixed = sum(p.nbytes for p in (*backbone.parameters(), *backbone.buffers()))
    after = fixed + 4 * sum(scored) + 8 * max(scored, default=0)
    return max(trace.peak.amount, after)


class SamplingWatcher(TorchFunctionMode):
    """Sees the calls of `grid_sample` and softmax inside deformable attention."""

    def __init__(self, backbone: PyramidBackbone, weights: Places | None) -> None:
        super().__init__()
        self.layers: list[Layer] = []
        self._weights = weights
        self._places = places(backbone)
        self._inside = self._keeps = False
        self._points: Tensor | None = None
        self._seen: Tensor | None = None

    def __enter__(self) -> SamplingWatcher:
        self._handles = []
        for stage, block, mixer in self._places:
            enter, leave = partial(self._enter, stage, block), partial(self._leave, stage, block)
            self._handles.append(mixer.register_forward_pre_hook(enter))
            self._handles.append(mixer.register_forward_hook(leave))
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *exc_info: Any) -> None:
        super().__exit__(*exc_info)  # type: ignore[no-untyped-call]
        for handle in self._handles:
            handle.remove()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if self._inside:
            if func is F.grid_sample and self._points is None:
                self._points = args[1]  # the second is the bias table's
            elif func is Tensor.softmax and self._keeps:
                self._seen = result
        return result

    def _enter(self, stage: int, block: int, module: nn.Module, args: Any) -> None:
        self._inside, self._points, self._seen = True, None, None
        self._keeps = self._weights is None or (stage, block) in self._weights

    def _leave(self, stage: int, block: int, module: nn.Module, args: Any, output: Any) -> None:
        self._inside = False
        assert self._points is not None
        _, h, w, _ = args[0].shape
        own = isinstance(module, DeformableDetrAttention)
        heads = module.heads
        assert isinstance(heads, int)
        # (G, Hk, Wk, 2) -> (G, N, 2); of Deformable-DETR attention (M, H W, K, 2)
        points = self._points if own else self._points.flatten(1, 2)
        seen = self._seen
        if seen is not None:
            # (1, H W, M, K) -> (M, H W, K), or (1, M, H W, N) -> (M, H W, N)
            seen = seen[0].transpose(0, 1) if own else seen[0]
        self.layers.append(Layer(stage, block, h, w, heads, own, points, seen))


@contextmanager
def _eager(backbone: PyramidBackbone) -> Iterator[None]:
    mixers = [mixer for mixer in backbone.modules() if isinstance(mixer, Mixer)]
    before = [mixer.attention for mixer in mixers]
    try:
        for mixer in mixers:
            mixer.attention = "eager"
        yield
    finally:
        for mixer, attention in zip(mixers, before, strict=True):
            mixer.attention = attention


# How much each sampling point weighs, in one block and over several.
#
# DAT's Figure 5 shows "the most important keys across multiple deformable attention layers by
# propagating their attention weights", like the figures of deformable convolutions, and gives no
# formula. Here:
#
# - In the last deformable block every query counts the same (or one alone counts): these are the
# queries' shares, and add up to 1.
# - A point's score is the sum over the queries of share times attention weight, in the mean over
#   the heads of its group.
# - A point reads four cells of the map with bilinear weights; it passes its score on to them by
#   these weights. The mean over the groups is the queries' shares of the deformable block before,
#   so that a point there scores by what it gave to points that count later.
# - Between stages a cell's share is divided equally among the cells that it was made of.
#
# What stands between (local attention, feed-forward layers, residual branches) moves nothing.
# What a point reads outside the map is lost.


@dataclass(frozen=True)
class Scored:
    """Scores of one block's points: (G, M / G, N), for points (G, N, 2)."""

    layer: Layer
    points: Tensor
    scores: Tensor


def everyone(layer: Layer) -> Tensor:
    """Equal shares of all queries, (H W)."""
    cells = layer.height * layer.width
    return torch.full((cells,), 1 / cells, dtype=torch.float64)


def one(layer: Layer, row: int, column: int) -> Tensor:
    """The whole share to one query, (H W)."""
    shares = torch.zeros(layer.height * layer.width, dtype=torch.float64)
    shares[row * layer.width + column] = 1.0
    return shares


def scored(layer: Layer, shares: Tensor) -> Scored:
    """The points of a block with each head's scores, which add up to the shares' sum."""
    assert layer.weights is not None
    if layer.own:
        weights = layer.weights.double()
        asking = shares.nonzero()[:, 0]  # the points of others weigh nothing
        points = layer.points[:, asking].flatten(1, 2)  # (M, Q K, 2)
        scores = (weights[:, asking] * shares[asking, None]).flatten(1)  # (M, Q K)
        return Scored(layer, points, scores[:, None])
    # A head at a time: in float64 all of them would take twice what was recorded.
    scores = torch.stack([shares @ head.double() for head in layer.weights])  # (M, N)
    return Scored(layer, layer.points, scores.view(layer.groups, -1, scores.shape[-1]))


def landed(points: Tensor, weights: Tensor, height: int, width: int) -> Tensor:
    """What points (N, 2) with weights (N) give to the cells that they read, (height, width)."""
    x = (points[:, 0].double() + 1) / 2 * (width - 1)  # as align_corners=True has it
    y = (points[:, 1].double() + 1) / 2 * (height - 1)
    left, top = x.floor(), y.floor()
    given = torch.zeros(height * width, dtype=torch.float64)
    for down, right in product((0, 1), repeat=2):
        column, row = left + right, top + down
        part = (1 - (x - column).abs()) * (1 - (y - row).abs()) * weights
        inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
        index = (row * width + column)[inside].long()
        given.index_add_(0, index, part[inside])
    return given.view(height, width)


def passed_on(found: Scored) -> Tensor:
    """The queries' shares of the block before, on the same map: (H, W)."""
    layer = found.layer
    means = found.scores.mean(1)  # (G, N)
    groups = zip(found.points, means, strict=True)
    maps = [landed(points, scores, layer.height, layer.width) for points, scores in groups]
    return torch.stack(maps).mean(0)


def spread(shares: Tensor, height: int, width: int) -> Tensor:
    """Shares (H, W) divided among the cells of a finer map, (height, width); their sum stays."""
    rows = torch.arange(height) * shares.shape[0] // height
    columns = torch.arange(width) * shares.shape[1] // width
    down = torch.bincount(rows, minlength=shares.shape[0])[rows]
    right = torch.bincount(columns, minlength=shares.shape[1])[columns]
    return shares[rows][:, columns] / (down[:, None] * right[None, :])


def propagated(layers: Sequence[Layer], shares: Tensor) -> list[Scored]:
    """Every block's points with scores that come down from the last block, in the order of run.

    Args:
        shares: of the last block's queries, (H W).
    """
    found: list[Scored] = []
    for number in reversed(range(len(layers))):
        here = scored(layers[number], shares)
        found.append(here)
        if number:
            before = layers[number - 1]
            shares = spread(passed_on(here), before.height, before.width).flatten()
    return found[::-1]
