"""Counting one run of a model, forward and backward, and leaving the model as it was."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import (
    AbstractContextManager,
    ExitStack,
    contextmanager,
    nullcontext,
    redirect_stdout,
)
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.utils._pytree import tree_leaves

from ..errors import DatbenchError, MeasurementError
from ..models.build import build
from ..models.declared import observing
from ..models.detectors.dense import FourMaps
from ..models.pyramid import PyramidBackbone
from ..models.resolve import Spec, is_ours, resolve
from ..types import Setting
from .modules import ModuleTracker
from .operators import ShapesOnly
from .recorder import Recorder
from .stages import stage_of
from .views import Count


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
        stack.enter_context(unchanged(model))
        recorder = Recorder(tracker)
        stack.enter_context(observing(recorder))
        with torch.no_grad(), below_autograd(), recorder, quiet():
            model(*inputs)
        if backward:
            _count_backward(model, inputs, recorder)
    paths = {call.module for call in recorder.calls}
    return Count(tuple(recorder.calls), {path: stage_of(model, path) for path in paths})


def _count_backward(model: nn.Module, inputs: tuple[Any, ...], recorder: Recorder) -> None:
    """Run the forward once more to make a graph, then record its backward."""
    wanted: list[Tensor] = [p for p in model.parameters() if p.requires_grad]
    wanted += [x for x in inputs if isinstance(x, Tensor) and x.requires_grad]
    before = len(recorder.calls)
    try:
        losses = _losses(model, inputs, recorder)
        # autograd.grad, not backward(): it touches no .grad and fires no hook of a parameter.
        with recorder:
            torch.autograd.grad(losses, wanted, _ones(losses), allow_unused=True)
    except RuntimeError as error:
        if "use_reentrant" not in str(error):
            raise
        # Re-entrant checkpointing allows backward() alone.
        del recorder.calls[before:]
        losses = _losses(model, inputs, recorder)
        with recorder, _gradients_kept(wanted):
            torch.autograd.backward(losses, _ones(losses))


def _losses(model: nn.Module, inputs: tuple[Any, ...], recorder: Recorder) -> list[Tensor]:
    """Every output with a gradient, from a forward whose graph the recorder knows."""
    recorder.phase = "forward"
    with torch.enable_grad(), recorder.linking(), recorder, quiet():
        outputs = model(*inputs)
    losses = [
        leaf for leaf in tree_leaves(outputs) if isinstance(leaf, Tensor) and leaf.requires_grad
    ]
    if not losses:
        raise MeasurementError("the model's output has no gradient to count a backward of.")
    recorder.phase = "backward"
    return losses


def _ones(losses: list[Tensor]) -> list[Tensor]:
    return [torch.ones_like(loss) for loss in losses]


@contextmanager
def _gradients_kept(tensors: list[Tensor]) -> Iterator[None]:
    kept = [(tensor, tensor.grad) for tensor in tensors]
    for tensor in tensors:
        tensor.grad = None
    try:
        yield
    finally:
        for tensor, gradient in kept:
            tensor.grad = gradient


def below_autograd() -> AbstractContextManager[Any]:
    """Dispatch below autograd, where composite operators arrive whole."""
    guard: AbstractContextManager[Any] = torch._C._AutoDispatchBelowAutograd()
    return guard


@contextmanager
def unchanged(model: nn.Module) -> Iterator[None]:
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
def quiet() -> Iterator[None]:
    """Without the warnings that counting itself provokes."""
    with warnings.catch_warnings():
        # A checkpointed module runs once without gradients here.
        warnings.filterwarnings("ignore", "None of the inputs have requires_grad")
        # Compiled modules see the tracker's global hooks, and run eagerly.
        warnings.filterwarnings("ignore", "Using `torch.compile")
        yield


@contextmanager
def _eager() -> Iterator[None]:
    """Run compiled modules as they are written; costs nothing where none was ever compiled."""
    if "torch._dynamo" not in sys.modules:
        yield
        return
    with torch.compiler.set_stance("force_eager"):
        yield


def count_model(model: str | Spec, setting: Setting) -> Count:
    """Build a model in evaluation mode and count it.

    Args:
        model: any name that `datbench.models.resolve` knows, such as ``dat_t``,
            ``timm:swin_tiny_patch4_window7_224`` or ``package.module:factory``, or its spec.

    Raises:
        UnknownNameError: no such model.
        MeasurementError: the device is not there, or the model does not run with this setting.
    """
    spec = resolve(model) if isinstance(model, str) else model
    return count_built(spec.name, build_for_count(spec, setting), setting)


def build_for_count(model: str | Spec, setting: Setting) -> nn.Module:
    """The model in evaluation mode on the setting's device; on meta, without initialising."""
    spec = resolve(model) if isinstance(model, str) else model
    foreign = not is_ours(spec)
    try:
        with _reported(spec.name, setting, foreign), _on_meta(setting):
            return _built(spec, setting, setting.device)
    except MeasurementError:
        if setting.device != "meta" or not foreign:
            raise
    # Others' models may read values while they are built, which meta tensors do not have.
    with _reported(spec.name, setting, foreign):
        return _built(spec, setting, "cpu").to("meta")


