"""What vision backbones with deformable attention cost, counted and measured.

::

    datbench.flops("dat_t", res="1280x800")     MACs or FLOPs, and parameters
    datbench.memory(model, images)              where the memory goes, simulated
    datbench.throughput("dat_t", batch=8)       images a second, measured
    datbench.compare("dat_t", "datpp_t")        whether the second is as fast as the first
    datbench.table(2)                           a paper's table beside what is computed

A model is a name that `datbench models` lists or a torch.nn.Module. Results print, draw and
tabulate themselves: `datbench.api.Result`. The packages below hold what these are made of.
Everything is imported on first use, so that `import datbench` itself does not load torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from .version import __version__

_LAZY = {
    "flops": "datbench.api",
    "throughput": "datbench.api",
    "table": "datbench.api",
    "Result": "datbench.api",
    "create_model": "datbench.models.resolve",
    "list_models": "datbench.models.dat",
    "load_checkpoint": "datbench.models.checkpoints",
    "count": "datbench.counting.count",
    "count_model": "datbench.counting.count",
    "parameters": "datbench.counting.count",
    "register_rule": "datbench.counting.rules",
    "register_timm": "datbench.models.timm",
    "frame": "datbench.records",
    "Resolution": "datbench.setting",
    "Setting": "datbench.setting",
    "DatbenchError": "datbench.errors",
}

_CALLED = ("memory", "compare")
"""Packages that are functions too."""

if TYPE_CHECKING:
    from datbench.api import Result as Result
    from datbench.api import compare as compare
    from datbench.api import flops as flops
    from datbench.api import memory as memory
    from datbench.api import table as table
    from datbench.api import throughput as throughput
    from datbench.counting.count import count as count
    from datbench.counting.count import count_model as count_model
    from datbench.counting.count import parameters as parameters
    from datbench.counting.rules import register_rule as register_rule
    from datbench.errors import DatbenchError as DatbenchError
    from datbench.models.checkpoints import load_checkpoint as load_checkpoint
    from datbench.models.dat import list_models as list_models
    from datbench.models.resolve import create_model as create_model
    from datbench.models.timm import register_timm as register_timm
    from datbench.records import frame as frame
    from datbench.setting import Resolution as Resolution
    from datbench.setting import Setting as Setting

__all__ = ["__version__", *sorted((*_LAZY, *_CALLED))]


def __getattr__(name: str) -> Any:
    if name in _CALLED:
        return importlib.import_module(f"{__name__}.{name}")
    if name not in _LAZY:
        raise AttributeError(f"module 'datbench' has no attribute {name!r}")
    return getattr(importlib.import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return list(__all__)
