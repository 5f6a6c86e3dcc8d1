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


@dataclass(frozen=True)
class Placed:
    """Seconds of one operator's, and whether they are a call that the counter saw too."""

    key: Key
    seconds: float
    seen: bool


@dataclass
class Attributed:
    """One run's times by key."""

    matched: int  # calls of the counter's forward that were there, in order; of `expected`
    expected: int
    complete: bool  # whether all were; if not, the forward went by modules
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
    for span in run.forward:
        calls.walk(span)
    walk: _Walk = calls
    found = Attributed(calls.at, len(calls.calls), calls.at == len(calls.calls))
    if not found.complete:
        walk = modules = _ByModules(forward)
        for span in run.forward:
            modules.walk(span)
    found.unseen = walk.unseen
    for one in (*walk.placed, *_backward(run.backward, backward, walk.owners)):
        found.place(one.key, one.seconds)
    for span in run.step:
        for one in _named(span, "step", OPTIMIZER, step):
            found.place(one.key if one.seen else ("step", OPTIMIZER, OPTIMIZER, ()), one.seconds)
    return found


@dataclass(frozen=True)
class Owner:
    """Who made an autograd node: a module, and the declared operator if it was inside one."""

    module: str
    declared: str = ""


class _Walk:
    """Places the spans of a forward, and remembers whose each autograd node is."""

    def __init__(self) -> None:
        self.placed: list[Placed] = []
        self.owners: dict[int, Owner] = {}
        self.unseen: Counter[str] = Counter()

    def place(self, span: Span, key: Key) -> None:
        """Place an operator that the counter saw too, with all that is inside."""
        self.placed.append(Placed(key, span.whole, seen=True))
        inside = canonical(span.name) if span.name.startswith(DECLARED) else ""
        self._own(span, Owner(key[1], inside))

    def place_other(self, span: Span, module: str) -> tuple[Span, ...]:
        """Place an operator that the counter did not see; what is left to place inside of it."""
        name = canonical(span.name)
        self.owners[span.sequence] = Owner(module)
        wraps = _wraps(name)
        seconds = span.own if wraps else span.whole
        self.placed.append(Placed(("forward", module, name, ()), seconds, seen=False))
        if not wraps:
            self.unseen[name] += 1
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

    def walk(self, span: Span) -> None:
        """Place a span: the next call, a wrapper to look into, or neither."""
        # What wraps the next call runs in the same module.
        call = self.calls[min(self.at, len(self.calls) - 1)] if self.calls else None
        matches = call is not None and canonical(span.name) == canonical(call.operator)
        if call is not None and matches and self.at < len(self.calls):
            self.place(span, key_of(call, by_shapes=True))
            self.at += 1
            return
        for child in self.place_other(span, call.module if call is not None else ""):
            self.walk(child)


class _ByModules(_Walk):
    """The profiler's forward by the ranges of modules, and the names that the counter has there."""

    def __init__(self, calls: Sequence[OperatorCall]) -> None:
        super().__init__()
        self.known = _names_by_module(calls)

    def walk(self, span: Span, module: str = "") -> None:
        """Place a span and what is inside; a range's own time is Python's, between operators."""
        inside = span.children
        if span.name.startswith(MODULE):
            module = span.name.removeprefix(MODULE)
        elif canonical(span.name) in self.known.get(module, ()):
            self.place(span, ("forward", module, canonical(span.name), ()))
            return
        else:
            inside = self.place_other(span, module)
        for child in inside:
            self.walk(child, module)


def _names_by_module(calls: Sequence[OperatorCall]) -> dict[str, set[str]]:
    known: dict[str, set[str]] = {}
    for call in calls:
        known.setdefault(call.module, set()).add(canonical(call.operator))
    return known


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
    known = _names_by_module(calls)
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


# Ranges of the profiler's, by which spans are known.


class DeclaredRanges:
    """Ranges of the profiler's around operators that a model declares."""

    def __init__(self) -> None:
        self._open: list[Any] = []

    def enter(self, declaration: Declaration) -> None:
        """A declared operator begins."""
        named: Any = record_function(DECLARED + declaration.operator)
        named.__enter__()
        self._open.append(named)

    def exit(self) -> None:
        """It has ended."""
        self._open.pop().__exit__(None, None, None)


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
    opened: list[Any] = []

    def enter(module: nn.Module, inputs: Any) -> None:
        named: Any = record_function(names.get(id(module), type(module).__qualname__))
        named.__enter__()
        opened.append(named)

    def leave(module: nn.Module, inputs: Any, output: Any) -> None:
        if opened:
            opened.pop().__exit__(None, None, None)

    handles = (
        register_module_forward_pre_hook(enter),
        register_module_forward_hook(leave, always_call=True),
    )
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
