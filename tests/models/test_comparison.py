"""Comparison models: their published sizes, what they compute, and how they are refused."""

import logging
import math
import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import datbench
from datbench import Resolution, Setting
from datbench.counting.conventions import CONVENTIONS
from datbench.errors import UsageError
from datbench.models.comparison import COMPARISONS
from datbench.models.comparison.ceit import Ceit, CeitModel
from datbench.models.comparison.glit import Glit, GlitModel, GlitNet
from datbench.models.comparison.pvt import DeformablePatch, Pvt, PvtStage, PyramidTransformer
from datbench.models.comparison.regionvit import RegionStage, RegionVit, RegionVitModel
from datbench.models.comparison.tokens import resized
from datbench.models.resolve import build, resolve
from datbench.paper.tables import Printed
from datbench.setting import Kind

FVCORE = CONVENTIONS["fvcore"]
AT_224 = Setting(Resolution(224, 224))
PROJECTED = f"config:{Path(__file__).parent / 'configs' / 'dat_t_ss_ld.yaml'}"
"""A stem of another width than the first stage's."""

# A few thousand weights, so that a test may run them on a CPU.
SMALL_CEIT = Ceit(dim=32, heads=2, depth=2, stem=8, image_size=64, classes=10)
SMALL_GLIT = GlitNet(
    dim=24,
    blocks=(Glit(3, widening=0.5), Glit(0, local=2, kernel=17), Glit(1, local=2, expansion=2)),
    image_size=64,
    classes=10,
)
SMALL_REGIONVIT = RegionVit(
    dims=(8, 16, 32, 64), heads=(1, 2, 4, 8), depths=(1, 2, 1, 1), window=3, classes=10
)
SMALL_PVT = Pvt(
    stages=(
        PvtStage(8, 1, 1, ratio=8, expansion=2),
        PvtStage(16, 2, 2, ratio=4, expansion=2),
        PvtStage(24, 3, 1, ratio=2, expansion=2),
        PvtStage(32, 4, 1, ratio=1, expansion=2),
    ),
    drop_path=0.1,
    classes=10,
)
SMALL_DPT = replace(SMALL_PVT, deformable_points=3)
SMALL: dict[str, Callable[..., nn.Module]] = {
    "ceit_s": partial(CeitModel, SMALL_CEIT),
    "glit_t": partial(GlitModel, SMALL_GLIT),
    "regionvit_s": partial(RegionVitModel, SMALL_REGIONVIT, False),
    "pvt_t": partial(PyramidTransformer, SMALL_PVT, False),
    "dpt_t": partial(PyramidTransformer, SMALL_DPT, False),
}
OURS = tuple(SMALL)

# What is published: PVT Table 2, and the README of CASIA-IVA-Lab/DPT.
PRINTS = {
    "pvt_t": ("1.9G", "13.2M"),
    "pvt_s": ("3.8G", "24.5M"),
    "pvt_m": ("6.7G", "44.2M"),
    "pvt_l": ("9.8G", "61.4M"),
    "dpt_t": ("2.1G", "15.2M"),
    "dpt_s": ("4.0G", "26.4M"),
    "dpt_m": ("6.9G", "46.1M"),
}


def _params(name: str, features: bool = False) -> int:
    model = build(resolve(name), Resolution(224, 224), features=features, device="meta")
    return sum(parameter.numel() for parameter in model.parameters())


# Published: 24.2M and 4.5G (4.8G in DAT's Table 9), 7.3M and 1.4G, 30.6M and 5.3G.
@pytest.mark.parametrize(
    ("name", "params", "macs", "products"),
    [
        ("ceit_s", 24_204_840, 4_802_854_784, 4.8),
        ("glit_t", 7_264_456, 1_479_265_536, 1.5),
        ("regionvit_s", 30_586_618, 5_360_278_272, 5.3),  # as its paper prints
    ],
)
def test_published_sizes(name: str, params: int, macs: int, products: float) -> None:
    assert _params(name) == params
    count = datbench.count_model(name, AT_224)
    assert count.total(FVCORE) == macs
    assert round(count.total(CONVENTIONS["torch"]) / 2e9, 1) == products


