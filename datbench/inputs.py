"""What a model takes, in words, as ``--input`` has them. Free of torch.

=====================================  ===========================================================
``image=float:{B}x3x{H}x{W}``          a tensor; its values are random, the same every time
``ids=int64:{B}x77:0..49407``          whole numbers from 0 to 49407
``mask=bool:{B}x{H/4}x{W/4}:ones``     of ones (or ``zeros``)
``[float:3x480x640,float:3x512x512]``  a list (a tuple between round brackets)
``batch={image=float:3x64x64,id=7}``   a dict
``scale=0.5``                          a number, True, False, None, or text between quotes
``photo.png``, ``ids.npy``, ``x.pt``   values from a file: a picture is resized to the input size
=====================================  ===========================================================

``float`` is the data type that ``--dtype`` gives; ``{B}``, ``{H}`` and ``{W}`` are what ``--batch``
and ``--res`` give. What has no name is passed by position.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import Any, NamedTuple, NoReturn

from .errors import UsageError

DTYPES = (
    "float float64 float32 float16 bfloat16 int64 int32 int16 int8 uint8 bool complex64 complex128"
).split()

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")

FILES = (".npy", ".pt", ".pth", *PICTURES)

EXAMPLE = "--input x=float:{B}x3x{H}x{W}"


@dataclass(frozen=True)
class TensorOf:
    """A tensor that is made."""

    dtype: str  # of `DTYPES`
    sides: tuple[str, ...]  # numbers, or ``{B}``, ``{H}``, ``{W/4}``
    fill: str = "random"  # or ``zeros``, ``ones``
    low: int = 0  # low, high: random whole numbers lie between, both included
    high: int = 1

    def shape(self, sizes: Mapping[str, int]) -> tuple[int, ...]:
        """The sides, for the numbers that stand for B, H and W."""
        found = []
        for side in self.sides:
            letter, sign, number = _SIDE.fullmatch(side).groups()  # type: ignore[union-attr]
            size = sizes[letter] if letter else int(side)
            found.append(size // int(number) if sign == "/" else size * int(number or 1))
        return tuple(found)


@dataclass(frozen=True)
class FileOf:
    """A tensor, or what else a file holds."""

    path: str


@dataclass(frozen=True)
class Given:
    """An argument of a model's forward: leaves are `TensorOf`, `FileOf` or plain values."""

    name: str | None  # None: by position
    value: Any  # a leaf, or lists, tuples and dicts of leaves


class Inputs(NamedTuple):
    """What a forward takes."""

    args: tuple[Any, ...] = ()
    named: Mapping[str, Any] = MappingProxyType({})


_SIDE = re.compile(r"\{([BHW])(?:([*/])([1-9]\d{0,5}))?\}|\d{1,9}")

_TENSOR = re.compile(
    rf"({'|'.join(DTYPES)}):((?:{_SIDE.pattern})(?:[x,](?:{_SIDE.pattern}))*)?"
    r"(?::(zeros|ones|random|(-?\d{1,18})\.\.(-?\d{1,18})))?"
)

_FILE = re.compile(rf"[^\s,\[\](){{}}=]+(?:{'|'.join(map(re.escape, FILES))})(?=[,\])}}]|$)", re.I)

_LITERAL = re.compile(r"'[^']*'|\"[^\"]*\"|True|False|None|-?\d+(?:\.\d*)?(?:[eE][-+]?\d+)?")

_NAME = re.compile(r"\s*([A-Za-z_]\w*)=")

_CLOSING = {"[": "]", "(": ")"}


OWN = "example_inputs"
"""What stands for the inputs that a model says itself; ``({B},{H},{W})`` follows where they are a
function of these."""


def told(texts: Iterable[str], letters: str) -> bool:
    """Whether any of the texts has a side that one of these letters stands for, or is a picture."""
    pictures = "|".join(map(re.escape, PICTURES))
    return any(re.search(rf"\{{[{letters}]|{pictures}", text, re.I) for text in texts)


