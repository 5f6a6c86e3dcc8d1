"""Counters in processes of their own: what comes back, and that none is left behind."""

import subprocess
import sys
from typing import Any

import pytest
import torch

from datbench import process
from datbench.counting.count import build_for_count
from datbench.counting.peers import explain
from datbench.counting.peers.adapters import PEERS, Peer
from datbench.counting.peers.explain import ObservedModule, observe
from datbench.setting import Resolution, Setting

SETTING = Setting(Resolution(64, 64))

POPEN = subprocess.Popen


@pytest.fixture(scope="module")
def observed() -> tuple[ObservedModule, ...]:
    return observe(build_for_count("dat_t", SETTING), torch.zeros(1, 3, 64, 64, device="meta"))


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


def test_a_counter_that_is_not_there(observed: tuple[ObservedModule, ...]) -> None:
    missing = Peer("nobody", "nobody", "nobody_counts", "MAC", PEERS["torch"].count)
    row = explain.peer_row(missing, "dat_t", SETTING, observed)
    assert row.reason == "not installed; pip install nobody"
    assert (row.amount, row.terms, row.version, row.seconds) == (None, None, None, None)


def test_a_counter_that_fails_has_a_reason_of_one_line() -> None:
    row = explain.peer_row(PEERS["torch"], "dat_q", SETTING, (), timeout=60)
    assert (row.reason or "").startswith("UnknownNameError: unknown model 'dat_q'")


def replaced(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """Put a program in the worker's place."""

    def start(command: list[str], **options: Any) -> Any:
        return POPEN([sys.executable, "-c", code], **options)

    monkeypatch.setattr(process.subprocess, "Popen", start)


def test_a_process_that_dies_is_told_by_its_last_line(monkeypatch: pytest.MonkeyPatch) -> None:
    replaced(monkeypatch, "import sys; print('noise'); sys.exit('Fatal: no')")
    row = explain.peer_row(PEERS["torch"], "dat_t", SETTING, (), timeout=30)
    assert row.reason == "exit code 1: Fatal: no"
    replaced(monkeypatch, "import os; os.kill(os.getpid(), 9)")
    row = explain.peer_row(PEERS["torch"], "dat_t", SETTING, (), timeout=30)
    assert row.reason == "killed by signal 9 (SIGKILL)"


def test_a_time_limit_is_told_with_its_option(monkeypatch: pytest.MonkeyPatch) -> None:
    replaced(monkeypatch, "import time; time.sleep(60)")
    row = explain.peer_row(PEERS["torch"], "dat_t", SETTING, (), timeout=1.5)
    assert row.reason == "did not finish in 1.5 s (--timeout)"
