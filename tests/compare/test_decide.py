"""From times to a verdict."""

import math
import random

import pytest

from datbench.compare.decide import decide_pairs, decide_samples, judge
from datbench.compare.records import MOST
from datbench.timing.sample import Interval


@pytest.mark.parametrize(
    ("low", "value", "high", "verdict"),
    [
        (-0.01, 0.001, 0.01, "same"),
        (0.005, 0.01, 0.015, "same"),  # beside zero and not worth a word
        (-0.015, -0.01, -0.005, "same"),
        (0.01, 0.05, 0.09, "slower"),
        (-0.09, -0.05, -0.01, "faster"),
        (0.005, 0.015, 0.025, "ambiguous"),  # beside zero; the floor is not left, nor kept
        (-0.01, 0.03, 0.07, "ambiguous"),
        (-0.03, 0.0, 0.03, "ambiguous"),
    ],
)
def test_the_decision_table(low: float, value: float, high: float, verdict: str) -> None:
    assert judge(Interval(value, low, high, 0.985), 0.02, 0.98) == verdict
    assert judge(Interval(value, low, high, 0.97), 0.02, 0.98) == "ambiguous"


def test_a_longer_time_is_a_lower_speed() -> None:
    found = decide_pairs([math.log(1.05) + 0.001 * i for i in range(-4, 6)], 0.02, 0.98)
    assert found.verdict == "slower"
    assert found.ratio == pytest.approx(1 / 1.05, rel=0.002)
    assert found.low is not None
    assert found.high is not None
    assert found.low < found.ratio < found.high < 1
    assert found.processes == 10
    assert found.needed is None


def test_the_floor_decides_what_matters() -> None:
    differences = [0.01 + 0.001 * i for i in range(-4, 6)]
    assert decide_pairs(differences, 0.02, 0.98).verdict == "same"
    assert decide_pairs(differences, 0.005, 0.98).verdict == "slower"
    assert decide_pairs([-d for d in differences], 0.005, 0.98).verdict == "faster"


def test_too_few_are_ambiguous_however_clear() -> None:
    found = decide_pairs([0.5] * 6, 0.02, 0.98)
    assert found.verdict == "ambiguous"
    assert found.reason == "6 of the 7 processes of each side that an interval at 98 % takes"
    assert found.needed == 8
    assert decide_pairs([], 0.02, 0.98).verdict == "ambiguous"
    assert decide_samples([], [0.1], 0.02, 0.98).ratio is None
    assert decide_samples([0.0] * 4, [0.5] * 4, 0.02, 0.98).verdict == "ambiguous"
    assert decide_samples([0.0] * 5, [0.5] * 5, 0.02, 0.98).verdict == "slower"
    assert decide_pairs([0.1], 0.02, 0.98).needed == 8


@pytest.mark.parametrize("spread", [0.05, 0.08])
def test_the_number_that_would_settle_it_does(spread: float) -> None:
    """Comparisons that are ambiguous are run again with that number: most of them are settled."""
    rng = random.Random(1)
    settled = asked = 0
    while asked < 60:
        found = decide_pairs([0.06 + rng.gauss(0, spread) for _ in range(10)], 0.02, 0.98)
        if found.verdict == "ambiguous" and found.needed is not None:
            again = [0.06 + rng.gauss(0, spread) for _ in range(found.needed)]
            asked += 1
            settled += decide_pairs(again, 0.02, 0.98).verdict == "slower"
            assert 10 < found.needed <= MOST
            assert found.needed % 2 == 0
    assert settled > asked / 2


def test_a_difference_just_below_the_floor_is_never_settled() -> None:
    below = [math.log(1.02) - 0.0005 + 0.01 * i for i in (-4, -3, -2, -1, 0, 0, 1, 2, 3, 4)]
    found = decide_pairs(below, 0.02, 0.98)
    assert found.verdict == "ambiguous"
    assert found.needed is None
