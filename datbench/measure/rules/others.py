"""Rules of everything else: normalisation, sampling, pooling, elementwise work, transforms."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ...types import Kind
from .registry import Cost, Rule, argument, first, register_rule

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


def _of_output(kind: Kind) -> Rule:
    return lambda args, kwargs, out: {kind: first(out).numel()}


register_rule(
    "aten::rms_norm", "aten::_fused_rms_norm", about="input elements. Ours: fvcore skips it"
)(_of_input(Kind.NORM_RMS))
register_rule(
    "aten::grid_sampler",
    "aten::grid_sampler_2d",
    "aten::grid_sampler_3d",
    about="output elements. fvcore `elementwise_flop_counter(0, 4)`",
)(_of_output(Kind.SAMPLE))
register_rule(
    "aten::upsample_bilinear2d",
    about="output elements. fvcore `elementwise_flop_counter(0, 4)`, "
    "mmcv `upsample_flops_counter_hook`",
)(_of_output(Kind.UPSAMPLE_BILINEAR))
register_rule(
    "aten::upsample_nearest2d",
    about="output elements. fvcore `elementwise_flop_counter(0, 1)`, "
    "mmcv `upsample_flops_counter_hook`",
)(_of_output(Kind.UPSAMPLE_NEAREST))
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
)(_of_output(Kind.UPSAMPLE_OTHER))
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
)(_of_output(Kind.ELEMENTWISE))


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
