"""The difference between another counter's figure and our multiply-adds, as terms found by search.

Modules of one class are rows of one system: what the counter gives a module more than we do, and
what ran in it. A class that has no exact explanation is looked at again together with what it is
called from, up to the whole model; what is left is named, not hidden.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction

from ...results import PeerTerm
from ...types import Kind
from ..reconcile import label
from .adapters import Amount, Tally
from .columns import SIZES, Column, Observed
from .solve import Row, Solution, solve

OUTSIDE = "(no module)"
"""What a counter counted without saying where."""


@dataclass
class _Part:
    """A module, or several merged into the one that they are called from."""

    path: str
    type: str
    target: Fraction
    amounts: dict[Column, int]
    calls: dict[Column, int]
    left: dict[str, Fraction] = field(default_factory=dict)  # of the target, by class


@dataclass(frozen=True)
class _Found:
    """A column with the weight that modules of one class have for it."""

    column: Column
    weight: Fraction
    type: str
    below: bool
    amount: int
    others: tuple[Column, ...]


def explain(observed: Sequence[Observed], tally: Tally, unit: str) -> tuple[PeerTerm, ...] | None:
    """Terms that add up to the counter's figure, in MACs, less our multiply-adds.

    Args:
        observed: what our own count saw.
        tally: what the counter said; FLOPs are halved.

    Returns:
        None where the counter attributes nothing to modules.
    """
    if tally.modules is None:
        return None
    per_mac = 2 if unit == "FLOP" else 1
    parts = _parts(observed, tally.modules, per_mac)
    outside = macs(tally.total, unit) - sum(
        part.target + module.multiply_adds for part, module in zip(parts, observed, strict=True)
    )
    found: list[_Found] = []
    pending = _solve_classes(parts, found)
    if outside:
        pending.append(_Part("", OUTSIDE, outside, {}, {}, {OUTSIDE: outside}))
    left = _solve_above(pending, {part.path: part for part in parts}, found)
    return tuple(_merged(found, observed) + _unexplained(left))


def macs(amount: Amount, unit: str) -> Fraction:
    """A counter's figure in MACs: one MAC is two FLOPs."""
    return Fraction(amount) / (2 if unit == "FLOP" else 1)


def number(value: Fraction) -> Amount:
    """As an integer where it is one."""
    return int(value) if value.denominator == 1 else float(value)


def _parts(observed: Sequence[Observed], theirs: Mapping[str, Amount], per_mac: int) -> list[_Part]:
    return [
        _Part(
            module.path,
            module.type,
            Fraction(theirs.get(module.path, 0)) / per_mac - module.multiply_adds,
            dict(module.amounts),
            dict(module.calls),
        )
        for module in observed
    ]


def _solve_classes(parts: Sequence[_Part], found: list[_Found]) -> list[_Part]:
    """Explain class by class; returns the modules of classes without an explanation."""
    pending: list[_Part] = []
    for name, rows in _by_type(parts).items():
        if _explained(name, rows, found, below=False) or _explained_by_call(name, rows, found):
            continue
        for row in rows:
            row.left = {name: row.target}
        pending += rows
    return pending


def _explained(name: str, rows: Sequence[_Part], found: list[_Found], below: bool) -> bool:
    order = _order(column for row in rows for column in row.amounts)
    solution = solve(
        [Row(row.amounts, row.target) for row in rows], order, _is_size, guess=not below
    )
    if solution is None:
        return False
    found += _of(solution, name, below, [row.amounts for row in rows])
    return True


def _explained_by_call(name: str, rows: Sequence[_Part], found: list[_Found]) -> bool:
    """The same with the calls of one operator apart: a counter may see one product of two."""
    order = _order(column for row in rows for column in row.calls)
    if len(order) > 60:
        return False
    solution = solve([Row(row.calls, row.target) for row in rows], order, _is_size, guess=False)
    if solution is None:
        return False
    found += _of(solution, name, False, [row.calls for row in rows])
    return True


def _of(
    solution: Solution[Column], name: str, below: bool, amounts: Sequence[Mapping[Column, int]]
) -> list[_Found]:
    return [
        _Found(
            column,
            weight,
            name,
            below,
            sum(row.get(column, 0) for row in amounts),
            solution.others.get(column, ()),
        )
        for column, weight in solution.weights.items()
    ]


