"""The registry of cost rules.

A rule receives the operator's positional arguments, its keyword arguments and its result, and
returns amounts by `Kind`. Nothing is weighted here: a convention does that.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

from ..setting import Kind

Cost = Mapping[Kind, int]

Rule = Callable[[Sequence[Any], Mapping[str, Any], Any], Cost]

RULES: dict[str, Rule] = {}
"""Rule by operator name, such as ``aten::linear``."""

ABOUT: dict[str, str] = {}
"""What a rule counts and where that comes from, by operator name; the documentation lists it."""


def register_rule(*operators: str, about: str = "") -> Callable[[Rule], Rule]:
    """Make the decorated function the rule of these operators, custom ones too.

    Args:
        about: what is counted, in words, and whose rule it is.

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
            ABOUT[name] = about
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


# Rules of operators that multiply and add: convolution, matrix products, attention, recurrence.


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


# Rules for backward operators. A product costs once for each gradient that it computes.
#
# No published counter has rules for the backward of normalisation, sampling and pooling; here each
# costs twice its forward, as a product that computes two gradients does.


_ABOUT_TWICE = "twice the forward. Ours: no published counter has a rule"


@register_rule(
    "aten::convolution_backward",
    "aten::convolution_backward_overrideable",
    about="as many multiply-adds as the forward for each gradient that is computed, groups "
    "respected. torch `conv_backward_flop`, which ignores the groups",
)
def _convolution_backward(args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> Cost:
    """Gradients of input and weight, each as many multiply-adds as the forward."""
    grad, x, weight = args[:3]
    bias_shape, transposed = argument(args, kwargs, 3, "bias_sizes"), args[7]
    wanted = argument(args, kwargs, 10, "output_mask")
    macs = conv_macs(x, weight, grad, bool(transposed))
    cost = {Kind.CONV: macs * (int(wanted[0]) + int(wanted[1]))}
    if wanted[2] and bias_shape is not None:
        cost[Kind.CONV_BIAS] = grad.numel()
    return cost


@register_rule("torchvision::_deform_conv2d_backward", about=_ABOUT_TWICE)
def _deform_conv2d_backward(args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> Cost:
    grad, x, weight = args[:3]
    taps = math.prod(weight.shape[2:])
    columns = grad.shape[0] * x.shape[1] * taps * math.prod(grad.shape[2:])
    return {
        Kind.CONV: 2 * conv_macs(x, weight, grad, False),
        Kind.SAMPLE: 2 * columns,
        Kind.CONV_BIAS: grad.numel(),
    }


@register_rule(
    "aten::_scaled_dot_product_flash_attention_backward",
    "aten::_scaled_dot_product_flash_attention_for_cpu_backward",
    "aten::_scaled_dot_product_efficient_attention_backward",
    "aten::_scaled_dot_product_cudnn_attention_backward",
    "aten::_scaled_dot_product_fused_attention_overrideable_backward",
    about="four products, two for each of the forward's; recomputation is not counted. "
    "torch `sdpa_backward_flop`, which counts it",
)
def _sdpa_backward(args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> Cost:
    """Four products, two for each of the forward's; what a kernel recomputes is not counted."""
    _, q, k, v = args[:4]
    pairs = math.prod(q.shape[:-1]) * k.shape[-2]
    cost = attention_cost(pairs, q.shape[-1], v.shape[-1], q.numel(), False)
    return {kind: 2 * amount for kind, amount in cost.items()}


@register_rule("aten::mkldnn_rnn_layer_backward", about=_ABOUT_TWICE)
def _mkldnn_rnn_backward(args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> Cost:
    steps = math.prod(args[0].shape[:-1])
    return {Kind.RECURRENT: 2 * sum(w.numel() for w in args[1:3]) * steps}


def _twice(kind: Kind, index: int = 0) -> Rule:
    """Twice the size of an argument."""
    return lambda args, kwargs, out: {kind: 2 * args[index].numel()}


register_rule(
    "aten::native_layer_norm_backward",
    "aten::native_group_norm_backward",
    "aten::native_batch_norm_backward",
    "aten::cudnn_batch_norm_backward",
    "aten::miopen_batch_norm_backward",
    "aten::batch_norm_backward",
    about=_ABOUT_TWICE,
)(_twice(Kind.NORM))

register_rule("aten::_fused_rms_norm_backward", about=_ABOUT_TWICE)(_twice(Kind.NORM_RMS))

register_rule(
    "aten::grid_sampler_2d_backward", "aten::grid_sampler_3d_backward", about=_ABOUT_TWICE
)(_twice(Kind.SAMPLE))

register_rule("aten::upsample_bilinear2d_backward", about=_ABOUT_TWICE)(
    _twice(Kind.UPSAMPLE_BILINEAR)
)

register_rule("aten::upsample_nearest2d_backward", about=_ABOUT_TWICE)(
    _twice(Kind.UPSAMPLE_NEAREST)
)

register_rule(
    "aten::upsample_bicubic2d_backward",
    "aten::upsample_linear1d_backward",
    "aten::_upsample_bilinear2d_aa_backward",
    "aten::_upsample_bicubic2d_aa_backward",
    about=_ABOUT_TWICE,
)(_twice(Kind.UPSAMPLE_OTHER))

register_rule("aten::_adaptive_avg_pool2d_backward", about=_ABOUT_TWICE)(
    _twice(Kind.ADAPTIVE_POOL2D, 1)
)

register_rule(
    "aten::avg_pool2d_backward",
    "aten::max_pool2d_with_indices_backward",
    "aten::_adaptive_avg_pool3d_backward",
    "aten::adaptive_max_pool2d_backward",
    about=_ABOUT_TWICE,
)(_twice(Kind.POOL, 1))

register_rule(
    "aten::_softmax_backward_data", "aten::_log_softmax_backward_data", about=_ABOUT_TWICE
)(_twice(Kind.SOFTMAX))


def _of_output(args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> Cost:
    return {Kind.ELEMENTWISE: first(out).numel()}


register_rule(
    "aten::embedding_dense_backward",
    "aten::index_put",
    "aten::index_put_",
    "aten::_index_put_impl_",
    "aten::native_dropout_backward",
    "aten::_prelu_kernel_backward",
    "aten::glu_backward",
    "aten::_thnn_fused_lstm_cell_backward_impl",
    "aten::_thnn_differentiable_lstm_cell_backward",
    "aten::_thnn_fused_gru_cell_backward",
    "aten::unfold_backward",
    about="output elements. Ours: the other counters skip it",
)(_of_output)

# Rules of everything else: normalisation, sampling, pooling, elementwise work, transforms.

# Normalisation.

_ABOUT_NORM = (
    "input elements, with or without scale and shift. "
    "fvcore `norm_flop_counter`, mmcv `norm_flops_counter_hook`"
)

_ABOUT_BATCH_NORM = (
    "input elements, over the batch's statistics or stored ones. "
    "fvcore `batchnorm_flop_jit`, mmcv `norm_flops_counter_hook`"
)


def _norm(weight: int, name: str = "weight") -> Rule:
    def rule(args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> Cost:
        affine = argument(args, kwargs, weight, name) is not None
        return {Kind.NORM if affine else Kind.NORM_PLAIN: args[0].numel()}

    return rule


register_rule("aten::layer_norm", "aten::native_layer_norm", "aten::group_norm", about=_ABOUT_NORM)(
    _norm(2)
)

register_rule("aten::instance_norm", "aten::native_group_norm", about=_ABOUT_NORM)(_norm(1))


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
    about=_ABOUT_BATCH_NORM,
)(_batch_norm(5))

register_rule("aten::_batch_norm_with_update", about=_ABOUT_BATCH_NORM)(_norm(1))


@register_rule(
    "aten::_native_batch_norm_legit_no_training",
    "aten::_batch_norm_no_update",
    about=_ABOUT_BATCH_NORM,
)
def _batch_norm_fixed(args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> Cost:
    affine = argument(args, kwargs, 1, "weight") is not None
    return {Kind.NORM_FIXED if affine else Kind.NORM_FIXED_PLAIN: args[0].numel()}


# Amounts that are a tensor's size.


def _of_input(kind: Kind) -> Rule:
    return lambda args, kwargs, out: {kind: args[0].numel()}


def _one_of_output(kind: Kind) -> Rule:
    return lambda args, kwargs, out: {kind: first(out).numel()}


register_rule(
    "aten::rms_norm", "aten::_fused_rms_norm", about="input elements. Ours: fvcore skips it"
)(_of_input(Kind.NORM_RMS))

register_rule(
    "aten::grid_sampler",
    "aten::grid_sampler_2d",
    "aten::grid_sampler_3d",
    about="output elements. fvcore `elementwise_flop_counter(0, 4)`",
)(_one_of_output(Kind.SAMPLE))

register_rule(
    "aten::upsample_bilinear2d",
    about="output elements. fvcore `elementwise_flop_counter(0, 4)`, "
    "mmcv `upsample_flops_counter_hook`",
)(_one_of_output(Kind.UPSAMPLE_BILINEAR))

register_rule(
    "aten::upsample_nearest2d",
    about="output elements. fvcore `elementwise_flop_counter(0, 1)`, "
    "mmcv `upsample_flops_counter_hook`",
)(_one_of_output(Kind.UPSAMPLE_NEAREST))

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
    about="output elements. mmcv `upsample_flops_counter_hook`; fvcore skips it",
)(_one_of_output(Kind.UPSAMPLE_OTHER))

register_rule(
    "aten::adaptive_avg_pool2d",
    "aten::_adaptive_avg_pool2d",
    about="input elements. fvcore `elementwise_flop_counter(1, 0)`, mmcv `pool_flops_counter_hook`",
)(_of_input(Kind.ADAPTIVE_POOL2D))

register_rule(
    *(
        f"aten::{name}"
        for name in """
        adaptive_avg_pool1d adaptive_avg_pool3d _adaptive_avg_pool3d adaptive_max_pool1d
        adaptive_max_pool2d adaptive_max_pool3d avg_pool1d avg_pool2d avg_pool3d max_pool1d
        max_pool2d max_pool3d max_pool1d_with_indices max_pool2d_with_indices
        max_pool3d_with_indices fractional_max_pool2d fractional_max_pool3d
        """.split()
    ),
    about="input elements. mmcv `pool_flops_counter_hook`; fvcore skips it",
)(_of_input(Kind.POOL))

register_rule(
    "aten::softmax",
    "aten::_softmax",
    "aten::log_softmax",
    "aten::_log_softmax",
    "aten::_safe_softmax",
    about="input elements. Ours: the other counters skip it",
)(_of_input(Kind.SOFTMAX))

register_rule(
    *(
        f"aten::{name}"
        for name in """
        sum mean var std var_mean std_mean amax amin aminmax max min argmax argmin prod norm
        linalg_vector_norm cumsum cumprod logsumexp logcumsumexp any all count_nonzero
        nansum nanmean topk sort argsort median nanmedian mode kthvalue cummax cummin
        bincount histc unique2 _unique2 trace segment_reduce
        """.split()
    ),
    about="input elements. Ours: the other counters skip it",
)(_of_input(Kind.REDUCTION))

register_rule(
    *(
        f"aten::{name}"
        for name in """
        dropout native_dropout bernoulli bernoulli_ index_add index_add_ scatter_add
        scatter_add_ scatter_reduce embedding_bag _embedding_bag glu prelu _prelu_kernel
        rrelu_with_noise rrelu gelu gelu_ celu celu_ addr _thnn_fused_lstm_cell
        _thnn_fused_gru_cell uniform_ normal_ random_ exponential_ im2col col2im renorm
        cross linalg_cross binary_cross_entropy mse_loss nll_loss_forward smooth_l1_loss
        cosine_similarity
        """.split()
    ),
    about="output elements. Ours; mmcv counts the ReLU family by `relu_flops_counter_hook`",
)(_one_of_output(Kind.ELEMENTWISE))


@register_rule(
    "aten::_fft_r2c",
    "aten::_fft_c2c",
    "aten::_fft_c2r",
    about="5 N log2 N operations for N complex points, half for real ones. Ours",
)
def _fft(args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> Cost:
    """5 N log2 N real operations for a complex transform of N points, half that for a real one."""
    x, dims = args[0], args[1]
    grid = out if not out.is_complex() else x
    points = math.prod(grid.shape[d] for d in dims)
    batch = grid.numel() // points
    full = 5 * batch * points * math.log2(max(points, 2))
    real = not (x.is_complex() and out.is_complex())
    return {Kind.FFT: round(full / 2 if real else full)}
