"""Simulated peaks are those that torch's profiler sees on the CPU."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import datbench
from datbench.memory import simulate
from datbench.memory.device import profiled
from datbench.models.layers import ConvMlp, MapConv, Mlp
from datbench.setting import MEMORY_MODES, PLAIN, Checkpointing, MemoryMode, Optimizer, Recipe
from tests.nets import short

# oneDNN's own bookkeeping for a convolution, some hundred bytes to some KiB, is not simulated.
TOLERANCE = 0.02


class _Layouts(nn.Module):
    """Operators that copy what does not lie in rows, or roll over two dimensions."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(16)
        self.linear = nn.Linear(16, 16)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x.permute(0, 2, 3, 1))  # (B, H, W, C)
        y = y.roll((1, 1), (1, 2)) * y.transpose(1, 2).softmax(dim=-1)
        return self.linear(y).mean(dim=(1, 2))


class _Samples(nn.Module):
    """Sampling at learnt points, and products that must copy an expanded operand."""

    def __init__(self) -> None:
        super().__init__()
        self.points = nn.Linear(16, 2)

    def forward(self, x: Tensor) -> Tensor:
        maps = x.permute(0, 2, 3, 1)
        where = self.points(maps).clamp(-1, 1)
        y = F.grid_sample(x, where, align_corners=True).flatten(2)  # (B, C, HW)
        return y @ torch.ones(1, y.shape[-1], 3, dtype=x.dtype, device=x.device)


class _Attends(nn.Module):
    """Fused where a token's channels lie side by side, else by the plain fallback."""

    def __init__(self, fused: bool) -> None:
        super().__init__()
        self.fused = fused

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(2).transpose(1, 2)  # (B, HW, C)
        if self.fused:
            tokens = tokens.contiguous()
        tokens = tokens.unflatten(-1, (2, -1)).transpose(1, 2)  # (B, M, HW, d)
        return F.scaled_dot_product_attention(tokens, tokens, tokens)


def _maps() -> nn.Module:
    return nn.Sequential(
        MapConv(12, 32, 3, padding=1), nn.LayerNorm(32), ConvMlp(32, 4, residual=True), Mlp(32, 4)
    )


CASES = {
    "layouts": (_Layouts, (2, 16, 24, 24)),
    "samples": (_Samples, (2, 16, 24, 24)),
    "maps": (_maps, (2, 24, 24, 12)),
}


def _agree(
    model: nn.Module,
    shape: tuple[int, ...],
    mode: MemoryMode,
    recipe: Recipe = PLAIN,
    at_end: float = 1e-3,
) -> None:
    """Simulated is measured: at the peak, and at the end up to `at_end`."""
    found = profiled(model, torch.zeros(shape), mode=mode, recipe=recipe)
    image = torch.empty(shape, device="meta")
    trace = simulate(model.to("meta"), image, mode=mode, recipe=recipe)
    assert trace.peak.amount / found.peak == pytest.approx(1, abs=TOLERANCE)
    end = sum(trace.live(trace.end).values()) / found.at_end
    assert end == pytest.approx(1, abs=at_end)


@pytest.mark.parametrize("mode", MEMORY_MODES)
@pytest.mark.parametrize("case", CASES)
def test_layers(case: str, mode: MemoryMode) -> None:
    make, shape = CASES[case]
    _agree(make(), shape, mode)


@pytest.mark.parametrize("fused", [True, False])
def test_attention_in_inference(fused: bool) -> None:
    _agree(_Attends(fused), (16, 128, 24, 24), "inference", at_end=0)


@pytest.mark.parametrize("mode", MEMORY_MODES)
@pytest.mark.parametrize("name", ["dat_t", "datpp_t", "dat_t_ddetr_16_16"])
def test_variants(name: str, mode: MemoryMode) -> None:
    """oneDNN's work space for the weights' gradients is several percent of those of small maps."""
    shape = (2, 3, 224, 224) if mode == "backward" else (2, 3, 96, 64)
    _agree(datbench.create_model(short(name)), shape, mode, at_end=1e-4 if mode == "step" else 1e-3)


