"""Our integers against counters that no one here wrote: fvcore on real tensors, torch's own."""

import logging
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import datbench
from datbench.counting.count import build_for_count, count_built
from datbench.setting import Resolution, Setting
from tests.nets import short

timm = pytest.importorskip("timm", reason="needs datbench[timm]", exc_type=ImportError)
fvcore_nn = pytest.importorskip("fvcore.nn", reason="needs datbench[peers]", exc_type=ImportError)

pytestmark = pytest.mark.peers

# One or more of a family: convolutional, transformer, pyramid, mixed; batch, group, layer and
# no norm; pooling of every kind; squeeze-and-excitation; relative bias; cross-covariance.
SIDES = {
    64: "resnet18 resnext50_32x4d efficientnet_b0 convnext_atto densenet121 pvt_v2_b0 "
    "poolformer_s12 nf_regnet_b0 regnetx_002 mobilevit_xxs edgenext_xx_small",
    32: "vgg11",
    224: "vit_tiny_patch16_224 deit_tiny_distilled_patch16_224 swin_tiny_patch4_window7_224 "
    "swinv2_cr_tiny_224 davit_tiny coat_lite_tiny mixer_s32_224 xcit_nano_12_p16_224 "
    "twins_pcpvt_small levit_128s",
}
TIMM = [(name, side) for side, names in SIDES.items() for name in names.split()]

OWN = ["dat_t", "dat_t_star", "dat_t_sra", "dat_t_dwconv_bias", "dat_t_ddetr_16_16", "dat_t_49_49"]


def _fvcore(model: nn.Module, x: torch.Tensor) -> int:
    logging.getLogger("fvcore.nn.jit_analysis").setLevel(logging.ERROR)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # the tracer's
        return int(fvcore_nn.FlopCountAnalysis(model, x).total())


@pytest.fixture(autouse=True)
def _plain_attention() -> None:
    """Fused attention is what fvcore drops; timm decides when a model is built."""
    timm.layers.set_fused_attn(False)


def _timm(name: str) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return timm.create_model(name, pretrained=False).eval()


@pytest.mark.parametrize(
    ("make", "size"),
    [
        *((partial(_timm, name), (side, side)) for name, side in TIMM),
        *((partial(datbench.create_model, short(name)), (96, 160)) for name in OWN),
    ],
    ids=[*(name for name, _ in TIMM), *OWN],
)
def test_fvcore(make: Callable[[], nn.Module], size: tuple[int, int]) -> None:
    model, x = make().eval(), torch.randn(1, 3, *size)
    assert datbench.count(model, x).total("fvcore") == _fvcore(model, x)


GMACS = (Path(__file__).parents[1] / "golden" / "timm_infer_gmacs.csv").read_text().splitlines()
PUBLISHED = [tuple(line.split(",")) for line in GMACS if not line.startswith(("#", "model,"))]


@pytest.mark.parametrize(("name", "side", "params", "gmacs"), PUBLISHED)
def test_what_timm_publishes(name: str, side: str, params: str, gmacs: str) -> None:
    """MACs and parameters to the printed digits. The file says where they stand."""
    setting = Setting(Resolution(int(side), int(side)))
    model = build_for_count(f"timm:{name}", setting)
    count = count_built(name, model, setting)
    assert float(f"{count.total('fvcore') / 1e9:.2f}") == float(gmacs)
    assert float(f"{datbench.parameters(model).params / 1e6:.2f}") == float(params)


@pytest.mark.parametrize("name", ["dat_t", "datpp_t"])
def test_fvcore_on_the_published_way(name: str) -> None:
    """fvcore on an implementation in the published style, whose einsums it counts exactly."""
    from benchmarks.published_way.goldens import build

    x = torch.randn(1, 3, 96, 160)
    theirs = _fvcore(build(name).eval(), x)
    ours = datbench.count(datbench.create_model(name, device="meta").eval(), x.to("meta"))
    # Einsums that fvcore does not know are rounded to four digits by numpy's report.
    assert ours.total("fvcore") == pytest.approx(theirs, rel=1e-5)


def test_fused_attention_changes_nothing() -> None:
    totals = set()
    for fused in (False, True):
        timm.layers.set_fused_attn(fused)
        count = datbench.count(_timm("vit_tiny_patch16_224"), torch.randn(1, 3, 224, 224))
        totals.add(count.total())
    assert len(totals) == 1


@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize("name", ["resnet18", "vit_tiny_patch16_224"])
def test_torchs_own_counter(name: str, backward: bool) -> None:
    """Models without grouped convolutions, whose backward torch counts wrongly."""
    model = _timm(name)
    x = torch.randn(1, 3, *(model.default_cfg["input_size"][1:]))
    counter = FlopCounterMode(display=False)
    with counter:
        out = model(x)
        if backward:
            out.sum().backward()
    model.zero_grad()
    count = datbench.count(model, x, backward=backward)
    assert count.total("torch") == counter.get_total_flops()


@pytest.mark.parametrize("name", ["dat_t", "datpp_t"])
def test_torchs_own_counter_on_our_own(name: str) -> None:
    model = datbench.create_model(name).eval()
    x = torch.randn(1, 3, 64, 96)
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        model(x)
    count = datbench.count(model, x)
    declared = sum(
        2 * sum(amount for kind, amount in call.cost.items() if kind == "attention")
        for call in count.calls
        if call.operator == "datbench::neighborhood_attention"
    )
    tiles = counter.get_total_flops() - (count.total("torch") - declared)
    # Tiles multiply more than the windows that they hold; what is declared is the windows.
    assert tiles == 0 if name == "dat_t" else tiles > declared


def test_meta_and_cpu_agree_on_timm() -> None:
    for name in ("efficientnet_b0", "davit_tiny", "pvt_v2_b0"):
        model = _timm(name)
        x = torch.randn(1, 3, 224, 224)
        real = datbench.count(model, x).total("strict")
        on_meta = datbench.count(model.to("meta"), x.to("meta")).total("strict")
        assert real == on_meta
