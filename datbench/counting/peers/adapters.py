"""How each counter is called, and what it says: a total, and the own amount of each module.

A module's own amount leaves out what runs inside its children. What a counter attributes to no
module is the total less the modules' sum.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib import import_module, metadata
from typing import Any, Literal, TypeAlias

from torch import Tensor, nn

from ...errors import UsageError, one_line
from ...machine import forget_peak, peak_resident, resident
from ...setting import Setting
from ..recorder import ModuleTracker

Amount: TypeAlias = int | float
"""Floats only where the counter itself has them."""


@dataclass(frozen=True)
class Tally:
    """What a counter said, in its unit."""

    total: Amount
    modules: Mapping[str, Amount] | None  # own amounts by path; None: it gives a total alone


@dataclass(frozen=True)
class Peer:
    """A counter."""

    name: str
    package: str  # whose version is shown
    module: str  # what must be importable
    unit: Literal["MAC", "FLOP"]  # of its figure
    count: Callable[[nn.Module, Tensor], Tally] = field(repr=False)


def _fvcore(model: nn.Module, x: Tensor) -> Tally:
    analysis = import_module("fvcore.nn").FlopCountAnalysis(model, x)
    analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    analysis.tracer_warnings("none")
    by_module = analysis.by_module_and_operator()
    within = {path: sum(counts.values()) for path, counts in by_module.items() if counts}
    return Tally(int(analysis.total()), _own(within))


def _torch(model: nn.Module, x: Tensor) -> Tally:
    mode = import_module("torch.utils.flop_counter").FlopCounterMode(display=False)
    with mode:
        model(x)
    root = type(model).__name__
    within: dict[str, Amount] = {}
    for name, counts in mode.get_flop_counts().items():
        if name == root or name.startswith(f"{root}."):
            within[name[len(root) + 1 :]] = sum(counts.values())
    return Tally(int(mode.get_total_flops()), _own(within))


def _ptflops(model: nn.Module, x: Tensor) -> Tally:
    counted = import_module("ptflops").get_model_complexity_info
    watcher = _PtflopsWatcher(model)
    with watcher:
        total, _ = counted(model, tuple(x.shape[1:]), as_strings=False, ost=watcher)
    if total is None:
        raise RuntimeError("ptflops could not run the model")
    return Tally(total, watcher.amounts)


class _PtflopsWatcher(ModuleTracker):
    """Sees what ptflops keeps to itself: its hooks' sums and its patched functions' lists.

    The sums stand on the modules while ptflops prints them, to this stream. The lists are of the
    whole model; what is new in them when a module begins or ends belongs to who ran until then.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self.amounts: dict[str, Amount] = {}
        self._model = model
        self._seen: dict[int, int] = {}

    def _enter(self, module: nn.Module, inputs: Any) -> None:
        self._flush()
        super()._enter(module, inputs)

    def _exit(self, module: nn.Module, inputs: Any, output: Any) -> None:
        self._flush()
        super()._exit(module, inputs, output)

    def _flush(self) -> None:
        functional = import_module("torch.nn.functional").relu
        tensors = import_module("torch").matmul
        for wrapper in (functional, tensors):
            found = getattr(wrapper, "collector", [])
            seen = self._seen.get(id(found), 0)
            self._add(self.current[0], sum(map(int, found[seen:])))
            self._seen[id(found)] = len(found)

    def _add(self, path: str, amount: Amount) -> None:
        if amount:
            self.amounts[path] = self.amounts.get(path, 0) + amount

    def write(self, text: str) -> int:
        """The model is being printed: its sums can be read now."""
        if text.strip():
            self._read(self._model)
        return len(text)

    def _read(self, module: nn.Module) -> None:
        amount = getattr(module, "__flops__", None)
        if amount is not None:  # it stops at a module that it knows, as ptflops does
            self._add(self.paths[id(module)], int(amount))
            return
        for child in module.children():
            self._read(child)


def _thop(model: nn.Module, x: Tensor) -> Tally:
    profile = import_module("thop").profile
    total, _, layers = profile(model, (x,), verbose=False, ret_layer_info=True)
    own: dict[str, Amount] = {}

    def walk(path: str, amount: float, children: Mapping[str, Any]) -> None:
        inside = 0.0
        for name, (below, _, deeper) in children.items():
            inside += below
            walk(f"{path}.{name}" if path else name, below, deeper)
        if amount != inside:
            own[path] = _whole(amount - inside)

    walk("", total, layers)
    return Tally(_whole(total), own)


