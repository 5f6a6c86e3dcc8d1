"""Tiny models that several tests use, and the sizes of their tensors in bytes."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from datbench.models.config import Deformable, Stage
from datbench.models.dat import REGISTRY
from datbench.models.spec import ModelSpec

WEIGHTS = 4 * (16 * 64 + 64 + 64 * 16 + 16)
INPUT, OUTPUT, HIDDEN = 4 * 8 * 16, 4 * 8 * 16, 4 * 8 * 64
"""Of `mlp`, whose input is (8, 16)."""


class Net(nn.Module):
    """A module of the layers that its class names, each by what makes it."""

    layers: ClassVar[dict[str, Callable[[], nn.Module]]] = {}

    def __init_subclass__(cls, **layers: Callable[[], nn.Module]) -> None:
        cls.layers = layers

    def __init__(self) -> None:
        super().__init__()
        for name, make in self.layers.items():
            setattr(self, name, make())


def conv() -> nn.Conv2d:
    return nn.Conv2d(3, 8, 3, padding=1, bias=False)


class Call(nn.Module):
    """A module around a function, with the layer that it uses."""

    def __init__(self, function: Callable[..., Any], layer: nn.Module | None = None) -> None:
        super().__init__()
        self.function = function
        self.layer = layer

    def forward(self, *inputs: Any) -> Any:
        return self.function(*inputs)


def mlp(device: str = "meta") -> nn.Sequential:
    """Two layers with a GELU between them."""
    with torch.device(device):
        return nn.Sequential(nn.Linear(16, 64), nn.GELU(), nn.Linear(64, 16))


def image(*shape: int) -> Tensor:
    """An input on meta."""
    return torch.empty(shape, device="meta")


def narrow(name: str) -> ModelSpec:
    """A published model whose heads have four channels: the same blocks, heads and groups."""
    stages = [replace(stage, dim=4 * stage.heads) for stage in REGISTRY.get(name).config.stages]
    return _with_stages(name, stages)


def _with_stages(name: str, stages: list[Stage]) -> ModelSpec:
    spec = REGISTRY.get(name)
    return replace(spec, config=replace(spec.config, stages=tuple(stages)))


def short(name: str) -> ModelSpec:
    """A published model with each sort of block once a stage, at a third or half of its width.

    It runs the same code as the model: DAT++-T's 26 blocks are 7 here.
    """
    published = REGISTRY.get(name).config.stages
    narrower = 3 if published[0].heads % 3 == 0 else 2

    def block(mixer: object) -> object:
        deformable = isinstance(mixer, Deformable)
        return replace(mixer, groups=max(mixer.groups // narrower, 1)) if deformable else mixer

    stages = [
        Stage(s.dim // narrower, s.heads // narrower, tuple(map(block, dict.fromkeys(s.blocks))))
        for s in published
    ]
    return _with_stages(name, stages)