@pytest.mark.parametrize(("name", "printed"), [("davit_huge", 334), ("davit_giant", 1038)])
def test_the_setting_of_davit_h_and_g(name: str, printed: int) -> None:
    """Overlapping down-sampling makes both printed values; plain down-sampling makes neither."""
    pytest.importorskip("timm", reason="needs datbench[timm]", exc_type=ImportError)
    setting = Setting(Resolution(512, 512))
    products = {
        kernel: datbench.count_model(
            f"timm:{name},window_size=16,down_kernel_size={kernel}", setting
        ).total(CONVENTIONS["torch"])
        for kernel in (2, 3)
    }
    assert round(products[3] / 2e9) == printed
    assert round(products[2] / 2e9) < 0.99 * printed


@pytest.mark.parametrize("name", OURS)
def test_meta_and_sdpa_count_the_same(name: str) -> None:
    totals = {
        datbench.count_model(
            name, Setting(Resolution(64, 96), device=device, attention=kind)
        ).total(FVCORE)
        for device, kind in (("meta", "eager"), ("meta", "sdpa"), ("cpu", "sdpa"))
    }
    assert len(totals) == 1


@pytest.mark.peers
@pytest.mark.parametrize("name", [*OURS, PROJECTED])
def test_fvcore_agrees(name: str) -> None:
    fvcore = pytest.importorskip("fvcore.nn", reason="needs datbench[peers]", exc_type=ImportError)
    logging.getLogger("fvcore.nn.jit_analysis").setLevel(logging.ERROR)
    size = Resolution(224, 224) if name in ("pvt_t", "dpt_t") else Resolution(160, 96)
    model = build(resolve(name), size).eval()
    x = torch.randn(1, 3, size.height, size.width)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # the tracer's
        theirs = int(fvcore.FlopCountAnalysis(model, x).total())
    assert datbench.count(model, x).total(FVCORE) == theirs
    assert datbench.count_model(name, Setting(size)).total(FVCORE) == theirs


@pytest.mark.parametrize("size", [(32, 32), (33, 47), (96, 96), (64, 150)])
@pytest.mark.parametrize("name", SMALL)
def test_eager_and_sdpa_are_one_function_of_any_size(name: str, size: tuple[int, int]) -> None:
    x = torch.randn(2, 3, *size)
    eager, fused = SMALL[name]("eager").eval(), SMALL[name]("sdpa").eval()
    fused.load_state_dict(eager.state_dict())
    with torch.no_grad():
        found = eager(x)
        assert found.shape == (2, 10)
        torch.testing.assert_close(found, fused(x), rtol=1e-4, atol=1e-5)


# The class token, which alone is read of CeiT's last block, passes its local FFN by. Regional
# tokens, which alone are read of RegionViT's, have no position bias.
UNREAD = {"ceit_s": "blocks.1.ffn.", "regionvit_s": "stages.3.blocks.0.bias_table"}
MAPS = {
    "regionvit maps": partial(RegionVitModel, SMALL_REGIONVIT, True),
    "dpt maps": partial(PyramidTransformer, SMALL_DPT, True),
}


@pytest.mark.parametrize("name", [*SMALL, *MAPS])
def test_every_parameter_learns(name: str) -> None:
    model = (SMALL | MAPS)[name]("eager")
    for module in model.modules():
        if isinstance(module, DeformablePatch):  # a box that nothing moves teaches its norm nothing
            nn.init.normal_(module.box.weight, std=0.02)
    out = model(torch.randn(2, 3, 64, 72))
    maps = out if isinstance(out, list) else [out]
    sum((y * torch.randn_like(y)).sum() for y in maps).backward()
    silent = {n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()}
    unread = UNREAD.get(name, "none")
    assert silent == {n for n, _ in model.named_parameters() if n.startswith(unread)}


