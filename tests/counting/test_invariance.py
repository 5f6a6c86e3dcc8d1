"""The same count on meta and CPU, fused and plain, first and second call; nothing changed."""

import copy
from collections import Counter

import pytest
import torch
from torch import nn

import datbench
from datbench import Resolution, Setting
from datbench.counting.conventions import CONVENTIONS
from datbench.counting.count import Count
from tests.nets import Call, short

NAMES = ["dat_t", "datpp_t", "dat_t_sra", "dat_t_ddetr_16_16"]


def _totals(count: Count, phase: str | None = None) -> dict[str, int]:
    return {name: count.total(found, phase) for name, found in CONVENTIONS.items()}


@pytest.mark.parametrize("name", NAMES)
def test_devices_and_attention_agree(name: str) -> None:
    size = Resolution(100, 76)
    counts = [
        datbench.count_model(short(name), Setting(size, device=device, attention=attention))
        for device in ("meta", "cpu")
        for attention in ("eager", "sdpa")
    ]
    assert len({tuple(_totals(count).values()) for count in counts}) == 1


def test_backward_agrees_between_devices_and_its_products_with_attention() -> None:
    products = set()
    for attention in ("eager", "sdpa"):
        meta, cpu = (
            datbench.count_model(
                short("dat_t"),
                Setting(Resolution(96, 64), device=device, attention=attention, backward=True),
            )
            for device in ("meta", "cpu")
        )
        for name in ("fvcore", "torch", "mmdet"):
            assert meta.total(name) == cpu.total(name)
        products.add(cpu.total("torch"))
        if attention == "eager":  # each device has a fused kernel of its own
            assert _backward(meta) == _backward(cpu)
    assert len(products) == 1


def _backward(count: Count) -> Counter[tuple[object, ...]]:
    return Counter(
        (call.operator, call.module, call.bytes_read, call.bytes_written)
        for call in count.calls
        if call.phase == "backward"
    )


def test_second_call_and_model_unchanged() -> None:
    model = datbench.create_model(short("datpp_t")).train()
    model.stem.register_forward_hook(lambda *args: None)
    before = copy.deepcopy(model.state_dict())
    hooks = [
        (len(m._forward_hooks), len(m._forward_pre_hooks), m.training) for m in model.modules()
    ]
    state = torch.random.get_rng_state()
    x = torch.randn(1, 3, 64, 64)
    after_x = torch.random.get_rng_state()
    first = datbench.count(model, x, backward=True)
    second = datbench.count(model, x, backward=True)
    assert _totals(first) == _totals(second)
    assert len(first.calls) == len(second.calls)
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key]), key
    assert all(parameter.grad is None for parameter in model.parameters())
    assert hooks == [
        (len(m._forward_hooks), len(m._forward_pre_hooks), m.training) for m in model.modules()
    ]
    assert torch.equal(torch.random.get_rng_state(), after_x)
    assert not torch.equal(state, after_x)
    assert not nn.modules.module._global_forward_hooks
    assert not nn.modules.module._global_forward_pre_hooks


def test_batch_norm_keeps_its_statistics_in_training() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)).train()
    before = copy.deepcopy(model.state_dict())
    count = datbench.count(model, torch.randn(2, 3, 8, 8), backward=True)
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key]), key
    # Training statistics: 5 an element, not the 2 of evaluation.
    assert count.total(phase="forward") == 2 * 64 * (3 * 4 + 5 * 4)


def test_batch_scales_macs_and_dtype_scales_bytes() -> None:
    size = Resolution(64, 64)
    one, three, half = (
        datbench.count_model(short("dat_t"), Setting(size, **options))
        for options in ({}, {"batch": 3}, {"dtype": "bfloat16"})
    )
    assert three.total() == 3 * one.total()
    assert half.total() == one.total()
    moved = [
        sum(call.bytes_written for call in count.calls if call.operator == "aten::linear")
        for count in (one, half)
    ]
    assert moved[0] == 2 * moved[1]


def test_bytes_and_intensity_of_one_operator() -> None:
    (group,) = datbench.count(nn.Linear(64, 32), torch.empty(8, 64)).by_operator()
    assert group.bytes_read == 4 * (8 * 64 + 64 * 32 + 32)
    assert group.bytes_written == 4 * 8 * 32
    assert group.intensity == 8 * 64 * 32 / (group.bytes_read + group.bytes_written)


def test_copies_move_bytes_and_views_do_not() -> None:
    def moves(x: torch.Tensor) -> torch.Tensor:
        x = x.reshape(4, 16).t()  # views
        x = x.reshape(64)  # a copy: 256 bytes each way
        return x.to(torch.float64)  # 256 read, 512 written

    for device in ("cpu", "meta"):
        count = datbench.count(Call(moves), torch.zeros(8, 8, device=device))
        assert sum(call.bytes_read for call in count.calls) == 256 + 256
        assert sum(call.bytes_written for call in count.calls) == 256 + 512


def test_breakdowns_sum_to_the_total() -> None:
    count = datbench.count_model(short("datpp_t"), Setting(Resolution(64, 64), backward=True))
    for name in CONVENTIONS:
        total = count.total(name)
        groups = (count.by_stage(name), count.by_operator(name), count.by_module(name, depth=3))
        assert [sum(group.amount for group in each) for each in groups] == [total] * 3
    names = {group.key for group in count.by_stage()}
    assert {"stem", "stages.0", "stages.1", "stages.2", "stages.3", "head"} <= names


def test_backward_is_attributed_to_the_module_of_the_forward() -> None:
    count = datbench.count_model(short("dat_t"), Setting(Resolution(64, 64), backward=True))
    weigh = CONVENTIONS["torch"].weigh
    sums: dict[str, Counter[str]] = {"forward": Counter(), "backward": Counter()}
    for call in count.calls:
        if amount := weigh(call.cost, call.module_type):
            sums[call.phase][call.module] += amount
    # The image has no gradient.
    once = sums["forward"]
    assert sums["backward"] == {name: n * (2 - (name == "stem.0")) for name, n in once.items()}
