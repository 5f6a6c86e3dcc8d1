"""The difference between another counter's figure and our multiply-adds, as terms found by search.

Modules of one class are rows of one system: what the counter gives a module more than we do, and
what ran in it. A class that has no exact explanation is looked at again together with what it is
called from, up to the whole model; what is left is named, not hidden.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
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
from ...run import as_built, as_written, make_inputs, unchanged
from ...setting import MULTIPLY_ADDS, Kind, Setting
from ..conventions import CONVENTIONS, Convention
from ..count import Count, count_anywhere
from ..recorder import ModuleTracker, OperatorCall, Recorder, below_autograd
from ..records import Chain, ChainTerm, ExplainRow, PeerRow, PeerTerm
from .adapters import PEERS, Amount, Peer, PeerAnswer, PeerJob, Tally
from .solve import EquationRow, solve

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
class Quantity:
    """Something that a counter may give a weight to."""

    operator: str  # empty for those of `SIZES`
    kind: str  # of work, or one of `SIZES`
    inside: str = ""  # the declared operator inside which it ran; empty elsewhere
    turn: int = 0  # of one of several calls in a module: which, from 1; 0 for all of them

    @property
    def counts(self) -> bool:
        """Whether our multiply-adds hold it: a product, and not inside a declared operator."""
        return self.kind in _PRODUCTS and not self.inside


@dataclass(frozen=True)
class ObservedModule:
    """A module and what ran in it, its children left out."""

    path: str
    type: str
    amounts: Mapping[Quantity, int]
    calls: Mapping[Quantity, int]

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
            self._record_declared(declaration, *self.tracker.current)
        self._names.append(declaration.operator)

    def exit(self) -> None:
        """The declared operator has ended."""
        self._names.pop()

    def _call(self, *args: Any, **kwargs: Any) -> OperatorCall:
        call = super()._call(*args, **kwargs)
        if not self._names:
            return call
        self.inside.append((call, self._names[0]))
        return call._replace(status="free", cost={})


def observe(model: nn.Module, *inputs: Any, **named: Any) -> tuple[ObservedModule, ...]:
    """Run the model once on these inputs, and say for every module what ran in it."""
    shapes: dict[int, list[torch.Size]] = defaultdict(list)  # of what modules return, by identity

    def see(module: nn.Module, inputs: Any, output: Any) -> None:
        shapes[id(module)] += [t.shape for t in tree_leaves(output) if isinstance(t, Tensor)][:1]

    watching = register_module_forward_hook(see)
    with watching, ModuleTracker(model) as tracker, unchanged(model), as_written():
        recorder = _Open(tracker)
        with observing(recorder), torch.no_grad(), below_autograd(), recorder:
            model(*inputs, **named)
    amounts: dict[str, dict[Quantity, int]] = defaultdict(dict)
    turns: dict[str, dict[Quantity, int]] = defaultdict(dict)
    for call, inside in [(call, "") for call in recorder.calls] + recorder.inside:
        here, apart = amounts[call.module], turns[call.module]
        for kind, amount in call.cost.items():
            quantity = Quantity(call.operator, str(kind), inside)
            turn = 1 + sum(replace(known, turn=0) == quantity for known in apart)
            apart[replace(quantity, turn=turn)] = amount
            here[quantity] = here.get(quantity, 0) + amount
    found = []
    for module in model.modules():
        path = tracker.paths[id(module)]
        own = amounts.pop(path, {}) | _sizes(module, shapes[id(module)])
        name = type(module).__qualname__
        found.append(ObservedModule(path, name, own, turns.pop(path, {})))
    return tuple(found)


def _sizes(module: nn.Module, outputs: list[torch.Size]) -> dict[Quantity, int]:
    """The columns of `SIZES`; a module that did not run has none."""
    own = sum(p.numel() for p in module.parameters(recurse=False))
    values = (
        own * len(outputs),
        own * sum(shape[0] for shape in outputs if shape),
        own * sum(shape.numel() // shape[1] for shape in outputs if len(shape) > 1 and shape[1]),
        sum(shape.numel() // shape[-1] for shape in outputs if shape and shape[-1]),
    )
    return {Quantity("", kind): value for kind, value in zip(SIZES, values, strict=True) if value}


# How one convention's figure is reached from another's: a sum of named terms, in integers.


PRODUCTS = Convention("torch/2", "MAC", "multiply-adds alone", dict.fromkeys(MULTIPLY_ADDS, 1))
"""What torch's counter says, in MACs: the multiply-adds and nothing else."""

