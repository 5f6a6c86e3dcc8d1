"""From what a user types to what can be built. Free of torch until something is built.

=============================  ============================================================
name                           model
=============================  ============================================================
``dat_t``, ``ceit_s``          one of those that datbench builds (`datbench models`)
``dat_t,num_classes=10,...``   the same with other options: `spec.Options`
``timm:NAME[,option=value]``   one of timm's
``swin_t``, ``DAT-T++``        what papers call one of these or of timm's: `aliases`
``torchvision:NAME[,...]``     one of torchvision's, without weights
``transformers:NAME[,...]``    a model of Hugging Face's transformers, from its configuration
``config:FILE[,code=2022-01]`` a published configuration of the DAT repositories
``package.module:factory``     what a function or class of the user's returns
``folder/file.py:factory``     the same in a file
``BACKBONE+HEAD``              a detector or segmentor on any of these: ``dat_t+retinanet``
=============================  ============================================================
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, TypeAlias

from ..errors import DatbenchError, ResolutionError, UnknownNameError, UsageError
from ..setting import MIN_SIDE, Attention, Resolution
from .aliases import ALIASES, plain
from .comparison import COMPARISONS
from .comparison.spec import ComparisonSpec
from .dat import REGISTRY
from .detectors.heads import HEADS, JOINT, find, split
from .detectors.spec import Backbone, DetectorSpec, MapsSpec
from .external import (
    TimmSpec,
    factory_spec,
    near_in_timm,
    split_options,
    timm_names,
    timm_spec,
)
from .spec import (
    CONFIG,
    LIBRARIES,
    TIMM,
    TORCHVISION,
    TRANSFORMERS,
    ModelSpec,
    Options,
    split_config,
    variant,
)

if TYPE_CHECKING:
    import torch
    from torch import nn

    from .module import ModuleSpec
    from .pyramid import PyramidBackbone

NamedSpec: TypeAlias = "Backbone | DetectorSpec | MapsSpec"
"""What a name resolves to."""

Spec: TypeAlias = "NamedSpec | ModuleSpec"
"""Anything with a name, an input size and a way to be built."""

OURS: Mapping[str, ModelSpec | ComparisonSpec] = {**REGISTRY, **COMPARISONS}
"""The models that datbench builds, by name."""


def resolve(name: str) -> NamedSpec:
    """The spec of the model called `name`; the spec's name resolves back to it.

    Raises:
        UnknownNameError: no variant has this name; the message suggests the closest names.
        UsageError: a file or a factory's name is wrong.
    """
    if (parts := split(name)) is not None:
        head = find(parts[1]).name
        backbone = resolve(parts[0])
        if isinstance(backbone, (DetectorSpec, MapsSpec)):
            raise UsageError(f"{name} has two heads; name one.")
        return DetectorSpec(backbone, head)
    before, _, after = name.rpartition(JOINT)
    head, comma, late = after.partition(",")
    if before and comma and head in HEADS:
        raise UsageError(f"{name}: options stand before the head: {before},{late}+{head}.")
    if name.startswith(TIMM):
        return timm_spec(name)
    if name.startswith(TRANSFORMERS):
        from .transformers import transformers_spec

        return transformers_spec(name)
    if name.startswith(TORCHVISION):
        from .torchvision import torchvision_spec

        return torchvision_spec(name)
    if name.startswith(CONFIG):
        from ..records import check_name
        from .yaml import read_config

        file, told = split_config(name)
        _, options = split_options(name, told)
        code: Any = str(options.pop("code")) if "code" in options else None
        for option in options:
            check_name("option", option, ["code", *Options.__annotations__], name)
        if "image_size" in options:
            raise UsageError(f"{name}: image_size: the file says it; write its img_size.")
        return variant(read_config(file, code), options, name)
    if ":" in name:
        return factory_spec(name)
    return _by_name(name)


def _by_name(name: str) -> NamedSpec:
    """One of those that datbench builds, or what an alias stands for."""
    architecture, chosen = split_options(name, name)
    if architecture in REGISTRY:
        return variant(REGISTRY[architecture], chosen, name)
    if architecture in COMPARISONS:
        return COMPARISONS[architecture].changed(chosen, name)
    meant = plain(architecture)
    if (meant := ALIASES.get(meant, meant)) in OURS or meant in ALIASES.values():
        return resolve(meant + name.strip()[len(architecture) :])
    near = near_in_timm(meant, (*OURS, *ALIASES))
    more = f"timm has {' or '.join(near)}." if near else "timm:NAME names one of timm's."
    raise UnknownNameError.among(
        "model", architecture, (*OURS, *ALIASES), f"`datbench models` lists them all; {more}"
    )


def complete_models(incomplete: str) -> list[tuple[str, str]]:
    """Names for shell completion, with a line about each; heads after a ``+``."""
    backbone, joint, begun = incomplete.rpartition(JOINT)
    if joint:
        heads = [head for head in HEADS.values() if head.name.startswith(begun)]
        return [(f"{backbone}{JOINT}{head.name}", head.summary) for head in heads]
    if incomplete.startswith(TIMM):
        return [(TIMM + name, "") for name in timm_names(incomplete[len(TIMM) :])]
    names = [(spec.name, spec.summary) for spec in OURS.values()]
    names += [*ALIASES.items(), *((library, "NAME") for library in LIBRARIES)]
    return [(name, about) for name, about in names if name.startswith(incomplete)]


def is_ours(spec: Spec) -> bool:
    """Whether all of its code is datbench's: other models may raise or print anything."""
    return isinstance(_backbone(spec), ModelSpec)


