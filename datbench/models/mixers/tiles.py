"""Attention in tiles of a map whose size is not known while a program is made of the model.

`torch.export` and the tracer run a model once, with symbols for sizes. A number of tiles could be
1 there, which torch tells from any other number: the program would then be right either for
one tile or for several. So heads and tiles are one axis here, and what a tile holds is computed
from its number. The mixers take this way only then; the figures are of the other.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

_ASKED = tuple(map(int, torch.__version__.split(".")[:2])) >= (2, 8)
"""Whether the compiler tells a symbol; where it does not, it makes a program for each size."""


def vary(*sizes: int) -> bool:
    """Whether these sizes are symbols: a way that only saves work must not be chosen by them."""
    if torch.compiler.is_dynamo_compiling():  # where a symbol is called an int
        from torch.fx.experimental.symbolic_shapes import has_static_value

        return _ASKED and not all(has_static_value(size) for size in sizes)
    return not all(isinstance(size, int) for size in sizes)


def at_least(least: int, size: float | Tensor) -> Any:
    """The larger one; the tracer's sizes are tensors, of which it would keep one."""
    return size.clamp(min=least) if isinstance(size, Tensor) else max(least, size)


class Tiling:
    """n tiles of `side` x `side` pixels, for each of M heads, on a map (h, w) that they cover.

    Attributes:
        rows, cols: tiles along either side; n is their product.
        head, top, left: (M n, 1) each tile's head and first pixel.
    """

    def __init__(self, heads: int, h: int, w: int, side: int, device: torch.device) -> None:
        self.heads, self.side = heads, side
        # Of positive numbers: ONNX rounds a quotient towards zero.
        self.rows, self.cols = (h + side - 1) // side, (w + side - 1) // side
        self.tiles = self.rows * self.cols
        tile = torch.arange(heads * self.tiles, device=device)[:, None]
        # By products and differences: ONNX's exporter knows no remainder by a symbol.
        self.head = tile // self.tiles
        row = tile // self.cols  # of all heads' rows
        self.top = (row - self.head * self.rows) * side
        self.left = (tile - row * self.cols) * side

    def gather(self, x: Tensor, rows: Tensor, cols: Tensor) -> Tensor:
        """Pixels (M n, P) of a map (B, H, W, M, d) for every tile: (B, M n, P, d)."""
        _, h, w, _, _ = x.shape
        index = (self.head * h + rows) * w + cols
        x = x.permute(0, 3, 1, 2, 4).flatten(1, 3)  # (B, M H W, d)
        found = x.index_select(1, index.flatten())
        return found.view(x.shape[0], -1, index.shape[1], x.shape[2])

    def join(self, x: Tensor) -> Tensor:
        """The heads' pixels side by side, tile after tile: (B, M n, P, d) -> (B, n P, M d)."""
        # Flattened first: M n alone could be M, and would be taken for it.
        x = x.flatten(1, 2).view(x.shape[0], self.heads, -1, x.shape[3])
        return x.transpose(1, 2).flatten(2)

    def place(self, x: Tensor, rows: Tensor, cols: Tensor) -> Tensor:
        """The map (B, h, w, C) of the tiles' pixels, (B, n side^2, C).

        Args:
            rows, cols: (h,), (w,) where the map's pixels are among the tiles' pixels.
        """
        side = self.side
        tile = (rows // side * self.cols)[:, None] + cols // side  # (h, w)
        index = tile * side**2 + (rows % side * side)[:, None] + cols % side
        return x.index_select(1, index.flatten()).view(x.shape[0], *index.shape, -1)

    def pixels(self, side: int) -> tuple[Tensor, Tensor]:
        """(M n, side^2) each: rows and columns of a square, from every tile's first pixel."""
        along = torch.arange(side**2, device=self.head.device)
        return self.top + along // side, self.left + along % side
