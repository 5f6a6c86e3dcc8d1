"""A forward on the CPU against the same model and weights written the published way."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import datbench
from benchmarks.measuring import interleaved_calls
from benchmarks.published_way.goldens import build
from benchmarks.published_way.recipe import recipe_input, recipe_state_dict
from datbench.memory.device import profiled
from datbench.memory.simulation import memory_row
from datbench.models.resolve import resolve

PAIRS = 12


def pair(name: str, directory: Path, **options: Any) -> tuple[nn.Module, nn.Module]:
    """Our model and the published way's, with the same weights."""
    published = build(name)
    weights = recipe_state_dict(published)
    published.load_state_dict(weights)
    torch.save({"model": weights}, directory / "weights.pth")
    model = datbench.create_model(name, **options).eval()
    datbench.load_checkpoint(model, directory / "weights.pth")
    return model, published


@pytest.mark.parametrize("name", ["dat_t", "datpp_t"])
def test_forward(benchmark: Any, name: str, tmp_path: Path) -> None:
    """Batch 8 at 224, two threads, each way with its defaults; the logits are the same."""
    torch.set_num_threads(2)
    model, published = pair(name, tmp_path)
    images = recipe_input(8, 224, 224)
    with torch.no_grad():
        torch.testing.assert_close(model(images), published(images), rtol=0, atol=1e-4)
        ours, theirs = interleaved_calls(lambda: model(images), lambda: published(images), PAIRS)
        benchmark.pedantic(model, (images,), rounds=3)
    benchmark.extra_info.update(ratio=ours / theirs, our_seconds=ours, their_seconds=theirs)
    print({name: ours / theirs})
    assert ours / theirs <= 1.0


@pytest.mark.parametrize("name", ["dat_t"])
def test_chunks_on_a_large_image(benchmark: Any, name: str, tmp_path: Path) -> None:
    """One image of 1344x896, one thread: time, and the peak that torch's profiler sees."""
    torch.set_num_threads(1)
    model, published = pair(name, tmp_path, attention="chunked")
    image = recipe_input(1, 896, 1344)
    with torch.no_grad():
        torch.testing.assert_close(model(image), published(image), rtol=0, atol=1e-4)
        ours, theirs = interleaved_calls(lambda: model(image), lambda: published(image), 3)
        benchmark.pedantic(model, (image,), rounds=1)
    peaks = [profiled(each, image, mode="inference").peak for each in (model, published)]
    found = {"ratio": ours / theirs, "peak_ratio": peaks[0] / peaks[1]}
    benchmark.extra_info.update(found, our_seconds=ours, their_seconds=theirs)
    print({name: found})
    assert found["ratio"] <= 1 / 2
    assert found["peak_ratio"] <= 1 / 8


def test_chunks_in_training(benchmark: Any) -> None:
    """The same image: what the forward of a training step holds, simulated, over eager's."""
    peaks = {}
    for attention in ("eager", "chunked"):
        setting = datbench.Setting("1344x896", attention=attention)  # type: ignore[arg-type]
        run = benchmark.pedantic if attention == "chunked" else lambda f, args: f(*args)
        row = run(memory_row, (resolve("dat_t"), setting, "forward"))
        peaks[attention] = row.peak.amount
    print({name: peak / 2**30 for name, peak in peaks.items()})
    assert peaks["chunked"] <= peaks["eager"] / 2
