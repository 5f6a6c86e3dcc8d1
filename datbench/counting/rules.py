"""What operators cost: the registry of rules, and the rules of torch's own operators.

A rule receives the operator's positional arguments, its keyword arguments and its result, and
returns amounts by `Kind`. Nothing is weighted here: a convention does that.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..run import values_of
from ..setting import MULTIPLY_ADDS, Kind

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


def _aten(names: str, about: str) -> Callable[[Rule], Rule]:
    """`register_rule` of these `aten` operators, with blanks between their names."""
    return register_rule(*(f"aten::{name}" for name in names.split()), about=about)


class NoRule(Exception):
    """An operator has a rule, but not for these arguments: it is unknown."""


def first(out: Any) -> Tensor:
    """The (first) tensor of an operator's result."""
    tensor: Tensor = out[0] if isinstance(out, (tuple, list)) else out
    return tensor


def argument(
    args: Sequence[Any], kwargs: Mapping[str, Any], index: int, name: str, default: Any = None
) -> Any:
    """An argument that may be given by position or by name."""
    return args[index] if len(args) > index else kwargs.get(name, default)


_ABOUT_TWICE = "twice the forward. Ours: no published counter has a rule"

# Rules whose amount is a tensor's size.


def _input(kind: Kind, index: int = 0, times: int = 1) -> Rule:
    return lambda args, kwargs, out: {kind: times * values_of(args[index]).numel()}


def _output(kind: Kind) -> Rule:
    return lambda args, kwargs, out: {kind: values_of(first(out)).numel()}


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


_aten("conv1d conv2d conv3d", _ABOUT_CONV)(_conv(transposed=False))
_aten("conv_transpose1d conv_transpose2d conv_transpose3d", _ABOUT_CONV)(_conv(transposed=True))


