"""Whose time it is: the profiler's operators matched with the counter's.

The forward: both see the same operators in the same order, so that each call has its time, MACs
and bytes. The profiler's tree has wrappers besides (`reshape` around `view` or `clone`), which the
counter looks into: their own time is dispatch. Where the sequences differ, every operator goes by
its name and the module in whose range it ran.

The backward: autograd's nodes bear the number that the forward's operator gave them, which tells
the module; there, an operator goes by its name. Gradients' accumulation is a part of its own.
"""

from __future__ import annotations

import bisect
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import torch

from ...profiles import ProfilePhase
from ..recorder import OperatorCall
from .spans import DECLARED, MODULE, Run, Span

OPTIMIZER, GRADIENTS, AUTOGRAD = "(optimizer)", "(gradients)", "(autograd)"
"""In place of a module."""

NODE = "autograd::engine::evaluate_function: "
_ACCUMULATES = "AccumulateGrad"

# What the profiler calls an operator, and what a subclass of tensors is given in its place.
_ALIASES = {
    "aten::_reshape_alias": "aten::view",
    "aten::_unsafe_view": "aten::view",
    "aten::_index_put_impl": "aten::index_put",
    "detach": "aten::detach",
}

Key = tuple[ProfilePhase, str, str, tuple[tuple[int, ...], ...]]
"""Phase, module, operator, and shapes where calls are told apart by them."""


@dataclass(frozen=True)
class Placed:
    """Seconds of one operator's, and whether they are a call that the counter saw too."""

    key: Key
    seconds: float
    seen: bool


@dataclass
class Attributed:
    """One run's times by key.

    Args:
        matched: calls of the counter's forward that were there, in order; of `expected`.
        complete: whether all were; if not, the forward went by modules.
        unseen: operators that the counter did not see, by name.
    """

    matched: int
    expected: int
    complete: bool
    seconds: dict[Key, float] = field(default_factory=dict)
    calls: Counter[Key] = field(default_factory=Counter)
    unseen: Counter[str] = field(default_factory=Counter)

    def place(self, placed: Placed) -> None:
        """Add one operator's."""
        self.seconds[placed.key] = self.seconds.get(placed.key, 0.0) + placed.seconds
        self.calls[placed.key] += 1


def key_of(call: OperatorCall, by_shapes: bool) -> Key:
    """Under which key a counted call stands: an in-place operator under the plain one's."""
    phase: ProfilePhase = "step" if call.module == OPTIMIZER else call.phase
    return (phase, call.module, canonical(call.operator), call.shapes if by_shapes else ())


def attribute(
    run: Run,
    forward: Sequence[OperatorCall],
    backward: Sequence[OperatorCall],
    step: Collection[str],
) -> Attributed:
    """Every second of a run, by key.

    Args:
        forward, backward: what the counter saw.
        step: operators of the optimizer's step.
    """
    walk = _Forward(forward)
    for span in run.forward:
        walk.walk(span)
    found = Attributed(walk.at, len(walk.calls), walk.at == len(walk.calls))
    owners = walk.owners
    if found.complete:
        placed, found.unseen = walk.placed, walk.unseen
    else:
        ranges = _Ranges(forward)
        placed = [p for span in run.forward for p in ranges.placed(span, "")]
        found.unseen, owners = ranges.unseen, ranges.owners
    for one in (*placed, *_backward(run.backward, backward, owners)):
        found.place(one)
    for span in run.step:
        for one in _named(span, "step", OPTIMIZER, step):
            key: Key = one.key if one.seen else ("step", OPTIMIZER, OPTIMIZER, ())
            found.place(Placed(key, one.seconds, one.seen))
    return found


@dataclass(frozen=True)
class Owner:
    """Who made an autograd node: a module, and the declared operator if it was inside one."""

    module: str
    declared: str = ""


class _Forward:
    """The profiler's forward beside the counter's, call by call."""

    def __init__(self, calls: Sequence[OperatorCall]) -> None:
        self.calls = [call for call in calls if not _optional(call.operator)]
        self.names = [canonical(call.operator) for call in self.calls]
        self.at = 0
        self.placed: list[Placed] = []
        self.owners: dict[int, Owner] = {}
        self.unseen: Counter[str] = Counter()

    def walk(self, span: Span) -> None:
        """Place a span: the next call, a wrapper to look into, or neither."""
        name = canonical(span.name)
        if self.at < len(self.calls) and name == self.names[self.at]:
            call = self.calls[self.at]
            self.placed.append(Placed(key_of(call, by_shapes=True), span.whole, seen=True))
            self.at += 1
            inside = name if span.name.startswith(DECLARED) else ""
            _own(self.owners, span, Owner(call.module, inside))
            return
        module = self._module()
        self.owners[span.sequence] = Owner(module)
        wraps = _wraps(name)
        seconds = span.own if wraps else span.whole
        self.placed.append(Placed(("forward", module, name, ()), seconds, seen=False))
        if not wraps:
            self.unseen[name] += 1
            return
        for child in span.children:
            self.walk(child)

    def _module(self) -> str:
        """Of the call that comes next: what wraps it runs in the same module."""
        if not self.calls:
            return ""
        return self.calls[min(self.at, len(self.calls) - 1)].module


