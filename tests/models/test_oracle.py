"""Every variant, at many sizes, against an independent implementation in the published style.

`benchmarks/published_way` was written apart from `datbench.models`, from the papers' facts, and
equals the goldens itself; its weights come here through the published checkpoint layout.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import datbench
from benchmarks.published_way import dat2022, datpp2023
from benchmarks.published_way.recipe import recipe_input, recipe_state_dict, recipe_tensor
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
TINY = [name for name in datbench.list_models() if name.startswith(("dat_t", "datpp_t"))]
AT_224 = ["dat_t_no_offsets", "dat_t_no_offsets_no_bias", "dat_t_fixed_bias", "datpp_t"]


def _published(name: str, thin: bool) -> nn.Module:
    """The model by the published code, with its own width or that of `narrow`."""
    name = THEIR_NAME.get(name, name)
    new = name in datpp2023.VARIANTS
    config: Any = datpp2023.VARIANTS[name] if new else dat2022.VARIANTS[name]
    if thin:
        stages = tuple(replace(stage, dim=4 * stage.heads) for stage in config.stages)
        config = replace(config, stages=stages)
    return datpp2023.build_datpp2023(config) if new else dat2022.build_dat2022(config)


def _check(name: str, sizes: list[tuple[int, int]], path: Path, thin: bool = True) -> None:
    """The same values at each of the sizes (H, W), with weights in the published layout."""
    theirs = _published(name, thin)
    theirs.load_state_dict(recipe_state_dict(theirs))
    torch.save({"model": theirs.state_dict()}, path / "published.pth")
    ours = datbench.create_model(narrow(name) if thin else name).eval()
    datbench.load_checkpoint(ours, path / "published.pth")
    for size in sizes:
        # The published look-up without offsets is defined at the training size only.
        if size != (224, 224) and name.startswith("dat_t_no_offsets"):
            continue
        x = torch.randn(2 if thin else 1, 3, *size)
        with torch.no_grad():
            expected = theirs(x)
            if not expected.isfinite().all():  # a published grid of one point divides by zero
                assert ours(x).isfinite().all()
                continue
            for attention in ("eager", "sdpa"):
                ours.set_attention(attention)  # type: ignore[arg-type]
                torch.testing.assert_close(
                    ours(x), expected, atol=1e-4, rtol=0, msg=lambda text, at=size: f"{at}: {text}"
                )


@pytest.mark.parametrize("name", [*TINY, "dat_s", "datpp_s", "dat_b_384"])
def test_thin(name: str, tmp_path: Path) -> None:
    """Every block, head and group of a model, with four channels a head."""
    # Multiple of the window and not, smaller than the window, odd.
    sizes = [(75, 130), *([(33, 200)] if name in TINY else [])]
    _check(name, [*sizes, *([(224, 224)] if name in AT_224 else [])], tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", datbench.list_models())
def test_at_full_size(name: str, tmp_path: Path) -> None:
    _check(name, [(224, 224), (384, 384), (640, 480)], tmp_path, thin=False)


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
