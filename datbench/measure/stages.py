"""From a module's path to the stage of the network that it belongs to."""

from __future__ import annotations

from torch import nn

from ..models.detectors.dense import FourMaps


def stage_of(model: nn.Module, path: str) -> str:
    """The stage of a module: ``stages.2``, ``layers.0``, ``layer3``, ``stem``, ``head``.

    Of a detector's backbone, with the norms that it lacks: ``backbone.stages.2``.

    The first component of the path, and the second if the first is a list of numbered parts
    whose own name carries no number (`stages.2`, but `layer3` stays whole).
    """
    if not path:
        return "(model)"
    parts = path.split(".")
    container = getattr(model, "_orig_mod", model)
    if isinstance(container, FourMaps) and parts[0] == "backbone" and len(parts) > 1:
        return f"backbone.{stage_of(container.backbone, '.'.join(parts[1:]))}"
    if isinstance(container, FourMaps) and parts[0] == "norms":
        return ".".join(["backbone", *parts[:2]])
    child = getattr(container, parts[0], None)
    numbered = isinstance(child, (nn.ModuleList, nn.Sequential))
    many = len(parts) > 1 and parts[1].isdigit() and not parts[0][-1].isdigit()
    plural = parts[0].endswith("s")
    return ".".join(parts[:2]) if numbered and many and plural else parts[0]