def _solve_above(
    pending: list[_Part], modules: Mapping[str, _Part], found: list[_Found]
) -> dict[str, Fraction]:
    """Merge what is unexplained into the modules above, level by level, and try again."""
    while pending and any(part.path for part in pending):
        deepest = max(part.path.count(".") if part.path else -1 for part in pending)
        staying = [p for p in pending if not p.path or p.path.count(".") < deepest]
        rising = [p for p in pending if p.path and p.path.count(".") == deepest]
        merged: dict[str, _Part] = {}
        for part in rising:
            above = part.path.rpartition(".")[0]
            if above not in merged:
                merged[above] = _start(above, staying, modules)
            _merge(merged[above], part)
        for name, rows in _by_type(merged.values()).items():
            if not _explained(name, rows, found, below=True):
                staying += rows
        pending = staying
    left: dict[str, Fraction] = defaultdict(Fraction)
    if len(pending) > 1:  # the whole model, and what belongs to no module
        whole = replace(pending[0], left=dict(pending[0].left))
        for part in pending[1:]:
            _merge(whole, part)
        if _explained(modules[""].type, [whole], found, below=True):
            return {}
    for part in pending:
        for name, share in part.left.items():
            left[name] += share
    return left


def _start(path: str, staying: list[_Part], modules: Mapping[str, _Part]) -> _Part:
    """The module above: pending itself, or explained already."""
    own = next((part for part in staying if part.path == path and part.type != OUTSIDE), None)
    if own is not None:
        staying.remove(own)
        return replace(own, amounts=dict(own.amounts), left=dict(own.left))
    known = modules[path]
    return _Part(path, known.type, Fraction(0), dict(known.amounts), {})


def _merge(into: _Part, part: _Part) -> None:
    into.target += part.target
    for column, amount in part.amounts.items():
        into.amounts[column] = into.amounts.get(column, 0) + amount
    for name, share in part.left.items():
        into.left[name] = into.left.get(name, Fraction(0)) + share


def _by_type(parts: Iterable[_Part]) -> dict[str, list[_Part]]:
    found: dict[str, list[_Part]] = {}
    for part in parts:
        found.setdefault(part.type, []).append(part)
    return found


def _is_size(column: Column) -> bool:
    return column.kind in SIZES


def _order(columns: Iterable[Column]) -> list[Column]:
    """Products first, then other work, then what runs inside a declared operator, then sizes."""
    return sorted(
        dict.fromkeys(columns),
        key=lambda c: (_is_size(c), bool(c.inside), not c.counts, c),
    )


def _merged(found: Sequence[_Found], observed: Sequence[Observed]) -> list[PeerTerm]:
    """One term for a column and weight, over all classes; the largest first."""
    several = _several_kinds(observed)
    holders: dict[Column, set[str]] = {}
    for module in observed:
        for column in (*module.amounts, *module.calls):
            holders.setdefault(column, set()).add(module.type)
    groups: dict[tuple[Column, Fraction, bool], list[_Found]] = {}
    for item in found:
        groups.setdefault((item.column, item.weight, item.below), []).append(item)
    terms: list[PeerTerm] = []
    for (column, weight, below), items in groups.items():
        types = {item.type for item in items}
        held = sum(item.amount for item in items)
        everywhere = not below and types == holders[column]
        terms.append(
            PeerTerm(
                label=_label(column, several),
                kind=column.kind,
                modules=() if everywhere else tuple(sorted(types)),
                below=below,
                amount=held,
                each=number(weight),
                difference=number(weight * held),
                others=tuple(
                    dict.fromkeys(_label(other, several) for item in items for other in item.others)
                ),
            )
        )
    return sorted(terms, key=lambda term: -abs(term.difference))


def _several_kinds(observed: Sequence[Observed]) -> set[str]:
    kinds: dict[str, set[str]] = {}
    for module in observed:
        for column in module.amounts:
            kinds.setdefault(column.operator, set()).add(column.kind)
    return {operator for operator, found in kinds.items() if len(found) > 1}


def _label(column: Column, several: set[str]) -> str:
    if column.kind in SIZES:
        return column.kind
    kind = Kind(column.kind) if column.operator in several else None
    text = label(column.operator, kind)
    if column.turn:
        text += f" no. {column.turn}"
    return f"{text} inside {label(column.inside)}" if column.inside else text


def _unexplained(left: Mapping[str, Fraction]) -> list[PeerTerm]:
    terms = [
        PeerTerm("unexplained", None, (name,), False, None, None, number(amount), ())
        for name, amount in left.items()
        if amount
    ]
    return sorted(terms, key=lambda term: -abs(term.difference))
