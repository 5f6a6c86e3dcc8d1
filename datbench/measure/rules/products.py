"""Rules of operators that multiply and add: convolution, matrix products, attention, recurrence."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from ...types import Kind
from .registry import Cost, Rule, argument, register_rule

# Convolution: one multiply-add for each weight that meets an input, groups respected.
# A transposed convolution meets its weights once an input position, not an output position.


def conv_macs(x: Tensor, weight: Tensor, out: Tensor, transposed: bool) -> int:
    """Multiply-adds of a convolution with weight (C_out, C_in/groups, *kernel)."""
    return (x if transposed else out).numel() * math.prod(weight.shape[1:])


_ABOUT_CONV = (
    "one multiply-add for each weight that meets an input, groups respected; the bias apart. "
    "fvcore `conv_flop_count`, torch `conv_flop_count`, mmcv `conv_flops_counter_hook`"
)


def _conv(transposed: bool) -> Rule:
    def rule(args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> Cost:
        cost = {Kind.CONV: conv_macs(args[0], args[1], out, transposed)}
        if argument(args, kwargs, 2, "bias") is not None:
            cost[Kind.CONV_BIAS] = out.numel()
        return cost

    return rule


register_rule("aten::conv1d", "aten::conv2d", "aten::conv3d", about=_ABOUT_CONV)(
    _conv(transposed=False)
)
register_rule(
    "aten::conv_transpose1d",
    "aten::conv_transpose2d",
    "aten::conv_transpose3d",
    about=_ABOUT_CONV,
)(_conv(transposed=True))


@register_rule(
    "aten::convolution",
    "aten::_convolution",
    "aten::convolution_overrideable",
    about=_ABOUT_CONV,
)
def _convolution(args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> Cost:
    return _conv(bool(argument(args, kwargs, 6, "transposed")))(args, kwargs, out)


@register_rule(
    "torchvision::deform_conv2d",
    about="a convolution over columns that are sampled bilinearly. Ours: fvcore and torch skip it",
)
def _deform_conv2d(args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> Cost:
    """A convolution over columns that are sampled bilinearly, modulated if there is a mask."""
    weight, mask = args[1], argument(args, kwargs, 3, "mask")
    taps = math.prod(weight.shape[2:])
    columns = out.shape[0] * args[0].shape[1] * taps * math.prod(out.shape[2:])
    cost = {Kind.CONV: conv_macs(args[0], weight, out, False), Kind.SAMPLE: columns}
    cost[Kind.CONV_BIAS] = out.numel()
    if mask is not None and mask.numel():
        cost[Kind.ELEMENTWISE] = columns
    return cost


# Matrix products: one multiply-add for each term of each sum.


@register_rule(
    "aten::linear",
    about="output elements x input width; the bias apart. "
    "fvcore `linear_flop_jit`, torch `addmm_flop`, mmcv `linear_flops_counter_hook`",
)
def _linear(args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> Cost:
    cost = {Kind.LINEAR: out.numel() * args[1].shape[-1]}
    if argument(args, kwargs, 2, "bias") is not None:
        cost[Kind.LINEAR_BIAS] = out.numel()
    return cost


@register_rule(
    "aten::mm",
    "aten::bmm",
    "aten::matmul",
    "aten::mv",
    "aten::dot",
    "aten::vdot",
    "aten::inner",
    about="output elements x terms of each sum. "
    "fvcore `matmul_flop_jit`, `bmm_flop_jit`; torch `mm_flop`, `bmm_flop`",
)
def _matmul(args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> Cost:
    return {Kind.MATMUL: out.numel() * args[0].shape[-1]}


@register_rule(
    "aten::addmm",
    "aten::baddbmm",
    "aten::addmv",
    "aten::addbmm",
    about="the product as a matrix product, the sum apart. "
    "fvcore `addmm_flop_jit`, torch `addmm_flop`, `baddbmm_flop`",
)
def _add_matmul(args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> Cost:
    """The product of the second and third argument, added to the first; addbmm sums a batch."""
    left, right = args[1], args[2]
    columns = right.shape[-1] if right.ndim > 1 else 1
    return {Kind.MATMUL: left.numel() * columns, Kind.ELEMENTWISE: out.numel()}


@register_rule(
    "aten::bilinear",
    "aten::_trilinear",
    about="one multiply-add for each weight and sample. Ours",
)
def _bilinear(args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> Cost:
    """x1 W x2 with W (out, in1, in2): one multiply-add for each weight and sample."""
    if args[0].shape[-1] == args[2].shape[1] and args[2].ndim == 3:
        cost = {Kind.MATMUL: out.numel() * math.prod(args[2].shape[1:])}
        if argument(args, kwargs, 3, "bias") is not None:
            cost[Kind.ELEMENTWISE] = out.numel()
        return cost
    return {Kind.MATMUL: max(t.numel() for t in args[:3]) * out.shape[0]}


@register_rule(
    "aten::_cdist_forward",
    "aten::_euclidean_dist",
    about="a difference, a power and a sum for each coordinate of each pair. Ours",
)
def _cdist(args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> Cost:
    """A difference, a power and a sum for each coordinate of each pair."""
    return {Kind.ELEMENTWISE: 3 * out.numel() * args[0].shape[-1]}


# Attention as one operator: two products, the scale of the queries, the mask, a softmax.


def attention_cost(pairs: int, dim_qk: int, dim_v: int, queries: int, masked: bool) -> Cost:
    """The cost of attention over `pairs` (query, key) pairs, all heads and images together."""
    return {
        Kind.ATTENTION: pairs * (dim_qk + dim_v),
        Kind.SOFTMAX: pairs,
        Kind.ELEMENTWISE: queries + (pairs if masked else 0),
    }


@register_rule(
    "aten::scaled_dot_product_attention",
    "aten::_scaled_dot_product_flash_attention",
    "aten::_scaled_dot_product_flash_attention_for_cpu",
    "aten::_scaled_dot_product_efficient_attention",
    "aten::_scaled_dot_product_cudnn_attention",
    "aten::_scaled_dot_product_fused_attention_overrideable",
    "aten::_scaled_dot_product_attention_math_for_mps",
    about="two products over all (query, key) pairs; softmax, scale and mask apart. "
    "torch `sdpa_flop`; fvcore skips it",
)
def _sdpa(args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> Cost:
    q, k, v = args[:3]  # (..., N, d), (..., Ns, d), (..., Ns, dv)
    pairs = math.prod(q.shape[:-1]) * k.shape[-2]
    mask = argument(args, kwargs, 3, "attn_mask")
    masked = isinstance(mask, Tensor) or bool(argument(args, kwargs, 5, "is_causal", False))
    return attention_cost(pairs, q.shape[-1], v.shape[-1], q.numel(), masked)


@register_rule(
    "aten::_efficient_attention_forward",
    "aten::_flash_attention_forward",
    about="the same, for tensors laid out as (B, N, M, d). "
    "torch `_efficient_attention_forward_flop`, `_flash_attention_forward_flop`",
)
def _attention_forward(args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> Cost:
    q, k, v = args[:3]  # (B, N, M, d), (B, Ns, M, d), (B, Ns, M, dv)
    pairs = q.shape[0] * q.shape[1] * q.shape[2] * k.shape[1]
    return attention_cost(pairs, q.shape[-1], v.shape[-1], q.numel(), False)


# Recurrent layers as one operator: every weight matrix meets every step of every sequence.


@register_rule(
    "aten::lstm",
    "aten::gru",
    "aten::rnn_tanh",
    "aten::rnn_relu",
    about="every weight matrix meets every step of every sequence. Ours: fvcore skips it",
)
def _recurrent(args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> Cost:
    x = args[0]
    # lstm.data takes batch sizes second and its weights fourth; the others third.
    weights = next(
        a for a in args[2:] if isinstance(a, (list, tuple)) and a and isinstance(a[0], Tensor)
    )
    steps = math.prod(x.shape[:-1])
    macs = sum(w.numel() for w in weights if w.ndim == 2) * steps
    gates = sum(w.shape[0] for w in weights if w.ndim == 2) * steps
    return {Kind.RECURRENT: macs, Kind.ELEMENTWISE: gates}


@register_rule("aten::mkldnn_rnn_layer", about="the same, one layer of the CPU's kernel. Ours")
def _mkldnn_rnn(args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> Cost:
    steps = math.prod(args[0].shape[:-1])
    return {Kind.RECURRENT: sum(w.numel() for w in args[1:3]) * steps}
