"""Rules for backward operators. A product costs once for each gradient that it computes.

No published counter has rules for the backward of normalisation, sampling and pooling; here each
costs twice its forward, as a product that computes two gradients does.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ...types import Kind
from .products import attention_cost, conv_macs
from .registry import Cost, Rule, argument, first, register_rule

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