@_aten("convolution _convolution convolution_overrideable", _ABOUT_CONV)
def _convolution(args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> Cost:
    return _conv(bool(argument(args, kwargs, 6, "transposed")))(args, kwargs, out)


@register_rule(
    "torchvision::deform_conv2d",
    about="a convolution over columns that are sampled bilinearly. Ours: fvcore and torch skip it",
)
def _deform_conv2d(args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> Cost:
    """A convolution over columns that are sampled bilinearly, modulated if there is a mask."""
    weight, mask = args[1], argument(args, kwargs, 3, "mask")
    columns = _columns(args[0], weight, out)
    cost = {Kind.CONV: conv_macs(args[0], weight, out, False), Kind.SAMPLE: columns}
    cost[Kind.CONV_BIAS] = out.numel()
    if mask is not None and mask.numel():
        cost[Kind.ELEMENTWISE] = columns
    return cost


def _columns(x: Tensor, weight: Tensor, out: Tensor) -> int:
    """Elements that a deformable convolution samples: channels x taps for each output position."""
    positions = out.shape[0] * math.prod(out.shape[2:])
    return positions * x.shape[1] * math.prod(weight.shape[2:])


# Matrix products: one multiply-add for each term of each sum.


@_aten(
    "linear",
    "output elements x input width; the bias apart. "
    "fvcore `linear_flop_jit`, torch `addmm_flop`, mmcv `linear_flops_counter_hook`",
)
def _linear(args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> Cost:
    sparse = args[1].layout != torch.strided
    rows = math.prod(args[0].shape[:-1])
    terms = rows * values_of(args[1]).numel() if sparse else out.numel() * args[1].shape[-1]
    cost = {Kind.LINEAR: terms}
    if argument(args, kwargs, 2, "bias") is not None:
        cost[Kind.LINEAR_BIAS] = out.numel()
    return cost


_aten(
    "mm bmm matmul mv dot vdot inner _int_mm _scaled_mm _scaled_mm_v2 _weight_int8pack_mm "
    "_sparse_mm_reduce_impl",
    "output elements x terms of each sum. "
    "fvcore `matmul_flop_jit`, `bmm_flop_jit`; torch `mm_flop`, `bmm_flop`",
)(lambda args, kwargs, out: {Kind.MATMUL: _product(args[0], args[1], out)})


def _product(left: Tensor, right: Tensor, out: Tensor) -> int:
    """Terms of all sums of `left` @ `right`; those that a sparse matrix stores, if one is sparse.

    Raises:
        NoRule: both are sparse; which elements meet depends on where they are.
    """
    sparse = [t for t in (left, right) if t.layout != torch.strided]
    if len(sparse) == 2:
        raise NoRule
    if sparse:
        # Each stored element meets every row (M, K), or column (K, N), of the other operand.
        dense = right if sparse[0] is left else left
        terms = dense.shape[-2 if dense is right and dense.ndim > 1 else -1]
        batch = math.prod(sparse[0].shape[:-2])
        return values_of(sparse[0]).numel() * dense.numel() // max(terms * batch, 1)
    if left.ndim == 0 or right.ndim == 0:  # `inner` takes numbers
        return out.numel()
    return out.numel() * left.shape[-1]


@_aten(
    "addmm baddbmm addmv addbmm _sparse_addmm sspaddmm _addmm_activation",
    "the product as a matrix product, the sum apart. "
    "fvcore `addmm_flop_jit`, torch `addmm_flop`, `baddbmm_flop`",
)
def _add_matmul(args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> Cost:
    """The product of the second and third argument, added to the first; addbmm sums a batch."""
    left, right = args[1], args[2]
    terms = left.numel() * (right.shape[-1] if right.ndim > 1 else 1)
    if left.layout != torch.strided or right.layout != torch.strided:
        terms = _product(left, right, out)
    return {Kind.MATMUL: terms, Kind.ELEMENTWISE: values_of(out).numel()}


@_aten("sparse_sampled_addmm", "a product of the terms of each stored element. Ours")
def _sampled_addmm(args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> Cost:
    stored = values_of(args[0]).numel()
    return {Kind.MATMUL: stored * args[1].shape[-1], Kind.ELEMENTWISE: stored}


_aten("_sparse_mm_reduce_impl_backward", "a product for each gradient that is computed. Ours")(
    lambda args, kwargs, out: {
        Kind.MATMUL: values_of(args[0]).numel() * args[1].shape[-1] * sum(map(bool, args[5]))
    }
)
# (B, H, W, 2) of theta (B, 2, 3)
_aten("affine_grid_generator cudnn_affine_grid_generator", "a product for each point. Ours")(
    lambda args, kwargs, out: {Kind.MATMUL: out.numel() * args[0].shape[-1]}
)
_aten("conv_tbc", _ABOUT_CONV)(  # weight (k, C_in, C_out)
    lambda args, kwargs, out: {
        Kind.CONV: out.numel() * math.prod(args[1].shape[:2]),
        Kind.CONV_BIAS: out.numel(),
    }
)


@_aten("_grouped_mm", "a product for each row of a group. Ours")
def _grouped_mm(args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> Cost:
    left, right = args[:2]  # the groups cut the rows, the columns or the terms
    if left.ndim > right.ndim:
        return {Kind.MATMUL: right.numel() * left.shape[-2]}
    return {Kind.MATMUL: left.numel() * right.shape[-1]}


@_aten("bilinear _trilinear", "one multiply-add for each weight and sample. Ours")
def _bilinear(args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> Cost:
    """x1 W x2 with W (out, in1, in2): one multiply-add for each weight and sample."""
    if args[0].shape[-1] == args[2].shape[1] and args[2].ndim == 3:
        cost = {Kind.MATMUL: out.numel() * math.prod(args[2].shape[1:])}
        if argument(args, kwargs, 3, "bias") is not None:
            cost[Kind.ELEMENTWISE] = out.numel()
        return cost
    return {Kind.MATMUL: max(t.numel() for t in args[:3]) * out.shape[0]}


# Distances: a difference, a power and a sum for each coordinate of each pair.

_ABOUT_DISTANCE = "a difference, a power and a sum for each coordinate of each pair. Ours"


def _distances(pairs: Callable[[Sequence[Any], Any], int], of: int, times: int = 3) -> Rule:
    """Pairs, told from arguments and result, of points that are rows of the argument `of`."""
    return lambda args, kwargs, out: {
        Kind.ELEMENTWISE: times * pairs(args, out) * args[of].shape[-1]
    }


_aten("_cdist_forward _euclidean_dist _pdist_forward", _ABOUT_DISTANCE)(
    _distances(lambda args, out: out.numel(), 0)
)
_aten("_cdist_backward", _ABOUT_TWICE)(_distances(lambda args, out: args[4].numel(), 1, times=6))
_aten("_pdist_backward", _ABOUT_TWICE)(_distances(lambda args, out: args[3].numel(), 1, times=6))
_aten("dist", _ABOUT_DISTANCE)(
    lambda args, kwargs, out: {Kind.ELEMENTWISE: 3 * max(t.numel() for t in args[:2])}
)

# Attention as one operator: two products, the scale of the queries, the mask, a softmax.


def attention_cost(pairs: int, dim_qk: int, dim_v: int, queries: int, masked: bool) -> Cost:
    """The cost of attention over `pairs` (query, key) pairs, all heads and images together."""
    return {
        Kind.ATTENTION: pairs * (dim_qk + dim_v),
        Kind.SOFTMAX: pairs,
        Kind.ELEMENTWISE: queries + (pairs if masked else 0),
    }


@_aten(
    """
    scaled_dot_product_attention _scaled_dot_product_flash_attention
    _scaled_dot_product_flash_attention_for_cpu _scaled_dot_product_efficient_attention
    _scaled_dot_product_cudnn_attention _scaled_dot_product_fused_attention_overrideable
    _scaled_dot_product_attention_math_for_mps
    """,
    "two products over all (query, key) pairs; softmax, scale and mask apart. "
    "torch `sdpa_flop`; fvcore skips it",
)
def _sdpa(args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> Cost:
    q, k, v = args[:3]  # (..., N, d), (..., Ns, d), (..., Ns, dv)
    pairs = math.prod(q.shape[:-1]) * k.shape[-2]
    mask = argument(args, kwargs, 3, "attn_mask")
    masked = isinstance(mask, Tensor) or bool(argument(args, kwargs, 5, "is_causal", False))
    return attention_cost(pairs, q.shape[-1], v.shape[-1], q.numel(), masked)


@_aten(
    "_efficient_attention_forward _flash_attention_forward",
    "the same, for tensors laid out as (B, N, M, d). "
    "torch `_efficient_attention_forward_flop`, `_flash_attention_forward_flop`",
)
def _attention_forward(args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> Cost:
    q, k, v = args[:3]  # (B, N, M, d), (B, Ns, M, d), (B, Ns, M, dv)
    pairs = q.shape[0] * q.shape[1] * q.shape[2] * k.shape[1]
    return attention_cost(pairs, q.shape[-1], v.shape[-1], q.numel(), False)


_ABOUT_FLEX = "the same; masks leave no product out. torch `sdpa_flop`, which PyTorch gives to it"


@register_rule("higher_order::flex_attention", about=_ABOUT_FLEX)
def _flex_attention(args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> Cost:
    q, k, v, score_mod = args[:4]  # (B, M, N, d), (B, M', Ns, d), (B, M', Ns, dv)
    pairs = q.shape[0] * q.shape[1] * q.shape[2] * k.shape[2]
    scored = getattr(score_mod, "__name__", "") != "_identity"
    return attention_cost(pairs, q.shape[-1], v.shape[-1], q.numel(), scored)


# Recurrent layers as one operator: every weight matrix meets every step of every sequence.


@_aten(
    "lstm gru rnn_tanh rnn_relu",
    "every weight matrix meets every step of every sequence. Ours: fvcore skips it",
)
def _recurrent(args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> Cost:
    steps, weights = _steps(args[0]), _weights(args)[1]
    macs = sum(w.numel() for w in weights) * steps
    gates = sum(w.shape[0] for w in weights) * steps
    return {Kind.RECURRENT: macs, Kind.ELEMENTWISE: gates}


RECURRENT = (torch.lstm, torch.gru, torch.rnn_tanh, torch.rnn_relu)


def _steps(x: Tensor) -> int:
    """Steps of all sequences; packed sequences are (steps, C), others (T, B, C) or (B, T, C)."""
    return math.prod(x.shape[:-1])


def _weights(args: Sequence[Any]) -> tuple[int, list[Tensor]]:
    """The weight matrices, and where their list stands: it is the last list of tensors."""
    lists = [i for i, a in enumerate(args) if isinstance(a, (list, tuple)) and len(a)]
    at = [i for i in lists if isinstance(args[i][0], Tensor)][-1]
    return at, [w for w in args[at] if w.ndim == 2]


def recurrent_backward(args: Sequence[Any]) -> Cost:
    """The backward of these operators, which each device does in operators of its own.

    Each weight matrix meets every step once for its own gradient and once for that of what it
    multiplies, save what needs none: images, and states that begin at zero. Twice the gates.
    """
    x, (at, weights) = args[0], _weights(args)
    state = args[at - 1] if isinstance(args[at - 1], Tensor) else args[at - 1][0]  # (L, B, H)
    layers, both = args[at + 2], 1 + bool(args[at + 5])
    each = len(weights) // (layers * both)  # of the input, the state, and its projection
    macs = 0
    for i, weight in enumerate(weights):
        steps = _steps(x)
        wanted = steps if weight.requires_grad else 0
        if i % each == 0:
            wanted += steps if x.requires_grad or i >= each * both else 0
        else:
            first = i % each == 1 and not state.requires_grad
            wanted += steps - (state.shape[-2] if first else 0)
        macs += weight.numel() * wanted
    gates = sum(w.shape[0] for w in weights) * _steps(x)
    return {Kind.RECURRENT: macs, Kind.ELEMENTWISE: 2 * gates}


def _mkldnn_rnn(times: int) -> Rule:
    return lambda args, kwargs, out: {
        Kind.RECURRENT: times * sum(w.numel() for w in args[1:3]) * _steps(args[0])
    }


_aten("mkldnn_rnn_layer", "the same, one layer of the CPU's kernel. Ours")(_mkldnn_rnn(1))


# Normalisation.

_ABOUT_NORM = (
    "input elements, with or without scale and shift. "
    "fvcore `norm_flop_counter`, mmcv `norm_flops_counter_hook`"
)

_ABOUT_BATCH_NORM = (
    "input elements, over the batch's statistics or stored ones. "
    "fvcore `batchnorm_flop_jit`, mmcv `norm_flops_counter_hook`"
)


def _norm(weight: int, affine: Kind = Kind.NORM, plain: Kind = Kind.NORM_PLAIN) -> Rule:
    """Input elements, of a kind that depends on whether there is a weight, at this position."""
    return lambda args, kwargs, out: {
        plain if argument(args, kwargs, weight, "weight") is None else affine: args[0].numel()
    }


_over_batch = _norm(1)
_over_stored = _norm(1, Kind.NORM_FIXED, Kind.NORM_FIXED_PLAIN)

_aten("layer_norm native_layer_norm group_norm", _ABOUT_NORM)(_norm(2))
_aten("instance_norm native_group_norm", _ABOUT_NORM)(_over_batch)


_aten(
    "batch_norm native_batch_norm cudnn_batch_norm miopen_batch_norm _native_batch_norm_legit",
    _ABOUT_BATCH_NORM,
)(
    lambda args, kwargs, out: (
        _over_batch if argument(args, kwargs, 5, "training") else _over_stored
    )(args, kwargs, out)
)
_aten("_batch_norm_with_update", _ABOUT_BATCH_NORM)(_over_batch)
_aten("_native_batch_norm_legit_no_training _batch_norm_no_update", _ABOUT_BATCH_NORM)(_over_stored)
_aten("rms_norm _fused_rms_norm", "input elements. Ours: fvcore skips it")(_input(Kind.NORM_RMS))

# Sampling and pooling.

_aten(
    "grid_sampler grid_sampler_2d grid_sampler_3d",
    "output elements. fvcore `elementwise_flop_counter(0, 4)`",
)(_output(Kind.SAMPLE))

_aten(
    "upsample_bilinear2d",
    "output elements. fvcore `elementwise_flop_counter(0, 4)`, mmcv `upsample_flops_counter_hook`",
)(_output(Kind.UPSAMPLE_BILINEAR))

_aten(
    "upsample_nearest2d",
    "output elements. fvcore `elementwise_flop_counter(0, 1)`, mmcv `upsample_flops_counter_hook`",
)(_output(Kind.UPSAMPLE_NEAREST))

_UPSAMPLES = """
    upsample_bicubic2d upsample_linear1d upsample_trilinear3d upsample_nearest1d
    upsample_nearest3d _upsample_nearest_exact1d _upsample_nearest_exact2d
    _upsample_nearest_exact3d _upsample_bilinear2d_aa _upsample_bicubic2d_aa
    _upsample_lanczos2d_aa
"""

_aten(_UPSAMPLES, "output elements. mmcv `upsample_flops_counter_hook`; fvcore skips it")(
    _output(Kind.UPSAMPLE_OTHER)
)

_aten(
    "adaptive_avg_pool2d _adaptive_avg_pool2d",
    "input elements. fvcore `elementwise_flop_counter(1, 0)`, mmcv `pool_flops_counter_hook`",
)(_input(Kind.ADAPTIVE_POOL2D))

_aten(
    """
    adaptive_avg_pool1d adaptive_avg_pool3d _adaptive_avg_pool3d adaptive_max_pool1d
    adaptive_max_pool2d adaptive_max_pool3d avg_pool1d avg_pool2d avg_pool3d max_pool1d
    max_pool2d max_pool3d max_pool1d_with_indices max_pool2d_with_indices
    max_pool3d_with_indices fractional_max_pool2d fractional_max_pool3d
    """,
    "input elements. mmcv `pool_flops_counter_hook`; fvcore skips it",
)(_input(Kind.POOL))

# Softmax, reductions, elementwise work that torch does not tag as pointwise, transforms.

_ABOUT_INPUT = "input elements. Ours: the other counters skip it"

_aten(
    "softmax _softmax log_softmax _log_softmax _safe_softmax _masked_softmax _sparse_softmax "
    "_sparse_log_softmax",
    _ABOUT_INPUT,
)(_input(Kind.SOFTMAX))

_aten(
    """
    sum mean var std var_mean std_mean amax amin aminmax max min argmax argmin prod norm
    linalg_vector_norm cumsum cumprod logsumexp logcumsumexp any all count_nonzero
    nansum nanmean topk sort argsort median nanmedian mode kthvalue cummax cummin
    bincount histc unique2 _unique _unique2 trace segment_reduce native_norm linalg__powsum allclose
    hash_tensor histogram _histogramdd_bin_edges _histogramdd_from_bin_cts
    _histogramdd_from_bin_tensors _aminmax _is_all_true _is_any_true _sparse_sum _sparse_csr_sum
    _sparse_csr_prod
    """,
    _ABOUT_INPUT,
)(_input(Kind.REDUCTION))

_aten(
    """
    dropout native_dropout bernoulli glu prelu _prelu_kernel
    rrelu_with_noise rrelu gelu celu leaky_relu hardswish log_sigmoid_forward floor_divide rsub
    addr _thnn_fused_lstm_cell _thnn_fused_gru_cell uniform normal random exponential cauchy
    log_normal geometric poisson binomial im2col col2im renorm embedding_renorm cross linalg_cross
    isin polar _conj_physical _coalesce quantize_per_tensor quantize_per_channel
    quantize_per_tensor_dynamic dequantize fake_quantize_per_tensor_affine_cachemask
    fake_quantize_per_channel_affine_cachemask
    """,
    "output elements. Ours; mmcv counts the ReLU family by `relu_flops_counter_hook`",
)(_output(Kind.ELEMENTWISE))

# A reduction or a search inside one operator.

_ABOUT_ROWS = "elements that are added up. Ours: the other counters skip it"

_aten("index_add index_reduce", _ABOUT_ROWS)(_input(Kind.REDUCTION, 3))
_aten("scatter_add scatter_reduce", _ABOUT_ROWS)(_input(Kind.REDUCTION, 2))
_aten("embedding_dense_backward", _ABOUT_ROWS)(_input(Kind.REDUCTION))


def _where_added(index: int, name: str) -> Rule:
    """What is written costs nothing where this argument does not say that it is added up."""
    return lambda args, kwargs, out: (
        {Kind.REDUCTION: args[2].numel()} if argument(args, kwargs, index, name) else {}
    )


_aten("scatter", _ABOUT_ROWS)(_where_added(4, "reduce"))
_aten("index_put _index_put_impl _unsafe_index_put", _ABOUT_ROWS)(_where_added(3, "accumulate"))
_aten("_unsafe_masked_index_put_accumulate", _ABOUT_ROWS)(_input(Kind.REDUCTION, 3))


@_aten("embedding_bag _embedding_bag _embedding_bag_forward_only", _ABOUT_ROWS)
def _embedding_bag(args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> Cost:
    rows = args[1].numel() * args[0].shape[-1]
    weighted = argument(args, kwargs, 6, "per_sample_weights") is not None
    return {Kind.REDUCTION: rows, Kind.ELEMENTWISE: rows if weighted else 0}


@_aten(
    "_embedding_bag_backward _embedding_bag_dense_backward "
    "_embedding_bag_per_sample_weights_backward",
    _ABOUT_ROWS,
)
def _embedding_bag_backward(args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> Cost:
    grad, indices = args[0], next(t for t in args[1:] if not t.is_floating_point())
    return {Kind.REDUCTION: indices.numel() * grad.shape[-1]}


def _search(edges: int) -> Rule:
    return lambda args, kwargs, out: {
        Kind.ELEMENTWISE: out.numel() * math.ceil(math.log2(args[edges].shape[-1] + 1))
    }


_ABOUT_SEARCH = "one comparison for each step of a binary search. Ours"

_aten("bucketize", _ABOUT_SEARCH)(_search(edges=1))
_aten("searchsorted", _ABOUT_SEARCH)(_search(edges=0))


@_aten(
    """
    mse_loss smooth_l1_loss huber_loss binary_cross_entropy binary_cross_entropy_with_logits
    soft_margin_loss multi_margin_loss multilabel_margin_loss_forward
    """,
    "input elements, and once more where they are added up. Ours: the other counters skip it",
)
def _loss(args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> Cost:
    elements = args[0].numel()
    return {Kind.ELEMENTWISE: elements, Kind.REDUCTION: elements if first(out).ndim == 0 else 0}


_ABOUT_TARGET = "elements of the target. Ours"

_aten("nll_loss_forward nll_loss2d_forward", _ABOUT_TARGET)(_input(Kind.REDUCTION, 1))
_aten("nll_loss_backward nll_loss2d_backward", _ABOUT_TARGET)(_input(Kind.ELEMENTWISE, 2))
_aten("_ctc_loss", "elements of the table of log-probabilities, (B, T, 2 S + 1). Ours")(
    lambda args, kwargs, out: {Kind.REDUCTION: out[1].numel()}
)
_aten("_ctc_loss_backward", _ABOUT_TWICE)(_input(Kind.REDUCTION, 6, times=2))
_aten("_weight_norm_interface", "the weight's norm and its scaling. Ours")(
    lambda args, kwargs, out: dict.fromkeys((Kind.REDUCTION, Kind.ELEMENTWISE), args[0].numel())
)
_aten("_weight_norm_interface_backward", _ABOUT_TWICE)(_input(Kind.ELEMENTWISE, 1, times=4))

# Direct methods of linear algebra, by the leading terms of LAPACK Working Note 41. A matrix has m
# rows and n columns, and there are k right-hand sides. Orthogonal factors and what iterates have no
# rule.


def _lapack(cost: Callable[[int, int, int], float], of: int = 0, right: int | None = None) -> Rule:
    def rule(args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> Cost:
        *batch, m, n = args[of].shape
        matrices = math.prod(batch)
        k = args[right].numel() // max(matrices * n, 1) if right is not None else 0
        return {Kind.ELEMENTWISE: round(matrices * cost(max(m, n), min(m, n), k))}

    return rule


_ABOUT_LAPACK = "real operations, by LAPACK Working Note 41. Ours: the other counters skip it"

for names, rule in (
    ("linalg_cholesky_ex", _lapack(lambda m, n, k: n**3 / 3)),
    ("linalg_lu_factor_ex linalg_lu", _lapack(lambda m, n, k: n**2 * (m - n / 3))),
    ("_linalg_det _linalg_slogdet linalg_ldl_factor_ex", _lapack(lambda m, n, k: 2 * n**3 / 3)),
    ("linalg_inv_ex", _lapack(lambda m, n, k: 2 * n**3)),
    ("cholesky_inverse", _lapack(lambda m, n, k: 2 * n**3 / 3)),
    ("_linalg_solve_ex", _lapack(lambda m, n, k: 2 * n**3 / 3 + 2 * n**2 * k, right=1)),
    ("linalg_solve_triangular", _lapack(lambda m, n, k: n**2 * k, right=1)),
    ("triangular_solve", _lapack(lambda m, n, k: n**2 * k, of=1, right=0)),
    ("cholesky_solve", _lapack(lambda m, n, k: 2 * n**2 * k, of=1, right=0)),
    ("linalg_lu_solve linalg_ldl_solve", _lapack(lambda m, n, k: 2 * n**2 * k, right=2)),
):
    _aten(names, _ABOUT_LAPACK)(rule)


@_aten(
    "_fft_r2c _fft_c2c _fft_c2r",
    "5 N log2 N operations for N complex points, half for real ones. Ours",
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


# Backward operators. A product costs once for each gradient that it computes.
#
# No published counter has rules for the backward of normalisation, sampling and pooling; here each
# costs twice its forward, as a product that computes two gradients does.


@_aten(
    "convolution_backward convolution_backward_overrideable",
    "as many multiply-adds as the forward for each gradient that is computed, groups "
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
    return {
        Kind.CONV: 2 * conv_macs(x, weight, grad, False),
        Kind.SAMPLE: 2 * _columns(x, weight, grad),
        Kind.CONV_BIAS: grad.numel(),
    }


@_aten(
    """
    _scaled_dot_product_flash_attention_backward
    _scaled_dot_product_flash_attention_for_cpu_backward
    _scaled_dot_product_efficient_attention_backward
    _scaled_dot_product_cudnn_attention_backward
    _scaled_dot_product_fused_attention_overrideable_backward
    """,
    "four products, two for each of the forward's; recomputation is not counted. "
    "torch `sdpa_backward_flop`, which counts it",
)
def _sdpa_backward(args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> Cost:
    """Four products, two for each of the forward's; what a kernel recomputes is not counted."""
    _, q, k, v = args[:4]
    pairs = math.prod(q.shape[:-1]) * k.shape[-2]
    cost = attention_cost(pairs, q.shape[-1], v.shape[-1], q.numel(), False)
    return {kind: 2 * amount for kind, amount in cost.items()}


_aten("mkldnn_rnn_layer_backward", _ABOUT_TWICE)(_mkldnn_rnn(2))

for rule, names in (  # of the argument that has the forward's size
    (
        _input(Kind.NORM, times=2),
        "native_layer_norm_backward native_group_norm_backward native_batch_norm_backward "
        "cudnn_batch_norm_backward miopen_batch_norm_backward batch_norm_backward",
    ),
    (_input(Kind.NORM_RMS, times=2), "_fused_rms_norm_backward"),
    (_input(Kind.SAMPLE, times=2), "grid_sampler_2d_backward grid_sampler_3d_backward"),
    (_input(Kind.UPSAMPLE_BILINEAR, times=2), "upsample_bilinear2d_backward"),
    (_input(Kind.UPSAMPLE_NEAREST, times=2), "upsample_nearest2d_backward"),
    (
        _input(Kind.UPSAMPLE_OTHER, times=2),
        " ".join(f"{name}_backward" for name in _UPSAMPLES.split()),
    ),
    (_input(Kind.ADAPTIVE_POOL2D, 1, times=2), "_adaptive_avg_pool2d_backward"),
    (
        _input(Kind.POOL, 1, times=2),
        "avg_pool2d_backward avg_pool3d_backward max_pool2d_with_indices_backward "
        "max_pool3d_with_indices_backward _adaptive_avg_pool3d_backward "
        "adaptive_max_pool2d_backward adaptive_max_pool3d_backward "
        "fractional_max_pool2d_backward fractional_max_pool3d_backward",
    ),
    (
        _input(Kind.SOFTMAX, times=2),
        "_softmax_backward_data _log_softmax_backward_data _masked_softmax_backward",
    ),
):
    _aten(names, _ABOUT_TWICE)(rule)

_aten(
    """
    native_dropout_backward _prelu_kernel_backward glu_backward gelu_backward hardtanh_backward
    hardswish_backward hardsigmoid_backward leaky_relu_backward elu_backward softplus_backward
    softshrink_backward hardshrink_backward rrelu_with_noise_backward log_sigmoid_backward
    mse_loss_backward smooth_l1_loss_backward huber_loss_backward binary_cross_entropy_backward
    soft_margin_loss_backward multi_margin_loss_backward multilabel_margin_loss_backward
    _thnn_fused_lstm_cell_backward_impl _thnn_differentiable_lstm_cell_backward
    _thnn_fused_gru_cell_backward unfold_backward _segment_reduce_backward
    """,
    "output elements. Ours: the other counters skip it",
)(_output(Kind.ELEMENTWISE))

# Complex arithmetic, in real operations. A product of two complex numbers is 4 products and 2
# sums (6), a quotient 11; a multiply-add is 4 real ones, also in a convolution. Other elementwise
# results are two real ones. A real operand, or a real result, takes part once.

_COMPLEX = {"mul": 6, "square": 6, "prod": 6, "cumprod": 6, "addcmul": 8, "addr": 8, "div": 11}
_COMPLEX |= {"reciprocal": 6, "addcdiv": 13, "abs": 4, "exp": 5, "polar": 4}
_COMPLEX_OPERATIONS = {f"aten::{name}": operations for name, operations in _COMPLEX.items()}

_ONE_EACH = (Kind.ELEMENTWISE, Kind.REDUCTION, Kind.CONV_BIAS, Kind.LINEAR_BIAS)


def with_complex(name: str, cost: Cost, inputs: Sequence[Tensor], out: Sequence[Tensor]) -> Cost:
    """The cost of an operator on complex tensors: what it takes beyond one on real tensors."""
    if not cost or Kind.FFT in cost or not any(t.is_complex() for t in (*inputs, *out)):
        return cost
    macs = sum(amount for kind, amount in cost.items() if kind in MULTIPLY_ADDS)
    base = name.removesuffix("_")
    operations = _COMPLEX_OPERATIONS.get(base, 2)
    if base in ("aten::mul", "aten::div") and sum(t.is_complex() for t in inputs) < 2:
        operations = 2  # with a real tensor, or a number
    other = sum(amount for kind, amount in cost.items() if kind in _ONE_EACH)
    extra = {Kind.COMPLEX_PRODUCT: 3 * macs, Kind.COMPLEX: (operations - 1) * other}
    return {**cost, **{kind: amount for kind, amount in extra.items() if amount}}


# Quantized operators: an integer multiply-add is one, as in float. Weights are packed objects.


def _quantized(names: str, about: str) -> Callable[[Rule], Rule]:
    """`register_rule` of these `quantized` operators, with blanks between their names."""
    return register_rule(*(f"quantized::{name}" for name in names.split()), about=about)


@_quantized(
    "linear linear_relu linear_leaky_relu linear_tanh linear_dynamic linear_relu_dynamic "
    "linear_dynamic_fp16 linear_relu_dynamic_fp16",
    "as linear, of integers or half precision",
)
def _quantized_linear(args: Sequence[Any], kwargs: Mapping[str, Any], out: Tensor) -> Cost:
    cost = {Kind.LINEAR: out.numel() * args[0].shape[-1]}
    return cost if args[1].unpack()[1] is None else cost | {Kind.LINEAR_BIAS: out.numel()}


def _quantized_conv(transposed: bool) -> Rule:
    def rule(args: Sequence[Any], kwargs: Mapping[str, Any], out: Tensor) -> Cost:
        packed = next(each for each in args if not isinstance(each, Tensor))
        weight, bias = packed.unpack()
        cost = {Kind.CONV: conv_macs(args[0], weight, out, transposed)}
        return cost if bias is None else cost | {Kind.CONV_BIAS: out.numel()}

    return rule


_quantized(
    "conv1d conv1d_relu conv1d_dynamic conv2d conv2d_relu conv2d_dynamic conv2d_add "
    "conv2d_add_relu conv3d conv3d_relu conv3d_dynamic",
    "as convolution, of integers",
)(_quantized_conv(transposed=False))
_quantized(
    "conv_transpose1d conv_transpose1d_dynamic conv_transpose2d conv_transpose2d_dynamic "
    "conv_transpose3d conv_transpose3d_dynamic",
    "as transposed convolution, of integers",
)(_quantized_conv(transposed=True))


@_aten("quantized_lstm quantized_gru", "as the recurrence, of integers. Ours")
def _quantized_recurrence(args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> Cost:
    x, state = args[0], out[1]  # state: (layers * directions, B, H)
    width, directions = state.shape[-1], out[0].shape[-1] // state.shape[-1]
    gates = 4 if len(out) == 3 else 3
    tokens, layers = math.prod(x.shape[:-1]), state.shape[0] // directions
    inputs = x.shape[-1] + (layers - 1) * directions * width
    weights = directions * gates * width * (inputs + layers * width)
    return {Kind.RECURRENT: tokens * weights}


_quantized("matmul", "as matmul, of integers")(
    lambda args, kwargs, out: {Kind.MATMUL: out.numel() * args[0].shape[-1]}
)
_quantized(
    "batch_norm batch_norm1d batch_norm1d_relu batch_norm2d batch_norm2d_relu batch_norm3d "
    "batch_norm3d_relu batch_norm_relu",
    "as batch norm in evaluation",
)(_output(Kind.NORM_FIXED))
_quantized("layer_norm group_norm instance_norm", "as the norm in float")(_output(Kind.NORM))
_quantized("softmax", "as softmax")(_output(Kind.SOFTMAX))
_quantized("max_pool1d max_pool2d", "input elements")(_input(Kind.POOL))
_quantized(
    "add add_relu add_scalar add_scalar_relu mul mul_relu mul_scalar mul_scalar_relu clamp relu6 "
    "hardswish sigmoid leaky_relu elu celu threshold prelu",
    "output elements",
)(_output(Kind.ELEMENTWISE))
