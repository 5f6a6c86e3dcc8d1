"""DAT, DAT++ and the papers' ablations, as literals.

Sources: "DAT" is Vision Transformer with Deformable Attention (CVPR 2022), "DAT++" its 2023
successor. Depths, widths, heads and groups: DAT Table 1; kernels, strides and offset ranges: the
published configurations of either year.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from .config import (
    Deformable,
    DeformableDetr,
    Mixer,
    Neighborhood,
    PositionBias,
    Pyramid,
    SpatialReduction,
    Stage,
    Window,
)
from .spec import ModelSpec, by_name

_LOCAL = Window(7)

# The published code shifts by ceil(7 / 2) = 4; Swin shifts by 3.
_SHIFTED = (Window(7), Window(7, shift=4))

DAT_T = Pyramid(
    stages=(
        Stage(96, 3, _SHIFTED),
        Stage(192, 6, _SHIFTED),
        Stage(384, 12, (_LOCAL, Deformable(groups=3, kernel=5)) * 3),
        Stage(768, 24, (_LOCAL, Deformable(groups=6, kernel=3))),
    )
)

DAT_S = Pyramid(
    stages=(
        Stage(96, 3, _SHIFTED),
        Stage(192, 6, _SHIFTED),
        Stage(384, 12, (_LOCAL, Deformable(groups=3, kernel=5)) * 9),
        Stage(768, 24, (_LOCAL, Deformable(groups=6, kernel=3))),
    )
)

DAT_B = Pyramid(
    stages=(
        Stage(128, 4, _SHIFTED),
        Stage(256, 8, _SHIFTED),
        Stage(512, 16, (_LOCAL, Deformable(groups=4, kernel=5)) * 9),
        Stage(1024, 32, (_LOCAL, Deformable(groups=8, kernel=3))),
    )
)

# Fine-tuned at 384 with windows of 12, shifted by 6, and bias tables of side 47 and 23.
DAT_B_384 = Pyramid(
    stages=(
        Stage(128, 4, (Window(12), Window(12, shift=6))),
        Stage(256, 8, (Window(12), Window(12, shift=6))),
        Stage(512, 16, (Window(12), Deformable(groups=4, kernel=5)) * 9),
        Stage(1024, 32, (Window(12), Deformable(groups=8, kernel=3))),
    ),
    image_size=384,
)

DAT_T_STAR = replace(DAT_T, stem="overlap", downsample="overlap")


def _deformable_2023(groups: int, kernel: int, stride: int) -> Deformable:
    """DMHA as every DAT++ configuration sets it: unbounded offsets, clamped positions."""
    return Deformable(groups=groups, kernel=kernel, stride=stride, offset_range=None, code=2023)


_NEAR = Neighborhood(7)

DATPP_T = Pyramid(
    stages=(
        Stage(64, 2, (_NEAR, _deformable_2023(groups=1, kernel=9, stride=8))),
        Stage(128, 4, (_NEAR, _deformable_2023(groups=2, kernel=7, stride=4)) * 2),
        Stage(256, 8, (_NEAR, _deformable_2023(groups=4, kernel=5, stride=2)) * 9),
        Stage(512, 16, (_deformable_2023(groups=8, kernel=3, stride=1),) * 2),
    ),
    stem="double",
    downsample="overlap",
    ffn="conv_residual",
    lpu=True,
)

DATPP_S = replace(
    DATPP_T,
    stages=(
        Stage(96, 3, (_NEAR, _deformable_2023(groups=1, kernel=9, stride=8))),
        Stage(192, 6, (_NEAR, _deformable_2023(groups=2, kernel=7, stride=4)) * 2),
        Stage(384, 12, (_NEAR, _deformable_2023(groups=3, kernel=5, stride=2)) * 9),
        Stage(768, 24, (_deformable_2023(groups=6, kernel=3, stride=1),) * 2),
    ),
)

DATPP_B = replace(
    DATPP_T,
    stages=(
        Stage(128, 4, (_NEAR, _deformable_2023(groups=2, kernel=9, stride=8))),
        Stage(256, 8, (_NEAR, _deformable_2023(groups=4, kernel=7, stride=4)) * 2),
        Stage(512, 16, (_NEAR, _deformable_2023(groups=8, kernel=5, stride=2)) * 9),
        Stage(1024, 32, (_deformable_2023(groups=16, kernel=3, stride=1),) * 2),
    ),
)


def _changed(pyramid: Pyramid, change: Callable[[int, Deformable], Mixer]) -> Pyramid:
    """`pyramid` with another mixer for each DMHA; `change` takes its stage too, from 1."""
    first, second, third, fourth = (
        replace(
            stage,
            blocks=tuple(change(i, m) if isinstance(m, Deformable) else m for m in stage.blocks),
        )
        for i, stage in enumerate(pyramid.stages, 1)
    )
    return replace(pyramid, stages=(first, second, third, fourth))


def _deformable(bias: PositionBias = "relative", offsets: bool = True) -> Pyramid:
    """DAT-T with this position bias, and with or without offsets."""
    return _changed(DAT_T, lambda _, mixer: replace(mixer, bias=bias, offsets=offsets))


def _ddetr(*points: int) -> Pyramid:
    """Table 8: Deformable-DETR attention in stages 3 and 4, with these keys a query."""
    return _changed(DAT_T, lambda stage, _: DeformableDetr(points[stage - 3]))


def _fewer_keys(pyramid: Pyramid) -> Pyramid:
    """Sampling points at every second pixel in stage 3: strides (2, 1), 49 keys at 224."""
    return _changed(pyramid, lambda i, mixer: replace(mixer, stride=2) if i == 3 else mixer)


# Table 7: strides [4, 2, 1, 1], groups [1, 2, 3, 6]. The paper gives no offset range for stages 1
# and 2; s = 2 everywhere ("we choose a small s = 2 for all models", Section 4.4).
_D1 = Stage(96, 3, (_LOCAL, Deformable(groups=1, kernel=9, stride=4)))

_D2 = Stage(192, 6, (_LOCAL, Deformable(groups=2, kernel=7, stride=2)))

_T1, _T2, _T3, _T4 = DAT_T.stages

REGISTRY = by_name(
    (
        ModelSpec("dat_t", DAT_T, "dat", "DAT Tables 1, 2", "DAT-T"),
        ModelSpec("dat_s", DAT_S, "dat", "DAT Tables 1, 2", "DAT-S"),
        ModelSpec("dat_b", DAT_B, "dat", "DAT Tables 1, 2", "DAT-B"),
        ModelSpec("dat_b_384", DAT_B_384, "dat", "DAT Table 2", "DAT-B at 384, windows of 12"),
        ModelSpec("dat_t_star", DAT_T_STAR, "dat", "DAT Table 9", "DAT-T*, convolutional patches"),
        ModelSpec("datpp_t", DATPP_T, "dat++", "DAT++", "DAT-T++"),
        ModelSpec("datpp_s", DATPP_S, "dat++", "DAT++", "DAT-S++"),
        ModelSpec("datpp_b", DATPP_B, "dat++", "DAT++", "DAT-B++"),
        ModelSpec(
            "datpp_b_384",
            DATPP_B,
            "dat++",
            "DAT++",
            "DAT-B++ at 384, with the bias tables of the 224 model",
            evaluated_at=384,
        ),
        ModelSpec(
            "dat_t_no_offsets_no_bias",
            _deformable(offsets=False, bias="none"),
            "ablation",
            "DAT Table 6, row 1",
            "no offsets, no position bias",
        ),
        ModelSpec(
            "dat_t_no_offsets",
            _deformable(offsets=False),
            "ablation",
            "DAT Table 6, row 2",
            "no offsets, relative position bias",
        ),
        ModelSpec(
            "dat_t_no_bias",
            _deformable(bias="none"),
            "ablation",
            "DAT Table 6, row 3",
            "offsets, no position bias",
        ),
        ModelSpec(
            "dat_t_fixed_bias",
            _deformable(bias="fixed"),
            "ablation",
            "DAT Table 6, row 4",
            "offsets, a learnt bias for each pair of query and key",
        ),
        ModelSpec(
            "dat_t_dwconv_bias",
            _deformable(bias="dwconv"),
            "ablation",
            "DAT Table 6, row 5",
            "offsets, depthwise convolution as position encoding",
        ),
        ModelSpec(
            "dat_t_sra",
            replace(
                DAT_T,
                stages=(
                    Stage(96, 3, (SpatialReduction(8),) * 2),
                    Stage(192, 6, (SpatialReduction(4),) * 2),
                    _T3,
                    _T4,
                ),
            ),
            "ablation",
            "DAT Table 6, row 6",
            "spatial-reduction attention in stages 1 and 2",
        ),
        ModelSpec(
            "dat_t_stages_1234",
            replace(DAT_T, stages=(_D1, _D2, _T3, _T4)),
            "ablation",
            "DAT Table 7, row 1",
            "deformable attention in stages 1 to 4",
        ),
        ModelSpec(
            "dat_t_stages_234",
            replace(DAT_T, stages=(_T1, _D2, _T3, _T4)),
            "ablation",
            "DAT Table 7, row 2",
            "deformable attention in stages 2 to 4",
        ),
        ModelSpec(
            "dat_t_stages_4",
            replace(DAT_T, stages=(_T1, _T2, replace(_T3, blocks=_SHIFTED * 3), _T4)),
            "ablation",
            "DAT Table 7, row 4",
            "deformable attention in stage 4 only",
        ),
        ModelSpec(
            "dat_t_49_49",
            _fewer_keys(DAT_T),
            "ablation",
            "DAT Table 8, row 4",
            "49 keys in stages 3 and 4",
        ),
        # The backbones of Tables 3 to 5, whose FLOPs are nearest to those of strides (2, 1).
        ModelSpec(
            "dat_s_49_49",
            _fewer_keys(DAT_S),
            "ablation",
            "DAT Tables 3 to 5",
            "DAT-S with 49 keys in stages 3 and 4, for dense prediction",
        ),
        ModelSpec(
            "dat_b_49_49",
            _fewer_keys(DAT_B),
            "ablation",
            "DAT Tables 4, 5",
            "DAT-B with 49 keys in stages 3 and 4, for dense prediction",
        ),
        ModelSpec(
            "dat_t_ddetr_16_16",
            _ddetr(16, 16),
            "deformable-detr",
            "DAT Table 8, row 1",
            "Deformable-DETR attention, 16 keys in stages 3 and 4",
        ),
        ModelSpec(
            "dat_t_ddetr_49_49",
            _ddetr(49, 49),
            "deformable-detr",
            "DAT Table 8, row 2",
            "Deformable-DETR attention, 49 keys in stages 3 and 4",
        ),
        ModelSpec(
            "dat_t_ddetr_196_49",
            _ddetr(196, 49),
            "deformable-detr",
            "DAT Table 8, row 3",
            "Deformable-DETR attention, 196 and 49 keys in stages 3 and 4",
        ),
    )
)


def list_models(family: str | None = None) -> tuple[str, ...]:
    """Names of the registered variants, of one family or of all."""
    return tuple(spec.name for spec in REGISTRY.values() if family in (None, spec.family))
