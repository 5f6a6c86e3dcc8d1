"""How a model is built, beside what is published of it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..counting.view import parts_table, tree_table
from ..errors import UsageError
from ..models.resolve import Spec
from ..models.spec import ModelSpec
from ..models.view import architecture, checkpoint_table, stage_rows
from ..records import ShowEntry
from ..render.table import Table
from ..setting import Resolution, Setting, describe
from .published import published

TREE_DEPTH = 3
"""Names of a path down to which a tree of modules goes, as torchinfo's does."""


def as_tree(spec: Spec, setting: Setting, depth: int | None) -> tuple[list[Table], ShowEntry]:
    """A model's modules, as a tree and as a record."""
    from ..counting.count import module_tree

    rows = module_tree(spec, setting, depth or TREE_DEPTH)
    table = tree_table(spec.name, describe(setting, "dtype", "attention", "backward"), rows)
    return [table], ShowEntry(spec.name, str(setting.resolution), modules=tuple(rows))


def described(
    spec: Spec, size: Resolution, checkpoint: Path | None, weights: str | None = None
) -> tuple[list[Table], ShowEntry]:
    """A model at an input size, as tables and as a record; with what a checkpoint matched of it.

    Raises:
        UsageError: a checkpoint for a model that is not datbench's, or that does not fit.
    """
    if isinstance(spec, ModelSpec):
        tables, content = _ours(spec, size, checkpoint, weights)
    elif checkpoint is not None:
        raise UsageError("--checkpoint is for datbench's models.")
    else:
        tables, content = _others(spec, size)
    return tables, ShowEntry(spec.name, str(size), **content)


def _ours(
    spec: ModelSpec, size: Resolution, checkpoint: Path | None, weights: str | None
) -> tuple[list[Table], dict[str, Any]]:
    """The stages as the literal describes them; nothing is built unless a checkpoint is matched."""
    report = None
    if checkpoint is not None:
        from ..counting.count import build_for_count
        from ..models.checkpoints import match_checkpoint
        from ..models.pyramid import PyramidBackbone

        module = build_for_count(spec, Setting(spec.resolution))  # on meta: nothing is allocated
        assert isinstance(module, PyramidBackbone)
        report = match_checkpoint(module, checkpoint, weights, head=False)[1]
    rows = stage_rows(spec.config, size)
    entry = published(spec.name)
    tables = [architecture(spec, rows, size, entry.sentences())]
    content: dict[str, Any] = {"stages": rows}
    if entry.cells:
        content["published"] = asdict(entry)
    if report is not None:
        tables.append(checkpoint_table(report))
        content["checkpoint"] = asdict(report)
    return tables, content


def _others(spec: Spec, size: Resolution) -> tuple[list[Table], dict[str, Any]]:
    """The parts of a model that has to be built to be seen."""
    from ..counting.count import build_for_count, parts

    module = build_for_count(spec, Setting(size))
    rows = parts(module)
    table = parts_table(spec.name, str(size), type(module).__name__, rows)
    return [table], {"parts": [asdict(row) for row in rows]}
