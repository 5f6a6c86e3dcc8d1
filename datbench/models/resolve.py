"""From what a user types to what can be built. Free of torch until something is built.

=============================  ============================================================
name                           model
=============================  ============================================================
``dat_t``                      one of the registry (`datbench models`)
``timm:NAME[,option=value]``   one of timm's
``config:FILE``                a published YAML configuration of the DAT repositories
``package.module:factory``     what a function or class of the user's returns
=============================  ============================================================
"""

from __future__ import annotations

from pathlib import Path
from typing import TypeAlias

from ..errors import UnknownNameError
from .dat import REGISTRY
from .external import TIMM, FactorySpec, TimmSpec, factory_spec, timm_spec
from .spec import ModelSpec

Spec: TypeAlias = ModelSpec | TimmSpec | FactorySpec
"""Anything with a name, an input size and a way to be built."""

CONFIG = "config:"


def resolve(name: str) -> Spec:
    """What `name` stands for; the spec's name resolves back to it.

    Raises:
        UnknownNameError: no variant is called so; the message suggests the closest names.
        UsageError: a file or a factory's name is wrong.
    """
    if name.startswith(TIMM):
        return timm_spec(name)
    if name.startswith(CONFIG):
        from .yaml_config import read_config

        return read_config(Path(name[len(CONFIG) :]))
    if ":" in name:
        return factory_spec(name)
    if name in REGISTRY.names():
        return REGISTRY.get(name)
    raise UnknownNameError.among(
        "model",
        name,
        REGISTRY.names(),
        "`datbench models` lists them all; timm:NAME names one of timm's.",
    )
