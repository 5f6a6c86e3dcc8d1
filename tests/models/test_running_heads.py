"""Detectors and segmentors on real inputs: shapes, gradients, regions, and what is refused."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

import datbench
from datbench.counting.count import build_for_count, count_anywhere
from datbench.errors import MeasurementError, UnknownNameError, UsageError
from datbench.memory import simulate
from datbench.memory.device import profiled
from datbench.models.detectors import dense
from datbench.models.detectors.dense import FourMaps
from datbench.models.detectors.heads import HEADS
from datbench.models.detectors.modules import Regions, level_of, proposals, roi_align
from datbench.models.detectors.spec import DetectorSpec
from datbench.models.resolve import build, resolve
from datbench.setting import MemoryMode, Resolution, Setting

Shapes = list[tuple[int, ...]]


class Plain(nn.Module):
    """Four maps by convolutions alone, of 8, 12, 16 and 20 channels.

    Args:
        channels: what it declares; default: nothing.
        reads: it reads a value, and so cannot run on meta.
    """

    def __init__(
        self,
        as_mapping: bool = False,
        maps: int = 4,
        stride: int = 4,
        channels: tuple[int, ...] | None = None,
        reads: bool = False,
    ) -> None:
        super().__init__()
        self.as_mapping = as_mapping
        self.reads = reads
        self.channels = channels
        strides = [stride, 2, 2, 2][:maps]
        dims = [3, 8, 12, 16, 20]
        self.convs = nn.ModuleList(
            nn.Conv2d(dims[i], dims[i + 1], s, stride=s) for i, s in enumerate(strides)
        )

    def forward(self, x: Tensor) -> list[Tensor] | dict[str, Tensor]:
        assert not self.reads or abs(x.mean().item()) < 1
        found = []
        for conv in self.convs:
            x = conv(x)
            found.append(x)
        return {str(i): x for i, x in enumerate(found)} if self.as_mapping else found


class Pools(nn.Module):
    """Maps without a parameter."""

    def __init__(self, reads: bool = False) -> None:
        super().__init__()
        self.reads = reads

    def forward(self, x: Tensor) -> list[Tensor]:
        assert not self.reads or abs(x.mean().item()) < 1
        return [F.avg_pool2d(x, stride) for stride in (4, 8, 16, 32)]


HERE = f"{__name__}:"
SWIN = "timm:swin_tiny_patch4_window7_224"


def _made(name: str, width: int = 96, height: int = 64, device: str = "cpu") -> FourMaps:
    module = build(resolve(name), Resolution(width, height), device=device)
    assert isinstance(module, FourMaps)
    return module


def _shapes(maps: list[Tensor]) -> Shapes:
    return [tuple(x.shape) for x in maps]


def _sizes(start: int, levels: int, width: int = 96, height: int = 64) -> Shapes:
    strides = [2 ** (start + i) for i in range(levels)]
    return [(-(-height // stride), -(-width // stride)) for stride in strides]


def test_retinanet() -> None:
    out = _made("dat_t+retinanet").eval()(torch.randn(2, 3, 64, 96))
    assert list(out) == ["scores", "boxes"]
    sizes = _sizes(3, 5)
    assert _shapes(out["scores"]) == [(2, 720, *size) for size in sizes]
    assert _shapes(out["boxes"]) == [(2, 36, *size) for size in sizes]


@pytest.mark.parametrize(("head", "stages"), [("mask_rcnn", 1), ("cascade_mask_rcnn", 3)])
def test_mask_rcnn(head: str, stages: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dense, "PROPOSALS", 20)  # a fiftieth, to be quick
    monkeypatch.setattr(dense, "MASKS", 2)
    out = _made(f"{HERE}Plain+{head}").eval()(torch.randn(2, 3, 64, 96))
    sizes = _sizes(2, 5)
    assert _shapes(out["proposal_scores"]) == [(2, 3, *size) for size in sizes]
    assert _shapes(out["proposal_boxes"]) == [(2, 12, *size) for size in sizes]
    assert _shapes(out["scores"]) == [(40, 81)] * stages
    assert _shapes(out["boxes"]) == [(40, 320)] * stages
    assert _shapes(out["masks"]) == [(4, 80, 28, 28)] * stages


@pytest.mark.parametrize("head", ["semantic_fpn", "upernet"])
def test_segmentors(head: str) -> None:
    model = _made(f"{HERE}Plain+{head}").eval()
    x = torch.randn(2, 3, 64, 96)
    assert model(x).shape == (2, 150, 64, 96)
    torch.testing.assert_close(model(x), model(x))
    trained = model.train()(x)
    if head == "semantic_fpn":
        assert trained.shape == (2, 150, 64, 96)
        return
    assert [tuple(y.shape) for y in trained] == [(2, 150, 64, 96)] * 2
    with pytest.raises(UsageError, match="use a batch of 2 or more"):
        model(x[:1])


@pytest.mark.parametrize("head", HEADS)
def test_every_parameter_is_trained(head: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dense, "PROPOSALS", 12)
    monkeypatch.setattr(dense, "MASKS", 2)
    with torch.device("meta"):
        model = _made(f"{HERE}Plain+{head}", device="meta").train()
        out = model(torch.empty(2, 3, 64, 64))
    leaves = tree_leaves(out)
    sum(leaf.sum() for leaf in leaves).backward()
    assert [n for n, p in model.named_parameters() if p.grad is None] == []


# Regions.


def test_proposals_are_fixed_inside_and_on_every_level() -> None:
    boxes = proposals(1000, 1280, 800)
    assert boxes == proposals(1000, 1280, 800)
    assert all(0 <= a < c <= 1280 and 0 <= b < d <= 800 for a, b, c, d in boxes)
    levels = [level_of(box, 4) for box in boxes]
    assert min(levels.count(level) for level in range(4)) >= 50
    assert {level_of(box, 4) for box in boxes[:100]} == {0, 1, 2, 3}
    # FPN, Eq. 1: 224 pixels belong to the third level.
    sides = [(20, 0), (111, 0), (112, 1), (223, 1), (224, 2), (447, 2), (448, 3), (2000, 3)]
    for side, level in sides:
        assert level_of((0, 0, side, side), 4) == level


def test_roi_align_is_torchvisions() -> None:
    ops = pytest.importorskip("torchvision.ops", exc_type=ImportError)
    torch.manual_seed(0)
    x = torch.randn(2, 5, 20, 33)
    boxes = [*proposals(40, 132, 80), (0.0, 0.0, 132.0, 80.0), (0.0, 10.0, 3.0, 11.0)]
    ours = roi_align(x, boxes, 7, 0.25)
    rois = torch.tensor([(i, *box) for i in range(2) for box in boxes])
    theirs = ops.roi_align(x, rois, (7, 7), spatial_scale=0.25, sampling_ratio=2, aligned=True)
    torch.testing.assert_close(ours.flatten(0, 1), theirs, atol=1e-5, rtol=1e-4)


def test_roi_align_of_a_ramp_is_its_cells_centres() -> None:
    x = torch.arange(32.0).expand(1, 1, 32, 32)  # the value is x - 0.5 of a pixel's centre
    found = roi_align(x, [(8.0, 8.0, 24.0, 24.0)], 4, 1.0)
    torch.testing.assert_close(found[0, 0, 0, 0], torch.tensor([9.5, 13.5, 17.5, 21.5]))


def test_regions_keep_the_order_of_their_boxes_image_by_image() -> None:
    levels = [torch.full((1, 1, 800 // s, 1280 // s), float(s)) for s in (4, 8, 16, 32)]
    boxes = proposals(50, 1280, 800)
    found = Regions(7)(levels, boxes, 1280)
    assert found.shape == (50, 1, 7, 7)
    expected = [4.0 * 2 ** level_of(box, 4) for box in boxes]
    torch.testing.assert_close(found[:, 0, 3, 3], torch.tensor(expected))
    pairs = [torch.ones(2, 1, 64 // s, 64 // s) for s in (4, 8, 16, 32)]
    for x in pairs:
        x[1] = 5
    found = Regions(7)(pairs, proposals(6, 64, 64), 64)
    assert F.adaptive_avg_pool2d(found, 1).flatten().tolist() == [1.0] * 6 + [5.0] * 6


# Names and backbones.


def test_names_resolve_back() -> None:
    spec = resolve("timm:swin_tiny_patch4_window7_224,window_size=8+mask_rcnn")
    assert isinstance(spec, DetectorSpec)
    assert (spec.head, str(spec.resolution)) == ("mask_rcnn", "1280x800")
    assert resolve(spec.name) == spec
    assert str(resolve("dat_t+upernet").resolution) == "2048x512"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("ceit_s", "ceit_s has no four maps of strides 4 to 32"),
        ("torch.nn:AvgPool2d,kernel_size=4", "returns one tensor"),
        ("Plain,maps=3", "returns 3 outputs"),
        ("Plain,channels=(8, 12, 16, 20, 24)", "declares 5 feature maps; a head needs four"),
        (
            "Plain,channels=(8, 12, 16, 24)",
            "8, 12, 16, 20, and the head was made for 8, 12, 16, 24",
        ),
        ("Plain,stride=2", "a head needs stride 4 there"),
        ("Plain,stride=8,channels=(8, 12, 16, 20)", "a head needs stride 4 there"),
        # timm raises an AssertionError of one and an IndexError of the other.
        ("timm:levit_128s", "timm:levit_128s has fewer than four maps"),
        ("timm:efficientvit_m0", "timm:efficientvit_m0 has fewer than four maps"),
    ],
)
def test_backbones_without_four_maps(name: str, words: str) -> None:
    """Refused where they are built, by a run, though parameters alone need none."""
    if name.startswith("timm:"):
        pytest.importorskip("timm", reason="needs datbench[timm]", exc_type=ImportError)
    name = f"{HERE if name.startswith('Plain') else ''}{name}+retinanet"
    with pytest.raises(UsageError, match=words):
        build_for_count(name, Setting(Resolution(128, 128)))
    with pytest.raises(UsageError, match=words):
        _made(name)


def test_trying_a_backbone_out_leaves_it_as_it_was() -> None:
    torch.manual_seed(0)
    alone = Plain()
    torch.manual_seed(0)
    kept = build(resolve(f"{HERE}Plain+retinanet"), Resolution(96, 64)).backbone
    assert kept.training
    for name, weight in alone.state_dict().items():
        assert torch.equal(kept.state_dict()[name], weight)


@pytest.mark.filterwarnings("ignore:.*without values:datbench.errors.DatbenchWarning")
def test_a_backbone_without_parameters() -> None:
    """On meta where it can run there, and else where everything is made."""
    for name in ("Pools", "Pools,reads=True"):
        model = _made(f"{HERE}{name}+upernet", 64, 64).eval()
        assert model.channels == (3, 3, 3, 3)
        assert model(torch.zeros(1, 3, 64, 64)).shape == (1, 150, 64, 64)
    _, count = count_anywhere(
        resolve(f"{HERE}Pools,reads=True+retinanet"), Setting(Resolution(64, 64))
    )
    assert count.multiply_adds() > 0


@pytest.mark.parametrize("name", ["dat_t", "dat_t_49_49", "regionvit_s", "timm:dat_t", SWIN])
def test_retinanet_has_no_norm_on_the_map_that_it_leaves_out(name: str) -> None:
    if name.startswith("timm:"):
        pytest.importorskip("timm", reason="needs datbench[timm]", exc_type=ImportError)
    for head, trained in (("mask_rcnn", True), ("retinanet", False)):
        model = _made(f"{name}+{head}", 64, 64, "meta")
        norms = model.backbone.norms if model.norms is None else model.norms
        assert isinstance(norms, nn.ModuleList)
        assert [bool(list(norm.parameters())) for norm in norms] == [trained, True, True, True]
    assert model.eval()(torch.empty(1, 3, 64, 64, device="meta"))


def test_create_model_says_what_builds_the_others() -> None:
    for name in ("pvt_s", "timm:resnet18", "dat_t+retinanet"):
        with pytest.raises(UnknownNameError, match="create_model builds what"):
            datbench.create_model(name)
    said = build(resolve("pvt_s"), Resolution(224, 224), device="meta")  # as the message writes it
    assert said(torch.empty(1, 3, 224, 224, device="meta")).shape == (1, 1000)


def test_small_inputs_are_refused() -> None:
    with pytest.raises(UsageError, match="at least 64 pixels"):
        build_for_count("dat_t+retinanet", Setting(Resolution(64, 63)))
    with pytest.raises(UsageError, match="input 63x64 is too small"):
        _made("dat_t+retinanet")(torch.zeros(1, 3, 64, 63))


@pytest.mark.filterwarnings("ignore:.*without values:datbench.errors.DatbenchWarning")
@pytest.mark.parametrize("name", ["Plain", "Plain,as_mapping=True", "Plain,reads=True"])
def test_factories(name: str) -> None:
    """Channels are found out by a run; what reads values is made and counted on the CPU."""
    spec = resolve(f"{HERE}{name}+retinanet")
    built, count = count_anywhere(spec, Setting(Resolution(128, 64)))
    assert isinstance(built.module, FourMaps)
    assert built.module.channels == (8, 12, 16, 20)
    assert count.multiply_adds() > 0


@pytest.mark.parametrize(
    ("name", "channels", "normed"),
    [
        ("swin_tiny_patch4_window7_224", (96, 192, 384, 768), True),
        ("resnet18", (64, 128, 256, 512), False),  # five maps; the last four
        ("davit_tiny", (96, 192, 384, 768), False),
        ("dat_t", (96, 192, 384, 768), False),
    ],
)
def test_timm(name: str, channels: tuple[int, ...], normed: bool) -> None:
    pytest.importorskip("timm", reason="needs datbench[timm]", exc_type=ImportError)
    module = build_for_count(f"timm:{name}+retinanet", Setting(Resolution(128, 96)))
    assert isinstance(module, FourMaps)
    assert module.channels == channels
    assert (module.norms is not None) == normed
    out = module(torch.empty(1, 3, 96, 128, device="meta"))
    assert out["scores"][0].shape == (1, 720, 12, 16)


def test_timm_without_maps_of_four_strides() -> None:
    pytest.importorskip("timm", reason="needs datbench[timm]", exc_type=ImportError)
    with pytest.raises((UsageError, MeasurementError), match="stride 4"):
        datbench.count_model("timm:vit_tiny_patch16_224+upernet", Setting(Resolution(224, 224)))


def test_timms_swin_on_the_cpu_gives_what_its_maps_say() -> None:
    """Its maps are (B, H, W, C): the head sees them as (B, C, H, W), normalised."""
    pytest.importorskip("timm", reason="needs datbench[timm]", exc_type=ImportError)
    model = _made(f"{SWIN}+semantic_fpn", 64, 64).eval()
    with torch.no_grad():
        x = torch.randn(1, 3, 64, 64)
        maps, raw = model.maps(x), model.backbone(x)
    for ours, theirs in zip(maps, raw, strict=True):
        expected = F.layer_norm(theirs, theirs.shape[-1:]).permute(0, 3, 1, 2)
        torch.testing.assert_close(ours, expected)


# Memory.


class _Regions(nn.Module):
    """Regions of two levels, and what they are cut from."""

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(3, 64, s, stride=s) for s in (4, 8))
        self.regions = Regions(7)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.regions([conv(x) for conv in self.convs], proposals(200, 128, 128), 128)
        return out


@pytest.mark.parametrize("mode", ["inference", "train"])
@pytest.mark.parametrize("name", ["dat_t+retinanet", "regions"])
def test_simulated_memory_is_what_the_profiler_sees(name: str, mode: MemoryMode) -> None:
    model = (_Regions() if name == "regions" else _made(name, 128, 128)).train(mode == "train")
    found = profiled(model, torch.zeros(1, 3, 128, 128), mode=mode)
    trace = simulate(model.to("meta"), torch.empty(1, 3, 128, 128, device="meta"), mode=mode)
    assert trace.peak.amount / found.peak == pytest.approx(1, abs=0.02)
    assert sum(trace.live(trace.end).values()) / found.at_end == pytest.approx(1, abs=1e-3)
