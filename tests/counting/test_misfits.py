"""A model that cannot run is not counted: meta refuses what torch's CPU kernels refuse.

Each operator that is answered or checked from shapes is called as it should be, and then with
sizes, ranks, dtypes, layouts and numbers changed, on the CPU and on meta.
"""

import copy
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_map_only, tree_unflatten

import datbench
from datbench.counting.count import below_autograd
from datbench.counting.misfits import SHAPES
from datbench.counting.operators import EagerMode
from datbench.counting.shapes import predict
from datbench.memory import simulate

Call = tuple[Any, ...]


def f(*shape: int) -> Tensor:
    return torch.rand(shape)


def whole(*shape: int) -> Tensor:
    return torch.zeros(shape, dtype=torch.int64)


def mask(*shape: int) -> Tensor:
    return torch.zeros(shape, dtype=torch.bool)


PAIR = (f(2, 3, 4), f(3, 1))
CONV = (f(2, 4, 7, 6), f(6, 2, 3, 3), f(6), [2, 1], [1, 1], [1, 2], 2)
UP = (f(2, 4, 3, 4), f(4, 3, 2, 3), f(6), [2, 2], [1, 0], [0, 1], 2, [1, 1])
MASKED = (f(2, 3, 4), mask(3, 4))
NORM = (f(2, 3, 4, 5), f(3), f(3), f(3), f(3))
BY_CALL: tuple[tuple[str, Call], ...] = (
    (
        """
        gelu tanh relu sigmoid silu exp hardswish neg sin cos abs hardsigmoid mish log sqrt rsqrt
        _to_copy clone contiguous relu_ gelu_ hardswish_ zero_ sigmoid_ silu_ tril_ hardsigmoid_
        leaky_relu_ mish_
        """,
        (f(2, 3, 4),),
    ),
    (
        """
        add.Tensor sub.Tensor mul.Tensor div.Tensor ge.Tensor gt.Tensor le.Tensor lt.Tensor
        eq.Tensor ne.Tensor logical_and logical_or logical_xor add_.Tensor mul_.Tensor div_.Tensor
        sub_.Tensor copy_ clamp_min_.Tensor lt_.Tensor
        """,
        PAIR,
    ),
    ("ge.Scalar gt.Scalar le.Scalar lt.Scalar eq.Scalar ne.Scalar", (f(2, 3), 1)),
    ("clamp hardtanh", (f(2, 3), 0, 1)),
    ("leaky_relu elu softplus clamp_min pow.Tensor_Scalar div.Scalar mul.Scalar", (f(2, 3), 2.0)),
    ("flip", (f(2, 3, 4), [0, 2])),
    ("softmax.int sort argsort cumsum_", (f(2, 3, 4), 1)),
    ("linear", (f(2, 3, 4), f(5, 4), f(5))),
    ("matmul", (f(2, 3, 4, 5), f(3, 5, 2))),
    ("scaled_dot_product_attention", (f(2, 3, 4, 8), f(2, 3, 5, 8), f(2, 3, 5, 8), f(4, 5))),
    ("conv2d", CONV),
    ("batch_norm", (*NORM, False, 0.1, 1e-5, False)),
    ("group_norm", (f(2, 4, 3, 5), 2, f(4), f(4), 1e-5, False)),
    ("rms_norm", (f(2, 3, 4), [4], f(4), 1e-5)),
    ("dropout", (f(2, 3, 4), 0.0, False)),
    ("max_pool2d max_pool2d_with_indices", (f(2, 3, 5, 6), [3, 2], [2], [1, 1], [1], True)),
    ("avg_pool2d", (f(2, 3, 5, 6), [3, 2], [2, 1], [1, 1], True, False)),
    ("upsample_nearest2d", (f(2, 4, 3, 5), [6, 3])),
    ("upsample_nearest2d.vec", (f(2, 4, 3, 5), None, [1.5, 0.5])),
    ("linalg_vector_norm", (f(2, 3, 4), 2.0, [1], True)),
    ("cat", ([f(2, 3, 4, 5), f(2, 2, 4, 5)], 1)),
    ("clamp.Tensor", (f(2, 3, 4), f(3, 1), f(4))),
    ("div.Tensor_mode", (*PAIR, {"rounding_mode": "floor"})),
    ("mean.dim", (f(2, 3, 4, 5), [2, 3])),
    ("layer_norm", (f(2, 3, 4), [3, 4], f(3, 4), f(3, 4))),
    ("grid_sampler grid_sampler_2d", (f(2, 3, 5, 6), f(2, 4, 3, 2), False, False, False)),
    ("adaptive_avg_pool2d", (f(2, 3, 4, 5), [2, 1])),
    ("sum.dim_IntList", (f(2, 3, 4), [0, 2], True)),
    ("amax", (f(2, 3, 4), [1])),
    ("roll", (f(2, 3, 4), [1, 2], [0, 1])),
    ("stack", ([f(2, 3), f(2, 3)], 1)),
    ("repeat", (f(2, 3), [2, 1, 3])),
    ("pad", (f(2, 3, 4), [1, 2, 0, 1])),
    ("index.Tensor", (f(4, 1, 3, 2), [None, whole(5, 1), whole(2, 1, 4)])),
    # Checked alone. True and False stand for numbers that have few values.
    ("_softmax _log_softmax", (f(2, 3, 4), 1, False)),
    ("sort.stable argsort.stable", (f(2, 3, 4), {"stable": True, "dim": 1})),
    ("addmm addmm_", (f(3, 4), f(3, 5), f(5, 4))),
    ("addmv addmv_", (f(3), f(3, 5), f(5))),
    ("addr addr_", (f(3, 4), f(3), f(4))),
    ("convolution", (*CONV[:-1], False, [0, 0], 2)),
    ("conv1d", (f(2, 4, 7), f(6, 2, 3), f(6), [2], [1], [1], 2)),
    ("conv3d", (f(1, 2, 4, 5, 4), f(3, 2, 3, 2, 2), f(3), [1, 2, 1], [1, 0, 0])),
    ("addcmul", (*PAIR, f(4), {"value": 2.0})),
    ("conv1d.padding", (f(2, 4, 7), f(6, 2, 3), f(6), [1], "same", [2], 2)),
    ("conv2d.padding", (*CONV[:3], [1, 1], "same", [1, 2], 2)),
    ("conv3d.padding", (f(1, 2, 4, 5, 4), f(3, 2, 3, 1, 3), f(3), [1, 1, 1], "same")),
    ("conv_transpose1d", (f(2, 4, 3), f(4, 3, 2), f(6), [2], [1], [1], 2)),
    ("conv_transpose2d.input", UP),
    ("conv_transpose3d.input", (f(1, 2, 3, 3, 2), f(2, 3, 2, 2, 2), f(3), [2, 2, 2])),
    ("index_select", (f(3, 4), 1, whole(2))),
    ("index_add index_add_ index_copy_", (f(3, 4), 1, whole(2), f(3, 2))),
    ("index_reduce index_reduce_", (f(3, 4), 1, whole(2), f(3, 2), "amax")),
    ("index_put index_put_ _index_put_impl_", (f(3, 4, 2), [None, whole(5)], f(5, 2))),
    ("put put_", (f(3, 4), whole(5), f(5))),
    ("masked_fill.Scalar masked_fill_.Scalar", (*MASKED, 1.0)),
    ("masked_fill.Tensor masked_fill_.Tensor", (*MASKED, f())),
    ("masked_scatter masked_scatter_", (*MASKED, f(2, 3, 4))),
    ("slice_scatter", (f(3, 6), f(3, 2), 1, 1, 5, 2)),
    ("select_scatter", (f(3, 4), f(3), 1, 2)),
    ("diagonal_scatter", (f(3, 4), f(3), 1)),
    ("bucketize.Tensor", (f(2, 3), f(4))),
    ("nll_loss2d_forward", (f(2, 3, 4, 5), whole(2, 4, 5), None, True, -100)),
    ("soft_margin_loss", (f(2, 3), f(2, 3))),
    ("binary_cross_entropy_with_logits", (f(2, 3), f(2, 3), f(3))),
    ("upsample_linear1d", (f(2, 3, 4), [6], False)),
    ("upsample_bilinear2d upsample_bicubic2d", (f(2, 3, 4, 5), [6, 3], False)),
    ("upsample_trilinear3d", (f(1, 2, 3, 4, 2), [4, 3, 5], False)),
    ("upsample_linear1d.vec", (f(2, 3, 4), None, False, [1.5])),
    ("upsample_bilinear2d.vec", (f(2, 3, 4, 5), None, False, [1.5, 0.5])),
    ("upsample_bicubic2d.vec", (f(2, 3, 4, 5), [6, 3], False, None)),
    ("upsample_trilinear3d.vec", (f(1, 2, 3, 4, 2), None, False, [1.5, 0.5, 1.0])),
    # In place.
    ("lerp_.Tensor addcmul_", (*PAIR, f(4))),
    ("index_fill_.int_Scalar", (f(3, 4), 1, whole(2), 1.0)),
    ("scatter_.src scatter_add_", (f(3, 4), 1, whole(3, 2), f(3, 2))),
    ("baddbmm_", (f(2, 3, 4), f(2, 3, 5), f(2, 5, 4))),
    # Under autograd.
    (
        "silu_backward tanh_backward sigmoid_backward hardsigmoid_backward hardswish_backward",
        (f(2, 3, 4), f(2, 3, 4)),
    ),
    ("hardtanh_backward", (f(2, 3, 4), f(2, 3, 4), 0.1, 0.9)),
    ("leaky_relu_backward", (f(2, 3, 4), f(2, 3, 4), 0.1, False)),
    ("mm", (f(3, 5), f(5, 4))),
    ("bmm", (f(2, 3, 5), f(2, 5, 4))),
    ("native_layer_norm", (f(2, 3, 4), [4], f(4), f(4), 1e-5)),
    ("where.self", (mask(3, 1), *PAIR)),
    ("ones_like", (f(2, 3),)),
)
CALLS = {name: call for names, call in BY_CALL for name in names.split()}

