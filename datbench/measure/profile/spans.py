"""Runs under torch's profiler, as trees of plain values.

`kernels` of an event is read and not its `device_time` or `cuda_time`: it is called the same in
every torch, and belongs to the operator that launched the kernel.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.autograd.profiler import profile, record_function

from ..kineto import quiet_kineto

MARK = "datbench "
"""What the names of our own ranges begin with."""

RUN, FORWARD, STEP = (f"{MARK}{what}" for what in ("run", "forward", "optimizer"))
DECLARED = f"{MARK}declared:"
MODULE = f"{MARK}module:"


_RUNTIME = re.compile("cu(da)?[A-Z]")
"""Calls of CUDA's own, such as ``cudaLaunchKernel``, which are no operators."""


@dataclass(frozen=True)
class Span:
    """An operator, an autograd node or a range, and what ran inside.

    Args:
        start, end: on the host's clock, in seconds.
        own: seconds without the children's; on a GPU of the kernels that it launched itself.
        sequence: of the autograd node that it makes or is; negative without.
    """

    name: str
    start: float
    end: float
    own: float
    sequence: int = -1
    children: tuple[Span, ...] = ()

    @property
    def whole(self) -> float:
        """With the children's."""
        return self.own + sum(child.whole for child in self.children)


@dataclass(frozen=True)
class Run:
    """One run: its forward, the optimizer's step, and the rest, which is the backward."""

    forward: tuple[Span, ...]
    backward: tuple[Span, ...]
    step: tuple[Span, ...]


def profiled(
    run: Callable[[], object], device: torch.device, runs: int
) -> tuple[list[Run], list[float]]:
    """Runs under the profiler, and the seconds that each took with it.

    Args:
        run: opens the ranges `FORWARD` and `STEP` itself.
    """
    gpu = device.type == "cuda"
    profiler = profile(use_device="cuda" if gpu else None, use_kineto=gpu)
    seconds = []
    with quiet_kineto(), profiler:
        for _ in range(runs):
            start = time.perf_counter()
            with record_function(RUN):
                run()
                if gpu:
                    torch.cuda.synchronize(device)
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
    else:  # a range of ours has a counterpart on the GPU that is no kernel
        own = 0.0 if event.name.startswith(MARK) else sum(k.duration for k in event.kernels)
    return Span(
        event.name,
        event.time_range.start / 1e6,
        event.time_range.end / 1e6,
        max(0.0, own) / 1e6,
        event.sequence_nr,
        tuple(_span(child, gpu) for child in children),
    )


def runs_of(spans: Sequence[Span]) -> list[Run]:
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
        found.append(Run(tuple(phases[FORWARD]), tuple(phases[""]), tuple(phases[STEP])))
    return found
