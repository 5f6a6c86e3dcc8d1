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
import re
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import torch
from torch import nn
from torch.autograd.profiler import profile, record_function
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

from ..counting.operators import overload_is_composite
from ..counting.recorder import OperatorCall
from ..models.declared import Declaration
from ..run import PHASES, quiet_kineto, synchronize
from .records import ProfilePhase

# Runs under torch's profiler, as trees of plain values.
#
# `kernels` of an event is read and not its `device_time` or `cuda_time`: it is called the same in
# every torch, and belongs to the operator that launched the kernel.


MARK = "datbench "
"""What the names of our own ranges begin with."""

RUN, FORWARD, STEP = (f"{MARK}{what}" for what in ("run", *PHASES))

DECLARED = f"{MARK}declared:"

MODULE = f"{MARK}module:"

_RUNTIME = re.compile("cu(da)?[A-Z]")
"""CUDA's own calls, such as ``cudaLaunchKernel``, which are not operators."""


@dataclass(frozen=True)
class Span:
    """An operator, an autograd node or a range, and what ran inside."""

    name: str
    start: float  # start, end: on the host's clock, in seconds
    end: float
    own: float  # seconds without the children's; on a GPU of the kernels that it launched itself
    sequence: int = -1  # of the autograd node that it makes or is; negative without
    children: tuple[Span, ...] = ()
    shapes: tuple[tuple[int, ...], ...] = ()  # of its tensors, where they were recorded

    @property
    def whole(self) -> float:
        """With the children's."""
        return self.own + sum(child.whole for child in self.children)


@dataclass(frozen=True)
class ProfiledRun:
    """One run: its forward, the optimizer's step, and the rest, which is the backward."""

    forward: tuple[Span, ...]
    backward: tuple[Span, ...]
    step: tuple[Span, ...]


def phase_range(phase: str) -> record_function:
    """A range around a part of an iteration, for `Runner.run`."""
    return record_function(f"{MARK}{phase}")


def profiled(
    run: Callable[[], object], device: torch.device, runs: int, shapes: bool = False
) -> tuple[list[ProfiledRun], list[float]]:
    """Runs under the profiler, and the seconds that each took with it.

    Args:
        run: opens the ranges `FORWARD` and `STEP` itself.
        shapes: record those of every operator's tensors.
    """
    gpu = device.type == "cuda"
    profiler = profile(use_device="cuda" if gpu else None, use_kineto=gpu, record_shapes=shapes)
    seconds = []
    with quiet_kineto(), profiler:
        for _ in range(runs):
            start = time.perf_counter()
            with record_function(RUN):
                run()
                synchronize(device)
            seconds.append(time.perf_counter() - start)
    return runs_of(spans_of(profiler.function_events or (), gpu)), seconds


def spans_of(events: Sequence[Any], gpu: bool) -> list[Span]:
    """The host's events that no other encloses, in order."""
    outermost = [
        event
        for event in events
        if event.device_type.name == "CPU"
        and event.cpu_parent is None
        and not event.is_async
        and not _RUNTIME.match(event.name)
    ]
    return sorted((_span(event, gpu) for event in outermost), key=lambda span: span.start)


def _span(event: Any, gpu: bool) -> Span:
    children = [child for child in event.cpu_children if not _RUNTIME.match(child.name)]
    children.sort(key=lambda child: child.time_range.start)
    if not gpu:
        own = event.self_cpu_time_total
    else:  # a range of ours has a counterpart on the GPU that is not a kernel
        own = 0.0 if event.name.startswith(MARK) else sum(k.duration for k in event.kernels)
    return Span(
        event.name,
        event.time_range.start / 1e6,
        event.time_range.end / 1e6,
        max(0.0, own) / 1e6,
        event.sequence_nr,
        tuple(_span(child, gpu) for child in children),
        tuple(tuple(shape) for shape in getattr(event, "input_shapes", None) or () if shape),
    )


def runs_of(spans: Sequence[Span]) -> list[ProfiledRun]:
    """The runs among the outermost spans; other threads' (autograd's) belong where they fall."""
    found = []
    for run in spans:
        if run.name != RUN:
            continue
        inside = [*run.children]
        inside += [s for s in spans if s is not run and run.start <= s.start < run.end]
        phases: dict[str, list[Span]] = {FORWARD: [], STEP: [], "": []}
        for span in sorted(inside, key=lambda span: span.start):
            if span.name in (FORWARD, STEP):
                phases[span.name] += span.children
            else:
                phases[""].append(span)
        found.append(ProfiledRun(tuple(phases[FORWARD]), tuple(phases[""]), tuple(phases[STEP])))
    return found


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


