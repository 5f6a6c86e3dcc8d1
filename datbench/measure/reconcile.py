"""How one convention's figure is reached from another's: a sum of named terms, in integers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from ..results import Chain, Term
from ..types import MULTIPLY_ADDS, Kind
from .conventions import CONVENTIONS, Convention
from .recorder import OperatorCall
from .views import Count

Weigh = Callable[[Kind, str], int]
"""The weight of a kind inside a module of some class."""

PRODUCTS = "torch/2"
"""What torch's counter says, in MACs: the multiply-adds and nothing else."""

TWICE = "2 x MACs"
"""The same in FLOPs, which is what torch's counter prints."""


def reconcile(count: Count) -> tuple[Chain, ...]:
    """torch/2 to fvcore, fvcore to mmdet (both in MACs), and twice the MACs to strict (FLOPs)."""
    products = _weigh(CONVENTIONS["torch"], halved=True)
    fvcore, mmdet, twice, strict = (
        _weigh(CONVENTIONS[name]) for name in ("fvcore", "mmdet", "torch", "strict")
    )
    return (
        chain(count, "MAC", (PRODUCTS, products), ("fvcore", fvcore)),
        chain(count, "MAC", ("fvcore", fvcore), ("mmdet", mmdet)),
        chain(count, "FLOP", (TWICE, twice), ("strict", strict)),
    )


def _weigh(convention: Convention, halved: bool = False) -> Weigh:
    """A convention's weights; `halved` turns a multiply-add that is two FLOPs into one MAC."""
    unit = 2 if halved else 1

    def weigh(kind: Kind, module_type: str) -> int:
        weight, rest = divmod(convention.weigh({kind: 1}, module_type), unit)
        assert not rest
        return weight

    return weigh


@dataclass
class _Sum:
    """A term in the making."""

    calls: int
    amount: int
    difference: int
    weights: set[int]


def chain(count: Count, unit: str, start: tuple[str, Weigh], end: tuple[str, Weigh]) -> Chain:
    """The difference of two weightings of one count, by operator and kind of work."""
    first, last = start[1], end[1]
    several = _several_kinds(count)
    sums: dict[tuple[str, Kind], _Sum] = {}
    total = reached = 0
    for call, kind, amount in _costs(count):
        before, after = first(kind, call.module_type), last(kind, call.module_type)
        total += before * amount
        reached += after * amount
        if before != after:
            term = sums.setdefault((call.operator, kind), _Sum(0, 0, 0, set()))
            term.calls += 1
            term.amount += amount
            term.difference += (after - before) * amount
            term.weights.add(after - before)
    terms = tuple(
        Term(
            label=label(operator, kind if operator in several else None),
            operator=operator,
            kind=str(kind),
            calls=term.calls,
            amount=term.amount,
            each=next(iter(term.weights)) if len(term.weights) == 1 else None,
            difference=term.difference,
        )
        for (operator, kind), term in sorted(
            sums.items(), key=lambda item: -abs(item[1].difference)
        )
    )
    return Chain(start[0], end[0], unit, total, reached, terms)


def _costs(count: Count) -> Iterator[tuple[OperatorCall, Kind, int]]:
    for call in count.calls:
        for kind, amount in call.cost.items():
            if amount:
                yield call, kind, amount


def _several_kinds(count: Count) -> set[str]:
    """Operators that do several kinds of work: their name alone would not say which."""
    kinds: dict[str, set[Kind]] = {}
    for call, kind, _ in _costs(count):
        kinds.setdefault(call.operator, set()).add(kind)
    return {operator for operator, found in kinds.items() if len(found) > 1}


def label(operator: str, kind: Kind | None = None) -> str:
    """``aten::conv2d`` and its bias -> ``conv2d bias``; of a product, the name alone.

    >>> label("aten::conv2d", Kind.CONV_BIAS), label("aten::linear", Kind.LINEAR)
    ('conv2d bias', 'linear')
    """
    name = operator.replace("aten::", "").replace("datbench::", "")
    if kind is None or kind in MULTIPLY_ADDS:
        return name
    if kind in (Kind.CONV_BIAS, Kind.LINEAR_BIAS):
        return f"{name} bias"
    return f"{name} {kind}"
