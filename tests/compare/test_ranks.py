"""Intervals from ranks, against brute force and printed tables."""

import itertools
import math
import random
from collections import Counter

import pytest

from datbench.compare.decide import fewest_pairs, fewest_samples, paired, shift


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
