"""The process in which one configuration runs: `python -m datbench.measure.memory.gpu_worker`."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from ...errors import DatbenchError, UsageError
from ...gpu_memory import Held
from ...ledger import WITH_BACKWARD, Autocast, MemoryMode, Recipe
from ...types import Resolution, Setting
from ..count import build_for_count
from ..serving import one_line, serve
from ..shortage import memory_error, shortage
from .checkpointing import checkpointed
from .held import Cuda, OnCpu, OnGpu
from .optimizers import state, stepped
from .simulate import with_gradients


def work(job: dict[str, Any], cuda: Cuda | None = None) -> dict[str, Any]:
    """Run one configuration. Whatever it raises is an outcome.

    Args:
        job: ``model``, ``setting``, ``mode``, ``recipe``, and ``limit`` (bytes) or none.
        cuda: torch's, unless a test brings its own.
    """
    given = dict(job["setting"])
    setting = Setting(Resolution(**given.pop("resolution")), **given)
    on_gpu = torch.device(setting.device).type == "cuda" or cuda is not None
    here: OnGpu | OnCpu | None = None
    try:
        if job.get("limit") is not None and cuda is None:
            _limit(setting.device, job["limit"])
        here = OnGpu.at(setting.device, cuda) if on_gpu else OnCpu()
        return _measured(here, job["model"], setting, job["mode"], Recipe(**job["recipe"]))
    except (Exception, SystemExit) as error:
        cause = memory_error(error, on_gpu)
        told = {"environment": asdict(here.environment), "others": here.others} if here else {}
        if cause is not None:
            return {"outcome": "out of memory", "reason": shortage(cause), **told}
        reason = str(error) if isinstance(error, DatbenchError) else one_line(error)
        return {"outcome": "failed", "reason": reason, **told}


def _limit(device: str, limit: int) -> None:
    """Let the allocator have so much of the GPU, as if it were a smaller one.

    Raises:
        UsageError: the GPU has less.
    """
    total = torch.cuda.get_device_properties(device).total_memory
    if limit > total:
        raise UsageError(f"this GPU has {total} bytes; {limit} cannot be tried on it.")
    torch.cuda.set_per_process_memory_fraction(limit / total, device)


def _measured(
    here: OnGpu | OnCpu, name: str, setting: Setting, mode: MemoryMode, recipe: Recipe
) -> dict[str, Any]:
    model = build_for_count(name, setting).train(mode != "inference")
    size = setting.resolution
    dtype: torch.dtype = getattr(torch, setting.dtype)
    shape = (setting.batch, 3, size.height, size.width)
    image = torch.zeros(shape, dtype=dtype, device=setting.device)
    here.built()
    with checkpointed(model, recipe.checkpointing):
        iterate(model, image, mode, recipe.autocast)  # what it returns dies here
        optimizer = stepped(recipe.optimizer, model) if recipe.optimizer else None
        model.zero_grad(set_to_none=True)
        before = held_before(model, image, optimizer)
        here.begin()
        held = iterate(model, image, mode, recipe.autocast)
        if optimizer is not None:
            optimizer.step()
        found = here.end(before)
        del held  # alive until here, as a caller's are
    return here.completed(found, model, image, mode, recipe).as_json()


def iterate(
    model: nn.Module, image: Tensor, mode: MemoryMode, autocast: Autocast | None
) -> list[Tensor]:
    """One iteration up to its gradients; the tensors that the model returned.

    The backward starts from ones for every output with a gradient, as the simulation's does.

    Raises:
        MeasurementError: a training mode, and no output has a gradient.
    """
    with torch.set_grad_enabled(mode != "inference"), _casting(image.device, autocast):
        held = [leaf for leaf in tree_leaves(model(image)) if isinstance(leaf, Tensor)]
    if mode == "inference":
        return held
    losses = with_gradients(held)
    if mode in WITH_BACKWARD:
        torch.autograd.backward(losses, [torch.ones_like(loss) for loss in losses])
    return held


def _casting(device: torch.device, autocast: Autocast | None) -> AbstractContextManager[Any]:
    if autocast is None:
        return nullcontext()
    return torch.autocast(device.type, getattr(torch, autocast))


def held_before(
    model: nn.Module, image: Tensor, optimizer: torch.optim.Optimizer | None
) -> dict[Held, int]:
    """Bytes of the storages that are there before the run, each once and on the image's device."""
    groups: dict[Held, Iterable[Tensor]] = {
        "parameters": model.parameters(),
        "buffers": model.buffers(),
        "inputs": [image],
    }
    if optimizer is not None:
        groups["optimizer"] = state(optimizer)
    seen: set[int] = set()
    found = dict.fromkeys(groups, 0)
    for part, members in groups.items():
        for tensor in members:
            if tensor.device != image.device:
                continue  # AdamW counts its steps on the host
            storage = tensor.untyped_storage()
            if storage._cdata not in seen:
                seen.add(storage._cdata)
                found[part] += storage.nbytes()
    return found


def main() -> int:
    """Set this process up, and do what it is asked."""
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    # The simulation runs without it too; it exists on some devices only.
    torch.backends.mha.set_fastpath_enabled(False)
    return serve(work)


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code)  # no model's exit handlers, and no wait for the reading thread
