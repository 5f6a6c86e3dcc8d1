"""Results of common operators on meta tensors, from shapes alone.

Torch's own meta kernels give the same answers, but many are Python reference code, the first of
which loads the compiler's stack: more time and memory than the rest of a count. A rule here
answers for the plain case and returns None for any other, which torch then answers or refuses:
operands that do not fit are never answered. Shapes, strides, dtypes and what is refused are tested
against real CPU kernels, operator by operator.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cache, partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from .misfits import (
    FLOATING,
    SHAPES,
    ShapeRule,
    apart,
    batched,
    broadcast,
    castable,
    convolves,
    dimension,
    expands,
    floating,
    masked,
    refuse,
    same_dtype,
    shape_rule,
    stays,
    weights,
    written,
)


def predict(name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """The result of operator `name` on meta tensors, or None if torch must be asked.

    Raises:
        RuntimeError, IndexError: what torch's CPU kernel raises for these operands.
    """
    return SHAPES[name](*args, **kwargs) if is_ruled(name, args) else None


def is_ruled(name: str, args: Sequence[Any]) -> bool:
    """Whether an operator has a rule, and takes meta tensors alone."""
    return bool(args) and name in SHAPES and _all_meta(args)


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


def channels_fastest(x: Tensor) -> bool:
    """Whether a map (N, C, H, W) is channels last for kernels, also as a slice of a larger one.

    It is c10's `is_channels_last_strides_2d`, which decides for one pixel or one channel too.
    """
    if x.ndim != 4:
        return False
    least, strides = 0, x.stride()
    if strides[1] > strides[3] or not strides[1]:
        return False
    for dim in (1, 3, 2, 0):
        if strides[dim] < least or (dim == 0 and least == strides[1]) or not x.shape[dim]:
            return False
        least = strides[dim] * (x.shape[dim] if strides[dim] > 1 else 1)
    return True


def like_map(x: Tensor, shape: Sequence[int] | None = None) -> Tensor:
    """As the kernels of maps lay results out: channels last as their input, else in rows."""
    make = channels_last if channels_fastest(x) else contiguous
    return make(shape or x.shape, x.dtype)


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


_ODD = (torch.bool, torch.complex64, torch.complex128)
"""Types that some operators refuse."""


def _binary(compares: bool = False, divides: bool = False) -> ShapeRule:
    def rule(a: Any, b: Any, **options: Any) -> Tensor | None:
        if not isinstance(a, Tensor):
            return None
        dtype = torch.result_type(a, b)
        if dtype in _ODD or (not dtype.is_floating_point and (divides or options)):
            return None
        dtype = torch.bool if compares else dtype
        return elementwise(dtype, *((a, b) if isinstance(b, Tensor) else (a,)))

    return rule


shape_rule("add.Tensor", "sub.Tensor", "mul.Tensor")(_binary())

shape_rule("div.Tensor", "div.Tensor_mode")(_binary(divides=True))


@shape_rule("clamp.Tensor")
def _clamp(x: Tensor, *bounds: Tensor | None) -> Tensor | None:
    operands = [x, *(bound for bound in bounds if bound is not None)]
    plain = len(operands) > 1 and all(t.dtype == x.dtype for t in operands)
    return elementwise(x.dtype, *operands) if plain else None


@shape_rule("logical_and", "logical_or", "logical_xor")
def _logical(a: Tensor, b: Tensor) -> Tensor:
    return elementwise(torch.bool, a, b)


_COMPARISONS = "ge gt le lt eq ne".split()

shape_rule(*(f"{name}.{other}" for name in _COMPARISONS for other in ("Scalar", "Tensor")))(
    _binary(compares=True)
)


@shape_rule(
    *"tanh relu sigmoid exp neg sin cos abs clamp hardtanh elu log sqrt rsqrt clamp_min".split(),
    *"pow.Tensor_Scalar mul.Scalar div.Scalar".split(),
)
def _unary(x: Tensor, *bounds: Any, approximate: str = "none") -> Tensor | None:
    plain = x.is_floating_point() and (not bounds or any(bound is not None for bound in bounds))
    plain = plain and not any(isinstance(bound, complex) for bound in bounds)
    return elementwise(x.dtype, x) if plain and approximate in ("none", "tanh") else None


@shape_rule(*FLOATING, "softplus")
def _floating_unary(x: Tensor, *bounds: Any, **options: Any) -> Tensor | None:
    floating(x)
    return _unary(x, *bounds, **options)


@shape_rule("addcmul")
def _addcmul(x: Tensor, *factors: Tensor, value: float = 1) -> Tensor | None:
    plain = x.is_floating_point() and all(t.dtype == x.dtype for t in factors)
    return elementwise(x.dtype, x, *factors) if plain else None


@shape_rule("flip")
def _flip(x: Tensor, dims: Sequence[int]) -> Tensor | None:
    return elementwise(x.dtype, x) if are_dims(dims, x) else None


def are_dims(dims: Sequence[int], x: Tensor) -> bool:
    """Whether `x` has these dimensions, each named once."""
    inside = all(-x.ndim <= dim < x.ndim for dim in dims)
    return inside and len({dim % x.ndim for dim in dims}) == len(dims)


@shape_rule("_to_copy")
def _to_copy(x: Tensor, *, dtype: torch.dtype | None = None, **options: Any) -> Tensor | None:
    plain = all(value is None for value in options.values())
    return elementwise(dtype or x.dtype, x) if plain else None


@shape_rule("dropout")
def _dropout(x: Tensor, rate: float, train: bool) -> Tensor | None:
    if not train or rate == 0:
        return x
    return elementwise(x.dtype, x) if 0 < rate < 1 and x.is_floating_point() else None


@shape_rule("softmax.int")
def softmax(x: Tensor, dim: int, dtype: torch.dtype | None = None) -> Tensor:
    """Like its input, in rows."""
    dimension(dim, x.ndim)
    result = contiguous(x.shape, dtype or x.dtype)
    floating(result)
    return result


# Products


@shape_rule("linear")
def _linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor | None:
    same_dtype(x, weight, bias)
    if weight.ndim != 2 or x.ndim < 1:
        return None
    *rows, width = x.shape
    shape = (*rows, weight.shape[0])
    if width != weight.shape[1]:
        sizes = f"{math.prod(rows)}x{width} and {weight.shape[1]}x{weight.shape[0]}"
        refuse(f"mat1 and mat2 shapes cannot be multiplied ({sizes})")
    if bias is not None:
        expands(bias.shape, shape)
    return contiguous(shape, x.dtype)


@shape_rule("matmul")
def _matmul(a: Tensor, b: Tensor) -> Tensor | None:
    same_dtype(a, b)
    folded = a.ndim == 2 < b.ndim  # it may be a product of transposes
    if min(a.ndim, b.ndim) < 2 or folded or a.shape[-1] != b.shape[-2]:
        return None
    batch = broadcast(a.shape[:-2], b.shape[:-2])
    return contiguous((*batch, a.shape[-2], b.shape[-1]), a.dtype)


@shape_rule("scaled_dot_product_attention")
def _sdpa(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    enable_gqa: bool = False,
    **options: Any,
) -> Tensor | None:
    """As the CPU's fused kernel lays its result out: like `q`."""
    same_dtype(q, k, v)
    whole = (*q.shape[:-1], k.shape[-2])
    if attn_mask is not None:
        if q.ndim == k.ndim == v.ndim == 4:  # the fused kernel's; others take one row for all
            dimension(-2, attn_mask.ndim)
        stays(whole[-2:], attn_mask.shape[-2:])
    if enable_gqa or not attends(q, k, v) or q.shape[-1] != v.shape[-1]:
        return None
    if attn_mask is not None:
        fits = attn_mask.ndim in (2, 4) and attn_mask.dtype in (torch.bool, q.dtype)
        if is_causal or not fits or broadcast(whole, attn_mask.shape) != whole:
            return None
    return elementwise(q.dtype, q)


