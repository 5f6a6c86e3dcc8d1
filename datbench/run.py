"""A model that is ready to be timed, and the call that is timed."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, redirect_stdout
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.utils._pytree import tree_leaves

from .counting.operators import ShapesOnly
from .errors import DatbenchError, MeasurementError
from .models.resolve import Spec, build, is_ours, resolve
from .setting import How, Optimizer, Setting

if TYPE_CHECKING:
    from torch.optim import Optimizer as TorchOptimizer


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


def _on_meta(setting: Setting) -> AbstractContextManager[Any]:
    return ShapesOnly() if setting.device == "meta" else nullcontext()


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


SEED = 0
"""Of the images, so that every process sees the same."""


@dataclass(frozen=True)
class Ready:
    """A model on its device, in its mode, with a batch of images.

    Args:
        call: what is timed: a forward; or forward, backward and a step of SGD.
    """

    model: nn.Module
    image: Tensor
    call: Callable[[], object]


def ready(name: str, setting: Setting, how: How) -> Ready:
    """Build a model and a batch for it.

    Raises:
        DatbenchError: the model could not be built.
    """
    model = build_for_count(name, setting).train(how.mode == "train")
    image = images(setting)
    if how.channels_last:
        model = model.to(memory_format=torch.channels_last)
        image = image.contiguous(memory_format=torch.channels_last)
    return Ready(model, image, call_of(torch.compile(model) if how.compile else model, image, how))


def images(setting: Setting) -> Tensor:
    """A batch of normally distributed images, (B, 3, H, W), the same in every process."""
    size = setting.resolution
    generator = torch.Generator().manual_seed(SEED)
    drawn = torch.randn(setting.batch, 3, size.height, size.width, generator=generator)
    return drawn.to(setting.device, getattr(torch, setting.dtype))


def call_of(model: Callable[[Tensor], object], image: Tensor, how: How) -> Callable[[], object]:
    """What is timed, of a module that is in its mode already.

    Raises:
        MeasurementError: training, and there is nothing to train.
    """
    if how.mode == "infer":
        return lambda: _inferred(model, image)
    assert isinstance(model, nn.Module)
    module: nn.Module = model
    # At a rate of 0 a step reads and writes all that it would, and no weight runs away to values
    # that take another time.
    trained = [p for p in module.parameters() if p.requires_grad]
    if not trained:
        raise MeasurementError("no parameter of the model has a gradient; use --mode infer.")
    optimizer = torch.optim.SGD(trained, lr=0.0)
    return lambda: _trained(module, image, optimizer)


def _inferred(model: Callable[[Tensor], object], image: Tensor) -> object:
    with torch.inference_mode():
        return model(image)


def _trained(model: nn.Module, image: Tensor, optimizer: torch.optim.Optimizer) -> None:
    """One iteration. The backward starts from ones for every output, as its count does."""
    optimizer.zero_grad(set_to_none=True)
    outputs = [leaf for leaf in tree_leaves(model(image)) if isinstance(leaf, Tensor)]
    losses = [output for output in outputs if output.requires_grad]
    if not losses:
        raise MeasurementError("no output of the model has a gradient; use --mode infer.")
    torch.autograd.backward(losses, [torch.ones_like(loss) for loss in losses])
    optimizer.step()


# How much memory a tensor may still take, before the system ends the process that asks.


def available_bytes(device: torch.device) -> int | None:
    """Free memory where asking for more would not fail but kill; None on a GPU, which says no."""
    if device.type != "cpu":
        return None
    try:
        with open("/proc/meminfo", encoding="ascii") as lines:
            for line in lines:
                name, _, value = line.partition(":")
                if name == "MemAvailable":
                    return int(value.split()[0]) * 1024
    except (OSError, ValueError):
        pass
    return None


# torch.optim's optimizers as a full step runs them, and the state that they keep.


def stepped(name: Optimizer, model: nn.Module) -> TorchOptimizer:
    """The optimizer after its first step, which made its state; the gradients are gone.

    It holds the parameters that have a gradient. Its learning rate is 0, so that every tensor of a
    step is made and no parameter changes.

    Raises:
        MeasurementError: there are none.
    """
    parameters = [parameter for parameter in model.parameters() if parameter.grad is not None]
    if not parameters:
        raise MeasurementError("no parameter of the model has a gradient; use another mode.")
    optimizer = _made(name, parameters)
    optimizer.step()
    optimizer.zero_grad()
    return optimizer


def _made(name: Optimizer, parameters: list[nn.Parameter]) -> TorchOptimizer:
    """As torch makes it for CUDA, where `foreach` is the default: temporaries of all parameters
    live at once.
    """
    if name == "adamw":
        return torch.optim.AdamW(parameters, lr=0.0, foreach=True)
    momentum = 0.9 if name == "sgd-momentum" else 0.0
    return torch.optim.SGD(parameters, lr=0.0, momentum=momentum, foreach=True)


def state(optimizer: TorchOptimizer) -> list[Tensor]:
    """Every tensor that it keeps between steps, step counts on the host included."""
    return [
        tensor
        for kept in optimizer.state.values()
        for tensor in kept.values()
        if isinstance(tensor, Tensor)
    ]


@contextmanager
def gradients_kept(model: nn.Module) -> Iterator[None]:
    """Parameters without gradients inside, with those that they had afterwards."""
    kept = [(parameter, parameter.grad) for parameter in model.parameters()]
    for parameter, _ in kept:
        parameter.grad = None
    try:
        yield
    finally:
        for parameter, gradient in kept:
            parameter.grad = gradient
