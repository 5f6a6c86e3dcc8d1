"""From what a counter said of each module to terms, on counters made up here."""

from collections.abc import Callable, Iterable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import datbench
from datbench.counting.conventions import CONVENTIONS
from datbench.counting.count import build_for_count, count_built
from datbench.counting.peers.adapters import Amount, Tally
from datbench.counting.peers.explain import (
    OUTSIDE,
    ObservedModule,
    explain,
    label,
    observe,
    reconcile,
)
from datbench.counting.records import Chain, PeerTerm
from datbench.setting import Kind, Resolution, Setting
from tests.nets import Call, short


class Attention(nn.Module):
    """Two products, the second twice as large, between two projections."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.first = nn.Linear(dim, dim)
        self.last = nn.Linear(2 * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        q = self.first(x)  # (B, N, C)
        logits = q @ x.transpose(1, 2)  # (B, N, N)
        y: Tensor = self.last(logits.softmax(-1) @ torch.cat([x, q], -1))
        return y


MODEL = nn.Sequential(Attention(8), nn.LayerNorm(8), Attention(8), nn.Linear(8, 16), Attention(16))
IMAGE = torch.zeros(2, 5, 8)
SEEN = observe(MODEL.eval(), IMAGE)

Rule = Callable[[ObservedModule], Amount]


def amounts(module: ObservedModule, operator: str, kind: str | None = None) -> int:
    return sum(
        amount
        for column, amount in module.amounts.items()
        if column.operator == f"aten::{operator}" and kind in (None, column.kind)
    )


def terms(rule: Rule, unit: str = "MAC", outside: int = 0) -> list[PeerTerm]:
    """What explains a counter that gives each module what the rule says."""
    modules = {module.path: rule(module) for module in SEEN}
    total = sum(modules.values()) + outside
    found = explain(SEEN, Tally(total, {k: v for k, v in modules.items() if v}), unit)
    assert found is not None
    ours = sum(module.multiply_adds for module in SEEN)
    assert sum(t.difference for t in found) == total / (2 if unit == "FLOP" else 1) - ours
    return list(found)


def brief(found: Iterable[PeerTerm]) -> dict[str, tuple[Amount | None, tuple[str, ...]]]:
    return {term.label: (term.each, term.modules) for term in found}


def test_observed_multiply_adds_are_the_counts() -> None:
    total = datbench.count(MODEL, IMAGE).multiply_adds()
    assert sum(module.multiply_adds for module in SEEN) == total


def booked_higher(module: ObservedModule) -> int:
    """A module's work stands one module higher."""
    below = sum(m.multiply_adds for m in SEEN if m.path.startswith(f"{module.path}."))
    if module.type == "Attention":
        return module.multiply_adds + below
    return 0 if "." in module.path else module.multiply_adds


def without_the_first_product(module: ObservedModule) -> int:
    calls = [v for c, v in module.calls.items() if c.operator == "aten::matmul"]
    return module.multiply_adds - (calls[0] if calls else 0)


def otherwise_weighed(module: ObservedModule) -> int:
    return (
        module.multiply_adds
        - amounts(module, "matmul")
        + 5 * amounts(module, "layer_norm")
        + amounts(module, "linear", "linear_bias")
    )


@pytest.mark.parametrize(
    ("rule", "unit", "found"),
    [
        (lambda m: m.multiply_adds, "MAC", {}),
        (lambda m: 2 * m.multiply_adds, "FLOP", {}),
        (booked_higher, "MAC", {}),
        # Merged over classes where all agree.
        (otherwise_weighed, "MAC", {"matmul": -1, "layer_norm": 5, "linear bias": 1}),
        # FLOPs are halved.
        (
            lambda m: 2 * m.multiply_adds + 5 * amounts(m, "layer_norm"),
            "FLOP",
            {"layer_norm": 2.5},
        ),
        # One of two products is found by its turn.
        (without_the_first_product, "MAC", {"matmul no. 1": -1}),
    ],
)
def test_terms_of_the_whole_model(rule: Rule, unit: str, found: dict[str, Amount]) -> None:
    assert brief(terms(rule, unit)) == {label: (each, ()) for label, each in found.items()}


def test_terms_that_are_not_of_the_whole_model() -> None:
    # A hook on a whole module leaves out the layers inside.
    (term,) = terms(
        lambda module: 0 if "." in module.path and "Linear" in module.type else module.multiply_adds
    )
    assert (term.label, term.each, term.modules, term.below) == ("linear", -1, ("Attention",), True)
    # What has no explanation is named with its class.
    (term,) = terms(
        lambda module: module.multiply_adds + (12345 if module.type == "LayerNorm" else 0)
    )
    assert (term.label, term.modules, term.difference) == ("unexplained", ("LayerNorm",), 12345)
    assert (term.each, term.amount, term.kind) == (None, None, None)
    # What belongs to no module is explained over the whole model.
    products = sum(amounts(module, "matmul") for module in SEEN)
    found = terms(lambda module: module.multiply_adds - amounts(module, "matmul"), outside=products)
    assert sum(term.difference for term in found) == 0
    strange = terms(lambda module: module.multiply_adds, outside=12347)
    assert brief(strange) == {"unexplained": (None, (OUTSIDE,))}
    # Totals alone cannot be traced.
    assert explain(SEEN, Tally(5, None), "MAC") is None


