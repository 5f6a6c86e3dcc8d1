"""Local and shifted window attention as the 2022 code writes it (NCHW, detection padding)."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def pad_to_multiple(x: Tensor, n: int) -> Tensor:
    """Zeros on the right and the bottom of an NCHW map, up to a multiple of n."""
    bottom, right = -x.shape[2] % n, -x.shape[3] % n
    return F.pad(x, (0, right, 0, bottom)) if bottom or right else x


def relative_index(window: int) -> Tensor:
    """(n, n), n = window^2: the row of the flat bias table for every (query, key)."""
    i = torch.arange(window)
    yx = torch.stack(torch.meshgrid(i, i, indexing="ij"), -1).reshape(-1, 2)  # (n, 2)
    delta = yx[:, None] - yx[None] + window - 1  # (n, n, 2), query minus key
    return delta[..., 0] * (2 * window - 1) + delta[..., 1]


def shift_mask(h: int, w: int, window: int, shift: int, like: Tensor | None = None) -> Tensor:
    """(windows, n, n): -100 between pixels that the cyclic shift brought together, else 0."""
    device = None if like is None else like.device
    dtype = None if like is None else like.dtype
    region = torch.zeros(h, w, device=device, dtype=dtype)
    cuts = (slice(0, -window), slice(-window, -shift), slice(-shift, None))
    for i, rows in enumerate(cuts):
        for j, columns in enumerate(cuts):
            region[rows, columns] = 3 * i + j
    region = region.reshape(h // window, window, w // window, window)
    region = region.permute(0, 2, 1, 3).reshape(-1, window * window)  # (windows, n)
    differs = region[:, None] != region[:, :, None]  # (windows, n, n)
    return torch.zeros_like(differs, dtype=region.dtype).masked_fill(differs, -100.0)


class LocalAttention(nn.Module):
    """Attention inside non-overlapping windows (2022: `LocalAttention`)."""

    relative_position_index: Tensor

    def __init__(self, dim: int, heads: int, window: int) -> None:
        super().__init__()
        self.heads = heads
        self.window = window
        self.scale = (dim // heads) ** -0.5
        table = torch.empty((2 * window - 1) ** 2, heads)
        self.relative_position_bias_table = nn.Parameter(nn.init.trunc_normal_(table, std=0.01))
        self.register_buffer("relative_position_index", relative_index(window))
        self.proj_qkv = nn.Linear(dim, 3 * dim)
        self.proj_out = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        h, w = x.shape[2:]
        x = self.attend(pad_to_multiple(x, self.window), None)
        return x[:, :, :h, :w]

    def attend(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """On a map that is a multiple of the window; mask is (windows, n, n)."""
        b, c, h, w = x.shape
        s, heads = self.window, self.heads
        n, rows, columns = s * s, h // s, w // s
        x = x.reshape(b, c, rows, s, columns, s)  # pixels split into (window, place in it)
        x = x.permute(0, 2, 4, 3, 5, 1).reshape(-1, n, c)  # (B*windows, n, C)

        q, k, v = self.proj_qkv(x).chunk(3, dim=2)
        split = (-1, n, heads, c // heads)  # below: (B*windows, heads, n, d)
        q = (q * self.scale).reshape(split).permute(0, 2, 1, 3)
        k = k.reshape(split).permute(0, 2, 1, 3)
        v = v.reshape(split).permute(0, 2, 1, 3)

        attn = torch.einsum("bhmc,bhnc->bhmn", q, k)  # (B*windows, heads, n, n)
        bias = self.relative_position_bias_table[self.relative_position_index.reshape(-1)]
        bias = bias.reshape(n, n, heads).permute(2, 0, 1).contiguous()  # (heads, n, n)
        attn = attn + bias[None]
        if mask is not None:
            attn = attn.reshape(b, rows * columns, heads, n, n)  # (B, windows, heads, n, n)
            attn = attn + mask[None, :, None]
            attn = attn.reshape(-1, heads, n, n)  # (B*windows, heads, n, n)
        attn = attn.softmax(dim=3)

        x = torch.einsum("bhmn,bhnc->bhmc", attn, v)  # (B*windows, heads, n, d)
        x = self.proj_out(x.permute(0, 2, 1, 3).reshape(-1, n, c))  # (B*windows, n, C)
        x = x.reshape(b, rows, columns, s, s, c)  # back to the places of the windows
        return x.permute(0, 5, 1, 3, 2, 4).reshape(b, c, h, w)  # (B, C, H, W)


class ShiftWindowAttention(LocalAttention):
    """The same on a rolled map (2022: `ShiftWindowAttention`; the shift is ceil(window / 2))."""

    attn_mask: Tensor

    def __init__(self, dim: int, heads: int, window: int, map_size: int) -> None:
        super().__init__(dim, heads, window)
        self.shift = math.ceil(window / 2)
        self.mask_size = map_size + -map_size % window
        mask = shift_mask(self.mask_size, self.mask_size, window, self.shift)
        self.register_buffer("attn_mask", mask)

    def forward(self, x: Tensor) -> Tensor:
        h, w = x.shape[2:]
        x = pad_to_multiple(x, self.window)
        mask = self.attn_mask
        if x.shape[2:] != (self.mask_size, self.mask_size):
            mask = shift_mask(x.shape[2], x.shape[3], self.window, self.shift, like=mask)
        x = torch.roll(x, (-self.shift, -self.shift), dims=(2, 3))
        x = torch.roll(self.attend(x, mask), (self.shift, self.shift), dims=(2, 3))
        return x[:, :, :h, :w]
