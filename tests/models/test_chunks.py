"""Attention in chunks computes, counts and saves what it should."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import datbench
from datbench import Resolution, Setting
from datbench.counting.conventions import CONVENTIONS
from datbench.memory import simulate
from datbench.memory.device import profiled
from datbench.models.config import Deformable, DeformableDetr, Mixer, Window
from datbench.models.mixers import chunks, make_mixer
from datbench.setting import PLAIN, Attention, MemoryMode
from tests.nets import short

MIXERS = {
    "2022": Deformable(3, 5),
    "2022, unbounded": Deformable(2, 3, offset_range=None),
    "2023, strided": Deformable(2, 3, stride=2, code=2023, offset_range=5.0),
    "2023, clamped": Deformable(2, 3, code=2023, offset_range=None),
    "fixed": Deformable(2, 3, bias="fixed"),
    "looked up": Deformable(2, 3, offsets=False),
    "without a bias": Deformable(2, 3, bias="none"),
    "detr": DeformableDetr(5),
    "shifted": Window(5, shift=2),
}

# Height, width, side that tables are for; rows, parts of a row, the training size, one window.
SIZES = [(12, 9, 7), (5, 26, 7), (7, 7, 7), (4, 5, 5)]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many chunks on small maps."""
    monkeypatch.setattr(chunks, "LIMIT", 4000)


def _made(config: Mixer, side: int) -> nn.Module:
    mixer = make_mixer(config, 24, 6, side)
    for parameter in mixer.parameters():
        if parameter.requires_grad:
            nn.init.normal_(parameter, 0, 0.2)
    return mixer


def _run(mixer: Any, attention: Attention, x: Tensor) -> list[Tensor]:
    """The result without and with gradients, and these."""
    mixer.attention = attention
    mixer.zero_grad()
    x = x.clone().requires_grad_()
    with torch.no_grad():
        plain = mixer(x)
    y = mixer(x)
    (y * torch.linspace(-1, 1, y.numel()).view_as(y)).sum().backward()
    return [plain, y.detach(), x.grad, *(p.grad for p in mixer.parameters() if p.grad is not None)]


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(("height", "width", "side"), SIZES)
@pytest.mark.parametrize("name", MIXERS)
def test_values_and_gradients_are_those_of_eager(
    name: str, height: int, width: int, side: int
) -> None:
    mixer, x = _made(MIXERS[name], side), torch.randn(2, height, width, 24)
    eager, chunked = _run(mixer, "eager", x), _run(mixer, "chunked", x)
    assert len(eager) == len(chunked)
    # Gradients are sums over all queries; some of them are zero but for rounding.
    largest = max(1.0, *(float(tensor.abs().max()) for tensor in eager))
    for one, other in zip(chunked, eager, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-5 * largest)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["2022", "detr", "fixed"])
def test_half_precision_is_near(name: str, dtype: torch.dtype) -> None:
    mixer, x = _made(MIXERS[name], 7), torch.randn(2, 12, 9, 24)
    exact = _run(mixer, "eager", x)[0]
    found = _run(mixer.to(dtype), "chunked", x.to(dtype))[0]
    assert found.dtype == dtype
    assert (found.float() - exact).abs().max() < 0.05 * exact.abs().max()


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("name", ["2022", "detr"])
def test_an_exported_program_takes_any_batch(name: str) -> None:
    mixer, x = _made(MIXERS[name], 7), torch.randn(2, 12, 9, 24)
    mixer.attention = "chunked"  # type: ignore[assignment]
    sizes = ({0: torch.export.Dim.DYNAMIC},)
    program = torch.export.export(mixer, (x,), dynamic_shapes=sizes, strict=False).module()
    x = torch.randn(3, 12, 9, 24)
    torch.testing.assert_close(program(x), mixer(x))


@pytest.mark.parametrize("height", [1, 5, 60])
@pytest.mark.parametrize("width", [1, 7, 90])
@pytest.mark.parametrize("values", [1, 50, 3999, 5000])
@pytest.mark.usefixtures("small")
def test_chunks_hold_every_query_once(height: int, width: int, values: int) -> None:
    found = [part.of(width) for part in chunks.chunks(height, width, values)]
    assert [i for part in found for i in range(part.start, part.stop)] == list(
        range(height * width)
    )
    assert all((part.stop - part.start) * values <= max(4000, values) for part in found)


@pytest.mark.parametrize("name", ["dat_t", "dat_t_fixed_bias", "dat_t_ddetr_16_16"])
def test_the_count_is_that_of_eager(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "LIMIT", 20_000)
    eager, chunked = (
        datbench.count_model(
            short(name), Setting(Resolution(128, 160), 2, attention=attention, backward=True)
        )
        for attention in ("eager", "chunked")
    )
    for convention in CONVENTIONS:
        assert chunked.total(convention, "forward") == eager.total(convention, "forward")
        if convention != "strict":  # fused: what the backward computes besides products differs
            assert chunked.total(convention) == eager.total(convention)
    assert not chunked.with_status("unknown", "strict")


@pytest.mark.parametrize("name", ["dat_b_384", "datpp_b_384", "dat_t_stages_1234"])
def test_training_sizes_are_one_chunk(name: str) -> None:
    """No kernel is launched that fused attention does not launch."""
    size = datbench.models.resolve.resolve(name).resolution
    fused, chunked = (
        [call.operator for call in datbench.count_model(name, Setting(size, attention=kind)).calls]
        for kind in ("sdpa", "chunked")
    )
    assert chunked == fused


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        ("dat_t", "inference"),
        ("dat_t", "forward"),
        ("dat_t", "backward"),
        ("dat_t_ddetr_16_16", "backward"),
    ],
)
def test_simulated_memory_is_measured(
    name: str, mode: MemoryMode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunks, "LIMIT", 100_000)
    model = datbench.create_model(name, attention="chunked")
    found = profiled(model, torch.zeros(1, 3, 192, 128), mode=mode, recipe=PLAIN)
    image = torch.empty(1, 3, 192, 128, device="meta")
    assert simulate(model.to("meta"), image, mode=mode).peak.amount == pytest.approx(
        found.peak, rel=0.02
    )


@pytest.mark.parametrize("name", ["dat_t", "dat_t_ddetr_196_49"])
def test_a_large_image_takes_less_than_half_to_train(name: str) -> None:
    """And no storage holds a value for every pair of query and key."""
    peaks = {}
    for attention in ("eager", "chunked"):
        model = datbench.create_model(name, attention=attention, device="meta")  # type: ignore[arg-type]
        trace = simulate(model, torch.empty(1, 3, 896, 1344, device="meta"), mode="forward")
        peaks[attention] = trace.peak.amount
    assert peaks["chunked"] < 0.5 * peaks["eager"]
    assert max(block.size for block in trace.blocks) < 4 * 12 * (56 * 84) ** 2 / 8
