"""What operators cost beyond products: no operator is zero or unknown in silence."""

import inspect
import itertools
import sys
import unittest
import warnings
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map_only

import datbench
from datbench.counting.conventions import CONVENTIONS
from datbench.errors import MeasurementError

FVCORE, TORCH, STRICT = (CONVENTIONS[name] for name in ("fvcore", "torch", "strict"))


class Call(nn.Module):
    """A module around a function."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *inputs: Any) -> Any:
        return self.function(*inputs)


def _unknown(count: Any) -> list[str]:
    return [group.key for group in count.with_status("unknown", FVCORE)]


# Activations


def _activations() -> Iterator[tuple[str, dict[str, Any]]]:
    for name in nn.modules.activation.__all__:
        if name != "MultiheadAttention":
            parameters = inspect.signature(getattr(nn, name)).parameters
            needed = {"threshold": 0.0, "value": 0.0} if name == "Threshold" else {}
            for inplace in (False, True) if "inplace" in parameters else (False,):
                yield name, {**needed, **({"inplace": True} if inplace else {})}


@pytest.mark.parametrize(("name", "options"), list(_activations()), ids=str)
def test_every_activation_of_torch_costs_something(name: str, options: dict[str, Any]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # softmax without a dimension
        model = nn.Sequential(nn.Linear(8, 8, bias=False), getattr(nn, name)(**options)).eval()
        count = datbench.count(model, torch.zeros(1, 2, 1, 8), backward=True)
    assert _unknown(count) == []
    products = 2 * 2 * 8 * 8  # of the linear layer; its input has no gradient
    for phase in ("forward", "backward"):
        assert count.total(STRICT, phase) >= products + 8, phase
        own = [call for call in count.calls if call.module == "1" and call.phase == phase]
        assert sum(STRICT.weigh(call.cost, "") for call in own) >= 8, phase


# function, inputs, real operations under `strict` with their derivation

Case = tuple[Callable[..., Any], list[Tensor], int]

X, COMPLEX = torch.zeros(6, 4), torch.zeros(6, 4, dtype=torch.cfloat)
INDEX = torch.zeros(10, dtype=torch.long)

COSTS: dict[str, Case] = {
    # Complex: a product 6, a sum 2, a quotient 11; a multiply-add 8.
    "complex mul": (torch.mul, [COMPLEX, COMPLEX], 6 * 24),
    "complex mul in place": (lambda a, b: a.clone().mul_(b), [COMPLEX, COMPLEX], 6 * 24),
    "complex times real": (torch.mul, [COMPLEX, X], 2 * 24),
    "complex add": (torch.add, [COMPLEX, COMPLEX], 2 * 24),
    "complex div": (torch.div, [COMPLEX, COMPLEX], 11 * 24),
    "complex sum": (torch.sum, [COMPLEX], 2 * 24),
    "complex matmul": (torch.matmul, [COMPLEX, COMPLEX.mT], 8 * 6 * 6 * 4),
    "complex linear": (F.linear, [COMPLEX, COMPLEX, COMPLEX[:, 0]], 8 * 6 * 6 * 4 + 2 * 36),
    "complex conv": (F.conv1d, [COMPLEX[None], COMPLEX[None, :, :3]], 8 * 2 * 6 * 3),
    "complex": (torch.complex, [X, X], 0),
    "polar": (torch.polar, [X, X], 4 * 24),
    # What is added up inside one operator.
    "embedding_bag": (lambda i, w: F.embedding_bag(i.view(2, 5), w), [INDEX, X], 10 * 4),
    "index_add": (lambda x, i, y: x.index_add(0, i, y), [X, INDEX, torch.zeros(10, 4)], 10 * 4),
    "scatter_add": (
        lambda x, i, y: x.scatter_add(0, i, y),
        [X, INDEX[:, None].expand(10, 4), torch.zeros(10, 4)],
        10 * 4,
    ),
    "scatter": (lambda x, i, y: x.scatter(0, i[:, None], y), [X, INDEX, torch.zeros(10, 4)], 0),
    "index_put": (lambda x, i: x.index_put((i,), x[i]), [X, INDEX], 0),
    "mse_loss": (F.mse_loss, [X, X], 2 * 24),
    "mse_loss of each": (lambda a, b: F.mse_loss(a, b, reduction="none"), [X, X], 24),
    "bce": (F.binary_cross_entropy_with_logits, [X, X], 2 * 24),
    # log_softmax 5 an element, and the sum over 6 targets.
    "cross_entropy": (lambda x, i: F.cross_entropy(x, i[:6]), [X, INDEX], 5 * 24 + 6),
    # Two norms, a clamp and a quotient for each; a product and its sum.
    "cosine_similarity": (F.cosine_similarity, [X, X], 2 * (24 + 6 + 24) + 24 + 24),
    "dist": (torch.dist, [X, X], 3 * 24),
    "pdist": (F.pdist, [X], 3 * 15 * 4),
    "bucketize": (lambda x: torch.bucketize(x, torch.zeros(7)), [X], 3 * 24),
    "searchsorted": (lambda x: torch.searchsorted(torch.zeros(7), x), [X], 3 * 24),
    "weight_norm": (lambda v: torch._weight_norm(v, v[:, :1]), [X], 2 * 24),
    # LAPACK Working Note 41: n^3 / 3 for a Cholesky factor, 2 n^3 for an inverse.
    "cholesky": (torch.linalg.cholesky, [torch.eye(6)], 6**3 // 3),
    "inverse": (torch.linalg.inv, [torch.eye(6)], 2 * 6**3),
    # Selections and views in place.
    "masked_fill_": (lambda x: x.clone().masked_fill_(x > 0, 0.0), [X], 2 * 24),
    "views in place": (lambda x: x.clone().t_().unsqueeze_(0).squeeze_().transpose_(0, 1), [X], 0),
    "max_unpool2d": (
        lambda x, i: F.max_unpool2d(x[None], i[None], 2),
        [torch.zeros(1, 2, 2), torch.zeros(1, 2, 2, dtype=torch.long)],
        0,
    ),
    # Two multiply-adds of 3 terms for each point of a grid of 5 x 7.
    "affine_grid": (
        lambda t: F.affine_grid(t, [2, 1, 5, 7], False),
        [torch.zeros(2, 2, 3)],
        2 * 420,
    ),
    "affine_grid 3-D": (
        lambda t: F.affine_grid(t, [1, 1, 2, 5, 7], False),
        [torch.zeros(1, 3, 4)],
        2 * 70 * 12,
    ),
}


@pytest.mark.parametrize("name", COSTS)
def test_operations_under_strict(name: str) -> None:
    function, inputs, operations = COSTS[name]
    count = datbench.count(Call(function), *inputs)
    assert count.total(STRICT) == operations
    assert _unknown(count) == []


def test_a_complex_product_is_one_to_the_counters_that_take_it_for_one() -> None:
    """FlopCounterMode and fvcore look at shapes; `multiply_adds` are real ones."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        torch.matmul(COMPLEX, COMPLEX.mT)
    count = datbench.count(Call(torch.matmul), COMPLEX, COMPLEX.mT)
    assert count.total(TORCH) == counter.get_total_flops()
    assert count.total(FVCORE) == 6 * 6 * 4
    assert count.multiply_adds() == 4 * 6 * 6 * 4


