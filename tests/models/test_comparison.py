"""Comparison models: their published sizes, what they compute, and how they are refused."""

import logging
import warnings
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

import datbench
from datbench import Resolution, Setting
from datbench.counting.conventions import CONVENTIONS
from datbench.errors import UnknownNameError, UsageError
from datbench.models.comparison import COMPARISONS
from datbench.models.comparison.ceit import Ceit, CeitModel
from datbench.models.comparison.glit import GLIT_T, Glit, GlitModel, GlitNet
from datbench.models.comparison.regionvit import RegionStage, RegionVit, RegionVitModel
from datbench.models.comparison.tokens import resized
from datbench.models.resolve import build, resolve

FVCORE, STRICT = CONVENTIONS["fvcore"], CONVENTIONS["strict"]
OURS = ("ceit_s", "glit_t", "regionvit_s")

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


def _params(name: str) -> int:
    model = build(resolve(name), Resolution(224, 224), device="meta")
    return sum(parameter.numel() for parameter in model.parameters())


# Published: 24.2M and 4.5G (4.8G in DAT's Table 9), 7.3M and 1.4G, 30.6M and 5.3G.
@pytest.mark.parametrize(
    ("name", "params", "macs"),
    [
        ("ceit_s", 24_204_840, 4_802_854_784),
        ("glit_t", 7_264_456, 1_479_265_536),
        ("regionvit_s", 30_586_618, 5_360_278_272),
    ],
)
def test_published_sizes(name: str, params: int, macs: int) -> None:
    assert _params(name) == params
    assert datbench.count_model(name, Setting(Resolution(224, 224))).total(FVCORE) == macs


def test_regionvit_multiplies_what_its_paper_prints() -> None:
    count = datbench.count_model("regionvit_s", Setting(Resolution(224, 224)))
    assert round(count.total(CONVENTIONS["torch"]) / 2e9, 1) == 5.3


@pytest.mark.parametrize(("name", "printed"), [("davit_huge", 334), ("davit_giant", 1038)])
def test_the_setting_of_davit_h_and_g(name: str, printed: int) -> None:
    """Overlapping down-sampling makes the print of both; plain down-sampling of neither."""
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
            name, Setting(Resolution(64, 96), device=device, attention=attention)
        ).total(FVCORE)
        for device in ("meta", "cpu")
        for attention in ("eager", "sdpa")
    }
    assert len(totals) == 1


@pytest.mark.peers
@pytest.mark.parametrize("name", OURS)
def test_fvcore_agrees(name: str) -> None:
    fvcore = pytest.importorskip("fvcore.nn", reason="needs datbench[peers]", exc_type=ImportError)
    logging.getLogger("fvcore.nn.jit_analysis").setLevel(logging.ERROR)
    model = build(resolve(name), Resolution(160, 96)).eval()
    x = torch.randn(1, 3, 96, 160)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # the tracer's
        theirs = int(fvcore.FlopCountAnalysis(model, x).total())
    assert datbench.count(model, x).total(FVCORE) == theirs


@pytest.mark.parametrize("size", [(32, 32), (33, 47), (64, 64), (64, 150)])
def test_any_size_runs(size: tuple[int, int]) -> None:
    x = torch.randn(2, 3, *size)
    with torch.no_grad():
        assert CeitModel(SMALL_CEIT, "eager").eval()(x).shape == (2, 10)
        assert GlitModel(SMALL_GLIT, "eager").eval()(x).shape == (2, 10)
        assert RegionVitModel(SMALL_REGIONVIT, False, "eager").eval()(x).shape == (2, 10)


@pytest.mark.parametrize("size", [(96, 96), (64, 150)])
def test_eager_and_sdpa_are_one_function(size: tuple[int, int]) -> None:
    x = torch.randn(2, 3, *size)
    for make in (
        lambda kind: CeitModel(SMALL_CEIT, kind),
        lambda kind: GlitModel(SMALL_GLIT, kind),
        lambda kind: RegionVitModel(SMALL_REGIONVIT, False, kind),
    ):
        eager, fused = make("eager").eval(), make("sdpa").eval()
        fused.load_state_dict(eager.state_dict())
        with torch.no_grad():
            torch.testing.assert_close(eager(x), fused(x), rtol=1e-4, atol=1e-5)


def test_every_parameter_learns() -> None:
    # The class token, which alone is read of CeiT's last block, passes its local FFN by; regional
    # tokens, which alone are read of RegionViT's, have no position bias.
    for model, unread in (
        (CeitModel(SMALL_CEIT, "eager"), ("blocks.1.ffn.",)),
        (GlitModel(SMALL_GLIT, "eager"), ()),
        (RegionVitModel(SMALL_REGIONVIT, False, "eager"), ("stages.3.blocks.0.bias_table",)),
        (RegionVitModel(SMALL_REGIONVIT, True, "eager"), ()),
    ):
        out = model(torch.randn(2, 3, 64, 72))
        maps = out if isinstance(out, list) else [out]
        sum((y * torch.randn_like(y)).sum() for y in maps).backward()
        silent = {n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()}
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
    torch.nn.init.normal_(block.bias_table)
    regional, local = torch.randn(1, 2, 2, dim), torch.randn(1, 5, 4, dim)
    with torch.no_grad():
        new_regional, new_local = stage(regional, local)

        def attend(queries: torch.Tensor, keys: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
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
    seen: list[torch.Tensor] = []
    model.last.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    outputs: list[torch.Tensor] = []
    for block in model.blocks:
        block.register_forward_hook(lambda _, __, out: outputs.append(out[:, 0]))
    with torch.no_grad():
        model(torch.randn(2, 3, 64, 64))
    torch.testing.assert_close(seen[0], torch.stack(outputs, dim=1))
    assert not torch.equal(seen[0][:, 0], seen[0][:, 1])


def test_position_embeddings_of_another_size() -> None:
    table = torch.nn.Parameter(torch.randn(1, 4, 4, 32))
    assert resized(table, 4, 4) is table
    assert resized(table, 6, 5).shape == (1, 6, 5, 32)
    flat = torch.ones(1, 4, 4, 32)
    torch.testing.assert_close(resized(flat, 7, 3), torch.ones(1, 7, 3, 32))


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
        wide = GlitModel(replace(GLIT_T, dim=384), "eager")
    assert sum(parameter.numel() for parameter in wide.parameters()) == 27_897_256


def test_names() -> None:
    assert set(OURS) <= set(COMPARISONS.names())
    for spec in COMPARISONS:
        assert resolve(spec.name) is spec
        assert spec.family == "comparison"
    with pytest.raises(UnknownNameError, match="ceit_s"):
        resolve("ceit_m")


def test_refusals() -> None:
    with pytest.raises(UsageError, match="ceit_s has no four maps"):
        build(resolve("ceit_s"), Resolution(224, 224), features=True, device="meta")
    for name in OURS:
        model = build(resolve(name), Resolution(224, 224), device="meta")
        with pytest.raises(UsageError, match="40x31 is too small"):
            model(torch.empty(1, 3, 31, 40, device="meta"))
