"""What each operator costs: one rule an operator, by kind of work.

A rule receives the operator's positional arguments, its keyword arguments and its result, and
returns amounts by `Kind`. Nothing is weighted here: a convention does that. Rules for backward
operators stand in `rules_backward`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

from ..types import Kind

Cost = Mapping[Kind, int]
Rule = Callable[[Sequence[Any], Mapping[str, Any], Any], Cost]

RULES: dict[str, Rule] = {}
"""Rule by operator name, such as ``aten::linear``."""


def register_rule(*operators: str) -> Callable[[Rule], Rule]:
    """Make the decorated function the rule of these operators, custom ones too.

    Example::

        @datbench.register_rule("mylib::window_attention")
        def _(args, kwargs, out):
            q, k, v = args
            return {Kind.ATTENTION: 2 * q.shape[0] * q.shape[1] * q.shape[2] ** 2}

    Raises:
        ValueError: an operator has a rule already.
    """

    def decorate(rule: Rule) -> Rule:
        for name in operators:
            if name in RULES:
                raise ValueError(f"operator {name!r} has a rule already")
            RULES[name] = rule
        return rule

    return decorate


def first(out: Any) -> Tensor:
    """The (first) tensor of an operator's result."""
    tensor: Tensor = out[0] if isinstance(out, (tuple, list)) else out
    return tensor


def argument(
    args: Sequence[Any], kwargs: Mapping[str, Any], index: int, name: str, default: Any = None
) -> Any:
    """An argument that may be given by position or by name."""
    return args[index] if len(args) > index else kwargs.get(name, default)


# Convolution: one multiply-add for each weight that meets an input, groups respected.
# A transposed convolution meets its weights once an input position, not an output position.


def conv_macs(x: Tensor, weight: Tensor, out: Tensor, transposed: bool) -> int:
    """Multiply-adds of a convolution with weight (C_out, C_in/groups, *kernel)."""
    return (x if transposed else out).numel() * math.prod(weight.shape[1:])


