"""From times to a verdict, and to a sentence."""

import itertools
import math
import random
from collections import Counter

import pytest

from datbench.compare.decide import (
    decide_pairs,
    decide_samples,
    fewest_pairs,
    fewest_samples,
    judge,
    paired,
    shift,
)
from datbench.compare.records import MOST, ComparisonRow, Decision
from datbench.compare.view import brief, sentence, tables
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


# Intervals from ranks, against brute force and printed tables.


@pytest.mark.parametrize("n", range(1, 10))
@pytest.mark.parametrize("level", [0.8, 0.95, 0.98])
def test_pairs_are_enclosed_as_often_as_it_says(n: int, level: float) -> None:
    """All 2^n signs of n magnitudes: the intervals that hold zero are the coverage, exactly."""
    magnitudes = [1.3**i + 0.01 * i for i in range(1, n + 1)]  # no two means tie at zero
    holds = coverage = 0.0
    for signs in itertools.product((-1, 1), repeat=n):
        found = paired([s * m for s, m in zip(signs, magnitudes, strict=True)], level)
        holds += found.low <= 0 <= found.high
        coverage = found.coverage
    assert holds / 2**n == pytest.approx(coverage)
    assert coverage >= level or n < fewest_pairs(level)


@pytest.mark.parametrize(("n", "m"), [(1, 1), (2, 5), (4, 4), (5, 3), (5, 5)])
@pytest.mark.parametrize("level", [0.8, 0.95, 0.98])
def test_two_sets_are_enclosed_as_often_as_it_says(n: int, m: int, level: float) -> None:
    """All ways to deal n + m values to two sets."""
    values = [1.3**i for i in range(n + m)]
    held = Counter[bool]()
    coverage = 0.0
    for chosen in itertools.combinations(range(n + m), n):
        one = [values[i] for i in chosen]
        other = [value for i, value in enumerate(values) if i not in chosen]
        found = shift(one, other, level)
        held[found.low <= 0 <= found.high] += 1
        coverage = found.coverage
    assert held[True] / math.comb(n + m, n) == pytest.approx(coverage)


def test_critical_values_of_the_printed_tables() -> None:
    """Wilcoxon's signed rank at 5 %, two-sided: 0 at n = 6, 8 at n = 10, 52 at n = 20."""
    for n, critical in ((6, 0), (10, 8), (20, 52)):
        differences = [float(i * i) for i in range(1, n + 1)]
        means = sorted((a + b) / 2 for i, a in enumerate(differences) for b in differences[i:])
        assert paired(differences, 0.95).low == means[critical]


def test_fewest() -> None:
    assert [fewest_pairs(level) for level in (0.95, 0.98, 0.99)] == [6, 7, 8]
    assert [fewest_samples(level) for level in (0.95, 0.98)] == [4, 5]


def test_many_samples_are_as_good_as_normal() -> None:
    """The exact distribution and the normal one meet where one takes over from the other."""
    rng = random.Random(0)
    a, b = ([rng.gauss(0, 1) for _ in range(31)] for _ in range(2))
    exact, normal = shift(a[:30], b[:30], 0.98), shift(a, b, 0.98)
    assert exact.coverage == pytest.approx(normal.coverage, abs=0.001)
    assert exact.high - exact.low == pytest.approx(normal.high - normal.low, rel=0.2)


def test_one_sample_out_of_line_moves_little() -> None:
    differences = [0.001 * i for i in range(-10, 10)]
    before = paired(differences, 0.98)
    after = paired([*differences[:-1], 10.0], 0.98)
    assert after.high < before.high + 0.002
    with pytest.raises(ValueError, match="no samples"):
        paired([], 0.98)


# Decisions in words.


def test_one_process_has_no_interval() -> None:
    found = decide_samples([0.0], [0.01], 0.02, 0.98)
    said = sentence(found, interleaved=False)
    assert "the speed of B over that of A is 0.9900. At this spread" in said
    assert "between" not in said
    (table,) = tables([ComparisonRow("a", "b", found, 1.0, 0.99, (), False)])
    (row,) = table.rows
    shown = dict(zip([column.name for column in table.columns], row, strict=True))
    assert shown["ratio"] == pytest.approx(0.99, abs=1e-4)
    assert (shown["low"], shown["high"], shown["coverage"]) == (None, None, None)


def test_some_processes_have_one() -> None:
    said = sentence(decide_samples([0.0, 0.01], [0.01, 0.02], 0.02, 0.98))
    assert ", and lies between 0.9802 and 1.0000 at 66.7 %" in said


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (decide_samples([0.0] * 8, [0.2] * 8, 0.02, 0.98), "slower: B is 18.1 % slower."),
        (decide_samples([0.0] * 8, [0.0] * 8, 0.02, 0.98), "same."),
        (Decision("missing", 0.02, 0.98, reason="not in B"), "missing: not in B."),
        (
            decide_samples([0.0], [0.01], 0.02, 0.98),
            "ambiguous: 1 of the 5 processes of each side that an interval at 98 % takes. At this "
            "spread about 6 processes of each side would settle it (--processes 6).",
        ),
    ],
)
def test_the_last_line_does_not_repeat_the_note(found: Decision, said: str) -> None:
    assert brief(found) == said
    if found.ratio is not None:
        assert brief(found) not in sentence(found)