@dataclass
class Attributed:
    """One run's times by key."""

    matched: int = 0  # calls of the counter's forward that were there, in order; of `expected`
    expected: int = 0
    complete: bool = True  # whether all were; if not, the forward went by modules
    seconds: dict[Key, float] = field(default_factory=dict)
    calls: Counter[Key] = field(default_factory=Counter)
    unseen: Counter[str] = field(default_factory=Counter)  # the counter did not see them; by name

    def place(self, key: Key, seconds: float) -> None:
        """Add one operator's."""
        self.seconds[key] = self.seconds.get(key, 0.0) + seconds
        self.calls[key] += 1


def key_of(call: OperatorCall, by_shapes: bool) -> Key:
    """Under which key a counted call stands: an in-place operator under the plain one's."""
    phase: ProfilePhase = "step" if call.module == OPTIMIZER else call.phase
    return (phase, call.module, canonical(call.operator), call.shapes if by_shapes else ())


def attribute(
    run: ProfiledRun,
    forward: Sequence[OperatorCall],
    backward: Sequence[OperatorCall],
    step: Collection[str],
) -> Attributed:
    """Every second of a run, by key.

    Args:
        forward, backward: what the counter saw.
        step: operators of the optimizer's step.
    """
    calls = _ByCalls(forward)
    calls.walk(run.forward)
    walk: _Walk = calls
    found = calls.found
    if calls.at < len(calls.calls):
        walk = modules = _ByModules(forward)
        modules.walk(run.forward)
        found = walk.found
    found.matched, found.expected = calls.at, len(calls.calls)
    found.complete = walk is calls
    for key, seconds in _backward(run.backward, backward, walk.owners):
        found.place(key, seconds)
    for span in run.step:
        for name, seconds, seen in _named(span, step):
            found.place(("step", OPTIMIZER, name if seen else OPTIMIZER, ()), seconds)
    return found


@dataclass(frozen=True)
class Owner:
    """Who made an autograd node: a module, and the declared operator if it was inside one."""

    module: str
    declared: str = ""


class _Walk:
    """Places the spans of a forward, and remembers whose each autograd node is."""

    def __init__(self) -> None:
        self.found = Attributed()
        self.owners: dict[int, Owner] = {}

    def place(self, span: Span, key: Key) -> None:
        """Place an operator that the counter saw too, with all that is inside."""
        self.found.place(key, span.whole)
        inside = canonical(span.name) if span.name.startswith(DECLARED) else ""
        self._own(span, Owner(key[1], inside))

    def place_other(self, span: Span, module: str) -> tuple[Span, ...]:
        """Place an operator that the counter did not see; what is left to place inside of it."""
        name = canonical(span.name)
        self.owners[span.sequence] = Owner(module)
        wraps = _wraps(name)
        self.found.place(("forward", module, name, ()), span.own if wraps else span.whole)
        if not wraps:
            self.found.unseen[name] += 1
        return span.children if wraps else ()

    def _own(self, span: Span, owner: Owner) -> None:
        """Its number is the one that the next node gets: the last to have it made that node."""
        self.owners[span.sequence] = owner
        for child in span.children:
            self._own(child, owner)


class _ByCalls(_Walk):
    """The profiler's forward beside the counter's, call by call."""

    def __init__(self, calls: Sequence[OperatorCall]) -> None:
        super().__init__()
        self.calls = [call for call in calls if not _optional(call.operator)]
        self.at = 0

    def walk(self, spans: Sequence[Span]) -> None:
        """Place each: the next call, a wrapper to look into, or neither."""
        for span in spans:
            # What wraps the next call runs in the same module.
            call = self.calls[min(self.at, len(self.calls) - 1)] if self.calls else None
            matches = call is not None and canonical(span.name) == canonical(call.operator)
            if call is not None and matches and self.at < len(self.calls):
                self.place(span, key_of(call, by_shapes=True))
                self.at += 1
            else:
                self.walk(self.place_other(span, "" if call is None else call.module))