def _own(owners: dict[int, Owner], span: Span, owner: Owner) -> None:
    """Its number is the one that the next node gets: the last to have it made that node."""
    owners[span.sequence] = owner
    for child in span.children:
        _own(owners, child, owner)


class _Ranges:
    """The profiler's forward by the ranges of modules, and the names that the counter has there."""

    def __init__(self, calls: Sequence[OperatorCall]) -> None:
        self.known: dict[str, set[str]] = {}
        for call in calls:
            self.known.setdefault(call.module, set()).add(canonical(call.operator))
        self.owners: dict[int, Owner] = {}
        self.unseen: Counter[str] = Counter()

    def placed(self, span: Span, module: str) -> Iterator[Placed]:
        """Place a span and what is inside; a range's own time is Python's, between operators."""
        if span.name.startswith(MODULE):
            for child in span.children:
                yield from self.placed(child, span.name.removeprefix(MODULE))
            return
        name = canonical(span.name)
        if name in self.known.get(module, ()):
            inside = name if span.name.startswith(DECLARED) else ""
            _own(self.owners, span, Owner(module, inside))
            yield Placed(("forward", module, name, ()), span.whole, seen=True)
            return
        wraps = _wraps(name)
        self.owners[span.sequence] = Owner(module)
        yield Placed(("forward", module, name, ()), span.own if wraps else span.whole, seen=False)
        if not wraps:
            self.unseen[name] += 1
            return
        for child in span.children:
            yield from self.placed(child, module)


def _named(
    span: Span, phase: ProfilePhase, module: str, known: Collection[str]
) -> Iterator[Placed]:
    """A span under its own name if that is known or has nothing known inside; else looked into."""
    name = canonical(span.name)
    if name in known:
        yield Placed((phase, module, name, ()), span.whole, seen=True)
    elif not _holds(span, known):
        yield Placed((phase, module, name, ()), span.whole, seen=False)
    else:
        yield Placed((phase, module, name, ()), span.own, seen=False)
        for child in span.children:
            yield from _named(child, phase, module, known)


def _holds(span: Span, known: Collection[str]) -> bool:
    return any(canonical(c.name) in known or _holds(c, known) for c in span.children)


def _backward(
    spans: Sequence[Span], calls: Sequence[OperatorCall], owners: Mapping[int, Owner]
) -> Iterator[Placed]:
    known: dict[str, set[str]] = {}
    for call in calls:
        known.setdefault(call.module, set()).add(canonical(call.operator))
    numbers = sorted(owners)
    for span in spans:
        if _ACCUMULATES in span.name:
            yield Placed(("backward", GRADIENTS, _ACCUMULATES, ()), span.whole, seen=False)
            continue
        if not span.name.startswith(NODE):
            yield from _named(span, "backward", AUTOGRAD, known.get("", ()))
            continue
        # A node that no operator made (a custom Function) belongs where the one before it does.
        at = bisect.bisect_right(numbers, span.sequence) - 1
        owner = owners[numbers[at]] if numbers and at >= 0 else Owner(AUTOGRAD)
        if owner.declared:
            key: Key = ("backward", owner.module, owner.declared, ())
            yield Placed(key, span.whole, seen=True)
            continue
        for one in _named(span, "backward", owner.module, known.get(owner.module, ())):
            ours = one.seen or one.key[2].startswith("aten::")
            key = one.key if ours else ("backward", owner.module, AUTOGRAD, ())
            yield Placed(key, one.seconds, one.seen)


def canonical(name: str) -> str:
    """One name for what the counter and the profiler call differently, in place or not."""
    name = name.removeprefix(DECLARED)
    name = name if name.endswith("__") else name.removesuffix("_")
    return _ALIASES.get(name, name)


def _wraps(name: str) -> bool:
    """Whether what matters is inside."""
    return _optional(name) or not name.startswith("aten::") or is_composite(name)


def _optional(name: str) -> bool:
    """Operators that one of the two does not see where the other does; they move nothing."""
    return canonical(name) == "aten::detach"


@lru_cache(maxsize=4096)
def is_composite(name: str) -> bool:
    """Whether an operator is made of others that the counter sees in its place."""
    space, _, base = name.partition("::")
    packet: Any = getattr(getattr(torch.ops, space, None), base, None)
    overloads = packet.overloads() if hasattr(packet, "overloads") else ()
    names = [name if overload == "default" else f"{name}.{overload}" for overload in overloads]
    return any(map(_is_composite, names))


def _is_composite(overload: str) -> bool:
    try:
        found = torch._C._dispatch_has_kernel_for_dispatch_key(
            overload, "CompositeImplicitAutograd"
        )
    except RuntimeError:  # TorchScript's own overloads are not dispatched
        return False
    return bool(found)