def test_feature_maps() -> None:
    spec = resolve("regionvit_s")
    model = build(spec, Resolution(150, 100), features=True, device="meta")
    maps = model(torch.empty(2, 3, 100, 150, device="meta"))
    shapes = [tuple(y.shape) for y in maps]
    assert shapes == [(2, 96, 25, 38), (2, 192, 13, 19), (2, 384, 7, 10), (2, 768, 4, 5)]


def test_regional_attention_by_hand() -> None:
    """A stage's block against loops over regions; the map fills no whole number of windows."""
    torch.manual_seed(0)
    stage = RegionStage(SMALL_REGIONVIT, 0, "eager").eval()
    block, side, dim = stage.blocks[0], SMALL_REGIONVIT.window, SMALL_REGIONVIT.dims[0]
    nn.init.normal_(block.bias_table)
    regional, local = torch.randn(1, 2, 2, dim), torch.randn(1, 5, 4, dim)
    with torch.no_grad():
        new_regional, new_local = stage(regional, local)

        def attend(queries: Tensor, keys: Tensor, bias: Tensor) -> Tensor:
            weight, offset = block.attn.qkv.weight.split(dim), block.attn.qkv.bias.split(dim)
            q = F.linear(queries, weight[0], offset[0])
            k, v = (F.linear(keys, weight[i], offset[i]) for i in (1, 2))
            logits = q @ k.T * dim**-0.5 + bias  # one head
            return block.attn.out(logits.softmax(-1) @ v)

        flat = regional.view(4, dim)
        normed = block.norm0(flat)
        flat = flat + attend(normed, normed, torch.zeros(4, 4))
        for region in range(4):
            row, column = divmod(region, 2)
            places = [
                (y, x)
                for y in range(row * side, min((row + 1) * side, 5))
                for x in range(column * side, min((column + 1) * side, 4))
            ]
            tokens = torch.stack([flat[region], *(local[0, y, x] for y, x in places)])
            bias = torch.zeros(len(tokens), len(tokens))
            for i, (qy, qx) in enumerate(places, start=1):
                for j, (ky, kx) in enumerate(places, start=1):
                    cell = (qy - ky + side - 1) * (2 * side - 1) + qx - kx + side - 1
                    bias[i, j] = block.bias_table[0, cell]
            normed = block.norm1(tokens)
            tokens = tokens + attend(normed, normed, bias)
            tokens = tokens + block.ffn(block.norm2(tokens))
            torch.testing.assert_close(new_regional[0, row, column], tokens[0])
            for (y, x), token in zip(places, tokens[1:], strict=True):
                torch.testing.assert_close(new_local[0, y, x], token)


def test_ceit_reads_the_class_token_of_every_block() -> None:
    model = CeitModel(SMALL_CEIT, "eager").eval()
    seen: list[Tensor] = []
    model.last.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    outputs: list[Tensor] = []
    for block in model.blocks:
        block.register_forward_hook(lambda _, __, out: outputs.append(out[:, 0]))
    with torch.no_grad():
        model(torch.randn(2, 3, 64, 64))
    torch.testing.assert_close(seen[0], torch.stack(outputs, dim=1))
    assert not torch.equal(seen[0][:, 0], seen[0][:, 1])


def test_position_embeddings_of_another_size() -> None:
    ramp = torch.arange(56.0).expand(1, 3, 56, 56).permute(0, 2, 3, 1)  # x of every pixel
    table = nn.Parameter(ramp)
    found = resized(table, 14, 28, "bilinear")
    assert found.shape == (1, 14, 28, 3)
    torch.testing.assert_close(found[0, 0, :, 0], torch.arange(28) * 2 + 0.5)
    assert all(resized(table, 56, 56, mode) is table for mode in ("bilinear", "bicubic"))
    torch.testing.assert_close(resized(torch.ones(1, 4, 4, 32), 7, 3), torch.ones(1, 7, 3, 32))


