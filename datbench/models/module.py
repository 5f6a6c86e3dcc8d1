"""A module that is there already, with the inputs that it is run on."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.utils._pytree import tree_leaves

from ..errors import UnknownNameError, UsageError
from ..inputs import Inputs
from ..setting import MAX_BATCH, MAX_SIDE, Attention, Resolution
from .external import SIDE


@dataclass(frozen=True)
class ModuleSpec:
    """A module in place of a name. It is given itself, or a copy where it is wanted elsewhere."""

    module: nn.Module
    inputs: tuple[Any, ...] = ()  # of its forward. Without any: an image
    named: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.module, nn.Module):
            raise UsageError(
                f"a {type(self.module).__name__} is not a model: give a name or a torch.nn.Module."
            )
        takes = inspect.signature(self.module.forward).parameters
        if any(each.kind is each.VAR_KEYWORD for each in takes.values()):
            return
        for name in self.named:
            if name not in takes:
                raise UnknownNameError.among(f"argument of {self.name}", name, takes)

    @property
    def name(self) -> str:
        """The class's."""
        return type(self.module).__name__

    @property
    def resolution(self) -> Resolution:
        """The first image's among the inputs, (..., H, W); without any a square of 224."""
        for tensor in self._tensors():
            if tensor.ndim >= 4 and all(1 <= side <= MAX_SIDE for side in tensor.shape[-2:]):
                return Resolution(tensor.shape[-1], tensor.shape[-2])
        return Resolution(SIDE)

    @property
    def batch(self) -> int:
        """The first dimension of the first input that has two or more; 0 without inputs."""
        firsts = (tensor.shape[0] for tensor in self._tensors() if tensor.ndim > 1)
        return min(max(next(firsts, 1), 1), MAX_BATCH) if self.inputs or self.named else 0

    @property
    def words(self) -> tuple[str, ...]:
        """What it is given, as ``--input`` has it; nothing where size and batch say it."""
        said = [_words(each) for each in self.inputs]
        said += [f"{name}={_words(each)}" for name, each in self.named.items()]
        size = self.resolution
        alone = [f"float:{self.batch}x3x{size.height}x{size.width}"]
        return () if said == alone else tuple(said)

    @property
    def device(self) -> str:
        """Where its parameters are."""
        return next((str(each.device) for each in self.module.parameters()), "cpu")

    def _tensors(self) -> list[Tensor]:
        leaves = tree_leaves((self.inputs, dict(self.named)))
        return [leaf for leaf in leaves if isinstance(leaf, Tensor)]

    def build(self, resolution: Resolution, features: bool, attention: Attention) -> nn.Module:
        """The module, or a copy on the default device, with its inputs in `example_inputs`."""
        if features:
            raise UsageError(f"{self.name}: features is for datbench's and timm's models.")
        model, device = self.module, torch.empty(0).device
        if device.type == "meta":
            model = without_values(model)
        elif any(t.device != device for t in (*model.parameters(), *model.buffers())):
            model = copy.deepcopy(model).to(device)
        if self.inputs or self.named:
            example: Any = Inputs(self.inputs, self.named)
            model.example_inputs = example
        return model


def without_values(model: nn.Module) -> nn.Module:
    """A copy on meta; tensors that are shared stay shared, and `model` stays as it is.

    No value is copied on the way, which would take memory of the device.
    """
    known: dict[int, Any] = {}
    # A tensor that is neither parameter nor buffer, as torch's older weight_norm leaves one, too.
    plain = (value for module in model.modules() for value in vars(module).values())
    tensors = (value for value in plain if isinstance(value, Tensor))
    for tensor in (*model.parameters(), *model.buffers(), *tensors):
        if not is_lazy(tensor):
            empty = tensor.detach() if tensor.is_meta else torch.empty_like(tensor, device="meta")
            if isinstance(tensor, nn.Parameter):
                empty = nn.Parameter(empty, requires_grad=tensor.requires_grad)
            known[id(tensor)] = empty
    return copy.deepcopy(model, known)


def _words(value: Any) -> str:
    """An argument as ``--input`` has it: ``float:1x3x224x224``."""
    if isinstance(value, Tensor):
        dtype = str(value.dtype).removeprefix("torch.")
        return f"{'float' if dtype == 'float32' else dtype}:{'x'.join(map(str, value.shape))}"
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{name}={_words(each)}' for name, each in value.items())}}}"
    if isinstance(value, (list, tuple)):
        said = ", ".join(map(_words, value))
        return f"[{said}]" if isinstance(value, list) else f"({said})"
    return f"{value!r:.60}"