TWICE = replace(CONVENTIONS["torch"], name="2 x MACs")
"""The same in FLOPs, which is what torch's counter prints."""


def reconcile(count: Count) -> tuple[Chain, ...]:
    """torch/2 to fvcore, fvcore to mmdet (both in MACs), and twice the MACs to strict (FLOPs)."""
    fvcore, mmdet, strict = (CONVENTIONS[name] for name in ("fvcore", "mmdet", "strict"))
    steps = ((PRODUCTS, fvcore), (fvcore, mmdet), (TWICE, strict))
    return tuple(chain(count, start, end) for start, end in steps)


def chain(count: Count, start: Convention, end: Convention) -> Chain:
    """The difference of two weightings of one count, by operator and kind of work."""
    total = reached = 0
    # Of each work: for each call, the difference of the weights, and the amount.
    works: dict[tuple[str, Kind], list[tuple[int, int]]] = defaultdict(list)
    for call in count.calls:
        for kind, amount in call.cost.items():
            before, after = (c.weigh({kind: 1}, call.module_type) for c in (start, end))
            total += before * amount
            reached += after * amount
            if amount:
                works[call.operator, kind].append((after - before, amount))
    several = _several_kinds(works)
    terms = []
    for (operator, kind), found in works.items():
        changed = [(each, amount) for each, amount in found if each]
        weights = {each for each, _ in changed}
        if changed:
            terms.append(
                ChainTerm(
                    label=label(operator, kind if operator in several else None),
                    operator=operator,
                    kind=str(kind),
                    calls=len(changed),
                    amount=sum(amount for _, amount in changed),
                    each=weights.pop() if len(weights) == 1 else None,
                    difference=sum(each * amount for each, amount in changed),
                )
            )
    terms.sort(key=lambda term: -abs(term.difference))
    return Chain(start.name, end.name, end.unit, total, reached, tuple(terms))


def _several_kinds(work: Iterable[tuple[str, str]]) -> set[str]:
    """Operators that do several kinds of work: their name alone would not say which."""
    kinds: dict[str, set[str]] = defaultdict(set)
    for operator, kind in work:
        kinds[operator].add(kind)
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
    amounts: Counter[Quantity]
    calls: Mapping[Quantity, int]
    left: dict[str, Fraction] = field(default_factory=dict)  # of the target, by class


@dataclass(frozen=True)
class _Weight:
    """What the modules of one class have of a quantity, and its weight there."""

    quantity: Quantity
    weight: Fraction
    type: str
    below: bool
    amount: int
    others: tuple[Quantity, ...]


def explain(
    observed: Sequence[ObservedModule], tally: Tally, unit: str
) -> tuple[PeerTerm, ...] | None:
    """Terms that add up to the counter's figure, in MACs, less our multiply-adds.

    Args:
        observed: what our own count saw.
        tally: what the counter said; FLOPs are halved.

    Returns:
        None where the counter attributes nothing to modules.
    """
    if tally.modules is None:
        return None
    theirs = [macs(tally.modules.get(module.path, 0), unit) for module in observed]
    parts = [
        _Part(m.path, m.type, amount - m.multiply_adds, Counter(m.amounts), m.calls)
        for m, amount in zip(observed, theirs, strict=True)
    ]
    outside = macs(tally.total, unit) - sum(theirs)
    found: list[_Weight] = []
    pending = _solve_classes(parts, found)
    if outside:
        pending.append(_Part("", OUTSIDE, outside, Counter(), {}, {OUTSIDE: outside}))
    left = _solve_above(pending, {part.path: part for part in parts}, found)
    unexplained = [
        PeerTerm("unexplained", None, (name,), False, None, None, number(amount), ())
        for name, amount in left.items()
        if amount
    ]
    terms = (_merged(found, observed), unexplained)
    return tuple(term for each in terms for term in sorted(each, key=lambda t: -abs(t.difference)))


