"""Figures as printed: the last place decides what agrees."""

from decimal import ROUND_DOWN, ROUND_HALF_DOWN, ROUND_HALF_UP, Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datbench.paper.tables import Printed

SCALES = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "P": 10**15}

numbers = st.decimals(0, 10**4, places=2, allow_nan=False)
prefixes = st.sampled_from(sorted(SCALES))


@given(numbers, prefixes, st.integers(0, 10**19))
def test_agrees_is_rounding_to_the_printed_place(number: Decimal, prefix: str, amount: int) -> None:
    printed = Printed.parse(f"{number}{prefix}")
    in_prefix = Decimal(amount) / SCALES[prefix]
    rounded = {
        in_prefix.quantize(Decimal("0.01"), mode) for mode in (ROUND_HALF_UP, ROUND_HALF_DOWN)
    }
    assert printed.agrees(amount) is (number in rounded)
    assert printed.cuts_off(amount) is (in_prefix.quantize(Decimal("0.01"), ROUND_DOWN) == number)


@given(numbers, prefixes, st.integers(-49, 49))
def test_the_neighbourhood_of_a_print(number: Decimal, prefix: str, hundredths: int) -> None:
    printed = Printed.parse(f"{number}{prefix}")
    amount = printed.value + printed.step * hundredths / 100
    if amount >= 0 and amount == int(amount):
        assert printed.agrees(int(amount))
        assert not printed.agrees(int(amount) + int(printed.step) + 1)


@given(numbers, numbers)
def test_prints_apart_share_no_figure(one: Decimal, other: Decimal) -> None:
    a, b = Printed.parse(f"{one}G"), Printed.parse(f"{other}G")
    assert a.apart_from(b) == b.apart_from(a)
    if a.apart_from(b):
        assert not any(b.agrees(int(x)) for x in (a.low, a.value, a.high))


@given(st.text(max_size=12))
def test_any_text_is_a_figure_or_refused(text: str) -> None:
    try:
        printed = Printed.parse(text)
    except ValueError:
        return
    assert printed.low <= printed.value <= printed.high


def test_examples() -> None:
    for text, unit, value, step in (
        ("4.6G", "", 4_600_000_000, 100_000_000),
        ("28.32M", "", 28_320_000, 10_000),
        ("1038", "G", 1038 * 10**9, 10**9),
        ("46.4", "G", 46_400_000_000, 100_000_000),
        ("14", "", 14, 1),
    ):
        printed = Printed.parse(text, unit)
        assert (printed.value, printed.step) == (value, step)


def test_refused() -> None:
    for text in ("", "4,6G", "4.6 GFLOPs", "-4G", "G", "4.G", "٤G", "1e9", "4.6g"):
        with pytest.raises(ValueError, match="not a figure such as"):
            Printed.parse(text)
