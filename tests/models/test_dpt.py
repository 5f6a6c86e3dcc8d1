"""PVT and DPT: their published sizes, deformable patches, maps for any input."""

import logging
import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

import datbench
from datbench import Resolution, Setting
from datbench.counting.conventions import CONVENTIONS
from datbench.counting.count import build_for_count
from datbench.errors import UnknownNameError, UsageError
from datbench.models.comparison import COMPARISONS
from datbench.models.comparison.pvt import DPT_T, PVT_T, DeformablePatch, Pvt, PyramidTransformer
from datbench.models.comparison.tokens import resized
from datbench.models.resolve import resolve
from datbench.paper.tables import Printed
from datbench.setting import Kind

FVCORE = CONVENTIONS["fvcore"]
AT_224 = Setting(Resolution(224, 224))

# GMACs by fvcore of PVT's published code, and millions of parameters.
KNOWN = {"pvt_s": (3.833, 24.486), "pvt_m": (6.685, 44.208), "pvt_l": (9.850, 61.369)}

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


def _trainable(name: str, features: bool = False) -> int:
    setting = replace(AT_224, features=features)
    return sum(p.numel() for p in build_for_count(name, setting).parameters())


@pytest.mark.parametrize("name", KNOWN)
def test_pvt_is_the_published_one(name: str) -> None:
    gmacs, millions = KNOWN[name]
    assert datbench.count_model(name, AT_224).total(FVCORE) / 1e9 == pytest.approx(gmacs, abs=6e-4)
    assert _trainable(name) / 1e6 == pytest.approx(millions, abs=6e-4)


@pytest.mark.parametrize("name", PRINTS)
def test_figures_round_to_the_papers(name: str) -> None:
    flops, params = (Printed.parse(text) for text in PRINTS[name])
    assert params.agrees(_trainable(name))
    count = datbench.count_model(name, AT_224)
    # PVT-L and DPT-T are a rounding above their print; their multiply-adds alone round to it.
    amount = count.total(CONVENTIONS["torch"]) // 2
    assert flops.agrees(amount), amount
    assert flops.cuts_off(count.total(FVCORE)) or flops.agrees(count.total(FVCORE))


def test_four_blocks_in_stage_2() -> None:
    """PVT's Table 1 prints three for S and M, its Table 2 the parameters of four."""
    for name, millions in (("pvt_s", "24.5M"), ("pvt_m", "44.2M")):
        config = COMPARISONS.get(name).config
        assert isinstance(config, Pvt)
        first, second, third, fourth = config.stages
        three = replace(config, stages=(first, replace(second, depth=3), third, fourth))
        with torch.device("meta"):
            elements = sum(p.numel() for p in PyramidTransformer(three).parameters())
        assert not Printed.parse(millions).agrees(elements)
        assert Printed.parse(millions).agrees(_trainable(name))


@pytest.mark.peers
@pytest.mark.parametrize("name", ["pvt_t", "dpt_t"])
def test_fvcore_counts_the_same(name: str, caplog: pytest.LogCaptureFixture) -> None:
    fvcore_nn = pytest.importorskip("fvcore.nn", reason="needs datbench[peers]")
    caplog.set_level(logging.ERROR)
    model = COMPARISONS.get(name).build(Resolution(224, 224), False, "eager").eval()
    peer = fvcore_nn.FlopCountAnalysis(model, torch.zeros(1, 3, 224, 224))
    assert datbench.count_model(name, AT_224).total(FVCORE) == peer.total()


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
    assert _trainable("dpt_s") - _trainable("pvt_s") == added["params"]


@pytest.mark.parametrize("name", ["pvt_t", "dpt_t"])
def test_attention_does_not_change_a_count_or_an_output(name: str) -> None:
    spec = COMPARISONS.get(name)
    eager, fused = (spec.build(Resolution(64, 64), False, a).eval() for a in ("eager", "sdpa"))
    fused.load_state_dict(eager.state_dict())
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(eager(x), fused(x), atol=1e-5, rtol=1e-4)
    counts = {
        datbench.count_model(name, replace(AT_224, attention=a)).total(FVCORE)
        for a in ("eager", "sdpa")
    }
    assert len(counts) == 1


@pytest.mark.parametrize("config", [PVT_T, DPT_T], ids=["pvt", "dpt"])
@pytest.mark.parametrize(("height", "width"), [(64, 96), (97, 70), (32, 32)])
def test_maps_of_any_size(config: Pvt, height: int, width: int) -> None:
    model = PyramidTransformer(config, features=True).eval()
    with torch.no_grad():
        maps = model(torch.randn(2, 3, height, width))
    sides = [(height // 4 >> i, width // 4 >> i) for i in range(4)]
    assert [tuple(m.shape) for m in maps] == [
        (2, dim, *side) for dim, side in zip((64, 128, 320, 512), sides, strict=True)
    ]
    assert all(m.isfinite().all() for m in maps)


def test_maps_have_no_class_token_head_or_norm() -> None:
    logits, maps = _trainable("pvt_t"), _trainable("pvt_t", features=True)
    token, norm, head = 2 * 512, 2 * 512, 513 * 1000
    assert logits - maps == token + norm + head


@pytest.mark.parametrize("features", [False, True])
def test_every_parameter_learns(features: bool) -> None:
    model = PyramidTransformer(replace(DPT_T, drop_path=0.1, classes=5), features=features)
    for module in model.modules():
        if isinstance(module, DeformablePatch):  # a box that nothing moves teaches its norm nothing
            nn.init.normal_(module.box.weight, std=0.02)
    outputs = model(torch.randn(2, 3, 64, 64))
    sum(
        y.square().mean() for y in ([outputs] if isinstance(outputs, Tensor) else outputs)
    ).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_position_embeddings_are_resized() -> None:
    model = PyramidTransformer(PVT_T, features=True)
    stage = model.stages[0]
    ramp = torch.arange(56.0).expand(1, 64, 56, 56).permute(0, 2, 3, 1)  # x of every pixel
    stage.positions.data.copy_(ramp)
    found = resized(stage.positions, 14, 28, "bilinear")
    assert found.shape == (1, 14, 28, 64)
    torch.testing.assert_close(found[0, 0, :, 0], torch.arange(28) * 2 + 0.5)
    assert resized(stage.positions, 56, 56, "bilinear") is stage.positions


# Deformable patches


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


def test_gradients_reach_the_box() -> None:
    patch = DeformablePatch(3, 6, points=3)
    patch(torch.randn(1, 8, 8, 3)).square().sum().backward()
    assert patch.box.weight.grad.abs().sum() > 0
    assert patch.extent_bias.grad.abs().sum() > 0


# Names


def test_names_resolve() -> None:
    for spec in COMPARISONS:
        assert resolve(spec.name) is spec
        assert str(spec.resolution) == "224x224"
        assert spec.family == "comparison"


def test_an_unknown_name_is_near_a_known_one() -> None:
    with pytest.raises(UnknownNameError, match="did you mean dpt_s"):
        resolve("dpt_small")


def test_too_small_an_input() -> None:
    with pytest.raises(UsageError, match="input 31x40 is too small"):
        PyramidTransformer(PVT_T)(torch.zeros(1, 3, 40, 31))
