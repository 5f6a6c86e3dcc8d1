"""The counters for real, each only where it is installed."""

import dataclasses
import importlib
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from datbench.counting.count import build_for_count
from datbench.counting.peers.adapters import PEERS, Tally
from datbench.counting.peers.explain import explain, observe
from datbench.counting.records import PeerTerm
from datbench.setting import Resolution, Setting

pytestmark = pytest.mark.peers

SETTING = Setting(Resolution(64, 64), device="cpu")
CLEAN = ("fvcore", "torch")
"""Counters that leave a process as it was; the others are tried in processes of their own."""


def counter(name: str) -> Any:
    pytest.importorskip(PEERS[name].module, reason=f"needs {name}", exc_type=ImportError)
    return PEERS[name]


def said(name: str, model: nn.Module, x: Tensor) -> Tally:
    peer = counter(name)
    with torch.no_grad():
        return peer.count(model, x)


def terms(name: str, model: nn.Module, x: Tensor) -> list[PeerTerm]:
    tally = said(name, model, x)
    found = explain(observe(model, x), tally, PEERS[name].unit)
    assert found is not None
    return list(found)


def brief(found: list[PeerTerm]) -> Mapping[str, float | None]:
    return {term.label: term.each for term in found}


@pytest.mark.parametrize("name", CLEAN)
@pytest.mark.parametrize("model", ["dat_t", "datpp_t"])
def test_modules_add_up_to_the_total(name: str, model: str) -> None:
    tally = said(name, build_for_count(model, SETTING), torch.zeros(1, 3, 64, 64))
    assert sum(tally.modules.values()) == tally.total
    assert all(amount > 0 for amount in tally.modules.values())


def test_fvcore_on_dat() -> None:
    found = terms("fvcore", build_for_count("dat_t", SETTING), torch.zeros(1, 3, 64, 64))
    assert brief(found) == {"layer_norm": 5, "grid_sampler": 4, "adaptive_avg_pool2d": 1}
    assert all(term.modules == () for term in found)


def test_fvcore_drops_fused_attention_and_the_search_says_so() -> None:
    fused = dataclasses.replace(SETTING, attention="sdpa")
    found = terms("fvcore", build_for_count("dat_t", fused), torch.zeros(1, 3, 64, 64))
    assert brief(found)["scaled_dot_product_attention"] == -1


def test_torch_agrees_on_dat_and_sees_the_tiles_of_dat_plus_plus() -> None:
    x = torch.zeros(1, 3, 64, 64)
    assert terms("torch", build_for_count("dat_t", SETTING), x) == []
    assert brief(terms("torch", build_for_count("datpp_t", SETTING), x)) == {
        "matmul inside neighborhood_attention": 1,
        "neighborhood_attention": -1,
    }


def test_torch_is_asked_for_flops() -> None:
    tally = said("torch", nn.Sequential(nn.Linear(3, 5)), torch.zeros(1, 3))
    assert (tally.total, dict(tally.modules or {})) == (30, {"0": 30})


def test_every_counter_says_what_can_be_imported() -> None:
    for peer in PEERS.values():
        if peer.module.split(".")[0] in ("torch", "fvcore"):
            counter(peer.name)
            assert importlib.import_module(peer.module)
        assert peer.unit in ("MAC", "FLOP")