def _built(spec: Spec, setting: Setting, device: str) -> nn.Module:
    dtype: torch.dtype = getattr(torch, setting.dtype)
    module = build(
        spec,
        setting.resolution,
        features=setting.features,
        attention=setting.attention,
        device=device,
    ).eval()
    if any(is_lazy(parameter) for parameter in module.parameters()):
        with torch.no_grad(), quiet():
            module(_image(setting, device))  # lazy modules learn their sizes from an input
    return module if dtype == torch.float32 else module.to(dtype)


def count_anywhere(spec: Spec, setting: Setting) -> tuple[nn.Module, Count]:
    """Build and count a model; one of others that needs real values on meta, on the CPU instead.

    Raises:
        DatbenchError: it does not run.
    """
    try:
        module = build_for_count(spec, setting)
        return module, count_built(spec.name, module, setting)
    except MeasurementError:
        if setting.device != "meta" or is_ours(spec):
            raise
    real = replace(setting, device="cpu")
    module = build_for_count(spec, real)
    return module, count_built(spec.name, module, real)


def _on_meta(setting: Setting) -> AbstractContextManager[Any]:
    return ShapesOnly() if setting.device == "meta" else nullcontext()


def count_built(name: str, module: nn.Module, setting: Setting) -> Count:
    """Count a model that is built already, on an image of the setting's size."""
    inner = module.backbone if isinstance(module, FourMaps) else module
    foreign = not isinstance(inner, PyramidBackbone)
    with _reported(name, setting, foreign):
        image = _image(setting, setting.device, getattr(torch, setting.dtype))
        return count(module, image, backward=setting.backward)


def _image(setting: Setting, device: str, dtype: torch.dtype = torch.float32) -> Tensor:
    """A batch of images of zeros, (B, 3, H, W); on meta, of nothing."""
    resolution = setting.resolution
    shape = (setting.batch, 3, resolution.height, resolution.width)
    make = torch.empty if device == "meta" else torch.zeros
    return make(shape, dtype=dtype, device=device)


@contextmanager
def _reported(name: str, setting: Setting, foreign: bool) -> Iterator[None]:
    """Turn what torch raises into one line that names the model and its setting.

    Somebody else's code may raise anything, and print: its prints go to standard error.
    """
    expected = (RuntimeError, MemoryError, AssertionError, NotImplementedError)
    try:
        with redirect_stdout(sys.stderr) if foreign else nullcontext():
            yield
    except DatbenchError:
        raise
    except (Exception, SystemExit) as error:
        if not foreign and not isinstance(error, expected):
            raise
        line = (str(error).splitlines() or [""])[0]
        reason = line if isinstance(error, expected) and line else f"{type(error).__name__}: {line}"
        raise MeasurementError(
            f"{name} at {setting.resolution} on {setting.device}: {reason}"
        ) from error
