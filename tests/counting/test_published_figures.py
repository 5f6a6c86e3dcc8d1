"""Counts equal the papers' figures: fvcore's integers, and its parameters, for every variant.

Figures: DAT Tables 2, 6, 7, 8, 9 and DAT++, recomputed with fvcore 0.1.5 on the published code.
"""

import pytest

import datbench
from datbench import Resolution, Setting
from datbench.measure.conventions import CONVENTIONS
from datbench.models.dat import REGISTRY

FVCORE = CONVENTIONS["fvcore"]

# name: (GMACs to four decimals, million trainable parameters)
PUBLISHED = {
    "dat_t": (4.5889, 28.3191),
    "dat_s": (9.0084, 49.7004),
    "dat_b": (15.7876, 87.8816),
    "dat_b_384": (49.7720, 88.1783),
    "dat_t_star": (4.8355, 30.2640),
    "datpp_t": (4.2877, 23.9629),
    "datpp_s": (9.4256, 53.1274),
    "datpp_b": (16.5595, 93.6906),
    "datpp_b_384": (49.7342, 93.6906),
    "dat_t_no_offsets_no_bias": (4.5743, 28.2888),
    "dat_t_no_offsets": (4.5743, 28.3191),
    "dat_t_no_bias": (4.5832, 28.2888),
    "dat_t_fixed_bias": (4.5832, 29.7294),
    "dat_t_dwconv_bias": (4.5855, 28.3080),
    "dat_t_sra": (4.4825, 30.6771),
    "dat_t_stages_1234": (4.6392, 28.3862),
    "dat_t_stages_234": (4.5958, 28.3415),
    "dat_t_stages_4": (4.5089, 28.2875),
    "dat_t_49_49": (4.3823, 28.3191),
    "dat_t_ddetr_16_16": (4.4412, 27.7585),
    "dat_t_ddetr_49_49": (4.8336, 30.9578),
    "dat_t_ddetr_196_49": (6.1612, 37.0700),
}


def test_every_variant_has_a_published_figure() -> None:
    assert set(PUBLISHED) == set(REGISTRY.names())


@pytest.mark.parametrize("name", PUBLISHED)
def test_count_and_parameters(name: str) -> None:
    spec = REGISTRY.get(name)
    macs = datbench.count_model(name, Setting(spec.resolution)).total(FVCORE)
    params = datbench.parameters(datbench.create_model(name, device="meta")).params
    assert (round(macs / 1e9, 4), round(params / 1e6, 4)) == PUBLISHED[name]


@pytest.mark.parametrize(
    ("name", "width", "height", "gmacs"),
    [
        ("dat_t", 384, 384, 14.62882),
        ("dat_s", 384, 384, 29.47122),
        ("dat_t", 1280, 800, 134.6188),
        ("dat_s", 1280, 800, 301.95909),
    ],
)
def test_sizes_that_need_padding(name: str, width: int, height: int, gmacs: float) -> None:
    macs = datbench.count_model(name, Setting(Resolution(width, height))).total(FVCORE)
    assert round(macs / 1e9, 5) == gmacs


@pytest.mark.parametrize(
    ("name", "macs"),
    [("dat_t", 4_588_941_408), ("dat_s", 9_008_368_224), ("datpp_t", 4_287_725_056)],
)
def test_integers(name: str, macs: int) -> None:
    assert datbench.count_model(name, Setting(Resolution(224, 224))).total(FVCORE) == macs


def test_deformable_detr_prints_masks_and_grids_as_parameters() -> None:
    """Table 8 prints 27.95M, 31.15M and 37.26M: trainable + shift masks + reference grids."""
    printed = []
    for keys in ("16_16", "49_49", "196_49"):
        model = datbench.create_model(f"dat_t_ddetr_{keys}", device="meta")
        masks = sum(b.numel() for n, b in model.named_buffers() if n.endswith("shift_mask"))
        sizes = datbench.parameters(model)
        printed.append(round((sizes.params + sizes.frozen + masks) / 1e6, 2))
    assert printed == [27.95, 31.15, 37.26]


def test_backward_of_grouped_convolutions() -> None:
    """torch's own counter ignores groups in the backward: DAT-T++ reads 64 GMAC there."""
    count = datbench.count_model("datpp_t", Setting(Resolution(224, 224), backward=True))
    forward = count.total(CONVENTIONS["torch"], "forward")
    backward = count.total(CONVENTIONS["torch"], "backward")
    # Every product has two gradients, but the first convolution's input needs none.
    stem = 3 * 3 * 3 * 32 * 112 * 112
    assert backward == 2 * (forward - 2 * stem) + 2 * stem
    assert (forward + backward) / 2e9 == pytest.approx(12.77, abs=0.005)