def test_glit_convolves_along_the_sequence() -> None:
    """A block without attention sees a token's neighbours within its kernel, and no others."""
    block = GlitModel(SMALL_GLIT, "eager").eval().blocks[1]
    x = torch.randn(1, 40, 24)
    moved = x.clone()
    moved[0, 20, 0] += 1.0  # one channel: a shift of all is what LayerNorm removes
    with torch.no_grad():
        changed = (block(x) != block(moved)).any(-1)[0].nonzero().flatten().tolist()
    assert changed == list(range(20 - 8, 20 + 8 + 1))


def test_the_published_blocks_of_glit_t_are_not_those_of_glit_s() -> None:
    """Twice as wide they have more parameters than the 24.6M that are published for GLiT-S."""
    with torch.device("meta"):
        wide = GlitModel(replace(COMPARISONS.get("glit_t").config, dim=384), "eager")
    assert sum(parameter.numel() for parameter in wide.parameters()) == 27_897_256


def test_names() -> None:
    assert {*OURS, *PRINTS} <= set(COMPARISONS)
    for spec in COMPARISONS.values():
        assert resolve(spec.name) is spec
        assert str(spec.resolution) == "224x224"
        assert spec.family == "comparison"


def test_refusals() -> None:
    with pytest.raises(UsageError, match="ceit_s has no four maps"):
        build(resolve("ceit_s"), Resolution(224, 224), features=True, device="meta")
    for name in (*OURS, "dat_t"):
        model = build(resolve(name), Resolution(224, 224), device="meta")
        with pytest.raises(UsageError, match="40x31 is too small"):
            model(torch.empty(1, 3, 31, 40, device="meta"))


# PVT and DPT.


@pytest.mark.parametrize("name", PRINTS)
def test_figures_round_to_the_papers(name: str) -> None:
    flops, params = (Printed.parse(text) for text in PRINTS[name])
    assert params.agrees(_params(name))
    count = datbench.count_model(name, AT_224)
    # PVT-L and DPT-T are a rounding above their print; their multiply-adds alone round to it.
    amount = count.total(CONVENTIONS["torch"]) // 2
    assert flops.agrees(amount), amount
    assert flops.cuts_off(count.total(FVCORE)) or flops.agrees(count.total(FVCORE))


def test_four_blocks_in_stage_2() -> None:
    """PVT's Table 1 prints three for S and M, its Table 2 the parameters of four."""
    for name in ("pvt_s", "pvt_m"):
        config = COMPARISONS.get(name).config
        assert isinstance(config, Pvt)
        first, second, third, fourth = config.stages
        three = replace(config, stages=(first, replace(second, depth=3), third, fourth))
        with torch.device("meta"):
            elements = sum(p.numel() for p in PyramidTransformer(three).parameters())
        assert not Printed.parse(PRINTS[name][1]).agrees(elements)


def test_dpt_costs_what_its_patches_add() -> None:
    """By hand: nine points of C features a patch instead of four, and a box."""
    added = dict.fromkeys(("linear", "sample", "norm", "params"), 0)
    for side, dim_in, dim in ((28, 64, 128), (14, 128, 320), (7, 320, 512)):
        patches = side * side
        added["linear"] += patches * (9 * dim_in * dim + 4 * dim)
        added["sample"] += patches * 9 * dim_in
        added["norm"] += patches * dim
        added["params"] += (9 * dim_in * dim + dim) + 4 * dim + 2 * dim + 2
    dpt, pvt = (datbench.count_model(name, AT_224) for name in ("dpt_s", "pvt_s"))
    for kind, what in ((Kind.LINEAR, "linear"), (Kind.SAMPLE, "sample"), (Kind.NORM, "norm")):
        amounts = [sum(call.cost.get(kind, 0) for call in count.calls) for count in (dpt, pvt)]
        assert amounts[0] - amounts[1] == added[what], what
    assert _params("dpt_s") - _params("pvt_s") == added["params"]


