"""Our outputs equal what the published models compute for pinned weights and input."""

import json
from pathlib import Path

import pytest
import torch

import datbench
from benchmarks.published_way.recipe import recipe_input, recipe_tensor

GOLDEN = Path(__file__).parents[1] / "golden"
COMPUTED = ("relative_position_index", "attn_mask")


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize(
    ("file", "name"), [("dat_t_2022_224", "dat_t"), ("datpp_t_2023_224", "datpp_t")]
)
def test_golden(file: str, name: str, attention: str, tmp_path: Path) -> None:
    golden = json.loads((GOLDEN / f"{file}.json").read_text())
    weights = {
        key: recipe_tensor(key, tuple(shape))
        for key, shape in golden["keys"].items()
        if not key.endswith(COMPUTED)
    }
    path = tmp_path / "published.pth"
    torch.save({"model": weights}, path)
    model = datbench.create_model(name, attention=attention).eval()
    assert datbench.parameters(model).params == golden["params"]
    report = datbench.load_checkpoint(model, path)
    assert len(report.matched) == len(weights)
    assert not report.resized + report.ignored + report.initialised

    batch, _, height, width = golden["input"]
    with torch.no_grad():
        logits = model(recipe_input(batch, height, width))

    assert logits.shape == (batch, 1000)
    torch.testing.assert_close(logits[:, :8], torch.tensor(golden["logits8"]), atol=1e-4, rtol=0)
    torch.testing.assert_close(
        logits.norm(dim=1), torch.tensor(golden["logit_norm"]), atol=1e-4, rtol=0
    )
    torch.testing.assert_close(
        logits.std(dim=1), torch.tensor(golden["logit_std"]), atol=1e-4, rtol=0
    )
