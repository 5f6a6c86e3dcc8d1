"""`datbench models`, `params`, `show` and `env`: what there is, before anything is counted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from ..errors import UsageError
from ..inputs import checked
from .command import argument
from .options import By, Depth, FeaturesFlag, Given, Inputs, Loaded, Models, Setup, breakdowns, only
from .output import Format, Output

if TYPE_CHECKING:
    from ..counting.count import Place


def models(
    output: Output,
    pattern: Annotated[
        str | None,
        argument(
            "Only models whose name or family contains this text, timm's too; families are dat, "
            "dat++, ablation, deformable-detr and comparison.",
            "TEXT",
        ),
    ] = None,
) -> None:
    """List the models and heads, with where each is published.

    Examples:
    datbench models
    datbench models dat++
    datbench models swin
    """
    from ..models.external import timm_entries
    from ..models.resolve import OURS
    from ..models.view import models_tables
    from ..records import ModelEntry

    text = (pattern or "").lower()
    rows = [
        ModelEntry(spec.name, spec.family, str(spec.resolution), spec.source, spec.summary)
        for spec in OURS.values()
        if text in spec.name or text in spec.family
    ]
    rows += timm_entries(text) if text and text not in {row.family for row in rows} else []
    if not rows:
        raise UsageError(
            f"no model's name or family contains {pattern!r}; `datbench models` lists them all."
        )
    people = output.wanted in (Format.TABLE, Format.MD)
    output.write(models_tables(rows, one=not people), "models", rows)


def env(output: Output) -> None:
    """Describe this machine: versions, processor, memory, GPUs.

    Examples:
    datbench env --format json
    """
    from ..machine import environment
    from ..report.kinds import environment_table

    found = environment()
    output.write([environment_table(found)], "env", [found], found)


BY: tuple[Place, ...] = ("part", "stage")


def params(
    models: Models,
    output: Output,
    by: By = None,
    features: FeaturesFlag = False,
    input: Given = None,
) -> None:
    """Count parameters (trainable, frozen) and buffers.

    Examples:
    datbench params dat_t datpp_t
    datbench params dat_t+mask_rcnn --by part
    """
    chosen = models.specs()
    parts = breakdowns(by, BY, single=False)
    place: Place = only(parts, "breakdown", "params takes one") if parts else "total"
    if parts:
        only(chosen, "model", "--by breaks down one model")
    from ..counting.count import parameter_entries
    from ..counting.view import params_table

    inputs = checked(input or (), sized=False, batched=False)
    rows = [row for spec in chosen for row in parameter_entries(spec, place, features, inputs)]
    output.write([params_table(rows)], "params", rows)


def show(
    inputs: Inputs,
    loaded: Loaded,
    output: Output,
    by: By = None,
    depth: Depth = None,
    input: Given = None,
) -> None:
    """Show how a model is built, and whether a checkpoint fits.

    With --by module: a tree of its modules, three names deep without --depth, each with the shape
    of its output, its parameters and its MACs.

    Examples:
    datbench show dat_t
    datbench show timm:resnet50 --by module --depth 2
    datbench show dat_t --checkpoint dat_tiny_in1k_224.pth
    """
    from ..paper.described import as_tree, described

    tree = breakdowns(by, ("module",), single=False, depth=depth)
    spec, size = only(inputs.sized(), "model and size", "show takes one")
    if tree and loaded.checkpoint is not None:
        raise UsageError("--checkpoint and --by module are two questions; ask one at a time.")
    if input and not tree:
        raise UsageError("--input runs the model, which --by module alone does here.")
    if tree:
        taken = Setup(inputs.model, inputs.res, input=input).jobs()[0][1]
        tables, row = as_tree(spec, taken, depth)
    else:
        tables, row = described(spec, size, loaded.checkpoint, loaded.weights)
    output.write(tables, "show", [row])
