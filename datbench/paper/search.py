"""A search for one configuration that gives the figures which none of those tried reproduces.

Every point of the grid is a configuration that the published code could have been run with, the
same for every row (a larger model is deeper or wider, nothing else). Nothing is tuned: a point is
named by its choices, and all are reported by how far they miss. A backbone is a sum of blocks, and
each block is counted once.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import get_args

import torch
from torch import nn

from ..counting.count import count
from ..errors import MissingError
from ..models.config import Deformable, Downsample, FeedForward, Mixer, Pyramid, Stage, Window
from ..models.dat import REGISTRY
from ..models.detectors.modules import DIM, FPN, AuxiliaryHead, SemanticFPNHead, UperHead
from ..models.layers import make_downsample, make_stem
from ..models.pyramid import Block
from ..setting import Resolution
from .records import Candidate, Miss, Search
from .tables import ALONE, HOOKS_AND_PRODUCTS, READINGS, Build, Printed, RowData, TableData
from .workshop import RULES, Workshop

Totals = Counter[str]
"""By rule."""

Point = tuple[dict[str, str], tuple[int, ...]]
"""Choices in words, and what they give for each row."""

Maps = tuple[tuple[int, int, int], ...]
"""Channels, height and width of the four maps."""


@dataclass(frozen=True)
class Encoder:
    """What is chosen for the backbone."""

    # The strides of the sampling grids in stages 3 and 4. The published code has (1, 1) on
    # ImageNet, Table 8 prints (2, 1) too.
    strides: tuple[int, int]
    window: int  # of local attention; a shift is half of it, rounded up
    patches: Downsample  # of stem and down-sampling; ``overlap`` is DAT-T*'s
    ffn: FeedForward  # ``conv`` is `use_dwc_mlps`
    resolution: Resolution  # the paper says 2048x512, and trains on 512x512


@dataclass(frozen=True)
class Decoder:
    """What is chosen for the head, and what is counted."""

    width: float  # the head's channels over the published ones
    auxiliary: bool  # whether the auxiliary head, which runs only in training, is counted
    rule: str  # of counting


ENCODERS = tuple(
    Encoder(strides, window, patches, ffn, resolution)
    for strides in ((1, 1), (1, 2), (2, 1), (2, 2), (4, 1), (4, 2))
    for window in (7, 8, 12)
    for patches in get_args(Downsample)
    for ffn in ("linear", "conv")
    for resolution in (Resolution(2048, 512), Resolution(512, 512), Resolution(640, 640))
)

DECODERS: Mapping[str, tuple[Decoder, ...]] = {
    "semantic_fpn": tuple(
        Decoder(*choice) for choice in itertools.product((0.5, 1, 2), (False,), READINGS)
    ),
    "upernet": tuple(
        Decoder(*choice) for choice in itertools.product((0.5, 1), (False, True), READINGS)
    ),
}


def search(table: TableData, keep: int = 5) -> list[Search]:
    """Every head of the table's rows that name several configurations, over the whole grid; for
    DaViT's page, the models that do not fit the settings of the others.

    Raises:
        MissingError: the table has no such row with a head that the grid is of.
    """
    if table.table == "davit":
        return search_davit(table, keep)
    groups: dict[str, list[RowData]] = {}
    for row in table.rows:
        head = (row.tried[0].head if row.tried else None) or ""
        if head in DECODERS and "flops" in row.printed:
            groups.setdefault(head, []).append(row)
    if not groups:
        raise MissingError(
            f"table {table.table} has no row to search a configuration for; "
            f"the grid is of DAT with {' and '.join(DECODERS)} (table 5), and one of DaViT (davit)."
        )
    return [_ranked(table, head, rows, _points(head, rows), keep) for head, rows in groups.items()]


def _ranked(
    table: TableData, head: str, rows: Sequence[RowData], points: Iterable[Point], keep: int
) -> Search:
    """The points that miss the FLOPs of `rows` least, all together and one by one."""
    prints = [row.printed["flops"] for row in rows]
    labels = [table.label(row) for row in rows]

    def miss(label: str, printed: Printed, amount: int) -> Miss:
        relative = printed.miss(amount)
        assert relative is not None
        return Miss(label, printed.text, amount, relative, printed.agrees(amount))

    found = [
        Candidate(choices, tuple(map(miss, labels, prints, amounts))) for choices, amounts in points
    ]
    found.sort(key=lambda candidate: candidate.worst)
    nearest = tuple(
        min(found, key=lambda candidate: abs(candidate.misses[i].relative))
        for i in range(len(rows))
    )
    uniform = sum(all(miss.agrees for miss in candidate.misses) for candidate in found)
    return Search(table.table, head, len(found), uniform, tuple(found[:keep]), nearest)


def _points(head: str, rows: Sequence[RowData]) -> Iterator[Point]:
    """The choices of every point in words, and what it gives for each row's backbone."""
    bases = [REGISTRY[row.tried[0].model].config for row in rows]
    for encoder in ENCODERS:
        backbones = [_backbone(_changed(base, encoder), encoder.resolution) for base in bases]
        for decoder in DECODERS[head]:
            amounts = tuple(
                totals[decoder.rule] + _head(head, maps, decoder)[decoder.rule]
                for totals, maps in backbones
            )
            choices = {**vars(encoder), **vars(decoder)}
            yield {name: _word(value) for name, value in choices.items()}, amounts


