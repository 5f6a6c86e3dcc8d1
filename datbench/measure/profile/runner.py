"""One run of a model, as it is timed and as it is profiled; the model is left as it was."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, redirect_stdout
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.profiler import record_function
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.utils._pytree import tree_leaves

from ...errors import DatbenchError, MeasurementError
from ...models.declared import Declaration
from ...timings import TimeMode
from ...types import Setting
from ..memory.optimizers import gradients_kept
from ..modules import ModuleTracker
from ..recorder import OperatorCall, Recorder
from .spans import DECLARED, FORWARD, MODULE, STEP

Range = Callable[[str], AbstractContextManager[Any]]


class Runner:
    """Runs a model: a forward without gradients, or forward, backward and a step of SGD.

    The backward starts from ones for every output with a gradient. The step's rate is 0, so that
    the weights stay what they are.
    """

    def __init__(self, model: nn.Module, inputs: tuple[Any, ...], mode: TimeMode) -> None:
        self.model, self.inputs, self.mode = model, inputs, mode
        wanted = [p for p in model.parameters() if p.requires_grad]
        train = mode == "train" and wanted
        self.optimizer = torch.optim.SGD(wanted, lr=0.0) if train else None

    def __call__(self) -> None:
        """Run once."""
        self.run(_no_range)

    def ranged(self) -> None:
        """The same, with the profiler's ranges around its phases."""
        self.run(record_function)

    def run(self, named: Range) -> None:
        """Run once, with ranges as given."""
        if self.mode == "infer":
            with torch.inference_mode(), named(FORWARD):
                self.model(*self.inputs)
            return
        with torch.enable_grad(), named(FORWARD):
            outputs = self.model(*self.inputs)
        losses = [x for x in tree_leaves(outputs) if isinstance(x, Tensor) and x.requires_grad]
        if not losses:
            raise MeasurementError("the model's output has no gradient to train with.")
        torch.autograd.backward(losses, [torch.ones_like(loss) for loss in losses])
        if self.optimizer is not None:
            with named(STEP):
                self.optimizer.step()
                self.optimizer.zero_grad(set_to_none=True)

    def step_calls(self) -> list[OperatorCall]:
        """What the optimizer's step calls; it needs gradients."""
        if self.optimizer is None:
            return []
        for parameter in self.model.parameters():
            if parameter.requires_grad:
                parameter.grad = torch.zeros_like(parameter)
        recorder = Recorder(ModuleTracker(self.model))
        with recorder:
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return recorder.calls


def _no_range(name: str) -> AbstractContextManager[Any]:
    return nullcontext()


@contextmanager
def kept(model: nn.Module) -> Iterator[None]:
    """Leave the model's buffers, gradients and mode as they were, and torch's random state."""
    buffers = [(buffer, buffer.detach().clone()) for buffer in model.buffers()]
    modes = [(module, module.training) for module in model.modules()]
    with torch.random.fork_rng(devices=[]), gradients_kept(model):
        try:
            yield
        finally:
            for module, training in modes:
                module.training = training
            with torch.no_grad():
                for buffer, saved in buffers:
                    buffer.copy_(saved)


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


_EXPECTED = (RuntimeError, MemoryError, AssertionError, NotImplementedError)

_NO_MEMORY = ("out of memory", "can't allocate memory", "not enough memory", "ALLOC_FAILED")


@contextmanager
def reported(name: str, setting: Setting, foreign: bool) -> Iterator[None]:
    """Turn what torch raises into one line that names the model and its setting.

    Somebody else's code may raise anything, and print: its prints go to standard error.
    """
    try:
        with redirect_stdout(sys.stderr) if foreign else nullcontext():
            yield
    except DatbenchError:
        raise
    except (Exception, SystemExit) as error:
        if not foreign and not isinstance(error, _EXPECTED):
            raise
        where = f"{name} at {setting.resolution}, batch {setting.batch} on {setting.device}"
        if isinstance(error, MemoryError) or any(said in str(error) for said in _NO_MEMORY):
            raise MeasurementError(f"{where}: out of memory; profile a smaller batch.") from error
        line = (str(error).splitlines() or [""])[0]
        plain = isinstance(error, _EXPECTED) and line
        reason = line if plain else f"{type(error).__name__}: {line}"
        raise MeasurementError(f"{where}: {reason}") from error
