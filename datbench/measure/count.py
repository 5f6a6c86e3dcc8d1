"""One count of a model, and the views of it: by convention, operator, module and stage."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from ..errors import MeasurementError
from ..models.build import create_model
from ..models.declared import observing
from ..models.spec import ModelSpec
from ..types import MULTIPLY_ADDS, Setting
from .conventions import Convention
from .modules import ModuleTracker
from .operators import ShapesOnly
from .recorder import OperatorCall, Recorder
from .stages import stage_of


@dataclass(frozen=True)
class Group:
    """A sum over operator calls that share a key.

    Args:
        key: the operator, stage or module.
        calls: how many calls.
        amount: in the convention's unit.
        bytes_read, bytes_written: summed over the calls.
    """

    key: str
    calls: int
    amount: int
    bytes_read: int
    bytes_written: int

    @property
    def intensity(self) -> float | None:
        """Arithmetic intensity: amount for each byte moved; None where nothing moves."""
        moved = self.bytes_read + self.bytes_written
        return self.amount / moved if moved else None


@dataclass(frozen=True)
class Count:
    """Every operator call of one run of a model, unweighted.

    Args:
        calls: in the order in which they ran.
        stages: stage of a module path.
    """

    calls: tuple[OperatorCall, ...]
    stages: Mapping[str, str]

    def total(self, convention: Convention, phase: str | None = None) -> int:
        """The whole cost in the convention's unit, of one phase or both."""
        return sum(
            convention.weigh(call.cost, call.module_type)
            for call in self.calls
            if phase in (None, call.phase)
        )

    def multiply_adds(self) -> int:
        """Multiply-adds alone, whatever the convention."""
        return sum(
            amount
            for call in self.calls
            for kind, amount in call.cost.items()
            if kind in MULTIPLY_ADDS
        )

    def by_operator(self, convention: Convention) -> list[Group]:
        """Sums by operator, largest first."""
        groups = self._grouped(convention, lambda call: call.operator)
        return sorted(groups, key=lambda group: -group.amount)

    def by_stage(self, convention: Convention) -> list[Group]:
        """Sums by stage, in the order in which they ran."""
        return self._grouped(convention, lambda call: self.stages.get(call.module, "(model)"))

    def by_module(self, convention: Convention, depth: int | None = None) -> list[Group]:
        """Sums by module path, cut to `depth` components where given."""

        def key(call: OperatorCall) -> str:
            parts = call.module.split(".") if call.module else []
            return ".".join(parts[:depth]) or "(model)"

        return self._grouped(convention, key)

    def ignored(self, convention: Convention) -> list[Group]:
        """Counted operators to which the convention gives no weight, most calls first."""
        groups = self._grouped(
            convention,
            lambda call: call.operator,
            lambda call: (
                call.status == "counted" and convention.weigh(call.cost, call.module_type) == 0
            ),
        )
        return sorted(groups, key=lambda group: -group.calls)

    def with_status(self, status: str, convention: Convention) -> list[Group]:
        """Operators that are ``counted``, ``free`` or ``unknown``, with their calls."""
        return self._grouped(
            convention, lambda call: call.operator, lambda call: call.status == status
        )

    def _grouped(
        self,
        convention: Convention,
        key: Callable[[OperatorCall], str],
        keep: Callable[[OperatorCall], bool] = lambda call: True,
    ) -> list[Group]:
        sums: dict[str, list[int]] = {}
        for call in self.calls:
            if keep(call):
                row = sums.setdefault(key(call), [0, 0, 0, 0])
                row[0] += 1
                row[1] += convention.weigh(call.cost, call.module_type)
                row[2] += call.bytes_read
                row[3] += call.bytes_written
        return [Group(name, *row) for name, row in sums.items()]


def count(model: nn.Module, *inputs: Any, backward: bool = False) -> Count:
    """Count one run of `model` on `inputs`, on whatever device they are.

    The model is run in the mode that it is in, and is unchanged afterwards: its hooks, gradients,
    buffers and random state are what they were.

    Args:
        inputs: what the model's forward takes; tensors on meta cost nothing.
        backward: count the backward of the sum of all floating outputs too.

    Raises:
        MeasurementError: nothing that the model returns has a gradient, though one was asked for.
    """
    with ExitStack() as stack:
        tracker = stack.enter_context(ModuleTracker(model))
        stack.enter_context(_unchanged(model))
        recorder = Recorder(tracker)
        stack.enter_context(observing(recorder))
        with torch.no_grad(), _below_autograd(), recorder:
            model(*inputs)
        if backward:
            _count_backward(model, inputs, recorder)
    paths = {call.module for call in recorder.calls}
    return Count(tuple(recorder.calls), {path: stage_of(model, path) for path in paths})


