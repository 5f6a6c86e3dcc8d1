"""What every deformable block samples and how it weighs it, watched while the model runs.

Nothing is computed a second time: the points are the grid that `grid_sample` was given, the
weights what softmax returned. Fused attention has no weights to see, so the model runs eagerly.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ...models.mixers import DeformableAttention, DeformableDetrAttention, Mixer
from ...models.pyramid import PyramidBackbone
from ..memory.simulate import simulate


@dataclass(frozen=True, eq=False)
class Layer:
    """One deformable block of one image. Stage and block are counted from 1.

    Args:
        own: every query has points of its own (Deformable-DETR attention).
        points: normalised (x, y) in [-1, 1]. (G, N, 2), shared by all queries; with `own`
            (M, H W, K, 2).
        weights: (M, H W, N), with `own` (M, H W, K); None where they were not asked for.
    """

    stage: int
    block: int
    height: int
    width: int
    heads: int
    own: bool
    points: Tensor
    weights: Tensor | None

    @property
    def groups(self) -> int:
        """Sets of points: offset groups, or heads where each moves its own."""
        return int(self.points.shape[0])


def places(backbone: PyramidBackbone) -> list[tuple[int, int, nn.Module]]:
    """Stage, block and module of every deformable attention, in the order in which they run."""
    found = []
    for s, stage in enumerate(backbone.stages, 1):
        for b, block in enumerate(stage.blocks, 1):  # type: ignore[arg-type]
            if samples(block.mixer):
                found.append((s, b, block.mixer))
    return found


def samples(mixer: nn.Module) -> bool:
    """Whether it has points to show; a variant without offsets samples nothing."""
    if isinstance(mixer, DeformableAttention):
        return mixer.config.offsets
    return isinstance(mixer, DeformableDetrAttention)


def layers(
    backbone: PyramidBackbone, image: Tensor, weights: Container[tuple[int, int]] | None = None
) -> list[Layer]:
    """Run the backbone on one image (1, 3, H, W), and return its deformable blocks in order.

    The model is run as it is (`train()` or `eval()`), with eager attention, and is unchanged
    afterwards.

    Args:
        weights: stage and block of those whose attention weights are kept; of all without. At
            large sizes they are most of the memory.
    """
    with torch.no_grad(), _eager(backbone), Watcher(backbone, weights) as watcher:
        backbone(image)
    return watcher.layers


def bytes_to_record(
    backbone: PyramidBackbone, image: Tensor, weights: Container[tuple[int, int]] | None = None
) -> int:
    """The most that `layers` and scores made of what it returns hold at once, simulated.

    Args:
        backbone, image: on meta.
    """
    with _eager(backbone), Watcher(backbone, weights) as watcher:
        trace = simulate(backbone, image, mode="inference")
    scored = [layer.weights.numel() for layer in watcher.layers if layer.weights is not None]
    # One block at a time is scored, in float64, when all have been recorded.
    fixed = sum(p.nbytes for p in (*backbone.parameters(), *backbone.buffers()))
    after = fixed + 4 * sum(scored) + 8 * max(scored, default=0)
    return max(trace.peak.amount, after)


class Watcher(TorchFunctionMode):
    """Sees the calls of `grid_sample` and softmax inside deformable attention."""

    def __init__(
        self, backbone: PyramidBackbone, weights: Container[tuple[int, int]] | None
    ) -> None:
        super().__init__()
        self.layers: list[Layer] = []
        self._weights = weights
        self._places = places(backbone)
        self._inside = self._keeps = False
        self._points: Tensor | None = None
        self._seen: Tensor | None = None

    def __enter__(self) -> Watcher:
        self._handles = [
            handle
            for stage, block, mixer in self._places
            for handle in (
                mixer.register_forward_pre_hook(self._enter(stage, block)),
                mixer.register_forward_hook(self._leave(stage, block)),
            )
        ]
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

    def _enter(self, stage: int, block: int) -> Callable[[nn.Module, Any], None]:
        def enter(module: nn.Module, args: Any) -> None:
            self._inside, self._points, self._seen = True, None, None
            self._keeps = self._weights is None or (stage, block) in self._weights

        return enter

    def _leave(self, stage: int, block: int) -> Callable[[nn.Module, Any, Any], None]:
        def leave(module: nn.Module, args: Any, output: Any) -> None:
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

        return leave


@contextmanager
def _eager(backbone: PyramidBackbone) -> Iterator[None]:
    mixers = [mixer for mixer in backbone.modules() if isinstance(mixer, Mixer)]
    before = [(mixer, mixer.attention) for mixer in mixers]
    try:
        for mixer, _ in before:
            mixer.attention = "eager"
        yield
    finally:
        for mixer, attention in before:
            mixer.attention = attention
