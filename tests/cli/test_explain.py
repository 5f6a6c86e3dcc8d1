"""`datbench explain`: the sums, the other counters, in every format."""

import io
import json
from dataclasses import replace

import pandas as pd
import pytest

from datbench.counting.peers import explain
from datbench.counting.peers.adapters import PEERS, Peer
from datbench.counting.records import Chain, ChainTerm, PeerTerm
from datbench.counting.view import rule, sentence, what
from tests.processes import asked_here

from .runner import Run, unwrapped

SMALL = ("explain", "dat_t", "--res", "64")


def test_the_sums_are_written_out_with_their_units(run: Run) -> None:
    text = unwrapped(run("explain", "dat_t").text)
    assert text.startswith("dat_t: 4.563 GMACs of multiply-adds (224x224, batch 1, eager attention")
    assert (
        "In MACs: 4.5635 torch/2 + 0.0186 layer_norm + 0.0068 grid_sampler (and 1 below 0.0001) "
        "= 4.5889 fvcore" in text
    )
    assert "In MACs: 4.5889 fvcore - 0.2065 matmul - 0.0112 layer_norm" in text
    assert "In FLOPs, two for each MAC: 9.1269 2 x MACs + 0.0298 layer_norm" in text
    assert "torch 9.1269 GFLOP 2 x torch/2" in text
    assert "fvcore's rules in GMACs are what papers of this field print as FLOPs" in text
    assert "Other counters" not in text
    assert "-0.0000" not in text
    for kind in ("md", "latex"):
        shown = run("explain", "dat_t", "--format", kind).text
        assert "4.5889 GMAC" in shown
        assert "0.0186" in shown


@pytest.mark.parametrize("arguments", [(), ("--features",), ("--attention", "sdpa")])
def test_json_holds_integers_that_add_up(run: Run, arguments: tuple[str, ...]) -> None:
    document = json.loads(run(*SMALL, *arguments, "--format", "json").text)
    assert document["kind"] == "explain"
    (row,) = document["rows"]
    assert (row["peers"], row["unknown"]) == (None, {})
    assert row["setting"]["width"] == 64
    assert row["setting"]["features"] == ("--features" in arguments)
    chains = row["chains"]
    assert [(c["start"], c["end"], c["unit"]) for c in chains] == [
        ("torch/2", "fvcore", "MAC"),
        ("fvcore", "mmdet", "MAC"),
        ("2 x MACs", "strict", "FLOP"),
    ]
    for chain in chains:
        total = chain["start_amount"] + sum(term["difference"] for term in chain["terms"])
        assert total == chain["end_amount"]
    for chain, convention in zip(chains, ("fvcore", "mmdet", "strict"), strict=True):
        (count,) = run(
            "flops", "dat_t", "--res", "64", *arguments, "--convention", convention,
            "--format", "json",
        ).rows  # fmt: skip
        assert count["amount"] == chain["end_amount"]
    assert row["macs"] == chains[0]["start_amount"]


def test_csv_is_one_table_whose_parts_add_up(run: Run) -> None:
    frame = pd.read_csv(io.StringIO(run(*SMALL, "--format", "csv").text))
    assert set(frame["model"]) == {"dat_t"}
    assert list(frame["part"].unique()) == [
        "torch/2 to fvcore",
        "fvcore to mmdet",
        "2 x MACs to strict",
    ]
    for _, part in frame.groupby("part"):
        *terms, end = part["difference"].tolist()
        assert sum(terms) == end
        assert part["term"].tolist()[-1].startswith("= ")


def test_the_other_counters(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(explain, "ask", asked_here)
    missing = Peer("nobody", "nobody", "nobody_counts", "MAC", PEERS["torch"].count)
    monkeypatch.setattr(explain, "PEERS", {"torch": PEERS["torch"], "nobody": missing})
    text = run("explain", "datpp_t", "--res", "64", "--third-party", "--format", "json").text
    (row,) = json.loads(text)["rows"]
    torch, nobody = row["peers"]
    assert (torch["name"], torch["unit"], torch["reason"]) == ("torch", "FLOP", None)
    assert torch["macs"] == torch["amount"] / 2 == row["macs"] + torch["difference"]
    assert {term["label"]: term["each"] for term in torch["terms"]} == {
        "matmul inside neighborhood_attention": 1,
        "neighborhood_attention": -1,
    }
    assert nobody["reason"] == "not installed; pip install nobody"
    assert nobody["amount"] is None


def test_the_other_counters_as_a_table(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    torch = PEERS["torch"]
    agreeing = explain._without(torch, "2.6", "")
    agreeing = replace(
        agreeing, amount=10, macs=5, difference=0, seconds=0.5, peak_bytes=2**30,
        extra_bytes=2**20, terms=(), reason=None,
    )  # fmt: skip
    rows = (
        agreeing,
        replace(agreeing, name="total", difference=3 * 10**9, terms=None),
        explain._without(torch, None, "did not finish in 3 s (--timeout)"),
    )
    monkeypatch.setattr("datbench.counting.peers.explain.peer_rows", lambda *_: rows)
    text = unwrapped(run(*SMALL, "--third-party", "--timeout", "3").text)
    assert "torch gives the same figure: nothing to explain." in text
    assert "total gives a total alone: its difference cannot be traced to operators." in text
    assert "did not finish in 3 s (--timeout)" in text
    assert "+3.0000 0.50 1.0 GiB 1.0 MiB" in text
    frame = pd.read_csv(
        io.StringIO(run(*SMALL, "--third-party", "--timeout", "3", "--format", "csv").text)
    )
    ends = frame[frame["part"].str.startswith("counter")]
    assert "did not finish in 3 s (--timeout)" in ends["reason"].tolist()


def test_terms_in_words() -> None:
    term = PeerTerm("linear", "linear", (), False, 10, -1, -10, ())
    assert (what(term), rule(term)) == ("linear", "not counted")
    assert rule(replace(term, each=1)) == "2 for a multiply-add"
    some = replace(term, modules=("A", "B", "C", "D", "E"), below=True)
    assert what(some) == "linear in A, B, C and 2 more and below"
    norm = replace(term, label="layer_norm", kind="norm", each=2.5)
    assert rule(norm) == "+2.5 for each element"
    inside = replace(term, label="matmul inside tiles", kind="matmul", each=1)
    assert rule(inside) == "+1 for each multiply-add"
    unknown = PeerTerm("unexplained", None, ("A",), False, None, None, 5, ())
    assert (what(unknown), rule(unknown)) == ("unexplained in A", "found no exact explanation")


def test_a_sum_in_words() -> None:
    differences = {"a": 2 * 10**9, "b": -(10**6)}
    terms = tuple(ChainTerm(n, n, "norm", 1, 1, d, d) for n, d in differences.items())
    chain = Chain("x", "y", "MAC", 10**9, 3 * 10**9 - 10**6, terms)
    assert sentence(chain) == "1.0000 x + 2.0000 a - 0.0010 b = 2.9990 y"
