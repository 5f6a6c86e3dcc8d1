"""From what a user types to what can be built. Free of torch until something is built.

=============================  ============================================================
name                           model
=============================  ============================================================
``dat_t``, ``ceit_s``          one of those that datbench builds (`datbench models`)
``timm:NAME[,option=value]``   one of timm's
``transformers:NAME[,...]``    a PVT or CvT of Hugging Face's transformers
``config:FILE``                a published YAML configuration of the DAT repositories
``package.module:factory``     what a function or class of the user's returns
``BACKBONE+HEAD``              a detector or segmentor on any of these: ``dat_t+retinanet``
=============================  ============================================================
"""

from __future__ import annotations

from pathlib import Path
from typing import TypeAlias

from ..errors import UnknownNameError, UsageError
from .comparison import COMPARISONS, ComparisonSpec
from .dat import REGISTRY
from .detectors.heads import find, split
from .detectors.spec import DetectorSpec, MapsSpec
from .external import CONFIG, TIMM, FactorySpec, TimmSpec, factory_spec, timm_spec
from .spec import ModelSpec
from .transformers_models import TRANSFORMERS, TransformersSpec, transformers_spec

Spec: TypeAlias = (
    ModelSpec | ComparisonSpec | TimmSpec | TransformersSpec | FactorySpec | DetectorSpec | MapsSpec
)
"""Anything with a name, an input size and a way to be built."""


def resolve(name: str) -> Spec:
    """What `name` stands for; the spec's name resolves back to it.

    Raises:
        UnknownNameError: no variant is called so; the message suggests the closest names.
        UsageError: a file or a factory's name is wrong.
    """
    if (parts := split(name)) is not None:
        head = find(parts[1]).name
        backbone = resolve(parts[0])
        if isinstance(backbone, (DetectorSpec, MapsSpec)):
            raise UsageError(f"{name} has two heads; name one.")
        return DetectorSpec(backbone, head)
    if name.startswith(TIMM):
        return timm_spec(name)
    if name.startswith(TRANSFORMERS):
        return transformers_spec(name)
    if name.startswith(CONFIG):
        from .yaml_config import read_config

        return read_config(Path(name[len(CONFIG) :]))
    if ":" in name:
        return factory_spec(name)
    if name in REGISTRY.names():
        return REGISTRY.get(name)
    if name in COMPARISONS.names():
        return COMPARISONS.get(name)
    raise UnknownNameError.among(
        "model",
        name,
        (*REGISTRY.names(), *COMPARISONS.names()),
        "`datbench models` lists them all; timm:NAME names one of timm's.",
    )


def is_ours(spec: Spec) -> bool:
    """Whether all of its code is datbench's: a model of others may raise or print anything."""
    backbone = spec.backbone if isinstance(spec, (DetectorSpec, MapsSpec)) else spec
    return isinstance(backbone, ModelSpec)