@pytest.mark.parametrize(("optimizer", "checkpointing"), [("sgd", None), ("sgd-momentum", "block")])
def test_full_steps(optimizer: Optimizer, checkpointing: Checkpointing | None) -> None:
    """AdamW's is among the variants' modes."""
    model = datbench.create_model("dat_t" if optimizer == "sgd" else short("dat_t"))
    _agree(model, (2, 3, 96, 64), "step", Recipe(optimizer, checkpointing=checkpointing), 1e-4)


@pytest.mark.parametrize("mode", ["forward", "backward"])
def test_checkpointing(mode: MemoryMode) -> None:
    """With maps so large that activations make the peak."""
    model = datbench.create_model("dat_t" if mode == "forward" else short("dat_t"))
    _agree(model, (2, 3, 224, 224), mode, Recipe(checkpointing="block"))


@pytest.mark.parametrize("checkpointing", [None, "block"])
def test_swin_of_timm(checkpointing: Checkpointing | None) -> None:
    timm = pytest.importorskip("timm", reason="needs datbench[timm]", exc_type=ImportError)
    model = timm.create_model("swin_tiny_patch4_window7_224", img_size=64)
    _agree(model, (2, 3, 64, 64), "backward", Recipe(checkpointing=checkpointing))


def _indices(x: Tensor, rows: int) -> Tensor:
    return torch.zeros((4, rows, 16, 16), dtype=torch.long, device=x.device)


OPERATORS: dict[str, Callable[[Tensor], Tensor]] = {
    # Backwards that torch runs otherwise under a dispatch mode than on real tensors.
    "gather": lambda x: x.gather(1, _indices(x, 8)),
    "take_along_dim": lambda x: torch.take_along_dim(x, _indices(x, 8), 1),
    "cummax": lambda x: x.cummax(1)[0],
    "cummin": lambda x: x.cummin(1)[0],
    "prod": lambda x: x.prod(1),
    "prod, kept": lambda x: torch.prod(x, -1, keepdim=True),
    "prod of all": lambda x: x.prod(),
    "cumprod": lambda x: x.cumprod(1),
    "max": lambda x: x.max(1)[0],
    "topk": lambda x: x.topk(8, 1)[0],
    "sort": lambda x: x.sort(1)[0],
    "kthvalue": lambda x: x.kthvalue(3, 1)[0],
    "median": lambda x: x.median(1)[0],
    "take": lambda x: x.take(torch.zeros(1000, dtype=torch.long, device=x.device)),
    "mish": F.mish,
    # Gradients of several uses are added in place.
    "branches": lambda x: x.relu() + x.sigmoid() + x.tanh(),
    "gather and more": lambda x: x.gather(1, x.argsort(1)) * x,
    "grid_sample": lambda x: F.grid_sample(x, x[:, :2].permute(0, 2, 3, 1), align_corners=True),
    "differences": lambda x: torch.trapz(x, dim=1),
    # Copies and work space.
    "group_norm": lambda x: F.group_norm(x, 4),
    "group_norm of tokens": lambda x: F.group_norm(x.flatten(2).transpose(1, 2), 4),
    "group_norm, channels last": lambda x: F.group_norm(x.permute(0, 3, 1, 2), 4),
    "instance_norm": lambda x: F.instance_norm(x),
    "batch_norm": lambda x: F.batch_norm(x, None, None, training=True),
    "layer_norm": lambda x: F.layer_norm(x, (16,)),
    "rms_norm": lambda x: F.rms_norm(x, (16,)),
    "rfft2": lambda x: torch.fft.irfft2(torch.fft.rfft2(x)),
    "rfft2 of channels": lambda x: torch.fft.irfft2(torch.fft.rfft2(x, dim=(1, 2)), dim=(1, 2)),
    "fft2": lambda x: torch.fft.fft2(x).real,
    "fft of columns": lambda x: torch.fft.fft(x, dim=2).real,
    "rfft, magnitude": lambda x: torch.fft.rfft(x).abs(),
    "fftshift": torch.fft.fftshift,
    "logsumexp": lambda x: x.logsumexp(1),
    "softmax": lambda x: x.softmax(1),
    "mse_loss": lambda x: F.mse_loss(x, torch.zeros_like(x)),
    "antialias": lambda x: F.interpolate(x, size=(8, 8), mode="bilinear", antialias=True),
    # Plain ones.
    "gelu": F.gelu,
    "hardswish": F.hardswish,
    "glu": lambda x: F.glu(x, 1),
    "avg_pool": lambda x: F.avg_pool2d(x, 2),
    "max_pool": lambda x: F.max_pool2d(x, 2),
    "normalize": lambda x: F.normalize(x, dim=1),
    "std": lambda x: x.std(1),
    "index_add": lambda x: torch.zeros_like(x).index_add(
        1, torch.arange(8, device=x.device), x[:, :8]
    ),
    "repeat_interleave": lambda x: x.repeat_interleave(2, 1),
    "einsum": lambda x: torch.einsum("bchw,bdhw->bcd", x, x),
    "pixel_shuffle": lambda x: F.pixel_shuffle(x, 2),
    "roll": lambda x: x.roll((1, 1), (2, 3)),
    "dropout": lambda x: F.dropout(x, 0.5, True),
}