def takes_any_size(spec: Spec) -> bool:
    """Whether one module of it serves inputs of every size.

    Raises:
        DatbenchError: it is timm's, which does not load or does not have it.
    """
    if isinstance(spec, TimmSpec):
        return spec.takes_any_size
    return isinstance(_backbone(spec), (ModelSpec, ComparisonSpec))


def _backbone(spec: Spec) -> Spec:
    return spec.backbone if isinstance(spec, (DetectorSpec, MapsSpec)) else spec


def check_size(spec: Spec, size: Resolution) -> None:
    """Refuse a size that a pyramid built here cannot take; models of others may take any.

    Raises:
        ResolutionError: a side is too small.
    """
    ours = isinstance(_backbone(spec), (ModelSpec, ComparisonSpec))
    if ours and min(size.width, size.height) < MIN_SIDE:
        raise ResolutionError(f"{spec.name} at {size}: both sides need at least {MIN_SIDE} pixels.")


def create_model(
    name: str | ModelSpec,
    *,
    features_only: bool = False,
    attention: Attention = "eager",
    num_classes: int | None = None,
    in_chans: int | None = None,
    drop_path: float | None = None,
    layer_scale: float | None = None,
    image_size: int | None = None,
    device: torch.device | str | None = None,
) -> PyramidBackbone:
    """Build a variant with freshly initialised weights.

    Args:
        name: a registered name such as ``dat_t`` (see `datbench.list_models`), which may carry
            options (``dat_t,num_classes=10``), or a spec.
        features_only: four normalised maps, strides 4 to 32, instead of logits.
        attention: ``eager`` (the published code's tensors), ``sdpa`` (fused) or ``chunked`` (fused,
            in chunks of queries).
        num_classes: width of the head; 0 for none, which gives pooled features. Default: 1000.
        in_chans: channels of the image. Default: 3.
        drop_path: rate of the last block's stochastic depth, in training. Default: 0.
        layer_scale: initial LayerScale; the published models have none.
        image_size: side of the image that bias tables are made for. Default: the published one.
        device: where to build; ``meta`` builds without memory. Default: torch's default device,
            also that of a ``with torch.device(...)`` around.

    Returns:
        A module in training mode, as `torch.nn.Module` starts.

    Raises:
        UnknownNameError: there is no such variant, or the name is another paper's or library's
            model (`build` makes those).
        UsageError: an option has no such value.
    """
    from .on_meta import on_device
    from .pyramid import PyramidBackbone

    spec = resolve(name) if isinstance(name, str) else name
    if not isinstance(spec, ModelSpec):
        raise UnknownNameError(
            f"create_model builds what datbench.list_models() names, and {name} is none of them: "
            f"datbench.models.resolve.build(datbench.models.resolve.resolve({name!r}), "
            "datbench.Resolution(224, 224)) builds any model for an input."
        )
    asked = {
        "num_classes": num_classes,
        "in_chans": in_chans,
        "drop_path": drop_path,
        "layer_scale": layer_scale,
        "image_size": image_size,
    }
    spec = variant(spec, {key: value for key, value in asked.items() if value is not None})
    # In torch 2.6 `get_default_device` does not see `with torch.device(...)`.
    where: AbstractContextManager[Any] = nullcontext() if device is None else on_device(device)
    with where:
        return PyramidBackbone(spec.config, features=features_only, attention=attention)


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
    from .on_meta import on_device

    with on_device(device):
        return spec.build(resolution, features, attention)


def own_input(model: str) -> Resolution | None:
    """The input of a model's published results; None where its library is not installed."""
    try:
        return resolve(model).resolution
    except DatbenchError:
        return None
