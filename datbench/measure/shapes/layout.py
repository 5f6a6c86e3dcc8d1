"""Empty meta tensors in the layouts that torch's kernels give their results."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

META = torch.device("meta")


def contiguous(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """Row order: the last dimension fastest."""
    return torch.empty(tuple(shape), dtype=dtype, device=META)


def channels_last(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """(N, C, H, W) with the channels fastest."""
    return torch.empty(tuple(shape), dtype=dtype, device=META, memory_format=torch.channels_last)


def broadcast(*shapes: Sequence[int]) -> tuple[int, ...]:
    """`torch.broadcast_shapes` for shapes that do broadcast; torch's own loads sympy."""
    rank = max(map(len, shapes))
    padded = [(1,) * (rank - len(shape)) + tuple(shape) for shape in shapes]
    return tuple(max(sizes) if 0 not in sizes else 0 for sizes in zip(*padded, strict=True))


def elementwise(dtype: torch.dtype, *operands: Tensor) -> Tensor:
    """The result of an elementwise operator: broadcast, and laid out as torch's iterator does it.

    Its rule (ATen `TensorIterator`): dimensions are sorted by the operands' strides, the first
    operand that tells two dimensions apart deciding; where none does, row order stays.
    """
    shape: tuple[int, ...] = operands[0].shape
    if len(operands) > 1:
        shape = broadcast(*(x.shape for x in operands))
    if all(x.shape == shape and x.is_contiguous() for x in operands):
        return contiguous(shape, dtype)
    rank = len(shape)
    strides = [_broadcast_strides(x, shape) for x in operands]
    order = list(range(rank - 1, -1, -1))  # fastest first
    for i in range(1, rank):
        at = i
        for before in range(i - 1, -1, -1):
            swap = _compare(strides, shape, order[before], order[at])
            if swap > 0:
                order[before], order[at] = order[at], order[before]
                at = before
            elif swap < 0:
                break
    step, result = 1, [0] * rank
    for dim in order:
        result[dim] = step
        step *= shape[dim]
    return torch.empty_strided(shape, result, dtype=dtype, device=META)


def _broadcast_strides(x: Tensor, shape: Sequence[int]) -> list[int]:
    lead = len(shape) - x.ndim
    return [0] * lead + [
        0 if size == 1 != shape[lead + i] else stride
        for i, (size, stride) in enumerate(zip(x.shape, x.stride(), strict=True))
    ]


def _compare(strides: list[list[int]], shape: Sequence[int], one: int, two: int) -> int:
    """Positive if dimension `two` is faster than `one`, negative if slower, 0 if undecided."""
    for stride in strides:
        if stride[one] == 0 or stride[two] == 0:
            continue
        if stride[one] != stride[two]:
            return 1 if stride[one] > stride[two] else -1
        if shape[one] > shape[two]:
            return 1
    return 0
