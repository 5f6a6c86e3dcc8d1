"""Checkpoints in the published layouts: of tiny models with values, of real ones with shapes."""

from dataclasses import dataclass, replace
from functools import cache

import torch
from torch import Tensor, nn

from benchmarks.published_way import dat2022, datpp2023
from benchmarks.published_way.recipe import recipe_state_dict, recipe_tensor
from datbench.models.config import (
    Deformable,
    DeformableDetr,
    Neighborhood,
    Pyramid,
    SpatialReduction,
    Stage,
    Window,
)
from datbench.models.spec import ModelSpec

Weights = dict[str, Tensor]

_LOCAL = Window(4)
_SHIFTED = (_LOCAL, Window(4, shift=2))

_DAT = Pyramid(
    stages=(
        Stage(8, 1, _SHIFTED),
        Stage(16, 2, _SHIFTED),
        Stage(32, 4, (_LOCAL, Deformable(groups=2, kernel=5))),
        Stage(64, 8, (_LOCAL, Deformable(groups=4, kernel=3))),
    ),
    image_size=64,
    classes=10,
)
_THEIR_DAT = dat2022.Dat2022Config(
    stages=(
        dat2022.StageConfig(8, 1, dat2022.SHIFTED),
        dat2022.StageConfig(16, 2, dat2022.SHIFTED),
        dat2022.StageConfig(32, 4, dat2022.DEFORMABLE, groups=2, kernel=5),
        dat2022.StageConfig(64, 8, dat2022.DEFORMABLE, groups=4, kernel=3),
    ),
    image_size=64,
    window=4,
    num_classes=10,
)


def _free(groups: int, kernel: int, stride: int) -> Deformable:
    return Deformable(groups, kernel, stride, offset_range=None, code=2023)


_DATPP = Pyramid(
    stages=(
        Stage(8, 1, (Neighborhood(3), _free(1, 9, 8))),
        Stage(16, 2, (Neighborhood(3), _free(2, 4, 4))),
        Stage(32, 4, (Neighborhood(3), _free(2, 5, 2))),
        Stage(64, 8, (_free(4, 3, 1),) * 2),
    ),
    stem="double",
    downsample="overlap",
    ffn="conv_residual",
    lpu=True,
    image_size=64,
    classes=10,
)
_THEIR_DATPP = datpp2023.Datpp2023Config(
    stages=(
        datpp2023.StageConfig(8, 1, datpp2023.ALTERNATE, groups=1, stride=8, kernel=9),
        datpp2023.StageConfig(16, 2, datpp2023.ALTERNATE, groups=2, stride=4, kernel=4),
        datpp2023.StageConfig(32, 4, datpp2023.ALTERNATE, groups=2, stride=2, kernel=5),
        datpp2023.StageConfig(64, 8, datpp2023.LAST, groups=4, stride=1, kernel=3),
    ),
    image_size=64,
    neighborhood=3,
    num_classes=10,
)


@dataclass(frozen=True)
class Pair:
    """A model as we describe it and as the published code does."""

    config: Pyramid
    theirs: dat2022.Dat2022Config | datpp2023.Datpp2023Config

    @property
    def spec(self) -> ModelSpec:
        return ModelSpec("tiny", self.config, "dat", "a test", "tiny")

    def build_theirs(self) -> nn.Module:
        """The published model, with values of its own in every tensor."""
        model = _build(self.theirs)
        model.load_state_dict(_values(self.theirs))
        return model


def _build(config: dat2022.Dat2022Config | datpp2023.Datpp2023Config) -> nn.Module:
    if isinstance(config, dat2022.Dat2022Config):
        return dat2022.build_dat2022(config)
    return datpp2023.build_datpp2023(config)


@cache
def _values(config: dat2022.Dat2022Config | datpp2023.Datpp2023Config) -> Weights:
    """Made once: the recipe seeds a generator for every tensor."""
    return recipe_state_dict(_build(config))


def _with(pair: Pair, ours: tuple[Stage, ...], theirs: tuple[dat2022.StageConfig, ...]) -> Pair:
    """The pair with other first stages."""
    assert isinstance(pair.theirs, dat2022.Dat2022Config)
    kept, their_kept = pair.config.stages[len(ours) :], pair.theirs.stages[len(ours) :]
    return Pair(
        replace(pair.config, stages=(*ours, *kept)),
        replace(pair.theirs, stages=(*theirs, *their_kept)),
    )


DAT = Pair(_DAT, _THEIR_DAT)
DATPP = Pair(_DATPP, _THEIR_DATPP)

LAYOUTS: dict[str, Pair] = {
    "2022": DAT,
    "2023": DATPP,
    "2022, convolutional patches and feed-forward": Pair(
        replace(_DAT, stem="overlap", downsample="overlap", ffn="conv"),
        replace(_THEIR_DAT, conv_patches=True, conv_ffn=True),
    ),
    "2022, spatial reduction": _with(
        DAT,
        (Stage(8, 1, (SpatialReduction(4),) * 2), Stage(16, 2, (SpatialReduction(2),) * 2)),
        (
            dat2022.StageConfig(8, 1, dat2022.PYRAMID, reduction=4),
            dat2022.StageConfig(16, 2, dat2022.PYRAMID, reduction=2),
        ),
    ),
    "2022, Deformable-DETR": _with(
        DAT,
        (Stage(8, 1, (_LOCAL, DeformableDetr(4))),),
        (dat2022.StageConfig(8, 1, dat2022.DDETR, points=4),),
    ),
    "2022, a depthwise convolution as bias": Pair(
        replace(
            _DAT,
            stages=(
                *_DAT.stages[:2],
                Stage(32, 4, (_LOCAL, Deformable(2, 5, bias="dwconv"))),
                Stage(64, 8, (_LOCAL, Deformable(4, 3, bias="dwconv"))),
            ),
        ),
        replace(_THEIR_DAT, position="dwconv"),
    ),
}
"""Every kind of key that the published code has."""


def shapes(name: str) -> Weights:
    """A published model's keys and shapes; the values are zeros that take no room in a file."""
    with torch.device("meta"):
        model = (
            dat2022.build_dat2022(name)
            if name in dat2022.VARIANTS
            else datpp2023.build_datpp2023(name)
        )
    return {
        key: torch.zeros((), dtype=value.dtype).expand(value.shape)
        for key, value in model.state_dict().items()
    }


def detector(weights: Weights, dims: tuple[int, ...]) -> dict[str, object]:
    """A detector's file of these weights: norms for its head, and parts that are not ours."""
    inside = {key: value for key, value in weights.items() if not key.startswith("cls_")}
    for i, dim in enumerate(dims):
        for part in ("weight", "bias"):
            inside[f"norms.{i}.norm.{part}"] = recipe_tensor(f"norms.{i}.norm.{part}", (dim,))
    outside = {
        "neck.lateral_convs.0.conv.weight": torch.ones(4, 4, 1, 1),
        "roi_head.bbox_head.fc_cls.bias": torch.ones(81),
    }
    state = {f"backbone.{key}": value for key, value in inside.items()}
    return {"state_dict": {**state, **outside}, "meta": {"epoch": 36, "classes": ["person"]}}
