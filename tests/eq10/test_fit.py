"""The coefficients of Eq. 10, recovered from counts."""

from dataclasses import replace

import pytest

from datbench.counting.conventions import CONVENTIONS
from datbench.eq10 import curves
from datbench.eq10.curves import MONOMIALS, claims, fit, parse_grid
from datbench.errors import UsageError
from datbench.setting import Kind

FVCORE = CONVENTIONS["fvcore"]

SMALL = {"height": (5, 8), "width": (6,), "dim": (24, 48), "groups": (3,), "heads": (3, 6)}


def test_counts_by_the_rules_of_two_counters() -> None:
    found = fit(SMALL, FVCORE)
    assert {c.monomial: c.fitted for c in found.coefficients} == dict(
        zip(MONOMIALS, ["2", "2", "2", "1", "11", "4"], strict=True)
    )
    assert (found.solved_on, found.held_out, found.worst) == (6, 26, 0)
    assert found.holds
    parts = next(c.parts for c in found.coefficients if c.monomial == "Ns C")
    assert parts == {
        "offset network": "2",
        "LayerNorm of the offset network": "5",
        "sampling of features": "4",
    }
    # Multiply-adds alone are the paper's formula.
    found = fit(SMALL, CONVENTIONS["torch"])
    assert [int(c.fitted) for c in found.coefficients] == [c.paper for c in found.coefficients]
    assert found.holds


def test_the_fit_does_not_know_the_formula(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other weights give other coefficients: a norm that costs 7, products that cost 3."""
    other = replace(
        FVCORE,
        weights={**FVCORE.weights, Kind.NORM: 7, Kind.MATMUL: 3, Kind.SAMPLE: 0},
    )
    monkeypatch.setattr(curves, "PAPER", (9,) * 6)
    found = fit(SMALL, other)
    assert [c.fitted for c in found.coefficients] == ["6", "2", "2", "1", "9", "0"]
    assert {c.paper for c in found.coefficients} == {9}
    assert not found.holds


@pytest.mark.parametrize(
    ("weights", "holds"),
    [
        # A wrong weight of its own work contradicts the formula.
        ({Kind.MATMUL: 3}, False),
        ({Kind.LINEAR: 2}, False),
        ({Kind.CONV: 2}, False),
        # What it leaves out may weigh anything.
        ({Kind.SAMPLE: 3, Kind.NORM: 9}, True),
    ],
)
def test_other_weights(weights: dict[Kind, int], holds: bool) -> None:
    found = fit(SMALL, replace(FVCORE, weights={**FVCORE.weights, **weights}))
    assert (found.worst, found.holds) == (0, holds)


def test_work_that_the_monomials_cannot_express_is_not_fitted_away() -> None:
    """`strict` counts a bias for each projection, among others: no multiple of a monomial."""
    found = fit(SMALL, CONVENTIONS["strict"])
    assert found.worst > 0
    assert not found.holds


@pytest.mark.parametrize(
    ("grid", "words"),
    [
        ("stride=1", "cannot tell HW C², Ns C² apart"),
        ("kernel=3", "cannot tell k² Ns C, Ns C apart"),
        ("dim=24", "cannot tell Ns C², Ns C apart"),
        ("height=5 width=6 stride=1 dim=24 kernel=3 heads=3", "cannot tell"),
        ("heads=5", "must be a multiple of 5 heads"),
        ("groups=2", "must be a multiple of 3 heads, and these of 2 groups"),
    ],
)
def test_a_grid_that_is_too_small_is_refused(grid: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        fit({**SMALL, **parse_grid(grid)}, FVCORE)


def test_grids() -> None:
    assert parse_grid("height=7,14  dim=32") == {"height": (7, 14), "dim": (32,)}
    assert parse_grid("") == {}
    assert parse_grid("height=7,7,8") == {"height": (7, 8)}  # every value once
    with pytest.raises(UsageError, match="height is given twice"):
        parse_grid("height=7 height=8")
    for text in ("height", "height=", "height=0", "height=7,,8", "side=7", "dim=1e3", "heads=-1"):
        with pytest.raises(UsageError, match="is not understood; write NAME=N,N"):
            parse_grid(text)


def test_the_worked_example() -> None:
    found = claims()
    figures = {c.what: (c.amount, c.printed, c.verdict) for c in found}
    assert figures == {
        "attention without offsets, Ns = 49": (79_629_312, "79.63M", "agrees"),
        "offset network, Ns = 49, k = 5": (508_032, "5.08M", "wrong in print"),
        "attention of a block of Swin-T's stage 3": (122_981_376, "79.63M", "wrong in print"),
        "attention without offsets in DAT-T's stage 3, Ns = 196": (145_108_992, "", ""),
        "offset network in DAT-T's stage 3, Ns = 196": (2_032_128, "", ""),
        "all that is counted, Ns = 49": (80_767_680, "", ""),
        "all that is counted in DAT-T's stage 3, Ns = 196": (149_662_464, "", ""),
    }
    slip = next(c.reason for c in found if c.printed == "5.08M")
    assert "10.00 times" in slip
    assert "0.63 %, not 6.0 %" in slip
