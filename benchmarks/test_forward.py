"""A forward on the CPU against the same model and weights written the published way."""

from pathlib import Path
from typing import Any

import pytest
import torch

import datbench
from benchmarks.measuring import interleaved_calls
from benchmarks.published_way.goldens import build
from benchmarks.published_way.recipe import recipe_input, recipe_state_dict

PAIRS = 12


@pytest.mark.parametrize("name", ["dat_t", "datpp_t"])
def test_forward(benchmark: Any, name: str, tmp_path: Path) -> None:
    """Batch 8 at 224, two threads, each way with its defaults; the logits are the same."""
    torch.set_num_threads(2)
    published = build(name)
    weights = recipe_state_dict(published)
    published.load_state_dict(weights)
    torch.save({"model": weights}, tmp_path / "weights.pth")
    model = datbench.create_model(name).eval()
    datbench.load_checkpoint(model, tmp_path / "weights.pth")
    images = recipe_input(8, 224, 224)
    with torch.no_grad():
        torch.testing.assert_close(model(images), published(images), rtol=0, atol=1e-4)
        ours, theirs = interleaved_calls(lambda: model(images), lambda: published(images), PAIRS)
        benchmark.pedantic(model, (images,), rounds=3)
    benchmark.extra_info.update(ratio=ours / theirs, our_seconds=ours, their_seconds=theirs)
    print({name: ours / theirs})
    assert ours / theirs <= 1.0
