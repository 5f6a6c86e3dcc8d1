"""The one place where numbers become text: MACs, FLOPs, parameters, bytes, shares.

A multiply-add is one MAC and two FLOPs; the words are never exchanged. Names of others become
printable here too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

_DECIMAL = ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "K"))

_BINARY = ((2**40, "TiB"), (2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"))


def amount(value: float, unit: str = "", digits: int = 3) -> str:
    """``301959091200, "MAC"`` -> ``301.959 GMAC``. Prefixes are powers of ten."""
    for scale, prefix in _DECIMAL:
        if round(abs(value) / scale, digits) >= 1:  # 999,999.9 is 1.000 M, not 1000.000 K
            return f"{value / scale:.{digits}f} {prefix}{unit}"
    return f"{value:g} {unit}".rstrip()


def giga(value: float) -> str:
    """In units of 1e9, with the four decimals that tell the papers' cells apart."""
    return f"{value / 1e9:.4f}"


def prefixed(value: float, prefix: str) -> str:
    """In units of a prefix, with four decimals; a whole number without one."""
    if not prefix:
        return integer(value)
    scale = next(scale for scale, name in _DECIMAL if name == prefix)
    return f"{value / scale:.4f}"


def mega(value: float) -> str:
    """In units of 1e6, with four decimals."""
    return f"{value / 1e6:.4f}"


def size(value: float) -> str:
    """Bytes with binary prefixes: ``1536`` -> ``1.5 KiB``."""
    for scale, name in _BINARY:
        if round(abs(value) / scale, 1) >= 1:
            return f"{value / scale:.1f} {name}"
    return f"{value:.0f} B"


def gib(value: float) -> str:
    """Bytes in GiB, with two decimals: ``1610612736`` -> ``1.50``."""
    return f"{value / 2**30:.2f}"


def seconds(value: float) -> str:
    """``0.01234`` -> ``12.3 ms``, three figures."""
    for scale, unit in ((1, "s"), (1e-3, "ms"), (1e-6, "us")):
        if value >= scale * 0.9995:
            return f"{_three(value / scale)} {unit}"
    return f"{_three(value / 1e-9)} ns"


def _three(value: float) -> str:
    return f"{value:.{2 if value < 9.995 else 1 if value < 99.95 else 0}f}"


def share(part: float, whole: float) -> str:
    """``part`` of ``whole`` in percent; a dash where there is no whole."""
    return f"{100 * part / whole:.1f} %" if whole else "-"


def ratio(value: float | None) -> str:
    """A quotient with two decimals; a dash where it is undefined."""
    return "-" if value is None else f"{value:.2f}"


def integer(value: float) -> str:
    """With thin groups of three digits, as ASCII: ``49_700_402`` -> ``49,700,402``."""
    return f"{value:,.0f}"


def printable(text: str) -> str:
    """Text that cannot steer a terminal: control characters are written out.

    Names of files and of a checkpoint's tensors are somebody else's.
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def rate(value: float) -> str:
    """A number a second: four figures, as many as an interval of 0.1 % shows."""
    return integer(value) if value >= 999.95 else f"{value:#.4g}"


def percent(value: float) -> str:
    """``0.153`` -> ``15.3 %``."""
    return f"{100 * value:.1f} %"


def signed_percent(value: float) -> str:
    """``0.153`` -> ``+15.3 %``."""
    return f"{100 * value:+.1f} %"


def short_percent(value: float) -> str:
    """``0.02`` -> ``2 %``, ``0.01234`` -> ``1.23 %``: at most three figures."""
    return f"{100 * value:.3g} %"


def figure(value: float) -> str:
    """Whole numbers in full; of others no less than three figures."""
    if value == int(value):
        return integer(value)
    size = abs(value)
    return f"{value:,.1f}" if size >= 99.95 else f"{value:.2f}" if size >= 1 else f"{value:.3g}"


def change(before: float, now: float) -> str:
    """The difference in figures and in percent: ``+4.91 (+200.41 %)``."""
    by = now - before
    share = now / before - 1 if before else None
    if share is None:
        percents = ""
    elif round(abs(100 * share), 2) < 0.01:
        percents = " (below 0.01 %)"
    else:
        percents = f" ({100 * share:+.2f} %)"
    return f"{'+' if by > 0 else '-'}{figure(abs(by))}{percents}"


def factor(value: float) -> str:
    """``2.07``; with a third decimal where two would hide that it is not 1."""
    return f"{value:.3f}" if value < 1.1 else f"{value:.2f}"


_LINE = 300
"""Characters of a record's fields in its `repr`."""


class Brief:
    """A record whose `repr` is a line: of what it consists of, how much."""

    def __repr__(self) -> str:
        said = ""
        every: Any = fields(self)  # type: ignore[arg-type]  # it is a dataclass
        for each in every:
            more = f"{', ' if said else ''}{each.name}={_in_short(getattr(self, each.name))}"
            if len(said) + len(more) > _LINE:
                said += ", ..."
                break
            said += more
        return f"{type(self).__name__}({said})"


def _in_short(value: Any) -> str:
    if isinstance(value, (Mapping, Sequence)) and not isinstance(value, str) and value:
        return f"<{len(value)} items>"
    text = repr(value)
    return text if len(text) <= _LINE // 2 else f"<{type(value).__name__}>"
