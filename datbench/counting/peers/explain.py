"""The difference between another counter's figure and our multiply-adds, as terms found by search.

Modules of one class are rows of one system: what the counter gives a module more than we do, and
what ran in it. A class that has no exact explanation is looked at again together with what it is
called from, up to the whole model; what is left is named, not hidden.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from importlib import metadata
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook
from torch.utils._pytree import tree_leaves

from ...models.declared import Declaration, observing
from ...models.resolve import Spec
from ...process import ask
from ...run import as_written, unchanged
from ...setting import MULTIPLY_ADDS, Kind, Setting
from ..conventions import CONVENTIONS, Convention
from ..count import Count, below_autograd, count_anywhere
from ..recorder import ModuleTracker, OperatorCall, Recorder
from ..records import Chain, ExplainRow, PeerRow, PeerTerm, Term
from .adapters import PEERS, Amount, Peer, PeerAnswer, PeerJob, Tally
from .solve import Row, Solution, solve

# What our own count saw in each module, as columns of amounts by operator and kind of work.
#
# Inside a declared operator (see `datbench.models.declared`) other counters see what really runs:
# here both are recorded, the declared cost and, marked, what ran inside.


SIZES = ("parameters", "parameters x items", "parameters x positions", "rows")
"""Kinds of columns that are no operator's work: some counters go by sizes alone. A module's own
parameters; as often as its output is long in the first dimension; as often as its output has
positions, were its second dimension the channels; and the rows of its output, along the last.
"""

_PRODUCTS = frozenset(map(str, MULTIPLY_ADDS))


@dataclass(frozen=True, order=True)
class Column:
    """Something that a counter may give a weight to.

    Args:
        operator: its name; empty for those of `SIZES`.
        kind: a kind of work, or one of `SIZES`.
        inside: the declared operator inside which it ran; empty elsewhere.
        turn: for one of several calls in a module, which, from 1; 0 for all of them.
    """

    operator: str
    kind: str
    inside: str = ""
    turn: int = 0

    @property
    def counts(self) -> bool:
        """Whether our multiply-adds hold it: a product, and not inside a declared operator."""
        return self.kind in _PRODUCTS and not self.inside


@dataclass(frozen=True)
class Observed:
    """A module and what ran in it, its children left out."""

    path: str
    type: str
    amounts: Mapping[Column, int]
    calls: Mapping[Column, int]

    @property
    def multiply_adds(self) -> int:
        """Ours: what a difference is taken from."""
        return sum(amount for column, amount in self.amounts.items() if column.counts)


class _Open(Recorder):
    """Records declared operators, and what runs inside them too."""

    def __init__(self, tracker: ModuleTracker) -> None:
        super().__init__(tracker)
        self.inside: list[tuple[OperatorCall, str]] = []
        self._names: list[str] = []

    def enter(self, declaration: Declaration) -> None:
        """Take the declared cost, once for the outermost."""
        if not self._names:
            self._record_declared(declaration, *self.tracker.current, times=1)
        self._names.append(declaration.operator)

    def exit(self) -> None:
        """The declared operator has ended."""
        self._names.pop()

    def _call(self, *args: Any, **kwargs: Any) -> OperatorCall:
        call = super()._call(*args, **kwargs)
        if not self._names:
            return call
        self.inside.append((call, self._names[0]))
        return replace(call, status="free", cost={})


def observe(model: nn.Module, x: Tensor) -> tuple[Observed, ...]:
    """Run the model once, and say for every module what ran in it."""
    with ModuleTracker(model) as tracker, unchanged(model), as_written(), _Outputs() as outputs:
        recorder = _Open(tracker)
        with observing(recorder), torch.no_grad(), below_autograd(), recorder:
            model(x)
    amounts: dict[str, dict[Column, int]] = {}
    turns: dict[str, dict[Column, int]] = {}
    for call, inside in [(call, "") for call in recorder.calls] + recorder.inside:
        for kind, amount in call.cost.items():
            column = Column(call.operator, str(kind), inside)
            here, apart = amounts.setdefault(call.module, {}), turns.setdefault(call.module, {})
            turn = 1 + sum(replace(known, turn=0) == column for known in apart)
            apart[replace(column, turn=turn)] = amount
            here[column] = here.get(column, 0) + amount
    return tuple(
        Observed(
            path,
            type(module).__qualname__,
            amounts.pop(path, {}) | _sizes(module, outputs.shapes.get(id(module), [])),
            turns.pop(path, {}),
        )
        for path, module in _named(model)
    )


def _named(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Modules by the paths of `ModuleTracker`, which leaves `_orig_mod` out."""
    for path, module in model.named_modules():
        yield ".".join(part for part in path.split(".") if part != "_orig_mod"), module