def checked(texts: Iterable[str], sized: bool, batched: bool) -> tuple[str, ...]:
    """The texts, which are understood.

    Args:
        sized, batched: whether a size, or a batch, is asked for besides.

    Raises:
        UsageError: one is not, or no input depends on what is asked for.
    """
    found = tuple(texts)
    parse(found)
    if found and sized and not told(found, "HW"):
        raise UsageError("--res: no --input has a side {H} or {W}; leave --res out.")
    if found and batched and not told(found, "B"):
        raise UsageError("--batch: no --input has a side {B}; leave --batch out.")
    return found


@lru_cache(maxsize=64)
def parse(texts: tuple[str, ...]) -> tuple[Given, ...]:
    """The arguments that some texts say, in order; a text may say several between commas.

    Raises:
        UsageError: a text is not understood; the message shows where, and how it is written.
    """
    found = [given for text in texts for given in _Reader(text).arguments()]
    names = [given.name for given in found if given.name]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UsageError(f"--input gives {twice} twice.")
    return tuple(found)


def _held(dtype: str, low: int, high: int) -> bool:
    """Whether a type is one of whole numbers, and has these."""
    whole = re.fullmatch(r"(u?)int(\d+)", dtype)
    if whole is None:
        return False
    bits, least = int(whole[2]), 0
    if not whole[1]:
        bits, least = bits - 1, -(2 ** (bits - 1))
    return least <= low and high < 2**bits


class _Reader:
    """Reads one text from left to right."""

    def __init__(self, text: str) -> None:
        self.text, self.place = text, 0

    def arguments(self) -> list[Given]:
        found = []
        while True:
            named = self._take(_NAME)
            found.append(Given(named and named[1], self._value()))
            if not self.text[self.place :].strip():
                return found
            self._expect(",")

    def _value(self) -> Any:
        self._take(re.compile(r"\s*"))
        if tensor := self._take(_TENSOR):
            dtype, sides, fill = tensor[1], tensor[2] or "", tensor[9]
            ranged = fill is not None and ".." in fill
            low, high = (int(tensor[10]), int(tensor[11])) if ranged else (0, 1)
            if low > high:
                self._refuse(f"{low}..{high} is empty")
            if ranged and not _held(dtype, low, high):
                self._refuse(f"{dtype} does not hold the whole numbers {low}..{high}")
            each = tuple(side[0] for side in re.finditer(_SIDE, sides))
            return TensorOf(dtype, each, "random" if ranged else fill or "random", low, high)
        if file := self._take(_FILE):
            return FileOf(file[0])
        if literal := self._take(_LITERAL):
            return ast.literal_eval(literal[0])
        opening = self.text[self.place : self.place + 1]
        if opening == "{":
            return dict(self._items(self._pair, "}"))
        if opening in _CLOSING:
            items = self._items(self._value, _CLOSING[opening])
            return items if opening == "[" else tuple(items)
        return self._refuse("no value stands here")

    def _pair(self) -> tuple[str, Any]:
        named = self._take(_NAME)
        return (named[1], self._value()) if named else self._refuse("write name=value in a dict")

    def _items(self, read: Any, closing: str) -> list[Any]:
        self.place += 1
        found: list[Any] = []
        while not self._take(re.compile(rf"\s*{re.escape(closing)}")):
            if found:
                self._expect(",")
            found.append(read())
        return found

    def _take(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        found = pattern.match(self.text, self.place)
        self.place = found.end() if found else self.place
        return found

    def _expect(self, mark: str) -> None:
        if not self._take(re.compile(rf"\s*{mark}")):
            self._refuse(f"{mark!r} is missing")

    def _refuse(self, problem: str) -> NoReturn:
        rest = self.text[self.place :]
        where = f"before {rest[:30]!r}" if rest.strip() else "at its end"
        raise UsageError(
            f"--input {self.text}: {where} {problem}; write such as {EXAMPLE[8:]}, "
            "ids=int64:1x77:0..999, a list [...] of several, or a file."
        )