# Sparse and nested tensors


class Graph(nn.Module):
    """A layer over a graph of 50 nodes and 70 edges."""

    def __init__(self, layout: str, product: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        edges = torch.arange(70)
        ends = torch.stack([edges % 50, edges * 7 % 11])
        matrix = torch.sparse_coo_tensor(ends, torch.ones(70), (50, 50)).coalesce()
        self.register_buffer("adjacency", matrix if layout == "coo" else matrix.to_sparse_csr())
        self.mix = nn.Linear(8, 4, bias=False)
        self.product = product

    def forward(self, x: Tensor) -> Tensor:
        return self.product(self.adjacency, self.mix(x))


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta")
@pytest.mark.filterwarnings("ignore:Sparse invariant checks are implicitly disabled")
@pytest.mark.parametrize(
    ("layout", "product"),
    [
        ("coo", lambda a, x: a @ x),
        ("csr", lambda a, x: a @ x),
        ("coo", torch.sparse.mm),
        ("csr", torch.sparse.mm),
        ("coo", lambda a, x: torch.sparse.addmm(x, a, x)),
        ("coo", lambda a, x: (x.T @ a.transpose(0, 1)).T),
    ],
    ids=["coo @", "csr @", "coo mm", "csr mm", "addmm", "on the right"],
)
def test_sparse_operands_count_by_their_stored_elements(
    layout: str, product: Callable[[Tensor, Tensor], Tensor]
) -> None:
    model = Graph(layout, product)
    count = datbench.count(model, torch.zeros(50, 8))
    stored = 70 if model.adjacency.layout == torch.sparse_csr else model.adjacency._nnz()
    assert count.multiply_adds() == 50 * 8 * 4 + stored * 4
    assert _unknown(count) == []
    assert datbench.parameters(model).buffers == stored


def test_a_batch_of_sparse_products() -> None:
    sparse = torch.eye(5).expand(3, 5, 5).to_sparse()  # 15 stored elements
    batch = datbench.count(Call(torch.bmm), sparse, torch.zeros(3, 5, 4))
    assert batch.multiply_adds() == 15 * 4
    assert _unknown(batch) == []


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta")
def test_a_product_of_two_sparse_matrices_is_unknown() -> None:
    count = datbench.count(Graph("coo", lambda a, x: (a @ a).to_dense()), torch.zeros(50, 8))
    assert _unknown(count) != []
    assert count.multiply_adds() == 50 * 8 * 4


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize("layout", [torch.strided, torch.jagged])
@pytest.mark.parametrize("inside", [False, True])
def test_nested_tensors_are_refused(layout: torch.layout, inside: bool) -> None:
    parts = [torch.zeros(3, 8), torch.zeros(5, 8)]
    layer = nn.Linear(8, 8)
    model, inputs = Call(layer), [torch.nested.nested_tensor(parts, layout=layout)]
    if inside:
        model = Call(lambda a, b: layer(torch.nested.nested_tensor([a, b], layout=layout)))
        inputs = parts
    with pytest.raises(MeasurementError, match="nested tensors cannot be counted"):
        datbench.count(model, *inputs)


# Torch's own list of its operators, with arguments for each

WITHOUT = {
    f"aten::{name}"
    for name in (
        "_linalg_eigh _linalg_svd linalg_eig linalg_lstsq linalg_matrix_exp linalg_matrix_sqrth "
        "linalg_pinv linalg_polar linalg_qr geqrf linalg_householder_product ormqr"
    ).split()
}
"""Orthogonal factors and what iterates: their cost depends on the method, or on values."""

MADE_OF_OTHERS = "torch_nn::_linear_cross_entropy_batch_chunked"
"""Computes the gradients in its forward: a count of both would leave them out."""


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_all_other_operators_of_torch_have_a_cost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stub = SimpleNamespace(TestCase=unittest.TestCase, assert_expected_inline=None)
    monkeypatch.setitem(sys.modules, "expecttest", stub)
    from torch.testing._internal.common_methods_invocations import op_db

    unknown: dict[str, set[str]] = {}
    counted = 0
    for operator in op_db:
        floating = torch.float32 in operator.dtypes
        dtype = torch.float32 if floating else next(iter(operator.dtypes), None)
        if dtype is None:
            continue
        backward = operator.supports_autograd and floating
        for given in itertools.islice(operator.sample_inputs("cpu", dtype), 3):
            for form in filter(None, (operator.op, operator.inplace_variant)):
                count = _counted(form, given, backward) or _counted(form, given, False)
                counted += count is not None
                for name in _unknown(count) if count is not None else ():
                    unknown.setdefault(name, set()).add(operator.name)
    assert counted > 1500
    left = {name for name in unknown if not name.startswith(MADE_OF_OTHERS)}
    assert left <= WITHOUT, unknown


def _counted(form: Callable[..., Any], given: Any, backward: bool) -> Any:
    """A count of a call on copies of the arguments; None where torch refuses them."""

    def run(*tensors: Tensor) -> Any:
        values = (given.input, given.args, given.kwargs)
        first, args, kwargs = tree_map_only(Tensor, lambda tensor: tensor.clone(), values)
        return form(first, *args, **kwargs)

    tensors = [t for t in tree_leaves((given.input, given.args, given.kwargs)) if _is(t)]
    for tensor in tensors if backward else ():
        if tensor.is_floating_point() and tensor.is_leaf:
            tensor.requires_grad_(True)
    try:
        return datbench.count(Call(run), *tensors, backward=backward)
    except (RuntimeError, MeasurementError, AssertionError, ValueError):
        return None


def _is(value: object) -> bool:
    return isinstance(value, Tensor)
