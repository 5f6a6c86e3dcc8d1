"""A model's modules as an icicle: every module's share of the whole, below the module it is in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

DEPTH = 5
"""Names of a path that are drawn."""

SMALLEST = 0.0015
"""Share below which a module is drawn together with its equally small neighbours."""

WHOLE = "(model)"


@dataclass(frozen=True)
class Rect:
    """One module: from `start` to `end` of the whole, 0 to 1, at `level` below the model.

    Args:
        branch: the module of the first level that it is in.
        amount: of the module and everything in it.
    """

    name: str
    path: str
    branch: str
    level: int
    start: float
    end: float
    amount: float


@dataclass
class _Node:
    amount: float = 0.0
    children: dict[str, _Node] = field(default_factory=dict)

    @property
    def whole(self) -> float:
        return self.amount + sum(child.whole for child in self.children.values())


def partition(amounts: Mapping[str, float], depth: int = DEPTH) -> list[Rect]:
    """Rectangles from what each module does itself, by its path.

    ``stages.0`` is one step: a number stands with the list that it counts.
    """
    root = _Node()
    for path, amount in amounts.items():
        node = root
        for name in _steps(path)[:depth]:
            node = node.children.setdefault(name, _Node())
        node.amount += amount
    total = root.whole
    if total <= 0:
        return []
    rects = [Rect(WHOLE, WHOLE, WHOLE, 0, 0.0, 1.0, total)]
    _below(root, "", "", 1, 0.0, total, rects)
    return rects


def _steps(path: str) -> list[str]:
    steps: list[str] = []
    for name in path.split(".") if path != WHOLE else []:
        if name.isdecimal() and steps:
            steps[-1] += f".{name}"
        else:
            steps.append(name)
    return steps


def _below(
    node: _Node, path: str, branch: str, level: int, start: float, total: float, rects: list[Rect]
) -> None:
    small: list[str] = []
    left = 0.0
    for name, child in node.children.items():
        share = child.whole / total
        if share < SMALLEST:
            small.append(name)
            left += child.whole
            continue
        below = f"{path}.{name}".lstrip(".")
        rects.append(Rect(name, below, branch or name, level, start, start + share, child.whole))
        _below(child, below, branch or name, level + 1, start, total, rects)
        start += share
    if left / total >= SMALLEST:
        name = f"{len(small)} small modules"
        below = f"{path or WHOLE}: {', '.join(small)}"
        rects.append(Rect(name, below, branch or name, level, start, start + left / total, left))
