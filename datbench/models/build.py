"""From a name or a spec to a module."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from ..errors import UnknownNameError
from ..types import Attention, Resolution
from .comparison import COMPARISONS
from .config import Pyramid
from .dat import REGISTRY
from .detectors.heads import JOINT
from .pyramid import PyramidBackbone
from .resolve import Spec
from .spec import ModelSpec


def create_model(
    name: str | ModelSpec,
    *,
    features_only: bool = False,
    attention: Attention = "eager",
    num_classes: int | None = None,
    drop_path: float | None = None,
    layer_scale: float | None = None,
    device: torch.device | str | None = None,
) -> PyramidBackbone:
    """Build a variant with freshly initialised weights.

    Args:
        name: a registered name such as ``dat_t`` (see `datbench.list_models`), or a spec.
        features_only: four normalised maps, strides 4 to 32, instead of logits.
        attention: ``eager`` (the published code's tensors) or ``sdpa`` (fused).
        num_classes: width of the head; 1000 unless told.
        drop_path: rate of the last block's stochastic depth, training only; 0 unless told.
        layer_scale: initial LayerScale; the published models have none.
        device: where to build; ``meta`` builds without memory. Torch's default device unless told,
            also that of a ``with torch.device(...)`` around.

    Returns:
        A module in training mode, as `torch.nn.Module` starts.

    Raises:
        UnknownNameError: no such variant, or a model that is none of DAT's (`build` makes those).
    """
    spec = name if isinstance(name, ModelSpec) else _variant(name)
    config: Pyramid = spec.config
    if num_classes is not None:
        config = replace(config, classes=num_classes)
    if drop_path is not None:
        config = replace(config, drop_path=drop_path)
    if layer_scale is not None:
        config = replace(config, layer_scale=layer_scale)
    # In torch 2.6 `get_default_device` does not see `with torch.device(...)`.
    where: AbstractContextManager[Any] = nullcontext() if device is None else torch.device(device)
    with where:
        return PyramidBackbone(config, features=features_only, attention=attention)


def _variant(name: str) -> ModelSpec:
    if name in COMPARISONS.names() or any(mark in name for mark in (":", JOINT)):
        raise UnknownNameError(
            f"create_model builds what datbench.list_models() names, and {name} is none of them: "
            f"datbench.models.build.build(datbench.models.resolve.resolve({name!r}), "
            "datbench.Resolution(224, 224)) builds any model for an input."
        )
    return REGISTRY.get(name)


def build(
    spec: Spec,
    resolution: Resolution,
    *,
    features: bool = False,
    attention: Attention = "eager",
    device: torch.device | str = "cpu",
) -> nn.Module:
    """Build any model that datbench can name, for inputs of this size.

    A model of others that reads values while it is built cannot be made on ``meta``; it is made on
    the CPU and moved.

    Raises:
        DatbenchError: it cannot be built; the message says why.
    """
    if isinstance(spec, ModelSpec):
        return create_model(spec, features_only=features, attention=attention, device=device)
    with torch.device(device):
        return spec.build(resolution, features, attention)
