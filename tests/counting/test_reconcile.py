"""The conventions as sums: every step holds as integers, and says the operators that it should."""

import itertools

import pytest
import torch
from torch import nn

import datbench
from datbench.counting.conventions import CONVENTIONS
from datbench.counting.count import Count, build_for_count, count_built
from datbench.counting.peers.explain import label, reconcile
from datbench.counting.records import Chain
from datbench.setting import Kind, Resolution, Setting


def counted(name: str, features: bool = False) -> Count:
    setting = Setting(Resolution(96, 64), features=features)
    return count_built(name, build_for_count(name, setting), setting)


MODELS = ["dat_t", "datpp_t", "dat_t_ddetr_16_16", "dat_t_sra", "dat_t_dwconv_bias"]


@pytest.mark.parametrize(("name", "features"), list(itertools.product(MODELS, [False, True])))
def test_the_terms_are_the_difference_to_the_last_unit(name: str, features: bool) -> None:
    count = counted(name, features)
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


def by_label(chain: Chain) -> dict[str, tuple[int | None, int]]:
    return {term.label: (term.each, term.difference) for term in chain.terms}


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


def test_declared_attention_is_a_product_that_mmdet_leaves_out() -> None:
    count = counted("datpp_t")
    _, to_mmdet, _ = reconcile(count)
    (term,) = [t for t in to_mmdet.terms if t.label == "neighborhood_attention"]
    declared = sum(
        call.cost[Kind.ATTENTION]
        for call in count.calls
        if call.operator == "datbench::neighborhood_attention"
    )
    assert (term.each, term.difference) == (-1, -declared)


def test_a_weight_that_depends_on_the_module_is_not_stated_as_one() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(2, 2)
            self.norm = nn.LayerNorm(2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return nn.functional.layer_norm(self.norm(self.linear(x)), (2,), self.norm.weight)

    _, to_mmdet, _ = reconcile(datbench.count(Twice(), torch.zeros(1, 2)))
    assert by_label(to_mmdet) == {"layer_norm": (None, -3 * 2 - 5 * 2)}


def test_labels() -> None:
    assert label("aten::conv2d", Kind.CONV_BIAS) == "conv2d bias"
    assert label("aten::linear", Kind.LINEAR) == label("aten::linear") == "linear"
    assert label("datbench::neighborhood_attention", Kind.SOFTMAX) == (
        "neighborhood_attention softmax"
    )
