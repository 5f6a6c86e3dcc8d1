"""Window attention with relative position bias, plain and shifted (Swin; DAT Section 3.3).

A map that is not a multiple of the window is padded with zeros on the right and bottom, unmasked,
and projected padded, as the published detection code does (LeapLabTHU/DAT-Detection,
`dat_blocks.py`); the shift's mask is made for the padded size.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...setting import Kind
from ..config import Window
from ..declared import Declaration, declared
from .attention import Mixer, attend
from .chunks import chunks
from .tiles import Tiling, vary

MASKED = -100.0
"""What the published code adds to a logit between two regions (not minus infinity)."""


class WindowAttention(Mixer):
    """(B, H, W, C) -> (B, H, W, C)."""

    relative_position_index: Tensor
    shift_mask: Tensor | None

    def __init__(self, dim: int, heads: int, config: Window, map_side: int) -> None:
        super().__init__(dim, heads)
        self.size = config.size
        self.shift = config.shift
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)
        span = 2 * config.size - 1
        self.bias_table = nn.Parameter(torch.zeros(span * span, heads))
        nn.init.trunc_normal_(self.bias_table, std=0.01)
        # Buffers are architecture, not state: they are rebuilt, never loaded.
        self.register_buffer(
            "relative_position_index", relative_index(config.size), persistent=False
        )
        padded = map_side + -map_side % config.size
        mask = _shift_mask(padded, padded, config.size, config.shift) if config.shift else None
        self.register_buffer("shift_mask", mask, persistent=False)
        self._mask_size = (padded, padded)

    def forward(self, x: Tensor) -> Tensor:
        h, w, s = x.shape[1], x.shape[2], self.size
        if vary(h, w):
            return self._in_tiles(x)
        x = F.pad(x, (0, 0, 0, -w % s, 0, -h % s)) if h % s or w % s else x
        if self.shift:
            x = x.roll((-self.shift, -self.shift), dims=(1, 2))
        rows, cols = x.shape[1] // s, x.shape[2] // s
        parts = chunks(rows, cols, self.heads * s**4)
        if self.shift and self.attention == "chunked" and len(parts) > 1:
            x = self._by_mask(x)  # (B, Hpad, Wpad, C)
        else:
            x = self._attention(x, self._masked(rows, cols) if self.shift else self._bias())
        if self.shift:
            x = x.roll((self.shift, self.shift), dims=(1, 2))
        return x[:, :h, :w]

    def _attention(self, x: Tensor, bias: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, H, W, C) for sides that are multiples of the window.

        Args:
            bias: (M, N, N) of all windows, or (nW, M, N, N).
        """
        b, h, w, c = x.shape
        s, m, d = self.size, self.heads, self.head_dim
        rows, cols = h // s, w // s
        x = x.view(b, rows, s, cols, s, c).transpose(2, 3)  # (B, rows, cols, s, s, C)
        x = x.reshape(-1, s * s, c)  # (B nW, N, C)
        qkv = self.qkv(x).view(-1, s * s, 3, m, d)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # (B nW, M, N, d) each
        if bias.ndim == 4:
            bias = bias.expand(b, -1, -1, -1, -1).flatten(0, 1)  # (B nW, M, N, N)
        x = attend(q, k, v, self.scale, bias, self.attention)  # (B nW, M, N, d)
        # Windows and heads are joined in one copy.
        x = x.view(b, rows, cols, m, s, s, d).permute(0, 1, 4, 2, 5, 3, 6)
        return self.out(x.reshape(b, h, w, c))

    def _masked(self, rows: int, cols: int) -> Tensor:
        """The bias with the shift's mask, (nW, M, N, N)."""
        return self._bias() + self._mask(rows, cols).unsqueeze(1)

    def _by_mask(self, x: Tensor) -> Tensor:
        """The same for a rolled map in which all windows but the last row and column have no mask:
        in four parts with one bias each, (M, N, N).
        """
        s, (_, h, w, _) = self.size, x.shape
        windows, bias = h // s * (w // s), self._bias()
        # Counted as one bias a window, with the mask's own making at other sizes.
        work = windows * self.heads * s**4
        if (h, w) != self._mask_size:
            work += 4 * h + 3 * w + h * w + 2 * windows * s**4
        with declared(Declaration("datbench::shift_mask", {Kind.ELEMENTWISE: work}, 0, 0)):
            # Two windows by two: without a mask, the last column's, the last row's, the corner's.
            masks = _shift_mask(2 * s, 2 * s, s, self.shift, device=x.device)
            biases = bias + masks.to(bias.dtype).unsqueeze(1)  # (4, M, N, N)
        bands = []
        for i, band in enumerate(torch.split(x, [h - s, s], 1)):
            parts = [
                self._attention(part, biases[2 * i + j])
                for j, part in enumerate(torch.split(band, [w - s, s], 2))
                if part.numel()
            ]
            bands += [torch.cat(parts, dim=2)] if parts else []
        return torch.cat(bands, dim=1)

    def _in_tiles(self, x: Tensor) -> Tensor:
        """The same for sides that are symbols: (B, H, W, C) -> (B, H, W, C)."""
        _, h, w, _ = x.shape
        s, shift = self.size, self.shift
        windows = Tiling(self.heads, h, w, s, x.device)
        rows, cols = windows.rows * s, windows.cols * s
        qkv = self.qkv(F.pad(x, (0, 0, 0, cols - w, 0, rows - h)))
        q, k, v = qkv.unflatten(-1, (3, self.heads, -1)).unbind(3)  # (B, Hpad, Wpad, M, d) each
        y, x = windows.pixels(s)  # (M nW, N) of the rolled map
        bias = self._bias()[windows.head[:, 0]]  # (M nW, N, N)
        if shift:
            label = _regions(y, rows, s, shift) * 3 + _regions(x, cols, s, shift)
            bias = bias + MASKED * (label[:, :, None] != label[:, None, :])
            y, x = _rolled(y, shift, rows), _rolled(x, shift, cols)
        q, k, v = (windows.gather(each, y, x) for each in (q, k, v))  # (B, M nW, N, d) each
        found = attend(q, k, v, self.scale, bias, self.attention)
        y, x = torch.arange(h, device=y.device), torch.arange(w, device=y.device)
        found = self.out(windows.join(found))  # (B, nW N, C)
        return windows.place(found, _rolled(y, -shift, rows), _rolled(x, -shift, cols))

    def _bias(self) -> Tensor:
        """The bias of every pair of a window, (M, N, N)."""
        pairs = self.size**2
        bias = self.bias_table[self.relative_position_index.view(-1)]  # (N N, M)
        return bias.view(pairs, pairs, self.heads).permute(2, 0, 1).contiguous()

    def _mask(self, rows: int, cols: int) -> Tensor:
        """The shift's mask (nW, N, N): the buffer at the training size, else a new one."""
        size = (rows * self.size, cols * self.size)
        if size == self._mask_size and self.shift_mask is not None:
            return self.shift_mask
        mask = _shift_mask(*size, self.size, self.shift, device=self.bias_table.device)
        return mask.to(self.bias_table.dtype)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, size={self.size}, shift={self.shift}"


