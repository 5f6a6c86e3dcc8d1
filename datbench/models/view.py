"""A variant's architecture, and what a checkpoint matched of it, as tables."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import groupby

from ..records import ModelEntry
from ..render.table import Column, Table
from ..setting import Resolution
from .config import (
    Deformable,
    DeformableDetr,
    Mixer,
    Neighborhood,
    Pyramid,
    SpatialReduction,
    Stage,
    Window,
)
from .detectors.heads import HEADS
from .records import CheckpointReport
from .spec import ModelSpec


def models_tables(rows: Sequence[ModelEntry], one: bool = False) -> list[Table]:
    """The models, a table for each family, and the heads that can stand on them.

    Args:
        one: one table of models, which says the family in a column.
    """
    columns = (
        Column("model", "model"),
        Column("family", "family", hidden=not one),
        Column("resolution", "input"),
        Column("source", "source"),
        Column("summary", "summary"),
    )
    if one:
        return [Table.of(columns, rows)]
    heads = (
        Column("head", "head", value="name"),
        Column("input", "input", value=lambda head: str(head.resolution)),
        Column("summary", "summary"),
    )
    note = "dat_t+semantic_fpn is the model dat_t with the head semantic_fpn."
    return [
        *(
            Table.of(columns, [row for row in rows if row.family == name], name)
            for name in dict.fromkeys(row.family for row in rows)
        ),
        Table.of(heads, HEADS.values(), "heads", (note,)),
    ]


def stage_rows(config: Pyramid, size: Resolution) -> list[dict[str, str | int]]:
    """One row a stage, with the map that it has for this input."""
    widths, heights = (_map_sides(config, side) for side in (size.width, size.height))
    return [_stage_row(i, stage, widths[i], heights[i]) for i, stage in enumerate(config.stages)]


def _map_sides(config: Pyramid, side: int) -> list[int]:
    """A side of each stage's map: patches drop an odd rest, overlapping convolutions keep it."""
    sides = [side // 4 if config.stem == "patch" else -(-side // 4)]
    for _ in config.stages[1:]:
        sides.append(sides[-1] // 2 if config.downsample == "patch" else -(-sides[-1] // 2))
    return sides


def _stage_row(number: int, stage: Stage, width: int, height: int) -> dict[str, str | int]:
    repeated = [(text, len([*same])) for text, same in groupby(map(_mixer, stage.blocks))]
    period = len(set(stage.blocks))
    if len(repeated) > period and len(repeated) % period == 0:
        blocks = f"({', '.join(text for text, _ in repeated[:period])}) x {len(repeated) // period}"
    else:
        blocks = ", ".join(text if n == 1 else f"{text} x {n}" for text, n in repeated)
    return {
        "stage": number + 1,
        "map": f"{width}x{height}",
        "dim": stage.dim,
        "heads": stage.heads,
        "blocks": blocks,
    }


def _mixer(mixer: Mixer) -> str:
    match mixer:
        case Window(size, 0):
            return f"window {size}"
        case Window(size, shift):
            return f"window {size} shifted {shift}"
        case Neighborhood(size):
            return f"neighbourhood {size}"
        case SpatialReduction(ratio):
            return f"spatial reduction {ratio}"
        case DeformableDetr(points):
            return f"Deformable-DETR, {points} keys"
        case Deformable():
            extra = "" if mixer.offsets else ", no offsets"
            bias = "" if mixer.bias == "relative" else f", {mixer.bias} bias"
            return f"deformable (G {mixer.groups}, k {mixer.kernel}, r {mixer.stride}{extra}{bias})"


def architecture(
    spec: ModelSpec,
    rows: Sequence[dict[str, str | int]],
    size: Resolution,
    published: Sequence[str] = (),
) -> Table:
    """Stages as a table, with what the paper says of the variant below."""
    config = spec.config
    title = f"{spec.name}: {spec.summary} ({spec.source}), input {size}"
    notes = [
        f"Stem {_stem(config)}, down-sampling {config.downsample}, feed-forward {config.ffn}, "
        f"{'local perception units, ' if config.lpu else ''}bias tables for "
        f"{config.image_size}x{config.image_size}."
    ]
    if any(isinstance(mixer, Deformable) for stage in config.stages for mixer in stage.blocks):
        notes.append("G offset groups, k kernel of the offset network, r stride of its points.")
    notes += published
    columns = (
        Column("stage", "stage"),
        Column("map", "map (W x H)"),
        Column("dim", "dim", str),
        Column("heads", "heads", str),
        Column("blocks", "blocks"),
    )
    return Table.of(columns, rows, title, notes)


def _stem(config: Pyramid) -> str:
    """Its kind, and its width where the first stage has another."""
    dim = config.stages[0].dim
    if config.stem_dim in (None, dim):
        return config.stem
    return f"{config.stem} of width {config.stem_dim} (a 1x1 convolution makes it {dim})"


def checkpoint_table(report: CheckpointReport) -> Table:
    """What a checkpoint matched."""
    resized = [f"{r.name} {r.was} -> {r.now}" for r in report.resized]
    rows = (
        ("matched", len(report.matched), "all others"),
        ("resized", len(report.resized), _first(resized)),
        ("ignored", len(report.ignored), _first(report.ignored)),
        ("left as initialised", len(report.initialised), _first(report.initialised)),
    )
    columns = (
        Column("what", "weights"),
        Column("tensors", "tensors", str),
        Column("names", "names"),
    )
    return Table(columns, rows, f"checkpoint {report.source}")


def _first(names: Sequence[str], count: int = 4) -> str:
    """The first names, and how many more there are."""
    more = [f"and {len(names) - count} more"] if len(names) > count else []
    return ", ".join([*names[:count], *more]) or "-"


# Names as papers print them.

_SIZES = {
    "atto": "A", "femto": "F", "pico": "P", "nano": "N", "tiny": "T", "small": "S", "base": "B",
    "medium": "M", "large": "L", "xlarge": "XL", "huge": "H", "giant": "G",
}  # fmt: skip

_FAMILIES = """
DAT Swin SwinV2 ConvNeXt ConvNeXtV2 DeiT DeiT3 ViT BEiT PVT DPT CvT CoaT CeiT DaViT MaxViT MViTv2
NAT XCiT CaiT CSWin PoolFormer RegionViT GLiT TNT ResNet ResNeXt RegNetX RegNetY EfficientNet
EfficientNetV2 EfficientFormer EdgeNeXt FastViT GCViT HRNet MobileNetV2 MobileNetV3 MobileOne
MobileViT DenseNet FocalNet HorNet InceptionNeXt RepVGG VGG AlexNet SqueezeNet ShuffleNet
GoogLeNet DINOv2 RetinaNet UperNet FPN R-CNN Mask Cascade Semantic Wide Lite Mini Mixer
""".split()

_WRITTEN = {name.lower().replace("-", ""): name for name in _FAMILIES}


def display_name(model: str) -> str:
    """``timm:swin_tiny_patch4_window7_224`` -> ``Swin-T``: a model's name as papers write it.

    The size of the input is left out.
    """
    backbone, _, head = model.partition("+")
    if head:
        return f"{display_name(backbone)} {' '.join(_words(head))}"
    origin, _, name = backbone.partition(",")[0].rpartition(":")
    if origin == "config":
        return name.rpartition("/")[2].partition(".")[0]
    if origin not in ("", "timm", "torchvision", "transformers"):
        return name  # of a factory
    words = _words(name.partition(".")[0].replace("datpp_", "dat_"))
    return "-".join(words).replace("-star", "*") + ("++" if name.startswith("datpp_") else "")


def _words(name: str) -> list[str]:
    """``pvt_v2_b2`` -> ``PVTv2``, ``B2``."""
    words: list[str] = []
    for word in name.split("_"):
        stem = word.rstrip("0123456789")
        if words and re.fullmatch(r"v\d", word):
            words[-1] += word
        elif stem == "patch" and words[0] == "ViT":
            words[-1] += f"/{word.removeprefix(stem)}"
        elif stem in _WRITTEN and word not in _WRITTEN:  # resnet50
            words += [_WRITTEN[stem], word.removeprefix(stem)]
        elif not re.fullmatch(r"(patch|window)\d+|224|256|384|448|512", word):
            plain = word.upper() if re.fullmatch(r"[a-z]\d*", word) else word
            known = _WRITTEN.get(word) or _SIZES.get(word)
            words.append(known or (plain if words else word.capitalize()))
    return words