def attends(q: Tensor, k: Tensor, v: Tensor) -> bool:
    """Whether these are (B, M, N, d), (B, M, S, d) and (B, M, S, e), in rows."""
    return (
        q.ndim == k.ndim == v.ndim == 4
        and q.shape[:-2] == k.shape[:-2] == v.shape[:-2]
        and q.shape[-1] == k.shape[-1]
        and all(x.stride(-1) == 1 for x in (q, k, v))
        and k.shape[-2] == v.shape[-2]
        and q.dtype == k.dtype == v.dtype
    )


def _conv(
    rank: int,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Sequence[int] = (1,),
    padding: Sequence[int] | str = (0,),
    dilation: Sequence[int] = (1,),
    groups: int = 1,
) -> Tensor | None:
    """Padding may be "valid" or "same", with a bias of any type; an uneven one is left to torch."""
    image, pads, even = batched(rank, x, weight), padding, True
    if isinstance(pads, str):
        gaps = [*dilation] * rank  # one for all, or one each
        spans = [(n - 1) * gap for n, gap in zip(weight.shape[2:], gaps, strict=False)]
        whole = all(step == 1 for step in stride) and not any(span % 2 for span in spans)
        even = pads == "valid" or (pads == "same" and whole)
        pads = [-(-span // 2) for span in spans] if pads == "same" else [0]
    else:
        same_dtype(x, weight, bias)
    convolves(image, weight, bias, stride, pads, dilation, False, (0,), groups)
    return convolved(x, weight, stride, pads, dilation) if even else None


for _rank in (1, 2, 3):
    shape_rule(f"conv{_rank}d", f"conv{_rank}d.padding")(partial(_conv, _rank))


def convolved(
    x: Tensor,
    weight: Tensor,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> Tensor | None:
    """A map's convolution is channels last if it or the weights are; a row's stays in rows."""
    rank = x.ndim - 2
    if rank not in (1, 2) or weight.ndim != x.ndim or 0 in weight.shape:
        return None
    rows = x.is_contiguous() and weight.is_contiguous() and 1 not in x.shape[1:]
    if rank == 1 and not rows and not x.shape[1] == weight.shape[0] == 1:
        return None
    steps = (list(option) * (rank // len(option)) for option in (stride, padding, dilation))
    size = [
        (length + 2 * p - d * (kernel - 1) - 1) // s + 1
        for length, kernel, s, p, d in zip(x.shape[2:], weight.shape[2:], *steps, strict=True)
    ]
    if min(size) < 1:
        return None
    last = channels_fastest(x) or channels_fastest(weight)
    return (channels_last if last else contiguous)((x.shape[0], weight.shape[0], *size), x.dtype)


def _conv_transpose(
    rank: int,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Sequence[int] = (1,),
    padding: Sequence[int] = (0,),
    output_padding: Sequence[int] = (0,),
    groups: int = 1,
    dilation: Sequence[int] = (1,),
) -> Tensor | None:
    """The weights are (channels in, channels out of a group, kernel); answered are maps alone."""
    image = batched(rank, x, weight)
    convolves(image, weight, bias, stride, padding, dilation, True, output_padding, groups)
    plain = rank == 2 and x.ndim == 4 and x.is_floating_point()
    if not plain or 0 in (*x.shape, *weight.shape):
        return None
    options = (stride, padding, output_padding, dilation)
    steps = (list(option) * (2 // len(option)) for option in options)
    size = [
        (side - 1) * s - 2 * p + d * (kernel - 1) + more + 1
        for side, kernel, s, p, more, d in zip(x.shape[2:], weight.shape[2:], *steps, strict=True)
    ]
    last = channels_fastest(x) or channels_fastest(weight)
    make = channels_last if last else contiguous
    return make((x.shape[0], groups * weight.shape[1], *size), x.dtype) if min(size) > 0 else None


for _rank, _transpose in enumerate(("1d", "2d.input", "3d.input"), 1):
    shape_rule(f"conv_transpose{_transpose}")(partial(_conv_transpose, _rank))


@shape_rule("lstm.input")
def _lstm(
    x: Tensor,
    states: Sequence[Tensor],
    weights: Sequence[Tensor],
    has_biases: bool,
    layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
) -> tuple[Tensor, ...] | None:
    """Without projections; torch's own meta kernel goes through the sequence step by step."""
    if x.ndim != 3 or len(states) != 2 or 0 in x.shape or not x.is_floating_point():
        return None
    ways = 2 if bidirectional else 1
    batch, length = x.shape[:2] if batch_first else (x.shape[1], x.shape[0])
    width = states[0].shape[-1]
    gates = 4 * width
    for number in range(layers * ways):
        inner = x.shape[2] if number < ways else ways * width
        wanted = [(gates, inner), (gates, width), *([(gates,), (gates,)] if has_biases else [])]
        found = [tuple(w.shape) for w in weights[len(wanted) * number :][: len(wanted)]]
        if found != wanted:
            return None
    if len(weights) != layers * ways * (4 if has_biases else 2):
        return None
    if any(t.shape != (layers * ways, batch, width) for t in states):
        return None
    if any(t.dtype != x.dtype for t in (*states, *weights)):
        return None
    output = contiguous((length, batch, ways * width), x.dtype)
    ends = [contiguous(states[0].shape, x.dtype) for _ in states]
    return output.transpose(0, 1) if batch_first else output, *ends


# Normalisation, sampling, pooling


@shape_rule("batch_norm")
def _batch_norm(x: Tensor, *rest: Any) -> Tensor | None:
    return like_map(x) if normalises_batch(x, *rest) else None


def normalises_batch(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor | None,
    variance: Tensor | None,
    training: bool,
    *rest: Any,
) -> bool:
    """Whether weights and statistics fit a map or a row, which is not empty."""
    floating(x)
    given = weights(x, weight, bias, mean, variance)
    known = training or not (mean is None or variance is None)
    plain = known and x.ndim in (2, 3, 4) and 0 not in x.shape
    return plain and all(each.shape == x.shape[1:2] for each in given)


@shape_rule("group_norm")
def _group_norm(
    x: Tensor, groups: int, weight: Tensor | None = None, bias: Tensor | None = None, *rest: Any
) -> Tensor | None:
    given = weights(x, weight, bias)
    if x.ndim not in (3, 4) or 0 in x.shape or groups < 1 or x.shape[1] % groups:
        return None
    fits = all(t.shape == x.shape[1:2] and t.dtype == x.dtype for t in given)
    return like_map(x) if fits and x.is_floating_point() else None


@shape_rule("rms_norm")
def _rms_norm(x: Tensor, shape: Sequence[int], weight: Tensor | None = None, *rest: Any) -> Any:
    fits = bool(shape) and list(x.shape[-len(shape) :]) == list(shape) and x.is_floating_point()
    if weight is not None:
        fits = fits and list(weight.shape) == list(shape) and weight.dtype == x.dtype
    return contiguous(x.shape, x.dtype) if fits and x.is_contiguous() else None


@shape_rule("layer_norm")
def _layer_norm(x: Tensor, *rest: Any) -> Tensor | None:
    return contiguous(x.shape, x.dtype) if normalises_rows(x, *rest) else None


def normalises_rows(
    x: Tensor,
    shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    *rest: Any,
) -> bool:
    """Whether weights have the shape of the last dimensions."""
    floating(x)
    sizes = list(shape)
    if not sizes or sizes != list(x.shape[-len(sizes) :]):
        refuse(
            f"Given normalized_shape={sizes}, expected input with shape [*, {str(sizes)[1:]}, "
            f"but got input of size{list(x.shape)}"
        )
    return all(list(each.shape) == sizes for each in weights(x, weight, bias))


@shape_rule("grid_sampler", "grid_sampler_2d")
def _grid_sampler(x: Tensor, grid: Tensor, *modes: Any) -> Tensor | None:
    same_dtype(x, grid)
    floating(x)
    sizes = f"but got input with sizes {list(x.shape)} and grid with sizes {list(grid.shape)}"
    if x.ndim != grid.ndim:
        refuse(
            f"grid_sampler(): expected {x.ndim}D input and grid with same number of dimensions, "
            + sizes
        )
    if x.shape[:1] != grid.shape[:1]:
        refuse(f"grid_sampler(): expected grid and input to have same batch size, {sizes}")
    if grid.shape[-1:] != (x.ndim - 2,):
        refuse(
            f"grid_sampler(): expected grid to have size {x.ndim - 2} in last dimension, {sizes}"
        )
    if x.ndim != 4 or 0 in x.shape[1:]:
        return None
    return contiguous((*x.shape[:2], *grid.shape[1:3]), x.dtype)  # (N, C, H, W)


@shape_rule("adaptive_avg_pool2d")
def _adaptive_avg_pool2d(x: Tensor, size: Sequence[int]) -> Tensor | None:
    floating(x)
    plain = x.ndim == 4 and len(size) == 2 and min(size) > 0
    return like_map(x, (*x.shape[:2], *size)) if plain and 0 not in x.shape[1:] else None


@shape_rule("max_pool2d")
def max_pool2d(
    x: Tensor,
    kernel: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (0,),
    dilation: Sequence[int] = (1,),
    ceil_mode: bool = False,
) -> Tensor | None:
    """By `pooling_output_shape` of ATen's Pool.h."""
    options = (kernel, stride or kernel, padding, dilation)
    if x.ndim != 4 or 0 in x.shape or not x.is_floating_point():
        return None
    if any(len(option) not in (1, 2) for option in options):
        return None
    sizes = []
    for side, k, s, p, d in zip(
        x.shape[2:], *(list(option) * (2 // len(option)) for option in options), strict=True
    ):
        if min(k, s, d) < 1 or not 0 <= p <= ((k - 1) * d + 1) // 2:
            return None
        size = (side + 2 * p - d * (k - 1) - 1 + (s - 1 if ceil_mode else 0)) // s + 1
        sizes.append(size - 1 if ceil_mode and (size - 1) * s >= side + p else size)
    return like_map(x, (*x.shape[:2], *sizes)) if min(sizes) > 0 else None


@shape_rule("avg_pool2d")
def _avg_pool2d(
    x: Tensor,
    kernel: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (0,),
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor: int | None = None,
) -> Tensor | None:
    return None if divisor == 0 else max_pool2d(x, kernel, stride, padding, (1,), ceil_mode)


@shape_rule("upsample_nearest2d")
def _resized(x: Tensor, size: Sequence[int], *rest: Any) -> Tensor | None:
    if x.dtype != torch.uint8:
        floating(x)
    if x.ndim != 4 or 0 in x.shape or len(size) != 2 or min(size) < 1:
        return None
    return like_map(x, (*x.shape[:2], *size)) if x.is_floating_point() else None


def _interpolated(rank: int, x: Tensor, size: Sequence[int], *rest: Any) -> Tensor | None:
    if x.ndim != rank:
        refuse(f"It is expected input_size equals to {rank}, but got size {x.ndim}")
    if min(size) <= 0 or 0 in x.shape[2:]:
        refuse(
            f"Input and output sizes should be greater than 0, but got input {list(x.shape[2:])} "
            f"output {list(size)}"
        )
    floating(x)
    return _resized(x, size)


def _scaled(resize: ShapeRule) -> ShapeRule:
    """The same where the size may be given by factors, which stand last."""

    def rule(x: Tensor, size: Sequence[int] | None, *rest: Any) -> Tensor | None:
        by_scale = [int(n * scale) for n, scale in zip(x.shape[2:], rest[-1] or (), strict=False)]
        found: Tensor | None = resize(x, size or by_scale or (1,))
        return found

    return rule


shape_rule("upsample_nearest2d.vec")(_scaled(_resized))

for _rank, _names in enumerate(("linear1d", "bilinear2d bicubic2d", "trilinear3d"), 3):
    _resize = partial(_interpolated, _rank)
    shape_rule(*(f"upsample_{name}" for name in _names.split()))(_resize)
    shape_rule(*(f"upsample_{name}.vec" for name in _names.split()))(_scaled(_resize))


@shape_rule("linalg_vector_norm")
def _vector_norm(
    x: Tensor,
    order: float,
    dim: Sequence[int] | None = None,
    keepdim: bool = False,
    *,
    dtype: torch.dtype | None = None,
) -> Tensor | None:
    return _reduce(x, dim, keepdim, dtype=dtype)


@shape_rule("sum.dim_IntList")
def _sum(x: Tensor, dim: Sequence[int] | None = None, keepdim: bool = False, **options: Any) -> Any:
    """Whole numbers and truth values are summed as int64."""
    whole = not x.is_floating_point() and not x.is_complex()
    return _reduce(x, dim, keepdim, of=torch.int64 if whole else None, **options)


@shape_rule("mean.dim", "amax")
def _reduce(
    x: Tensor,
    dim: Sequence[int] | None = None,
    keepdim: bool = False,
    *,
    dtype: torch.dtype | None = None,
    of: torch.dtype | None = None,
) -> Tensor | None:
    if dtype or not dim or not (of or x.is_floating_point()):
        return None
    if not are_dims(dim, x) or 0 in x.shape:
        return None
    dropped = {d % x.ndim for d in dim}
    sizes = [1 if i in dropped else n for i, n in enumerate(x.shape) if keepdim or i not in dropped]
    return contiguous(sizes, of or x.dtype)


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


@shape_rule("masked_fill.Scalar")
def _masked_fill(x: Tensor, mask: Tensor, value: Any) -> Tensor | None:
    """In rows; torch's own meta kernel imports its compiler."""
    masked(x, mask, value)
    if not x.is_floating_point() or isinstance(value, complex):
        return None
    within = abs(value) <= torch.finfo(x.dtype).max or not math.isfinite(value)
    return contiguous(broadcast(x.shape, mask.shape), x.dtype) if within else None


@shape_rule("roll")
def _roll(x: Tensor, shifts: Sequence[int], dims: Sequence[int] = ()) -> Tensor | None:
    aligned = len(shifts) == (len(dims) or 1) and all(-x.ndim <= dim < x.ndim for dim in dims)
    return contiguous(x.shape, x.dtype) if aligned and x.is_contiguous() else None


@shape_rule("cat")
def _cat(tensors: Sequence[Tensor], dim: int = 0) -> Tensor | None:
    """Channels last if all are; of five dimensions, in rows if one surely is."""
    first = tensors[0]
    shape, rank = list(first.shape), first.ndim
    plain = rank < 5 or (rank == 5 and any(t.stride()[1] > t.stride()[-1] for t in tensors))
    if not plain or not -rank <= dim < rank:
        return None
    dim %= rank
    shape[dim] = 0
    for t in tensors:
        if t.ndim != rank or t.dtype != first.dtype:
            return None
        if t.shape[:dim] != first.shape[:dim] or t.shape[dim + 1 :] != first.shape[dim + 1 :]:
            return None
        shape[dim] += t.shape[dim]
    last = all(map(channels_fastest, tensors))
    return (channels_last if last else contiguous)(shape, first.dtype)


@shape_rule("stack")
def _stack(tensors: Sequence[Tensor], dim: int = 0) -> Tensor | None:
    shape, rank = list(tensors[0].shape), tensors[0].ndim + 1
    same = all(t.shape == tensors[0].shape and t.dtype == tensors[0].dtype for t in tensors)
    if not same or not -rank <= dim < rank:
        return None
    shape.insert(dim % rank, len(tensors))
    return contiguous(shape, tensors[0].dtype)


@shape_rule("repeat")
def _repeat(x: Tensor, times: Sequence[int]) -> Tensor | None:
    lead = len(times) - x.ndim
    if lead < 0 or any(n < 0 for n in times):
        return None
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
    if len(pad) % 2 or len(pad) > 2 * x.ndim:
        return None
    shape = list(x.shape)
    for i in range(len(pad) // 2):
        shape[-1 - i] += pad[2 * i] + pad[2 * i + 1]
    return contiguous(shape, x.dtype)


@shape_rule("index.Tensor")
def _index(x: Tensor, indices: Sequence[Tensor | None]) -> Tensor | None:
    """Neighbouring dimensions by tensors of indices, after any number of whole ones."""
    given = [(i, index) for i, index in enumerate(indices) if index is not None]
    at, by = [i for i, _ in given], [index for _, index in given]
    strides = [stride for stride, size in zip(x.stride(), x.shape, strict=True) if size != 1]
    falling = all(one > two for one, two in pairwise(strides))
    if not falling or len(indices) > x.ndim or at != list(range(at[0], at[-1] + 1)):
        return None
    if any(index.dtype != torch.int64 or not index.is_contiguous() for index in by):
        return None
    looked_up = by[0].shape if len(by) == 1 else broadcast(*(index.shape for index in by))
    return contiguous((*x.shape[: at[0]], *looked_up, *x.shape[at[-1] + 1 :]), x.dtype)


# Creation


@shape_rule("arange", "arange.start")
def _arange(
    *bounds: Any, dtype: torch.dtype | None = None, device: Any = None, **options: Any
) -> Tensor | None:
    """Whole numbers with step 1 on meta."""
    start, end = (0, bounds[0]) if len(bounds) == 1 else bounds[:2]
    if device != META or type(start) is not int or type(end) is not int or end < start:
        return None
    return contiguous((end - start,), dtype or torch.int64)


@shape_rule("linspace")
def _linspace(
    start: Any,
    end: Any,
    steps: int,
    *,
    dtype: torch.dtype | None = None,
    layout: torch.layout | None = None,
    device: Any = None,
    **options: Any,
) -> Tensor | None:
    """On meta; torch's own kernel loads sympy."""
    dtype = dtype or torch.get_default_dtype()
    real = isinstance(start, (int, float)) and isinstance(end, (int, float))
    if device != META or layout not in (None, torch.strided):
        return None
    plain = real and steps >= 0 and dtype.is_floating_point
    return contiguous((steps,), dtype) if plain else None


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


# In place


_FILLS = frozenset({"aten::copy_", "aten::fill_", "aten::zero_"})
"""They take any dtype."""

_UNTAGGED = _FILLS | {"aten::hardswish_"}
"""They write each element; torch does not tag them."""

_ARITHMETIC = frozenset(f"aten::{name}_" for name in ("add", "sub", "mul", "addcmul"))
"""They leave whole numbers whole, and take no fractions into them."""


_REPEATS = frozenset(
    f"aten::{name}_"
    for name in """
    addbmm addmv baddbmm fill index_fill _index_put_impl index_put masked_fill renorm tril triu zero
    """.split()
)
"""They write into expanded tensors too, each element several times."""


def is_inplace(operator: Any) -> bool:
    """Whether an operator writes into its first argument, and changes no shape."""
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


@cache
def _writes_each(operator: Any) -> bool:
    """Whether an in-place operator takes whatever broadcasts to its first argument.

    Some in-place forms lack the tag that their plain forms have.
    """
    name: str = operator._schema.name
    plain = getattr(torch.ops.aten, name.removeprefix("aten::")[:-1], None)
    overloads = () if plain is None else plain.overloads()
    forms = [operator, *(getattr(plain, overload) for overload in overloads)]
    wanted = {torch.Tag.pointwise, torch.Tag.nondeterministic_seeded}
    return name in _UNTAGGED or any(wanted & set(form.tags) for form in forms)


def fits_in_place(operator: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """Whether an in-place operator may write into its first argument; torch knows if not.

    Operators of other libraries are trusted: they check their operands when they run.

    Raises:
        RuntimeError: the operands do not fit it.
    """
    name: str = operator._schema.name
    x, *operands = [*args, *kwargs.values()]
    if not name.startswith("aten::"):
        return True
    tensors = [operand for operand in operands if isinstance(operand, Tensor)]
    if name not in _REPEATS:
        apart(x)
    if not _writes_each(operator):
        return False
    types = (x.dtype, torch.bool) if name == "aten::masked_fill_" else (x.dtype,)
    if name in _ARITHMETIC and not x.is_floating_point():
        castable(x, operands)
    elif name not in _FILLS and not (
        x.is_floating_point() and all(t.dtype in types for t in tensors)
    ):
        return False
    if tensors:
        written(x, *tensors)
    return True
