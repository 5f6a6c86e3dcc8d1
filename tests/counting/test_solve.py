"""The solver, on weights that were planted."""

from fractions import Fraction
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datbench.counting.peers.solve import PLAIN, EquationRow, solve

COLUMNS = list("abcdef")
WEIGHTS = st.sampled_from(PLAIN)
AMOUNTS = st.integers(1, 10**9)


def rows_of(table: list[list[int]], weights: dict[str, Fraction]) -> list[EquationRow[str]]:
    rows = [dict(zip(COLUMNS, values, strict=False)) for values in table]
    return [
        EquationRow(row, sum((w * row[c] for c, w in weights.items()), start=Fraction(0)))
        for row in rows
    ]


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.lists(AMOUNTS, min_size=6, max_size=6), min_size=6, max_size=8, unique_by=tuple),
    st.dictionaries(st.sampled_from(COLUMNS), WEIGHTS, min_size=0, max_size=3),
)
def test_whatever_is_found_is_exact_and_no_longer_than_what_was_planted(
    table: list[list[int]], weights: dict[str, Fraction]
) -> None:
    rows = rows_of(table, weights)
    found = solve(rows, COLUMNS)
    assert len(found.weights) <= len(weights)
    for row in rows:
        assert sum(w * row.amounts[c] for c, w in found.weights.items()) == row.target


@settings(deadline=None, max_examples=60)
@given(
    st.dictionaries(st.sampled_from(COLUMNS), WEIGHTS, min_size=1, max_size=3),
    st.integers(0, 2**32),
)
def test_planted_weights_are_recovered_from_generic_amounts(
    weights: dict[str, Fraction], seed: int
) -> None:
    random = Random(seed)
    table = [[random.randrange(10**6, 10**9) for _ in COLUMNS] for _ in range(6)]
    found = solve(rows_of(table, weights), COLUMNS)
    assert found.weights == weights


@pytest.mark.parametrize(
    ("rows", "weights", "others"),
    [
        ([({"a": 5}, 0)], {}, {}),  # nothing to explain needs no column
        # 2 a, or b, or a + c: one column is better than two, and 1 is plainer than 2.
        ([({"a": n, "b": 2 * n, "c": n}, 2 * n) for n in (3, 7)], {"b": 1}, None),
        # Columns of the same amounts are told.
        ([({"a": n, "b": n, "c": n + 1}, -n) for n in (3, 7)], {"a": -1}, {"a": ("b",)}),
        ([({"a": n}, Fraction(5 * n, 2)) for n in (3, 7)], {"a": Fraction(5, 2)}, {}),
    ],
)
def test_fewest_columns_then_the_plainest_weights(
    rows: list[tuple[dict[str, int], Fraction]], weights: dict[str, Fraction], others: object
) -> None:
    found = solve([EquationRow(amounts, Fraction(target)) for amounts, target in rows], COLUMNS)
    assert found.weights == weights
    assert others is None or found.others == others


def test_a_poor_column_is_the_last_resort() -> None:
    rows = [EquationRow({"a": n, "b": 5 * n}, Fraction(5 * n)) for n in (3, 7)]
    plain = solve(rows, COLUMNS)
    shy = solve(rows, COLUMNS, poor=lambda column: column == "b")
    assert (plain.weights, shy.weights) == ({"b": 1}, {"a": 5})
    large = [EquationRow({"b": n}, Fraction(100 * n)) for n in (3, 7)]
    assert solve(large, COLUMNS) is not None
    assert solve(large, COLUMNS, poor=lambda column: column == "b") is None


def test_one_row_proves_little() -> None:
    for target in (1000, 37):  # 100 for each: who knows; 3.7 for each: nobody does
        assert solve([EquationRow({"a": 10}, Fraction(target))], COLUMNS) is None
    row = [EquationRow({"a": 1001, "b": 13}, Fraction(2 * 1001 - 13))]
    assert solve(row, COLUMNS).weights == {"a": 2, "b": -1}
    assert solve(row, COLUMNS, guess=False) is None


@pytest.mark.parametrize("other", [{"a": 1}, {}])
def test_rows_that_contradict_each_other_have_no_explanation(other: dict[str, int]) -> None:
    rows = [EquationRow({"a": 1}, Fraction(1)), EquationRow(other, Fraction(2))]
    assert solve(rows, COLUMNS) is None
