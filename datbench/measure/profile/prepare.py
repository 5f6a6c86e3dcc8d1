"""A model made ready for a profile or a trace; what cannot be profiled is refused first."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from ... import units
from ...errors import MeasurementError, UsageError
from ...models.resolve import Spec, resolve
from ...models.spec import ModelSpec
from ...timings import TimeMode
from ...types import Setting
from ..complexity.memory import available_bytes
from ..count import build_for_count, count_model
from .runner import Runner, kept, reported

_MODEST = 0.005
"""Of the free memory: for images smaller than that no operator is looked at."""


def check(setting: Setting, threads: int | None, budget: float) -> None:
    """Refuse what cannot be measured.

    Raises:
        UsageError: a device without values, no thread, or no time.
    """
    if setting.device == "meta":
        raise UsageError("a profile is of a run: take --device cpu or cuda; meta runs nothing.")
    if threads is not None and threads < 1:
        raise UsageError(f"threads {threads}: write a number from 1.")
    if not 0 < budget < float("inf"):
        raise UsageError(f"budget {budget:g}: write a number of seconds above 0.")


def check_memory(spec: Spec, setting: Setting) -> None:
    """Refuse a batch for which the system would end the process instead of refusing memory.

    Raises:
        MeasurementError: the images, or the tensors of one operator, are larger than what is free.
    """
    free = available_bytes(torch.device(setting.device))
    if free is None:
        return
    size = setting.resolution
    images = 3 * size.height * size.width * setting.batch
    images *= getattr(torch, setting.dtype).itemsize
    if images < _MODEST * free:
        return
    largest = 2 * images
    if images <= free:
        with suppress(MeasurementError):  # some models of others do not run on meta
            calls = count_model(spec, replace(setting, device="meta", backward=False)).calls
            largest = max(call.bytes_read + call.bytes_written for call in calls)
    if largest > free:
        raise MeasurementError(
            f"{spec.name} at {size}, batch {setting.batch} on {setting.device}: out of memory: "
            f"one operator takes {units.size(largest)}, {units.size(free)} are free; profile a "
            "smaller batch."
        )


@contextmanager
def running(
    model: str | Spec, setting: Setting, mode: TimeMode, channels_last: bool
) -> Iterator[tuple[Spec, Runner]]:
    """A model built and ready to run; what goes wrong meanwhile becomes one line."""
    spec = resolve(model) if isinstance(model, str) else model
    built = build_for_count(spec, replace(setting, backward=False)).train(mode == "train")
    with reported(spec.name, setting, not isinstance(spec, ModelSpec)):
        image = _image(setting)
        if channels_last:
            built, image = _channels_last(built), image.to(memory_format=torch.channels_last)
        with kept(built):
            yield spec, Runner(built, (image,), mode)


def _channels_last(model: nn.Module) -> nn.Module:
    to: Any = model.to  # torch does not type this form
    last: nn.Module = to(memory_format=torch.channels_last)
    return last


def _image(setting: Setting) -> Tensor:
    """A batch of random images, the same every time, (B, 3, H, W)."""
    size = setting.resolution
    shape = (setting.batch, 3, size.height, size.width)
    dtype: torch.dtype = getattr(torch, setting.dtype)
    random = torch.Generator().manual_seed(0)
    return torch.randn(shape, generator=random).to(setting.device, dtype)


@contextmanager
def threads_set(wanted: int | None) -> Iterator[None]:
    """So many threads an operator meanwhile; torch's own number if None."""
    before = torch.get_num_threads()
    torch.set_num_threads(wanted or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
