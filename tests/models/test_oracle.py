"""Every variant, at many sizes, against an independent implementation in the published style.

`benchmarks/published_way` was written apart from `datbench.models`, from the papers' facts, and
equals the goldens itself; its weights come here through the published checkpoint layout.
"""

import json
import math
from functools import lru_cache
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import datbench
from benchmarks.published_way import goldens
from benchmarks.published_way.recipe import BIAS_TABLES, OWN_VALUES, recipe_input, recipe_tensor
from datbench.models.pyramid import PyramidBackbone

THEIR_NAME = {
    "datpp_b_384": "datpp_b",
    "dat_t_fixed_bias": "dat_t_fixed",
    "dat_t_dwconv_bias": "dat_t_dwconv",
    "dat_t_sra": "dat_t_pyramid",
    "dat_t_ddetr_16_16": "ddetr_16_16",
    "dat_t_ddetr_49_49": "ddetr_49_49",
    "dat_t_ddetr_196_49": "ddetr_196_49",
}
TINY = [name for name in datbench.list_models() if name.startswith(("dat_t", "datpp_t"))]
MEDIUM = ["dat_s", "datpp_s", "dat_b_384"]
# Square and not, multiple of the window and not, smaller than the window, odd. (H, W)
AT_224 = ["dat_t_no_offsets", "dat_t_no_offsets_no_bias", "dat_t_fixed_bias", "datpp_t"]
SIZES = [(224, 224), (75, 130), (33, 200)]


def _weights(model: nn.Module) -> dict[str, Tensor]:
    """As the goldens' recipe scales them, from torch's generator (ten times quicker)."""
    made = {}
    generator = torch.Generator().manual_seed(1)
    for key, value in model.state_dict().items():
        last = key.rpartition(".")[2]
        if last in OWN_VALUES:
            made[key] = value
            continue
        x = torch.randn(value.shape, generator=generator)
        if last == "weight":
            x = x / math.sqrt(math.prod(x.shape[1:])) if x.ndim >= 2 else 1 + 0.1 * x
        else:
            x = x * (0.5 if last in BIAS_TABLES else 0.1)
        made[key] = x
    return made


@lru_cache(maxsize=2)
def _pair(name: str, directory: Path) -> tuple[nn.Module, PyramidBackbone]:
    theirs = goldens.build(THEIR_NAME.get(name, name)).eval()
    theirs.load_state_dict(_weights(theirs))
    path = directory / "published.pth"
    torch.save({"model": theirs.state_dict()}, path)
    ours = datbench.create_model(name).eval()
    datbench.load_checkpoint(ours, path)
    path.unlink()
    return theirs, ours


def _check(name: str, size: tuple[int, int], directory: Path, batch: int = 2) -> None:
    theirs, ours = _pair(name, directory)
    x = torch.randn(batch, 3, *size)
    with torch.no_grad():
        expected = theirs(x)
        if not expected.isfinite().all():  # a published grid of one point divides by zero
            assert ours(x).isfinite().all()
            return
        for attention in ("eager", "sdpa"):
            ours.set_attention(attention)  # type: ignore[arg-type]
            torch.testing.assert_close(ours(x), expected, atol=1e-4, rtol=0)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("weights")


def _defined(name: str, size: tuple[int, int]) -> bool:
    """The published look-up without offsets is defined at the training size only."""
    return size == (224, 224) or not name.startswith("dat_t_no_offsets")


# Names vary slowest: each pair is built once. At 224 the slow session has the others.
@pytest.mark.parametrize(
    ("name", "size"),
    [(n, s) for n in TINY for s in SIZES if _defined(n, s) and (n in AT_224 or s != (224, 224))],
)
def test_tiny(name: str, size: tuple[int, int], directory: Path) -> None:
    _check(name, size, directory, batch=1 if size == (224, 224) else 2)


@pytest.mark.parametrize("name", MEDIUM)
def test_large_at_a_small_size(name: str, directory: Path) -> None:
    _check(name, (96, 160), directory, batch=1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "size"),
    [
        (name, size)
        for name in datbench.list_models()
        for size in [(224, 224), (384, 384), (640, 480)]
        if _defined(name, size)
    ],
)
def test_at_full_size(name: str, size: tuple[int, int], directory: Path) -> None:
    _check(name, size, directory, batch=1)


# Outputs of the published models, for pinned weights and input.


GOLDEN = Path(__file__).parents[1] / "golden"
COMPUTED = ("relative_position_index", "attn_mask")


@pytest.mark.parametrize(
    ("file", "name"), [("dat_t_2022_224", "dat_t"), ("datpp_t_2023_224", "datpp_t")]
)
def test_golden(file: str, name: str, tmp_path: Path) -> None:
    golden = json.loads((GOLDEN / f"{file}.json").read_text())
    weights = {
        key: recipe_tensor(key, tuple(shape))
        for key, shape in golden["keys"].items()
        if not key.endswith(COMPUTED)
    }
    path = tmp_path / "published.pth"
    torch.save({"model": weights}, path)
    model = datbench.create_model(name).eval()
    assert datbench.parameters(model).params == golden["params"]
    report = datbench.load_checkpoint(model, path)
    assert len(report.matched) == len(weights)
    assert not report.resized + report.ignored + report.initialised

    batch, _, height, width = golden["input"]
    image = recipe_input(batch, height, width)
    for attention in ("eager", "sdpa"):
        model.set_attention(attention)
        with torch.no_grad():
            logits = model(image)
        assert logits.shape == (batch, 1000)
        for found, key in (
            (logits[:, :8], "logits8"),
            (logits.norm(dim=1), "logit_norm"),
            (logits.std(dim=1), "logit_std"),
        ):
            torch.testing.assert_close(found, torch.tensor(golden[key]), atol=1e-4, rtol=0)
