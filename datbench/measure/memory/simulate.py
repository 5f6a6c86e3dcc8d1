"""One run of a model on meta tensors, with the life of every storage."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from ...errors import MeasurementError, UsageError
from ...ledger import MemoryMode
from ...models.resolve import Spec, resolve
from ...types import Setting
from ..count import build_for_count, quiet, unchanged
from ..modules import ModuleTracker
from .fused import FusedAttention
from .trace import Trace
from .watcher import Watcher


def simulate(model: nn.Module, *inputs: Any, mode: MemoryMode = "train-forward") -> Trace:
    """Run `model`, which is on meta, on meta tensors, and follow every storage.

    The model is run as it is (`train()` or `eval()`), and is unchanged afterwards. The backward
    starts from a gradient of ones for every floating output; there is no loss.

    Raises:
        UsageError: the model or an input is not on meta.
        MeasurementError: a training mode, and nothing that the model returns has a gradient.
    """
    given = [leaf for leaf in tree_leaves(inputs) if isinstance(leaf, Tensor)]
    if not all(t.is_meta for t in [*model.parameters(), *model.buffers(), *given]):
        raise UsageError("memory is simulated on meta: move the model and its inputs there.")
    with ExitStack() as stack:
        tracker = stack.enter_context(ModuleTracker(model))
        stack.enter_context(unchanged(model))
        stack.enter_context(quiet())
        stack.enter_context(gradients_kept(model))
        stack.enter_context(FusedAttention())
        watcher = Watcher(tracker)
        watcher.mark(model.parameters(), "parameters")
        watcher.mark(model.buffers(), "buffers")
        watcher.mark(given, "inputs")
        stack.enter_context(watcher)
        outputs = _run(model, inputs, mode, watcher)
        found = watcher.trace()
        del outputs  # alive until here, as a caller's are
        return found


def _run(
    model: nn.Module, inputs: tuple[Any, ...], mode: MemoryMode, watcher: Watcher
) -> list[Tensor]:
    training = mode != "inference"
    watcher.phase = "forward"
    with torch.set_grad_enabled(training):
        outputs = [leaf for leaf in tree_leaves(model(*inputs)) if isinstance(leaf, Tensor)]
    watcher.mark(outputs, "outputs")
    watcher.forward_ended(keeps=training)
    if training:
        losses = with_gradients(outputs)
        if mode == "train":
            watcher.phase = "backward"
            torch.autograd.backward(losses, [torch.ones_like(loss) for loss in losses])
            watcher.mark((p.grad for p in model.parameters() if p.grad is not None), "gradients")
    return outputs


def with_gradients(outputs: list[Tensor]) -> list[Tensor]:
    """The outputs that a backward can start from.

    Raises:
        MeasurementError: there are none.
    """
    losses = [tensor for tensor in outputs if tensor.requires_grad]
    if not losses:
        raise MeasurementError("the model's output has no gradient; use the mode inference.")
    return losses


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


def simulate_model(
    model: str | Spec, setting: Setting, mode: MemoryMode
) -> tuple[nn.Module, Trace]:
    """Build a model on meta and simulate it on an image of the setting's size.

    Raises:
        UnknownNameError: no such model.
        MeasurementError: the model does not run with this setting.
    """
    spec = resolve(model) if isinstance(model, str) else model
    module = build_for_count(spec, setting).train(mode != "inference")
    size = setting.resolution
    dtype: torch.dtype = getattr(torch, setting.dtype)
    image = torch.empty((setting.batch, 3, size.height, size.width), dtype=dtype, device="meta")
    try:
        return module, simulate(module, image, mode=mode)
    except (RuntimeError, MemoryError, AssertionError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise MeasurementError(f"{spec.name} at {size}: {reason}") from error
