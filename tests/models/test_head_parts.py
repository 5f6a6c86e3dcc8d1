"""Every part of every head: multiply-adds and parameters, to the digits that are known.

The figures were computed with fvcore's rules on mmdetection's and mmsegmentation's modules, without
the resizing of maps, on maps of a backbone of 96 to 768 channels: at 1280x800 for detectors, at
512x2048 (height first) for segmentors.
"""

from collections.abc import Callable

import pytest
import torch
from torch import nn

import datbench
from datbench.counting.conventions import CONVENTIONS
from datbench.models.detectors.dense import MODULES
from datbench.models.detectors.heads import HEADS
from datbench.models.detectors.modules import (
    FPN,
    RPN,
    BoxHead,
    MaskHead,
    Regions,
    RetinaHead,
    SemanticFPNHead,
    UperHead,
    proposals,
)
from datbench.paper.tables import WITHOUT_RESIZING, Build
from datbench.paper.workshop import RULES, Workshop, _Given
from datbench.setting import Resolution

CHANNELS = (96, 192, 384, 768)
# The doublings inside Semantic FPN's head are in its known figures, unlike every other resizing:
# three maps of stride 4, two of stride 8 and one of stride 16, of 128 channels, at four a pixel.
DOUBLINGS = 4 * 128 * (3 * 128 * 512 + 2 * 64 * 256 + 32 * 128)
RULE = RULES[WITHOUT_RESIZING]


def _empty(*shape: int) -> torch.Tensor:
    return torch.empty(shape, device="meta")


def _on_meta(make: Callable[[], nn.Module]) -> nn.Module:
    with torch.device("meta"):
        return make().eval()


