"""A model that is ready to be timed, and the call that is timed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from ...errors import MeasurementError
from ...timings import How
from ...types import Setting
from ..count import build_for_count

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