def _conv(transposed: bool) -> Rule:
    def rule(args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> Cost:
        cost = {Kind.CONV: conv_macs(args[0], args[1], out, transposed)}
        if argument(args, kwargs, 2, "bias") is not None:
            cost[Kind.CONV_BIAS] = out.numel()
        return cost

    return rule


register_rule("aten::conv1d", "aten::conv2d", "aten::conv3d")(_conv(transposed=False))
register_rule("aten::conv_transpose1d", "aten::conv_transpose2d", "aten::conv_transpose3d")(
    _conv(transposed=True)
)


@register_rule("aten::convolution", "aten::_convolution", "aten::convolution_overrideable")
def _convolution(args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> Cost:
    return _conv(bool(argument(args, kwargs, 6, "transposed")))(args, kwargs, out)


@register_rule("torchvision::deform_conv2d")
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


@register_rule("aten::linear")
def _linear(args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> Cost:
    cost = {Kind.LINEAR: out.numel() * args[1].shape[-1]}
    if argument(args, kwargs, 2, "bias") is not None:
        cost[Kind.LINEAR_BIAS] = out.numel()
    return cost


@register_rule(
    "aten::mm", "aten::bmm", "aten::matmul", "aten::mv", "aten::dot", "aten::vdot", "aten::inner"
)
def _matmul(args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> Cost:
    return {Kind.MATMUL: out.numel() * args[0].shape[-1]}


@register_rule("aten::addmm", "aten::baddbmm", "aten::addmv", "aten::addbmm")
def _add_matmul(args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> Cost:
    """The product of the second and third argument, added to the first; addbmm sums a batch."""
    left, right = args[1], args[2]
    columns = right.shape[-1] if right.ndim > 1 else 1
    return {Kind.MATMUL: left.numel() * columns, Kind.ELEMENTWISE: out.numel()}


@register_rule("aten::bilinear", "aten::_trilinear")
def _bilinear(args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> Cost:
    """x1 W x2 with W (out, in1, in2): one multiply-add for each weight and sample."""
    if args[0].shape[-1] == args[2].shape[1] and args[2].ndim == 3:
        cost = {Kind.MATMUL: out.numel() * math.prod(args[2].shape[1:])}
        if argument(args, kwargs, 3, "bias") is not None:
            cost[Kind.ELEMENTWISE] = out.numel()
        return cost
    return {Kind.MATMUL: max(t.numel() for t in args[:3]) * out.shape[0]}


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
)
def _sdpa(args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> Cost:
    q, k, v = args[:3]  # (..., N, d), (..., Ns, d), (..., Ns, dv)
    pairs = math.prod(q.shape[:-1]) * k.shape[-2]
    mask = argument(args, kwargs, 3, "attn_mask")
    masked = isinstance(mask, Tensor) or bool(argument(args, kwargs, 5, "is_causal", False))
    return attention_cost(pairs, q.shape[-1], v.shape[-1], q.numel(), masked)


@register_rule("aten::_efficient_attention_forward", "aten::_flash_attention_forward")
def _attention_forward(args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> Cost:
    q, k, v = args[:3]  # (B, N, M, d), (B, Ns, M, d), (B, Ns, M, dv)
    pairs = q.shape[0] * q.shape[1] * q.shape[2] * k.shape[1]
    return attention_cost(pairs, q.shape[-1], v.shape[-1], q.numel(), False)


# Recurrent layers as one operator: every weight matrix meets every step of every sequence.


@register_rule("aten::lstm", "aten::gru", "aten::rnn_tanh", "aten::rnn_relu")
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


@register_rule("aten::mkldnn_rnn_layer")
def _mkldnn_rnn(args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> Cost:
    steps = math.prod(args[0].shape[:-1])
    return {Kind.RECURRENT: sum(w.numel() for w in args[1:3]) * steps}


# Normalisation.


def _norm(weight: int, name: str = "weight") -> Rule:
    def rule(args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> Cost:
        affine = argument(args, kwargs, weight, name) is not None
        return {Kind.NORM if affine else Kind.NORM_PLAIN: args[0].numel()}

    return rule


register_rule("aten::layer_norm", "aten::native_layer_norm", "aten::group_norm")(_norm(2))
register_rule("aten::instance_norm", "aten::native_group_norm")(_norm(1))


def _batch_norm(training: int) -> Rule:
    def rule(args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> Cost:
        if argument(args, kwargs, training, "training"):
            return _norm(1)(args, kwargs, out)
        affine = argument(args, kwargs, 1, "weight") is not None
        return {Kind.NORM_FIXED if affine else Kind.NORM_FIXED_PLAIN: args[0].numel()}

    return rule


register_rule(
    "aten::batch_norm",
    "aten::native_batch_norm",
    "aten::cudnn_batch_norm",
    "aten::miopen_batch_norm",
    "aten::_native_batch_norm_legit",
)(_batch_norm(5))
register_rule("aten::_batch_norm_with_update")(_norm(1))


@register_rule("aten::_native_batch_norm_legit_no_training", "aten::_batch_norm_no_update")
def _batch_norm_fixed(args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> Cost:
    affine = argument(args, kwargs, 1, "weight") is not None
    return {Kind.NORM_FIXED if affine else Kind.NORM_FIXED_PLAIN: args[0].numel()}


# Amounts that are a tensor's size.


def _of_input(kind: Kind) -> Rule:
    return lambda args, kwargs, out: {kind: args[0].numel()}


def _of_output(kind: Kind) -> Rule:
    return lambda args, kwargs, out: {kind: first(out).numel()}


register_rule("aten::rms_norm", "aten::_fused_rms_norm")(_of_input(Kind.NORM_RMS))
register_rule("aten::grid_sampler", "aten::grid_sampler_2d", "aten::grid_sampler_3d")(
    _of_output(Kind.SAMPLE)
)
register_rule("aten::upsample_bilinear2d")(_of_output(Kind.UPSAMPLE_BILINEAR))
register_rule("aten::upsample_nearest2d")(_of_output(Kind.UPSAMPLE_NEAREST))
register_rule(
    "aten::upsample_bicubic2d",
    "aten::upsample_linear1d",
    "aten::upsample_trilinear3d",
    "aten::upsample_nearest1d",
    "aten::upsample_nearest3d",
    "aten::_upsample_nearest_exact1d",
    "aten::_upsample_nearest_exact2d",
    "aten::_upsample_nearest_exact3d",
    "aten::_upsample_bilinear2d_aa",
    "aten::_upsample_bicubic2d_aa",
)(_of_output(Kind.UPSAMPLE_OTHER))
register_rule("aten::adaptive_avg_pool2d", "aten::_adaptive_avg_pool2d")(
    _of_input(Kind.ADAPTIVE_POOL2D)
)
register_rule(
    *(
        f"aten::{name}"
        for name in [
            "adaptive_avg_pool1d",
            "adaptive_avg_pool3d",
            "_adaptive_avg_pool3d",
            "adaptive_max_pool1d",
            "adaptive_max_pool2d",
            "adaptive_max_pool3d",
            "avg_pool1d",
            "avg_pool2d",
            "avg_pool3d",
            "max_pool1d",
            "max_pool2d",
            "max_pool3d",
            "max_pool1d_with_indices",
            "max_pool2d_with_indices",
            "max_pool3d_with_indices",
            "fractional_max_pool2d",
            "fractional_max_pool3d",
        ]
    )
)(_of_input(Kind.POOL))
register_rule(
    "aten::softmax",
    "aten::_softmax",
    "aten::log_softmax",
    "aten::_log_softmax",
    "aten::_safe_softmax",
)(_of_input(Kind.SOFTMAX))
register_rule(
    *(
        f"aten::{name}"
        for name in [
            "sum",
            "mean",
            "var",
            "std",
            "var_mean",
            "std_mean",
            "amax",
            "amin",
            "aminmax",
            "max",
            "min",
            "argmax",
            "argmin",
            "prod",
            "norm",
            "linalg_vector_norm",
            "cumsum",
            "cumprod",
            "logsumexp",
            "logcumsumexp",
            "any",
            "all",
            "count_nonzero",
            "nansum",
            "nanmean",
            "topk",
            "sort",
            "argsort",
            "median",
            "nanmedian",
            "mode",
            "kthvalue",
            "cummax",
            "cummin",
            "_cdist_forward",
            "bincount",
            "histc",
            "unique2",
            "_unique2",
            "trace",
            "segment_reduce",
        ]
    )
)(_of_input(Kind.REDUCTION))
register_rule(
    *(
        f"aten::{name}"
        for name in [
            "dropout",
            "native_dropout",
            "bernoulli",
            "bernoulli_",
            "index_add",
            "index_add_",
            "scatter_add",
            "scatter_add_",
            "scatter_reduce",
            "embedding_bag",
            "_embedding_bag",
            "glu",
            "prelu",
            "_prelu_kernel",
            "rrelu_with_noise",
            "rrelu",
            "gelu",
            "gelu_",
            "celu",
            "celu_",
            "addr",
            "_thnn_fused_lstm_cell",
            "_thnn_fused_gru_cell",
            "uniform_",
            "normal_",
            "random_",
            "exponential_",
            "im2col",
            "col2im",
            "renorm",
            "cross",
            "linalg_cross",
            "binary_cross_entropy",
            "mse_loss",
            "nll_loss_forward",
            "smooth_l1_loss",
            "cosine_similarity",
        ]
    )
)(_of_output(Kind.ELEMENTWISE))


@register_rule("aten::_fft_r2c", "aten::_fft_c2c", "aten::_fft_c2r")
def _fft(args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> Cost:
    """5 N log2 N real operations for a complex transform of N points, half that for a real one."""
    x, dims = args[0], args[1]
    grid = out if not out.is_complex() else x
    points = math.prod(grid.shape[d] for d in dims)
    batch = grid.numel() // points
    full = 5 * batch * points * math.log2(max(points, 2))
    real = not (x.is_complex() and out.is_complex())
    return {Kind.FFT: round(full / 2 if real else full)}