def macs(amount: Amount, unit: str) -> Fraction:
    """A counter's figure in MACs: one MAC is two FLOPs."""
    return Fraction(amount) / (2 if unit == "FLOP" else 1)


def number(value: Fraction) -> Amount:
    """As an integer where it is one."""
    return int(value) if value.denominator == 1 else float(value)


def _solve_classes(parts: Sequence[_Part], found: list[_Weight]) -> list[_Part]:
    """Explain class by class; returns the modules of classes without an explanation."""
    pending: list[_Part] = []
    for name, rows in _by_type(parts).items():
        # A counter may see one product of two: then the calls of one operator are told apart.
        if _explained(name, rows, found) or _explained(name, rows, found, by_call=True):
            continue
        for row in rows:
            row.left = {name: row.target}
        pending += rows
    return pending


def _explained(
    name: str,
    rows: Sequence[_Part],
    found: list[_Weight],
    below: bool = False,
    by_call: bool = False,
) -> bool:
    """Add the weights that explain these modules to `found`, if there are any."""
    amounts = [row.calls if by_call else row.amounts for row in rows]
    # Products first, then other work, then what runs inside a declared operator, then sizes.
    order = sorted(
        {quantity for each in amounts for quantity in each},
        key=lambda q: (_is_size(q), bool(q.inside), not q.counts, q),
    )
    if by_call and len(order) > 60:
        return False
    equations = [EquationRow(each, row.target) for each, row in zip(amounts, rows, strict=True)]
    solution = solve(equations, order, _is_size, guess=not below and not by_call)
    if solution is None:
        return False
    found += [
        _Weight(
            quantity,
            weight,
            name,
            below,
            sum(each.get(quantity, 0) for each in amounts),
            solution.others.get(quantity, ()),
        )
        for quantity, weight in solution.weights.items()
    ]
    return True


