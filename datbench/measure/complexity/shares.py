"""Whose time it is: a module's operators under the profiler, attributed as its counts are.

Each operator that the counter saw is a term's if the identity gives it to one, and else softmax,
elementwise or neither. The profiler sees the same operators, in the same modules and with the same
shapes. What an operator calls inside is its own, but for the copies that it makes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.profiler import profile, record_function

from ...measurements import Group, Share
from ...models.mixers.attention import Mixer
from ...types import Kind
from ..kineto import quiet_kineto
from ..recorder import OperatorCall
from .formulas import Formula
from .identity import attribute

SOFTMAX = "softmax"
ELEMENTWISE = "elementwise"
MOVES = "copies, views and dispatch"
REST = (SOFTMAX, ELEMENTWISE, MOVES)

_RANGE = "datbench module:"

_COPIES = frozenset("aten::copy_ aten::clone aten::_to_copy aten::contiguous".split())

_Shapes = tuple[tuple[int, ...], ...]
_Labels = Mapping[tuple[str, str], Mapping[_Shapes, str]]


def shares(
    mixer: Mixer, formula: Formula, calls: Sequence[OperatorCall], x: Tensor, runs: int
) -> tuple[Share, ...]:
    """Every part of the module's time on `x`, terms first; the shares add up to 1.

    On a CPU it is the operators' own time, Python between them left out; on a GPU the kernels'.
    The profiler costs a microsecond or so an operator: on small maps that is not nothing.

    Args:
        calls: what the counter saw of this module on an input of this shape.
        runs: under the profiler; a part's time is its median over them.
    """
    names = [expected.name for expected in formula.expected if expected.predicted]
    macs = attribute("", mixer, formula, calls)
    seconds: dict[str, list[float]] = {}
    for number, label, spent in _spent(mixer, _labels(mixer, formula, calls), x, runs):
        seconds.setdefault(label, [0.0] * runs)[number] += spent
    operators = [_label(mixer, formula, call) for call in calls]
    within = {name: median(seconds[name]) if name in seconds else 0.0 for name in (*names, *REST)}
    within |= {name: median(s) for name, s in seconds.items() if name not in within}
    whole, counted = sum(within.values()), sum(macs.values())
    return tuple(
        Share(
            name,
            _group(name, formula),
            spent,
            spent / whole if whole else 0.0,
            macs.get(name, 0),
            macs.get(name, 0) / counted if counted else 0.0,
            operators.count(name),
        )
        for name, spent in within.items()
    )


def _group(name: str, formula: Formula) -> Group:
    if name in REST:
        return "rest"
    in_formula = {expected.name for expected in formula.expected if expected.formula}
    return "formula" if name in in_formula else "left out"


def _label(mixer: Mixer, formula: Formula, call: OperatorCall) -> str:
    """The term to which the identity gives a call; else what kind of work it is."""
    for term in attribute("", mixer, formula, [call]):
        return term
    if Kind.SOFTMAX in call.cost:
        return SOFTMAX
    return ELEMENTWISE if call.cost else MOVES


def _labels(mixer: Mixer, formula: Formula, calls: Sequence[OperatorCall]) -> _Labels:
    labels: dict[tuple[str, str], dict[_Shapes, str]] = {}
    for call in calls:
        if call.cost:
            found = labels.setdefault((call.module, call.operator), {})
            found[_solid(call.shapes)] = _label(mixer, formula, call)
    return labels


def _solid(shapes: Sequence[Sequence[int]]) -> _Shapes:
    """Without numbers, which the profiler cannot tell from arguments that are no tensors."""
    return tuple(tuple(shape) for shape in shapes if shape)


def _spent(mixer: Mixer, labels: _Labels, x: Tensor, runs: int) -> Iterator[tuple[int, str, float]]:
    """(number of the run, label, seconds) of every operator's own time."""
    gpu = x.is_cuda
    profiler = profile(
        use_device=x.device.type if gpu else None, use_kineto=gpu, record_shapes=True
    )
    with _ranges(mixer), quiet_kineto(), profiler:
        for _ in range(runs):
            mixer(x)
        if gpu:
            torch.cuda.synchronize(x.device)
    numbers: dict[int, int] = {}
    for event in profiler.function_events or ():
        if event.device_type.name != "CPU" or event.name.startswith(_RANGE):
            continue  # kernels are read from the operators that launched them
        chain, module, root = _ancestry(event)
        if root is None:
            continue  # before or after the module
        number = numbers.setdefault(root, len(numbers))
        own = event.self_device_time_total if gpu else event.self_cpu_time_total
        yield number, _of_event(chain, module, labels), max(0.0, own) / 1e6


def _ancestry(event: Any) -> tuple[list[Any], str, int | None]:
    """The operators from this one outward, the module that called them, and the run."""
    chain, module, root = [], "", None
    while event is not None and not event.name.startswith(_RANGE):
        chain.append(event)
        event = event.cpu_parent
    if event is not None:
        module = event.name.removeprefix(_RANGE)
    while event is not None:
        if event.name == _RANGE:
            root = event.id
        event = event.cpu_parent
    return chain, module, root


def _of_event(chain: Sequence[Any], module: str, labels: _Labels) -> str:
    if chain[0].name in _COPIES:
        return MOVES
    for event in reversed(chain):  # as the module called it
        found = labels.get((module, event.name))
        if found is not None:
            first = next(iter(found.values()))
            if len(set(found.values())) == 1:
                return first
            return found.get(_solid(event.input_shapes), MOVES)
    return MOVES


@contextmanager
def _ranges(mixer: nn.Module) -> Iterator[None]:
    """A range of the profiler's around every module's forward, named by its path."""
    open_ranges: list[Any] = []

    def entering(path: str) -> Callable[..., None]:
        def hook(*_: Any) -> None:
            named: Any = record_function(_RANGE + path)
            named.__enter__()
            open_ranges.append(named)

        return hook

    def leave(*_: Any) -> None:
        open_ranges.pop().__exit__(None, None, None)

    handles: list[Any] = []
    try:
        for path, module in mixer.named_modules():
            handles.append(module.register_forward_pre_hook(entering(path)))
            handles.append(module.register_forward_hook(leave, always_call=True))
        yield
    finally:
        for handle in handles:
            handle.remove()
