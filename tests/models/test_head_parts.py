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
    AuxiliaryHead,
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


def _on_meta(make: Callable[[], nn.Module]) -> nn.Module:
    with torch.device("meta"):
        return make().eval()


def _maps(width: int, height: int, dims: tuple[int, ...] = CHANNELS) -> list[torch.Tensor]:
    return [
        torch.empty(1, dim, height // stride, width // stride, device="meta")
        for dim, stride in zip(dims, (4, 8, 16, 32), strict=True)
    ]


def _figures(make: Callable[[], nn.Module], *inputs: object) -> tuple[float, float]:
    module = _on_meta(make)
    macs = datbench.count(module, *inputs).total(RULE)
    return round(macs / 1e9, 3), round(datbench.parameters(module).params / 1e6, 3)


def _levels(start: int, sides: int) -> list[torch.Tensor]:
    shapes = [(200, 320), (100, 160), (50, 80), (25, 40), (13, 20), (7, 10)][start : start + sides]
    return [torch.empty(1, 256, *shape, device="meta") for shape in shapes]


DETECTION = {
    "FPN P3-P7": (lambda: FPN(CHANNELS, start=1, extra="convs"), (14.264, 4.475)),
    "FPN P2-P6": (lambda: FPN(CHANNELS, extra="pool"), (53.084, 2.730)),
}


@pytest.mark.parametrize("part", DETECTION)
def test_feature_pyramids(part: str) -> None:
    make, expected = DETECTION[part]
    assert _figures(make, _maps(1280, 800)) == expected


@pytest.mark.parametrize(
    ("make", "shape", "expected"),
    [
        (RetinaHead, None, (137.801, 6.463)),
        (RPN, None, (50.616, 0.594)),
        (lambda: BoxHead(convs=0, linears=2), (1000, 256, 7, 7), (14.304, 14.307)),
        (lambda: BoxHead(convs=4, linears=1), (1000, 256, 7, 7), (128.962, 15.618)),
        (MaskHead, (100, 256, 14, 14), (52.986, 2.643)),
    ],
    ids=["RetinaHead", "RPN", "2FC", "4conv1fc", "mask"],
)
def test_detection_heads(
    make: Callable[[], nn.Module], shape: tuple[int, ...] | None, expected: tuple[float, float]
) -> None:
    start = 1 if make is RetinaHead else 0
    given = _levels(start, 5) if shape is None else torch.empty(shape, device="meta")
    assert _figures(make, given) == expected


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


def test_upernet() -> None:
    assert _figures(lambda: UperHead(CHANNELS), _maps(2048, 512)) == (845.638, 31.497)
    assert _figures(lambda: AuxiliaryHead(384), _maps(2048, 512)[2])[1] == 0.924


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
    count = datbench.count(module, torch.empty(1, 3, size.height, size.width, device="meta"))
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


SWIN = "timm:swin_{}_patch4_window7_224"
TOTALS = [
    ("retinanet", SWIN.format("tiny"), 248.03),
    ("retinanet", SWIN.format("small"), 340.26),
    ("mask_rcnn", SWIN.format("tiny"), 266.99),
    ("mask_rcnn", SWIN.format("small"), 359.21),
    ("cascade_mask_rcnn", SWIN.format("tiny"), 745.54),
    ("cascade_mask_rcnn", SWIN.format("small"), 837.77),
    ("cascade_mask_rcnn", SWIN.format("base"), 982.41),
    ("upernet", SWIN.format("tiny"), 945.08),
    ("upernet", SWIN.format("small"), 1038.30),
    ("upernet", SWIN.format("base"), 1188.44),
    ("retinanet", "dat_t_49_49", 254.55),
    ("retinanet", "dat_s_49_49", 357.58),
    ("mask_rcnn", "dat_t_49_49", 273.51),
    ("mask_rcnn", "dat_s_49_49", 376.54),
    ("cascade_mask_rcnn", "dat_t_49_49", 752.06),
    ("cascade_mask_rcnn", "dat_s_49_49", 855.09),
    ("cascade_mask_rcnn", "dat_b_49_49", 1000.13),
    ("semantic_fpn", "dat_t_49_49", 192.93),
    ("semantic_fpn", "dat_s_49_49", 298.30),
    ("semantic_fpn", "dat_b_49_49", 447.21),
    ("upernet", "dat_t_49_49", 951.69),
    ("upernet", "dat_s_49_49", 1057.07),
    ("upernet", "dat_b_49_49", 1208.06),
]

WORKSHOP = Workshop()


@pytest.mark.parametrize(("head", "backbone", "gmacs"), TOTALS)
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
