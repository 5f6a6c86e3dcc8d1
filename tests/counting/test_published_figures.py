"""Counts equal the papers' figures: fvcore's integers, and its parameters, for every variant.

Figures: DAT Tables 2, 6, 7, 8, 9 and DAT++, recomputed with fvcore 0.1.5 on the published code.
"""

import pytest

import datbench
from datbench import Resolution, Setting
from datbench.models.dat import REGISTRY
from datbench.paper.published import published, references

REFERENCES = references()


def test_every_variant_has_a_published_figure() -> None:
    assert tuple(REFERENCES) == tuple(REGISTRY)


@pytest.mark.parametrize("name", REFERENCES)
def test_count_and_parameters(name: str) -> None:
    spec, entry = REGISTRY.get(name), REFERENCES[name]
    gmacs = datbench.count_model(name, Setting(spec.resolution)).total() / 1e9
    mparams = datbench.parameters(datbench.create_model(name, device="meta")).params / 1e6
    assert (round(gmacs, 4), round(mparams, 4)) == (entry.gmacs, entry.mparams)
    assert published(name).cells, "no table prints this variant"


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
    macs = datbench.count_model(name, Setting(Resolution(width, height))).total()
    assert round(macs / 1e9, 5) == gmacs


@pytest.mark.parametrize(
    ("name", "macs"),
    [("dat_t", 4_588_941_408), ("dat_s", 9_008_368_224), ("datpp_t", 4_287_725_056)],
)
def test_integers(name: str, macs: int) -> None:
    assert datbench.count_model(name, Setting(Resolution(224, 224))).total() == macs


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
    forward = count.total("torch", "forward")
    backward = count.total("torch", "backward")
    # Every product has two gradients, but the first convolution's input needs none.
    stem = 3 * 3 * 3 * 32 * 112 * 112
    assert backward == 2 * (forward - 2 * stem) + 2 * stem
    assert (forward + backward) / 2e9 == pytest.approx(12.77, abs=0.005)
