"""Entries of many blocks under one name where they are equal, and by themselves again."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TypeVar

from .errors import UsageError

V = TypeVar("V")

_NUMBER = re.compile(r"(?<![^.])(?:0|[1-9][0-9]*)(?=[. ]|$)")
"""A number that is a whole component of a dotted path."""

_FOLDED = re.compile(r"\{([0-9]+(?:-[0-9]+)?(?:,[0-9]+(?:-[0-9]+)?)*)\}")


def fold(entries: Mapping[str, V]) -> dict[str, V]:
    """Entries with equal values whose names differ in one number, as one.

    ``blocks.0.proj`` and ``blocks.2.proj`` become ``blocks.{0,2}.proj``, three in a row
    ``blocks.{0-2}.proj``: so that a file of many blocks is short, and a difference is seen. Of the
    numbers in a name it is the one, first, second or third, that leaves the fewest entries.
    """
    tried = [_folded_at(entries, position) for position in range(3)]
    return min(tried, key=len)


def _folded_at(entries: Mapping[str, V], position: int) -> dict[str, V]:
    groups: dict[tuple[str, str, str], tuple[list[int], V]] = {}
    for name, value in entries.items():
        numbers = list(_NUMBER.finditer(name))
        if len(numbers) <= position:
            groups[name, "", ""] = ([], value)
            continue
        match = numbers[position]
        where = (name[: match.start()], name[match.end() :], repr(value))
        groups.setdefault(where, ([], value))[0].append(int(match[0]))
    return {
        f"{before}{_written(numbers)}{after}": value
        for (before, after, _), (numbers, value) in groups.items()
    }


def _written(numbers: list[int]) -> str:
    """``[0, 1, 2, 5]`` -> ``{0-2,5}``."""
    if len(numbers) < 2:
        return "".join(map(str, numbers))
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    words = [",".join(map(str, run)) if len(run) < 3 else f"{run[0]}-{run[-1]}" for run in runs]
    return f"{{{','.join(words)}}}"


MOST = 100_000
"""Entries that one name may stand for."""


def unfold(entries: Mapping[str, V]) -> dict[str, V]:
    """Every entry by itself again.

    Raises:
        UsageError: numbers are not written as `fold` does, or two names stand for one entry.
    """
    found: dict[str, V] = {}
    for name, value in entries.items():
        match = _FOLDED.search(name)
        if match is None:
            names = [name]
        else:
            before, after = name[: match.start()], name[match.end() :]
            names = [f"{before}{number}{after}" for number in _numbers(match[1], name)]
        for each in names:
            if each in found:
                raise UsageError(f"{name}: {each} stands there twice.")
            found[each] = value
    return found


def _numbers(text: str, name: str) -> list[int]:
    found: list[int] = []
    for word in text.split(","):
        first, _, last = word.partition("-")
        start, stop = int(first[:18]), int((last or first)[:18]) + 1
        if stop <= start or (found and start <= found[-1]):
            raise UsageError(f"{name}: the numbers in braces do not ascend.")
        if len(found) + stop - start > MOST:
            raise UsageError(f"{name}: stands for more than {MOST} entries.")
        found += range(start, stop)
    return found
