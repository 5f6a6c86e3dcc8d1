"""One run of a model on meta tensors, with the life of every storage."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..counting.count import build_for_count, stage_of, warn_of_none
from ..counting.operators import EagerMode, OperatorPlan, execute
from ..counting.recorder import ModuleTracker, NodeOwners
from ..counting.shapes import META
from ..errors import UsageError
from ..inputs import Inputs
from ..models.pyramid import StageModule
from ..models.resolve import Spec, is_ours, resolve
from ..run import (
    anywhere,
    as_built,
    as_written,
    check_visible,
    iterate,
    make_inputs,
    optimizer_state,
    reported,
    seeded,
    stepped,
    tensors_in,
    unchanged,
)
from ..setting import PLAIN, WITH_BACKWARD, Checkpointing, MemoryMode, Recipe, Setting
from ..units import Brief
from .autocast import Autocast, FusedAttention
from .backwards import sole_references, writes_into
from .records import CATEGORIES, Category, LedgerLine, MemoryPart, MemoryRow, Peak
from .scratch import scratch

# Activation checkpointing: blocks that run again in the backward instead of being kept.


@contextmanager
def checkpointed(model: nn.Module, how: Checkpointing | None) -> Iterator[None]:
    """The model with its blocks checkpointed inside; as it was afterwards.

    Ours have each block checkpointed, without re-entering autograd. Others, under a head too, do
    what their own `set_grad_checkpointing` does.

    Raises:
        UsageError: others', and they cannot be checkpointed.
    """
    if how is None:
        yield
        return
    ours = [m.blocks for m in model.modules() if isinstance(m, StageModule)]
    switches = list(map(_switch, ours)) if ours else _switches(model)
    if not switches:
        raise UsageError(
            f"--checkpointing: {type(model).__qualname__} cannot be checkpointed: it has "
            "neither blocks of ours nor a set_grad_checkpointing() that takes True."
        )
    for switch in switches:
        switch(True)
    try:
        yield
    finally:
        for switch in switches:
            switch(False)


def _switch(blocks: nn.Sequential) -> Callable[[bool], object]:
    """Turns it on and off for our blocks; they themselves are called, so that hooks see them."""

    def forward(x: Tensor) -> Tensor:
        for block in blocks:
            x = checkpoint(block, x, use_reentrant=False)
        return x

    def switch(on: bool) -> None:
        if on:
            blocks.forward = forward  # type: ignore[method-assign]
        else:
            del blocks.forward

    return switch


def _switches(module: nn.Module) -> list[Callable[[bool], object]]:
    """The module's own way of turning it on and off, which it is known to take; else its parts'."""
    own: Any = getattr(module, "set_grad_checkpointing", None)
    try:
        if callable(own):
            own(False)
            own(True)
            own(False)
            return [own]
    except (AssertionError, NotImplementedError, TypeError):
        pass  # timm's models without checkpointing refuse to turn it on
    return [switch for part in module.children() for switch in _switches(part)]


# The life of every storage of one run, as plain values. Free of torch.


Phase = Literal["before", "forward", "backward", "step"]


@dataclass(frozen=True)
class StorageBlock:
    """One storage, and what made it: empty for what was there before."""

    size: int  # in bytes
    category: Category
    operator: str
    module: str
    phase: Phase
    born: int
    died: int | None  # None for what outlives the run

    def alive_at(self, time: int) -> bool:
        """Whether it is there once the event of this time has happened."""
        return self.born <= time and (self.died is None or time < self.died)


@dataclass(frozen=True)
class Event:
    """The birth (`change` above 0) or the death of a block."""

    time: int
    change: int
    block: StorageBlock


@dataclass(frozen=True, repr=False)
class Trace(Brief):
    """Every storage of a run. Time counts events: one birth or one death at each."""

    blocks: tuple[StorageBlock, ...]  # in the order of their birth
    forward_end: int  # the time of the forward's last event
    end: int  # the time of the last event

    @cached_property
    def events(self) -> tuple[Event, ...]:
        """Births and deaths in the order in which they happened."""
        births = [Event(block.born, block.size, block) for block in self.blocks]
        deaths = [Event(b.died, -b.size, b) for b in self.blocks if b.died is not None]
        return tuple(sorted(births + deaths, key=lambda event: event.time))

    def live(self, time: int) -> dict[Category, int]:
        """Bytes alive at a time, by category."""
        found = dict.fromkeys(CATEGORIES, 0)
        for block in self.blocks:
            if block.alive_at(time):
                found[block.category] += block.size
        return found

    def whole(self, category: Category) -> int:
        """All bytes of a category, whenever they lived."""
        return sum(block.size for block in self.blocks if block.category == category)

    def most(self, *categories: Category) -> Event:
        """The event after which blocks of these categories hold most; the first such."""
        live, best, at = 0, -1, None
        for event in self.events:
            if event.block.category in categories:
                live += event.change
                if live > best:
                    best, at = live, event
        if at is None:
            raise ValueError("no such block")
        return at

    @cached_property
    def peak_time(self) -> int:
        """When the total is largest, the first time."""
        return self.most(*CATEGORIES).time

    @cached_property
    def peak(self) -> Peak:
        """Where the total is largest."""
        block = self.most(*CATEGORIES).block
        total = sum(self.live(self.peak_time).values())
        return Peak(total, block.operator, block.module, block.phase)


# The dispatch mode that sees every storage be born and die.
#
# It runs under autograd, where an operator arrives as the kernel that runs and saved tensors are
# held as in training. A storage's death is told by a weak reference to it: autograd's references
# count, so nothing here keeps a tensor alive.


@dataclass
class _Life:
    """A storage while it is watched."""

    size: int
    category: Category | None
    operator: str
    module: str
    phase: Phase
    born: int
    died: int | None = None


class StorageWatcher(EagerMode):
    """Records the life of every storage on a device: meta, or the CPU with real values."""

    def __init__(self, tracker: ModuleTracker, device: torch.device = META) -> None:
        super().__init__()
        self.tracker = tracker
        self.device = device
        self.phase: Phase = "before"
        self._lives: list[_Life] = []
        self._watched: dict[int, tuple[weakref.ref[Any], _Life]] = {}
        self._time = 0
        self._forward_end = 0
        self._owners: NodeOwners[str] = NodeOwners()
        self._closed = False

    # What the run says.

    def mark(self, tensors: Iterable[Tensor], category: Category) -> None:
        """These tensors' storages are of this category, unless they are of one already.

        What is not on meta, the step counts of an optimizer, is there from now on.
        """
        for tensor in tensors:
            life = self._life(tensor, "", "")
            if life is None:
                life = self._born(tensor.untyped_storage().nbytes(), "", "")
            if life.category is None:
                life.category = category

    def forward_ended(self, keeps: bool) -> None:
        """What is alive and in no other category is saved for backward, if `keeps`."""
        self._forward_end = self._time
        for life in self._lives:
            if keeps and life.died is None and life.category is None:
                life.category = "kept"

    def trace(self) -> Trace:
        """What was seen. Nothing more is recorded."""
        self._closed = True
        self._watched.clear()
        blocks = [
            StorageBlock(**{**vars(life), "category": life.category or "temporary"})
            for life in self._lives
        ]
        return Trace(tuple(blocks), self._forward_end, self._time)

    # Births and deaths.

    def _life(self, tensor: Tensor, operator: str, module: str) -> _Life | None:
        """The tensor's storage, born now if it was not known."""
        if tensor.device != self.device or tensor.layout is not torch.strided:
            return None  # a number's on meta; without a storage of its own
        storage = tensor.untyped_storage()
        key = storage._cdata
        known = self._watched.get(key)
        if known is not None:
            return known[1]
        life = self._born(storage.nbytes(), operator, module)

        def died(_: object) -> None:
            if not self._closed:
                self._time += 1
                life.died = self._time
                del self._watched[key]

        self._watched[key] = (weakref.ref(storage, died), life)
        return life

    def _born(self, size: int, operator: str, module: str) -> _Life:
        self._time += 1
        life = _Life(size, None, operator, module, self.phase, self._time)
        self._lives.append(life)
        return life

    # Dispatch.

    def dispatched(
        self, func: Any, plan: OperatorPlan, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> Any:
        """Follow the storages that it makes."""
        module = self._module()
        out = None
        if self.phase == "backward" and writes_into(plan.overload, args):
            out = args[0]
            if not out.is_meta:
                getattr(out, plan.name.removeprefix("aten::") + "_")(*args[1:], **kwargs)
        if out is None:
            out = execute(func, plan, args, kwargs)
        for tensor in tensors_in(out):
            self._life(tensor, plan.name, module)
        extra = scratch(plan.overload, args, kwargs)
        if extra:
            life = self._born(extra, plan.name, module)
            self._time += 1
            life.died = self._time
        return out

    def _module(self) -> str:
        """Whose operator this is: in the backward, the module's that made the autograd node."""
        module, _ = self.tracker.current
        if self.phase != "backward":
            self._owners.made_by(module)
            return module
        return module or self._owners.current() or ""  # a checkpointed module runs again


def simulate(
    model: nn.Module,
    *inputs: Any,
    mode: MemoryMode = "forward",
    recipe: Recipe = PLAIN,
    kwargs: Mapping[str, Any] | None = None,
) -> Trace:
    """Run `model`, which is on meta, on meta tensors, and follow every storage.

    A model that needs real values may be on the CPU with its inputs, and takes the memory there.

    The model is run as it is (`train()` or `eval()`), and is unchanged afterwards. The backward
    starts from a gradient of ones for every floating output; there is no loss. In the mode "step"
    the second step is followed, since the first makes the optimizer's state.

    Args:
        kwargs: what its forward takes by name.

    Raises:
        UsageError: the model and its inputs are not all on meta or all on the CPU, or the mode has
            no use for the recipe.
        MeasurementError: a training mode, and nothing that the model returns has a gradient.
    """
    recipe = recipe.of(mode)
    check_visible(model)
    given = Inputs(inputs, kwargs or {})
    tensors = [*model.parameters(), *model.buffers(), *tensors_in(given)]
    devices = {tensor.device for tensor in tensors} or {META}
    device = devices.pop()
    if devices or device.type not in ("meta", "cpu"):
        raise UsageError("memory is simulated on meta: move the model and its inputs there.")
    sole_references()
    with ExitStack() as stack:
        tracker = stack.enter_context(ModuleTracker(model))
        stack.enter_context(unchanged(model))
        stack.enter_context(as_written())
        stack.enter_context(checkpointed(model, recipe.checkpointing))
        casts = None if recipe.autocast is None else Autocast(getattr(torch, recipe.autocast))
        if casts is not None:
            stack.enter_context(casts.installed())
        stack.enter_context(FusedAttention(None if casts is None else casts.lowered))
        optimizer = None
        if recipe.optimizer is not None:
            with StorageWatcher(tracker, device) as first:
                _iterate(model, given, "backward", first, casts)
            optimizer = stepped(recipe.optimizer, model)
        watcher = StorageWatcher(tracker, device)
        watcher.mark(model.parameters(), "parameters")
        watcher.mark(model.buffers(), "buffers")
        watcher.mark(tensors_in(given), "inputs")
        if optimizer is not None:
            watcher.mark(optimizer_state(optimizer), "optimizer")
        stack.enter_context(watcher)
        outputs = _iterate(model, given, mode, watcher, casts)
        if optimizer is not None:
            watcher.phase = "step"
            optimizer.step()
        found = watcher.trace()
        del outputs  # alive until here, as a caller's are
        return found


def _iterate(
    model: nn.Module,
    inputs: Inputs,
    mode: MemoryMode,
    watcher: StorageWatcher,
    casts: Autocast | None,
) -> list[Tensor]:
    def forwarded(outputs: list[Tensor]) -> None:
        watcher.mark(outputs, "outputs")
        watcher.forward_ended(keeps=mode != "inference")
        watcher.phase = "backward"

    watcher.phase = "forward"
    casting = None if casts is None else casts.casting()
    outputs = iterate(model, inputs, mode, casting, forwarded)
    if mode in WITH_BACKWARD:
        watcher.mark((p.grad for p in model.parameters() if p.grad is not None), "gradients")
    return outputs


def simulate_model(
    model: str | Spec, setting: Setting, mode: MemoryMode, recipe: Recipe = PLAIN
) -> tuple[nn.Module, Trace]:
    """Build a model on meta and simulate it on an image of the setting's size.

    One of others that needs real values is followed on the CPU, where it takes the memory.

    Raises:
        UnknownNameError: no such model.
        UsageError: the recipe does not suit the mode, the dtype or the model.
        MeasurementError: the model does not run with this setting.
    """
    spec = resolve(model) if isinstance(model, str) else model
    if recipe.autocast is not None and setting.dtype != "float32":
        raise UsageError(f"autocast casts float32; a model in {setting.dtype} takes no autocast.")

    def work(setting: Setting) -> tuple[nn.Module, Trace]:
        module = build_for_count(spec, setting, training=mode != "inference")
        with reported(spec.name, setting, not is_ours(spec)), seeded():
            given = make_inputs(setting, module)
            return module, simulate(
                module, *given.args, mode=mode, recipe=recipe, kwargs=given.named
            )

    return anywhere(spec, setting, work)


# From the life of every storage to a ledger.


_FIXED: frozenset[Category] = frozenset({"parameters", "buffers", "inputs"})
"""There before the run; no operator makes them."""


def memory_row(spec: Spec, setting: Setting, mode: MemoryMode, recipe: Recipe = PLAIN) -> MemoryRow:
    """Build, simulate and summarise one model.

    Raises:
        UsageError: the recipe does not suit the mode, the dtype or the model.
        MeasurementError: it does not run with this setting.
    """
    return traced_row(spec, setting, mode, recipe)[0]


def traced_row(
    spec: Spec, setting: Setting, mode: MemoryMode, recipe: Recipe = PLAIN
) -> tuple[MemoryRow, Trace]:
    """`memory_row`, with the run that it sums up."""
    recipe = recipe.of(mode)
    module, trace = simulate_model(spec, setting, mode, recipe)
    if not trace.whole("parameters") and any(b.category not in _FIXED for b in trace.blocks):
        warn_of_none(module)
    row = MemoryRow(
        model=spec.name,
        setting=as_built(module, setting),
        mode=mode,
        lines=ledger(trace, mode, recipe),
        after_forward=sum(trace.live(trace.forward_end).values()),
        at_end=sum(trace.live(trace.end).values()),
        peak=trace.peak,
        parts=_parts(trace, mode, lambda path: stage_of(module, path)),
        recipe=recipe,
    )
    return row, trace


def ledger(trace: Trace, mode: MemoryMode, recipe: Recipe = PLAIN) -> tuple[LedgerLine, ...]:
    """One line for each category."""
    at_peak = trace.live(trace.peak_time)
    lines = []
    for category in CATEGORIES:
        reason = _absent(category, mode, recipe.of(mode))
        if reason is not None:
            lines.append(LedgerLine(category, None, None, reason))
            continue
        amount = trace.whole(category)
        if category == "temporary" and amount:
            amount = trace.live(trace.most("temporary").time)["temporary"]
        lines.append(LedgerLine(category, amount, at_peak[category]))
    return tuple(lines)


def _absent(category: Category, mode: MemoryMode, recipe: Recipe) -> str | None:
    """Why a mode has no such thing."""
    if category == "kept" and mode == "inference":
        return "gradients are not recorded in inference"
    if category == "gradients" and mode not in WITH_BACKWARD:
        return "no backward was run"
    if category == "optimizer" and mode != "step":
        return "no optimizer's step was made"
    if category == "optimizer" and recipe.optimizer == "sgd":
        return "SGD without momentum keeps none"
    return None


def _parts(trace: Trace, mode: MemoryMode, stage: Callable[[str], str]) -> tuple[MemoryPart, ...]:
    """By the module and the operator that made a storage, in the order of the first one."""
    sums: dict[tuple[str, str], list[int]] = {}
    for block in trace.blocks:
        if block.category in _FIXED:
            continue
        found = sums.setdefault((block.module, block.operator), [0, 0, 0])
        if block.category == "kept":
            found[0] += 1
            found[1] += block.size
        if block.alive_at(trace.peak_time):
            found[2] += block.size
    keeps = mode != "inference"
    return tuple(
        MemoryPart(stage(module), module, operator, tensors, kept if keeps else None, at_peak)
        for (module, operator), (tensors, kept, at_peak) in sums.items()
        if kept or at_peak
    )