def relative_index(size: int) -> Tensor:
    """(N, N) rows of the bias table: dy * (2 size - 1) + dx, both counted from 0."""
    along = torch.arange(size)
    y, x = torch.meshgrid(along, along, indexing="ij")
    y, x = y.reshape(-1), x.reshape(-1)  # (N,) each
    dy = y[:, None] - y[None, :] + size - 1
    dx = x[:, None] - x[None, :] + size - 1
    return dy * (2 * size - 1) + dx


def _regions(along: Tensor, length: int, size: int, shift: int) -> Tensor:
    """0 before `length - size`, 1 from there, 2 from `length - shift`."""
    return (along >= length - size).to(torch.int64) + (along >= length - shift)


def _rolled(along: Tensor, shift: int, length: int) -> Tensor:
    """Positions moved by `shift`, modulo the length (ONNX's exporter knows none by a symbol)."""
    moved = along + shift
    over = moved - length if shift > 0 else moved + length
    return torch.where(moved >= length if shift > 0 else moved < 0, over, moved)


def _shift_mask(
    height: int, width: int, size: int, shift: int, device: torch.device | None = None
) -> Tensor:
    """(nW, N, N): 0 inside a region of the rolled map, `MASKED` across regions."""
    y, x = torch.arange(height, device=device), torch.arange(width, device=device)
    y, x = _regions(y, height, size, shift), _regions(x, width, size, shift)
    label = y[:, None] * 3 + x[None, :]  # (H, W)
    label = label.view(height // size, size, width // size, size).transpose(1, 2)
    label = label.reshape(-1, size * size)  # (nW, N)
    differ = label[:, :, None] != label[:, None, :]
    return differ.to(torch.get_default_dtype()) * MASKED
