"""torch.optim's optimizers as a full step runs them, and the state that they keep."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ...errors import MeasurementError
from ...ledger import Optimizer

if TYPE_CHECKING:
    from torch.optim import Optimizer as TorchOptimizer


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