ANSWERED = {name.removeprefix("aten::") for name in SHAPES}

LOSSES = {"nll_loss2d_forward", "soft_margin_loss", "binary_cross_entropy_with_logits"}
"""Their dtypes are left to torch."""

ELSEWHERE = {"zeros", "linspace", "arange", "arange.start", "lstm.input"}
"""They take no tensor, or too many."""


UNCHECKED = {
    *(f"native_{norm}_norm_backward" for norm in ("batch", "group", "layer")),
    *(f"{name}_backward" for name in "convolution gelu threshold avg_pool2d slice select".split()),
    "max_pool2d_with_indices_backward",
    "native_batch_norm",
    "native_group_norm",
    *(f"{name}_backward_data" for name in ("_softmax", "_log_softmax")),
    "grid_sampler_2d_backward",
    "_scaled_dot_product_efficient_attention",
    "_scaled_dot_product_efficient_attention_backward",
}
"""Only autograd calls them, with what fits: `test_shapes` and the tests of memory try them."""


def test_every_operator_with_a_rule_is_tried() -> None:
    ruled = {name.removeprefix("aten::") for name in SHAPES}
    assert not ruled - CALLS.keys() - ELSEWHERE - UNCHECKED


SIZES = st.integers(1, 5)


def _shape(draw: st.DrawFn, shape: Sequence[int]) -> list[int]:
    """Another size, a dimension less or more."""
    new = list(shape)
    at = draw(st.integers(0, len(new)))
    how = draw(st.sampled_from(["size", "size", "less", "more"]))
    if how == "more" or not new:
        new.insert(at, draw(SIZES))
    elif how == "less":
        del new[at % len(new)]
    else:
        new[at % len(new)] = draw(SIZES)
    return new