def _calflops(model: nn.Module, x: Tensor) -> Tally:
    pipeline = import_module("calflops.calculate_pipline").CalFlopsPipline(
        model=model, include_backPropagation=False, compute_bp_factor=2.0
    )
    pipeline.start_flops_calculate()
    model(x)
    own = {
        path: _whole(amount)
        for path, module in model.named_modules()
        if (amount := getattr(module, "__macs__", 0))
    }
    total = _whole(pipeline.get_total_macs())
    pipeline.end_flops_calculate()
    return Tally(total, own)


def _torchinfo(model: nn.Module, x: Tensor) -> Tally:
    found = import_module("torchinfo").summary(model, input_data=[x], verbose=0, depth=1000)
    paths, own = ModuleTracker(model).paths, dict[str, Amount]()
    for layer in found.summary_list:
        if layer.is_leaf_layer and layer.macs:  # the total is of leaves
            path = paths[id(layer.module)]
            own[path] = own.get(path, 0) + layer.macs
    return Tally(found.total_mult_adds, own)


PEERS: dict[str, Peer] = {
    peer.name: peer
    for peer in (
        Peer("fvcore", "fvcore", "fvcore.nn", "MAC", _fvcore),
        Peer("torch", "torch", "torch.utils.flop_counter", "FLOP", _torch),
        Peer("ptflops", "ptflops", "ptflops", "MAC", _ptflops),
        Peer("thop", "thop", "thop", "MAC", _thop),
        Peer("calflops", "calflops", "calflops", "MAC", _calflops),
        Peer("torchinfo", "torchinfo", "torchinfo", "MAC", _torchinfo),
    )
}


def _own(within: Mapping[str, Amount]) -> dict[str, Amount]:
    """Amounts of modules without their children, from amounts with them.

    A module that was not called (a list of modules) is not in `within`: what it holds belongs to
    the nearest module above it that was.
    """
    own = dict(within)
    for path, amount in within.items():
        above = next((a for a in _above(path) if a in within), None)
        if above is not None:
            own[above] -= amount
    return {path: amount for path, amount in own.items() if amount}


def _above(path: str) -> Iterator[str]:
    """Paths above this one, nearest first: ``a.b.c`` -> ``a.b``, ``a``, ``(empty)``."""
    while path:
        path = path.rpartition(".")[0]
        yield path


def _whole(amount: float) -> Amount:
    """The same, as an integer where it is one."""
    return int(amount) if amount == int(amount) else amount


# The process in which one counter counts one model.


@dataclass(frozen=True)
class PeerJob:
    """What a counter is to count."""

    peer: str
    model: str
    setting: Setting  # on the CPU: the other counters need values


@dataclass(frozen=True)
class PeerAnswer:
    """What a counter said, and what that took; or the reason why it said nothing."""

    tally: Tally | None = None
    reason: str | None = None
    version: str | None = None
    seconds: float | None = None
    peak_bytes: int | None = None
    extra_bytes: int | None = None


def work(job: PeerJob) -> PeerAnswer:
    """Do the job, or say in one line why it cannot be done."""
    try:
        return counted(job)
    except (Exception, SystemExit) as error:
        return PeerAnswer(reason=one_line(error))


def counted(job: PeerJob) -> PeerAnswer:
    """Build the model, call the counter once, and say what it said and what that took."""
    peer = PEERS[job.peer]
    import_module(peer.module)
    import torch

    from ...run import build_model, make_inputs

    model = build_model(job.model, job.setting)
    given = make_inputs(job.setting, model)
    if given.named or len(given.args) != 1 or not isinstance(given.args[0], torch.Tensor):
        raise UsageError("it is run here on models of one tensor alone.")
    (x,) = given.args
    earlier = peak_resident()
    # Where the peak cannot be forgotten, a count that stays below it shows as nothing.
    held = resident() if forget_peak() else earlier
    began = time.perf_counter()
    with torch.no_grad():
        tally = peer.count(model, x)
    seconds = time.perf_counter() - began
    peak = peak_resident()
    return PeerAnswer(
        tally,
        version=metadata.version(peer.package),
        seconds=seconds,
        peak_bytes=None if peak is None else max(peak, earlier or 0),
        extra_bytes=None if peak is None or held is None else max(0, peak - held),
    )
