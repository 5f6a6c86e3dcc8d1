"""Figures as a paper prints them: ``4.6G``, ``28.32M``, ``1038``. The print has a last place."""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal

_SCALES = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "P": 10**15}

_PRINTED = re.compile(r"\s*([0-9]{1,18}(?:\.[0-9]{1,18})?)\s*([KMGTP]?)(B?)\s*")


@dataclass(frozen=True)
class Printed:
    """A printed figure.

    Args:
        text: as printed.
        value: in units of one.
        step: one in the last printed place, in units of one.
        prefix: that the figure is in, printed or the column's.
    """

    text: str
    value: Decimal
    step: Decimal
    prefix: str

    @classmethod
    def parse(cls, text: str, unit: str = "", memory: bool = False) -> Printed:
        """Read a figure; `unit` is the column's prefix for a print that has none.

        Args:
            memory: bytes, with an optional B and prefixes of 2^10, as tools show a GPU's memory.

        Raises:
            ValueError: it is no number with a prefix of K, M, G, T or P.
        """
        match = _PRINTED.fullmatch(text)
        if match is None or (match[3] and not memory):
            raise ValueError(
                f"{text!r} is no figure such as 4.6G or 28.32M (a number and a prefix)"
            )
        prefix = match[2] or unit
        scale = 1024 ** list(_SCALES).index(prefix) if memory else _SCALES[prefix]
        number = Decimal(match[1])
        exponent = number.as_tuple().exponent
        assert isinstance(exponent, int)
        return cls(text, number * scale, Decimal(1).scaleb(exponent) * scale, prefix)

    @property
    def low(self) -> Decimal:
        """The least figure that rounds to the print."""
        return self.value - self.step / 2

    @property
    def high(self) -> Decimal:
        """The largest figure that rounds to the print."""
        return self.value + self.step / 2

    def agrees(self, amount: int) -> bool:
        """Whether `amount`, rounded to the printed place, is the print; a tie may go either way."""
        return self.low <= amount <= self.high

    def cuts_off(self, amount: int) -> bool:
        """Whether the print is `amount` with its last digits cut off."""
        return self.value <= amount < self.value + self.step

    def is_rounded_twice(self, amount: int) -> bool:
        """Whether the print is `amount` rounded to one place more, and that rounded again."""
        rounded = Decimal(amount)
        for step in (self.step / 10, self.step):
            rounded = (rounded / step).quantize(Decimal(1), ROUND_HALF_UP) * step
        return rounded == self.value

    def miss(self, amount: int) -> float | None:
        """How far `amount` is from the print, relative to the print; None of a printed 0."""
        return float((amount - self.value) / self.value) if self.value else None

    def apart_from(self, other: Printed) -> bool:
        """Whether no figure rounds to both."""
        return self.high < other.low or other.high < self.low