def _maps(width: int, height: int, dims: tuple[int, ...] = CHANNELS) -> list[torch.Tensor]:
    return [
        _empty(1, dim, height // stride, width // stride)
        for dim, stride in zip(dims, (4, 8, 16, 32), strict=True)
    ]


def _levels(start: int, sides: int) -> list[torch.Tensor]:
    shapes = [(200, 320), (100, 160), (50, 80), (25, 40), (13, 20), (7, 10)][start : start + sides]
    return [_empty(1, 256, *shape) for shape in shapes]


@pytest.mark.parametrize(
    ("make", "given", "expected"),
    [
        (lambda: FPN(CHANNELS, start=1, extra="convs"), _maps(1280, 800), (14.264, 4.475)),
        (lambda: FPN(CHANNELS, extra="pool"), _maps(1280, 800), (53.084, 2.730)),
        (RetinaHead, _levels(1, 5), (137.801, 6.463)),
        (RPN, _levels(0, 5), (50.616, 0.594)),
        (lambda: BoxHead(convs=0, linears=2), _empty(1000, 256, 7, 7), (14.304, 14.307)),
        (lambda: BoxHead(convs=4, linears=1), _empty(1000, 256, 7, 7), (128.962, 15.618)),
        (MaskHead, _empty(100, 256, 14, 14), (52.986, 2.643)),
        (lambda: UperHead(CHANNELS), _maps(2048, 512), (845.638, 31.497)),
    ],
    ids=["P3-P7", "P2-P6", "RetinaHead", "RPN", "2FC", "4conv1fc", "mask", "UperHead"],
)
def test_parts(make: Callable[[], nn.Module], given: object, expected: tuple[float, float]) -> None:
    macs = datbench.count(_on_meta(make), given).total(RULE)
    params = datbench.parameters(_on_meta(make)).params
    assert (round(macs / 1e9, 3), round(params / 1e6, 3)) == expected


def test_semantic_fpn() -> None:
    neck, head = _on_meta(lambda: FPN(CHANNELS)), _on_meta(SemanticFPNHead)
    levels = _maps(2048, 512, (256,) * 4)
    one, other = datbench.count(neck, _maps(2048, 512)), datbench.count(head, levels)
    fvcore = CONVENTIONS["fvcore"]
    doubled = [c for c in other.calls if c.module_type == "Doubled"]
    assert sum(fvcore.weigh(c.cost, c.module_type) for c in doubled) == DOUBLINGS
    macs = one.total(RULE) + other.total(RULE) + DOUBLINGS
    params = datbench.parameters(neck).params + datbench.parameters(head).params
    assert (round(macs / 1e9, 3), round(params / 1e6, 3)) == (86.873, 4.373)


@pytest.mark.parametrize(
    ("head", "gmacs", "mparams"),
    [
        ("retinanet", 152.065, 10.938),
        ("mask_rcnn", 170.990, 20.274),
        ("cascade_mask_rcnn", 649.542, 58.109),
        ("semantic_fpn", 86.873 - DOUBLINGS / 1e9, 4.373),
        ("upernet", 845.638, 31.497 + 0.924),
    ],
)
def test_whole_heads(head: str, gmacs: float, mparams: float) -> None:
    size = HEADS[head].resolution
    shapes = tuple(tuple(m.shape) for m in _maps(size.width, size.height))
    module = _on_meta(
        lambda: MODULES[head](head, _Given(shapes), CHANNELS, start=HEADS[head].start)
    )
    count = datbench.count(module, _empty(1, 3, size.height, size.width))
    assert count.total(RULE) / 1e9 == pytest.approx(gmacs, abs=0.0015)  # sums of rounded parts
    assert datbench.parameters(module).params / 1e6 == pytest.approx(mparams, abs=0.0015)
    assert not count.with_status("unknown", RULE)


def test_resizing_is_what_fvcore_counts_besides() -> None:
    """One for each pixel by the nearest, four bilinearly: fvcore's `aten::upsample_*`."""
    count = datbench.count(_on_meta(lambda: FPN(CHANNELS)), _maps(1280, 800))
    finer = 256 * (200 * 320 + 100 * 160 + 50 * 80)
    assert count.total(CONVENTIONS["fvcore"]) - count.total(RULE) == finer


def test_cutting_out_regions_is_free_by_fvcore_and_not_by_strict() -> None:
    regions = Regions(7)
    count = datbench.count(regions, _levels(0, 4), proposals(1000, 1280, 800), 1280)
    samples = 1000 * 256 * 14 * 14
    assert count.total(CONVENTIONS["fvcore"]) == count.total(CONVENTIONS["mmdet"]) == 0
    # Eight operations a bilinear sample, and one for the mean.
    assert count.total(CONVENTIONS["strict"]) == 9 * samples
    assert "datbench::roi_align" in {group.key for group in count.ignored(RULE)}


SWIN_T, SWIN_S, SWIN_B = (
    f"timm:swin_{size}_patch4_window7_224" for size in ("tiny", "small", "base")
)
TOTALS = {
    "retinanet": {SWIN_T: 248.03, SWIN_S: 340.26, "dat_t_49_49": 254.55, "dat_s_49_49": 357.58},
    "mask_rcnn": {SWIN_T: 266.99, SWIN_S: 359.21, "dat_t_49_49": 273.51, "dat_s_49_49": 376.54},
    "cascade_mask_rcnn": {
        SWIN_T: 745.54,
        SWIN_S: 837.77,
        SWIN_B: 982.41,
        "dat_t_49_49": 752.06,
        "dat_s_49_49": 855.09,
        "dat_b_49_49": 1000.13,
    },
    "semantic_fpn": {"dat_t_49_49": 192.93, "dat_s_49_49": 298.30, "dat_b_49_49": 447.21},
    "upernet": {
        SWIN_T: 945.08,
        SWIN_S: 1038.30,
        SWIN_B: 1188.44,
        "dat_t_49_49": 951.69,
        "dat_s_49_49": 1057.07,
        "dat_b_49_49": 1208.06,
    },
}

WORKSHOP = Workshop()


@pytest.mark.parametrize(
    ("head", "backbone", "gmacs"),
    [(head, *total) for head, totals in TOTALS.items() for total in totals.items()],
)
def test_totals(head: str, backbone: str, gmacs: float) -> None:
    if backbone.startswith("timm:"):
        pytest.importorskip("timm", reason="needs datbench[timm]", exc_type=ImportError)
    found = WORKSHOP.make(Build(backbone, HEADS[head].resolution, head)).totals[WITHOUT_RESIZING]
    if head == "semantic_fpn":
        found += DOUBLINGS
    assert round(found / 1e9, 2) == gmacs


def test_a_whole_is_its_backbone_and_its_head() -> None:
    """What the tables add up is what the whole model counts."""
    size = Resolution(320, 192)
    for head in HEADS:
        made = WORKSHOP.make(Build("dat_t_49_49", size, head))
        whole = datbench.count_model(f"dat_t_49_49+{head}", datbench.Setting(size))
        assert {name: whole.total(rule) for name, rule in RULES.items()} == made.totals