@pytest.mark.parametrize("config", [SMALL_PVT, SMALL_DPT], ids=["pvt", "dpt"])
@pytest.mark.parametrize(("height", "width"), [(64, 96), (97, 70), (32, 32)])
def test_maps_of_a_pyramid_of_any_size(config: Pvt, height: int, width: int) -> None:
    model = PyramidTransformer(config, features=True).eval()
    with torch.no_grad():
        maps = model(torch.randn(2, 3, height, width))
    sides = [(height // 4 >> i, width // 4 >> i) for i in range(4)]
    assert [tuple(m.shape) for m in maps] == [
        (2, dim, *side) for dim, side in zip((8, 16, 24, 32), sides, strict=True)
    ]
    assert all(m.isfinite().all() for m in maps)


def test_maps_have_no_class_token_head_or_norm() -> None:
    logits, maps = _params("pvt_t"), _params("pvt_t", features=True)
    token, norm, head = 2 * 512, 2 * 512, 513 * 1000
    assert logits - maps == token + norm + head


# Deformable patches.


def _reference(patch: DeformablePatch, x: Tensor, codes: Tensor) -> Tensor:
    """The points of the published code, one by one: (H/2, W/2, 9, C) of x (H, W, C)."""
    height, width, channels = x.shape
    h, w = height // 2, width // 2
    sampled = torch.zeros(h, w, 9, channels)

    def pixel(row: int, column: int) -> Tensor:
        inside = 0 <= row < height and 0 <= column < width
        return x[row, column] if inside else torch.zeros(channels)

    def bilinear(across: float, down: float) -> Tensor:
        column, row = across * width - 0.5, down * height - 0.5
        left, top = math.floor(column), math.floor(row)
        a, b = column - left, row - top
        return (1 - b) * ((1 - a) * pixel(top, left) + a * pixel(top, left + 1)) + b * (
            (1 - a) * pixel(top + 1, left) + a * pixel(top + 1, left + 1)
        )

    bias = patch.extent_bias.tolist()
    for i in range(h):
        for j in range(w):
            dx, dy, dw, dh = codes[i, j].tolist()
            cx, cy = (j + 0.5 + math.tanh(dx)) / w, (i + 0.5 + math.tanh(dy)) / h
            ex = max(math.tanh(dw + bias[0]), 0) / w
            ey = max(math.tanh(dh + bias[1]), 0) / h
            x0, x1 = (min(max(v, 0.0), 1.0) for v in (cx - ex, cx + ex))
            y0, y1 = (min(max(v, 0.0), 1.0) for v in (cy - ey, cy + ey))
            for n in range(9):
                a, b = (n // 3) / 2, (n % 3) / 2
                sampled[i, j, n] = bilinear(x0 + (x1 - x0) * a, y0 + (y1 - y0) * b)
    return sampled


def test_points_are_sampled_as_the_published_code_does() -> None:
    patch = DeformablePatch(4, 8, points=3).double()
    x = torch.randn(1, 8, 12, 4, dtype=torch.float64)
    codes = 1.5 * torch.randn(1, 4, 6, 4, dtype=torch.float64)
    sampled = patch._sample(x, patch._points(codes)).view(4, 6, 9, 4)
    expected = _reference(patch, x[0].float(), codes[0]).double()
    torch.testing.assert_close(sampled, expected, atol=1e-5, rtol=1e-5)


def test_a_new_patch_samples_its_own_pixels() -> None:
    patch = DeformablePatch(4, 8, points=3)
    x = torch.randn(2, 6, 10, 4)
    points = patch._points(torch.zeros(2, 3, 5, 4))
    corners = patch._sample(x, points).view(2, 3, 5, 3, 3, 4)[..., ::2, ::2, :]
    own = x.view(2, 3, 2, 5, 2, 4).permute(0, 1, 3, 4, 2, 5)  # (B, h, w, x, y, C)
    torch.testing.assert_close(corners, own, atol=1e-5, rtol=1e-5)
    assert not patch.box.weight.any()
    patch(x).square().sum().backward()  # gradients reach the box
    assert patch.box.weight.grad.abs().sum() > 0
    assert patch.extent_bias.grad.abs().sum() > 0