@st.composite
def changed(draw: st.DrawFn, name: str) -> Call:
    """The operator's call with up to two of its tensors and numbers changed."""
    leaves, spec = tree_flatten(CALLS[name])
    kinds = ["shape", "shape", "layout", "expanded"]
    typed = 0 if name in LOSSES else 2
    for _ in range(draw(st.integers(0, 2))):
        at = draw(st.integers(0, len(leaves) - 1))
        leaf = leaves[at]
        if isinstance(leaf, Tensor):
            how = draw(st.sampled_from(kinds if at >= typed else [*kinds, "dtype"]))
            if how == "shape":
                make = torch.rand if leaf.is_floating_point() else torch.zeros
                leaves[at] = make(_shape(draw, leaf.shape)).to(leaf.dtype)
            elif how == "layout":
                order = draw(st.permutations(range(leaf.ndim)))
                new = leaf.permute(order).clone(memory_format=torch.contiguous_format)
                leaves[at] = new.permute([order.index(dim) for dim in range(leaf.ndim)])
            elif how == "expanded":
                leaves[at] = leaf[:1].expand(leaf.shape) if leaf.ndim else leaf
            else:
                leaves[at] = leaf.to(draw(st.sampled_from([torch.float64, torch.int64])))
            if leaves[at].dtype == torch.int64:
                leaves[at] = leaves[at] * 0
        elif type(leaf) is int:
            leaves[at] = draw(st.integers(-4, 6))
    return tuple(tree_unflatten(leaves, spec))


def _copy(x: Tensor) -> Tensor:
    """With its strides, an expanded one's too."""
    return x.clone() if x.is_contiguous() else x


def _on_meta(x: Tensor) -> Tensor:
    return torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device="meta")


