"""One run of a model on meta tensors, with the life of every storage."""

from __future__ import annotations

from contextlib import ExitStack, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from ...errors import DatbenchError, MeasurementError, UsageError
from ...ledger import PLAIN, WITH_BACKWARD, MemoryMode, Recipe
from ...models.resolve import Spec, is_ours, resolve
from ...types import Setting
from ..count import build_for_count, quiet, unchanged
from ..modules import ModuleTracker
from .autocast import Autocast
from .checkpointing import checkpointed
from .fused import FusedAttention
from .optimizers import gradients_kept, state, stepped
from .trace import Trace
from .watcher import Watcher


def simulate(
    model: nn.Module, *inputs: Any, mode: MemoryMode = "train-forward", recipe: Recipe = PLAIN
) -> Trace:
    """Run `model`, which is on meta, on meta tensors, and follow every storage.

    The model is run as it is (`train()` or `eval()`), and is unchanged afterwards. The backward
    starts from a gradient of ones for every floating output; there is no loss. Of full steps the
    second is followed: the first makes the optimizer's state.

    Raises:
        UsageError: the model or an input is not on meta, or the mode has no use for the recipe.
        MeasurementError: a training mode, and nothing that the model returns has a gradient.
    """
    recipe = recipe.of(mode)
    given = [leaf for leaf in tree_leaves(inputs) if isinstance(leaf, Tensor)]
    if not all(t.is_meta for t in [*model.parameters(), *model.buffers(), *given]):
        raise UsageError("memory is simulated on meta: move the model and its inputs there.")
    with ExitStack() as stack:
        tracker = stack.enter_context(ModuleTracker(model))
        stack.enter_context(unchanged(model))
        stack.enter_context(quiet())
        stack.enter_context(gradients_kept(model))
        stack.enter_context(checkpointed(model, recipe.checkpointing))
        casts = None if recipe.autocast is None else Autocast(getattr(torch, recipe.autocast))
        if casts is not None:
            stack.enter_context(casts.installed())
        stack.enter_context(FusedAttention(None if casts is None else casts.lowered))
        optimizer = None
        if recipe.optimizer is not None:
            with Watcher(tracker) as first:
                _run(model, inputs, "train", first, casts)
            optimizer = stepped(recipe.optimizer, model)
        watcher = Watcher(tracker)
        watcher.mark(model.parameters(), "parameters")
        watcher.mark(model.buffers(), "buffers")
        watcher.mark(given, "inputs")
        if optimizer is not None:
            watcher.mark(state(optimizer), "optimizer")
        stack.enter_context(watcher)
        outputs = _run(model, inputs, mode, watcher, casts)
        if optimizer is not None:
            watcher.phase = "step"
            optimizer.step()
        found = watcher.trace()
        del outputs  # alive until here, as a caller's are
        return found


def _run(
    model: nn.Module,
    inputs: tuple[Any, ...],
    mode: MemoryMode,
    watcher: Watcher,
    casts: Autocast | None,
) -> list[Tensor]:
    training = mode != "inference"
    watcher.phase = "forward"
    with torch.set_grad_enabled(training), nullcontext() if casts is None else casts.casting():
        outputs = [leaf for leaf in tree_leaves(model(*inputs)) if isinstance(leaf, Tensor)]
    watcher.mark(outputs, "outputs")
    watcher.forward_ended(keeps=training)
    if training:
        losses = with_gradients(outputs)
        if mode in WITH_BACKWARD:
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
        raise MeasurementError("the model's output has no gradient; use --mode inference.")
    return losses


def simulate_model(
    model: str | Spec, setting: Setting, mode: MemoryMode, recipe: Recipe = PLAIN
) -> tuple[nn.Module, Trace]:
    """Build a model on meta and simulate it on an image of the setting's size.

    Raises:
        UnknownNameError: no such model.
        UsageError: the recipe does not suit the mode, the dtype or the model.
        MeasurementError: the model does not run with this setting.
    """
    spec = resolve(model) if isinstance(model, str) else model
    if recipe.autocast is not None and setting.dtype != "float32":
        raise UsageError(f"autocast casts float32; a model in {setting.dtype} takes no autocast.")
    module = build_for_count(spec, setting).train(mode != "inference")
    size = setting.resolution
    dtype: torch.dtype = getattr(torch, setting.dtype)
    image = torch.empty((setting.batch, 3, size.height, size.width), dtype=dtype, device="meta")
    try:
        return module, simulate(module, image, mode=mode, recipe=recipe)
    except DatbenchError:
        raise
    except (Exception, SystemExit) as error:
        expected = isinstance(error, (RuntimeError, MemoryError, AssertionError))
        if is_ours(spec) and not expected:
            raise
        line = (str(error).splitlines() or [""])[0]
        reason = line if expected and line else f"{type(error).__name__}: {line}"
        if "meta tensors" in reason:
            reason += "; its work depends on values: measure it with --device cpu"
        raise MeasurementError(f"{spec.name} at {size}: {reason}") from error