class _Outputs:
    """The shapes of what modules return, a list for each by identity."""

    def __init__(self) -> None:
        self.shapes: dict[int, list[torch.Size]] = {}

    def __enter__(self) -> _Outputs:
        self._handle = register_module_forward_hook(self._see)
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._handle.remove()

    def _see(self, module: nn.Module, inputs: Any, output: Any) -> None:
        first = next((leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor)), None)
        if first is not None:
            self.shapes.setdefault(id(module), []).append(first.shape)


def _sizes(module: nn.Module, outputs: list[torch.Size]) -> dict[Column, int]:
    """The columns of `SIZES`; a module that did not run has none."""
    own = sum(p.numel() for p in module.parameters(recurse=False))
    values = (
        own * len(outputs),
        own * sum(shape[0] for shape in outputs if shape),
        own * sum(shape.numel() // shape[1] for shape in outputs if len(shape) > 1 and shape[1]),
        sum(shape.numel() // shape[-1] for shape in outputs if shape and shape[-1]),
    )
    return {Column("", kind): value for kind, value in zip(SIZES, values, strict=True) if value}


# How one convention's figure is reached from another's: a sum of named terms, in integers.


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
    several = _with_several_kinds(count)
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


def _with_several_kinds(count: Count) -> set[str]:
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


# Counters, each in a process of its own.


WORKER = "datbench.counting.peers.adapters:work"

TIMEOUT = 300.0
"""Seconds that one counter may take, unless told."""

LONGEST = 200
"""Characters of a reason that are shown."""


def peer_row(
    peer: Peer,
    model: str,
    setting: Setting,
    observed: Sequence[Observed],
    timeout: float = TIMEOUT,
) -> PeerRow:
    """Run one counter and explain what it said. What goes wrong is a reason, not an error."""
    version = _version(peer)
    if not _importable(peer.module):
        return _without(peer, version, f"not installed; pip install {peer.package}")
    plain = Setting(
        setting.resolution, device="cpu", attention=setting.attention, features=setting.features
    )
    reply = ask(WORKER, PeerJob(peer.name, model, plain), PeerAnswer, timeout)
    if reply.answer is None:
        ending = reply.ending
        late = f"did not finish in {timeout:g} s (--timeout)"
        said = late if ending is None or ending.code is None else str(ending)
        return _without(peer, version, said[:LONGEST])
    found = reply.answer.count
    if found is None:
        return _without(peer, version, (reply.answer.reason or "")[:LONGEST])
    tally = Tally(found.total, found.modules)
    ours = sum(module.multiply_adds for module in observed)
    theirs = macs(tally.total, peer.unit)
    return PeerRow(
        name=peer.name,
        version=found.version,
        unit=peer.unit,
        amount=tally.total,
        macs=number(theirs),
        difference=number(theirs - ours),
        seconds=found.seconds,
        peak_bytes=found.peak_bytes,
        extra_bytes=found.extra_bytes,
        terms=explain(observed, tally, peer.unit),
        reason=None,
    )


def peer_rows(
    model: str,
    setting: Setting,
    observed: Sequence[Observed],
    timeout: float = TIMEOUT,
    shown: Callable[[Sequence[Peer]], Iterable[Peer]] = iter,
) -> tuple[PeerRow, ...]:
    """Every counter in turn; `shown` may draw a progress bar."""
    return tuple(
        peer_row(peer, model, setting, observed, timeout) for peer in shown(list(PEERS.values()))
    )


def _version(peer: Peer) -> str | None:
    try:
        return metadata.version(peer.package)
    except metadata.PackageNotFoundError:
        return None


def _importable(module: str) -> bool:
    """Whether it is there; nothing of it is run."""
    return find_spec(module.partition(".")[0]) is not None


def _without(peer: Peer, version: str | None, reason: str) -> PeerRow:
    return PeerRow(peer.name, version, peer.unit, *(None,) * 7, reason=reason)


# A count, its conventions reconciled, and what other counters say of the same model.


Shown = Callable[[Sequence[Peer]], Iterable[Peer]]


def explain_row(
    spec: Spec, setting: Setting, timeout: float | None = None, shown: Shown = iter
) -> ExplainRow:
    """Build and count on the setting's device, and reconcile.

    Args:
        timeout: seconds for each of the other counters; they are not run without.
        shown: what the other counters are gone through with, such as a progress bar.

    Raises:
        MeasurementError: the model does not run with this setting.
    """
    module, count = count_anywhere(spec, setting)
    peers: tuple[PeerRow, ...] | None = None
    if timeout is not None:
        resolution = setting.resolution
        image = torch.zeros(1, 3, resolution.height, resolution.width, device=setting.device)
        peers = peer_rows(spec.name, setting, observe(module, image), timeout, shown)
    return ExplainRow(
        model=spec.name,
        setting=setting,
        macs=count.multiply_adds(),
        chains=reconcile(count),
        unknown={g.key: g.calls for g in count.with_status("unknown", CONVENTIONS["fvcore"])},
        peers=peers,
    )
