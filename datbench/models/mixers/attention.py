"""The one place where attention products are computed, and what every mixer shares."""

from __future__ import annotations

from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor, nn

from ...setting import Attention, Kind
from ..declared import Declaration


class Mixer(nn.Module):
    """A token mixer: (B, H, W, C) -> (B, H, W, C).

    Args:
        dim: width C.
        heads: number of heads M; each has d = C / M channels.
    """

    attention: Attention = "eager"

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.dim = dim
        self.heads = heads
        self.head_dim = dim // heads
        self.scale = self.head_dim**-0.5

    def extra_repr(self) -> str:
        return f"dim={self.dim}, heads={self.heads}, attention={self.attention!r}"


def attend(
    q: Tensor, k: Tensor, v: Tensor, scale: float, bias: Tensor | None, kind: Attention
) -> Tensor:
    """softmax(q k^T * scale + bias) v.

    Args:
        q: (..., N, d) queries.
        k, v: (..., Ns, d) keys and values.
        bias: broadcastable to (..., N, Ns), or None.
        kind: ``eager`` keeps logits and weights as tensors; the others fuse them.

    Returns:
        (..., N, d)
    """
    if kind != "eager":
        if bias is not None and bias.ndim < q.ndim:
            bias = bias[None]  # the fused kernels take masks of rank 2 and 4 only
        return F.scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=scale)
    # A key that `matmul` must copy is copied by rows first: transposing it costs four times that.
    logits = (q * scale) @ k.contiguous().transpose(-2, -1)  # (..., N, Ns)
    if bias is not None:
        # In place where no precision is lost by it: no gradient needs what the logits were.
        logits = logits.add_(bias) if bias.dtype == logits.dtype else logits + bias
    return logits.softmax(dim=-1) @ v


def declaration(
    name: str, q: Tensor, keys: int, more: Mapping[Kind, int], *read: Tensor | None
) -> Declaration:
    """Attention as one operator: two products, a scale, a bias and a softmax over `keys` a query.

    Args:
        q: the queries, d channels in the last dimension; the result has their size.
        more: what it costs besides.
        read: what it reads besides the queries.
    """
    pairs = q.numel() // q.shape[-1] * keys
    cost = {Kind.ATTENTION: 2 * pairs * q.shape[-1], Kind.SOFTMAX: pairs, **more}
    cost[Kind.ELEMENTWISE] = q.numel() + pairs + more.get(Kind.ELEMENTWISE, 0)
    moved = sum(t.numel() * t.element_size() for t in (q, *read) if t is not None)
    return Declaration(f"datbench::{name}", cost, moved, q.numel() * q.element_size())
