"""The `mmdet` convention against hooks on modules, written here from mmcv 1.x's rules."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import datbench
from benchmarks.published_way import goldens
from tests.nets import Call


def _convolution(module: nn.Module, x: Tensor, out: Tensor) -> int:
    macs = out.numel() * math.prod(module.weight.shape[1:])
    return macs + (out.numel() if module.bias is not None else 0)


def _linear(module: nn.Module, x: Tensor, out: Tensor) -> int:
    return x.numel() * out.shape[-1]


def _norm(module: nn.Module, x: Tensor, out: Tensor) -> int:
    affine = getattr(module, "affine", False) or getattr(module, "elementwise_affine", False)
    return x.numel() * (2 if affine else 1)


HOOKS: dict[type[nn.Module], Any] = {
    nn.Conv2d: _convolution,
    nn.Linear: _linear,
    nn.LayerNorm: _norm,
    nn.BatchNorm2d: _norm,
    nn.GroupNorm: _norm,
    nn.ReLU: lambda module, x, out: out.numel(),
    nn.ReLU6: lambda module, x, out: out.numel(),
    nn.MaxPool2d: lambda module, x, out: x.numel(),
    nn.AdaptiveAvgPool2d: lambda module, x, out: x.numel(),
    nn.Upsample: lambda module, x, out: out.numel(),
}


def _hooked(model: nn.Module, x: Tensor) -> int:
    """What mmcv's `get_model_complexity_info` adds up: modules by exact class."""
    total = 0

    def hook(module: nn.Module, inputs: tuple[Tensor, ...], out: Tensor) -> None:
        nonlocal total
        total += HOOKS[type(module)](module, inputs[0], out)

    handles = [m.register_forward_hook(hook) for m in model.modules() if type(m) in HOOKS]
    with torch.no_grad():
        model(x)
    for handle in handles:
        handle.remove()
    return total


THEIR_NAME = {"dat_t_sra": "dat_t_pyramid", "dat_t_ddetr_16_16": "ddetr_16_16"}


@pytest.mark.parametrize(
    "name",
    ["dat_t", "dat_t_star", "datpp_t", "dat_t_sra", "dat_t_dwconv_bias", "dat_t_ddetr_16_16"],
)
def test_our_models_count_as_the_published_code_would(name: str) -> None:
    """Also where a published 1x1 convolution, with its bias, is a linear layer here."""
    theirs = goldens.build({**THEIR_NAME, "dat_t_dwconv_bias": "dat_t_dwconv"}.get(name, name))
    expected = _hooked(theirs.eval(), torch.zeros(1, 3, 96, 160))
    ours = datbench.create_model(name, device="meta").eval()
    count = datbench.count(ours, torch.zeros(1, 3, 96, 160, device="meta"))
    assert count.total("mmdet") == expected


def test_plain_modules() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Upsample(scale_factor=2),
        nn.GroupNorm(2, 8, affine=False),
        nn.ReLU6(),
        nn.GELU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 4),
        nn.LayerNorm(4),
    ).eval()
    x = torch.zeros(2, 3, 32, 32)
    assert datbench.count(model, x).total("mmdet") == _hooked(model, x)


def test_products_outside_hooked_modules_do_not_count() -> None:
    attention = Call(lambda x: nn.functional.linear(x, x) @ x)
    assert datbench.count(attention, torch.zeros(4, 4)).total("mmdet") == 0
