"""Other counters: called here, and each in a process of its own."""

import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from datbench import process
from datbench.counting.count import build_for_count
from datbench.counting.peers import explain
from datbench.counting.peers.adapters import PEERS, Peer
from datbench.counting.peers.explain import ObservedModule, observe
from datbench.counting.records import PeerRow
from datbench.setting import Attention, Resolution, Setting
from tests.nets import short

SETTING = Setting(Resolution(64, 64), device="cpu")
IMAGE = torch.zeros(1, 3, 64, 64)

FVCORE = {"layer_norm": 5, "grid_sampler": 4, "adaptive_avg_pool2d": 1}
FUSED = FVCORE | {"scaled_dot_product_attention": -1}
TILES = {"matmul inside neighborhood_attention": 1, "neighborhood_attention": -1}


def counter(name: str) -> Any:
    pytest.importorskip(PEERS[name].module, reason=f"needs {name}", exc_type=ImportError)
    return PEERS[name]


@pytest.mark.peers
@pytest.mark.parametrize(
    ("name", "model", "attention", "expected"),
    [
        ("fvcore", "dat_t", "eager", FVCORE),
        ("fvcore", "dat_t", "sdpa", FUSED),  # dropped, and the search says so
        ("fvcore", "datpp_t", "eager", FVCORE | {"unexplained": None}),  # einsums, rounded
        ("torch", "dat_t", "eager", {}),
        ("torch", "datpp_t", "eager", TILES),
    ],
)
def test_what_a_counter_says_of_our_models(
    name: str, model: str, attention: Attention, expected: dict[str, float | None]
) -> None:
    """Of the two that leave a process as it was."""
    peer, setting = counter(name), replace(SETTING, attention=attention)
    module = build_for_count(short(model), setting)
    with torch.no_grad():
        tally = peer.count(module, IMAGE)
    assert sum(tally.modules.values()) == tally.total
    assert all(amount > 0 for amount in tally.modules.values())
    terms = explain.explain(observe(module, IMAGE), tally, peer.unit)
    assert {term.label: term.each for term in terms} == expected
    assert not any(term.modules for term in terms if term.each)


@pytest.mark.peers
def test_torch_is_asked_for_flops() -> None:
    with torch.no_grad():
        tally = counter("torch").count(nn.Sequential(nn.Linear(3, 5)), torch.zeros(1, 3))
    assert (tally.total, dict(tally.modules)) == (30, {"0": 30})
    assert {name: peer.unit for name, peer in PEERS.items() if peer.unit != "MAC"} == {
        "torch": "FLOP"
    }


# In processes of their own: what comes back, and that none is left behind.


@pytest.fixture(scope="module")
def observed() -> tuple[ObservedModule, ...]:
    return observe(build_for_count("dat_t", SETTING), IMAGE)


@pytest.mark.parametrize("name", list(PEERS))
def test_a_counter_in_a_process_of_its_own(name: str, observed: tuple[ObservedModule, ...]) -> None:
    row = explain.peer_row(PEERS[name], "dat_t", SETTING, observed, timeout=120)
    assert row.reason is None
    ours = sum(module.multiply_adds for module in observed)
    assert row.amount is not None
    assert row.macs == (row.amount / 2 if row.unit == "FLOP" else row.amount)
    assert row.difference == row.macs - ours
    assert row.terms is not None
    assert sum(term.difference for term in row.terms) == row.difference
    assert not [term for term in row.terms if term.each is None]
    assert row.peak_bytes is not None
    assert 0 < row.seconds < 60
    assert 0 <= row.extra_bytes < row.peak_bytes


def test_a_counter_that_is_not_there_or_fails() -> None:
    missing = Peer("nobody", "nobody", "nobody_counts", "MAC", PEERS["torch"].count)
    row = explain.peer_row(missing, "dat_t", SETTING, ())
    assert row.reason == "not installed; pip install nobody"
    assert (row.amount, row.terms, row.version, row.seconds) == (None, None, None, None)
    row = explain.peer_row(PEERS["torch"], "dat_q", SETTING, (), timeout=60)
    assert (row.reason or "").startswith("UnknownNameError: unknown model 'dat_q'")


def test_how_a_process_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """By its last line, its signal, or the option of the time limit."""
    popen = subprocess.Popen

    def ran(code: str, timeout: float = 30) -> PeerRow:
        """With a program in the worker's place."""

        def start(command: list[str], **options: Any) -> Any:
            return popen([sys.executable, "-c", code], **options)

        monkeypatch.setattr(process.subprocess, "Popen", start)
        return explain.peer_row(PEERS["torch"], "dat_t", SETTING, (), timeout)

    died = ran("import sys; print('noise'); sys.exit('Fatal: no')")
    assert died.reason == "exit code 1: Fatal: no"
    killed = ran("import os; os.kill(os.getpid(), 9)")
    assert killed.reason == "killed by signal 9 (SIGKILL)"
    late = ran("import time; time.sleep(60)", timeout=1.5)
    assert late.reason == "did not finish in 1.5 s (--timeout)"