def _word(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _changed(base: Pyramid, encoder: Encoder) -> Pyramid:
    """`base` with these choices in every block that they concern."""
    size = encoder.window
    stages = []
    for i, stage in enumerate(base.stages):
        blocks = []
        for mixer in stage.blocks:
            if isinstance(mixer, Deformable):
                mixer = replace(mixer, stride=encoder.strides[i - 2])
            elif isinstance(mixer, Window):
                mixer = Window(size, shift=(size + 1) // 2 if mixer.shift else 0)
            blocks.append(mixer)
        stages.append(replace(stage, blocks=tuple(blocks)))
    first, second, third, fourth = stages
    return replace(
        base,
        stages=(first, second, third, fourth),
        stem=encoder.patches,
        downsample=encoder.patches,
        ffn=encoder.ffn,
    )


@cache
def _backbone(config: Pyramid, resolution: Resolution) -> tuple[Totals, Maps]:
    """The totals of a backbone with a norm for each map, and the shapes of these."""
    dims = [stage.dim for stage in config.stages]
    image = (1, resolution.height, resolution.width, 3)
    height, width = resolution.height // 4, resolution.width // 4
    totals = Totals(_part((make_stem, config.stem, dims[0]), image))
    maps = []
    for i, stage in enumerate(config.stages):
        if i:
            before = (1, height, width, dims[i - 1])
            totals.update(_part((make_downsample, config.downsample, dims[i - 1], dims[i]), before))
            height, width = height // 2, width // 2
        here = (1, height, width, dims[i])
        for mixer in stage.blocks:
            totals.update(_part((_block, config.ffn, mixer, dims[i], stage.heads, i), here))
        totals.update(_part((nn.LayerNorm, dims[i]), here))
        maps.append((dims[i], height, width))
    return totals, tuple(maps)


def _block(ffn: FeedForward, mixer: Mixer, dim: int, heads: int, stage: int) -> Block:
    """A block of a DAT, which is the same in a network of any depth."""
    one = Stage(dim, heads, (mixer,))
    return Block(Pyramid((one, one, one, one), ffn=ffn), mixer, stage, drop_path=0.0)


@cache
def _head(head: str, maps: Maps, decoder: Decoder) -> Totals:
    """The totals of what stands on maps of these shapes."""
    channels = tuple(dim for dim, _, _ in maps)
    shapes = tuple((1, *shape) for shape in maps)
    if head == "semantic_fpn":
        levels = tuple((1, DIM, height, width) for _, height, width in maps)
        width = int(128 * decoder.width)
        return _part((FPN, channels), *shapes) + _part((SemanticFPNHead, DIM, width), *levels)
    totals = _part((UperHead, channels, int(512 * decoder.width)), *shapes)
    if decoder.auxiliary:
        totals = totals + _part((AuxiliaryHead, channels[2]), shapes[2])
    return totals


@cache
def _part(recipe: tuple[Hashable, ...], *shapes: tuple[int, ...]) -> Totals:
    """What one module costs on tensors of these shapes; `recipe` is what makes it, and of what."""
    make, *arguments = recipe
    assert callable(make)
    with torch.device("meta"):
        module = make(*arguments).eval()
        tensors = [torch.empty(shape) for shape in shapes]
    counted = count(module, tensors if len(tensors) > 1 else tensors[0])
    return Totals({name: counted.total(RULES[name]) for name in READINGS})


# A search for the setting in which DaViT's page counts its two largest models. The page gives
# neither input nor window, and every setting is tried on both models.

INPUTS = (224, 256, 384, 448, 512)

WINDOWS = (7, 8, 12, 14, 16, 24, 32)

KERNELS = (2, 3)
"""Kernels of down-sampling: patches, or overlapping ones (`overlapped_patch` in the code)."""

DAVIT_RULES = ("fvcore", ALONE, HOOKS_AND_PRODUCTS, "mmdet")


def search_davit(table: TableData, keep: int = 5) -> list[Search]:
    """The models of the page that do not fit the settings of the others, over the whole grid.

    Raises:
        MissingError: timm is not installed.
    """
    rows = [row for row in table.rows if row.build and "down_kernel_size" in row.build.model]
    if not rows:
        raise MissingError(f"table {table.table} has no row to search a setting for.")
    return [_ranked(table, "DaViT", rows, _davit_points(rows), keep)]


def _davit_points(rows: list[RowData]) -> Iterator[Point]:
    workshop = Workshop()
    for size, window, kernel in itertools.product(INPUTS, WINDOWS, KERNELS):
        made = []
        for row in rows:
            assert row.build is not None
            name = row.build.model.partition(",")[0]
            model = f"{name},window_size={window},down_kernel_size={kernel}"
            made.append(workshop.make(Build(model, Resolution(size, size))))
        for rule in DAVIT_RULES:
            choices = {"input": size, "window": window, "down-sampling": kernel, "rule": rule}
            words = {name: str(value) for name, value in choices.items()}
            yield words, tuple(one.totals[rule] for one in made)