KNOWN: dict[str, tuple[MemoryMode, int, Callable[[Tensor], Tensor]]] = {
    "up-sampling": ("inference", -45, lambda x: F.interpolate(x, scale_factor=2.0)),
    "`unfold`": ("backward", -28, lambda x: F.unfold(x, 3, padding=1)),
    "`amax`": ("backward", -23, lambda x: x.amax(1)),
    "`max` of all": ("backward", -29, lambda x: x.max()),
    "`cdist`": ("inference", -49, lambda x: torch.cdist(x.flatten(2), x.flatten(2))),
    "`binary_cross_entropy_with_logits`": (
        "inference",
        -40,
        lambda x: F.binary_cross_entropy_with_logits(x, torch.zeros_like(x)),
    ),
    "`linalg.inv`": (
        "inference",
        -21,
        lambda x: torch.linalg.inv(x + 40 * torch.eye(16, device=x.device)),
    ),
    "`masked_scatter`": (
        "backward",
        -4,
        lambda x: x.masked_scatter(
            torch.ones(x.shape, dtype=torch.bool, device=x.device), x.flip(1)
        ),
    ),
    "FFTs over four": ("inference", 33, lambda x: torch.fft.ifftn(torch.fft.fftn(x)).real),
}
"""Operators that differ, in percent, as docs/memory.md says."""


class _Applies(nn.Module):
    """An operator on a map that a product made, as a layer has it."""

    def __init__(self, operator: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.operator, self.scale = operator, nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        return self.operator(x * self.scale)


def _difference(operator: Callable[[Tensor], Tensor], mode: MemoryMode) -> float:
    model, shape = _Applies(operator), (4, 32, 16, 16)
    # Not zeros, for which some formulas take another way.
    found = profiled(model, torch.rand(shape) + 0.5, mode=mode)
    trace = simulate(model.to("meta"), torch.empty(shape, device="meta"), mode=mode)
    return trace.peak.amount / found.peak - 1


@pytest.mark.parametrize("mode", ["inference", "backward"])
@pytest.mark.parametrize("name", OPERATORS)
def test_operators(name: str, mode: MemoryMode) -> None:
    assert _difference(OPERATORS[name], mode) == pytest.approx(0, abs=TOLERANCE)


@pytest.mark.parametrize("name", KNOWN)
def test_known_differences_are_as_large_as_the_docs_say(name: str) -> None:
    mode, percent, operator = KNOWN[name]
    assert 100 * _difference(operator, mode) == pytest.approx(percent, abs=3)
    page = (Path(__file__).parents[2] / "docs" / "memory.md").read_text()
    (line,) = (line for line in page.splitlines() if line.startswith("  |") and name in line)
    assert line.endswith(f"| {mode} | {percent:+d} % |")
