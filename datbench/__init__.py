"""datbench: what vision backbones with deformable attention cost, counted and measured.

Everything is imported on first use, so that `import datbench` itself does not load torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from .version import __version__

_LAZY = {
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

if TYPE_CHECKING:
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

__all__ = ["__version__", *sorted(_LAZY)]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'datbench' has no attribute {name!r}")
    return getattr(importlib.import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return list(__all__)