def test_inside_declared_operators_both_costs_are_known() -> None:
    setting = Setting(Resolution(96, 64))
    built = build_for_count(short("datpp_t"), setting)
    found = observe(built, torch.zeros(1, 3, 64, 96, device="meta"))
    ours = count_built("datpp_t", built, setting).multiply_adds()
    assert sum(module.multiply_adds for module in found) == ours
    columns = {column for module in found for column in module.amounts}
    inside = {c.operator for c in columns if c.inside == "datbench::neighborhood_attention"}
    assert "aten::matmul" in inside
    products = {
        m.path: sum(v for c, v in m.amounts.items() if c.kind in ("conv", "linear", "matmul"))
        for m in found
    }
    terms = explain(found, Tally(sum(products.values()), products), "MAC")
    assert brief(terms or ()) == {
        "matmul inside neighborhood_attention": (1, ()),
        "neighborhood_attention": (-1, ()),
    }


# The conventions as sums: every step holds as integers.


def by_label(chain: Chain) -> dict[str, tuple[int | None, int]]:
    return {term.label: (term.each, term.difference) for term in chain.terms}


@pytest.mark.parametrize("features", [False, True])
@pytest.mark.parametrize(
    "name", ["dat_t", "datpp_t", "dat_t_ddetr_16_16", "dat_t_sra", "dat_t_dwconv_bias"]
)
def test_the_terms_are_the_difference_to_the_last_unit(name: str, features: bool) -> None:
    setting = Setting(Resolution(96, 64), features=features)
    count = count_built(name, build_for_count(short(name), setting), setting)
    totals = {name: count.total(convention) for name, convention in CONVENTIONS.items()}
    to_fvcore, to_mmdet, to_strict = reconcile(count)
    assert 2 * to_fvcore.start_amount == totals["torch"] == to_strict.start_amount
    assert to_fvcore.start_amount == count.multiply_adds()
    assert to_fvcore.end_amount == to_mmdet.start_amount == totals["fvcore"]
    assert to_mmdet.end_amount == totals["mmdet"]
    assert to_strict.end_amount == totals["strict"]
    assert [c.unit for c in (to_fvcore, to_mmdet, to_strict)] == ["MAC", "MAC", "FLOP"]
    for chain in (to_fvcore, to_mmdet, to_strict):
        assert all(type(term.difference) is int and term.difference for term in chain.terms)
        assert chain.start_amount + sum(t.difference for t in chain.terms) == chain.end_amount
        for term in chain.terms:
            assert term.each is None or term.each * term.amount == term.difference
    if name == "datpp_t":  # declared attention is a product that mmdet leaves out
        attention = "datbench::neighborhood_attention"
        declared = sum(c.cost[Kind.ATTENTION] for c in count.calls if c.operator == attention)
        assert by_label(to_mmdet)["neighborhood_attention"] == (-1, -declared)


def test_the_terms_name_the_operators_and_their_weights() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Flatten(2), nn.LayerNorm(16), nn.Linear(16, 2)
    )
    to_fvcore, to_mmdet, to_strict = reconcile(datbench.count(model, torch.zeros(1, 3, 4, 4)))
    assert by_label(to_fvcore) == {"layer_norm": (5, 5 * 64)}
    assert by_label(to_mmdet) == {
        "layer_norm": (-3, -3 * 64),
        "conv2d bias": (1, 64),
        "relu": (1, 64),
    }
    assert by_label(to_strict) == {
        "layer_norm": (8, 8 * 64),
        "conv2d bias": (1, 64),
        "relu": (1, 64),
        "linear bias": (1, 8),
    }


def test_a_weight_that_depends_on_the_module_is_not_stated_as_one() -> None:
    layers = nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2))
    twice = Call(lambda x: F.layer_norm(layers(x), (2,), layers[1].weight), layers)
    _, to_mmdet, _ = reconcile(datbench.count(twice, torch.zeros(1, 2)))
    assert by_label(to_mmdet) == {"layer_norm": (None, -3 * 2 - 5 * 2)}


def test_labels() -> None:
    assert label("aten::conv2d", Kind.CONV_BIAS) == "conv2d bias"
    assert label("aten::linear", Kind.LINEAR) == label("aten::linear") == "linear"
    assert label("datbench::neighborhood_attention", Kind.SOFTMAX) == (
        "neighborhood_attention softmax"
    )
