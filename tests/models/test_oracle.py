"""Every variant, at many sizes, against an independent implementation in the published style.

`benchmarks/published_way` was written apart from `datbench.models`, from the papers' facts, and
equals the goldens itself; its weights come here through the published checkpoint layout.
"""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import datbench
from benchmarks.published_way import datpp2023
from benchmarks.published_way.dat2022 import VARIANTS, build_dat2022
from benchmarks.published_way.datpp2023 import build_datpp2023
from benchmarks.published_way.recipe import BIAS_TABLES, OWN_VALUES, recipe_input, recipe_tensor
from datbench.models.pyramid import PyramidBackbone
from tests.nets import narrow

THEIR_NAME = {
    "datpp_b_384": "datpp_b",
    "dat_t_fixed_bias": "dat_t_fixed",
    "dat_t_dwconv_bias": "dat_t_dwconv",
    "dat_t_sra": "dat_t_pyramid",
    "dat_t_ddetr_16_16": "ddetr_16_16",
    "dat_t_ddetr_49_49": "ddetr_49_49",
    "dat_t_ddetr_196_49": "ddetr_196_49",
}
Size = tuple[int, int]

AT_224 = ["dat_t_no_offsets", "dat_t_no_offsets_no_bias", "dat_t_fixed_bias", "datpp_t"]


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


def _published(name: str, thin: bool) -> nn.Module:
    """The model by the published code, with its own width or that of `narrow`."""
    name = THEIR_NAME.get(name, name)
    for variants, make in ((datpp2023.VARIANTS, build_datpp2023), (VARIANTS, build_dat2022)):
        if name in variants:
            config: Any = variants[name]
            stages = tuple(replace(stage, dim=4 * stage.heads) for stage in config.stages)
            return make(replace(config, stages=stages) if thin else config)
    raise KeyError(name)


@lru_cache(maxsize=2)
def _pair(name: str, directory: Path, thin: bool) -> tuple[nn.Module, PyramidBackbone]:
    theirs = _published(name, thin)
    theirs.load_state_dict(_weights(theirs))
    path = directory / "published.pth"
    torch.save({"model": theirs.state_dict()}, path)
    ours = datbench.create_model(narrow(name) if thin else name).eval()
    datbench.load_checkpoint(ours, path)
    path.unlink()
    return theirs, ours


def _check(name: str, size: Size, directory: Path, thin: bool = True) -> None:
    theirs, ours = _pair(name, directory, thin)
    x = torch.randn(2 if thin else 1, 3, *size)
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


def _cases(sizes: Callable[[str], Sequence[Size]]) -> list[tuple[str, Size]]:
    """Names vary slowest: each pair is built once."""
    return [
        (name, size)
        for name in datbench.list_models()
        for size in sizes(name)
        # The published look-up without offsets is defined at the training size only.
        if size == (224, 224) or not name.startswith("dat_t_no_offsets")
    ]


def _quick(name: str) -> list[Size]:
    """Multiple of the window and not, smaller than the window, odd. (H, W)"""
    found = [(75, 130)]
    if name.startswith(("dat_t", "datpp_t")):
        found += [(33, 200), *([(224, 224)] if name in AT_224 else [])]
    return found


@pytest.mark.parametrize(("name", "size"), _cases(_quick))
def test_thin(name: str, size: Size, directory: Path) -> None:
    """Every block, head and group of a model, with four channels a head."""
    _check(name, size, directory)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "size"), _cases(lambda _: [(224, 224), (384, 384), (640, 480)]))
def test_at_full_size(name: str, size: Size, directory: Path) -> None:
    _check(name, size, directory, thin=False)


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
