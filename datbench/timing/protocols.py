"""How published figures of speed were measured, as data, and a loop that measures so again.

Each row was read from the file that `source` names, at the commit there. What a protocol leaves to
a command line or to a configuration is not part of it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Literal

import torch

from ..errors import UnknownNameError, UsageError
from ..run import synchronize
from ..setting import TimeMode
from .records import ProtocolTiming
from .sample import Clock

Waits = Literal["around", "around, late", "each"]
"""When the host waits for the device. Around: before the first timed call and after the last. Late:
the clock starts before that first wait, so that it also runs while the warm-up's last calls end.
Each: after the warm-up, and after every call."""

Sums = Literal["loop", "calls"]
"""What is divided by the number of calls: the loop's seconds, what lies between its calls included,
or the sum of the calls' own."""


@dataclass(frozen=True)
class Protocol:
    """A fixed warm-up, a fixed number of calls, their mean.

    docs/protocols.md says what else the published scripts do; this loop does none of it.
    """

    name: str
    warmup: int  # calls before the clock starts
    calls: int  # timed ones
    batch: int | None  # None where the command line or the configuration sets it
    waits: Waits
    sums: Sums
    mode: TimeMode = "inference"  # a forward without gradients, or a step of training

    @property
    def source(self) -> str:
        """The file that does so, with its commit."""
        repository, commit, path = _SOURCES[self.name.removesuffix("-train")].split()
        return f"https://github.com/{repository}/blob/{commit}/{path}"

    def duration(self, seconds: float) -> float:
        """Seconds of the whole protocol, where a call takes `seconds`."""
        return (self.warmup + self.calls) * seconds


_SOURCES = {
    "swin": "microsoft/Swin-Transformer 00f28005ee4ee750d48a31de241cdfaf03252879 main.py",
    "dat": "LeapLabTHU/DAT 2624e9caf4199c19e3fb25a43be1805dc0a1a6dd main.py",
    "timm": "huggingface/pytorch-image-models 066e490605ba1d3666861096163246c885603469 "
    "benchmark.py",
    "tome": "facebookresearch/ToMe 207459add92fa95888f1a2647864b66a2c446700 tome/utils.py",
    "pycls": "facebookresearch/pycls 0288df1d757163a4994f44a8dd75c392e4a7a288 "
    "pycls/core/benchmark.py",
    "mmdet": "open-mmlab/mmdetection 0a07b26e04eedf8250183b742822424ed44189b6 "
    "tools/analysis_tools/benchmark.py",
    "deformable-detr": "fundamentalvision/Deformable-DETR 48092c507c9db61da4cd4ffda819da757d349a82 "
    "benchmark.py",
}
"""Repository, commit and file of each."""

_ALL = (
    Protocol("swin", warmup=50, calls=30, batch=64, waits="around", sums="loop"),
    Protocol("dat", warmup=50, calls=30, batch=None, waits="around", sums="loop"),
    Protocol("timm", warmup=10, calls=40, batch=256, waits="each", sums="loop"),
    Protocol("timm-train", warmup=10, calls=40, batch=256, waits="each", sums="loop", mode="step"),
    Protocol("tome", warmup=10, calls=30, batch=64, waits="around, late", sums="loop"),
    Protocol("pycls", warmup=3, calls=30, batch=None, waits="each", sums="calls"),
    Protocol("mmdet", warmup=5, calls=1995, batch=1, waits="each", sums="calls"),
    Protocol("deformable-detr", warmup=5, calls=295, batch=1, waits="each", sums="calls"),
)

PROTOCOLS: Mapping[str, Protocol] = MappingProxyType({known.name: known for known in _ALL})


def protocol_named(name: str) -> Protocol:
    """The protocol called `name`.

    Raises:
        UnknownNameError: there is none.
    """
    if name not in PROTOCOLS:
        raise UnknownNameError.among("protocol", name, PROTOCOLS)
    return PROTOCOLS[name]


def misfit(protocol: Protocol, batch: int, mode: TimeMode) -> str | None:
    """Why a row has no figure of the protocol: another batch would be another difference."""
    if mode != protocol.mode:
        return f"{protocol.name} times {_DOES[protocol.mode]}"
    if protocol.batch is not None and batch != protocol.batch:
        return f"{protocol.name} takes batches of {protocol.batch}"
    return None


_DOES: Mapping[TimeMode, str] = {"inference": "inference", "step": "training"}


def fitting_batches(names: Sequence[str], given: list[int], mode: TimeMode) -> list[int]:
    """The batches of rows that protocols are followed in: their own where none was asked for.

    Raises:
        UsageError: a protocol fits no row.
    """
    chosen = [protocol_named(name) for name in names]
    own = dict.fromkeys(known.batch for known in chosen if known.batch is not None)
    batches = given or list(own) or [1]
    for known in chosen:
        reasons = [misfit(known, batch, mode) for batch in batches]
        if all(reasons):
            needed = "another --mode" if known.mode != mode else f"--batch {known.batch}"
            raise UsageError(f"--protocol {reasons[0]}; give {needed}.")
    return batches


def run_protocol(
    run: Callable[[], object],
    device: str | torch.device,
    protocol: Protocol,
    batch: int,
    *,
    clock: Clock = time.perf_counter,
    wait: Callable[[], object] | None = None,
    row: float | None = None,
) -> ProtocolTiming:
    """Time `run` as the protocol does, on the host's clock, with the model that is there.

    Args:
        run: one call of a batch of `batch` images, in the protocol's mode.
        wait: for the device. Default: as torch does it.
        row: images a second of the rigorous figure, in this process at this batch.

    Raises:
        UsageError: the protocol prescribes another batch.
    """
    if protocol.batch is not None and batch != protocol.batch:
        raise UsageError(f"{misfit(protocol, batch, protocol.mode)}, not of {batch}.")
    wait = wait or partial(synchronize, torch.device(device))
    seconds = _mean(run, protocol, clock, wait)
    if not seconds > 0:
        raise ValueError("the clock did not move")
    rate = batch / seconds
    difference = None if row is None else rate / row - 1  # what the protocol alone makes
    figures = (protocol.warmup, protocol.calls, batch, seconds, rate, difference)
    return ProtocolTiming(protocol.name, *figures)


def _mean(
    run: Callable[[], object], protocol: Protocol, clock: Clock, wait: Callable[[], object]
) -> float:
    """Seconds of a call."""
    each, of_calls = protocol.waits == "each", protocol.sums == "calls"
    for _ in range(protocol.warmup):
        run()
    if protocol.waits != "around, late":
        wait()
    began = clock()
    if protocol.waits == "around, late":
        wait()
    own = 0.0
    for _ in range(protocol.calls):
        start = clock() if of_calls else 0.0
        run()
        if each:
            wait()
        if of_calls:
            own += clock() - start
    if not each:
        wait()
    whole = clock() - began
    return (own if of_calls else whole) / protocol.calls