class _ByModules(_Walk):
    """The profiler's forward by the ranges of modules, and the names that the counter has there."""

    def __init__(self, calls: Sequence[OperatorCall]) -> None:
        super().__init__()
        self.known = _names_by_module(calls)

    def walk(self, spans: Sequence[Span], module: str = "") -> None:
        """Place each and what is inside; a range's own time is Python's, between operators."""
        for span in spans:
            name = canonical(span.name)
            if span.name.startswith(MODULE):
                self.walk(span.children, span.name.removeprefix(MODULE))
            elif name in self.known.get(module, ()):
                self.place(span, ("forward", module, name, ()))
            else:
                self.walk(self.place_other(span, module), module)


def _names_by_module(calls: Sequence[OperatorCall]) -> dict[str, set[str]]:
    known: dict[str, set[str]] = {}
    for call in calls:
        known.setdefault(call.module, set()).add(canonical(call.operator))
    return known


def _named(span: Span, known: Collection[str]) -> Iterator[tuple[str, float, bool]]:
    """A span's name, its seconds, and whether it is known; looked into if what is inside is."""
    name = canonical(span.name)
    if name in known or not _holds(span, known):
        yield name, span.whole, name in known
        return
    yield name, span.own, False
    for child in span.children:
        yield from _named(child, known)


def _holds(span: Span, known: Collection[str]) -> bool:
    return any(canonical(c.name) in known or _holds(c, known) for c in span.children)


def _backward(
    spans: Sequence[Span], calls: Sequence[OperatorCall], owners: Mapping[int, Owner]
) -> Iterator[tuple[Key, float]]:
    known = _names_by_module(calls)
    numbers = sorted(owners)
    for span in spans:
        if _ACCUMULATES in span.name:
            yield ("backward", GRADIENTS, _ACCUMULATES, ()), span.whole
            continue
        is_node = span.name.startswith(NODE)
        # A node that no operator made (a custom Function) belongs where the one before it does.
        at = bisect.bisect_right(numbers, span.sequence) - 1 if is_node else -1
        owner = owners[numbers[at]] if at >= 0 else Owner(AUTOGRAD)
        if owner.declared:
            yield ("backward", owner.module, owner.declared, ()), span.whole
            continue
        names = known.get(owner.module if is_node else "", ())
        for name, seconds, seen in _named(span, names):
            ours = seen or not is_node or name.startswith("aten::")
            yield ("backward", owner.module, name if ours else AUTOGRAD, ()), seconds


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
    return any(map(overload_is_composite, names))


# Ranges of the profiler's, by which spans are known.


class _Ranges:
    """Ranges that are open, inside one another."""

    def __init__(self) -> None:
        self._open: list[Any] = []

    def begin(self, name: str) -> None:
        """Open one more."""
        named: Any = record_function(name)
        named.__enter__()
        self._open.append(named)

    def exit(self) -> None:
        """Close the last, if there is one."""
        if self._open:
            self._open.pop().__exit__(None, None, None)


class DeclaredRanges(_Ranges):
    """Ranges of the profiler's around operators that a model declares."""

    def enter(self, declaration: Declaration) -> None:
        """A declared operator begins."""
        self.begin(DECLARED + declaration.operator)


def by_path(path: str, module: nn.Module) -> str:
    """A range's name for `attribute` to read."""
    return MODULE + path


def for_people(path: str, module: nn.Module) -> str:
    """A range's name: the path and the class."""
    kind = type(module).__qualname__
    return f"{path} ({kind})" if path else kind


@contextmanager
def module_ranges(
    model: nn.Module, name: Callable[[str, nn.Module], str] = by_path
) -> Iterator[None]:
    """A range of the profiler's around every module's forward.

    By torch's global hooks, which leave the model's own alone and are removed in the end.
    """
    names: dict[int, str] = {}
    for path, module in model.named_modules():
        names.setdefault(id(module), name(path, module))
    ranges = _Ranges()

    def enter(module: nn.Module, inputs: Any) -> None:
        ranges.begin(names.get(id(module), type(module).__qualname__))

    def leave(module: nn.Module, inputs: Any, output: Any) -> None:
        ranges.exit()

    with (
        register_module_forward_pre_hook(enter),
        register_module_forward_hook(leave, always_call=True),
    ):
        yield