def _described(out: Any) -> list[tuple[Any, ...]]:
    tensors = [leaf for leaf in tree_flatten(out)[0] if isinstance(leaf, Tensor)]
    return [(t.dtype, tuple(t.shape)) for t in tensors]


def _strides(out: Any) -> list[list[int]]:
    """Those that mean something."""
    tensors = [leaf for leaf in tree_flatten(out)[0] if isinstance(leaf, Tensor)]
    pairs = [zip(t.shape, t.stride(), strict=True) for t in tensors]
    return [[stride for size, stride in each if size > 1] for each in pairs]


def _run(name: str, call: Call) -> Any:
    """Run an operator; what it takes by name stands last, as a dict."""
    base, _, overload = name.partition(".")
    operator = getattr(getattr(torch.ops.aten, base), overload or "default")
    options = call[-1] if isinstance(call[-1], dict) else {}
    with torch.no_grad():
        return operator(*call[: len(call) - bool(options)], **options)


def counted(name: str, call: Call) -> Any:
    """As a count runs it."""
    with below_autograd(), EagerMode():
        return _run(name, call)


@pytest.mark.parametrize("name", sorted(CALLS))
def test_fits_and_misfits(name: str) -> None:
    outcomes = set()

    @settings(max_examples=40, deadline=None, database=None)
    @given(changed(name))
    def compared(call: Call) -> None:
        on_meta, on_cpu = (tree_map_only(Tensor, make, call) for make in (_on_meta, _copy))
        try:
            real = _run(name, on_cpu)
        except (RuntimeError, IndexError):
            outcomes.add("refused")
            with pytest.raises((RuntimeError, IndexError)):
                counted(name, on_meta)
            return
        outcomes.add("run")
        # An empty result: some kernels refuse to make it.
        assume(all(0 not in shape for _, shape in _described(real)))
        found = counted(name, on_meta)
        assert _described(found) == _described(real)
        options = on_meta[-1] if isinstance(on_meta[-1], dict) else {}
        operands = on_meta[: len(on_meta) - bool(options)]
        if name in ANSWERED and predict(f"aten::{name}", operands, options) is not None:
            assert _strides(found) == _strides(real)

    compared()
    several = sum(isinstance(leaf, Tensor) for leaf in tree_flatten(CALLS[name])[0]) > 1
    assert outcomes >= ({"run", "refused"} if several else {"run"})


# Whole models.


class Model(nn.Module):
    """A function of the image and of one parameter."""

    def __init__(self, function: Callable[[Tensor, Tensor], Tensor], *shape: int) -> None:
        super().__init__()
        self.function = function
        self.weight = nn.Parameter(torch.ones(shape))

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x, self.weight)


MODELS = {  # for an image of (2, 4, 6, 6); one for each way in which an operator is refused
    "position table": Model(lambda x, table: x.flatten(2) + table, 4, 49),
    "mask": Model(lambda x, m: (x @ x).masked_fill(m == 0, -1e9), 7, 7),
    "bias in place": Model(lambda x, bias: x.clone().add_(bias), 3, 2, 4, 6, 6),
    "batch norm": Model(lambda x, w: F.batch_norm(x, w, w, training=False), 8),
    "linear": Model(F.linear, 8, 5),
    "attention mask": Model(lambda x, w: F.scaled_dot_product_attention(x, x, x, w), 2, 4, 5, 6),
    "concatenation": Model(lambda x, w: torch.cat([x, w], 1), 2, 4, 6, 5),
    "transposed convolution": Model(F.conv_transpose2d, 5, 4, 2, 2),
    "groups": Model(lambda x, w: F.conv2d(x, w, groups=2), 3, 2, 1, 1),
    "rows": Model(lambda x, w: x.index_select(1, torch.zeros_like(w, dtype=torch.int64)), 2, 2),
    "half precision": Model(lambda x, w: x @ w.half(), 6, 6),
    "expanded": Model(lambda x, w: x[:, :1].expand(x.shape).relu_() * w, 1),
}


@pytest.mark.parametrize("name", MODELS)
def test_models_that_cannot_run(name: str) -> None:
    with pytest.raises((RuntimeError, IndexError)):
        MODELS[name](torch.ones(2, 4, 6, 6))
    model, image = copy.deepcopy(MODELS[name]).to("meta"), torch.empty(2, 4, 6, 6, device="meta")
    with pytest.raises((RuntimeError, IndexError)):
        datbench.count(model, image)
    with pytest.raises((RuntimeError, IndexError)):
        simulate(model, image, mode="inference")
