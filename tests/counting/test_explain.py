"""From what a counter said of each module to terms, on counters made up here."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import datbench
from datbench.counting.count import build_for_count
from datbench.counting.peers.adapters import Amount, Tally
from datbench.counting.peers.explain import OUTSIDE, ObservedModule, explain, observe
from datbench.counting.records import PeerTerm
from datbench.setting import Resolution, Setting


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


def model() -> nn.Module:
    return nn.Sequential(
        Attention(8), nn.LayerNorm(8), Attention(8), nn.Linear(8, 16), Attention(16)
    )


def seen() -> tuple[ObservedModule, ...]:
    return observe(model().eval(), torch.zeros(2, 5, 8))


Rule = Callable[[ObservedModule], Amount]


def tally(rule: Rule, outside: int = 0) -> Tally:
    modules = {module.path: rule(module) for module in seen()}
    return Tally(sum(modules.values()) + outside, {k: v for k, v in modules.items() if v})


def amounts(module: ObservedModule, operator: str, kind: str | None = None) -> int:
    return sum(
        amount
        for column, amount in module.amounts.items()
        if column.operator == f"aten::{operator}" and kind in (None, column.kind)
    )


def terms(rule: Rule, unit: str = "MAC", outside: int = 0) -> list[PeerTerm]:
    said = tally(rule, outside)
    found = explain(seen(), said, unit)
    assert found is not None
    ours = sum(module.multiply_adds for module in seen())
    assert sum(t.difference for t in found) == said.total / (2 if unit == "FLOP" else 1) - ours
    return list(found)


def brief(found: list[PeerTerm]) -> dict[str, tuple[Amount | None, tuple[str, ...]]]:
    return {term.label: (term.each, term.modules) for term in found}


def test_observed_multiply_adds_are_the_counts() -> None:
    x = torch.zeros(2, 5, 8)
    total = datbench.count(model().eval(), x).multiply_adds()
    assert sum(module.multiply_adds for module in seen()) == total


def test_a_counter_that_agrees_has_no_terms() -> None:
    assert terms(lambda module: module.multiply_adds) == []
    assert terms(lambda module: 2 * module.multiply_adds, "FLOP") == []


def test_terms_are_merged_over_classes_where_all_agree() -> None:
    found = terms(
        lambda module: (
            module.multiply_adds
            - amounts(module, "matmul")
            + 5 * amounts(module, "layer_norm")
            + amounts(module, "linear", "linear_bias")
        )
    )
    assert brief(found) == {
        "matmul": (-1, ()),
        "layer_norm": (5, ()),
        "linear bias": (1, ()),
    }


def test_flops_are_halved() -> None:
    found = terms(
        lambda module: 2 * module.multiply_adds + 5 * amounts(module, "layer_norm"), "FLOP"
    )
    assert brief(found) == {"layer_norm": (2.5, ())}


def test_a_module_that_stands_for_what_is_below_it_is_explained_with_it() -> None:
    """A hook on a whole module that leaves out the layers inside."""
    found = terms(
        lambda module: 0 if "." in module.path and "Linear" in module.type else module.multiply_adds
    )
    (term,) = found
    assert (term.label, term.each, term.modules, term.below) == ("linear", -1, ("Attention",), True)


def test_work_that_is_booked_one_module_higher_is_no_difference() -> None:
    def rule(module: ObservedModule) -> int:
        below = sum(m.multiply_adds for m in seen() if m.path.startswith(f"{module.path}."))
        if module.type == "Attention":
            return module.multiply_adds + below
        return 0 if "." in module.path else module.multiply_adds

    assert terms(rule) == []


def test_what_has_no_explanation_is_named_with_its_class() -> None:
    found = terms(
        lambda module: module.multiply_adds + (12345 if module.type == "LayerNorm" else 0)
    )
    (term,) = found
    assert (term.label, term.modules, term.difference) == ("unexplained", ("LayerNorm",), 12345)
    assert (term.each, term.amount, term.kind) == (None, None, None)


def test_what_belongs_to_no_module_is_explained_over_the_whole_model() -> None:
    products = sum(amounts(module, "matmul") for module in seen())
    found = terms(lambda module: module.multiply_adds - amounts(module, "matmul"), outside=products)
    assert sum(term.difference for term in found) == 0
    strange = terms(lambda module: module.multiply_adds, outside=12347)
    assert brief(strange) == {"unexplained": (None, (OUTSIDE,))}


def test_one_of_two_products_is_found_by_its_turn() -> None:
    def first(module: ObservedModule) -> int:
        calls = [v for c, v in module.calls.items() if c.operator == "aten::matmul"]
        return calls[0] if calls else 0

    found = terms(lambda module: module.multiply_adds - first(module))
    assert brief(found) == {"matmul no. 1": (-1, ())}


def test_totals_alone_cannot_be_traced() -> None:
    assert explain(seen(), Tally(5, None), "MAC") is None


@pytest.mark.parametrize("name", ["datpp_t"])
def test_inside_declared_operators_both_costs_are_known(name: str) -> None:
    setting = Setting(Resolution(96, 64))
    built = build_for_count(name, setting)
    found = observe(built, torch.zeros(1, 3, 64, 96, device="meta"))
    assert (
        sum(m.multiply_adds for m in found) == datbench.count_model(name, setting).multiply_adds()
    )
    columns = {column for module in found for column in module.amounts}
    inside = {c.operator for c in columns if c.inside == "datbench::neighborhood_attention"}
    assert "aten::matmul" in inside
    said = Tally(
        sum(
            v for m in found for c, v in m.amounts.items() if c.kind in ("conv", "linear", "matmul")
        ),
        {
            m.path: sum(v for c, v in m.amounts.items() if c.kind in ("conv", "linear", "matmul"))
            for m in found
        },
    )
    terms = explain(found, said, "MAC")
    assert terms is not None
    assert brief(list(terms)) == {
        "matmul inside neighborhood_attention": (1, ()),
        "neighborhood_attention": (-1, ()),
    }
