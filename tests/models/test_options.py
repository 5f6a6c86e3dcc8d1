"""A variant with other options than the published ones, by name and in `create_model`."""

from pathlib import Path

import pytest
import torch
from PIL import Image

import datbench
from datbench.counting.conventions import CONVENTIONS
from datbench.errors import DatbenchError
from datbench.memory.simulation import memory_row
from datbench.models.resolve import build, resolve
from tests.cli.conftest import Run, run

__all__ = ["run"]

CONFIGS = Path(__file__).parent / "configs"

DAT_T = 28_319_138  # parameters of the published model


def _params(name: str) -> int:
    with torch.device("meta"):
        return datbench.parameters(datbench.create_model(name)).params


@pytest.mark.parametrize(
    ("options", "params"),
    [
        ("num_classes=10", DAT_T - 990 * (768 + 1)),
        ("num_classes=0", DAT_T - 1000 * (768 + 1)),
        ("in_chans=4", DAT_T + 96 * 4 * 4),
        ("in_chans=1,num_classes=21841", DAT_T - 2 * 96 * 4 * 4 + 20841 * (768 + 1)),
        ("layer_scale=1e-6", DAT_T + 2 * (2 * 96 + 2 * 192 + 6 * 384 + 2 * 768)),
        # A bias table of (2 N - 1)^2 entries a head of each deformable block.
        (
            "image_size=384",
            DAT_T + 3 * 12 * (47**2 - 27**2) + 24 * (23**2 - 13**2),
        ),
        ("drop_path=0.2", DAT_T),
    ],
)
def test_an_option_changes_what_it_says(options: str, params: int) -> None:
    assert _params(f"dat_t,{options}") == params


@pytest.mark.parametrize("name", ["dat_t", "dat_t_star", "datpp_t"])  # the three stems
def test_any_number_of_channels(name: str) -> None:
    model = datbench.create_model(name, in_chans=5, num_classes=7).eval()
    assert model(torch.randn(2, 5, 64, 32)).shape == (2, 7)
    assert model.stem[0].weight.shape[1] == 5


def test_a_band_more_is_counted_and_simulated() -> None:
    setting = datbench.Setting(datbench.Resolution(64, 64))
    four, three = (datbench.count_model(name, setting) for name in ("dat_t,in_chans=4", "dat_t"))
    assert (
        four.total(CONVENTIONS["fvcore"]) - three.total(CONVENTIONS["fvcore"])
        == 96 * 4 * 4 * 16 * 16
    )
    rows = [memory_row(resolve(n), setting, "inference") for n in ("dat_t,in_chans=4", "dat_t")]
    inputs = [row.line("inputs").amount for row in rows]
    assert inputs == [4 * 4 * 64 * 64, 4 * 3 * 64 * 64]


def test_an_argument_wins_over_the_name() -> None:
    model = datbench.create_model("dat_t,num_classes=10,drop_path=0.5", num_classes=3)
    assert model.head.linear.out_features == 3
    assert model.config.drop_path == 0.5


def test_the_name_resolves_back_and_has_its_own_input() -> None:
    spec = resolve("datpp_b_384,image_size=448")
    assert resolve(spec.name) == spec
    assert spec.resolution == datbench.Resolution(448, 448)
    assert resolve("datpp_b_384,num_classes=5").resolution == datbench.Resolution(384, 384)


def test_a_configuration_takes_them_too() -> None:
    name = f"config:{CONFIGS / 'dat_tiny.yaml'}"
    spec = resolve(f"{name},num_classes=10,in_chans=4")
    assert (spec.config.classes, spec.config.in_chans) == (10, 4)
    assert resolve(spec.name) == spec
    assert resolve(f"{name},code=2022-01,num_classes=10").config.classes == 10
    for options, words in (
        ("image_size=256", "write its img_size"),
        ("classes=3", "unknown option 'classes'; did you mean num_classes"),
    ):
        with pytest.raises(DatbenchError, match=words):
            resolve(f"{name},{options}")


def test_a_comparison_model_takes_classes() -> None:
    spec = resolve("pvt_t,num_classes=10")
    model = build(spec, spec.resolution, device="meta")
    published = build(resolve("pvt_t"), spec.resolution, device="meta")
    less = datbench.parameters(published).params - datbench.parameters(model).params
    assert less == 990 * (512 + 1)


def test_every_command_takes_them(run: Run, tmp_path: Path) -> None:
    name, res = "dat_t,in_chans=4,num_classes=10", ("--res", "64")
    baseline, image = str(tmp_path / "baseline.json"), str(tmp_path / "image.png")
    for command in (
        ("flops", name, "timm:vit_tiny_patch16_224,in_chans=1,img_size=64", *res),
        ("params", name),
        ("memory", name, *res, "--mode", "step"),
        ("flops", f"{name}+upernet", "timm:resnet18,in_chans=4+retinanet", *res),
        ("gate", "update", name, *res, "--baseline", baseline),
        ("gate", "check", "--baseline", baseline),
        ("show", name),
    ):
        found = run(*command)
        assert found.code == 0, (command, found.err)
    Image.new("RGB", (64, 64)).save(image)
    found = run("points", name, image, *res)
    assert (found.code, found.err) == (
        2,
        f"datbench: {name} takes images of 4 channels; a picture has 3.\n",
    )
    found = run("points", "dat_t,num_classes=10", image, *res, "--format", "json")
    assert found.code == 0