def _count_backward(model: nn.Module, inputs: tuple[Any, ...], recorder: Recorder) -> None:
    """Run the forward once more to make a graph, then record its backward."""
    with torch.enable_grad():
        with recorder.linking(), recorder:
            outputs = model(*inputs)
        losses = [
            leaf for leaf in tree_leaves(outputs) if isinstance(leaf, Tensor) and leaf.requires_grad
        ]
        wanted: list[Tensor] = [p for p in model.parameters() if p.requires_grad]
        wanted += [x for x in inputs if isinstance(x, Tensor) and x.requires_grad]
        if not losses or not wanted:
            raise MeasurementError("the model's output has no gradient to count a backward of.")
        recorder.phase = "backward"
        with recorder:
            # autograd.grad, not backward(): it leaves every .grad alone.
            torch.autograd.grad(
                losses, wanted, [torch.ones_like(loss) for loss in losses], allow_unused=True
            )


def _below_autograd() -> AbstractContextManager[Any]:
    """Dispatch below autograd, where composite operators arrive whole."""
    guard: AbstractContextManager[Any] = torch._C._AutoDispatchBelowAutograd()
    return guard


@contextmanager
def _unchanged(model: nn.Module) -> Iterator[None]:
    """Plain, repeatable execution, and a model that keeps its buffers and random state."""
    buffers = (
        [(buffer, buffer.detach().clone()) for buffer in model.buffers() if not buffer.is_meta]
        if model.training
        else []
    )
    fast_path = torch.backends.mha.get_fastpath_enabled()
    # The fast path of nn.MultiheadAttention exists on some devices only.
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.random.fork_rng(devices=[]), _eager():
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)
        with torch.no_grad():
            for buffer, saved in buffers:
                buffer.copy_(saved)


@contextmanager
def _eager() -> Iterator[None]:
    """Run compiled modules as they are written; costs nothing where none was ever compiled."""
    import sys

    if "torch._dynamo" not in sys.modules:
        yield
        return
    with torch.compiler.set_stance("force_eager"):
        yield


def count_model(model: str | ModelSpec, setting: Setting) -> Count:
    """Build a registered variant in evaluation mode and count it.

    Raises:
        UnknownNameError: no such variant.
        MeasurementError: the device is not there, or the model does not run with this setting.
    """
    name = model if isinstance(model, str) else model.name
    return count_built(name, build_for_count(model, setting), setting)


def build_for_count(model: str | ModelSpec, setting: Setting) -> nn.Module:
    """The variant in evaluation mode on the setting's device; on meta, without initialising."""
    dtype: torch.dtype = getattr(torch, setting.dtype)
    with _reported(model, setting), _on_meta(setting):
        module = create_model(
            model,
            features_only=setting.features,
            attention=setting.attention,
            device=setting.device,
        ).eval()
        return module if dtype == torch.float32 else module.to(dtype)


def _on_meta(setting: Setting) -> AbstractContextManager[Any]:
    return ShapesOnly() if setting.device == "meta" else nullcontext()


def count_built(name: str, module: nn.Module, setting: Setting) -> Count:
    """Count a model that is built already, on an image of the setting's size."""
    resolution = setting.resolution
    shape = (setting.batch, 3, resolution.height, resolution.width)
    with _reported(name, setting):
        image = torch.empty(shape, dtype=getattr(torch, setting.dtype), device=setting.device)
        if not image.is_meta:
            image.zero_()
        return count(module, image, backward=setting.backward)


@contextmanager
def _reported(model: str | ModelSpec, setting: Setting) -> Iterator[None]:
    """Turn what torch raises into one line that names the model and its setting."""
    name = model if isinstance(model, str) else model.name
    try:
        yield
    except (RuntimeError, MemoryError, AssertionError, NotImplementedError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise MeasurementError(
            f"{name} at {setting.resolution} on {setting.device}: {reason}"
        ) from error
