"""Results of common operators on meta tensors, from shapes alone.

Torch's own meta kernels give the same answers, but many are Python reference code, the first of
which loads the compiler's stack: more time and memory than the rest of a count. A rule here
answers for the plain case and returns None for any other, which torch then answers. Shapes,
strides and dtypes are tested against real CPU kernels, operator by operator.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

ShapeRule = Callable[..., Any]
"""Called with the operator's own arguments."""

SHAPES: dict[str, ShapeRule] = {}
"""Shape rule by operator name with overload, such as ``aten::add.Tensor``."""


def rules_of(table: dict[str, ShapeRule]) -> Callable[..., Callable[[ShapeRule], ShapeRule]]:
    """A decorator that makes a function the rule of `aten` operators in a table.

    Its arguments are their names, such as ``add.Tensor``.
    """

    def named(*operators: str) -> Callable[[ShapeRule], ShapeRule]:
        def decorate(rule: ShapeRule) -> ShapeRule:
            table.update(dict.fromkeys((f"aten::{name}" for name in operators), rule))
            return rule

        return decorate

    return named


shape_rule = rules_of(SHAPES)


def predict(name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Tensor | None:
    """The result of operator `name` on meta tensors, or None if torch must be asked."""
    rule = SHAPES.get(name)
    if rule is None or not args or not _all_meta(args):
        return None
    found: Tensor | None = rule(*args, **kwargs)
    return found


def _all_meta(args: Sequence[Any]) -> bool:
    for arg in args:
        if isinstance(arg, Tensor) and not arg.is_meta:
            return False
        if isinstance(arg, (list, tuple)) and not _all_meta(arg):
            return False
    return True


# Empty meta tensors in the layouts that torch's kernels give their results.


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


# Elementwise


def _binary(compares: bool = False, divides: bool = False) -> ShapeRule:
    def rule(a: Any, b: Any, **options: Any) -> Tensor | None:
        if not isinstance(a, Tensor):
            return None
        dtype = torch.bool if compares else torch.result_type(a, b)
        if divides and not dtype.is_floating_point:
            return None
        return elementwise(dtype, *((a, b) if isinstance(b, Tensor) else (a,)))

    return rule


shape_rule("add.Tensor", "sub.Tensor", "mul.Tensor")(_binary())

shape_rule("div.Tensor")(_binary(divides=True))

shape_rule(
    *(
        f"{name}.{overload}"
        for name in ("ge", "gt", "le", "lt", "eq", "ne")
        for overload in ("Scalar", "Tensor")
    )
)(_binary(compares=True))


@shape_rule(*"gelu tanh relu sigmoid silu exp hardswish neg sin cos abs clamp".split())
def _unary(x: Tensor, *bounds: Any, **options: Any) -> Tensor | None:
    return elementwise(x.dtype, x) if x.is_floating_point() else None


@shape_rule("flip")
def _flip(x: Tensor, dims: Sequence[int]) -> Tensor:
    return elementwise(x.dtype, x)


@shape_rule("_to_copy")
def _to_copy(x: Tensor, *, dtype: torch.dtype | None = None, **options: Any) -> Tensor | None:
    plain = all(value is None for value in options.values())
    return elementwise(dtype or x.dtype, x) if plain else None


@shape_rule("softmax.int")
def _softmax(x: Tensor, dim: int, dtype: torch.dtype | None = None) -> Tensor:
    return contiguous(x.shape, dtype or x.dtype)


# Products


@shape_rule("linear")
def _linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor | None:
    if weight.ndim != 2 or x.ndim < 2 or x.shape[-1] != weight.shape[1] or x.dtype != weight.dtype:
        return None
    return contiguous((*x.shape[:-1], weight.shape[0]), x.dtype)


@shape_rule("matmul")
def _matmul(a: Tensor, b: Tensor) -> Tensor | None:
    if a.ndim < 3 or b.ndim < 3 or a.shape[-1] != b.shape[-2] or a.dtype != b.dtype:
        return None
    batch = broadcast(a.shape[:-2], b.shape[:-2])
    return contiguous((*batch, a.shape[-2], b.shape[-1]), a.dtype)


@shape_rule("scaled_dot_product_attention")
def _sdpa(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    attn_mask: Tensor | None = None,
    *rest: Any,
    enable_gqa: bool = False,
    **options: Any,
) -> Tensor | None:
    """As the fused kernels lay their result out; torch's plain one leaves it contiguous."""
    if enable_gqa or q.shape[:-2] != k.shape[:-2] or q.ndim != 4:
        return None
    if attn_mask is not None and attn_mask.ndim not in (2, 4):
        return None
    # The CPU's fused kernel writes (B, N, M, d) and returns it transposed.
    b, m, n, _ = q.shape
    return contiguous((b, n, m, v.shape[-1]), q.dtype).transpose(1, 2)


@shape_rule("conv2d")
def _conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Sequence[int] = (1, 1),
    padding: Sequence[int] = (0, 0),
    dilation: Sequence[int] = (1, 1),
    groups: int = 1,
) -> Tensor | None:
    if x.ndim != 4 or x.shape[1] != weight.shape[1] * groups or x.dtype != weight.dtype:
        return None
    steps = (list(option) * (2 // len(option)) for option in (stride, padding, dilation))
    size = [
        (length + 2 * p - d * (kernel - 1) - 1) // s + 1
        for length, kernel, s, p, d in zip(x.shape[2:], weight.shape[2:], *steps, strict=True)
    ]
    if min(size) < 1:
        return None
    shape = (x.shape[0], weight.shape[0], *size)
    # An ambiguous layout (one channel or one pixel) is left to torch.
    if 1 in x.shape[1:] or 1 in size:
        return None
    if x.is_contiguous(memory_format=torch.channels_last):
        return channels_last(shape, x.dtype)
    return contiguous(shape, x.dtype) if x.is_contiguous() else None


# Normalisation, sampling, pooling


@shape_rule("layer_norm")
def _layer_norm(x: Tensor, *rest: Any, **options: Any) -> Tensor:
    return contiguous(x.shape, x.dtype)


@shape_rule("grid_sampler")
def _grid_sampler(x: Tensor, grid: Tensor, *modes: Any) -> Tensor | None:
    if x.ndim != 4 or x.dtype != grid.dtype:
        return None
    return contiguous((*x.shape[:2], *grid.shape[1:3]), x.dtype)


@shape_rule("adaptive_avg_pool2d")
def _adaptive_avg_pool2d(x: Tensor, size: Sequence[int]) -> Tensor | None:
    if x.ndim != 4 or list(size) != [1, 1]:
        return None
    shape = (*x.shape[:2], 1, 1)
    if x.is_contiguous():
        return contiguous(shape, x.dtype)
    if x.is_contiguous(memory_format=torch.channels_last):
        return channels_last(shape, x.dtype)
    return None


@shape_rule("sum.dim_IntList", "amax")
def _reduce(
    x: Tensor,
    dim: Sequence[int] | None = None,
    keepdim: bool = False,
    *,
    dtype: torch.dtype | None = None,
) -> Tensor | None:
    if not x.is_contiguous() or dtype or not dim or not x.is_floating_point():
        return None
    dropped = {d % x.ndim for d in dim}
    sizes = [1 if i in dropped else n for i, n in enumerate(x.shape) if keepdim or i not in dropped]
    return contiguous(sizes, x.dtype)


# Copies


@shape_rule("clone")
def _clone(x: Tensor, *, memory_format: torch.memory_format | None = None) -> Tensor | None:
    if memory_format == torch.contiguous_format:
        return contiguous(x.shape, x.dtype)
    if memory_format in (None, torch.preserve_format):
        return elementwise(x.dtype, x)
    return None


@shape_rule("contiguous")
def _make_contiguous(
    x: Tensor, *, memory_format: torch.memory_format = torch.contiguous_format
) -> Tensor | None:
    if memory_format != torch.contiguous_format or x.is_contiguous():
        return None
    return contiguous(x.shape, x.dtype)


@shape_rule("roll")
def _roll(x: Tensor, *rest: Any, **options: Any) -> Tensor | None:
    return contiguous(x.shape, x.dtype) if x.is_contiguous() else None


@shape_rule("stack")
def _stack(tensors: Sequence[Tensor], dim: int = 0) -> Tensor | None:
    shape = list(tensors[0].shape)
    shape.insert(dim % (len(shape) + 1), len(tensors))
    same = all(part.dtype == tensors[0].dtype for part in tensors)
    return contiguous(shape, tensors[0].dtype) if same else None


@shape_rule("repeat")
def _repeat(x: Tensor, times: Sequence[int]) -> Tensor:
    lead = len(times) - x.ndim
    shape = [n * (x.shape[i - lead] if i >= lead else 1) for i, n in enumerate(times)]
    return contiguous(shape, x.dtype)


@shape_rule("pad")
def _pad(
    x: Tensor, pad: Sequence[int], mode: str = "constant", value: float | None = None
) -> Tensor | None:
    # A channels-last map keeps its format, which torch had better decide.
    maybe_last = x.ndim in (4, 5) and x.stride(1) == 1
    if mode != "constant" or maybe_last or any(a < 0 for a in pad):
        return None
    shape = list(x.shape)
    for i in range(len(pad) // 2):
        shape[-1 - i] += pad[2 * i] + pad[2 * i + 1]
    return contiguous(shape, x.dtype)


@shape_rule("index.Tensor")
def _index(x: Tensor, indices: Sequence[Tensor | None]) -> Tensor | None:
    """One index tensor, after any number of whole dimensions."""
    at = [i for i, index in enumerate(indices) if index is not None]
    falling = all(one > two for one, two in pairwise(x.stride()))
    index = indices[at[0]] if len(at) == 1 else None
    if index is None or index.dtype != torch.int64 or not falling:
        return None
    return contiguous((*x.shape[: at[0]], *index.shape, *x.shape[at[0] + 1 :]), x.dtype)


# Creation


@shape_rule("arange", "arange.start")
def _arange(
    *bounds: Any, dtype: torch.dtype | None = None, device: Any = None, **options: Any
) -> Tensor | None:
    """Whole numbers with step 1 on meta."""
    start, end = (0, bounds[0]) if len(bounds) == 1 else bounds[:2]
    if device != META or not isinstance(start, int) or not isinstance(end, int):
        return None
    return contiguous((max(end - start, 0),), dtype or torch.int64)


@shape_rule("zeros")
def _zeros(
    size: Sequence[int],
    *,
    dtype: torch.dtype | None = None,
    layout: torch.layout | None = None,
    device: Any = None,
    **options: Any,
) -> Tensor | None:
    """On meta; the kernel of torch 2.6 loads sympy."""
    if device != META or layout not in (None, torch.strided):
        return None
    return contiguous(size, dtype or torch.get_default_dtype())


def is_plain_inplace(operator: Any) -> bool:
    """Whether an operator writes into its first argument and changes no shape."""
    schema = operator._schema
    return (
        schema.name.endswith("_")
        and not schema.name.endswith("__")
        and torch.Tag.inplace_view not in operator.tags
        and schema.name
        not in ("aten::resize_", "aten::resize_as_", "aten::set_", "aten::requires_grad_")
        and bool(schema.arguments)
        and schema.arguments[0].alias_info is not None
        and schema.arguments[0].alias_info.is_write
    )