def _solve_above(
    pending: list[_Part], modules: Mapping[str, _Part], found: list[_Weight]
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
    if not pending:
        return {}
    whole = replace(pending[0], left=dict(pending[0].left))
    for part in pending[1:]:  # the whole model, and what belongs to no module
        _merge(whole, part)
    if len(pending) > 1 and _explained(modules[""].type, [whole], found, below=True):
        return {}
    return whole.left


def _start(path: str, staying: list[_Part], modules: Mapping[str, _Part]) -> _Part:
    """The module above: pending itself, or explained already."""
    own = next((part for part in staying if part.path == path and part.type != OUTSIDE), None)
    if own is not None:
        staying.remove(own)
        return replace(own, amounts=Counter(own.amounts), left=dict(own.left))
    known = modules[path]
    return _Part(path, known.type, Fraction(0), Counter(known.amounts), {})


def _merge(into: _Part, part: _Part) -> None:
    into.target += part.target
    into.amounts.update(part.amounts)
    for name, share in part.left.items():
        into.left[name] = into.left.get(name, Fraction(0)) + share


def _by_type(parts: Iterable[_Part]) -> dict[str, list[_Part]]:
    found: dict[str, list[_Part]] = {}
    for part in parts:
        found.setdefault(part.type, []).append(part)
    return found


def _is_size(quantity: Quantity) -> bool:
    return quantity.kind in SIZES


def _merged(found: Sequence[_Weight], observed: Sequence[ObservedModule]) -> list[PeerTerm]:
    """One term for a quantity and weight, over all classes."""
    several = _several_kinds((q.operator, q.kind) for module in observed for q in module.amounts)
    holders: dict[Quantity, set[str]] = defaultdict(set)
    for module in observed:
        for quantity in (*module.amounts, *module.calls):
            holders[quantity].add(module.type)
    groups: dict[tuple[Quantity, Fraction, bool], list[_Weight]] = defaultdict(list)
    for item in found:
        groups[item.quantity, item.weight, item.below].append(item)
    terms: list[PeerTerm] = []
    for (quantity, weight, below), items in groups.items():
        types = {item.type for item in items}
        held = sum(item.amount for item in items)
        everywhere = not below and types == holders[quantity]
        others = [_label(other, several) for item in items for other in item.others]
        terms.append(
            PeerTerm(
                label=_label(quantity, several),
                kind=quantity.kind,
                modules=() if everywhere else tuple(sorted(types)),
                below=below,
                amount=held,
                each=number(weight),
                difference=number(weight * held),
                others=tuple(dict.fromkeys(others)),
            )
        )
    return terms


def _label(quantity: Quantity, several: set[str]) -> str:
    if quantity.kind in SIZES:
        return quantity.kind
    kind = Kind(quantity.kind) if quantity.operator in several else None
    text = label(quantity.operator, kind)
    if quantity.turn:
        text += f" no. {quantity.turn}"
    return f"{text} inside {label(quantity.inside)}" if quantity.inside else text


# Counters, each in a process of its own.


Shown = Callable[[Sequence[Peer]], Iterable[Peer]]
"""Goes through the counters; may draw a progress bar."""

WORKER = "datbench.counting.peers.adapters:work"

TIMEOUT = 300.0
"""Seconds that one counter may take, by default."""

LONGEST = 200
"""Characters of a reason that are shown."""


def peer_row(
    peer: Peer,
    model: str,
    setting: Setting,
    observed: Sequence[ObservedModule],
    timeout: float = TIMEOUT,
) -> PeerRow:
    """Run one counter and explain what it said. What goes wrong is a reason, not an error."""
    version = None
    with suppress(metadata.PackageNotFoundError):
        version = metadata.version(peer.package)
    if find_spec(peer.module.partition(".")[0]) is None:  # nothing of it is run
        return _without(peer, version, f"not installed; pip install {peer.package}")
    plain = replace(setting, device="cpu", backward=False)
    reply = ask(WORKER, PeerJob(peer.name, model, plain), PeerAnswer, timeout)
    if reply.answer is None:
        ending = reply.ending
        late = f"did not finish in {timeout:g} s (--timeout)"
        said = late if ending is None or ending.code is None else str(ending)
        return _without(peer, version, said[:LONGEST])
    answer, tally = reply.answer, reply.answer.tally
    if tally is None:
        return _without(peer, version, (answer.reason or "")[:LONGEST])
    ours = sum(module.multiply_adds for module in observed)
    theirs = macs(tally.total, peer.unit)
    return replace(
        _without(peer, answer.version, None),
        amount=tally.total,
        macs=number(theirs),
        difference=number(theirs - ours),
        seconds=answer.seconds,
        peak_bytes=answer.peak_bytes,
        extra_bytes=answer.extra_bytes,
        terms=explain(observed, tally, peer.unit),
    )


def peer_rows(
    model: str,
    setting: Setting,
    observed: Sequence[ObservedModule],
    timeout: float = TIMEOUT,
    shown: Shown = iter,
) -> tuple[PeerRow, ...]:
    """Every counter in turn; `shown` may draw a progress bar."""
    return tuple(
        peer_row(peer, model, setting, observed, timeout) for peer in shown(list(PEERS.values()))
    )


def _without(peer: Peer, version: str | None, reason: str | None) -> PeerRow:
    return PeerRow(peer.name, version, peer.unit, *(None,) * 7, reason=reason)


# A count, its conventions reconciled, and what other counters say of the same model.


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
    built, count = count_anywhere(spec, setting)
    setting = as_built(built.module, setting)
    peers: tuple[PeerRow, ...] | None = None
    if timeout is not None:
        given = make_inputs(setting, built.module)
        seen = observe(built.module, *given.args, **given.named)
        peers = peer_rows(spec.name, setting, seen, timeout, shown)
    return ExplainRow(
        model=spec.name,
        setting=setting,
        macs=count.multiply_adds(),
        chains=reconcile(count),
        unknown={g.key: g.calls for g in count.with_status("unknown", CONVENTIONS["fvcore"])},
        peers=peers,
    )
